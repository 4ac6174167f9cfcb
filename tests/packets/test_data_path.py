"""The contract of ``DataPath`` where packets decide, through the port alone.

::

    client              lb                 backend-1, -2, -3
       │                 │                      │   (VIPs on lo)
    ═══╧═════════════════╧══════════════════════╧═══  lan

Without packets: tests/contract/test_data_path.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, PROTOCOLS, address_of, vip_of
from tula.config.load import parse_config
from tula.dataplane.port import DataPath, Receipt
from tula.engine.assemble import Engines, kernel_data_path, vip_owners
from tula.kernel.announce import KernelAnnouncer
from tula.kernel.engines import BIRD, KEEPALIVED, FakeEngine
from tula.kernel.fake import FakeVipRoutes
from tula.kernel.network import KernelNetwork
from tula.lab import Lab, LabError, Network, flat, flows, serve_tcp, serve_udp, tcp_flows
from tula.lab.clients import ask_all
from tula.model.config import Protocol
from tula.model.flow import Flow, FlowEntry
from tula.model.health import BackendStatus, State
from tula.plan.backend_status import NO_SHARES
from tula.plan.desired import Plan, adjust_plan, plan_desired
from tula.plan.routes import backend_addresses, plan_routes

pytestmark = pytest.mark.kernel

IMPLEMENTATIONS: dict[str, Callable[[], DataPath]] = {"nft": kernel_data_path}
DOWN = BackendStatus(State.DOWN, 0, False)


@dataclass
class Site:
    """A network whose balancer was brought to a plan by its data path alone."""

    network: Network
    path: DataPath
    plan: Plan
    receipt: Receipt

    def flow(self, family: int, protocol: str, port: int) -> Flow:
        client, vip = address_of(self.network.client, family), vip_of(self.network, family)
        return Flow(ip_address(client), port, ip_address(vip), 80, Protocol(protocol))

    def chosen(self, family: int, protocol: str, port: int) -> str:
        """The backend that a new flow gets, by its name."""
        (service,) = self.plan.state.services
        table, seed = service.maglev, self.plan.state.seed
        assert table is not None
        flow = self.flow(family, protocol, port)
        slot = self.path.choose(table, flow, seed, by_client=service.by_client)
        key = table.content[table.slots[slot]][0]
        return next(backend.name for backend in service.backends if backend.key == key)

    def key(self, name: str) -> str:
        """``Backend.key`` by the name."""
        (service,) = self.plan.state.services
        return next(backend.key for backend in service.backends if backend.name == name)

    def ask(self, family: int, protocol: str, ports: range) -> dict[int, str]:
        """Who answered, by the client's port."""
        vip = vip_of(self.network, family)
        return flows(self.network.client, vip, 80, ports, protocol)

    def take_down(self, name: str) -> None:
        """The backend's health changes: by the last receipt, without an observation."""
        self.plan = adjust_plan(self.plan, {("web", name): DOWN}, NO_SHARES)
        change = self.path.diff(self.receipt, self.plan.state, self.receipt.memory)
        self.receipt = self.path.commit(change, self.receipt.revision)


@pytest.fixture(params=IMPLEMENTATIONS)
def site(
    request: pytest.FixtureRequest, lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    network = flat(lab)
    for backend in network.backends:
        serve_tcp(backend, [80])
        serve_udp(backend, [80])
    service = service_of(network, protocol=["tcp", "udp"])
    file = write_config(tmp_path_factory.mktemp("lb") / "tula.yaml", {"web": service})
    config = parse_config(file.read_bytes()).config
    with network.lb.enter():
        path, kernel = IMPLEMENTATIONS[request.param](), KernelNetwork()
        vips = vip_owners(
            kernel,
            KernelAnnouncer(),
            Engines(FakeEngine(KEEPALIVED), FakeEngine(BIRD), FakeVipRoutes()),
        )
        host = kernel.view(backend_addresses(config))
        routes = plan_routes(config, host)
        assert not routes.problems
        plan = plan_desired(config, host, routes, {}, NO_SHARES)
        have = path.observe()
        change = path.diff(have, plan.state, path.recall({}))
        receipt = path.commit(change, have.revision)
        _, failures = vips.take(vips.diff(host, plan.state.vips, None))
        assert failures + vips.announce(host) == []
        yield Site(network, path, plan, receipt)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_packets_go_where_the_path_says(site: Site, family: int, protocol: str) -> None:
    ports = range(20000, 20100)
    answers = site.ask(family, protocol, ports)
    assert answers == {port: site.chosen(family, protocol, port) for port in ports}
    memory = site.receipt.memory
    entry = site.path.look_up(site.flow(family, protocol, 20000), memory)
    if protocol == "udp":
        assert entry == FlowEntry("web", site.key(answers[20000]))
        assert site.path.connections(memory, 5.0) == {
            ("web", site.key(name)): list(answers.values()).count(name)
            for name in set(answers.values())
        }
    assert site.path.look_up(site.flow(family, protocol, 19999), memory) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_commit_on_a_receipt_moves_no_other_flow(site: Site, family: int) -> None:
    opened = tcp_flows(site.network.client, vip_of(site.network, family), 80, range(21000, 21100))
    before = ask_all(opened)
    gone = before[21000]
    kept = [flow for flow in opened if before[flow.source_port] != gone]
    site.take_down(gone)
    assert ask_all(kept) == {flow.source_port: before[flow.source_port] for flow in kept}
    answers = site.ask(family, "udp", range(22000, 22100))
    assert gone not in answers.values()
    assert answers == {port: site.chosen(family, "udp", port) for port in answers}
    observed = site.path.observe()
    assert not site.path.drifted(site.receipt, observed)
    assert observed.left_out([("web", site.key(gone))], site.receipt.memory)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_packet_is_counted_once_also_when_its_backend_goes(site: Site, family: int) -> None:
    answers = site.ask(family, "udp", range(23000, 23100))
    sent = {name: list(answers.values()).count(name) for name in set(answers.values())}
    stats = site.path.stats(site.receipt.memory).backends
    assert {key: count.packets for (_, key), count in stats.items()} == {
        site.key(name): packets for name, packets in sent.items()
    }
    gone = answers[23000]
    site.take_down(gone)
    assert site.receipt.retired["web", site.key(gone)].packets == sent[gone]
    assert ("web", site.key(gone)) not in site.path.stats(site.receipt.memory).backends


def test_what_is_removed_leaves_the_machine_to_itself(site: Site) -> None:
    path = site.path
    gone = path.diff(path.observe_presence(), None, site.receipt.memory)
    path.commit(gone, None)
    # The VIP is still this machine's: its own stack answers, as it does to any port of its own.
    with pytest.raises(LabError, match=r"refused"):
        site.ask(4, "tcp", range(24000, 24001))
