"""Bursts become one cycle, and failures wait; time is passed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tula.daemon.triggers import FIRST_WAIT, GATHER, LONGEST_WAIT, Trigger, TriggerQueue


def test_nothing_asks_for_nothing() -> None:
    assert TriggerQueue().due() is None


def test_a_burst_is_one_cycle_and_does_not_put_it_off() -> None:
    queue = TriggerQueue()
    for at in range(10):
        queue.note(Trigger.HEALTH, 100 + at / 1000)
    assert queue.due() == 100 + GATHER[Trigger.HEALTH]
    assert queue.take() == {Trigger.HEALTH}
    assert queue.due() is None


def test_the_quickest_trigger_decides() -> None:
    queue = TriggerQueue()
    queue.note(Trigger.KERNEL, 100)
    queue.note(Trigger.CONFIGURATION, 100.05)
    assert queue.due() == 100.05
    assert queue.take() == {Trigger.KERNEL, Trigger.CONFIGURATION}


def test_failures_wait_longer_and_longer_and_compare_all() -> None:
    queue, now, waits = TriggerQueue(), 100.0, []
    for _ in range(12):
        queue.failed(now)
        due = queue.due()
        assert due is not None
        waits.append(due - now)
        now = due
        assert any(trigger.compares for trigger in queue.take())
    assert waits[:4] == [FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 4, FIRST_WAIT * 8]
    assert waits[-1] == LONGEST_WAIT
    queue.succeeded()
    queue.failed(now)
    assert queue.due() == now + FIRST_WAIT


def test_health_does_not_break_into_the_wait_but_a_person_does() -> None:
    queue = TriggerQueue()
    for _ in range(6):
        queue.failed(100.0)
        queue.take()
    queue.failed(100.0)
    end = queue.due()
    assert end is not None
    queue.note(Trigger.HEALTH, 101.0)
    assert queue.due() == end
    queue.note(Trigger.OVERRIDE, 102.0)
    assert queue.due() == 102.0


@given(
    st.lists(st.tuples(st.sampled_from(Trigger), st.floats(0, 1, exclude_min=True)), max_size=20)
)
def test_no_trigger_is_lost(noted: list[tuple[Trigger, float]]) -> None:
    queue, now, taken = TriggerQueue(), 100.0, set()
    for trigger, pause in noted:
        now += pause
        due = queue.due()
        if due is not None and due <= now:
            taken |= queue.take()
        queue.note(trigger, now)
        due = queue.due()
        assert due is not None
        assert due <= now + max(GATHER.values())
    taken |= queue.take()
    assert taken == {trigger for trigger, _ in noted}


def test_after_a_cycle_for_health_there_is_as_long_a_rest() -> None:
    queue = TriggerQueue()
    queue.note(Trigger.HEALTH, 100.0)
    assert queue.due() == 100.005
    queue.take()
    queue.succeeded(100.1, 0.08)
    queue.note(Trigger.HEALTH, 100.11)
    assert queue.due() == 100.1 + 0.08
    queue.note(Trigger.OVERRIDE, 100.12)
    assert queue.due() == 100.12, "a person does not wait"
    queue.take()
    queue.succeeded(100.2, 9.0)
    queue.note(Trigger.HEALTH, 100.2)
    assert queue.due() == 100.45, "never long"
    queue.take()
    queue.note(Trigger.HEALTH, 200.0)
    assert queue.due() == 200.005, "what comes alone does not wait"
