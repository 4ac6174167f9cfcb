"""Numbers that stay: a service or backend keeps its own through every change of the document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tula.model.config import Backend, Config, MarkRange, Scheduler, VirtualService
from tula.model.ids import BACKEND_BITS, BACKENDS, Ids, Left
from tula.model.problem import Problem, ProblemsError
from tula.plan.maglev import SMALLEST, Content

_LEAST_TURNS = 1021


def plan_ids(
    config: Config, known: Ids, now: float = 0.0, renamed: Mapping[str, str] | None = None
) -> Ids:
    """Numbers for all of ``config``: those of ``known`` where it has them, else fresh ones.

    ``now`` is in seconds of the boot clock. What leaves keeps its number until no flow table can
    hold it any longer, and gets it back if it returns. ``renamed`` are services' new names to
    their old ones. Raises ProblemsError when the mark range
    is too small.
    """
    oldest = now - _longest_life(config)
    old_names = {name: (old,) for name, old in (renamed or {}).items()}
    services, left_services, next_service = _number(
        ((service.name, old_names.get(service.name, ())) for service in config.services),
        _Numbers(known.services, known.left_services, known.next_service),
        _service_numbers(config.marks),
        (now, oldest),
    )
    backends, left_backends, next_backend = _number(
        _distinct_backends(config),
        _Numbers(known.backends, known.left_backends, known.next_backend),
        range(1, BACKENDS),
        (now, oldest),
    )
    return Ids(
        services=services,
        backends=backends,
        tables=_plan_tables(
            ((service.name, table_content(service)) for service in config.services), known.tables
        ),
        turns=_plan_tables(
            (
                (service.name, turns_group(service))
                for service in config.services
                if takes_turns(service)
            ),
            known.turns,
        ),
        left_services=left_services,
        left_backends=left_backends,
        next_service=next_service,
        next_backend=next_backend,
    )


def replan_tables(known: Ids, contents: Mapping[str, tuple[Content, Content]]) -> Ids:
    """The numbers when only weights moved.

    ``contents`` are those of all services, by name and in the document's order: of the Maglev
    table, and ``turns_group`` (nothing for who takes no turns).
    """
    tables = _plan_tables(((name, of[0]) for name, of in contents.items()), known.tables)
    turns = _plan_tables(((name, of[1]) for name, of in contents.items() if of[1]), known.turns)
    return replace(known, tables=tables, turns=turns)


def _longest_life(config: Config) -> float:
    times = config.connections
    return max(times.tcp, times.tcp_half_open, times.udp)


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
        turns=stored.turns,
        left_services=stored.left_services,
        left_backends=stored.left_backends,
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
    return ((key, backend.texts) for key, backend in seen.items())


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


def table_content(service: VirtualService) -> Content:
    """What a Maglev table depends on; services that agree in it share one table."""
    return tuple(sorted((backend.key, backend.weight) for backend in service.backends))


def takes_turns(service: VirtualService) -> bool:
    """Whether new flows go to one backend after the other."""
    return service.scheduler in (Scheduler.RR, Scheduler.WRR, Scheduler.LEAST_CONNECTIONS)


def turns_content(service: VirtualService) -> Content:
    """What a table of turns depends on; round robin knows no weights but 0."""
    if service.scheduler is Scheduler.LEAST_CONNECTIONS and service.shares:
        pairs = zip(service.backends, service.shares, strict=True)
        return tuple(sorted((backend.key, share) for backend, share in pairs))
    content = table_content(service)
    if service.scheduler is not Scheduler.RR:
        return content
    return tuple((key, min(weight, 1)) for key, weight in content)


def turns_group(service: VirtualService) -> Content:
    """What services agree in that share a table of turns.

    One of least-connections never shares: its turns move by themselves, and its rules must not.
    """
    if service.scheduler is not Scheduler.LEAST_CONNECTIONS:
        return turns_content(service)
    return ((f"={service.name}", int(any(backend.weight for backend in service.backends))),)


def turns_length(service: VirtualService) -> int | None:
    """How many turns a table has; None: by its weights. Fixed where weights move every second."""
    if service.scheduler is not Scheduler.LEAST_CONNECTIONS:
        return None
    return _LEAST_TURNS if len(service.backends) * 16 <= _LEAST_TURNS else SMALLEST


def _plan_tables(
    contents: Iterable[tuple[str, Content]], known: Mapping[str, int]
) -> dict[str, int]:
    """A table number for every service with backends; those with equal backends share one.

    A group of services keeps the number that most of them had, so that the rules that name the
    table stand still.
    """
    groups: dict[Content, list[str]] = {}
    serving: dict[Content, bool] = {}
    for name, content in contents:
        if content not in serving:
            serving[content] = any(weight for _, weight in content)
        if serving[content]:
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
