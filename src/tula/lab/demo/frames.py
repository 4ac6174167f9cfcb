"""One request, frame by frame: who sent it to whom, as captured."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from tula.lab.capture import Capture
from tula.lab.demo.request import Request, download
from tula.lab.demo.stage import FAR_VIPS, PORT, Stage
from tula.lab.guard import LabError
from tula.lab.wait import on_loop

_SIZE, _RATE = 200_000, 2_000_000


class Segment(NamedTuple):
    """TCP in IPv4 in Ethernet."""

    mac_from: str
    mac_to: str
    source: str
    destination: str
    payload: bytes
    ttl: int
    same: bytes
    """What forwarding must not change: the packet without TTL and header checksum."""


@dataclass(frozen=True)
class Exchange:
    """One request and its answer, as seen in the network."""

    backend: str
    """Who answered, according to the answer."""
    arrives: Segment
    """The request as it arrives at the balancer."""
    leaves: Segment
    """The request as the balancer forwards it."""
    answer: Segment
    """The answer as it arrives at the router."""
    frames: int
    """How many frames of the answer arrived at the router."""
    at_balancer: int
    """How many of them the balancer received or sent."""


def watch_request(stage: Stage, source_port: int) -> Exchange:
    """Send one request from the first client, and watch it at the balancer and the router."""
    network = stage.network
    assert network.router is not None
    names = {host.mac(): host.name for host in (network.router, network.lb, *network.backends)}
    request = Request(network.client, network.vip4)
    with Capture(network.lb) as at_lb, Capture(network.router) as at_router:
        with request.open(socket.SOCK_STREAM, source_port) as opened:
            on_loop(download(request, opened, _SIZE, _RATE))
        arrived, left = (
            [read_segment(f, names) for f in at_lb.frames(outgoing)] for outgoing in (False, True)
        )
        came_back = [read_segment(frame, names) for frame in at_router.frames(outgoing=False)]
    vip = f"{network.vip4}:{PORT}"
    answers = [s for s in came_back if s and s.source == vip]
    return Exchange(
        request.backend,
        _first(arrived, b"GET ", "request to the balancer"),
        _first(left, b"GET ", "request from the balancer"),
        _first(list(answers), b"HTTP/", "answer at the router"),
        len(answers),
        sum(s is not None and s.source == vip for s in [*arrived, *left]),
    )


@dataclass(frozen=True)
class TunnelExchange:
    """One request through a tunnel, and its answer."""

    backend: str
    arrives: Segment
    """The request as it arrives at the balancer."""
    inside: Segment
    """The request inside the packet that the balancer sends."""
    outer: tuple[str, str]
    """The addresses of that packet."""
    answer: Segment
    """The answer as it arrives at the router."""
    frames: int
    at_balancer: int


def watch_tunnel(stage: Stage, source_port: int) -> TunnelExchange:
    """The same for the service whose backends are behind the router."""
    network = stage.network
    assert network.router is not None
    names = {network.router.mac(name): network.router.name for name in ("eth0", "eth2")}
    names |= {host.mac(): host.name for host in (network.lb, *stage.far)}
    request = Request(network.client, FAR_VIPS[0])
    with Capture(network.lb) as at_lb, Capture(network.router, "eth2") as at_router:
        with request.open(socket.SOCK_STREAM, source_port) as opened:
            on_loop(download(request, opened, _SIZE, _RATE))
        arrived = [read_segment(frame, names) for frame in at_lb.frames(outgoing=False)]
        sent = [(frame, read_segment(_inside(frame), names)) for frame in at_lb.frames(True)]
        came_back = [read_segment(frame, names) for frame in at_router.frames(outgoing=False)]
    vip = f"{FAR_VIPS[0]}:{PORT}"
    answers = [s for s in came_back if s and s.source == vip]
    inside = _first([segment for _, segment in sent], b"GET ", "request in a tunnel")
    frame = next(frame for frame, segment in sent if segment == inside)
    return TunnelExchange(
        request.backend,
        _first(arrived, b"GET ", "request to the balancer"),
        inside,
        (str(IPv4Address(frame[26:30])), str(IPv4Address(frame[30:34]))),
        _first(list(answers), b"HTTP/", "answer at the router"),
        len(answers),
        sum(s is not None and s.source == vip for s in [*arrived, *(inner for _, inner in sent)]),
    )


def _inside(frame: bytes) -> bytes:
    """What a tunnel's frame carries, as a frame: VXLAN's is one, IPIP's packet gets a header."""
    if frame[23] == socket.IPPROTO_UDP:
        return frame[14 + 20 + 8 + 8 :]
    return frame[:14] + frame[34:] if frame[23] == socket.IPPROTO_IPIP else b""


def read_segment(frame: bytes, names: dict[str, str]) -> Segment | None:
    """Parse a frame, with hosts' names for MACs; None unless it is TCP over IPv4."""
    if len(frame) < 54 or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_TCP:
        return None
    tcp = 14 + (frame[14] & 15) * 4
    source_port, port = (int.from_bytes(frame[at : at + 2], "big") for at in (tcp, tcp + 2))
    end = 14 + int.from_bytes(frame[16:18], "big")
    mac_to, mac_from = frame[:6].hex(":"), frame[6:12].hex(":")
    return Segment(
        names.get(mac_from, mac_from),
        names.get(mac_to, mac_to),
        f"{IPv4Address(frame[26:30])}:{source_port}",
        f"{IPv4Address(frame[30:34])}:{port}",
        frame[tcp + (frame[tcp + 12] >> 4) * 4 : end],
        frame[22],
        frame[14:22] + frame[23:24] + frame[26:end],
    )


def _first(seen: list[Segment | None], start: bytes, what: str) -> Segment:
    for segment in seen:
        if segment is not None and segment.payload.startswith(start):
            return segment
    raise LabError(f"no {what} was seen")
