"""A large kernel is compared only when something has moved, and the answer is always right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support.builders import FakeMachine, make_backend, make_config, make_service
from tula.daemon.kernel_check import KernelCheck, Wanted
from tula.engine.differences import NO_TABLE
from tula.engine.kernel_state import KernelState

CONFIG = make_config(make_service("web", backends=[make_backend(0), make_backend(1)]))


class Scene:
    """An applied configuration whose comparisons take ``seconds`` of the test's clock."""

    def __init__(self, directory: Path, seconds: float) -> None:
        self.machine = FakeMachine(directory / "state", CONFIG)
        self.machine.balancer.apply(CONFIG, b"document")
        self.now, self.compared = 0.0, 0
        self.statuses = self.machine.balancer.without_monitors(CONFIG)
        self.check = KernelCheck(lambda: self.now)
        inspect = self.machine.balancer.inspect

        def slow(*arguments: object) -> object:
            self.now += seconds
            self.compared += 1
            return inspect(*arguments)

        self.machine.balancer.inspect = slow

    def look(self, revision: int | None = None) -> KernelState:
        wanted = Wanted(CONFIG, self.statuses, {}, revision)
        return self.check.look(self.machine.balancer, wanted)


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Scene]:
    return Scene(tmp_path, 0.5)


def test_a_small_one_is_compared_each_time(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 0.01)
    assert [scene.look().in_sync for _ in range(3)] == [True] * 3
    assert scene.compared == 3


def test_nothing_has_moved(large: Scene) -> None:
    assert [large.look().in_sync for _ in range(3)] == [True] * 3
    assert large.compared == 1
    large.now += 61
    assert large.look().in_sync
    assert large.compared == 2, "of some changes nothing tells"


def test_somebody_changes_something(large: Scene) -> None:
    assert large.look().in_sync
    large.machine.nftables.meddle(None)
    assert large.look().differences == (NO_TABLE,)
    assert large.look().differences == (NO_TABLE,)
    assert large.compared == 2
    large.machine.balancer.apply(CONFIG, b"document")
    assert large.look().in_sync
    host = large.machine.network.host
    kept = tuple(held for held in host.addresses if not held.ours)
    large.machine.network.host = replace(host, addresses=kept)
    assert large.look().differences == ("VIP 10.0.0.100 is missing on eth0",)


def test_the_daemon_changes_something(large: Scene) -> None:
    """It publishes the revision that it left: no comparison is needed."""
    assert large.look().in_sync
    large.machine.nftables.commits += 1
    large.statuses = dict(large.statuses)
    assert large.look(large.machine.nftables.commits).in_sync
    assert large.compared == 1
    large.machine.nftables.commits += 1
    assert large.look(large.machine.nftables.commits - 1).in_sync
    assert large.compared == 2, "that was somebody else"


def test_interfaces_are_told_as_they_are(large: Scene) -> None:
    assert large.look().interfaces == {"eth0": "up"}
    network = large.machine.network
    links = {name: replace(link, up=False) for name, link in network.host.links.items()}
    network.host = replace(network.host, links=links)
    assert large.look().interfaces == {"eth0": "down"}
    assert large.compared == 1
