"""The first line of a status: what it names, and when all is fine."""

from __future__ import annotations

from typing import Any

import pytest

from tula.engine.summary import summarize

DAEMON = {"started": 0.0}
SYNC = {"in_sync": True, "differences": [], "forwards": True, "interfaces": {"eth0": "up"}}


def backends(*states: str) -> list[dict[str, Any]]:
    serving = ("up", "unknown")
    return [{"state": s, "effective_weight": 100 if s in serving else 0} for s in states]


def pool(name: str, *states: str, standing_by: tuple[int, ...] = (), **keys: Any) -> dict[str, Any]:
    """A service of which some backends stand by."""
    found = backends(*states)
    for number in standing_by:
        found[number]["effective_weight"] = 0
    return {"name": name, "checked": True, "backends": found, **keys}


def answer(*services: tuple[str, list[str]] | dict[str, Any], **others: Any) -> dict[str, Any]:
    found = [
        each
        if isinstance(each, dict)
        else {"name": each[0], "checked": "unknown" not in each[1], "backends": backends(*each[1])}
        for each in services
    ]
    return {"services": found, "kernel": SYNC, "daemon": DAEMON, "problems": [], **others}


CASES: list[tuple[str, dict[str, Any], bool, list[str]]] = [
    (
        "as it is after installation",
        answer(),
        True,
        ["kernel in sync", "no services are configured, so nothing is served"],
    ),
    (
        "all is up",
        answer(("web", ["up", "up"]), ("dns", ["up"])),
        True,
        ["kernel in sync", "2 services up", "3 backends up"],
    ),
    (
        "a backend is down",
        answer(("web", ["up", "down"])),
        False,
        ["1 service up", "1 of 2 backends up, 1 down"],
    ),
    (
        "one drains",
        answer(("web", ["up", "draining"])),
        True,
        ["1 of 2 backends up, 1 draining"],
    ),
    (
        "all are drained",
        answer(("web", ["draining", "draining"]), ("dns", ["up"])),
        False,
        ["1 of 2 services up, down: web (all backends drained)"],
    ),
    (
        "many are down, of several reasons",
        answer(*((f"s{n}", ["down"]) for n in range(48)), ("dns", ["disabled"]), ("x", [])),
        False,
        [
            "0 of 50 services up, down: s0, s1, s2 and 45 more (all backends down), "
            "dns (all backends disabled), x (no backends)"
        ],
    ),
    (
        "no daemon, where one is wanted",
        answer(("web", ["up"]), daemon=None),
        False,
        ["no daemon runs, so nothing checks web"],
    ),
    (
        "no daemon, where none is wanted",
        answer(("web", ["unknown"]), daemon=None),
        True,
        ["no daemon runs, and nothing is checked", "1 backend, not checked"],
    ),
    (
        "a service without checks",
        answer(("web", ["up"]), ("dns", ["unknown"])),
        True,
        ["1 of 2 backends up, 1 not checked", "not checked: dns"],
    ),
    (
        "nothing is forwarded",
        answer(
            ("web", ["up"]),
            kernel={**SYNC, "in_sync": False, "forwards": False, "differences": ["no table", "x"]},
        ),
        False,
        [
            "kernel out of sync: no table (and 1 more)",
            "none of 1 service up",
            "none of 1 backend gets packets",
        ],
    ),
    (
        "interfaces",
        answer(("web", ["up"]), kernel={**SYNC, "interfaces": {"a": "down", "b": "no carrier"}}),
        False,
        ["interface a is down", "interface b has no carrier"],
    ),
    (
        "its backups serve",
        answer(pool("web", "draining", "up", on_backups=True)),
        True,
        ["1 service up", "1 of 2 backends up, 1 draining", "served by backups: web"],
    ),
    (
        "its backups serve, since one is down",
        answer(pool("web", "down", "up", on_backups=True)),
        False,
        ["1 service up", "1 of 2 backends up, 1 down", "served by backups: web"],
    ),
    (
        "fewer than its minimum",
        answer(pool("web", "down", "up", standing_by=(1,), minimum=2)),
        False,
        ["0 of 1 service up, down: web (1 of 2 needed can serve)"],
    ),
    (
        "a backup stands by",
        answer(pool("web", "up", "up", standing_by=(1,))),
        True,
        ["1 service up", "2 backends up"],
    ),
    (
        "other problems",
        answer(("web", ["up"]), problems=["no room on the disk"]),
        False,
        ["1 other problem"],
    ),
]


@pytest.mark.parametrize(
    ("given", "fine", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_summary(given: dict[str, Any], fine: bool, says: list[str]) -> None:
    found = summarize(given)
    assert found.fine is fine
    assert found.text.startswith("OK: " if fine else "PROBLEM: ")
    texts = [part.text for part in found.parts]
    assert [text for text in says if text not in texts] == []
    assert found.text.count("\n") == 0
