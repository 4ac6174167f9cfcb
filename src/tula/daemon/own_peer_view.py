"""What this balancer tells the others of itself, from the loop's snapshot."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tula.config.load import LoadedConfig
from tula.daemon.snapshot import Snapshot
from tula.engine.assemble import RULESET_SCHEMA
from tula.engine.history import digest_of
from tula.engine.peer_view import (
    Details,
    FlowCounts,
    Notified,
    View,
    describe_details,
    digest_of_details,
)
from tula.engine.shared_digest import shared_digest
from tula.kernel.clock import SystemClock
from tula.model.config import Config, IPAddress
from tula.plan.high_availability import own_balancer, plan_role
from tula.version import __version__


@dataclass(frozen=True, slots=True)
class OwnRole:
    """What the engine says, and the operator: see ``BalancerFacts``."""

    role: str | None = None
    standby: bool = False


def own_role(snapshot: Snapshot) -> OwnRole:
    """By what the last cycle found on the machine: a VIP that comes or goes makes a cycle."""
    standby, applied = snapshot.standby is not None, snapshot.applied
    if applied is None:
        return OwnRole(None, standby)
    role = plan_role(applied.config, applied.host, standby=standby)
    return OwnRole(None if role is None else str(role), standby)


class OwnPeerView:
    """Makes the view; what takes long is kept for as long as it is true. In the event loop."""

    def __init__(self, snapshot: Callable[[], Snapshot], role: Callable[[], OwnRole]) -> None:
        self.start = secrets.token_hex(8)
        self._snapshot = snapshot
        self._role = role
        self._boot = SystemClock().boot_id()
        self._digests: tuple[LoadedConfig | None, str, str] = (None, "", "")
        self._details: tuple[tuple[object, ...], Details, str] = ((), Details(), "")
        self._names: tuple[LoadedConfig | None, frozenset[str]] = (None, frozenset())
        self._making = asyncio.Lock()
        self.hears: Mapping[str, bool] = {}
        self.flows = FlowCounts()
        """As they were read last."""
        self.notified: Callable[[], Notified] = Notified
        """What notifications were sent."""

    def balancers(self) -> tuple[str, tuple[tuple[str, IPAddress], ...]]:
        """The own name in ``load_balancers``, empty if it is none of them; and the others. None
        before the first cycle: which one this is tells what the machine was brought to."""
        snapshot = self._snapshot()
        running, applied = snapshot.configuration, snapshot.applied
        if running is None or applied is None:
            return "", ()
        own = own_balancer(running.config, applied.host)
        if own is None:
            return "", ()
        return own[0], tuple(e for e in running.config.load_balancers if e[0] != own[0])

    @property
    def running(self) -> Config | None:
        """The running configuration."""
        running = self._snapshot().configuration
        return None if running is None else running.config

    async def make(self) -> View:
        """How this balancer stands now."""
        async with self._making:
            snapshot = self._snapshot()
            running = snapshot.configuration
            digest = shared = ""
            if running is not None:
                digest, shared = await self._digests_of(running)
            details, described = await self._details_of(snapshot)
        role, (name, _) = self._role(), self.balancers()
        return View(
            name=name,
            version=__version__,
            schema=RULESET_SCHEMA,
            start=self.start,
            boot=self._boot,
            time=time.time(),
            ready=snapshot.applied is not None,
            digest=digest,
            shared_digest=shared,
            tentative=snapshot.tentative is not None,
            overrides_digest=details.overrides_digest,
            role=role.role,
            standby=role.standby,
            flows=self.flows,
            hears=self.hears,
            details_digest=described,
            details=details,
            notified=self.notified(),
        )

    async def known(self) -> frozenset[str]:
        """The backends of the running configuration, by ``service/backend``."""
        running = self._snapshot().configuration
        if running is not None and self._names[0] is not running:
            config = running.config
            names = await asyncio.to_thread(
                lambda: frozenset(f"{s.name}/{b.name}" for s in config.services for b in s.backends)
            )
            self._names = running, names
        return self._names[1]

    async def _digests_of(self, running: LoadedConfig) -> tuple[str, str]:
        if self._digests[0] is not running:
            digest = digest_of(running.source.encode())
            shared = await asyncio.to_thread(shared_digest, running.config)
            self._digests = running, digest, shared
        return self._digests[1:]

    async def _details_of(self, snapshot: Snapshot) -> tuple[Details, str]:
        running = snapshot.configuration
        made_of = (running, snapshot.statuses, snapshot.overrides)
        same = len(self._details[0]) == len(made_of) and all(
            before is now for before, now in zip(self._details[0], made_of, strict=True)
        )
        if running is not None and not same:
            config = running.config

            def make() -> tuple[Details, str]:
                found = describe_details(config, snapshot.statuses.of, snapshot.overrides)
                return found, digest_of_details(found.describe())

            self._details = (made_of, *await asyncio.to_thread(make))
        return self._details[1:]
