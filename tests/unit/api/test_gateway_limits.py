"""Who gets a place, and who has to go for another."""

from __future__ import annotations

from tula.api.gateway.limits import Budget, Places, Ticket


def make_places() -> tuple[Places, list[str]]:
    return Places(most=6, by_address=3, pending=4, pending_by_address=2), []


def take(places: Places, gone: list[str], address: str, name: str) -> Ticket | None:
    return places.take(address, lambda: gone.append(name))


def test_the_oldest_of_an_address_goes_when_it_has_too_many() -> None:
    places, gone = make_places()
    for name in ("a", "b", "c"):
        assert take(places, gone, "192.0.2.1", name)
    assert gone == ["a"]
    assert len(places) == 2


def test_addresses_of_one_network_are_one_client() -> None:
    places, gone = make_places()
    for number in range(4):
        take(places, gone, f"2001:db8::{number}", str(number))
    take(places, gone, "2001:db8:0:1::1", "another")
    assert gone == ["0", "1"]


def test_whoever_has_shown_a_token_stays() -> None:
    places, gone = make_places()
    for number in range(3):
        ticket = take(places, gone, "192.0.2.1", f"proven {number}")
        assert ticket is not None
        assert places.prove(ticket)
        assert places.prove(ticket)
    fourth = take(places, gone, "192.0.2.1", "one too many")
    assert fourth is not None
    assert not places.prove(fourth)
    for number in range(20):
        take(places, gone, f"198.51.100.{number}", f"flood {number}")
    assert not [name for name in gone if name.startswith("proven")]
    assert len(places) <= 6


def test_a_resting_connection_makes_room_and_a_busy_one_does_not() -> None:
    places, gone = make_places()
    tickets = [take(places, gone, f"192.0.2.{n}", str(n)) for n in range(6)]
    tickets = []
    places = Places(most=3, by_address=3)
    for number in range(3):
        ticket = take(places, gone, f"192.0.2.{number}", f"busy {number}")
        assert ticket is not None
        assert places.prove(ticket)
        tickets.append(ticket)
    gone.clear()
    assert take(places, gone, "192.0.2.9", "late") is None
    places.rest(tickets[1])
    assert take(places, gone, "192.0.2.9", "late")
    assert gone == ["busy 1"]
    places.release(tickets[1])
    assert len(places) == 3


def test_what_has_ended_leaves_nothing() -> None:
    places, gone = make_places()
    first, second = (take(places, gone, "192.0.2.1", name) for name in "ab")
    assert first is not None
    assert second is not None
    assert places.prove(first)
    places.rest(first)
    for _ in range(2):
        places.release(first)
        places.release(second)
    assert len(places) == 0
    assert not places._pending_of
    assert not places._proven_of
    assert not places._idle


def test_bodies_have_a_budget() -> None:
    budget = Budget(10)
    assert budget.take(7)
    assert not budget.take(4)
    budget.give(7)
    assert budget.take(10)
