"""What the daemon makes of its counts for least-connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from support.builders import FakeMachine, ids_of, make_backend, make_config, make_service
from support.documents import render_document
from tula.config.load import Document
from tula.daemon.held import Held
from tula.daemon.pending import Pending, Trigger
from tula.daemon.reconciler import Reconciler
from tula.dataplane.nft.ids import backend_id
from tula.engine.event_log import EventLog
from tula.model.config import Scheduler


def test_shares_follow_counts_and_fall_back_to_weights(tmp_path: Path) -> None:
    config = make_config(
        make_service(
            backends=[make_backend(0), make_backend(1)], scheduler=Scheduler.LEAST_CONNECTIONS
        )
    )
    machine = FakeMachine(tmp_path, config)
    events = EventLog()
    reconciler = Reconciler(machine.balancer, machine.store, events)
    reconciler.document = Document(config, "", {}, [])
    assert not reconciler.cycle({}, compare=True).error
    moved: list[Mapping[str, Mapping[str, int]]] = []
    held = Held(
        machine.balancer, reconciler, events, on_shares=lambda: moved.append(reconciler.shares)
    )

    def change() -> str:
        path = reconciler.cycle({}, compare=False).change.path
        kinds = {str(step.name.kind) for step in path.transaction} if path else set()
        return ", ".join(kinds)

    held.take(held.count())
    assert moved == [{"web": {"b0": 100, "b1": 100}}]
    assert change() == "", "as the weights are"
    ids = ids_of(machine.store)
    mark = backend_id(ids.services["web"], ids.backends[config.services[0].backends[0].key])
    for number in range(50):
        machine.nftables.flows["tcp4_262144", number.to_bytes(16, "big")] = mark
    held.take(held.count())
    share = moved[-1]["web"]
    assert share["b0"] < share["b1"] == 100
    assert change() == "wrr"
    assert reconciler.cycle({}, compare=True).change.path.transaction == (), "a full look agrees"
    other = make_config(replace(config.services[0], vips=(ip_address("10.0.0.101"),)))
    assert reconciler.offer(render_document(other).encode(), {}), "another VIP"
    assert reconciler.shares == moved[-1]
    assert change() == "", "the shares stayed"
    held.take(None)
    assert moved[-1] == {}
    assert "least-connections goes by weight" in held.problems[0]
    assert change() == "wrr"
    held.take(held.count())
    assert not held.problems


def test_after_a_cycle_for_health_there_is_as_long_a_rest() -> None:
    pending = Pending()
    pending.note(Trigger.HEALTH, 100.0)
    assert pending.due() == 100.005
    pending.take()
    pending.succeeded(100.1, 0.08)
    pending.note(Trigger.HEALTH, 100.11)
    assert pending.due() == 100.1 + 0.08
    pending.note(Trigger.OVERRIDE, 100.12)
    assert pending.due() == 100.12, "a person does not wait"
    pending.take()
    pending.succeeded(100.2, 9.0)
    pending.note(Trigger.HEALTH, 100.2)
    assert pending.due() == 100.45, "never long"
    pending.take()
    pending.note(Trigger.HEALTH, 200.0)
    assert pending.due() == 200.005, "what comes alone does not wait"
