"""What differs, in words: bounded, and the table that is gone instead of all that was in it."""

from __future__ import annotations

from tula.dataplane.port import ChangeStep
from tula.engine.differences import NO_TABLE, describe_differences


def test_words() -> None:
    steps = [
        ChangeStep("add", "address", "10.0.0.100", "on eth0"),
        ChangeStep("remove", "address", "10.0.0.101", "on eth0"),
        ChangeStep("change", "table", "netdev tula", "no longer dormant"),
        ChangeStep("add", "chain", "in.eth0", "at the ingress of eth0"),
        ChangeStep("change", "map", "m", "elements: 2 more, 1 fewer, 3 changed"),
        ChangeStep("remove", "map", "x"),
    ]
    assert describe_differences(steps) == (
        "VIP 10.0.0.100 is missing on eth0",
        "VIP 10.0.0.101 should not be there, on eth0",
        "Tula's table in the kernel is dormant: nothing is forwarded",
        "chain in.eth0 is missing",
        "map m differs (elements: 2 missing, 1 too many, 3 different)",
        "map x should not be there",
    )


def test_a_table_stands_for_what_is_in_it() -> None:
    inside = [ChangeStep("add", "chain", f"c{n}") for n in range(9)]
    steps = [
        ChangeStep("add", "address", "10.0.0.100", "on eth0"),
        ChangeStep("add", "table", "netdev tula"),
        *inside,
    ]
    assert describe_differences(steps) == (NO_TABLE, "VIP 10.0.0.100 is missing on eth0")


def test_many_are_counted() -> None:
    steps = [ChangeStep("add", "map", f"m{n}") for n in range(100)]
    assert describe_differences(steps, 3) == (
        *(f"map m{n} is missing" for n in range(3)),
        "and 97 more",
    )
