"""Configs as YAML, and random ones, for the tests of ``tula.config``."""

from __future__ import annotations

import json
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path

from hypothesis import strategies as st

from tula.model.admission import Limits, Refusal
from tula.model.config import (
    Affinity,
    Backend,
    Config,
    Connections,
    Forwarding,
    IPAddress,
    MaglevSettings,
    MarkRange,
    OnDown,
    PortRange,
    Protocol,
    Scheduler,
    Tunnel,
    UdpScheduling,
    VirtualService,
)
from tula.model.high_availability import Bgp, HighAvailability, SharedFlows, VipMac, Vrrp
from tula.model.listening import ApiSettings, Endpoint, MetricsSettings, Source
from tula.model.monitor import (
    AgentProbe,
    DnsProbe,
    HealthMonitor,
    HealthPolicy,
    HttpProbe,
    HttpsProbe,
    IcmpProbe,
    ScriptProbe,
    TcpProbe,
    UdpProbe,
)
from tula.model.notifying import (
    WORDS,
    BodyFormat,
    Email,
    Notifications,
    Receiver,
    StartTls,
)
from tula.model.persistence import ClientsOfDrained, Persistence
from tula.model.prefixes import PrefixList
from tula.model.severity import Severity

TESTS = Path(__file__).parents[1]
BAD = TESTS / "bad_configurations"
GOOD = TESTS / "configurations"


def render_config(config: Config) -> str:
    """YAML that says what the config says, every key written out."""
    lines = [
        f"interfaces: {_flow([str(name) for name in config.interfaces])}",
        f"load_balancers: {_flow({name: str(a) for name, a in config.load_balancers})}",
        *_high_availability(config.high_availability),
        "connections:",
        f"  enabled: {str(config.connections.enabled).lower()}",
        f"  size: {config.connections.size}",
        f"  tcp: {config.connections.tcp}",
        f"  tcp_half_open: {config.connections.tcp_half_open}s",
        f"  udp: {config.connections.udp}",
        "maglev:",
        f"  seed: {config.maglev.seed:#x}",
        *([f"  slots: {config.maglev.slots}"] if config.maglev.slots else []),
        f"marks: {{first: {config.marks.first:#x}, last: {config.marks.last}}}",
        "api:",
        *_listen(config.api.listen),
        *([f"  certificate: {config.api.certificate}"] if config.api.certificate else []),
        *([f"  key: {config.api.key}"] if config.api.key else []),
        f"  source: {config.api.source}",
        "metrics:" if config.metrics.listen else "metrics: {}",
        *_listen(config.metrics.listen),
        f"notify: {_flow([_receiver(each) for each in config.notify.receivers])}",
        "services:" if config.services else "services: {}",
    ]
    for service in config.services:
        lines += [f"  {service.name}:", *(f"    {line}" for line in _service(service))]
    return "\n".join(lines) + "\n"


def _high_availability(settings: HighAvailability) -> list[str]:
    lines = ["high_availability:", f"  flows: {settings.flows}", f"  port: {settings.port}"]
    if settings.vrrp is not None:
        interface = {"interface": settings.vrrp.interface} if settings.vrrp.interface else {}
        keys = {
            "id": settings.vrrp.id,
            "interval": settings.vrrp.interval,
            "mac": settings.vrrp.mac,
        }
        lines.append(f"  vrrp: {_flow(interface | keys)}")
    if settings.bgp is not None:
        routers = {str(address): number for address, number in settings.bgp.routers}
        keys = {"as": settings.bgp.number, "routers": routers, "bfd": settings.bgp.bfd}
        lines.append(f"  bgp: {_flow(keys)}")
    return lines


def _receiver(receiver: Receiver) -> dict[str, object]:
    keys = {f.name: getattr(receiver, f.name) for f in fields(receiver)}
    of_webhooks = ("format", "headers", "token_file", "verify")
    keys = {
        key: value
        for key, value in keys.items()
        if value not in ("", (), None) and (receiver.webhook or key not in of_webhooks)
    }
    if receiver.headers:
        keys["headers"] = dict(receiver.headers)
    if receiver.email is not None:
        email = {f.name: getattr(receiver.email, f.name) for f in fields(Email)}
        email["from"] = email.pop("sender")
        keys["email"] = {key: value for key, value in email.items() if value != ""}
    return keys


def _listen(endpoints: tuple[Endpoint, ...]) -> list[str]:
    return [f"  listen: {_flow([str(each) for each in endpoints])}"] if endpoints else []


def _service(service: VirtualService) -> list[str]:
    ports = [str(ports) for ports in service.ports]
    announce = service.announce
    return [
        f"vip: {_flow([str(vip) for vip in service.vips])}",
        f"protocol: {_flow([str(protocol) for protocol in service.protocols])}",
        f"ports: [{', '.join(ports)}]" if ports else "ports: any",
        f"forwarding: {service.forwarding}",
        f"tunnel: {service.tunnel}",
        f"scheduler: {service.scheduler}",
        f"affinity: {service.affinity}",
        f"udp_scheduling: {service.udp_scheduling}",
        f"announce: {_flow(announce)}",
        f"minimum: {service.minimum}",
        f"on_down: {service.on_down}",
        f"refuse: {service.refuse}",
        *([f"allow: {_flow([str(p) for p in service.allow])}"] if service.allow else []),
        *([f"deny: {_flow([str(p) for p in service.deny])}"] if service.deny else []),
        *_persistence(service.persistence),
        *_limits(service.limits),
        "backends:" if service.backends else "backends: {}",
        *(
            f"  {b.name}: {{address: {_address(b)}, weight: {b.weight}, "
            f"backup: {b.backup or 'false'}{_own_forwarding(b)}}}"
            for b in service.backends
        ),
        *_health(service),
    ]


def _persistence(persistence: Persistence | None) -> list[str]:
    if persistence is None:
        return []
    given = {f.name: getattr(persistence, f.name) for f in fields(persistence)}
    return [f"persistence: {_flow(given)}"]


def _own_forwarding(backend: Backend) -> str:
    given = {"forwarding": backend.forwarding, "tunnel": backend.tunnel}
    return "".join(f", {key}: {value}" for key, value in given.items() if value is not None)


def _limits(limits: Limits) -> list[str]:
    given = {f.name: getattr(limits, f.name) for f in fields(limits)}
    return [f"limits: {_flow({key: value for key, value in given.items() if value})}"]


def _health(service: VirtualService) -> list[str]:
    checks = _flow([_monitor(monitor) for monitor in service.health])
    policy = service.policy
    if policy == HealthPolicy():
        return [f"checks: {checks}"]
    return [
        "health:",
        f"  require: {'all' if policy.require_all else 'any'}",
        f"  slow_start: {policy.slow_start}",
        f"  initial: {'up' if policy.initial_up else 'down'}",
        f"  announce_while: {policy.announce_while}",
        f"  panic_threshold: {'never' if policy.panic is None else policy.panic}",
        f"  checks: {checks}",
    ]


def _monitor(monitor: HealthMonitor) -> dict[str, object]:
    keys = ("type", "interval", "timeout", "rise", "fall", "via")
    fast = {"fast_interval": monitor.fast_interval} if monitor.fast_interval else {}
    probe = monitor.probe
    own = {
        field.name: getattr(probe, field.name)
        for field in fields(probe)
        if field.name != "errors" and getattr(probe, field.name) not in ("", (), None)
    }
    if "headers" in own:
        own["headers"] = dict(own["headers"])
    return {key: getattr(monitor, key) for key in keys} | fast | own


def _address(backend: Backend) -> str:
    return "self" if backend.is_self else _flow([str(a) for a in backend.addresses])


def _flow(value: object) -> str:
    # What JSON escapes in a string, YAML reads in double quotes.
    return json.dumps(value)


NAMES = st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True)
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
SECONDS = st.integers(1, 10**8).map(lambda ms: ms / 1000)


PREFIXES = st.lists(
    st.sampled_from(
        [ip_network("192.0.2.0/24"), ip_network("203.0.113.7"), ip_network("2001::/16")]
    ),
    max_size=2,
    unique=True,
).map(PrefixList.of)


@st.composite
def monitors(draw: st.DrawFn, ports: tuple[PortRange, ...]) -> HealthMonitor:
    """A health monitor with settings of its kind, for a service with these ports."""
    via = draw(st.sampled_from(["dsr", "direct"]))
    own = via == "dsr" and ports
    port = st.just(ports[0].first) if own else st.integers(1, 65535)
    ported = {"port": st.one_of(st.none(), port) if ports else port}
    text = st.one_of(st.just(""), PRINTABLE)
    request = {
        **ported,
        "path": PRINTABLE.map(lambda path: f"/{path}"),
        "host": text,
        "headers": st.dictionaries(NAMES.map(lambda name: f"X-{name}"), PRINTABLE, max_size=2).map(
            lambda headers: tuple(headers.items())
        ),
        "status": st.lists(st.integers(100, 599)).map(tuple),
        "drain_on": st.lists(st.integers(100, 599)).map(tuple),
        **draw(st.sampled_from([{"body": text}, {"weight_from": st.just("body")}])),
    }
    probe = draw(
        st.one_of(
            st.just(IcmpProbe()),
            st.builds(TcpProbe, send=text, expect=text, **ported),
            st.builds(UdpProbe, send=text, expect=text, **ported),
            st.builds(HttpProbe, **request),
            st.builds(HttpsProbe, verify=st.booleans(), expires_within=SECONDS, **request),
            st.builds(DnsProbe, name=PRINTABLE, record=st.sampled_from(["A", "TXT"]), **ported),
            st.builds(
                ScriptProbe,
                command=st.lists(PRINTABLE, min_size=1).map(tuple),
                weight_from=st.sampled_from(["", "exit", "body"]),
            ),
            st.builds(AgentProbe, port=st.integers(1, 65535), send=text),
        )
    )
    interval = draw(SECONDS)
    return HealthMonitor(
        probe,
        interval=interval,
        fast_interval=draw(st.sampled_from([None, 0.001, interval])),
        timeout=draw(SECONDS),
        rise=draw(st.integers(1, 1000)),
        fall=draw(st.integers(1, 1000)),
        via="direct" if isinstance(probe, AgentProbe) else via,
    )


@st.composite
def service_ports(draw: st.DrawFn) -> tuple[PortRange, ...]:
    """Sorted ports and ranges without overlap; sometimes any."""
    ends = sorted(draw(st.sets(st.integers(1, 65535), max_size=6)))
    pairs = [PortRange(a, b) for a, b in zip(ends[::2], ends[1::2], strict=False)]
    return tuple(pairs + ([PortRange(ends[-1], ends[-1])] if len(ends) % 2 else []))


PERSISTENCE = st.builds(
    Persistence,
    SECONDS,
    st.integers(1, 32),
    st.integers(1, 128),
    st.one_of(st.just("service"), st.just("vip")),
    st.sampled_from(ClientsOfDrained),
)


# VIPs and backends from networks of their own, and a VIP from a service's own part of it: so
# that no rule between services is broken. What breaks them has its own configurations.
def _vip(service: int, version: int, host: int) -> IPAddress:
    if version == 4:
        return IPv4Address(0xC6120000 + (service << 8) + host)
    return IPv6Address((0x20010DB8 << 96) + (service << 16) + host)


def _server(version: int, host: int) -> IPAddress:
    if version == 4:
        return IPv4Address(0x0A000000 + host)
    return IPv6Address((0x20010DB9 << 96) + host)


@st.composite
def valid_services(
    draw: st.DrawFn, number: int, name: str, announce: tuple[bool | str, ...], remembered: bool
) -> VirtualService:
    """A service that keeps the contract, announced in one of these ways; ``remembered``: there is
    a connection table."""
    both = st.sampled_from([(4,), (6,), (4, 6), (6, 4)])
    versions = draw(both)
    hosts = draw(st.lists(st.integers(0, 255), min_size=1, max_size=4, unique=True))
    backends = []
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    servers = draw(st.lists(st.integers(1, 2**20), min_size=4, max_size=4, unique=True))
    for backend, server in zip(names, servers, strict=False):
        families = draw(both.filter(lambda have: set(have) >= set(versions)))
        addresses = tuple(_server(version, server) for version in families)
        levels = draw(st.integers(0, 255))
        how = draw(st.sampled_from([(None, None), (Forwarding.L2, None), (Forwarding.L3, None)]))
        if how[0] is Forwarding.L3:
            how = (Forwarding.L3, draw(st.sampled_from([None, *Tunnel])))
        if not backends and draw(st.booleans()):
            addresses, how = (), (None, None)  # self
        backends.append(Backend(backend, addresses, draw(st.integers(0, 65535)), levels, *how))
    primaries = sum(not backend.backup for backend in backends)
    ports = draw(service_ports())
    affinity = draw(st.sampled_from(Affinity))
    persistent = remembered and affinity is Affinity.CONNECTION
    health = tuple(draw(st.lists(monitors(ports), max_size=2)))
    policy = st.builds(
        HealthPolicy,
        st.booleans(),
        st.one_of(st.just(0.0), SECONDS),
        st.integers(0, 65535),
        st.one_of(st.none(), st.integers(0, 100)),
        st.booleans(),
    )
    protocols = draw(st.sampled_from([(Protocol.TCP,), (Protocol.UDP,), tuple(Protocol)]))
    # Round robin without a connection table: for UDP alone, and each packet by itself.
    anew = protocols == (Protocol.UDP,) and draw(st.booleans())
    turns = st.sampled_from([Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM])
    hashes = st.sampled_from([Scheduler.MAGLEV, Scheduler.SOURCE_HASH])
    return VirtualService(
        name=name,
        vips=tuple(_vip(number, version, host) for version in versions for host in hosts),
        protocols=protocols,
        ports=ports,
        forwarding=Forwarding.L2,
        backends=tuple(backends),
        scheduler=draw(turns if anew else hashes),
        affinity=Affinity.CONNECTION if anew else affinity,
        persistence=draw(st.none() | PERSISTENCE) if persistent and not anew else None,
        udp_scheduling=UdpScheduling.PACKET if anew else UdpScheduling.FLOW,
        tunnel=draw(st.sampled_from(Tunnel)),
        announce=draw(st.sampled_from(announce)),
        minimum=draw(st.integers(1, max(1, primaries) if backends else 65535)),
        on_down=draw(st.sampled_from(OnDown)) if remembered else OnDown.RESET,
        refuse=draw(st.sampled_from(Refusal)),
        allow=draw(PREFIXES),
        deny=draw(PREFIXES),
        limits=Limits(draw(st.none() | st.integers(1, 10**6)), draw(st.none() | st.integers(1, 9))),
        health=health,
        policy=draw(policy),
    )


@st.composite
def valid_configs(draw: st.DrawFn) -> Config:
    """A config that keeps the contract in full, with every setting drawn."""
    interface = st.from_regex(r"[A-Za-z0-9_@+-][A-Za-z0-9._@+-]{0,14}", fullmatch=True)
    names = draw(st.lists(NAMES, max_size=3, unique=True))
    blocks = sorted(draw(st.sets(st.integers(1, 0x10000), min_size=2, max_size=2)))
    balancers = draw(st.lists(NAMES, max_size=3, unique=True))
    settings = draw(_several(len(balancers)))
    announce = _ways(settings)
    enabled = draw(st.booleans())
    return Config(
        interfaces=tuple(draw(st.lists(interface, min_size=1, max_size=4, unique=True))),
        services=tuple(
            draw(valid_services(i, name, announce, enabled)) for i, name in enumerate(names)
        ),
        load_balancers=tuple((name, _server(4, 2**21 + i)) for i, name in enumerate(balancers)),
        high_availability=settings,
        connections=Connections(
            enabled=enabled,
            size=draw(st.integers(1024, 1 << 26)),
            tcp=draw(SECONDS),
            tcp_half_open=draw(SECONDS),
            udp=draw(SECONDS),
        ),
        maglev=MaglevSettings(
            slots=draw(st.sampled_from([None, 251, 509, 1021, 65521, 65537])),
            seed=draw(st.integers(0, 0xFFFFFFFF)),
        ),
        marks=MarkRange(blocks[0] << 16, (blocks[1] << 16) - 1),
        api=draw(_apis()),
        metrics=MetricsSettings(draw(_listened(range(9000, 9010)))),
        notify=Notifications(tuple(draw(_receivers(tuple(names))))),
    )


@st.composite
def _receivers(draw: st.DrawFn, services: tuple[str, ...]) -> list[Receiver]:
    """Who is told, each of another."""
    common = {
        "events": st.lists(st.sampled_from(list(WORDS)), max_size=3, unique=True).map(tuple),
        "severity": st.sampled_from(Severity),
        "services": st.lists(st.sampled_from(services or ("x",)), unique=True).map(tuple)
        if services
        else st.just(()),
        "group_wait": st.one_of(st.just(0.0), SECONDS),
        "group_interval": st.one_of(st.just(0.0), SECONDS),
    }
    word = st.from_regex(r"[a-z0-9]{1,9}", fullmatch=True)
    mailbox = st.builds("{}@{}.example.org".format, word, word)
    secured = draw(st.booleans())
    email = st.builds(
        Email,
        st.lists(mailbox, min_size=1, max_size=3, unique=True).map(tuple),
        mailbox,
        st.sampled_from(["mail.example.org:25", "[2001:db8::25]:465"]),
        st.sampled_from([StartTls.AUTO, StartTls.REQUIRED] if secured else list(StartTls)),
        st.booleans(),
        st.just("tula") if secured else st.just(""),
        st.just("/etc/tula/smtp") if secured else st.just(""),
    )
    webhook = st.builds(
        Receiver,
        webhook=st.builds("https://{}.example.org/{}".format, word, word),
        format=st.sampled_from(BodyFormat),
        headers=st.dictionaries(NAMES.map(lambda n: f"X-{n}"), PRINTABLE, max_size=2).map(
            lambda headers: tuple(headers.items())
        ),
        token_file=st.sampled_from(["", "/etc/tula/token"]),
        verify=st.booleans(),
        **common,
    )
    program = st.builds(
        Receiver, exec=st.lists(PRINTABLE, min_size=1, max_size=3).map(tuple), **common
    )
    ways = st.one_of(webhook, program, st.builds(Receiver, email=email, **common))
    return draw(st.lists(ways, max_size=3, unique_by=lambda each: each.identity))


@st.composite
def _several(draw: st.DrawFn, balancers: int) -> HighAvailability:
    """What so many load_balancers may do together."""
    vrrp = st.builds(
        Vrrp,
        st.integers(1, 255),
        st.sampled_from(["", "eth0", "bond0.7"]),
        st.integers(1, 4095).map(lambda hundredths: hundredths / 100),
        st.sampled_from(VipMac),
    )
    numbers = st.one_of(st.integers(64512, 65534), st.integers(131072, 4294967294))
    routers = st.dictionaries(
        st.integers(1, 2**20).map(lambda host: _server(4, 2**22 + host)),
        numbers,
        min_size=1,
        max_size=3,
    ).map(lambda found: tuple(found.items()))
    bfd = st.one_of(st.just(0.0), st.integers(50, 10_000).map(lambda ms: ms / 1000))
    bgp = st.builds(Bgp, numbers, routers, bfd)
    enough = balancers > 1
    return HighAvailability(
        draw(st.one_of(st.none(), vrrp)) if enough else None,
        draw(st.one_of(st.none(), bgp)) if enough else None,
        draw(st.sampled_from(SharedFlows)),
        draw(st.integers(10_000, 65535)),
    )


def _ways(settings: HighAvailability) -> tuple[bool | str, ...]:
    """How a service can be announced with these settings."""
    ways: list[bool | str] = [True, False]
    if settings.vrrp is not None:
        ways.append("vrrp")
    if settings.bgp is not None:
        ways.append("bgp")
    if settings.bgp is None or settings.vrrp is not None:
        ways += ["eth0", "true", "off"]
    return tuple(ways)


@st.composite
def _apis(draw: st.DrawFn) -> ApiSettings:
    pair = draw(st.sampled_from([("", ""), ("/etc/tula/tls.crt", "/etc/tula/tls.key")]))
    return ApiSettings(draw(_listened(range(8000, 8010))), *pair, draw(st.sampled_from(Source)))


@st.composite
def _listened(draw: st.DrawFn, ports: range) -> tuple[Endpoint, ...]:
    """Addresses that no service has."""
    hosts = st.sampled_from([IPv4Address("127.0.0.1"), IPv6Address("::1"), IPv4Address(0)])
    found = draw(st.lists(st.sampled_from(ports), max_size=2, unique=True))
    return tuple(Endpoint(draw(hosts), port) for port in found)
