"""Which balancer tells what several of them see. Pure.

The living one with the lowest name tells it, and says when it has. The others hold their copies
until then, and tell them themselves when it dies, does not see the same, or takes too long.
In doubt there are two messages rather than none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from tula.daemon.notify.group import topic_of
from tula.engine.peer_view import Told
from tula.model.event import Event
from tula.model.severity import BEGINS, ENDS

_BEGUN_BY = {begun: ends for ends, begun in ENDS.items()}
STARTING = 5.0
"""Seconds for which a peer that was never asked yet is waited for: it counts as lost after 3."""
_LENIENT = 300.0
"""Seconds between the views of two balancers of one change, where nothing else happened."""


@dataclass(frozen=True, slots=True)
class Other:
    """Another balancer as it is known now; ``told`` is by receiver, as it said last.

    ``known``: it has been asked. ``equal``: it runs the same configuration. ``ahead`` is by how
    many seconds its clock is.
    """

    name: str
    known: bool = True
    alive: bool = True
    equal: bool = True
    ahead: float = 0.0
    told: Mapping[str, Told] = field(default_factory=dict)


class Verdict(Enum):
    """What becomes of an event."""

    TELL = auto()
    TELL_ALONE = auto()
    """the other does not see it"""
    DONE = auto()
    """it is told"""
    HOLD = auto()


@dataclass(frozen=True, slots=True)
class Moment:
    """When it is judged, and how patiently: ``now`` is monotonic. ``tolerance`` is how far apart
    two balancers may see the same, ``patience`` how long one waits for the other, in seconds."""

    now: float
    tolerance: float
    patience: float


def mark_of(event: Event) -> str:
    """What two balancers call the same thing that happened to the same subject."""
    return mark(str(event.kind), event.subject)


def mark(kind: str, subject: str) -> str:
    """As ``mark_of``."""
    return hashlib.blake2b(f"{kind}\0{subject}".encode(), digest_size=6).hexdigest()


def judge(
    event: Event,
    heard: float,
    own: str,
    receiver: str,
    others: Sequence[Other],
    moment: Moment,
    sent: Mapping[str, float],
    *,
    only: bool = True,
) -> Verdict:
    """What this balancer, called ``own``, does now with an event that it heard of at ``heard``
    (monotonic). ``sent`` is what it has told itself. ``only``: no other event of the same topic
    waits here."""
    same = [other for other in others if other.equal]
    waits = moment.now - heard
    told = _latest(mark_of(event), same, receiver, {})
    if told is not None:
        if told >= event.time - moment.tolerance:
            return Verdict.DONE
        if only and _stands(event, told, same, receiver, sent):
            return Verdict.DONE
    if any(not other.known for other in others) and waits < STARTING:
        return Verdict.HOLD
    before = [o for o in same if o.alive and receiver in o.told and o.name < own]
    if not before:
        return Verdict.TELL
    first = min(before, key=lambda other: other.name)
    if first.told[receiver].settled - first.ahead > event.time + moment.tolerance:
        return Verdict.TELL_ALONE
    return Verdict.HOLD if waits < moment.patience else Verdict.TELL


def _stands(
    event: Event, told: float, others: Sequence[Other], receiver: str, sent: Mapping[str, float]
) -> bool:
    """Whether what was told long before is this all the same: the views of two balancers may be
    far apart where checks are slow. With nothing else between here, and nothing to the contrary
    told since by anybody, what was told last of this subject is what happened here."""
    if event.kind not in BEGINS and event.kind not in ENDS:
        return False
    topic, subject = topic_of(event)
    opposite = topic if event.kind in ENDS else _BEGUN_BY[topic]
    against = _latest(mark(str(opposite), subject), others, receiver, sent)
    return told >= event.time - _LENIENT and (against is None or against < told)


def _latest(
    name: str, others: Sequence[Other], receiver: str, sent: Mapping[str, float]
) -> float | None:
    """When it was told last, by this balancer's clock; ``sent`` is what this one told."""
    found = [sent[name]] if name in sent else []
    for other in others:
        at = other.told[receiver].sent.get(name) if receiver in other.told else None
        if at is not None:
            found.append(at - other.ahead)
    return max(found, default=None)
