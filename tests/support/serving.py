"""A network of the lab that balances by a configuration, changed step by step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.builders import trace_flow
from support.in_process import InProcess, call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import vip_of
from tula.config.load import load_config
from tula.lab import Host, LabError, Network, TcpFlow, ask_all, flows, tcp_flows
from tula.model.config import Protocol
from tula.model.flow import Flow

LoadedConfig = dict[str, Any]
"""The configuration's keys; its services are by name, "web" is the one that is asked."""
Answers = dict[int, str]
"""By the client's port: who answered."""


class Serving:
    """One service "web", TCP and UDP port 80 on all VIPs, by the first three backends."""

    def __init__(self, network: Network, path: Path, **keys: Any) -> None:
        """``keys`` are further ones of the service."""
        self.network = network
        self.client, self.lb = network.client, network.lb
        self.path = path
        self._here = InProcess(self.lb)
        self._opened: list[TcpFlow] = []
        self.configuration: LoadedConfig = {"services": {"web": self.service(**keys)}}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for flow in self._opened:  # by RST: the ports are free again
            flow.close(reset=True)

    def service(self, **keys: Any) -> dict[str, Any]:
        """A service like "web" but for these keys."""
        three = backends_of(*self.network.backends[:3])
        return service_of(self.network, **{"protocol": ["tcp", "udp"], "backends": three, **keys})

    @property
    def web(self) -> dict[str, Any]:
        """The service that is asked; change it, then apply."""
        found: dict[str, Any] = self.configuration["services"]["web"]
        return found

    def apply(self, by_command: bool = False) -> bool:
        """Brings the balancer to the configuration; whether anything changed."""
        configuration = write_config(self.path, **self.configuration)
        if by_command:
            applied = self.lb.tula("apply", "-f", configuration, "--json").stdout
            return bool(json.loads(applied)["changed"])
        return bool(self._here.apply(configuration))

    def forget_state(self) -> None:
        """What a lost disk does."""
        directory = Path(self.lb.environment()["TULA_STATE_DIR"])
        shutil.rmtree(directory)
        directory.mkdir()

    def start_over(self) -> None:
        """No table, no state."""
        self.lb.run(["nft", "delete", "table", "netdev", "tula"], check=False)
        self.forget_state()

    def connect(self, family: int, ports: Iterable[int]) -> list[TcpFlow]:
        """TCP connections from these ports of the first client's."""
        opened = tcp_flows(self.client, vip_of(self.network, family), 80, ports)
        self._opened += opened
        return opened

    def udp(self, family: int, ports: Iterable[int], **keys: Any) -> Answers:
        """A datagram from each of these ports; asked again, it is the same flow."""
        return flows(self.client, vip_of(self.network, family), 80, ports, "udp", **keys)

    def trace(self, family: int, port: int, protocol: str, *more: str | Path) -> dict[str, Any]:
        """What ``tula trace`` says of the first client's flow."""
        vip, client = vip_of(self.network, family), self.address(family)
        target, asker = (
            (f"[{vip}]:80", f"[{client}]:{port}")
            if family == 6
            else (f"{vip}:80", f"{client}:{port}")
        )
        words = ("trace", target, "--client", asker, "--protocol", protocol, "--json", *more)
        found: dict[str, Any] = json.loads(call_tula(self.lb, *words).stdout)
        return found

    def address(self, family: int) -> str:
        """The first client's."""
        return next(
            a
            for a in self.client.addresses("eth0")
            if (":" in a) == (family == 6) and not a.startswith("fe80")
        )

    def entry(self, family: int, protocol: str, port: int) -> str | None:
        """The backend that the kernel's table holds for the first client's flow, by its name."""
        with self.lb.enter():
            found = self._here.balancer.find_entry(self._flow(family, protocol, port))
        backends = load_config(self.path).config.services[0].backends
        return next((b.name for b in backends if found and b.key == found.backend), None)

    def _flow(self, family: int, protocol: str, port: int) -> Flow:
        client, vip = (ip_address(a) for a in (self.address(family), vip_of(self.network, family)))
        return Flow(client, port, vip, 80, Protocol(protocol))

    def by_hash(self, family: int, protocol: str, port: int) -> str | None:
        """Where the configuration sends a flow that no table holds."""
        config = load_config(self.path).config
        return trace_flow(config, self._flow(family, protocol, port)).backend

    def status(self) -> dict[str, Any]:
        """``tula status --json``."""
        found: dict[str, Any] = json.loads(call_tula(self.lb, "status", "--json").stdout)
        return found


class Held:
    """Open TCP connections and live UDP flows of both IP versions, and who answers them."""

    def __init__(self, serving: Serving, count: int = 60, first: int = 20000) -> None:
        self._serving = serving
        self._ports = range(first, first + count)
        self.tcp = {family: serving.connect(family, self._ports) for family in (4, 6)}
        self.backends = self.answers()

    def answers(self) -> dict[tuple[int, str, int], str]:
        """By IP version, protocol and port; raises LabError for a flow without an answer."""
        found = {}
        for family, open_flows in self.tcp.items():
            found |= {(family, "tcp", p): name for p, name in ask_all(open_flows).items()}
            answered = self._serving.udp(family, self._ports)
            found |= {(family, "udp", p): name for p, name in answered.items()}
        return found


def broken(flow: TcpFlow) -> str:
    """How a connection failed at once; empty if it was answered."""
    try:
        flow.ask()
    except LabError as error:
        return str(error)
    return ""


ENDS = "tcp flags & (fin|rst) != 0"
ALL_TCP = "meta l4proto tcp"


@contextmanager
def silent(host: Host, packets: str = ENDS) -> Iterator[None]:
    """The host sends neither FIN nor RST, as if it had crashed; or none of other ``packets``."""
    rules = (
        "add table inet silent",
        "add chain inet silent out { type filter hook output priority 0; }",
        f"add rule inet silent out {packets} drop",
    )
    host.run(["nft", "-f", "-"], input="\n".join(rules))
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", "inet", "silent"])
