"""The other balancers in ``tula status``: a table, and below each line what is not as here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from tula.cli.terminal import Column, Row, Screen, number, table_lines

_COLUMNS = [
    Column("PEER", least=8),
    Column("STATE"),
    Column("ROLE", drop=3),
    Column("VERSION", drop=4),
    Column("CONFIGURATION", drop=2),
    Column("OVERRIDES", drop=2),
    Column("SERVED", drop=1),
    Column("FLOWS SENT", right=True, drop=5),
    Column("LEARNED", right=True, drop=5),
]
_STATE, _CONFIGURATION, _OVERRIDES = 1, 4, 5
_CLOCK = 2.0
"""Seconds from which on a clock's difference is shown."""
_NAMED = 5

Json = Mapping[str, Any]


def peer_lines(answer: Json, screen: Screen) -> Iterator[str]:
    """None where there are no other balancers."""
    peers = answer.get("peers") or ()
    if not peers:
        return
    yield ""
    yield from table_lines(_COLUMNS, [_row(peer) for peer in peers], screen)
    for peer in peers:
        for line in _notes(peer):
            yield from screen.wrap(f"  {peer['name']}: {line}", indent=4)


def _row(peer: Json) -> Row:
    state, colour = _state(peer)
    served = "" if peer["served"] is None else f"{peer['served']}/{peer['services']}"
    configuration, overrides = peer["configuration_equal"], peer["overrides_equal"]
    cells = [
        *(peer["name"], state, peer["role"] or "", peer["version"] or ""),
        *(_same(configuration, f"other {(peer['digest'] or '')[:12]}"), _same(overrides, "other")),
        *(served, number(peer["flows"]["sent"]), number(peer["flows"]["learned"])),
    ]
    colours = {_STATE: colour}
    colours |= {_CONFIGURATION: "red"} if configuration is False else {}
    colours |= {_OVERRIDES: "red"} if overrides is False else {}
    return Row(cells, colours)


def _state(peer: Json) -> tuple[str, str]:
    if peer["alive"]:
        return ("standby" if peer["standby"] else "up"), "green"
    if not peer["added"]:
        return "not added", "yellow"
    if peer["heard"] is None:
        return "never heard", "red"
    return f"gone {_ago(peer['heard'])}", "red"


def _ago(at: float) -> str:
    seconds = max(0, int(time.time() - at))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"


def _same(equal: bool | None, other: str) -> str:
    return "?" if equal is None else "same" if equal else other


def _notes(peer: Json) -> Iterator[str]:
    name = peer["name"]
    if not peer["alive"]:
        if peer["added"] and peer["why"]:
            yield peer["why"]
        return
    if peer["hears_us"] is False:
        yield f"it does not hear this balancer; tula status on {name} says why"
    if peer["clock"] is not None and abs(peer["clock"]) > _CLOCK:
        yield f"its clock is {peer['clock']:+.1f} s away from this machine's"
    if peer["configuration_equal"] is False:
        yield (
            "it runs another configuration: tula apply --everywhere gives it this one, "
            f"tula peer copy {name} takes its"
        )
    elif peer["overrides_equal"] is False:
        yield f"other backends are drained, disabled or weighed: tula peer copy {name} takes those"
    otherwise = peer["seen_otherwise"]
    if otherwise:
        seen = [f"{o['backend']} {o['there']} (here {o['here']})" for o in otherwise[:_NAMED]]
        more = peer["seen_otherwise_total"] - len(seen)
        yield f"it sees {', '.join(seen)}" + (f" and {more} more otherwise" if more > 0 else "")
