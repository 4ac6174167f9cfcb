"""Bursts become one cycle, and failures wait; time is passed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tula.daemon.pending import FIRST_WAIT, GATHER, LONGEST_WAIT, Pending, Trigger


def test_nothing_asks_for_nothing() -> None:
    assert Pending().due() is None


def test_a_burst_is_one_cycle_and_does_not_put_it_off() -> None:
    pending = Pending()
    for at in range(10):
        pending.note(Trigger.HEALTH, 100 + at / 1000)
    assert pending.due() == 100 + GATHER[Trigger.HEALTH]
    assert pending.take() == {Trigger.HEALTH}
    assert pending.due() is None


def test_the_quickest_trigger_decides() -> None:
    pending = Pending()
    pending.note(Trigger.KERNEL, 100)
    pending.note(Trigger.DOCUMENT, 100.05)
    assert pending.due() == 100.05
    assert pending.take() == {Trigger.KERNEL, Trigger.DOCUMENT}


def test_failures_wait_longer_and_longer_and_compare_all() -> None:
    pending, now, waits = Pending(), 100.0, []
    for _ in range(12):
        pending.failed(now)
        due = pending.due()
        assert due is not None
        waits.append(due - now)
        now = due
        assert any(trigger.compares for trigger in pending.take())
    assert waits[:4] == [FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 4, FIRST_WAIT * 8]
    assert waits[-1] == LONGEST_WAIT
    pending.succeeded()
    pending.failed(now)
    assert pending.due() == now + FIRST_WAIT


def test_health_does_not_break_into_the_wait_but_a_person_does() -> None:
    pending = Pending()
    for _ in range(6):
        pending.failed(100.0)
        pending.take()
    pending.failed(100.0)
    end = pending.due()
    assert end is not None
    pending.note(Trigger.HEALTH, 101.0)
    assert pending.due() == end
    pending.note(Trigger.OVERRIDE, 102.0)
    assert pending.due() == 102.0


@given(
    st.lists(st.tuples(st.sampled_from(Trigger), st.floats(0, 1, exclude_min=True)), max_size=20)
)
def test_no_trigger_is_lost(noted: list[tuple[Trigger, float]]) -> None:
    pending, now, taken = Pending(), 100.0, set()
    for trigger, pause in noted:
        now += pause
        due = pending.due()
        if due is not None and due <= now:
            taken |= pending.take()
        pending.note(trigger, now)
        due = pending.due()
        assert due is not None
        assert due <= now + max(GATHER.values())
    taken |= pending.take()
    assert taken == {trigger for trigger, _ in noted}
