"""Weights and agents' lines, good ones and garbage."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tula.health.words import (
    LONGEST_LINE,
    LONGEST_WEIGHT,
    advised,
    not_a_weight,
    parse_agent,
    parse_weight,
    weighs,
    weight_of_status,
)
from tula.model.advice import HEAVIEST, Admin, Advice, GivenWeight, Words


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        (b"0", GivenWeight(0)),
        (b"75%", GivenWeight(75, percent=True)),
        (b" \t30\r\n", GivenWeight(30)),
        (b"65535", GivenWeight(65535)),
        (b"65536", None),
        (b"99999%", None),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.5", None),
        (b"1e3", None),
        (b"30 40", None),
        (b"%", None),
        (b"\xd9\xa3", None),  # an Arabic digit, which int() would take
        (b"1_000", None),
        (b"0" * 5, GivenWeight(0)),
        (b" " * LONGEST_WEIGHT + b"1", None),
    ],
)
def test_what_is_a_weight(text: bytes, weight: GivenWeight | None) -> None:
    assert parse_weight(text) == weight


def test_percentages_are_of_the_configured_weight() -> None:
    assert [GivenWeight(p, percent=True).of(100) for p in (0, 1, 75, 150)] == [0, 1, 75, 150]
    assert GivenWeight(1, percent=True).of(10) == 1, "only 0 drains"
    assert GivenWeight(50, percent=True).of(0) == 0
    assert GivenWeight(65535, percent=True).of(65535) == HEAVIEST
    assert GivenWeight(30).of(100) == 30


def test_exit_statuses_as_misc_dynamic_has_them() -> None:
    assert [status for status in (-9, 0, 1, 2, 255) if weighs(status)] == [0, 2, 255]
    assert weight_of_status(0) is None
    assert [weight_of_status(status) for status in (2, 12, 255)] == [
        GivenWeight(0),
        GivenWeight(10),
        GivenWeight(253),
    ]


@pytest.mark.parametrize(
    ("line", "words", "strange"),
    [
        (b"up", Words(up=True), ""),
        (b"UP 75%", Words(GivenWeight(75, percent=True), up=True), ""),
        (
            b"ready,up\t50%",
            Words(GivenWeight(50, percent=True), Admin.READY, True, "says ready"),
            "",
        ),
        (b"drain", Words(admin=Admin.DRAIN, cause="says drain"), ""),
        (b"Maint", Words(admin=Admin.MAINT, cause="says maint"), ""),
        (b"down # up 50% drain", Words(up=False), ""),
        (b"stopped #x", Words(up=False), ""),
        (b"fail", Words(up=False), ""),
        (b"failed", Words(up=False), ""),
        (b"up down", Words(up=False), ""),
        (b"down up", Words(up=True), ""),
        (b"weight:30", Words(GivenWeight(30)), ""),
        (b"weight:30%", Words(GivenWeight(30, percent=True)), ""),
        (b"maxconn:10 up", Words(up=True), ""),
        (b"30", Words(), "30"),
        (b"weight:x up", Words(up=True), "weight:x"),
        (b"", Words(), ""),
        (b"HTTP/1.1 400 Bad Request", Words(), "HTTP/1.1"),
        (b"up\x00", Words(), "up\\x00"),
    ],
)
def test_an_agents_line(line: bytes, words: Words, strange: str) -> None:
    assert parse_agent(line) == (words, strange)


@given(st.binary(max_size=LONGEST_LINE))
@example(b"\xff" * LONGEST_LINE)
@example(b"9" * 5000 + b"%")
def test_garbage_is_named_and_never_raises(text: bytes) -> None:
    words, strange = parse_agent(text)
    assert len(strange) < 200
    assert strange.isprintable()
    assert words.weight is None or 0 <= words.weight.value <= HEAVIEST
    weight = parse_weight(text)
    assert weight is None or 0 <= weight.of(65535) <= HEAVIEST
    said = not_a_weight("the body", text)
    assert said.isprintable()
    assert len(said) < 250


WORDS = st.builds(
    Words,
    st.none() | st.builds(GivenWeight, st.integers(0, 200), st.booleans()),
    st.none() | st.sampled_from(Admin),
    st.none() | st.booleans(),
)


@given(st.lists(WORDS, max_size=6))
def test_an_agent_takes_back_only_what_it_mentions(lines: list[Words]) -> None:
    said = Advice(0, "its agent")
    for words in lines:
        said = advised(said, words, "agent: down", auxiliary=True)
    last = {
        name: next((v for w in reversed(lines) if (v := getattr(w, name)) is not None), None)
        for name in ("weight", "admin", "up")
    }
    assert (said.weight, said.up) == (last["weight"], last["up"])
    assert said.admin is (last["admin"] or Admin.READY)
    assert bool(said.evidence) is (last["up"] is False)


def test_an_answer_of_a_check_that_decides_stands_for_itself() -> None:
    said = advised(Advice(1), Words(admin=Admin.DRAIN, cause="answered 404"), "", auxiliary=False)
    assert (said.check, said.admin, said.cause) == (1, Admin.DRAIN, "answered 404")
    assert advised(said, Words(), "", auxiliary=False).plain
