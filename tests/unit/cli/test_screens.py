"""What an operator sees on a terminal: three services, and five hundred of which 48 fail.

`scripts/status_svg.py` draws such a screen; to look at these, print the lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from support.screens import large_report, large_status, make_events, small_report, small_status
from tula.cli import status_text, status_warnings
from tula.cli.doctor_text import report_lines
from tula.cli.events import event_lines
from tula.cli.terminal import Column, Row, Screen, number, screen_of, table_lines
from tula.engine.peer_facts import BalancerFacts, PeerFacts
from tula.engine.peer_view import Otherwise
from tula.engine.summary import summarize

WIDTHS = [80, 140]
Shown = tuple[list[str], list[str]]
"""Lines on standard output and on standard error."""


@pytest.fixture
def show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Shown]:
    """Prints a status on a screen."""

    def call(answer: dict[str, Any], width: int | None, **options: bool) -> Shown:
        screen = Screen(width, None if width is None else 40)
        monkeypatch.setattr(status_text, "screen_of", lambda *_: screen)
        status_text.print_status(answer, **options)
        printed = capsys.readouterr()
        return printed.out.splitlines(), printed.err.splitlines()

    return call


@pytest.mark.parametrize("width", WIDTHS)
def test_three_services(show: Callable[..., Shown], width: int) -> None:
    answer = small_status()
    (head, *table), warnings = show(answer, width)
    assert head == summarize(answer).text
    assert warnings == []
    assert max(map(len, table)) <= width
    assert table[0].split()[:4] == ["SERVICE", "ADDRESS", "PORTS,", "WEIGHT"]
    assert [line.split()[0] for line in table if line.startswith("  cache-")] == [
        *("cache-1", "cache-2", "cache-3", "cache-1", "cache-2", "cache-1", "cache-2")
    ]
    assert any(line.startswith("      http to 198.51.100.10 port 80: status 503") for line in table)
    assert not any("None" in line for line in table)


@pytest.mark.parametrize("width", WIDTHS)
def test_five_hundred_services(show: Callable[..., Shown], width: int) -> None:
    answer = large_status()
    (head, *table, last), warnings = show(answer, width)
    assert head == last == summarize(answer).text, "again where it is seen"
    first, *rest = warnings
    assert first.startswith("WARNING: 48 times, first: services.customer-000-web")
    assert all(line.startswith("  ") for line in rest), "48 that say the same are one"
    assert warnings[-1].endswith("as long as it is so"), "the end is not cut off"
    assert max(map(len, [*table, *warnings])) <= width
    assert sum("10 backends" in line for line in table) == 48
    assert len(table) < 700, "a line a service, and two for one that fails"
    assert sum(line.startswith("  cache-4") for line in table) == 9, "the one that is down"


def test_problems_alone(show: Callable[..., Shown]) -> None:
    (_, _, *table), warnings = show(large_status(), 80, problems=True)
    assert sum(line.startswith("customer-") for line in table) == 57
    assert not any(" 10/10 up" in line for line in table)
    assert len(warnings) == 48, "all of them, and whole"
    assert min(map(len, warnings)) > 200


def test_a_pipe_gets_everything(show: Callable[..., Shown]) -> None:
    (head, headings, *table), warnings = show(large_status(20, 10, 9), None)
    assert head.startswith("PROBLEM: ")
    assert headings.endswith("  REASON")
    assert sum(line.startswith("  cache-") for line in table) == 200
    assert any(line.endswith("port 80: no answer within 1 s") for line in table)
    assert any(" 9876543210 " in line for line in table), "exactly"
    assert len(warnings) == 1


def test_warnings_are_bounded() -> None:
    answer = small_status() | {"problems": [f"problem {'x' * n}" for n in range(48)]}
    found = status_warnings.warning_lines(answer, Screen(80, 24))
    assert len(found) == 6
    assert found[-1] == "WARNING: and 43 more; tula status --problems shows them all"


@pytest.mark.parametrize("width", WIDTHS)
def test_doctor(width: int) -> None:
    screen = Screen(width, 40)
    found = list(report_lines(small_report(), screen, whole=False))
    assert found[-1] == "1 error, 1 warning, 1 note."
    assert max(map(len, found)) <= width
    many = list(report_lines(large_report(), screen, whole=False))
    assert len(many) < 40
    assert max(map(len, many)) <= width
    assert many[-1] == "48 errors."
    assert any(
        line.startswith("45 more of vip-missing: cache-3, cache-4, cache-5") for line in many
    )
    whole = list(report_lines(large_report(), screen, whole=True))
    assert sum(line.startswith("error ") for line in whole) == 48


@pytest.mark.parametrize("width", WIDTHS)
def test_events(width: int) -> None:
    for event in make_events(8):
        lines = event_lines(event, Screen(width, 40))
        assert max(map(len, lines)) <= width
        assert " ".join(line.strip() for line in lines).endswith("and not on the VIP")
        assert len(event_lines(event, Screen())) == 1


def test_tables_lose_columns_before_they_are_too_wide() -> None:
    columns = [Column("A", least=4), Column("B", drop=1), Column("C", drop=2), Column("D")]
    rows = [Row(["a" * 20, "b" * 10, "c" * 10, ""])]
    assert list(table_lines(columns, rows, Screen())) == [
        f"A{' ' * 19}  B{' ' * 9}  C",
        f"{'a' * 20}  {'b' * 10}  {'c' * 10}",
    ]
    assert list(table_lines(columns, rows, Screen(30, 10)))[1] == f"aaaaa…  {'b' * 10}  {'c' * 10}"
    assert list(table_lines(columns, rows, Screen(20, 10)))[1] == f"aaaaaaa…  {'b' * 10}"
    assert list(table_lines(columns, rows, Screen(9, 10)))[1] == "aaaaaaaa…"


def test_numbers() -> None:
    values = [None, 0, 7, 0.04, 0.5, 9.96, 999, 999.7, 12345, 99960, 1234567, 9.9e14, 5e17]
    assert [number(value) for value in values] == [
        *("", "0", "7", "0.0", "0.5", "10", "999", "1.0k", "12.3k", "100k", "1.2M", "990T", "500P")
    ]


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "123")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert (screen_of().colours, screen_of().width) == (True, 123)
    monkeypatch.setenv("NO_COLOR", "1")
    assert (screen_of().colours, screen_of().width) == (False, 123)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not screen_of().colours
    assert Screen(colours=True).paint("x", "red") == "\x1b[31mx\x1b[0m"
    assert Screen().paint("x", "red", bold=True) == "x"


PEER = PeerFacts("lb2", "10.0.0.3", version="1.2", role="standby", services=3, served=3)
WELL = replace(
    PEER, alive=True, heard=5.0, since=1.0, configuration_equal=True, overrides_equal=True
)


def with_peers(*peers: PeerFacts, role: str | None = "active") -> dict[str, Any]:
    """A small status with other balancers."""
    return small_status() | BalancerFacts("lb1", role, peers=peers).describe()


def test_a_pair_that_is_well_is_a_line(show: Callable[..., Shown]) -> None:
    (head, *table), _ = show(with_peers(WELL), 140)
    assert "; active; lb2 answers" in head
    at = next(n for n, line in enumerate(table) if line.startswith("PEER"))
    assert table[at + 1].split() == ["lb2", "up", "standby", "1.2", "same", "same", "3/3"]
    assert not any(line.startswith("  lb2:") for line in table)
    bare, _ = show(with_peers(role=None), 140)
    assert not any("PEER" in line for line in bare)
    assert "active" not in bare[0]


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_wrong_with_a_peer_is_told(show: Callable[..., Shown], width: int) -> None:
    seen = tuple(Otherwise(f"web/b{n}", "up", "down") for n in range(9))
    wrong = replace(
        WELL,
        configuration_equal=False,
        overrides_equal=False,
        digest="0123456789abcdef",
        otherwise=seen,
        clock=-7.0,
        hears_us=False,
    )
    gone = replace(PEER, name="lb3", alive=False, heard=1.0, since=1.0, why="nobody listens")
    answer = with_peers(wrong, gone, replace(PEER, name="lb4", added=False))
    (head, *table), _ = show(answer, width)
    assert head.startswith("PROBLEM")
    for part in ("lb2 runs another configuration", "lb2 has other overrides", "lb4 is not asked"):
        assert part in head
    assert "lb3 is not heard since" in head
    text = " ".join(line.strip() for line in table)
    for part in (
        *("lb2: it does not hear this balancer", "its clock is -7.0 s away"),
        *("tula peer copy lb2", "it sees web/b0 down (here up)", "and 4 more otherwise"),
        "lb3: nobody listens",
    ):
        assert part in text
    assert max(map(len, table)) <= width
    unknown = summarize(with_peers(replace(PEER, alive=False, added=False)))
    assert unknown.fine == summarize(small_status()).fine, "it may never have been meant"
