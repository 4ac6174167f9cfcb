"""The contract of ``DataPath``, for every implementation: the fake, and nftables on a fake table
and in the kernel. Where packets decide, see tests/packets/test_data_path.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import pytest

from support.builders import make_backend, make_config, make_host, make_service, make_shared
from tula.dataplane.nft.transaction import AddCounter, DeleteTable
from tula.dataplane.port import DataPath, Receipt
from tula.kernel.failures import Failures
from tula.kernel.fake import FakeNetwork, FakeTunnels
from tula.kernel.fake_data_path import FakeDataPath
from tula.kernel.fake_nftables import FakeNftables
from tula.kernel.network import KernelNetwork
from tula.kernel.nft_data_path import NftDataPath
from tula.kernel.nftables import KernelNftables, Nftables
from tula.kernel.tunnels import KernelTunnels
from tula.lab import Lab, require_private_namespace
from tula.model.config import Config, PortRange, Protocol, Scheduler
from tula.model.errors import KernelError, StaleError
from tula.model.flow import Flow
from tula.model.health import BackendName, BackendStatus, State
from tula.model.high_availability import SharedFlows
from tula.model.host import HostView
from tula.plan.backend_status import NO_SHARES
from tula.plan.desired import Plan, adjust_plan, plan_desired
from tula.plan.routes import plan_routes

B = [make_backend(number) for number in range(3)]
VIPS = ("10.0.0.100", "2001:db8::100")
WEB = make_config(
    make_service("web", VIPS, backends=B),
    make_service("dns", VIPS, [PortRange(53, 53)], B[:2], [Protocol.UDP], Scheduler.WRR),
)
LESS = make_config(make_service("web", VIPS, backends=B[:2]))
DOWN = BackendStatus(State.DOWN, 0, False)
UP = BackendStatus(State.UP, 100, True)
FLOW = Flow(ip_address("10.0.0.77"), 4711, ip_address(VIPS[0]), 80, Protocol.TCP)


@dataclass
class Subject:
    """One implementation; ``change`` is what others do: anything, or removing all of Tula's."""

    path: DataPath
    host: HostView
    others: Callable[[], None]
    remove: Callable[[], None]
    refuse: Callable[[bool], None]

    def plan(
        self, config: Config, statuses: dict[BackendName, BackendStatus] | None = None
    ) -> Plan:
        routes = plan_routes(config, self.host, force=True)
        host = replace(self.host, links=dict(self.host.links))
        return plan_desired(config, host, routes, statuses or {}, NO_SHARES)

    def bring(self, plan: Plan, memory: Any = None) -> Receipt:
        """To the plan, by an observation."""
        have = self.path.observe()
        change = self.path.diff(have, plan.state, memory or self.path.recall({}))
        return self.path.commit(change, have.revision)

    def settled(self, plan: Plan, receipt: Receipt) -> bool:
        """Whether an observation finds nothing to do."""
        return not self.path.diff(self.path.observe(), plan.state, receipt.memory)


def _nft(nftables: Nftables, tunnels: Any, host: HostView, refuse: Any) -> Subject:
    counters = iter(range(1000))

    def others() -> None:
        # Foreign to the table, so the next comparison removes it.
        nftables.run((AddCounter(f"foreign{next(counters)}"),))

    return Subject(
        NftDataPath(nftables, tunnels),
        host,
        others,
        lambda: nftables.run((DeleteTable(),)) and None,
        refuse,
    )


def _fake() -> Subject:
    failures = Failures()
    path = FakeDataPath(failures)

    def refuse(refused: bool) -> None:
        failures.refuse("path.commit") if refused else failures.allow("path.commit")

    def others() -> None:
        state = path.state
        path.meddle(replace(state, seed=state.seed + 1) if state is not None else None)

    return Subject(path, make_host(WEB), others, lambda: path.meddle(None), refuse)


def _nft_on_a_fake() -> Subject:
    failures, host = Failures(), make_host(WEB)
    nftables, tunnels = FakeNftables(failures=failures), FakeTunnels(FakeNetwork(host))

    def refuse(refused: bool) -> None:
        failures.refuse("nftables.run") if refused else failures.allow("nftables.run")

    return _nft(nftables, tunnels, host, refuse)


class _Refusing(KernelNftables):
    """The kernel's table, with the refusals of a test."""

    refused = False

    def run(self, transaction: Any, generation: int | None = None) -> int | None:
        if self.refused and transaction:
            raise KernelError("nft refused the change: No space left on device")
        return super().run(transaction, generation)


@pytest.fixture(
    params=["fake", "nft-on-a-fake", pytest.param("nft", marks=pytest.mark.kernel)],
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "fake":
        yield _fake()
        return
    if request.param == "nft-on-a-fake":
        yield _nft_on_a_fake()
        return
    with Lab() as lab:
        host = lab.host("lb", lab.switch(), "10.0.0.2/16", "2001:db8::2/64")
        with host.enter():
            require_private_namespace()
            view = KernelNetwork().view({address for backend in B for address in backend.addresses})
            nftables = _Refusing()
            yield _nft(nftables, KernelTunnels(), view, lambda on: setattr(nftables, "refused", on))


def test_from_nothing_and_back(subject: Subject) -> None:
    path, plan = subject.path, subject.plan(WEB)
    assert not path.observe().present
    receipt = subject.bring(plan)
    assert path.observe().present
    assert receipt.revision == path.observe().revision
    assert receipt.revision in receipt.own
    assert receipt.warnings == ()
    assert subject.settled(plan, receipt)
    assert not path.drifted(receipt, path.observe())
    gone = path.diff(path.observe_presence(), None, receipt.memory)
    assert gone
    path.commit(gone, None)
    assert not path.observe().present
    assert not path.diff(path.observe_presence(), None, receipt.memory)


def test_an_empty_change_changes_nothing(subject: Subject) -> None:
    plan = subject.plan(WEB)
    first = subject.bring(plan)
    again = subject.bring(plan, first.memory)
    assert again.revision == first.revision == subject.path.observe().revision
    assert again.own == frozenset()


def test_a_commit_on_another_revision_does_nothing_and_says_so(subject: Subject) -> None:
    path, receipt = subject.path, subject.bring(subject.plan(WEB))
    have = path.observe()
    change = path.diff(have, subject.plan(LESS).state, receipt.memory)
    subject.others()
    found = path.observe()
    with pytest.raises(StaleError):
        path.commit(change, have.revision)
    assert path.observe() == found


@pytest.mark.parametrize(
    "config",
    [WEB, make_shared(WEB), make_shared(WEB, SharedFlows.ALL)],
    ids=["alone", "exceptions-shared", "all-shared"],
)
def test_a_receipt_is_enough_when_only_weights_moved(subject: Subject, config: Config) -> None:
    path, plan = subject.path, subject.plan(config)
    receipt = subject.bring(plan)
    nobody = {("web", backend.name): DOWN for backend in B}
    some: tuple[dict[BackendName, BackendStatus], ...] = (
        {("web", "b0"): DOWN},
        {("web", "b0"): DOWN, ("dns", "b1"): DOWN},
        nobody,
        dict.fromkeys([*nobody, ("dns", "b1")], UP),
    )
    for statuses in some:
        plan = adjust_plan(plan, statuses, NO_SHARES)
        change = path.diff(receipt, plan.state, receipt.memory)
        assert change
        receipt = path.commit(change, receipt.revision)
        assert receipt.revision == path.observe().revision
        assert receipt.revision in receipt.own
        assert subject.settled(plan, receipt), "an observation agrees"


def test_a_receipt_is_too_little_for_anything_else(subject: Subject) -> None:
    path, receipt = subject.path, subject.bring(subject.plan(WEB))
    with pytest.raises(StaleError):
        path.diff(receipt, subject.plan(LESS).state, receipt.memory)
    with pytest.raises(StaleError):
        path.diff(receipt, None, receipt.memory)


def test_somebody_elses_change_makes_a_receipt_stale(subject: Subject) -> None:
    path, plan = subject.path, subject.plan(WEB)
    receipt = subject.bring(plan)
    subject.others()
    moved = adjust_plan(plan, {("web", "b0"): DOWN}, NO_SHARES)
    change = path.diff(receipt, moved.state, receipt.memory)
    with pytest.raises(StaleError):
        path.commit(change, receipt.revision)
    assert path.drifted(receipt, path.observe())
    assert subject.settled(moved, subject.bring(moved, receipt.memory))


def test_a_refused_commit_leaves_all_as_it_was(subject: Subject) -> None:
    path, receipt = subject.path, subject.bring(subject.plan(WEB))
    before = path.observe()
    subject.refuse(True)
    with pytest.raises(KernelError):
        subject.bring(subject.plan(LESS), receipt.memory)
    subject.refuse(False)
    assert path.observe() == before
    assert subject.bring(subject.plan(LESS), receipt.memory).own


def test_what_is_remembered_outlives_a_restart(subject: Subject) -> None:
    path, receipt = subject.path, subject.bring(subject.plan(WEB))
    memory = path.recall(path.dump(receipt.memory))
    assert memory == receipt.memory
    named = [path.probe_socket("web", backend.key, memory) for backend in B]
    assert len({socket.priority for socket in named}) == len(B)
    subject.remove()
    again = subject.bring(subject.plan(WEB), memory)
    assert [path.probe_socket("web", backend.key, again.memory) for backend in B] == named
    assert path.recall({"damaged": 1}) == path.recall({})


def test_what_is_down_is_known_to_be_left_out(subject: Subject) -> None:
    path, plan = subject.path, subject.plan(WEB, {("web", "b1"): DOWN})
    names = [("web", backend.key) for backend in B] + [("web", "10.9.9.9")]
    assert path.observe().left_out(names, path.recall({})) == frozenset()
    first = subject.bring(subject.plan(WEB))
    assert path.observe().left_out(names, first.memory) == frozenset()
    receipt = subject.bring(plan, first.memory)
    assert path.observe().left_out(names, receipt.memory) == {("web", B[1].key)}


def test_who_gets_packets_is_known(subject: Subject) -> None:
    path, plan = subject.path, subject.plan(WEB, {("web", "b1"): DOWN})
    names = [("web", backend.key) for backend in B] + [("web", "10.9.9.9")]
    assert path.observe().serving(names, path.recall({})) == frozenset()
    receipt = subject.bring(plan)
    others = {("web", backend.key) for backend in B if backend.name != "b1"}
    assert path.observe().serving(names, receipt.memory) == others
    assert path.observe().serving(names, subject.bring(subject.plan(WEB)).memory) >= others


def test_who_gets_no_new_flows_is_known(subject: Subject) -> None:
    path = subject.path
    statuses = {("web", "b1"): DOWN, ("web", "b2"): replace(DOWN, present=True)}
    names = [("web", backend.key) for backend in B] + [("web", "10.9.9.9")]
    assert path.observe().refusing(names, path.recall({})) == frozenset()
    receipt = subject.bring(subject.plan(WEB, statuses))
    assert path.observe().refusing(names, receipt.memory) == {("web", B[2].key)}


def test_all_of_it_taken_away_is_noticed_and_put_back(subject: Subject) -> None:
    path, plan = subject.path, subject.plan(WEB)
    receipt = subject.bring(plan)
    subject.remove()
    found = path.observe()
    assert not found.present
    assert path.drifted(receipt, found)
    assert subject.settled(plan, subject.bring(plan, receipt.memory))


def test_nothing_was_counted_yet(subject: Subject) -> None:
    path, receipt = subject.path, subject.bring(subject.plan(WEB))
    stats = path.stats(receipt.memory)
    assert all(count.packets == 0 for count in stats.backends.values())
    assert path.connections(receipt.memory, 5.0) == {}
    assert path.connections(receipt.memory, -1.0) is None
    assert path.look_up(FLOW, receipt.memory) is None
    assert path.look_up(FLOW, receipt.memory, 7) is None


@pytest.mark.parametrize("by_client", [False, True])
def test_a_choice_is_one_of_the_slots_and_stays(subject: Subject, by_client: bool) -> None:
    table = subject.plan(WEB).state.services[0].maglev
    assert table is not None
    flows = [replace(FLOW, client_port=port) for port in range(1024, 1224)]
    slots = [subject.path.choose(table, flow, 7, by_client=by_client) for flow in flows]
    assert slots == [subject.path.choose(table, flow, 7, by_client=by_client) for flow in flows]
    assert all(0 <= slot < len(table.slots) for slot in slots)
    assert (len(set(slots)) == 1) is by_client


@pytest.mark.parametrize("flows", [SharedFlows.MOVED, SharedFlows.ALL])
def test_flows_are_shared_and_no_longer(subject: Subject, flows: SharedFlows) -> None:
    path, alone, plan = subject.path, subject.plan(WEB), subject.plan(make_shared(WEB, flows))
    receipt = subject.bring(alone)
    assert path.share_again(receipt) == receipt, "with nobody"
    receipt = subject.bring(plan, receipt.memory)
    assert receipt.revision in receipt.own
    assert subject.settled(plan, receipt)
    assert not path.drifted(receipt, path.observe())
    more = subject.plan(make_shared(WEB, flows, peers=2))
    receipt = subject.bring(more, receipt.memory)
    assert subject.settled(more, receipt)
    receipt = subject.bring(alone, receipt.memory)
    assert subject.settled(alone, receipt)
    receipt = subject.bring(plan, receipt.memory)
    path.commit(path.diff(path.observe_presence(), None, receipt.memory), None)
    assert not path.diff(path.observe_presence(), None, receipt.memory)


def test_who_came_back_is_told_again(subject: Subject) -> None:
    path, plan = subject.path, subject.plan(make_shared(WEB))
    receipt = subject.bring(plan)
    again = path.share_again(receipt)
    assert again.revision == path.observe().revision
    assert again.revision in again.own
    assert again.memory == receipt.memory
    assert subject.settled(plan, again)
    moved = adjust_plan(plan, {("web", "b0"): DOWN}, NO_SHARES)
    left = path.commit(path.diff(again, moved.state, again.memory), again.revision)
    assert left.revision == path.observe().revision, "it goes on from there"
    assert left.revision in left.own
    assert left.tells_again, "other flows are exceptions now"
    told = path.share_again(left)
    assert not told.tells_again
    assert told.own > left.own, "both changes are its own"
    subject.others()
    assert path.share_again(told).revision is None, "somebody else has changed something"


def test_a_change_is_told_to_people(subject: Subject) -> None:
    path = subject.path
    change = path.diff(path.observe(), subject.plan(WEB).state, path.recall({}))
    assert change.parts == ("rules",)
    assert {step.verb for step in change.steps()} == {"add"}
