"""Health monitors: what each kind of check asks, and what a service makes of the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tula.model.setting import Duration, Form, Integer, OneOf, Setting

_Port = Annotated[
    int | None,
    Setting(
        "Another port than the service's first; with via: dsr one of the service's.",
        Integer(1, 65535),
    ),
]
_Send = Annotated[str, Setting("What is sent.")]
_Expect = Annotated[str, Setting("Text that the answer must hold.")]
_WeightFrom = Annotated[
    str,
    Setting(
        "Where the answer gives a weight: body: the text, as a number or a percentage of the "
        "configured weight; exit, of scripts: the exit status less 2.",
        OneOf({"exit": "exit", "body": "body"}),
    ),
]
_RECORDS = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """The port takes a connection and, with ``expect``, answers with that text."""

    type: ClassVar[str] = "tcp"
    port: _Port = None
    send: _Send = ""
    expect: _Expect = ""


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """A GET request over HTTP; an empty ``status`` stands for 200 to 399."""

    type: ClassVar[str] = "http"
    port: _Port = None
    path: Annotated[str, Setting("What is asked for.", Form.HTTP_PATH)] = "/"
    host: Annotated[str, Setting("The Host header, and the TLS name.")] = ""
    headers: Annotated[
        tuple[tuple[str, str], ...], Setting("More headers, by name.", Form.HTTP_HEADERS)
    ] = ()
    status: Annotated[
        tuple[int, ...],
        Setting(
            "The status that passes; without, 200 to 399.",
            Integer(100, 599),
            expected="an HTTP status or a list of them",
        ),
    ] = ()
    body: Annotated[str, Setting("Text that the answer must hold.")] = ""
    drain_on: Annotated[
        tuple[int, ...],
        Setting(
            "The status that passes and drains a backend that is up.",
            Integer(100, 599),
            expected="an HTTP status or a list of them",
        ),
    ] = ()
    weight_from: _WeightFrom = ""


@dataclass(frozen=True, slots=True)
class HttpsProbe(HttpProbe):
    """The same over TLS; ``expires_within`` is in seconds."""

    type: ClassVar[str] = "https"
    verify: Annotated[bool, Setting("Whether the certificate must be valid for the name.")] = False
    expires_within: Annotated[
        float, Setting("A certificate that ends sooner is warned of.", Duration())
    ] = 1209600.0


@dataclass(frozen=True, slots=True)
class UdpProbe:
    """A datagram is answered with the text; without ``expect``, it is not refused."""

    type: ClassVar[str] = "udp"
    port: _Port = None
    send: _Send = ""
    expect: _Expect = ""


@dataclass(frozen=True, slots=True)
class DnsProbe:
    """A DNS query over UDP is answered with such a record."""

    type: ClassVar[str] = "dns"
    name: Annotated[str, Setting("The name asked for.", example="such as example.org")]
    port: _Port = None
    record: Annotated[
        str,
        Setting("The record asked for.", OneOf({r: r for r in _RECORDS}, called="record type")),
    ] = "A"


@dataclass(frozen=True, slots=True)
class IcmpProbe:
    """An echo request is answered.

    ``errors``: the probe also listens for ICMP errors about a tunnel's packets. Diagnosis asks for
    that; no configuration does.
    """

    type: ClassVar[str] = "icmp"
    port: ClassVar[None] = None
    errors: bool = False


@dataclass(frozen=True, slots=True)
class ScriptProbe:
    """A program ends with status 0."""

    type: ClassVar[str] = "script"
    port: ClassVar[None] = None
    command: Annotated[
        tuple[str, ...],
        Setting(
            "The program and its arguments.",
            local=True,
            expected="a program or [program, argument]",
            example="such as [/bin/check]",
        ),
    ]
    weight_from: _WeightFrom = ""


@dataclass(frozen=True, slots=True)
class AgentProbe:
    """An agent on the backend says how it wants to be used, in HAProxy's agent-check protocol.

    It is asked at the backend's own address. Whether the backend serves is for the other checks:
    without an answer nothing changes.
    """

    type: ClassVar[str] = "agent"
    port: Annotated[int, Setting("The agent's port.", Integer(1, 65535), example="such as 5555")]
    send: _Send = ""


Probe = (
    TcpProbe | HttpProbe | HttpsProbe | UdpProbe | DnsProbe | IcmpProbe | ScriptProbe | AgentProbe
)

PROBES: dict[str, type[Probe]] = {
    kind.type: kind
    for kind in (
        *(TcpProbe, HttpProbe, HttpsProbe, UdpProbe, DnsProbe, IcmpProbe, ScriptProbe),
        AgentProbe,
    )
}
"""The kinds of checks by the word that the configuration has for them."""


@dataclass(frozen=True, slots=True)
class HealthMonitor:
    """A health check of a service's backends, run by the daemon; times in seconds.

    ``fast_interval`` is None for the usual interval.
    """

    probe: Probe
    interval: Annotated[float, Setting("Time from one check to the next.", Duration())] = 2.0
    fast_interval: Annotated[
        float | None,
        Setting(
            "The interval while the state is about to change, and until it is known.", Duration()
        ),
    ] = None
    timeout: Annotated[float, Setting("How long an answer is waited for.", Duration())] = 1.0
    rise: Annotated[
        int, Setting("Consecutive passes before a backend is up.", Integer(1, 1000))
    ] = 2
    fall: Annotated[
        int, Setting("Consecutive failures before a backend is down.", Integer(1, 1000))
    ] = 3
    via: Annotated[
        str,
        Setting(
            "dsr: to the VIP, through the data path; direct: to the backend's address.",
            OneOf({"dsr": "dsr", "direct": "direct"}),
        ),
    ] = "dsr"

    @property
    def type(self) -> str:
        """The kind of check, as the configuration has it: ``tcp``, ``http`` and so on."""
        return self.probe.type

    @property
    def port(self) -> int | None:
        """The port that the check itself names; None: one of the service's, or none at all."""
        return self.probe.port

    @property
    def by_vip(self) -> bool:
        """Whether it is sent to the VIP. An agent listens beside the service, on its own port."""
        return self.via == "dsr" and not self.auxiliary

    @property
    def auxiliary(self) -> bool:
        """Whether it says how a backend that serves is to be used, and not that it serves."""
        return isinstance(self.probe, AgentProbe)

    @property
    def advises(self) -> bool:
        """Whether its answers may say more than pass or fail."""
        probe = self.probe
        if isinstance(probe, HttpProbe):
            return bool(probe.weight_from or probe.drain_on)
        return self.auxiliary or (isinstance(probe, ScriptProbe) and bool(probe.weight_from))


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """What a service makes of its monitors' verdicts.

    ``require_all``: a backend is up when all monitors pass, else when any does. ``slow_start`` is
    in seconds. ``panic`` is None for never. ``initial_up``: whether a new backend serves before its
    first pass.
    """

    require_all: Annotated[
        bool,
        Setting(
            "Whether all checks must pass, or any one.",
            OneOf({"all": True, "any": False}),
            key="require",
        ),
    ] = True
    slow_start: Annotated[
        float,
        Setting("How long the weight of a backend that came up rises.", Duration(zero=True)),
    ] = 0.0
    announce_while: Annotated[
        int,
        Setting(
            "With high_availability: with fewer backends up, this balancer does not serve the "
            "service: BGP withdraws its VIPs, VRRP prefers a balancer that serves more.",
            Integer(0, 65535),
        ),
    ] = 1
    panic: Annotated[
        int | None,
        Setting(
            "When this percentage of the weight or less is up, all backends serve; never: those "
            "that are down get nothing, even when all are.",
            Integer(0, 100, never="never"),
            key="panic_threshold",
        ),
    ] = 0
    initial_up: Annotated[
        bool,
        Setting(
            "up: a new backend serves until its checks fail; down: it gets nothing before its "
            "checks pass. Backends that serve are not new.",
            OneOf({"up": True, "down": False}),
            key="initial",
        ),
    ] = True
