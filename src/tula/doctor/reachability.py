"""What the replies to a target's requests add up to. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from tula.doctor.packets import ECHO, TCP, UDP
from tula.doctor.replies import Reply, ReplyKind
from tula.doctor.requests import Request, Responses, TunnelPath
from tula.doctor.targets import Target

_IcmpKinds = tuple[set[tuple[int, int]], set[tuple[int, int]]]
"""ICMP types and codes of IPv4, and of IPv6 (RFC 792, RFC 1812, RFC 4443)."""

_NO_ENDPOINT: _IcmpKinds = {(3, 2), (3, 3)}, {(1, 4), (4, 1)}
_UNREACHABLE: _IcmpKinds = {(3, 0), (3, 1)}, {(1, 0), (1, 3)}
_PROHIBITED: _IcmpKinds = {(3, 9), (3, 10), (3, 13)}, {(1, 1), (1, 5), (1, 6)}
_PORT_CLOSED: _IcmpKinds = {(3, 3)}, {(1, 4)}
_NOT_LOCAL: _IcmpKinds = {(5, 0), (5, 1), (11, 0)}, {(3, 0)}
"""Redirect, time exceeded: the sender forwards the packet."""


class PortState(StrEnum):
    """The state of a port as one request shows it."""

    OPEN = "open"
    CLOSED = "closed"
    """RST, or for UDP that the port is unreachable"""
    REJECTED = "rejected"
    """by ICMP, as only a filter does"""
    NO_ANSWER = "no answer"


def port_state(responses: Responses, request: Request) -> PortState:
    """What the replies to a TCP or UDP request say about the port."""
    for reply in responses.to(request):
        if reply.kind is ReplyKind.OPEN:
            return PortState.OPEN
        if reply.kind is ReplyKind.CLOSED:
            return PortState.CLOSED
        if reply.kind is ReplyKind.ERROR and reply.quoted == request.destination:
            if _is(reply, _PORT_CLOSED):
                return PortState.CLOSED if request.kind == UDP else PortState.REJECTED
            if _is(reply, _PROHIBITED):
                return PortState.REJECTED
    return PortState.NO_ANSWER


def vip_requests(target: Target) -> Iterator[Request]:
    """All requests to the VIP."""
    yield from (target.to_vip(TCP, port) for port in target.tcp)
    yield from (target.to_vip(UDP, port) for port in target.udp)
    yield target.to_vip(ECHO)


def _backend_requests(target: Target) -> Iterator[Request]:
    """All requests to the backend's own addresses, over whatever path."""
    yield from (target.to_backend(TCP, port) for port in target.tcp)
    yield from (target.to_backend(UDP, port) for port in target.udp)
    yield target.to_backend(ECHO)
    yield target.of_size(0)


def is_answered(responses: Responses, request: Request) -> bool:
    """Whether the destination itself replied: it accepts packets for that address."""
    return any(
        reply.kind is not ReplyKind.ERROR
        or (reply.quoted == request.destination and reply.source == request.destination)
        for reply in responses.to(request)
    )


def vip_answers(responses: Responses, target: Target) -> bool:
    """Whether the backend accepts packets for the VIP."""
    return any(is_answered(responses, request) for request in vip_requests(target))


def backend_answers(responses: Responses, target: Target) -> bool:
    """Whether the backend replies from its own address at all."""
    return any(is_answered(responses, request) for request in _backend_requests(target))


def icmp_errors(responses: Responses, target: Target) -> Iterator[tuple[Reply, bool]]:
    """ICMP errors about packets for the VIP; whether each quotes the tunnel's outer packet."""
    outer = target.path.remote if isinstance(target.path, TunnelPath) else None
    for request in vip_requests(target):
        for reply in responses.to(request):
            if reply.kind is ReplyKind.ERROR:
                yield reply, outer is not None and reply.quoted == outer


def no_endpoint_error(responses: Responses, target: Target) -> Reply | None:
    """The backend reports that it has no tunnel endpoint of this kind."""
    errors = icmp_errors(responses, target)
    return next((r for r, outer in errors if outer and _is(r, _NO_ENDPOINT)), None)


def unreachable_error(responses: Responses, target: Target) -> Reply | None:
    """A router, or the backend, reports that it has no route to the VIP or to the backend."""
    return next((r for r, _ in icmp_errors(responses, target) if _is(r, _UNREACHABLE)), None)


def prohibited_error(responses: Responses, target: Target) -> tuple[Reply, bool] | None:
    """A filter reports that it dropped a packet; whether that was the outer one."""
    errors = icmp_errors(responses, target)
    return next(((r, outer) for r, outer in errors if _is(r, _PROHIBITED)), None)


def not_local_error(responses: Responses, target: Target) -> Reply | None:
    """The backend forwards packets for the VIP: it does not hold it (RFC 792, RFC 4861)."""
    found = (r for r, outer in icmp_errors(responses, target) if not outer and _is(r, _NOT_LOCAL))
    return next((reply for reply in found if reply.source in target.backend.addresses), None)


def _is(reply: Reply, kinds: _IcmpKinds) -> bool:
    return reply.icmp in kinds[reply.source.version == 6]
