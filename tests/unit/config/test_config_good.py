"""The configurations of ``tests/configurations`` are accepted, and mean what they should."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from support.configurations import GOOD, render_config
from tula.config.load import load_config, parse_config
from tula.model.config import (
    Affinity,
    Backend,
    Config,
    Forwarding,
    MaglevSettings,
    MarkRange,
    PortRange,
    Protocol,
    Scheduler,
    VirtualService,
)
from tula.model.listening import ApiSettings, Endpoint, MetricsSettings, Source
from tula.model.monitor import (
    DnsProbe,
    HealthMonitor,
    HealthPolicy,
    HttpProbe,
    HttpsProbe,
    TcpProbe,
)
from tula.model.problem import Problem

DOCUMENTS = sorted(GOOD.glob("*.yaml"))


def load(stem: str) -> Config:
    (path,) = GOOD.glob(f"*_{stem}.yaml")
    return load_config(path).config


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_accepted_and_the_same_when_written_out(path: Path) -> None:
    configuration = load_config(path)
    assert configuration.source == path.read_text()
    assert parse_config(render_config(configuration.config)).config == configuration.config


def test_the_whole_contract() -> None:
    assert load("the_whole_contract") == Config(
        interfaces=("eth0",),
        load_balancers=(("lb1", ip_address("10.0.0.2")),),
        maglev=MaglevSettings(slots=65537, seed=1),
        marks=MarkRange(0x10000, 0xFFFFFFFF),
        api=ApiSettings(
            (Endpoint(ip_address("10.0.0.2"), 8420),),
            "/etc/tula/tls.crt",
            "/etc/tula/tls.key",
            Source.API,
        ),
        metrics=MetricsSettings(
            (Endpoint(ip_address("127.0.0.1"), 9420), Endpoint(ip_address("::1"), 9420))
        ),
        services=(
            VirtualService(
                name="web",
                vips=(ip_address("198.51.100.10"),),
                protocols=(Protocol.TCP,),
                ports=(PortRange(80, 80), PortRange(443, 443), PortRange(8000, 8010)),
                forwarding=Forwarding.L2,
                backends=(
                    Backend("cache-1", (ip_address("10.0.0.11"),), 100),
                    Backend("cache-2", (ip_address("10.0.0.12"), ip_address("2001:db8::12"))),
                ),
                health=(HealthMonitor(HttpProbe(path="/healthz")),),
            ),
        ),
    )


def test_the_minimal_document_is_all_defaults() -> None:
    assert load("minimal") == Config(interfaces=("eth0",), services=())


def test_dual_stack() -> None:
    (dns,) = load("dual_stack").services
    assert dns.protocols == (Protocol.TCP, Protocol.UDP)
    assert dns.versions == (4, 6)
    assert dns.scheduler is Scheduler.SOURCE_HASH
    assert dns.announce is False
    assert [backend.weight for backend in dns.backends] == [100, 0]
    lookup, tcp = dns.health
    assert (lookup.interval, lookup.timeout) == (0.5, 0.25)
    assert lookup.probe == DnsProbe("example.org", record="AAAA")
    assert tcp.probe == TcpProbe(5353, "PING", "PONG")


def test_any_stands_beside_explicit_ports() -> None:
    web, api, rest, rest_udp = load("any_beside_explicit_ports").services
    assert web.ports == (PortRange(80, 80), PortRange(443, 443))
    assert (api.affinity, api.announce) == (Affinity.CLIENT, "eth0")
    assert rest.ports == rest_udp.ports == ()


def test_names_are_read_as_written() -> None:
    config = load("names_that_yaml_or_nft_would_misread")
    names = ["123", "1e3", "on", "no", "null", "drop", "counter", "0x10", "2024-01-01", "-"]
    assert [service.name for service in config.services] == names
    assert config.interfaces == ("on", "10")


def test_merges() -> None:
    web, www, other = load("anchors_and_merges").services
    assert [(b.name, b.key, b.weight) for b in web.backends] == [
        ("cache-1", "10.0.0.11", 10),
        ("cache-2", "10.0.0.12", 10),
    ]
    assert www.backends == web.backends
    assert www.vips == other.vips
    assert other.ports == (PortRange(8080, 8080),)
    assert {b.name: b.key for b in other.backends} == {
        "cache-1": "10.0.0.11",
        "cache-2": "10.0.0.13",
    }


def test_services_replace_defaults_key_by_key() -> None:
    inherits, replaces, unchecked = load("defaults_give_and_services_replace").services
    assert inherits.scheduler is unchecked.scheduler is Scheduler.SOURCE_HASH
    assert replaces.scheduler is Scheduler.MAGLEV
    assert [m.type for m in inherits.health] == ["icmp"]
    assert [m.type for m in replaces.health] == ["tcp", "script"]
    assert unchecked.health == ()
    assert [b.name for b in replaces.backends] == ["cache-9"]


def test_health_of_several_checks() -> None:
    plain, several, one, beside = load("health_of_several_checks").services
    assert (plain.health, plain.policy) == ((), HealthPolicy())
    assert several.policy == HealthPolicy(require_all=False, slow_start=30.0, panic=50)
    assert several.health == (
        HealthMonitor(
            HttpsProbe(
                path="/ready",
                host="www.example.org",
                headers=(("X-Probe", "tula"), ("Accept", "text/plain")),
                verify=True,
                expires_within=2592000.0,
            ),
            interval=5.0,
            fast_interval=0.5,
        ),
        HealthMonitor(TcpProbe(8443), interval=1.0, timeout=0.3),
        HealthMonitor(HttpProbe(9100, host="www.example.org"), interval=5.0, via="direct"),
    )
    assert one.policy == HealthPolicy(panic=None)
    assert one.health == (HealthMonitor(TcpProbe(25)),)
    assert [m.type for m in beside.health] == ["http", "http"]
    assert [m.probe.path for m in beside.health] == ["/a", "/b"]


def test_an_interface_that_is_not_watched_is_warned_of() -> None:
    text = """\
interfaces: [eth0]
services:
  web: {vip: 198.51.100.10, ports: any, forwarding: l2, announce: eth1, backends: {}}
"""
    message = "eth1 is not in interfaces: traffic that arrives there is not balanced"
    warning = Problem(("services", "web", "announce"), message)
    assert parse_config(text).warnings == [warning]


def test_a_scope_that_only_one_service_names_is_warned_of() -> None:
    text = """\
interfaces: [eth0]
defaults: {vip: 198.51.100.10, forwarding: l2, backends: {}}
services:
  a: {ports: 1, persistence: {timeout: 5m, scope: ftp}}
  b: {ports: 2, persistence: {timeout: 5m, scope: fpt}}
  c: {ports: 3, persistence: {timeout: 5m, scope: vip}}
"""
    alone = "no other service gives scope {!r}, so it remembers alone; is it spelt alike?"
    assert parse_config(text).warnings == [
        Problem(("services", "a", "persistence"), alone.format("ftp")),
        Problem(("services", "b", "persistence"), alone.format("fpt")),
    ]
    assert parse_config(text.replace("fpt", "ftp")).warnings == []
