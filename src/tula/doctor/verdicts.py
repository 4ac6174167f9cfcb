"""What answers to a site's questions come to. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from tula.doctor.packets import ECHO, TCP, UDP
from tula.doctor.replies import Reply, Said
from tula.doctor.sites import Site
from tula.doctor.talk import Answers, InTunnel, Question

_NO_END = {(3, 2), (3, 3)}, {(1, 4), (4, 1)}
_NO_HOST = {(3, 0), (3, 1)}, {(1, 0), (1, 3)}
_PROHIBITED = {(3, 9), (3, 10), (3, 13)}, {(1, 1), (1, 5), (1, 6)}
_NO_PORT = {(3, 3)}, {(1, 4)}
"""ICMP types and codes by version (RFC 792, RFC 1812, RFC 4443)."""


class Verdict(StrEnum):
    """On one question."""

    ACCEPTS = "accepts"
    REFUSES = "refuses"
    """TCP's RST, or for UDP that the port is unreachable"""
    REJECTED = "rejected"
    """by ICMP, as only a filter does"""
    SILENT = "silent"


def verdict(answers: Answers, question: Question) -> Verdict:
    """What the target said to a TCP or UDP question."""
    for reply in answers.to(question):
        if reply.said is Said.ACCEPTS:
            return Verdict.ACCEPTS
        if reply.said is Said.REFUSES:
            return Verdict.REFUSES
        if reply.said is Said.ERROR and reply.quoted == question.target:
            if _is(reply, _NO_PORT):
                return Verdict.REFUSES if question.what == UDP else Verdict.REJECTED
            if _is(reply, _PROHIBITED):
                return Verdict.REJECTED
    return Verdict.SILENT


def vip_questions(site: Site) -> Iterator[Question]:
    """All that are sent to its VIP."""
    yield from (site.ask_vip(TCP, port) for port in site.tcp)
    yield from (site.ask_vip(UDP, port) for port in site.udp)
    yield site.ask_vip(ECHO)


def own_questions(site: Site) -> Iterator[Question]:
    """All that are sent to the backend's own addresses, by whatever way."""
    yield from (site.ask_own(TCP, port) for port in site.tcp)
    yield from (site.ask_own(UDP, port) for port in site.udp)
    yield site.ask_own(ECHO)
    yield site.ask_size(0)


def lives(answers: Answers, question: Question) -> bool:
    """Whether the target itself has spoken: it accepts packets for that address."""
    return any(
        reply.said is not Said.ERROR
        or (reply.quoted == question.target and reply.source == question.target)
        for reply in answers.to(question)
    )


def vip_lives(answers: Answers, site: Site) -> bool:
    """Whether the backend takes packets for the VIP."""
    return any(lives(answers, question) for question in vip_questions(site))


def host_lives(answers: Answers, site: Site) -> bool:
    """Whether the backend answers at all by its own address."""
    return any(lives(answers, question) for question in own_questions(site))


def errors(answers: Answers, site: Site) -> Iterator[tuple[Reply, bool]]:
    """ICMP errors about packets for the VIP; whether each is about the tunnel's own packet."""
    outer = site.way.remote if isinstance(site.way, InTunnel) else None
    for question in vip_questions(site):
        for reply in answers.to(question):
            if reply.said is Said.ERROR:
                yield reply, outer is not None and reply.quoted == outer


def no_end(answers: Answers, site: Site) -> Reply | None:
    """The backend's word that no tunnel of this kind ends there."""
    return next((r for r, outer in errors(answers, site) if outer and _is(r, _NO_END)), None)


def no_host(answers: Answers, site: Site) -> Reply | None:
    """A router's or the backend's word that it knows no way to the VIP or to the backend."""
    return next((r for r, _ in errors(answers, site) if _is(r, _NO_HOST)), None)


def prohibited(answers: Answers, site: Site) -> tuple[Reply, bool] | None:
    """A filter's word; whether it is about the tunnel."""
    return next(((r, o) for r, o in errors(answers, site) if _is(r, _PROHIBITED)), None)


def redirected(answers: Answers, site: Site) -> Reply | None:
    """The backend forwards what is for the VIP: it has not got it (RFC 792, RFC 4861)."""
    kinds = {(5, 0), (5, 1), (11, 0)}, {(3, 0)}
    found = (r for r, outer in errors(answers, site) if not outer and _is(r, kinds))
    return next((reply for reply in found if reply.source in site.backend.addresses), None)


def _is(reply: Reply, kinds: tuple[set[tuple[int, int]], set[tuple[int, int]]]) -> bool:
    return reply.kind in kinds[reply.source.version == 6]
