"""Who is notified, in ``tula status``: a table, and below it why the last try failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tula.cli.terminal import Column, Row, Screen, number, table_lines
from tula.engine.summary import when

_COLUMNS = [
    Column("NOTIFIED", least=16),
    Column("STATE"),
    Column("SENT", right=True),
    Column("LAST", drop=1),
    Column("WAITING", right=True, drop=2),
    Column("GIVEN UP", right=True, drop=3),
]
_STATE = 1

Json = Mapping[str, Any]


def receiver_lines(answer: Json, screen: Screen) -> Iterator[str]:
    """None where nobody is notified, or by an older daemon."""
    receivers = answer.get("notify") or ()
    if not receivers:
        return
    yield ""
    yield from table_lines(_COLUMNS, [_row(each) for each in receivers], screen)
    for each in receivers:
        if each["error"]:
            yield from screen.wrap(f"  {each['receiver']}: {each['error']}", indent=4)


def _row(each: Json) -> Row:
    last = each["last_success"]
    failing = each["failing_since"] is not None
    cells = [
        *(each["receiver"], "failing" if failing else "ok", number(each["sent"])),
        *("" if last is None else when(last), number(each["waiting"] + each["held"])),
        number(each["given_up"]),
    ]
    return Row(cells, {_STATE: "red" if failing else "green"})
