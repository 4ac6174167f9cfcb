"""Whether packets of full size reach the backends, and clients are asked for such that fit.

Pure judging. What the tunnel takes must be left free by the clients' segments (RFC 9293, section
3.7.1: the MSS of a SYN-ACK says what its sender takes).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.doctor import mends
from tula.doctor.packets import TCP
from tula.doctor.replies import Said
from tula.doctor.sites import Site
from tula.doctor.talk import Answers, InTunnel, Question
from tula.doctor.verdicts import lives
from tula.model.finding import Finding, Severity

_LADDER = (8900, 4000, 1500, 1492, 1480, 1472, 1450, 1420, 1400, 1350, 1300, 1280, 1000, 576)


def smaller(site: Site, answers: Answers) -> list[Question]:
    """What is asked when full size is lost and small packets pass."""
    if _full(site, answers) or not lives(answers, site.ask_size(0)) or _told(site, answers):
        return []
    return [site.ask_size(size) for size in _LADDER if size < site.mtu]


def judge_sizes(sites: Sequence[Site], answers: Answers) -> Iterator[Finding]:
    """What fits on the ways to one backend, for all its VIPs, and whether clients know."""
    sizes: dict[int, int] = {}
    for site in sites:
        fits = site.segment(_path_mtu(site, answers)[0])
        sizes[site.vip.version] = min(fits, sizes.get(site.vip.version, fits))
    clamp = mends.clamp(list(dict.fromkeys(site.vip for site in sites)), sizes)
    for site in sites:
        yield from _judge(site, answers, clamp)


def _judge(site: Site, answers: Answers, clamp: tuple[str, ...]) -> Iterator[Finding]:
    mtu, certain = _path_mtu(site, answers)
    tunnelled = isinstance(site.way, InTunnel)
    name, vip = site.backend.name, site.vip
    largest = _segment_asked(site, answers)
    fits = site.segment(mtu)
    if mtu < site.mtu:
        left = f"; the tunnel leaves {mtu - site.room}" if tunnelled else ""
        fine = 0 < largest <= fits
        yield Finding(
            "path-mtu", Severity.NOTE if fine else Severity.WARNING, name,
            f"packets of {site.mtu} bytes do not reach {site.outer}, those of {mtu} do{left}"
            + (f"; TCP is asked for {largest} bytes, which fit" if fine else ""),
            f"raise the MTU on the way to {site.mtu}"
            + ("" if fine else f", or have {name} ask clients for segments of {fits} bytes"),
            certain=certain, on=name, commands=() if fine or not largest else clamp,
        )  # fmt: skip
    elif tunnelled and largest > fits:
        yield Finding(
            "mss-not-clamped", Severity.WARNING, name,
            f"{vip} asks clients for segments of {largest} bytes; {fits} fit into the tunnel",
            f"lower the MSS in the answers of {name}",
            on=name, commands=clamp,
        )  # fmt: skip


def _segment_asked(site: Site, answers: Answers) -> int:
    """The largest MSS in the VIP's SYN-ACKs; 0 without any."""
    return max(
        (
            reply.mss
            for port in site.tcp
            for reply in answers.to(site.ask_vip(TCP, port))
            if reply.said is Said.ACCEPTS
        ),
        default=0,
    )


def _path_mtu(site: Site, answers: Answers) -> tuple[int, bool]:
    """The largest size that passes, and whether a router has said so; that of the link if nothing
    is known."""
    if _full(site, answers):
        return site.mtu, True
    if told := _told(site, answers):
        return told, True
    if not lives(answers, site.ask_size(0)):
        return site.mtu, False  # no echoes are answered at all
    passed = [s for s in _LADDER if s < site.mtu and lives(answers, site.ask_size(s))]
    return max(passed, default=site.mtu), False


def _full(site: Site, answers: Answers) -> bool:
    return lives(answers, site.ask_size(site.mtu))


def _told(site: Site, answers: Answers) -> int:
    """The MTU in an ICMP error about the large packet (RFC 1191, RFC 8201)."""
    found = (r.mtu for r in answers.to(site.ask_size(site.mtu)) if r.said is Said.ERROR and r.mtu)
    return min(found, default=0)
