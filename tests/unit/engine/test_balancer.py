"""What apply and clear do, in which order, and what they leave when the kernel says no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from support.builders import (
    FakeMachine,
    make_backend,
    make_config,
    make_host,
    make_numbered,
    make_service,
)
from tula.dataplane.nft.schema import SCHEMA, schema_counter
from tula.dataplane.nft.transaction import (
    DeleteChain,
    DeleteCounter,
    DeleteMap,
    Transaction,
    in_turn,
)
from tula.engine.differences import NO_TABLE
from tula.engine.kernel_state import observe_kernel
from tula.engine.store import ChangedSysctl
from tula.model.config import Config, PortRange, Tunnel
from tula.model.errors import KernelError
from tula.model.health import BackendStatus, State
from tula.model.host import HostAddress, HostView, Link, OwnedAddress
from tula.model.monitor import HealthMonitor, TcpProbe
from tula.model.problem import ProblemsError

VIP4, VIP6 = "10.0.0.100", "2001:db8::100"
BACKENDS = [make_backend(0), make_backend(1)]
WEB = make_config(make_service("web", [VIP4, VIP6], backends=BACKENDS))
OTHER = make_config(make_service("api", ["10.0.0.101"], backends=BACKENDS))


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path / "state", WEB)


def apply(machine: FakeMachine, config: Config, source: bytes = b"document") -> bool:
    return bool(machine.balancer.apply(config, source))


def ours(machine: FakeMachine) -> list[tuple[str, str]]:
    held = [a for a in machine.network.host.addresses if a.ours]
    return sorted((a.interface, str(a.address.ip)) for a in held)


def journal(machine: FakeMachine) -> list[str]:
    """Notes what is asked of the kernel from now on, in its order."""
    notes: list[str] = []

    def note(owner: object, method: str, word: str) -> None:
        original: Callable[..., Any] = getattr(owner, method)

        def noted(*arguments: Any) -> Any:
            first = arguments[0]
            notes.append(f"{word} {getattr(first, 'address', first)}" if word else "rules")
            return original(*arguments)

        setattr(owner, method, noted)

    note(machine.network, "add_address", "add")
    note(machine.network, "remove_address", "remove")
    note(machine.announcer, "announce", "announce")
    note(machine.nftables, "run", "")
    return notes


def test_after_apply_there_is_nothing_to_do(machine: FakeMachine) -> None:
    planned = machine.balancer.plan(WEB, b"")
    done = machine.balancer.apply(WEB, b"document")
    assert list(done.change.steps()) == list(planned.steps())
    assert planned
    assert not machine.balancer.plan(WEB, b"")
    assert not apply(machine, WEB)
    assert ours(machine) == [("eth0", VIP4), ("eth0", VIP6)]
    assert machine.store.configuration() == b"document"


def test_one_comparison_reads_the_elements_once(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(machine, WEB)

    def counts() -> object:
        raise AssertionError("dumped again")

    monkeypatch.setattr(machine.nftables, "counts", counts)
    apply(machine, OTHER)
    assert not machine.balancer.plan(OTHER, b"document")


def test_ssh_is_looked_for_only_when_a_service_may_take_its_port(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        machine.network, "ssh_ports", lambda: asked.append("ssh") or frozenset({2222})
    )
    apply(machine, WEB)
    assert not asked
    own = make_config(make_service("web", ["10.0.0.2"], [PortRange(2222, 2222)], [make_backend(0)]))
    with pytest.raises(ProblemsError, match="port 2222 is its SSH"):
        machine.balancer.plan(own, b"")
    assert asked == ["ssh"]
    machine.balancer.plan(own, b"", force=True)
    machine.balancer.reconcile(own, machine.balancer.without_monitors(own))
    assert asked == ["ssh"], "an accepted configuration is not refused any more"


def test_waiting_for_an_interface_takes_no_ssh_port(machine: FakeMachine) -> None:
    own = make_config(
        make_service("web", ["10.0.0.2"], [PortRange(22, 22)], [make_backend(0)]),
        interfaces=["eth0", "late"],
    )
    with pytest.raises(ProblemsError, match="is its SSH"):
        machine.balancer.apply(own, b"document", late=True)
    assert machine.nftables.table is None


def test_plan_changes_nothing(machine: FakeMachine) -> None:
    before = machine.network.host
    assert machine.balancer.plan(WEB, b"")
    assert machine.nftables.table is None
    assert machine.network.host == before
    assert not machine.store.directory.exists()


def test_addresses_come_before_the_rules_and_go_after_them(machine: FakeMachine) -> None:
    """But where there is no table, as after a reboot, the rules are first."""
    notes = journal(machine)
    apply(machine, WEB)
    assert notes == [
        "rules",
        *(f"add {VIP4}", f"add {VIP6}"),
        *(f"announce {VIP4}", f"announce {VIP6}"),
    ]
    notes.clear()
    apply(machine, OTHER)
    new = "10.0.0.101"
    assert notes == [
        # Then the maps of IPv6, which no rule refers to now.
        *(f"add {new}", "rules", "rules", f"announce {new}"),
        *(f"remove {VIP4}", f"remove {VIP6}"),
    ]
    notes.clear()
    apply(machine, OTHER)
    assert notes == [], "nobody is told twice"


@pytest.mark.parametrize("refusal", ["rules", "second address"])
def test_a_refusal_leaves_everything_and_says_why(machine: FakeMachine, refusal: str) -> None:
    apply(machine, OTHER, b"good")
    table, host = machine.nftables.table, machine.network.host
    both = replace(make_service("web", [VIP4], backends=BACKENDS), name="web")
    second = make_service("api", ["10.1.0.101"], backends=BACKENDS)
    config = make_config(both, second, interfaces=["eth0", "eth1"])
    if refusal == "rules":
        machine.nftables.refuse = "nft refused the change: No space left on device"
    else:
        machine.network.refuse.add("eth1")
    with pytest.raises(KernelError, match=r"No space left|cannot add 10\.1\.0\.101 on eth1"):
        apply(machine, config, b"bad")
    assert machine.nftables.table == table
    assert machine.network.host == host
    assert machine.store.configuration() == b"good"
    assert machine.announcer.announced == [OwnedAddress(ip_address("10.0.0.101"), "eth0")]
    machine.nftables.refuse = ""
    machine.network.refuse.clear()
    assert apply(machine, config, b"bad"), "what stood in the way is gone"
    assert not machine.balancer.plan(config, b"")


def test_maps_that_cannot_go_yet_are_no_failure(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The configuration is accepted and all is done; the next comparison removes them."""
    apply(machine, WEB)
    run = machine.nftables.run

    def busy(transaction: Transaction, generation: int | None = None) -> int | None:
        if transaction and isinstance(transaction[0], DeleteMap):
            raise KernelError("Device or resource busy")
        return run(transaction, generation)

    with monkeypatch.context() as patched:
        patched.setattr(machine.nftables, "run", busy)
        apply(machine, OTHER, b"other")
    assert machine.store.configuration() == b"other"
    _, left_over = in_turn(machine.balancer.plan(OTHER, b"").path.transaction)
    assert {type(step) for step in left_over} == {DeleteMap, DeleteChain, DeleteCounter}
    assert apply(machine, OTHER)
    assert not apply(machine, OTHER)


def test_an_address_that_is_refused_at_first_takes_the_table_back(machine: FakeMachine) -> None:
    host = machine.network.host
    machine.network.refuse.add("eth0")
    with pytest.raises(KernelError, match="cannot add"):
        apply(machine, WEB)
    assert machine.nftables.table is None
    assert machine.network.host == host


def test_an_address_that_is_refused_keeps_nothing_else_from_an_accepted_document(
    machine: FakeMachine,
) -> None:
    machine.network.refuse.add("eth0")
    statuses = machine.balancer.without_monitors(WEB)
    repair = machine.balancer.reconcile(WEB, statuses)
    assert [problem.message for problem in repair.problems] == [
        f"cannot add {vip} on eth0: Permission denied" for vip in (VIP4, VIP6)
    ]
    assert machine.nftables.table is not None
    assert not machine.announcer.announced
    assert not machine.balancer.reconcile(WEB, statuses).change, "told, and no change each time"
    machine.network.refuse.clear()
    change = machine.balancer.reconcile(WEB, statuses).change.vips
    assert len(change.steps(before=True)) == 2
    assert [str(a.address) for a in machine.announcer.announced] == [VIP4, VIP6]


def test_a_table_of_a_newer_tula_is_left_alone(machine: FakeMachine) -> None:
    apply(machine, WEB, b"good")
    assert machine.nftables.table is not None
    counters = machine.nftables.table.counters | {schema_counter(SCHEMA + 1)}
    table = machine.nftables.table = replace(machine.nftables.table, counters=counters)
    host, done = machine.network.host, len(machine.nftables.transactions)
    for change in (
        lambda: apply(machine, OTHER, b"other"),
        lambda: machine.balancer.plan(OTHER, b"other"),
        lambda: machine.balancer.reconcile(WEB, machine.balancer.without_monitors(WEB)),
        lambda: machine.balancer.missing(WEB),
    ):
        with pytest.raises(KernelError, match=f"of a newer Tula .schema {SCHEMA + 1}, this one"):
            change()
    assert (machine.nftables.table, machine.network.host) == (table, host)
    assert len(machine.nftables.transactions) == done
    assert machine.store.configuration() == b"good"
    machine.balancer.clear()
    assert machine.nftables.table is None


def test_a_document_that_does_not_fit_changes_nothing(machine: FakeMachine) -> None:
    notes = journal(machine)
    with pytest.raises(ProblemsError, match="no interface 'eth7' here"):
        apply(machine, replace(WEB, interfaces=("eth7",)))
    assert notes == []
    assert machine.store.configuration() is None


def test_clear_takes_back_what_apply_made(machine: FakeMachine) -> None:
    before = machine.network.host
    apply(machine, WEB)
    assert machine.balancer.clear()
    assert machine.nftables.table is None
    assert machine.network.host == before
    assert machine.store.configuration() is None
    assert (machine.store.directory / "cleared.yaml").read_bytes() == b"document"
    assert not machine.balancer.clear()
    assert (machine.store.directory / "cleared.yaml").exists()


def test_clear_takes_back_what_probes_needed(machine: FakeMachine) -> None:
    name = "net/ipv4/conf/eth0/rp_filter"
    machine.sysctls.values[name] = "2"
    machine.probe_route.versions = {4, 6}
    machine.store.save_sysctls({name: ChangedSysctl("1", "2")})
    apply(machine, WEB)
    machine.sysctls.refuse.add(name)
    with pytest.raises(KernelError, match=f"cannot set sysctl {name} to 1: Read-only"):
        machine.balancer.clear()
    assert machine.nftables.table is None, "the rest is done"
    assert machine.probe_route.versions == set()
    machine.sysctls.refuse.clear()
    machine.balancer.clear()
    assert machine.sysctls.values[name] == "1"


def test_a_refused_clear_leaves_everything(machine: FakeMachine) -> None:
    apply(machine, WEB)
    table, host = machine.nftables.table, machine.network.host
    machine.nftables.refuse = "busy"
    with pytest.raises(KernelError, match="busy"):
        machine.balancer.clear()
    assert (machine.nftables.table, machine.network.host) == (table, host)
    assert machine.store.configuration() == b"document"


def hold(host: HostView, interface: str, address: str) -> HostView:
    held = HostAddress(interface, ip_interface(address))
    return replace(host, addresses=(*host.addresses, held))


def test_a_vip_that_was_there_is_used_and_stays(machine: FakeMachine) -> None:
    machine.network.host = hold(machine.network.host, "eth0", f"{VIP4}/16")
    before = machine.network.host
    apply(machine, WEB)
    assert ours(machine) == [("eth0", VIP6)]
    assert [str(a.address) for a in machine.announcer.announced] == [VIP6]
    machine.balancer.clear()
    assert machine.network.host == before


def test_what_was_forced_once_is_accepted(machine: FakeMachine) -> None:
    machine.network.host = hold(machine.network.host, "eth0", f"{VIP4}/16")
    config = make_config(make_service("web", [VIP4], [PortRange(22, 22)], BACKENDS))
    for refused in (machine.balancer.plan, machine.balancer.apply):
        with pytest.raises(ProblemsError, match="--force"):
            refused(config, b"with SSH")
    machine.balancer.apply(config, b"with SSH", force=True)
    machine.nftables.table = None  # as after a reboot
    assert machine.balancer.plan(config, b"with SSH")
    assert apply(machine, config, b"with SSH")
    with pytest.raises(ProblemsError, match="--force"):
        apply(machine, config, b"with SSH, edited")


def test_a_vip_moves_to_another_interface(machine: FakeMachine) -> None:
    on = {
        name: make_config(make_service("web", [VIP4], backends=BACKENDS, announce=name))
        for name in ("eth0", "eth1")
    }
    apply(machine, on["eth0"])
    notes = journal(machine)
    apply(machine, on["eth1"])
    assert ours(machine) == [("eth1", VIP4)]
    assert notes == [f"add {VIP4}", f"announce {VIP4}", f"remove {VIP4}"]
    assert machine.announcer.announced[-1] == OwnedAddress(ip_address(VIP4), "eth1")


def test_a_routed_vip_is_nobodys_address(machine: FakeMachine) -> None:
    config = make_config(
        make_service("web", ["198.51.100.1"], backends=BACKENDS, announce=False),
    )
    assert apply(machine, config)
    assert machine.network.host == make_host(WEB)
    assert machine.announcer.announced == []


IN_TUNNELS = make_config(make_service("web", [VIP4, VIP6], backends=BACKENDS, tunnel=Tunnel.IPIP))


def test_devices_come_before_the_rules_and_go_after_them(machine: FakeMachine) -> None:
    notes: list[str] = []
    for owner, method in (
        (machine.tunnels, "prepare"),
        (machine.nftables, "run"),
        (machine.tunnels, "finish"),
    ):
        original = getattr(owner, method)

        def noted(*arguments: Any, original: Any = original, method: str = method) -> Any:
            notes.append(method)
            return original(*arguments)

        setattr(owner, method, noted)
    apply(machine, IN_TUNNELS)
    assert len(machine.tunnels.tunnels.devices) == 4
    apply(machine, WEB)
    # The rules, and then the maps that no rule refers to now.
    assert notes == ["prepare", "run", "finish", "prepare", "run", "run", "finish"]
    assert not machine.tunnels.tunnels.devices


@pytest.mark.parametrize("refusal", ["rules", "device", "address"])
def test_a_refusal_leaves_the_tunnels_as_they_were(machine: FakeMachine, refusal: str) -> None:
    apply(machine, WEB)
    host, table = machine.network.host, machine.nftables.table
    config = replace(IN_TUNNELS, services=(*IN_TUNNELS.services, *OTHER.services))
    if refusal == "rules":
        machine.nftables.refuse = "nft refused the change: No space left on device"
    elif refusal == "device":
        machine.network.host = replace(host, links={**host.links, **clashing(config, host)})
        host = machine.network.host
    else:
        machine.network.refuse.add("eth0")
    with pytest.raises(KernelError):
        apply(machine, config)
    assert (machine.network.host, machine.nftables.table) == (host, table)


def clashing(config: Config, host: HostView) -> dict[str, Link]:
    """A device of somebody else's, with the name of one that is needed."""
    name = next(iter(make_numbered(config, host).tunnels.devices))
    return {name: Link(name, 99)}


def test_a_kernel_without_the_kind_is_a_problem_of_the_document(machine: FakeMachine) -> None:
    machine.tunnels.refuse = {"sit", "ipip"}
    host = machine.network.host
    with pytest.raises(ProblemsError, match="this kernel has no ipip and sit"):
        apply(machine, IN_TUNNELS)
    assert machine.network.host == host
    assert machine.nftables.table is None


def test_clear_takes_the_tunnels_too(machine: FakeMachine) -> None:
    apply(machine, IN_TUNNELS)
    assert machine.balancer.clear()
    assert not machine.tunnels.tunnels.devices
    assert not machine.balancer.clear()


def test_what_a_daemon_left_down_is_down_without_it(machine: FakeMachine) -> None:
    checked = make_config(
        make_service("web", [VIP4], backends=BACKENDS, health=(HealthMonitor(TcpProbe()),))
    )
    statuses = dict(machine.balancer.without_monitors(checked))
    statuses["web", "b0"] = BackendStatus(State.DOWN, 0, present=False, reason="refused")
    machine.balancer.apply(checked, b"document", statuses=statuses)
    left = machine.balancer.left_statuses(checked)
    assert {name: status.state for name, status in left.items()} == {
        ("web", "b0"): State.DOWN,
        ("web", "b1"): State.UNKNOWN,
    }
    assert observe_kernel(machine.balancer, checked, left).in_sync
    machine.nftables.meddle(None)
    assert observe_kernel(machine.balancer, checked, left).differences == (NO_TABLE,)
