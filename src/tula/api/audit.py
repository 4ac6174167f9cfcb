"""Enters every change that is asked for in the audit log, whatever route it is.

A route that takes ``Scope.OPERATE`` or more and is no GET changes something: there is nothing to
be remembered when a route is added. ``requires`` enters that it begins, once the caller may; the
answer tells what came of it, and is sent when the log has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tula.engine import callers
from tula.engine.audit import AuditLog, Entry, Result, new_entry
from tula.engine.callers import Caller

_PATIENCE = 3.0
"""Seconds that a change waits for the log: a disk that hangs must not keep it from being made."""
_SMALL = 4096
"""Bytes of a body of JSON that is entered, and of an answer that tells why."""
_SEEING = frozenset({"GET", "HEAD", "OPTIONS"})
_KEY = "tula.audited"
_TRUE = frozenset({"1", "true", "t", "yes", "y", "on"})
"""As pydantic reads a flag."""


async def note_begin(request: Request, caller: Caller, needed: callers.Scope) -> None:
    """Enters that a change begins, if the request is one."""
    audited: _Audited | None = request.scope.get(_KEY)
    if audited is None or not needed.covers(callers.Scope.OPERATE):
        return
    if request.query_params.get("dry_run", "").lower() in _TRUE:
        return
    route = request.scope.get("route")
    action = getattr(route, "name", "") or request.url.path
    subject = "/".join(str(part) for part in request.path_params.values())
    given = {name: value for name, value in request.query_params.items() if value != ""}
    audited.entry = new_entry(caller, action, subject, given)
    await audited.write(audited.entry)


class AuditMiddleware:
    """Tells the log what came of each change that ``note_begin`` has entered."""

    def __init__(self, app: ASGIApp, log: AuditLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _SEEING:
            await self._app(scope, receive, send)
            return
        kind = Headers(scope=scope).get("content-type", "")
        audited = _Audited(self._log, receive, send, "json" in kind)
        scope[_KEY] = audited
        try:
            await self._app(scope, audited.receive, audited.send)
        except Exception as error:
            await audited.end(500, f"internal error: {type(error).__name__}")
            raise


@dataclass(slots=True)
class _Audited:
    """One request, and what of it is worth keeping."""

    log: AuditLog
    client: Receive
    answer: Send
    json: bool
    """whether the body says that it is"""
    entry: Entry | None = None
    body: bytearray = field(default_factory=bytearray)
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    whole: bool = False
    start: Message | None = None
    told: bytearray = field(default_factory=bytearray)

    async def write(self, entry: Entry) -> None:
        tried = asyncio.wrap_future(self.log.add(entry))
        with suppress(TimeoutError):
            await asyncio.wait_for(tried, _PATIENCE)

    async def receive(self) -> Message:
        message = await self.client()
        chunk = message.get("body", b"")
        self.size += len(chunk)
        self.whole = not message.get("more_body", False)
        self.digest.update(chunk)
        self.body += chunk[: _SMALL - len(self.body)]
        return message

    async def send(self, message: Message) -> None:
        """Holds the answer's beginning back until the log knows how it begins."""
        if self.entry is None:
            await self.answer(message)
        elif message["type"] == "http.response.start":
            self.start = message
            if message["status"] < 400:
                await self.end(message["status"])
                await self.answer(message)
                self.start = None
        else:
            if self.start is not None:
                self.told += message.get("body", b"")[:_SMALL]
                await self.end(self.start["status"])
                await self.answer(self.start)
                self.start = None
            await self.answer(message)

    async def end(self, status: int, why: str = "") -> None:
        """Tells the log how the request was answered, once. Without an answer, for the daemon
        ends, what came of it stays unknown."""
        entry, self.entry = self.entry, None
        if entry is None:
            return
        result = Result.DONE if status < 400 else Result.REFUSED
        if status >= 500 and status != 503:
            result = Result.FAILED
        if status >= 400:
            why = why or _why(bytes(self.told)) or f"status {status}"
        await self.write(entry.ended(result, why, **self._given()))

    def _given(self) -> dict[str, Any]:
        """What the body asks for; of a configuration, which may hold secrets, its digest."""
        if not self.size or not self.whole:
            return {}
        if self.json and self.size <= _SMALL:
            with suppress(ValueError, RecursionError):
                given = json.loads(bytes(self.body))
                if isinstance(given, dict):
                    return {name: value for name, value in given.items() if value is not None}
        return {"digest": self.digest.hexdigest()}


def _why(answer: bytes) -> str:
    """The messages of an answer that is not a success."""
    try:
        return "; ".join(str(each["message"]) for each in json.loads(answer)["errors"][:3])
    except (LookupError, ValueError, TypeError, RecursionError):
        return ""
