"""Numbers that stay: a service or backend keeps its own through every change of the document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tula.model.config import Backend, Config, MarkRange, VirtualService
from tula.model.ids import BACKEND_BITS, BACKENDS, Ids
from tula.model.problem import Problem, ProblemsError


def plan_ids(config: Config, known: Ids) -> Ids:
    """Numbers for all of ``config``: those of ``known`` where it has them, else fresh ones.

    Raises ProblemsError when the mark range is too small.
    """
    services, next_service = _number(
        ((service.name, ()) for service in config.services),
        known.services,
        known.next_service,
        _service_numbers(config.marks),
    )
    backends, next_backend = _number(
        _distinct_backends(config),
        known.backends,
        known.next_backend,
        range(1, BACKENDS),
    )
    return Ids(
        services=services,
        backends=backends,
        tables=_plan_tables(config.services, known.tables),
        next_service=next_service,
        next_backend=next_backend,
    )


def merge_ids(stored: Ids, observed: Ids) -> Ids:
    """What the kernel holds, completed by what the state directory remembers.

    The kernel wins, since its numbers are those that packets carry.
    """
    return Ids(
        services=_complete(observed.services, stored.services),
        backends=_complete(observed.backends, stored.backends),
        tables=stored.tables,
        next_service=stored.next_service,
        next_backend=stored.next_backend,
    )


def _service_numbers(marks: MarkRange) -> range:
    return range(marks.first >> BACKEND_BITS, (marks.last >> BACKEND_BITS) + 1)


def _distinct_backends(config: Config) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Every backend once, by key, with all of its addresses as other names."""
    seen: dict[str, Backend] = {}
    for service in config.services:
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
    known: Mapping[str, int],
    cursor: int,
    allowed: range,
) -> tuple[dict[str, int], int]:
    """Numbers for (name, other names) pairs, and the cursor after the last fresh one."""
    numbers: dict[str, int] = {}
    fresh = []
    # Numbers of what leaves now are not given away in the same step: packets may carry them.
    taken = {number for number in known.values() if number in allowed}
    used: set[int] = set()
    for name, others in wanted:
        number = next((known[n] for n in (name, *others) if n in known), None)
        if number is None or number not in allowed or number in used:
            fresh.append(name)
        else:
            numbers[name] = number
            used.add(number)
    if fresh and len(used) + len(fresh) > len(allowed):
        count = len(used) + len(fresh)
        raise ProblemsError(
            [
                Problem(
                    ("marks",),
                    f"room for {len(allowed)} services or backends, {count} needed; "
                    "widen the range, 65536 marks for each service",
                )
            ]
        )
    if len(taken | used) + len(fresh) > len(allowed):
        taken = used
    at = cursor if cursor in allowed else allowed.start
    for name in fresh:
        while at in taken or at in used:
            at = at + 1 if at + 1 in allowed else allowed.start
        numbers[name] = at
        used.add(at)
        at = at + 1 if at + 1 in allowed else allowed.start
    return numbers, at


def table_content(service: VirtualService) -> tuple[tuple[str, int], ...]:
    """What a Maglev table depends on; services that agree in it share one table."""
    return tuple(sorted((backend.key, backend.weight) for backend in service.backends))


def _plan_tables(services: Iterable[VirtualService], known: Mapping[str, int]) -> dict[str, int]:
    """A table number for every service with backends; those with equal backends share one.

    A group of services keeps the number that most of them had, so that the rules that name the
    table stand still.
    """
    groups: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for service in services:
        if any(backend.weight for backend in service.backends):
            groups.setdefault(table_content(service), []).append(service.name)
    claims = []
    for content, names in groups.items():
        votes: dict[int, int] = {}
        for name in names:
            if name in known:
                votes[known[name]] = votes.get(known[name], 0) + 1
        claims += [(-count, number, content) for number, count in votes.items()]
    given: dict[tuple[tuple[str, int], ...], int] = {}
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
