"""Numbers and times in messages."""

from __future__ import annotations

import pytest

from tula.config.scalars import read_duration
from tula.model.wording import counted, describe_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.09, "90ms"), (5, "5s"), (90, "1m30s"), (600, "10m"), (5400, "1h30m"), (1.5, "1.5s"),
     (86400, "1d"), (90061, "1d1h1m1s"), (31536000, "365d")],
)  # fmt: skip
def test_a_time_is_told_as_it_may_be_written(seconds: float, text: str) -> None:
    assert describe_duration(seconds) == text
    assert read_duration(text) == pytest.approx(seconds)


def test_one_is_not_many() -> None:
    assert [counted(n, "service") for n in (0, 1, 2)] == ["0 services", "1 service", "2 services"]
