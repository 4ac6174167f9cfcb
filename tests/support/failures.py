"""Errors at any call of any part of the kernel."""

from __future__ import annotations

from typing import Any

from support.builders import FakeMachine
from tula.engine.assemble import Engines, vip_owners
from tula.engine.reader import Adapters
from tula.kernel.nft_data_path import NftDataPath
from tula.model.errors import KernelError


class Failures:
    """Says which call fails: the ``due``-th from now, once; None: none does."""

    def __init__(self) -> None:
        self.due: int | None = None
        self.failed: list[str] = []

    def wrap(self, machine: FakeMachine) -> Adapters:
        """The machine's adapters, of a kernel whose calls fail when it is their turn."""
        network: Any = _Failing(machine.network, "network", self)
        nftables: Any = _Failing(machine.nftables, "nftables", self)
        tunnels: Any = _Failing(machine.tunnels, "tunnels", self)
        announcer: Any = _Failing(machine.announcer, "announcer", self)
        keepalived: Any = _Failing(machine.engines.keepalived, "keepalived", self)
        vip_routes: Any = _Failing(machine.engines.vip_routes, "vip_routes", self)
        bird: Any = _Failing(machine.engines.bird, "bird", self)
        route: Any = _Failing(machine.probe_route, "probe_route", self)
        sysctls: Any = _Failing(machine.sysctls, "sysctls", self)
        return Adapters(
            path=NftDataPath(nftables, tunnels),
            network=network,
            vips=vip_owners(network, announcer, Engines(keepalived, bird, vip_routes)),
            probe_route=route,
            sysctls=sysctls,
        )

    def meet(self, call: str) -> None:
        """Raises KernelError if this call is the one."""
        if self.due is not None:
            self.due -= 1
            if self.due < 0:
                self.due = None
                self.failed.append(call)
                raise KernelError(f"{call}: injected")


class _Failing:
    def __init__(self, part: object, name: str, failures: Failures) -> None:
        self._part = part
        self._name = name
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not callable(found):
            return found

        def met(*arguments: Any, **keywords: Any) -> Any:
            self._failures.meet(f"{self._name}.{name}")
            return found(*arguments, **keywords)

        return met
