"""What the operator says without a daemon, and what a disk does not take."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.builders import FakeMachine, make_backend, make_config, make_service
from tula.dataplane.nft.ruleset import MapName
from tula.engine.overrides import override_change
from tula.engine.store import LOCK, MEMORY, Store
from tula.model.errors import KernelError, StateError
from tula.model.health import BackendStatus, Override, State
from tula.model.stats import Count

BACKENDS = [make_backend(0), make_backend(1)]
WEB = make_config(make_service("web", backends=BACKENDS))
B0 = ("web", "b0")
DOWN = {B0: BackendStatus(State.DOWN, 0, present=False)}


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    made = FakeMachine(tmp_path / "state", WEB)
    made.balancer.apply(WEB, b"document")
    return made


def fill(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """From now on there is no room for these files."""
    before: Callable[[str, bytes], Any] = machine.store._write_aside

    def write(name: str, text: bytes) -> Any:
        if name in names:
            raise StateError(f"{name}: No space left on device")
        return before(name, text)

    monkeypatch.setattr(machine.store, "_write_aside", write)


def test_what_is_said_is_in_the_kernel_and_stays(machine: FakeMachine) -> None:
    assert machine.balancer.override(WEB, B0, override_change("drain", 5.0)).change
    assert machine.store.overrides() == {B0: Override(drain=True, since=5.0)}
    assert not machine.balancer.plan(WEB, b"document")
    assert not machine.balancer.apply(WEB, b"document")
    assert not machine.balancer.override(WEB, B0, override_change("drain", 6.0)).change
    assert machine.balancer.override(WEB, B0, override_change("undrain", 7.0)).change
    assert machine.store.overrides() == {}


def test_what_the_kernel_refuses_is_not_said(machine: FakeMachine) -> None:
    machine.nftables.refuse = "busy"
    with pytest.raises(KernelError, match="busy"):
        machine.balancer.override(WEB, B0, override_change("disable", 5.0))
    assert machine.store.overrides() == {}
    machine.nftables.refuse = ""
    assert not machine.balancer.plan(WEB, b"document")


def test_what_the_disk_does_not_take_is_not_done(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(machine, monkeypatch, "overrides.json")
    before = machine.nftables.table
    with pytest.raises(StateError, match="No space left"):
        machine.balancer.override(WEB, B0, override_change("disable", 5.0))
    assert machine.nftables.table == before


def test_a_daemon_that_begins_meanwhile_is_not_spoken_past(machine: FakeMachine) -> None:
    daemon = Store(machine.store.directory)
    with daemon.owned(), pytest.raises(StateError, match="a daemon is starting or stopping"):
        machine.balancer.override(WEB, B0, override_change("drain", 5.0))
    assert machine.store.overrides() == {}
    assert not machine.store.has_daemon()


def counted(machine: FakeMachine) -> int:
    return machine.balancer.stats().backends.get(("web", BACKENDS[0].key), Count()).packets


@pytest.mark.parametrize("way", ["adjust", "reconcile"])
def test_counts_that_the_disk_does_not_take_are_kept_until_it_does(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    table = machine.nftables.table
    assert table is not None
    for name, elements in table.maps.items():
        parsed = MapName.parse(name)
        if parsed is not None and parsed.kind.counts:
            machine.nftables.element_counts[name] = dict.fromkeys(elements, Count(7, 70))
    before = counted(machine)
    assert before
    fill(machine, monkeypatch, MEMORY)
    if way == "adjust":
        repair = machine.balancer.adjust(DOWN)
    else:
        repair = machine.balancer.reconcile(WEB, DOWN)
    assert repair.unsaved == "memory.json: No space left on device"
    assert counted(machine) == before
    assert Store(machine.store.directory).remembered().retired == {}
    monkeypatch.undo()
    assert machine.balancer.reconcile(WEB, DOWN).unsaved == ""
    assert (
        Store(machine.store.directory).remembered().retired["web"][BACKENDS[0].key].packets
        == before
    )
    assert counted(machine) == before


def test_a_document_is_accepted_though_its_counts_find_no_room(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room that was there before the kernel was changed may be gone after it."""
    saved: list[object] = []
    before = machine.store.save_remembered

    def save(memory: Any) -> None:
        if saved:
            raise StateError("no space left")
        saved.append(memory)
        before(memory)

    monkeypatch.setattr(machine.store, "save_remembered", save)
    less = make_config(make_service("web", backends=BACKENDS[:1]))
    assert machine.balancer.apply(less, b"less")
    assert machine.store.configuration() == b"less"
    monkeypatch.undo()
    assert not machine.balancer.plan(less, b"less")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_cannot_be_written_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = Store(tmp_path)
    with store.locked():
        pass
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        there = path == LOCK and (tmp_path / LOCK).exists()
        if flags & os.O_CREAT or (number == errno.EROFS and there and flags & os.O_ACCMODE):
            raise OSError(number, "no")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with store.locked():
        pass
    (tmp_path / LOCK).unlink()
    with pytest.raises(StateError, match="no; choose another"), store.locked():
        pass
