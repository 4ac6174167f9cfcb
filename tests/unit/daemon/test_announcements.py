"""When VIPs are announced again."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from tula.daemon.announcements import AFTER, AnnouncementSchedule
from tula.model.host import Link, OwnedAddress

VIP = OwnedAddress(ip_address("10.0.0.100"), "eth0")
OTHER = OwnedAddress(ip_address("2001:db8::100"), "eth0")
LINK = Link("eth0", 2, b"\x02\0\0\0\0\1", carriers=1)


def played(schedule: AnnouncementSchedule, until: float = 1000.0) -> list[float]:
    """When something is due, until then."""
    times: list[float] = []
    while (at := schedule.next()) is not None and at <= until:
        assert schedule.take(at)
        times.append(at)
    return times


def test_a_new_one_is_announced_several_times() -> None:
    schedule = AnnouncementSchedule()
    schedule.follow([VIP], {"eth0": LINK}, 10.0)
    assert played(schedule) == [10.0 + after for after in AFTER]
    schedule.follow([VIP], {"eth0": LINK}, 100.0)
    assert played(schedule) == [], "and then no more"


def test_only_what_is_new_is() -> None:
    schedule = AnnouncementSchedule()
    schedule.start([VIP], {"eth0": LINK})
    schedule.follow([VIP, OTHER], {"eth0": LINK}, 0.0)
    assert schedule.take(0.0) == [OTHER]


def test_without_a_carrier_it_waits_for_one() -> None:
    schedule = AnnouncementSchedule()
    schedule.follow([VIP], {"eth0": replace(LINK, carrier=False)}, 0.0)
    assert schedule.next() is None
    schedule.follow([VIP], {"eth0": LINK}, 60.0)
    assert schedule.next() == 60.0


def test_a_carrier_that_was_gone_for_a_moment() -> None:
    """Nobody saw the link without it."""
    schedule = AnnouncementSchedule()
    schedule.start([VIP], {"eth0": LINK})
    schedule.follow([VIP], {"eth0": replace(LINK, carriers=2)}, 5.0)
    assert schedule.next() == 5.0


def test_another_card() -> None:
    schedule = AnnouncementSchedule()
    schedule.start([VIP], {"eth0": LINK})
    schedule.follow([VIP], {"eth0": replace(LINK, mac=b"\x02\0\0\0\0\2")}, 5.0)
    assert schedule.next() == 5.0


def test_what_goes_is_not_announced_again() -> None:
    schedule = AnnouncementSchedule()
    schedule.follow([VIP, OTHER], {"eth0": LINK}, 0.0)
    assert schedule.take(0.0) == [VIP, OTHER]
    schedule.follow([OTHER], {"eth0": LINK}, 0.5)
    assert schedule.take(1.0) == [OTHER]


def test_a_late_look_makes_up_for_nothing() -> None:
    schedule = AnnouncementSchedule()
    schedule.follow([VIP], {"eth0": LINK}, 0.0)
    assert schedule.take(3.0) == [VIP]
    assert schedule.next() == 4.0
