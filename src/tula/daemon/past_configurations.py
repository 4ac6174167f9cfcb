"""The configurations that were accepted before: which there are, how they differ, and the way back
to one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from tula.config.load import LoadedConfig, parse_config
from tula.config.redact import redacted_diff
from tula.daemon.apart import apart
from tula.daemon.loop import ControlLoop
from tula.daemon.watch import FileWatch
from tula.engine.control import ApplyOutcome, Order, RefusedError, Rollback
from tula.engine.history import Entry, digest_of, find_entry
from tula.engine.store import Store
from tula.plan.config_changes import describe_config_changes

Apply = Callable[[bytes | None, Order], Awaitable[ApplyOutcome]]


class PastConfigurations:
    """See ``Control`` for what each method promises. ``running`` is the configuration that runs."""

    def __init__(self, store: Store, loop: ControlLoop, watch: FileWatch) -> None:
        self._store = store
        self._loop = loop
        self._watch = watch

    async def entries(self) -> tuple[Entry, ...]:
        """All, the oldest first."""
        return await asyncio.to_thread(self._store.history)

    async def diff(self, number: int | None, running: str) -> str:
        """How one differs from what runs. Raises RefusedError."""

        def compare() -> str:
            entry = self._entry(number, running)
            text = self._store.past_configuration(entry.number).decode(errors="replace")
            name = f"configuration {entry.number}"
            return apart(redacted_diff, text, running, name, "running")

        return await asyncio.to_thread(compare)

    async def rollback(
        self, number: int | str | None, order: Order, running: LoadedConfig, apply: Apply
    ) -> Rollback:
        """Goes back, by ``apply``. What was accepted once, SSH port and all, may come back without
        a question: the order says so."""
        tentative = self._loop.snapshot.tentative
        if number is None and tentative is not None:
            if order.dry:
                await self._loop.check(running, order)
            if order.dry or await self._loop.go_back(order.by, order.match):
                entries = await self.entries()
                back = entries[-1].number if entries else 0
                return await self._done(back, running, tentative.before, order)
        entry = await asyncio.to_thread(self._entry, number, running.source)
        text = await asyncio.to_thread(self._store.past_configuration, entry.number)
        outcome = await apply(text, replace(order, how=f"rollback to {entry.number}"))
        if outcome.problems:
            name = f"configuration {entry.number}"
            raise RefusedError(tuple(each.describe(name) for each in outcome.problems))
        after = await asyncio.to_thread(parse_config, text)
        return await self._done(entry.number, running, after, order)

    async def _done(
        self, number: int, before: LoadedConfig, after: LoadedConfig, order: Order
    ) -> Rollback:
        digest = digest_of(after.source.encode())
        if order.dry:
            file = self._loop.snapshot.file
            differs = file.digest is not None and file.digest != digest
        else:
            # A file that was saved a moment ago has not been looked at yet.
            await self._loop.look_at_file()
            differs = self._loop.snapshot.file.differs_since is not None
        return Rollback(
            number,
            after.source != before.source,
            str(self._watch.path),
            differs,
            describe_config_changes(before.config, after.config),
            digest,
        )

    def _entry(self, number: int | str | None, running: str) -> Entry:
        try:
            return find_entry(self._store.history(), number, digest_of(running.encode()))
        except LookupError as error:
            raise RefusedError((str(error.args[0]),)) from None
