"""Joins of any configurations in any order, killed at any command: leave puts all back."""

from __future__ import annotations

import re
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.builders import make_config, make_service
from tula.agent.agent import Agent, CannotJoinError, Repair
from tula.agent.diff import parts_of
from tula.agent.plan import Role, role_by_name
from tula.agent.record import Record, RecordFile, Source
from tula.kernel.fake_backend_host import FakeBackendHost
from tula.model.backend_setup import UNMANAGED_FILE, ObservedLink, disable_ipv6
from tula.model.config import Backend, Config, Tunnel, TunnelSettings
from tula.model.errors import KernelError

ARP = "net/ipv4/conf/all/arp_ignore"
ANNOUNCE = "net/ipv4/conf/all/arp_announce"
FOUR = Backend("one", (ip_address("10.0.1.1"),))
SIX = Backend("one", (ip_address("2001:db8::1"),))
VIPS = ["10.0.0.100", "10.0.0.101", "2001:db8::100"]
BALANCERS = [("a", ip_address("10.0.0.2")), ("b", ip_address("10.0.0.3")),
             ("c", ip_address("2001:db8::2"))]  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """One to three services of one backend, by any forwarding."""
    backend = draw(st.sampled_from([FOUR, SIX]))
    services = [
        make_service(
            f"s{number}",
            draw(st.lists(st.sampled_from(VIPS), min_size=1, unique=True)),
            backends=[backend],
            tunnel=draw(st.sampled_from([None, *Tunnel])),
        )
        for number in range(draw(st.integers(1, 3)))
    ]
    balancers = tuple(draw(st.lists(st.sampled_from(BALANCERS), unique=True)))
    tunnels = TunnelSettings(vxlan_id=draw(st.sampled_from([7, 21621])))
    return replace(make_config(*services), load_balancers=balancers, tunnels=tunnels)


@st.composite
def machines(draw: st.DrawFn) -> FakeBackendHost:
    """With settings, VIPs and devices of its own, or without; with dummy devices or not."""
    host = FakeBackendHost(lacking=draw(st.sampled_from([frozenset({"dummy"}), frozenset[str]()])))
    host.settings = {ARP: draw(st.sampled_from("0128")), ANNOUNCE: draw(st.sampled_from("012"))}
    if draw(st.booleans()):
        host.addresses.add((ip_address(VIPS[0]), "lo"))
    if draw(st.booleans()):
        host.links["own"] = ObservedLink("vxlan", "", True, {"id": 99, "port": 4789})
    return host


def role(config: Config) -> Role:
    found = role_by_name(config, "one")
    assert found is not None
    return found


RECORD = Record((Source("tula.yaml", "text"),))


def take(data: st.DataObject, host: FakeBackendHost, before: FakeBackendHost) -> None:
    """Takes some of what a join has added."""
    added = sorted(host.addresses - before.addresses, key=str)
    host.addresses -= set(data.draw(st.lists(st.sampled_from(added)))) if added else set()
    devices = sorted(host.links.keys() - before.links.keys())
    for name in set(data.draw(st.lists(st.sampled_from(devices)))) if devices else ():
        del host.links[name]
        host.addresses = {(a, d) for a, d in host.addresses if d != name}
        host.settings.pop(f"net/ipv4/conf/{name}/rp_filter", None)
    if data.draw(st.booleans()):
        host.filter = ""
        host.files.clear()


@given(st.data(), machines(), st.lists(configs(), min_size=1, max_size=4))
def test_any_joins_then_leave(
    data: st.DataObject, host: FakeBackendHost, many: list[Config]
) -> None:
    before = deepcopy(host)
    with TemporaryDirectory() as directory:
        agent = Agent(host, RecordFile(Path(directory)), unmanaged=UNMANAGED_FILE)
        for config in many:
            host.left = data.draw(st.none() | st.integers(0, 12))
            with suppress(FakeBackendHost.Killed):
                agent.join([role(config)], RECORD)
            take(data, host, before)
            with suppress(FakeBackendHost.Killed):
                agent.repair(lambda _, config=config: [role(config)])  # type: ignore[misc]
            host.left = None
        if data.draw(st.booleans()):
            agent.join([role(many[-1])], RECORD)
            again = agent.plan([role(many[-1])])
            assert again.steps == []
            assert not any(part.problem for part in parts_of(again.want, again.steps))
        host.left = data.draw(st.none() | st.integers(0, 6))
        with suppress(FakeBackendHost.Killed):
            agent.leave()
        host.left = None
        agent.leave()
        assert host == before
        assert agent.record() is None


@given(machines(), configs(), configs())
def test_a_second_document_changes_what_a_fresh_join_would_make(
    host: FakeBackendHost, one: Config, other: Config
) -> None:
    fresh = deepcopy(host)
    with TemporaryDirectory() as directory:
        agent = Agent(host, RecordFile(Path(directory)))
        agent.join([role(one)], RECORD)
        agent.join([role(other)], RECORD)
    with TemporaryDirectory() as directory:
        Agent(fresh, RecordFile(Path(directory))).join([role(other)], RECORD)
    assert host == fresh


def test_a_setting_that_somebody_changed_since_stays(tmp_path: Path) -> None:
    host = FakeBackendHost(settings={ARP: "0", ANNOUNCE: "0"})
    agent = Agent(host, RecordFile(tmp_path))
    agent.join([role(make_config(make_service(vips=VIPS, backends=[FOUR])))], RECORD)
    host.settings[ARP] = "8"
    agent.leave()
    assert host.settings == {ARP: "8", ANNOUNCE: "0"}


def test_what_the_kernel_lacks_and_where_vips_must_not_be(tmp_path: Path) -> None:
    host = FakeBackendHost(lacking=frozenset({"dummy", "sit"}))
    agent = Agent(host, RecordFile(tmp_path))
    tunnelled = make_config(make_service(vips=VIPS, backends=[FOUR], tunnel=Tunnel.IPIP))
    with pytest.raises(CannotJoinError, match="does not support sit, which"):
        agent.join([role(tunnelled)], RECORD)
    host.addresses.add((ip_address(VIPS[0]), "eth0"))
    with pytest.raises(CannotJoinError, match=r"ip address del 10.0.0.100/32 dev eth0"):
        agent.join([role(make_config(make_service(vips=VIPS, backends=[FOUR])))], RECORD)
    assert agent.record() is None


def test_a_repair_puts_back_all_that_it_can(tmp_path: Path) -> None:
    host = FakeBackendHost(settings={ARP: "0", ANNOUNCE: "0"})
    before = deepcopy(host)
    agent = Agent(host, RecordFile(tmp_path), unmanaged=UNMANAGED_FILE)
    config = make_config(make_service(vips=VIPS, backends=[FOUR], tunnel=Tunnel.VXLAN))
    assert agent.repair(lambda _: []) is None, "nothing was joined"
    agent.join([role(config)], RECORD)
    joined = deepcopy(host)
    wanted: list[Record] = []

    def roles(record: Record) -> list[Role]:
        wanted.append(record)
        return [role(config)]

    assert agent.repair(roles) == Repair()
    host.addresses.clear()
    host.files.clear()
    host.settings[ARP] = "0"
    host.settings[disable_ipv6("lo")] = "1"
    host.refused = {"2001:db8::100/128"}
    repair = agent.repair(roles)
    assert repair is not None
    assert [step.name for step in repair.done] == [
        ARP,
        UNMANAGED_FILE,
        f"{VIPS[0]} on lo",
        f"{VIPS[1]} on lo",
        f"{VIPS[0]} on tula-vxlan-rmlx",
    ]
    ((step, why),) = repair.failed
    assert step.reason.startswith("IPv6 is disabled on this machine")
    assert "refused" in why
    host.refused = set()
    host.settings.pop(disable_ipv6("lo"))
    repair = agent.repair(roles)
    assert repair is not None
    assert [step.name for step in repair.done] == [f"{VIPS[2]} on lo"]
    assert host == joined
    assert len(wanted) == 1, "the configuration is read once"
    agent.leave()
    assert host == before
    assert agent.repair(roles) is None


def test_one_machine_cannot_be_two_endpoints_of_a_vxlan(tmp_path: Path) -> None:
    two = [FOUR, Backend("two", (ip_address("10.0.1.2"),))]
    config = make_config(make_service(vips=VIPS, backends=two, tunnel=Tunnel.VXLAN))
    service = config.services[0]
    both = Role(config, tuple((service, backend) for backend in two))
    with pytest.raises(CannotJoinError, match="two backends"):
        Agent(FakeBackendHost(), RecordFile(tmp_path)).join([both], RECORD)


def test_a_damaged_or_newer_record_is_refused(tmp_path: Path) -> None:
    records = RecordFile(tmp_path)
    records.path.write_text("{")
    with pytest.raises(KernelError, match="damaged"):
        records.read()
    records.write(replace(RECORD, version=9))
    with pytest.raises(KernelError, match="version 9"):
        records.read()


def test_a_record_of_version_1_is_left_as_one_of_today(tmp_path: Path) -> None:
    host = FakeBackendHost(settings={ARP: "0", ANNOUNCE: "2"})
    before = deepcopy(host)
    records = RecordFile(tmp_path)
    agent = Agent(host, records)
    tunnelled = make_config(make_service(vips=VIPS, backends=[FOUR], tunnel=Tunnel.VXLAN))
    agent.join([role(tunnelled)], RECORD)
    joined = records.read()
    old = records.path.read_text()
    for name, former in [
        ("setup", "side"),
        ("devices", "ends"),
        ("attributes", "told"),
        ("loose_rp_filter", "loose"),
        ("written", "made"),
    ]:
        assert f'"{name}"' in old
        old = old.replace(f'"{name}"', f'"{former}"')
    records.path.write_text(re.sub(r'"version": ?2', '"version": 1', old))
    assert records.read() == joined
    agent.leave()
    assert host == before
