"""The balancers as their coordinator asks them: the others by their API, this one directly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from tula.daemon.everywhere.participant import Participant
from tula.engine.control import (
    BusyError,
    ConditionError,
    LossError,
    NoSuchBackendError,
    NothingToConfirmError,
    Order,
    RefusedError,
    SourceError,
)
from tula.engine.everywhere import (
    Change,
    MemberError,
    Override,
    Prepared,
    Trouble,
    trouble,
)
from tula.engine.peer_client import PeerAnswer, PeerClient, PeerError
from tula.engine.peers import Peer
from tula.model.errors import KernelError, StateError
from tula.model.wording import printable
from tula.plan.everywhere import Standing

ASK, PREPARE, KEEP, TAKE_BACK, KNOW = 30.0, 60.0, 30.0, 10.0, 3.0
"""Seconds for an answer: to a dry run, of a large configuration too; to take it; to keep it; to
take it back; what is known of a change."""
_CONNECT = 5.0
_LONGEST = 1000
"""Characters of what another balancer says in one text."""
_CHANGES = "/everywhere/changes"
_YAML = {"Content-Type": "application/yaml"}
_JSON = {"Content-Type": "application/json"}
_SILENT = frozenset({408, 429, 502, 503, 504})
_Carry = Callable[[Override, bool], Awaitable[Mapping[str, Any]]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LocalMember:
    """This machine. ``order`` says whose content is taken; ``carry`` carries out overrides."""

    participant: Participant
    order: Order
    carry: _Carry

    async def prepare(
        self, change: Change, text: bytes, before: str | None, seconds: float, *, dry: bool
    ) -> Prepared:
        order = replace(self.order, dry=dry)
        return await _told(self.participant.prepare(change, text, before, seconds, order))

    async def hold(self, change: str, coordinator: str, seconds: float) -> str:
        return await _told(self.participant.hold(change, coordinator, seconds))

    async def confirm(self, change: Change, digest: str) -> None:
        await _told(self.participant.confirm(change, digest))

    async def adopt(self, change: Change, text: bytes, before: str) -> None:
        await _told(self.participant.adopt(change, text, before, self.order))

    async def abort(self, change: str, coordinator: str, why: str) -> None:
        await _told(self.participant.abort(change, coordinator, why))

    async def standing(self, change: str) -> Standing:
        return await _told(self.participant.standing(change))

    async def override(self, order: Override, *, dry: bool) -> Mapping[str, Any]:
        return await _told(self.carry(order, dry))


async def _told(work: Awaitable[T]) -> T:
    """Raises MemberError for what the daemon raises, as the API would answer it."""
    try:
        return await work
    except (LossError, RefusedError) as error:
        kind = Trouble.LOSS if isinstance(error, LossError) else Trouble.REFUSED
        raise MemberError(kind, [{"message": line} for line in error.lines]) from error
    except NoSuchBackendError as error:
        told = {"message": str(error), "near": list(error.near)}
        raise MemberError(Trouble.NO_SUCH_BACKEND, [told]) from error
    except SourceError as error:
        raise trouble(Trouble.SOURCE, str(error)) from error
    except ConditionError as error:
        raise trouble(Trouble.ANOTHER, _another(error.digest)) from error
    except NothingToConfirmError as error:
        raise trouble(Trouble.LOST, str(error)) from error
    except BusyError as error:
        raise trouble(Trouble.UNREACHABLE, str(error)) from error
    except (KernelError, StateError) as error:
        raise trouble(Trouble.FAILED, str(error)) from error


def _another(digest: str) -> str:
    return f"another configuration runs there by now, {digest[:12]}; nothing was changed there"


@dataclass(frozen=True, slots=True)
class RemoteMember:
    """Another balancer, with a connection for each request: they are few, and seconds apart.
    ``own`` is the name of this one, which it is told with who asked here."""

    peer: Peer
    pool: Executor
    own: str

    async def prepare(
        self, change: Change, text: bytes, before: str | None, seconds: float, *, dry: bool
    ) -> Prepared:
        given = {**self._described(change), "seconds": seconds, "dry_run": dry or None}
        match = {"If-Match": "*" if before is None else f'"{before}"'}
        path = _path(change.id, "prepare", given)
        answer = await self._ask("POST", path, text, {**_YAML, **match}, ASK if dry else PREPARE)
        return Prepared(
            str(answer["before"]),
            bool(answer["changed"]),
            tuple(map(str, answer["summary"])),
            tuple(answer["warnings"]),
        )

    async def hold(self, change: str, coordinator: str, seconds: float) -> str:
        given = {"coordinator": coordinator, "seconds": seconds}
        answer = await self._ask("POST", _path(change, "hold", given), timeout=TAKE_BACK)
        return str(answer["before"])

    async def confirm(self, change: Change, digest: str) -> None:
        given = {**self._described(change), "digest": digest}
        await self._ask("POST", _path(change.id, "confirm", given), timeout=KEEP)

    async def adopt(self, change: Change, text: bytes, before: str) -> None:
        path, match = (
            _path(change.id, "adopt", self._described(change)),
            {"If-Match": f'"{before}"'},
        )
        await self._ask("POST", path, text, {**_YAML, **match}, PREPARE)

    async def abort(self, change: str, coordinator: str, why: str) -> None:
        given = {"coordinator": coordinator, "why": why[:300]}
        await self._ask("POST", _path(change, "abort", given), timeout=TAKE_BACK)

    async def standing(self, change: str) -> Standing:
        answer = await self._ask("GET", _path(change, "", {}), timeout=KNOW)
        return Standing(answer["standing"])

    async def override(self, order: Override, *, dry: bool) -> Mapping[str, Any]:
        service, backend = (quote(name, safe="") for name in order.backend)
        given = {"asked_by": self._by(order.by), "force": order.yes or None, "dry_run": dry or None}
        path = f"/services/{service}/backends/{backend}/{order.verb}{_query(given)}"
        method = "PUT" if order.verb == "weight" else "POST"
        body = None if order.body is None else json.dumps(order.body).encode()
        found = await self._ask(method, path, body, _JSON if body else {}, ASK)
        return dict(found)

    def _by(self, who: str) -> str:
        return who if "@" in who else f"{who}@{self.own}"

    def _described(self, change: Change) -> dict[str, object]:
        given = {name: value for name, value in asdict(change).items() if name != "id"}
        return given | {"by": self._by(change.by)}

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = ASK,
    ) -> Any:
        def ask() -> PeerAnswer:
            client = PeerClient(self.peer, _CONNECT)
            try:
                return client.ask(method, path, body, headers or {}, timeout=timeout)
            finally:
                client.close()

        try:
            answer = await asyncio.get_running_loop().run_in_executor(self.pool, ask)
            if answer.status < 300:
                return answer.json()
        except PeerError as error:
            raise trouble(Trouble.UNREACHABLE, str(error)) from error
        raise _refusal(answer)


def _path(change: str, verb: str, given: Mapping[str, object]) -> str:
    path = f"{_CHANGES}/{quote(change, safe='')}"
    return f"{path}/{verb}{_query(given)}" if verb else path


def _query(given: Mapping[str, object]) -> str:
    said = {
        name: "true" if value is True else str(value)
        for name, value in given.items()
        if value is not None
    }
    return f"?{urlencode(said)}" if said else ""


def _refusal(answer: PeerAnswer) -> MemberError:
    """What its answer means."""
    if answer.status in _SILENT:
        return trouble(Trouble.UNREACHABLE, answer.refusal())
    if answer.status == 412:
        return trouble(Trouble.ANOTHER, _another(str(answer.headers.get("ETag", "")).strip('"')))
    if answer.status == 401:
        return trouble(Trouble.REFUSED, answer.refusal())
    with suppress(PeerError, LookupError, ValueError, TypeError):
        found = answer.json()
        errors = [_plain(error) for error in found["errors"]]
        if errors and all("message" in error for error in errors):
            kind = _kind(answer.status, str(found.get("type") or ""))
            if answer.status == 404 and kind is not Trouble.NO_SUCH_BACKEND:
                return trouble(kind, "its version of Tula knows no --everywhere: upgrade it")
            return MemberError(kind, errors)
    return trouble(Trouble.FAILED, answer.refusal())


def _plain(error: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a terminal would obey."""
    return {
        str(key): printable(value, _LONGEST) if isinstance(value, str) else value
        for key, value in dict(error).items()
    }


def _kind(status: int, uri: str) -> Trouble:
    with suppress(ValueError):
        return Trouble(uri.rpartition(":")[2])
    return Trouble.REFUSED if 400 <= status < 500 else Trouble.FAILED
