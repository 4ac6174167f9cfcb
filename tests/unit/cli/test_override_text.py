"""What is said of a drain whose backend goes down meanwhile."""

from __future__ import annotations

import pytest

from tula.cli.override_text import Over, drain_progress


@pytest.mark.parametrize(
    ("keeps", "held", "over"),
    [(False, 3, Over.DONE), (True, 3, Over.NO), (True, 0, Over.DONE), (True, None, Over.NO)],
)
def test_a_drain_of_what_is_down_goes_on_while_its_flows_are_kept(
    keeps: bool, held: int | None, over: Over
) -> None:
    view = {
        "state": "down",
        "reason": "tcp: refused",
        "connections": held,
        "keeps_connections": keeps,
        "overrides": [{"what": "drain", "text": "drained", "end": "tula undrain web/b1"}],
    }
    assert drain_progress(view)[1] is over
