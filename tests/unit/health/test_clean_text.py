"""What servers say goes into one line of ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tula.health.check import clean


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("fine", "fine"),
        ("größer", "größer"),
        ("a\r\nb\x1b[31m", "a\\r\\nb\\x1b[31m"),
        ("a\u202eb", "a\\u202eb"),
        (b"\xff\x00ok", "\\xff\\x00ok"),
        ("x" * 200, "x" * 160 + "..."),
    ],
)
def test_cleaned(said: str | bytes, shown: str) -> None:
    assert clean(said) == shown


@given(st.one_of(st.text(), st.binary()), st.integers(10, 100))
def test_always_one_printable_line(said: str | bytes, longest: int) -> None:
    shown = clean(said, longest)
    assert shown.isprintable()
    assert len(shown) <= longest + 3
