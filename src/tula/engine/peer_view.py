"""What balancers tell each other of themselves, and what a balancer makes of it. Pure.

The other one may be of any version: what is not known here is ignored, and what is missing is
unknown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tula.engine.shared_digest import describe_override, overrides_digest
from tula.model.config import Config
from tula.model.health import BackendName, BackendStatus, Override, State
from tula.model.stats import FLOWS_LEARNED, FLOWS_SENT, Count
from tula.model.wording import printable
from tula.plan.high_availability import served
from tula.version import __version__

SHOWN = 20
"""Backends that are named of those that two balancers see otherwise."""
_MARKS = 10_000
_LONGEST = 200
"""Characters of a text; "service/backend" has 127."""


@dataclass(frozen=True, slots=True)
class Details:
    """What changes seldom and may be large; it is sent only to who has not got it yet.

    ``states`` are those of backends that are not up, by ``service/backend``; ``overrides`` by the
    same names, as ``describe_override`` has them.
    """

    services: int = 0
    served: int = 0
    backends: int = 0
    states: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    overrides_digest: str = ""

    def describe(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "services": self.services,
            "served": self.served,
            "backends": self.backends,
            "states": dict(self.states),
            "overrides": {name: dict(each) for name, each in self.overrides.items()},
        }


def describe_details(
    config: Config,
    statuses: Mapping[BackendName, BackendStatus],
    overrides: Mapping[BackendName, Override],
) -> Details:
    """How services and backends stand here."""
    states: dict[str, str] = {}
    total = 0
    for service in config.services:
        for backend in service.backends:
            status = statuses.get((service.name, backend.name))
            state = State.UNKNOWN if status is None else status.state
            total += 1
            if state is not State.UP:
                states[f"{service.name}/{backend.name}"] = str(state)
    here = sum(served(config, statuses).values())
    return Details(
        *(len(config.services), here, total, states),
        {"/".join(name): describe_override(each) for name, each in overrides.items()},
        overrides_digest(overrides),
    )


def digest_of_details(described: Mapping[str, Any]) -> str:
    """By which a peer says what it has got."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FlowCounts:
    """Packets that told peers of flows, and flows that were learned of them; None: not counted."""

    sent: int | None = None
    learned: int | None = None


def flow_counts(named: Mapping[str, Count]) -> FlowCounts:
    """Out of the data path's counters, which are there while flows are shared."""
    sent, learned = named.get(FLOWS_SENT), named.get(FLOWS_LEARNED)
    return FlowCounts(
        None if sent is None else sent.packets, None if learned is None else learned.packets
    )


@dataclass(frozen=True, slots=True)
class Told:
    """What a balancer has told one receiver of notifications. Times in seconds since the epoch, by
    its clock.

    ``settled``: whatever it knew of by then is told, or will never be. ``sent``: when the last
    event of a kind and a subject was that it has told, by ``tula.daemon.notify.dedup.mark_of``.
    """

    settled: float
    sent: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Notified:
    """What it has told all receivers, by ``Receiver.identity``; ``digest`` is that of what
    was sent."""

    receivers: Mapping[str, Told] = field(default_factory=dict)
    digest: str = ""

    def describe(self, known: str) -> dict[str, Any]:
        """As JSON has it; without what was sent to who has got that."""
        return {
            "digest": self.digest,
            "settled": {key: told.settled for key, told in self.receivers.items()},
            "sent": None
            if known and known == self.digest
            else {key: dict(told.sent) for key, told in self.receivers.items()},
        }


def parse_notified(data: Any, before: Notified | None) -> Notified:
    """What it tells; nothing of a version that has none of it."""
    if data is None:
        return Notified()
    digest, sent = _text(data.get("digest")), data.get("sent")
    if sent is None:
        same = before is not None and before.digest == digest
        had = before.receivers if same and before is not None else {}
        found = {key: told.sent for key, told in had.items()}
    else:
        found = {
            _text(key): {_text(mark): _time(at) for mark, at in list(marks.items())[:_MARKS]}
            for key, marks in sent.items()
        }
    settled = {_text(key): _time(at) for key, at in (data.get("settled") or {}).items()}
    return Notified({k: Told(at, found.get(k, {})) for k, at in settled.items()}, digest)


@dataclass(frozen=True, slots=True)
class View:
    """What a balancer tells of itself at one moment; None and empty: it does not say.

    ``start`` is another one at each start of its daemon, ``time`` its clock, in seconds since the
    epoch. ``ready``: its tables hold the configuration, so that it can learn flows. ``hears``: the
    peers that it hears.
    """

    name: str = ""
    version: str = ""
    schema: int | None = None
    start: str = ""
    boot: str = ""
    time: float | None = None
    ready: bool = True
    digest: str = ""
    shared_digest: str = ""
    tentative: bool = False
    overrides_digest: str = ""
    role: str | None = None
    standby: bool = False
    flows: FlowCounts = field(default_factory=FlowCounts)
    hears: Mapping[str, bool] = field(default_factory=dict)
    details_digest: str = ""
    details: Details | None = None
    notified: Notified = field(default_factory=Notified)

    def describe(self, known: str = "", notified: str = "") -> dict[str, Any]:
        """As JSON has it; without the details to who has got those, by their digest, and without
        what was sent in notifications, by ``notified``."""
        details = self.details
        return {
            "name": self.name or None,
            "version": self.version or __version__,
            "schema": self.schema,
            "start": self.start,
            "boot": self.boot,
            "time": self.time,
            "ready": self.ready,
            "configuration": {
                "digest": self.digest or None,
                "shared_digest": self.shared_digest or None,
                "tentative": self.tentative,
            },
            "overrides_digest": self.overrides_digest,
            "role": self.role,
            "standby": self.standby,
            "flows": {"sent": self.flows.sent, "learned": self.flows.learned},
            "peers": [{"name": name, "alive": alive} for name, alive in self.hears.items()],
            "details_digest": self.details_digest,
            "details": None
            if details is None or (known and known == self.details_digest)
            else details.describe(),
            "notified": self.notified.describe(notified),
        }


class NoViewError(ValueError):
    """What was answered is not what a balancer tells of itself."""


def parse_view(data: Any, before: View | None = None) -> View:
    """A peer's answer; the details of an earlier one count where it has left them out. Raises
    NoViewError."""
    try:
        return _parse(data, before)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise NoViewError(f"its answer is none of a balancer: {error!r}") from None


def _parse(data: Any, before: View | None) -> View:
    configuration = data.get("configuration") or {}
    flows = data.get("flows") or {}
    digest, details = _text(data.get("details_digest")), data.get("details")
    if details is not None:
        found: Details | None = _parse_details(details)
    else:
        found = before.details if before is not None and before.details_digest == digest else None
    time = data.get("time")
    return View(
        name=_text(data.get("name")),
        version=_text(data.get("version")),
        schema=_count(data.get("schema")),
        start=_text(data["start"]),
        boot=_text(data.get("boot")),
        time=None if time is None else _time(time),
        ready=bool(data.get("ready", True)),
        digest=_text(configuration.get("digest")),
        shared_digest=_text(configuration.get("shared_digest")),
        tentative=bool(configuration.get("tentative", False)),
        overrides_digest=_text(data.get("overrides_digest")),
        role=None if data.get("role") is None else _text(data["role"]),
        standby=bool(data.get("standby", False)),
        flows=FlowCounts(_count(flows.get("sent")), _count(flows.get("learned"))),
        hears={_text(p["name"]): bool(p["alive"]) for p in data.get("peers") or ()},
        details_digest=digest,
        details=found,
        notified=parse_notified(data.get("notified"), None if before is None else before.notified),
    )


def _parse_details(data: Any) -> Details:
    return Details(
        _count(data.get("services")) or 0,
        _count(data.get("served")) or 0,
        _count(data.get("backends")) or 0,
        {_text(name): _text(state) for name, state in (data.get("states") or {}).items()},
        {
            _text(name): {
                "drain": bool(each.get("drain", False)),
                "disable": bool(each.get("disable", False)),
                "weight": _count(each.get("weight")),
            }
            for name, each in (data.get("overrides") or {}).items()
        },
    )


def _text(value: Any) -> str:
    """What a peer may say in words: it is shown on terminals, and goes into JSON."""
    return printable(str(value or ""), _LONGEST)


def _count(value: Any) -> int | None:
    if value is None:
        return None
    found = int(value)
    if not 0 <= found < 1 << 64:
        raise ValueError("no count")
    return found


def _time(value: Any) -> float:
    found = float(value)
    if not 0 <= found < 1e11:  # nor is it NaN, which JSON has no word for
        raise ValueError("no time")
    return found


def same_configuration(own: View, other: View) -> bool | None:
    """Whether both balance alike; None: that cannot be told."""
    if own.digest and own.digest == other.digest:
        return True
    if not own.shared_digest or not other.shared_digest:
        return None if not own.digest or not other.digest else False
    return own.shared_digest == other.shared_digest


def same_overrides(own: View, other: View) -> bool | None:
    """Whether the operator has said the same of backends; None: that cannot be told."""
    if own.overrides_digest and own.overrides_digest == other.overrides_digest:
        return True
    if own.details is None or other.details is None:
        return None if not own.overrides_digest or not other.overrides_digest else False
    # Not by digests alone: a version with more to say of overrides has other ones.
    return own.details.overrides == other.details.overrides


@dataclass(frozen=True, slots=True)
class Otherwise:
    """A backend that two balancers see otherwise: the states here and there."""

    backend: str
    here: str
    there: str


def seen_otherwise(own: Details, other: Details, known: Iterable[str]) -> tuple[Otherwise, ...]:
    """The backends that are up here and not there, or the reverse, in the order of their names;
    of those that are ``known`` here. Who drains or disables is told by the overrides."""
    up = str(State.UP)
    both = sorted(
        name
        for name in {*own.states, *other.states}.intersection(known)
        if own.states.get(name, up) != other.states.get(name, up)
    )
    return tuple(Otherwise(n, own.states.get(n, up), other.states.get(n, up)) for n in both)
