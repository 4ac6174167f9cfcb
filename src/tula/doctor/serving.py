"""Whether every backend takes packets for its VIPs, and serves. Pure judging.

Packets for the VIP went the way of clients' packets to one backend at a time, and the same was
asked of its own address. From which of them is answered follows where they are lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.doctor import mends
from tula.doctor.packets import TCP, UDP
from tula.doctor.replies import Said
from tula.doctor.sites import Site
from tula.doctor.talk import Answers, InTunnel, Question
from tula.doctor.verdicts import (
    Verdict,
    host_lives,
    no_end,
    no_host,
    prohibited,
    redirected,
    verdict,
    vip_lives,
    vip_questions,
)
from tula.model.config import Config, IPAddress
from tula.model.finding import Finding, Severity

_OTHER_END = (
    "another kind, key, id or MAC at its end, rp_filter there (all, the tunnel's), a filter that "
    "does not know this balancer's address"
)


def judge_site(
    config: Config, site: Site, sites: Sequence[Site], answers: Answers
) -> list[Finding]:
    """What is wrong with one VIP at one backend; ``sites`` are all of this backend."""
    if vip_lives(answers, site):
        return [*_judge_ports(site, answers)]
    if any(isinstance(answers.refused.get(q), PermissionError) for q in vip_questions(site)):
        return [_kept_in(site)]
    found = _told(config, site, answers)
    if found is not None:
        return [found]
    alive = any(host_lives(answers, other) or vip_lives(answers, other) for other in sites)
    if not alive:
        return [_unreachable(site, answers)]
    if isinstance(site.way, InTunnel):
        return [_tunnel_silent(config, site, answers)]
    return [_missing(site, certain=False, because=f"does not answer for {site.vip}")]


def forwarded(site: Site, sources: dict[int, IPAddress]) -> list[Question]:
    """Echoes to the backend's own addresses inside the tunnel."""
    return [
        site.ask_forwarded(address, sources[address.version])
        for address in site.backend.addresses
        if address.version in sources
    ]


def _told(config: Config, site: Site, answers: Answers) -> Finding | None:
    """What ICMP says outright."""
    name, way = site.backend.name, site.way
    if isinstance(way, InTunnel) and (reply := no_end(answers, site)) is not None:
        return Finding(
            "tunnel-missing", Severity.ERROR, name,
            f"{reply.source} answers packets of the {way.tunnel} tunnel: "
            f"{_icmp(reply.source, reply.kind)}",
            f"make the tunnel's end on {name}: tula backend instructions, or these commands",
            on=name, commands=mends.open_tunnel(config, name),
        )  # fmt: skip
    if (told := prohibited(answers, site)) is not None:
        reply, outer = told
        what = "its tunnel" if outer else f"the VIP {site.vip}"
        return Finding(
            "firewall", Severity.ERROR, name,
            f"{reply.source} answers packets for {what}: {_icmp(reply.source, reply.kind)}",
            f"allow them in the firewall of {reply.source}",
            on=name,
        )  # fmt: skip
    if (reply := redirected(answers, site)) is not None:
        return _missing(site, certain=True, because=f"sends on what is for {site.vip}")
    reply = no_host(answers, site)
    if reply is not None and reply.source in site.backend.addresses:
        return _missing(site, certain=True, because=f"knows no {site.vip}")
    if reply is not None:
        return Finding(
            "backend-unreachable", Severity.ERROR, name,
            f"{reply.source} answers packets to {site.outer}: {_icmp(reply.source, reply.kind)}",
            f"start {name}, or mend the routes to it",
        )  # fmt: skip
    return None


def _kept_in(site: Site) -> Finding:
    """netfilter has dropped it on its way out (nf_hook_slow, netfilter/core.c)."""
    return Finding(
        "foreign-chain", Severity.ERROR, site.interface,
        f"rules of this machine's own drop what it sends to {site.outer} for {site.vip}",
        "allow it in the output and postrouting chains (nft list ruleset)",
    )  # fmt: skip


def _unreachable(site: Site, answers: Answers) -> Finding:
    """Nothing was answered, by no address."""
    if isinstance(site.way, InTunnel):
        evidence = f"no answer from {site.outer}, neither to TCP or UDP nor to echoes"
    else:
        evidence = f"{site.outer} answers for its MAC, and nothing else"
    refused = next((e for q, e in answers.refused.items() if q.target == site.own), None)
    if refused is not None:
        evidence += f" (this machine says: {refused.strerror})"
    severe = bool(site.tcp) or isinstance(site.way, InTunnel)
    severity = Severity.ERROR if severe else Severity.NOTE
    return Finding(
        "backend-unreachable", severity, site.backend.name, evidence,
        f"start {site.backend.name}; look at the routes, and for a firewall on the way or on it"
        + ("" if severe else "; or it answers no echoes, and UDP only where it is asked rightly"),
        certain=False,
    )  # fmt: skip


def _tunnel_silent(config: Config, site: Site, answers: Answers) -> Finding:
    """The backend lives, and says nothing to what comes in the tunnel."""
    name, way = site.backend.name, site.way
    assert isinstance(way, InTunnel)
    through = [
        question
        for question, replies in answers.replies.items()
        if isinstance(question.way, InTunnel)
        and (question.way.tunnel, question.way.remote) == (way.tunnel, way.remote)
        and any(reply.said is not Said.ERROR for reply in replies)
    ]
    same = any(question.source.version == site.vip.version for question in through)
    if same or (through and site.vip.version == 6):  # which no reverse-path filter checks
        return _missing(
            site, certain=False,
            because=f"answers through the {way.tunnel} tunnel, and not for {site.vip}",
        )  # fmt: skip
    commands = mends.open_tunnel(config, name)
    if through and site.vip.version == 4:
        return Finding(
            "rp-filter", Severity.ERROR, name,
            f"through the {way.tunnel} tunnel IPv6 comes in, which no reverse-path filter checks, "
            f"and nothing of IPv4, which {name} answers by its own address",
            f"have the tunnel's device on {name} filter loosely (rp_filter 2, and an IPv4 address "
            "on it); else look for a firewall there",
            certain=False, on=name, commands=commands,
        )  # fmt: skip
    return Finding(
        "tunnel-missing", Severity.ERROR, name,
        f"{name} answers by its own address, and nothing that comes in the {way.tunnel} tunnel to "
        f"{way.remote}",
        f"make the tunnel's end on {name} anew; what it may be: no end there, {_OTHER_END}, or no "
        "VIP there",
        certain=False, on=name, commands=commands,
    )  # fmt: skip


def _missing(site: Site, *, certain: bool, because: str) -> Finding:
    name = site.backend.name
    evidence = f"{name} lives, and {because}"
    others = "" if certain else (
        "; else look for a firewall there that drops all for the VIP, or on the way for what drops "
        "answers from it (source filter, uRPF)"
    )  # fmt: skip
    return Finding(
        "vip-missing", Severity.ERROR, name, evidence, f"give {name} the VIP, on lo{others}",
        certain=certain, on=name, commands=mends.hold_vip(site.vip),
    )  # fmt: skip


def _judge_ports(site: Site, answers: Answers) -> Iterator[Finding]:
    """The backend takes packets for the VIP: does it serve there?"""
    heard = {port: verdict(answers, site.ask_vip(TCP, port)) for port in site.tcp}
    some = any(v is Verdict.ACCEPTS for v in heard.values())
    for port, said in heard.items():
        own = verdict(answers, site.ask_own(TCP, port))
        yield from _judge_port(site, f"tcp port {port}", said, own, some)
    for port in site.udp:
        said = verdict(answers, site.ask_vip(UDP, port))
        replies = answers.to(site.ask_vip(UDP, port))
        strange = [r.source for r in replies if r.said is Said.ACCEPTS and r.source != site.vip]
        if strange:
            yield Finding(
                "answers-by-own-address", Severity.ERROR, site.backend.name,
                f"what is asked of {site.vip} udp port {port} is answered by {strange[0]}: "
                "clients drop that",
                "have the server bind to the VIP itself", on=site.backend.name,
            )  # fmt: skip
            continue
        own = verdict(answers, site.ask_own(UDP, port))
        if said is Verdict.SILENT and own is not Verdict.ACCEPTS:
            continue  # nobody has to answer
        if said is not Verdict.SILENT and own is Verdict.SILENT and host_lives(answers, site):
            own = Verdict.ACCEPTS  # it is open: it did not say otherwise
        yield from _judge_port(site, f"udp port {port}", said, own, False)


def _judge_port(
    site: Site, port: str, said: Verdict, own: Verdict, some: bool
) -> Iterator[Finding]:
    name, vip, serves = site.backend.name, site.vip, own is Verdict.ACCEPTS
    if said is Verdict.ACCEPTS:
        return
    if said is Verdict.REFUSES and serves:
        yield Finding(
            "listens-elsewhere", Severity.ERROR, name,
            f"{vip} {port} is closed, {site.own} {port} is open",
            f"have the server listen on {vip} or on all addresses",
            on=name,
        )  # fmt: skip
    elif said is Verdict.REFUSES:
        yield Finding(
            "not-listening", Severity.NOTE if some else Severity.ERROR, name,
            f"{vip} {port} is closed"
            + (f", {site.own} {port} too" if own is Verdict.REFUSES else ""),
            f"start the server, or take the port from {', '.join(site.services)}",
            on=name,
        )  # fmt: skip
    else:
        how = "is rejected by a filter" if said is Verdict.REJECTED else "does not answer"
        yield Finding(
            "firewall", Severity.ERROR, name,
            f"{name} takes packets for {vip}, and {port} {how}"
            + (f"; {site.own} {port} is open" if serves else ""),
            f"allow {vip} {port} in the firewall of {name} (nft list ruleset)",
            certain=serves or said is Verdict.REJECTED, on=name,
        )  # fmt: skip


def _icmp(source: IPAddress, kind: tuple[int, int]) -> str:
    text = {
        4: {
            (3, 0): "net unreachable", (3, 1): "host unreachable",
            (3, 2): "protocol unreachable", (3, 3): "port unreachable",
        },
        6: {
            (1, 0): "no route", (1, 3): "address unreachable", (1, 4): "port unreachable",
            (4, 1): "unrecognized next header",
        },
    }[source.version].get(kind, "prohibited by a filter")  # fmt: skip
    return f"ICMP {text}"
