"""A backend that comes back gets its share step by step, and the kernel follows."""

from __future__ import annotations

from pathlib import Path

from support.builders import FakeMachine, ids_of
from tula.config.load import parse_config
from tula.daemon.reconciler import Reconciler
from tula.dataplane.nft.ids import split_id
from tula.dataplane.nft.ruleset import MapName
from tula.engine.balancer import Balancer
from tula.engine.event_log import EventLog
from tula.model.health import Health

CONFIGURATION = b"""
interfaces: [eth0]
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l2
    health: {type: tcp, slow_start: 10s}
    backends:
      a: {address: 10.0.0.11}
      b: {address: 10.0.0.12}
"""
NAME = ("web", "a")


def share(machine: FakeMachine) -> float:
    """Backend a's part of the slots."""
    table, ids = machine.nftables.table, ids_of(machine.store)
    assert table is not None
    for name, elements in table.maps.items():
        parsed = MapName.parse(name)
        if parsed is not None and parsed.kind.numbered:
            owners = [split_id(value)[1] for value in elements.values() if isinstance(value, int)]
            return owners.count(ids.backends["10.0.0.11"]) / len(owners)
    raise AssertionError("no table of slots")


def test_the_share_of_a_backend_that_returned_rises(tmp_path: Path) -> None:
    now = [1000.0]
    machine = FakeMachine(tmp_path, parse_config(CONFIGURATION).config)
    balancer = Balancer(machine.adapters, machine.store, lambda: now[0])
    reconciler = Reconciler(balancer, machine.store, EventLog(), lambda: now[0])
    reconciler.start()
    up, down = Health(True, 0.0), Health(False, 0.0)
    reconciler.accept(parse_config(CONFIGURATION), {NAME: up})
    assert round(share(machine), 2) == 0.5, "no slow start for what was never down"
    reconciler.cycle({NAME: down}, compare=False)
    assert share(machine) == 0.0
    shares = []
    reconciler.cycle({NAME: up}, compare=False)
    while True:
        shares.append(round(share(machine), 2))
        until = reconciler.statuses.until
        if until is None:
            break
        now[0] = until
        reconciler.cycle({NAME: up}, compare=False)
    wanted = [round(step / (step + 10), 2) for step in range(1, 11)]
    assert shares == wanted
    assert now[0] == 1009.0
