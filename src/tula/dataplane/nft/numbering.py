"""Numbers that stay: services and backends keep their own through every change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tula.dataplane.nft.ids import BACKEND_BITS, BACKENDS, Ids, Left
from tula.model.config import MarkRange
from tula.model.desired import Content, DesiredBackend, DesiredService, DesiredState
from tula.model.problem import Problem, ProblemsError


def plan_ids(
    state: DesiredState, known: Ids, now: float = 0.0, renamed: Mapping[str, str] | None = None
) -> Ids:
    """Numbers for all of ``state``: those of ``known`` where it has them, else fresh ones.

    ``now`` is in seconds of the boot clock. What leaves keeps its number until no flow table can
    hold it any longer, nor the entry of a persistent client, and gets it back if it returns.
    ``renamed`` are services' new names to their old ones. Raises ProblemsError when the range of
    marks is too small.
    """
    times = state.connections
    clients = (s.persistence.settings.timeout for s in state.services if s.persistence is not None)
    oldest = now - max(times.tcp, times.tcp_half_open, times.udp, *clients)
    old_names = {name: (old,) for name, old in (renamed or {}).items()}
    services, left_services, next_service = _number(
        ((service.name, old_names.get(service.name, ())) for service in state.services),
        _Numbers(known.services, known.left_services, known.next_service),
        _service_numbers(state.marks),
        (now, oldest),
    )
    backends, left_backends, next_backend = _number(
        _distinct_backends(state),
        _Numbers(known.backends, known.left_backends, known.next_backend),
        range(1, BACKENDS),
        (now, oldest),
    )
    numbered = Ids(
        services=services,
        backends=backends,
        left_services=left_services,
        left_backends=left_backends,
        next_service=next_service,
        next_backend=next_backend,
    )
    return _number_tables(numbered, state.services, known)


def replan_tables(known: Ids, services: Sequence[DesiredService]) -> Ids:
    """The numbers when only weights moved."""
    return _number_tables(known, services, known)


def _number_tables(ids: Ids, services: Sequence[DesiredService], known: Ids) -> Ids:
    tables = ((s.name, s.maglev.group) for s in services if s.maglev is not None)
    wrr = ((s.name, s.order.group) for s in services if s.order is not None)
    return replace(
        ids,
        tables=_plan_tables(tables, known.tables),
        wrr=_plan_tables(wrr, known.wrr),
    )


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What is known of one kind of numbers."""

    known: Mapping[str, int]
    left: Left
    cursor: int


def merge_ids(stored: Ids, observed: Ids) -> Ids:
    """What the kernel holds, completed by what the state directory remembers.

    The kernel wins, since its numbers are those that packets carry.
    """
    return Ids(
        services=_complete(observed.services, stored.services),
        backends=_complete(observed.backends, stored.backends),
        tables=stored.tables,
        wrr=stored.wrr,
        left_services=stored.left_services,
        left_backends=stored.left_backends,
        next_service=stored.next_service,
        next_backend=stored.next_backend,
    )


def _service_numbers(marks: MarkRange) -> range:
    return range(marks.first >> BACKEND_BITS, (marks.last >> BACKEND_BITS) + 1)


def _distinct_backends(state: DesiredState) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Every backend once, by key, with all of its addresses as other names."""
    seen: dict[str, DesiredBackend] = {}
    for service in state.services:
        for backend in service.backends:
            seen.setdefault(backend.key, backend)
    return ((key, tuple(map(str, backend.addresses))) for key, backend in seen.items())


def _complete(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    taken = set(first.values())
    merged = dict(first)
    for name, number in second.items():
        if name not in merged and number not in taken:
            merged[name] = number
            taken.add(number)
    return merged


def _number(
    wanted: Iterable[tuple[str, tuple[str, ...]]],
    numbers: _Numbers,
    allowed: range,
    times: tuple[float, float],
) -> tuple[dict[str, int], dict[str, tuple[int, float]], int]:
    """Numbers for (name, other names) pairs, what left, and the cursor after the last fresh one.

    ``times`` are now, and the time before which what left is forgotten.
    """
    now, oldest = times
    # What has a number keeps it, also when the number was another's that left.
    taken = set(numbers.known.values())
    left = {
        name: (number, when)
        for name, (number, when) in numbers.left.items()
        if when >= oldest and number not in taken
    }
    before = {name: number for name, (number, _) in left.items()} | dict(numbers.known)
    given: dict[str, int] = {}
    used: set[int] = set()
    fresh = []
    for name, others in wanted:
        number = next((before[n] for n in (name, *others) if n in before), None)
        if number is None or number not in allowed or number in used:
            fresh.append(name)
        else:
            given[name] = number
            used.add(number)
    for name, number in before.items():
        if number not in used and name not in left:
            left[name] = (number, now)
    left = {name: entry for name, entry in left.items() if entry[0] not in used}
    at = _give_fresh(fresh, given, {number for number, _ in left.values()}, numbers.cursor, allowed)
    return given, left, at


def _give_fresh(
    names: list[str], given: dict[str, int], left: set[int], cursor: int, allowed: range
) -> int:
    """Gives every name a number that nobody has, and returns the cursor behind the last one."""
    count = len(given) + len(names)
    if names and count > len(allowed):
        message = (
            f"room for {len(allowed)} services or backends, {count} needed; "
            "widen the range, 65536 marks for each service"
        )
        raise ProblemsError([Problem(("marks",), message)])
    used = set(given.values())
    # A range so narrow that only numbers of what left are left: better those than none.
    taken = used | left if len(used | left) + len(names) <= len(allowed) else used
    at = cursor if cursor in allowed else allowed.start
    for name in names:
        while at in taken:
            at = at + 1 if at + 1 in allowed else allowed.start
        given[name] = at
        taken.add(at)
        at = at + 1 if at + 1 in allowed else allowed.start
    return at


def _plan_tables(
    contents: Iterable[tuple[str, Content]], known: Mapping[str, int]
) -> dict[str, int]:
    """A number for every service with a table; those of one group share it.

    A group of services keeps the number that most of them had, so that the rules that name the
    table stand still.
    """
    groups: dict[Content, list[str]] = {}
    for name, content in contents:
        groups.setdefault(content, []).append(name)
    claims = []
    for content, names in groups.items():
        votes: dict[int, int] = {}
        for name in names:
            if name in known:
                votes[known[name]] = votes.get(known[name], 0) + 1
        claims += [(-count, number, content) for number, count in votes.items()]
    given: dict[Content, int] = {}
    taken: set[int] = set()
    for _, number, content in sorted(claims):
        if content not in given and number not in taken:
            given[content] = number
            taken.add(number)
    at = 1
    for content in groups:
        if content not in given:
            while at in taken:
                at += 1
            given[content] = at
            taken.add(at)
    return {name: given[content] for content, names in groups.items() for name in names}
