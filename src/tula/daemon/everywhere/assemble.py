"""Puts the parts together by which a daemon is one of several balancers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tula.config.load import LoadedConfig
from tula.daemon.everywhere.participant import Participant
from tula.daemon.everywhere.service import Everywhere, OwnName
from tula.daemon.loop import ControlLoop
from tula.daemon.watch import FileWatch
from tula.daemon.writer import Writer
from tula.engine.control import Control, Overridden
from tula.engine.event_log import EventLog
from tula.engine.everywhere import Override
from tula.engine.everywhere_journal import Journal
from tula.engine.store import Store
from tula.kernel.network import Network
from tula.plan.high_availability import own_balancer


def make_everywhere(
    control: Control,
    loop: ControlLoop,
    writer: Writer,
    store: Store,
    events: EventLog,
    watch: FileWatch,
    own_name: OwnName,
) -> Everywhere:
    """``control`` is this machine's daemon."""
    journal = Journal(store.directory)
    participant = Participant(loop, writer, control.apply, store, journal, events)

    async def carry(order: Override, dry: bool) -> Mapping[str, Any]:
        return await _carry(control, order, dry)

    return Everywhere(loop, participant, store, journal, watch, own_name, carry)


def name_by_addresses(network: Network) -> OwnName:
    """By this machine's own addresses; to be called in a thread."""

    def own_name(configuration: LoadedConfig) -> str | None:
        found = own_balancer(configuration.config, network.view(frozenset()))
        return None if found is None else found[0]

    return own_name


async def _carry(control: Control, order: Override, dry: bool) -> Mapping[str, Any]:
    body, name = order.body or {}, order.backend
    if order.verb == "drain":
        deadline, release = body.get("deadline"), bool(body.get("release"))
        done = await control.drain(
            name, deadline, release=release, by=order.by, yes=order.yes, dry=dry
        )
    elif order.verb == "disable":
        done = await control.disable(name, by=order.by, yes=order.yes, dry=dry)
    elif order.verb == "weight":
        weight = body.get("weight")
        done = await control.set_weight(name, weight, by=order.by, yes=order.yes, dry=dry)
    elif order.verb == "undrain":
        done = await control.undrain(name, by=order.by, dry=dry)
    else:
        done = await control.enable(name, by=order.by, dry=dry)
    return _described(order, done, dry)


def _described(order: Override, done: Overridden, dry: bool) -> Mapping[str, Any]:
    """As the API answers it."""
    stands = {
        when: {
            name: value
            for name, value in asdict(view).items()
            if name in ("state", "weight", "effective_weight")
        }
        for when, view in (("before", done.before), ("after", done.after))
    }
    service, backend = order.backend
    return {"service": service, "backend": backend, "dry_run": dry, **stands}
