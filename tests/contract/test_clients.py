"""The contract of ``DataPath`` for persistent clients. What packets decide, see tests/packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.dataplane.nft.client_maps import clients_map
from tula.dataplane.nft.ruleset import MapName
from tula.dataplane.port import DataPath, Memory
from tula.kernel.fake import FakeNetwork, FakeTunnels
from tula.kernel.fake_data_path import FakeDataPath
from tula.kernel.fake_nftables import FakeNftables
from tula.kernel.network import KernelNetwork
from tula.kernel.nft_data_path import NftDataPath
from tula.kernel.nftables import KernelNftables, Nftables
from tula.lab import Host, Lab, require_private_namespace
from tula.model.client_scopes import ClientScope, client_scopes
from tula.model.config import Config, IPAddress, PortRange
from tula.model.host import HostView
from tula.model.persistence import Persistence
from tula.plan.backend_status import NO_SHARES
from tula.plan.desired import plan_desired
from tula.plan.routes import plan_routes

B = [make_backend(number) for number in range(3)]
VIPS = ("10.0.0.100", "2001:db8::100")
ONE = Persistence(300.0, prefix=24, prefix6=64)
TOGETHER = Persistence(300.0, scope="together")


def _config() -> Config:
    services = (
        replace(make_service("web", VIPS, backends=B), persistence=ONE),
        replace(
            make_service("ftp", VIPS, [PortRange(21, 21)], backends=B), persistence=TOGETHER
        ),
        replace(
            make_service("data", VIPS, [PortRange(3000, 3010)], backends=B), persistence=TOGETHER
        ),
    )  # fmt: skip
    return make_config(*services)


CONFIG = _config()
WEB, FTP = client_scopes(CONFIG.services)


@dataclass
class Subject:
    """One implementation, brought to CONFIG; ``remember`` is what packets do."""

    path: DataPath
    memory: Memory
    remember: Callable[[ClientScope, IPAddress, str], None]


def _fake() -> Subject:
    path = FakeDataPath()
    host = make_host(CONFIG)
    plan = plan_desired(CONFIG, host, plan_routes(CONFIG, host), {}, NO_SHARES)
    receipt = path.commit(path.diff(path.observe(), plan.state, path.recall({})), None)

    def remember(scope: ClientScope, client: IPAddress, backend: str) -> None:
        path.held[scope.services[0], scope.client(client)] = backend, 250.0

    return Subject(path, receipt.memory, remember)


def _on_nftables(
    nftables: Nftables, host: HostView, remember: Callable[[MapName, bytes, int], None]
) -> Subject:
    path = NftDataPath(nftables, FakeTunnels(FakeNetwork(host)))
    plan = plan_desired(CONFIG, host, plan_routes(CONFIG, host, force=True), {}, NO_SHARES)
    receipt = path.commit(path.diff(path.observe(), plan.state, path.recall({})), None)

    def learn(scope: ClientScope, client: IPAddress, backend: str) -> None:
        name = clients_map(scope, client.version, CONFIG.connections.size)
        mark = receipt.memory.mark(scope.services[-1], backend)
        remember(name, scope.client(client).network_address.packed, mark)

    return Subject(path, receipt.memory, learn)


def _nft_on_a_fake() -> Subject:
    nftables = FakeNftables()

    def remember(name: MapName, key: bytes, mark: int) -> None:
        nftables.flows[str(name), key] = mark

    return _on_nftables(nftables, make_host(CONFIG), remember)


def _nft_in_the_kernel(balancer: Host) -> Subject:
    def remember(name: MapName, key: bytes, mark: int) -> None:
        element = f"0x{key.hex()} timeout 250s : {mark:#x}"
        balancer.run(["nft", "add", "element", "netdev", "tula", str(name), f"{{ {element} }}"])

    view = KernelNetwork().view({address for backend in B for address in backend.addresses})
    return _on_nftables(KernelNftables(), view, remember)


@pytest.fixture(params=["fake", "nft", pytest.param("kernel", marks=pytest.mark.kernel)])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param != "kernel":
        yield _fake() if request.param == "fake" else _nft_on_a_fake()
        return
    with Lab() as lab:
        balancer = lab.host("lb", lab.switch("switch"), "10.0.0.2/16", "2001:db8::2/64")
        with balancer.enter():
            require_private_namespace()
            yield _nft_in_the_kernel(balancer)


CLIENT4, CLIENT6 = ip_address("192.0.2.7"), ip_address("2001:db8:7::7")


@pytest.mark.parametrize("client", [CLIENT4, CLIENT6])
def test_a_client_is_found_by_any_address_of_its_network(
    subject: Subject, client: IPAddress
) -> None:
    path, memory = subject.path, subject.memory
    assert path.look_up_client(WEB, client, memory) is None
    subject.remember(WEB, client, B[1].key)
    found = path.look_up_client(WEB, client + 1, memory)
    assert found is not None
    assert found.services == ("web",)
    assert found.client == WEB.client(client)
    assert found.backend == B[1].key
    assert found.seconds is None or 0 < found.seconds <= ONE.timeout
    assert path.look_up_client(FTP, client, memory) is None, "another scope"
    next_network = client + (256 if client.version == 4 else 2**64)
    assert path.look_up_client(WEB, next_network, memory) is None


def test_clients_are_listed_up_to_a_limit(subject: Subject) -> None:
    path, memory = subject.path, subject.memory
    assert path.clients((WEB, FTP), memory, 10).entries == ()
    clients = [CLIENT4 + number for number in range(5)]
    for client in clients:
        subject.remember(FTP, client, B[0].key)
    subject.remember(WEB, CLIENT6, B[2].key)
    found = path.clients((WEB, FTP), memory, 10)
    assert not found.cut
    assert {(e.services, e.client, e.backend) for e in found.entries} == {
        *((FTP.services, FTP.client(client), B[0].key) for client in clients),
        (("web",), WEB.client(CLIENT6), B[2].key),
    }
    part = path.clients((FTP,), memory, 3)
    assert part.cut
    assert len(part.entries) == 3
    assert path.clients((WEB,), memory, 1).cut is False


def test_a_client_is_forgotten_or_all_are(subject: Subject) -> None:
    path, memory = subject.path, subject.memory
    for client in (CLIENT4, CLIENT4 + 1, CLIENT6):
        subject.remember(FTP, client, B[0].key)
    subject.remember(WEB, CLIENT4, B[1].key)
    assert path.forget_clients((WEB, FTP), ip_address("192.0.2.99"), memory) == 1, "in the /24"
    assert path.look_up_client(WEB, CLIENT4, memory) is None
    assert path.forget_clients((FTP,), CLIENT4, memory) == 1
    assert path.forget_clients((FTP,), CLIENT4, memory) == 0
    assert path.look_up_client(FTP, CLIENT4 + 1, memory) is not None
    assert path.forget_clients((WEB, FTP), None, memory) in (2, None)
    assert path.clients((WEB, FTP), memory, 10).entries == ()
