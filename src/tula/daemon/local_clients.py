"""``ClientControl`` over the daemon in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

from tula.config.load import LoadedConfig
from tula.daemon.answers import ClientsRequest
from tula.daemon.components import Components
from tula.daemon.readers import Readers
from tula.engine.control import LossError
from tula.engine.persistent_clients import MOST, Cleared, chosen_scopes, forgets_all
from tula.model.config import IPAddress


class LocalClients:
    """See ``ClientControl``. ``running`` gives the configuration that runs, or raises BusyError."""

    def __init__(
        self, components: Components, readers: Readers, running: Callable[[], LoadedConfig]
    ) -> None:
        self._components = components
        self._readers = readers
        self._running = running

    async def list(self, service: str | None, client: IPAddress | None, limit: int) -> bytes:
        scopes = chosen_scopes(self._running().config, service)
        return cast(bytes, await self._readers.ask(ClientsRequest(scopes, client, limit)))

    async def forget(
        self,
        service: str | None,
        client: IPAddress | None,
        *,
        yes: bool = False,
        dry: bool = False,
    ) -> Cleared:
        scopes = chosen_scopes(self._running().config, service)
        if client is None and scopes and not yes:
            raise LossError((forgets_all(scopes),))
        if dry:
            held = json.loads(await self.list(service, client, MOST))
            return Cleared(len(held["clients"]) if held["complete"] else None, scopes)
        loop = self._components.loop
        count = await loop.ask_writer(lambda writer: writer.forget_clients(scopes, client))
        return Cleared(count, scopes)
