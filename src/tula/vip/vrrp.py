"""VIPs that keepalived puts on one balancer at a time. Tula tells it which, by a generated file,
and how well this balancer serves; it is not needed for a failover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tula.kernel.engines import Engine
from tula.kernel.network import Network
from tula.model.announcing import Announcing
from tula.model.bgp import BgpSessionState
from tula.model.command import Command
from tula.model.desired import DesiredVip
from tula.model.errors import KernelError
from tula.model.high_availability import VipMac
from tula.model.host import HostView, OwnedAddress
from tula.vip.generated import EngineChange, GeneratedEngine
from tula.vip.keepalived import (
    SERVICES,
    STANDBY,
    parse_keepalived,
    parse_virtual_macs,
    render_keepalived,
    render_services,
    render_standby,
)


class VrrpVips:
    """keepalived in one network namespace."""

    def __init__(self, engine: Engine, network: Network) -> None:
        self._engine = engine
        self._network = network
        self._kept = GeneratedEngine(engine)
        self._virtual: tuple[str, tuple[bytes, ...]] | None = None
        """Where frames for the virtual MAC address are to be taken, by the last ``diff``."""

    def unsupported(self, wanted: Sequence[DesiredVip], announcing: Announcing | None) -> list[str]:
        if not wanted:
            return []
        if announcing is None:
            return ["this machine has none of the addresses of load_balancers; add it there"]
        missing = self._engine.missing()
        if missing:
            return [f"vrrp: {missing}"]
        vrrp = announcing.settings.vrrp
        if vrrp is None or vrrp.mac is VipMac.OWN:
            return []
        interface = vrrp.interface or announcing.interface
        return [
            f"vrrp: {vip.address} is on {vip.interface}, and mac: virtual is for {interface} "
            "alone; take mac: own"
            for vip in wanted
            if vip.interface != interface
        ][:1]

    def diff(
        self,
        host: HostView,  # noqa: ARG002
        wanted: Sequence[DesiredVip],
        announcing: Announcing | None,
    ) -> EngineChange:
        if self.unsupported(wanted, announcing):
            return EngineChange()
        text = render_keepalived(wanted, announcing, self._engine.place.parent)
        self._virtual = parse_virtual_macs(text or "")
        return self._kept.diff(text)

    def take(self, change: EngineChange) -> tuple[EngineChange, list[str]]:
        refused = self._kept.take(change)
        return (EngineChange() if refused else change), refused

    def serve(
        self, wanted: Sequence[DesiredVip], served: Mapping[str, bool], standby: bool
    ) -> list[str]:
        if not wanted:
            return []
        services = {name for vip in wanted for name in vip.services}
        failures = []
        if self._virtual is not None:
            # Not for keepalived's device to do: that is there on the active balancer alone.
            failures += self._admit(*self._virtual, on=True)
        for name, text in (
            (SERVICES, render_services(services, served)),
            (STANDBY, render_standby(standby)),
        ):
            try:
                if self._engine.read(name) != text:
                    self._engine.write(name, text)
            except KernelError as error:
                failures.append(str(error))
        return failures

    def announce(self, host: HostView) -> list[str]:  # noqa: ARG002
        return []

    def announce_again(self, host: HostView) -> list[str]:  # noqa: ARG002
        return []

    def release(self, change: EngineChange) -> list[str]:
        """Nothing before ``settle``."""
        del change
        return []

    def settle(self, change: EngineChange) -> list[str]:
        ends = bool(change) and change.text is None
        try:
            have = self._engine.read() or "" if change else ""
        except KernelError as error:
            return [str(error)]
        failures = self._kept.settle(change)
        virtual, left = parse_virtual_macs(have), parse_keepalived(have)
        if virtual is not None and virtual != parse_virtual_macs(change.text or ""):
            failures += self._admit(*virtual, on=False)
        if not ends or failures:
            return failures
        # It takes its addresses along; one that was killed does not.
        try:
            for held in self._network.view(()).addresses:
                owned = OwnedAddress(held.address.ip, held.interface)
                if owned in left and not held.ours:
                    self._network.remove_address(owned)
        except KernelError as error:
            failures.append(str(error))
        return failures

    def _admit(self, interface: str, macs: tuple[bytes, ...], *, on: bool) -> list[str]:
        try:
            for mac in macs:
                self._network.admit(interface, mac, on=on)
        except KernelError as error:
            return [str(error)]
        return []

    def undo(self, change: EngineChange) -> None:
        """Nothing was put in place yet."""

    def hold(self) -> None:
        self._kept.hold()

    def let_go(self) -> list[str]:
        return self._kept.let_go()

    def revive(self) -> list[str]:
        return self._kept.revive()

    def removal(self) -> list[Command]:
        return self._kept.removal()

    def sessions(self) -> list[BgpSessionState]:
        return []
