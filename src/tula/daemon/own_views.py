"""What backends see of themselves, from the loop's snapshot."""

from __future__ import annotations

import asyncio
import json

from tula.config.load import LoadedConfig
from tula.daemon.snapshot import Snapshot
from tula.engine.control import BusyError
from tula.engine.own_view import OwnState, Places, describe_own, find_places
from tula.kernel.clock import boot_time


class OwnViews:
    """Knows where the backends of each name serve, for as long as a configuration runs."""

    def __init__(self) -> None:
        self._known: tuple[LoadedConfig | None, Places] = (None, {})
        self._finding = asyncio.Lock()

    async def view(self, name: str, running: LoadedConfig, snapshot: Snapshot) -> bytes | None:
        """The JSON of ``describe_own``; None if there is no such backend. Raises BusyError."""
        places = (await self._places(running)).get(name)
        if places is None:
            return None
        if any((service.name, name) not in snapshot.statuses.of for service, _ in places):
            raise BusyError("the daemon is starting; try again")
        state = OwnState(
            running.config,
            snapshot.statuses.of,
            snapshot.overrides,
            {} if snapshot.applied is None else snapshot.applied.routes.endpoints,
            snapshot.connections,
            boot_time(),
        )
        return json.dumps(describe_own(name, places, state)).encode()

    async def _places(self, running: LoadedConfig) -> Places:
        if self._known[0] is not running:
            async with self._finding:  # thousands may ask after a change, and one finds them
                if self._known[0] is not running:
                    # A tenth of a second for 4,000 backends: a failover must not wait for it.
                    found = await asyncio.to_thread(find_places, running.config)
                    self._known = running, found
        return self._known[1]
