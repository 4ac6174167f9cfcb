"""``tula status`` as text: a line that says how all is, warnings, a table, then totals."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tula.cli.peers_text import peer_lines
from tula.cli.receivers_text import receiver_lines
from tula.cli.status_warnings import warning_lines
from tula.cli.terminal import Column, Row, Screen, number, screen_of, table_lines
from tula.engine.summary import (
    Grade,
    Summary,
    names,
    serves,
    stands_by,
    summarize,
    why_silent,
)
from tula.model.wording import counted

_COLUMNS = [
    Column("SERVICE", least=16),
    Column("ADDRESS", least=16),
    Column("PORTS, WEIGHT", least=13, drop=4),
    Column("STATE"),
    Column("CONNS", right=True, drop=2),
    Column("FLOWS/S", right=True, drop=5),
    Column("PKTS/S", right=True, drop=1),
    Column("BYTES/S", right=True, drop=6),
    Column("PACKETS", right=True, drop=7),
    Column("BYTES", right=True, drop=8),
    Column("REASON"),
]
_STATE, _REASON = 3, len(_COLUMNS) - 1
_GRADES = {Grade.GOOD: "green", Grade.NOTE: "yellow", Grade.BAD: "red"}
_COLOURS = {"up": "green", "down": "red", "draining": "yellow", "disabled": "yellow"}
_FULL = 40
"""Lines of a table up to which it is whole on any terminal."""
_UP = "Established"
"""A BGP session's state when its router hears of VIPs."""
_SHOWN = 3
"""Groups of a service's backends that are shown in brief: those in one state for one reason."""

Json = Mapping[str, Any]


def print_status(
    answer: Json,
    *,
    problems: bool = False,
    whole: bool = False,
    on: Screen | None = None,
) -> None:
    """Print the object of ``tula status --json`` as text; warnings go to standard error.

    ``problems``: only what does not serve, and all warnings. ``whole``: every backend, however
    many there are. On a terminal, services that are well are else one line each when the whole
    table would be longer than the screen.
    """
    screen = on or screen_of()
    summary = summarize(answer)
    head = summary_line(summary, screen)
    print(head, flush=True)
    warnings = warning_lines(answer, None if problems else screen_of(sys.stderr))
    for line in warnings:
        print(line, file=sys.stderr)
    sys.stderr.flush()
    services = answer["services"]
    if problems:
        services = [service for service in services if _is_troubled(service)]
    lines = len(services) + sum(len(service["backends"]) for service in services)
    short = screen.height is not None and lines > max(_FULL, screen.height - 5)
    brief = (problems or short) and not whole
    rows = [row for service in services for row in _rows(service, screen, brief=brief)]
    printed = len(warnings) + 1
    if rows:
        for line in table_lines(_COLUMNS, rows, screen):
            print(line)
            printed += 1
    for line in (*peer_lines(answer, screen), *receiver_lines(answer, screen)):
        print(line)
        printed += 1
    for line in _rest(answer):
        print(screen.cut(line))
    if screen.height is not None and printed > screen.height - 2:
        print(head)  # what it began with has left the screen


def summary_line(summary: Summary, screen: Screen) -> str:
    """The first line: red where something is wrong."""
    word = screen.paint(f"{summary.word}:", "green" if summary.fine else "red", bold=True)
    colours = {**_GRADES, Grade.GOOD: "" if not summary.fine else "green"}
    return f"{word} " + "; ".join(
        screen.paint(part.text, colours[part.grade]) for part in summary.parts
    )


def connections(count: int) -> str:
    """Such as ``no connections`` or ``1 connection``."""
    return f"{count or 'no'} connection{'s' * (count != 1)}"


def _is_troubled(service: Json) -> bool:
    backends = service["backends"]
    silent = not any(map(serves, backends))
    return service["panic"] or service.get("on_backups") or silent or any(map(_is_ill, backends))


def _is_ill(backend: Json) -> bool:
    return backend["state"] not in ("up", "unknown") or bool(backend["warning"])


def _rows(service: Json, screen: Screen, *, brief: bool) -> Iterator[Row]:
    protocols = "+".join(service["protocols"])
    state, colour = _service_state(service)
    held = [backend["connections"] for backend in service["backends"]]
    total = sum(held) if held and None not in held else None
    vips = service["vips"]
    more = f" +{len(vips) - 1}" if len(vips) > 1 else ""
    cells = [
        *(service["name"], " ".join(vips) if screen.width is None else vips[0] + more),
        *(f"{protocols} {','.join(service['ports'])}", state),
        *_counts(service, total, screen),
        "",
    ]
    yield Row(cells, {_STATE: colour, 0: "red" if colour == "red" else ""})
    if not brief:
        yield from (_backend(backend, screen) for backend in service["backends"])
        left = service.get("left")
        if left is not None and (left["packets"] or left["bytes"]):
            yield Row(["  (removed)", "", "", "", *_counts(left, None, screen), ""])
        return
    groups = _groups(filter(_is_ill, service["backends"]))
    for group in groups[:_SHOWN]:
        yield _group(group, screen)
    rest = sum(map(len, groups[_SHOWN:]))
    if rest:
        yield Row([f"  {rest} more", *[""] * _REASON])


def _groups(backends: Iterable[Json]) -> list[list[Json]]:
    """Backends by their state and the reason for it."""
    found: dict[tuple[str, str], list[Json]] = {}
    for backend in backends:
        found.setdefault((backend["state"], _reason(backend)), []).append(backend)
    return list(found.values())


def _group(group: list[Json], screen: Screen) -> Row:
    """A row for several backends."""
    row = _backend(group[0], screen)
    if len(group) == 1:
        return row
    cells = [f"  {len(group)} backends", "", "", row.cells[_STATE], *[""] * 6]
    return Row([*cells, row.cells[_REASON]], row.colours, row.below)


def _service_state(service: Json) -> tuple[str, str]:
    """In words, and its colour."""
    backends = service["backends"]
    serving = sum(map(serves, backends))
    if service["panic"]:
        return "panic", "red"
    if not serving:
        return why_silent(service).removeprefix("all backends "), "red"
    if all(backend["state"] == "unknown" for backend in backends):
        return f"{len(backends)} unchecked", ""
    wanted = len(backends) - sum(map(stands_by, backends))
    if service.get("on_backups"):
        return f"{serving}/{wanted} backup", "yellow"
    return f"{serving}/{wanted} up", "green" if serving == wanted else "yellow"


def _backend(backend: Json, screen: Screen) -> Row:
    address, tunnel = backend["address"], backend["tunnel"]
    shown = address if isinstance(address, str) else " ".join(address)
    reason = _reason(backend)
    aside = screen.width is None
    colour = _COLOURS.get(backend["state"], "")
    cells = [
        *(f"  {backend['name']}", f"{shown} {tunnel['kind']}" if tunnel else shown),
        *(f"weight {_weight(backend)}", backend["state"]),
        *_counts(backend, backend["connections"], screen),
        reason if aside else "",
    ]
    below = [] if aside or not reason else [f"      {reason}"]
    return Row(cells, {_STATE: colour}, below)


def _counts(what: Json, held: int | None, screen: Screen) -> tuple[str, str, str, str, str, str]:
    """Connections, rates and totals; in a pipe the totals are exact."""
    rates = what.get("rates") or {}
    packets, octets = (
        str(what[name]) if screen.width is None else number(what[name])
        for name in ("packets", "bytes")
    )
    return (
        number(held),
        *(number(rates.get(name)) for name in ("new_flows", "packets", "bytes")),
        packets,
        octets,
    )  # type: ignore[return-value]


def _weight(backend: Json) -> str:
    """The configured one, preceded by the effective one if that differs: ``25/100``."""
    weight, now = backend["weight"], backend["effective_weight"]
    shows = backend["state"] in ("up", "unknown")
    return f"{now}/{weight}" if shows and now != weight else str(weight)


def _reason(backend: Json) -> str:
    told = backend["state"] != "up" or backend["effective_weight"] != backend["weight"]
    parts = [backend["reason"]] if told or stands_by(backend) else []
    if backend["state"] == "draining" and backend["connections"] is not None:
        about = "about " if backend.get("connections_estimated") else ""
        parts.append(f"{about}{connections(backend['connections'])} left")
    if backend["warning"]:
        parts.append(f"warning: {backend['warning']}")
    return "; ".join(filter(None, parts))


def _persistence(services: Iterable[Json]) -> Iterator[str]:
    """The clients that are remembered, scope by scope; an older daemon tells none."""
    told: set[tuple[str, ...]] = set()
    parts = []
    for service in services:
        settings = service.get("persistence")
        scope = tuple(settings["services"]) if settings else ()
        if not settings or scope in told or not settings["clients"]:
            continue
        told.add(scope)
        parts.append(f"{'+'.join(scope)} {settings['clients']}")
    if parts:
        yield "persistent clients: " + names(parts)


def _refused(services: Iterable[Json]) -> Iterator[str]:
    """The clients' packets that services did not take: by their lists, and by their limits."""
    for service in services:
        found = [
            f"{counted(service[why], 'packet')} {why}"
            for why in ("denied", "limited")
            if service.get(why)
        ]
        if found:
            yield f"refused by {service['name']}: {', '.join(found)}"


def _rest(answer: Json) -> Iterator[str]:
    """What belongs to no single service: tracked connections, and packets handled specially."""
    held = [
        f"{name} {table['entries']} of {table['size']}"
        for name, table in answer["connections"].items()
        if table["entries"] and not name.startswith("clients")
    ]
    if held:
        yield "connections: " + ", ".join(held)
    yield from _persistence(answer["services"])
    yield from _refused(answer["services"])
    for each in answer.get("bgp", ()):  # an older daemon has none
        routes = each["routes"]
        told = f", {routes} route{'' if routes == 1 else 's'}" if each["state"] == _UP else ""
        bfd = f", BFD {each['bfd'].lower()}" if each["bfd"] else ""
        yield f"bgp: {each['router']} (AS {each['as']}) {each['state'].lower()}{told}{bfd}"
    for name, count in answer["counters"].items():
        if count["packets"]:
            yield f"{name.replace('_', ' ')}: {count['packets']} packets"
