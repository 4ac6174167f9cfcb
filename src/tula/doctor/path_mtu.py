"""Whether full-size packets reach the backends, and clients are asked for segments that fit. Pure.

Clients' segments must leave room for what the tunnel adds; the MSS of a SYN-ACK says how large
they may be (RFC 9293, section 3.7.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.doctor import fixes
from tula.doctor.packets import TCP
from tula.doctor.reachability import is_answered
from tula.doctor.replies import ReplyKind
from tula.doctor.requests import Request, Responses, TunnelPath
from tula.doctor.targets import Target
from tula.model.finding import Finding, Severity

_SIZES = (8900, 4000, 1500, 1492, 1480, 1472, 1450, 1420, 1400, 1350, 1300, 1280, 1000, 576)


def smaller_requests(target: Target, responses: Responses) -> list[Request]:
    """Requests of smaller sizes, when full-size packets are lost and small ones pass."""
    if (
        _full_size_passes(target, responses)
        or not is_answered(responses, target.of_size(0))
        or _reported_mtu(target, responses)
    ):
        return []
    return [target.of_size(size) for size in _SIZES if size < target.mtu]


def check_path_mtu(targets: Sequence[Target], responses: Responses) -> Iterator[Finding]:
    """What fits on the paths to one backend, for all its VIPs, and whether clients know."""
    sizes: dict[int, int] = {}
    for target in targets:
        fits = target.max_segment(_path_mtu(target, responses)[0])
        sizes[target.vip.version] = min(fits, sizes.get(target.vip.version, fits))
    clamp = fixes.clamp_mss(list(dict.fromkeys(target.vip for target in targets)), sizes)
    for target in targets:
        yield from _check(target, responses, clamp)


def _check(target: Target, responses: Responses, clamp: tuple[str, ...]) -> Iterator[Finding]:
    mtu, certain = _path_mtu(target, responses)
    tunnelled = isinstance(target.path, TunnelPath)
    name, vip = target.backend.name, target.vip
    mss = _announced_mss(target, responses)
    fits = target.max_segment(mtu)
    if mtu < target.mtu:
        inside = f"; {mtu - target.tunnel_overhead} remain inside the tunnel" if tunnelled else ""
        fine = 0 < mss <= fits
        yield Finding(
            "path-mtu", Severity.NOTE if fine else Severity.WARNING, name,
            f"packets of {target.mtu} bytes do not reach {target.outer_destination}, those of "
            f"{mtu} bytes do{inside}"
            + (f"; the MSS that TCP clients get is {mss}, which fits" if fine else ""),
            f"raise the MTU of the path to {target.mtu}"
            + ("" if fine else f", or clamp the MSS on {name} to {fits}"),
            certain=certain, on=name, commands=() if fine or not mss else clamp,
        )  # fmt: skip
    elif (tunnelled or target.large_source is not None) and mss > fits:
        what = "into the tunnel" if tunnelled else f"through {target.interface}"
        yield Finding(
            "mss-not-clamped", Severity.WARNING, name,
            f"the MSS in SYN-ACKs from {vip} is {mss}; only {fits} bytes fit {what}",
            f"clamp the MSS on {name}",
            on=name, commands=clamp,
        )  # fmt: skip


def _announced_mss(target: Target, responses: Responses) -> int:
    """The largest MSS in the VIP's SYN-ACKs; 0 without any."""
    requests = [target.to_vip(TCP, port) for port in target.tcp]
    as_client = target.from_large_link()
    return max(
        (
            reply.mss
            for request in (*requests, *((as_client,) if as_client else ()))
            for reply in responses.to(request)
            if reply.kind is ReplyKind.OPEN
        ),
        default=0,
    )


def _path_mtu(target: Target, responses: Responses) -> tuple[int, bool]:
    """The largest size that passes, in bytes, and whether that is certain; the interface's MTU if
    nothing is known."""
    if _full_size_passes(target, responses):
        return target.mtu, True
    if reported := _reported_mtu(target, responses):
        return reported, True
    if not is_answered(responses, target.of_size(0)):
        return target.mtu, False  # no echoes are answered at all
    passed = [s for s in _SIZES if s < target.mtu and is_answered(responses, target.of_size(s))]
    return max(passed, default=target.mtu), False


def _full_size_passes(target: Target, responses: Responses) -> bool:
    return is_answered(responses, target.of_size(target.mtu))


def _reported_mtu(target: Target, responses: Responses) -> int:
    """The MTU in an ICMP error about the large packet (RFC 1191, RFC 8201); 0 without one."""
    replies = responses.to(target.of_size(target.mtu))
    return min((r.mtu for r in replies if r.kind is ReplyKind.ERROR and r.mtu), default=0)
