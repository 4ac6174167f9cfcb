"""Speaks to a daemon: over the unix socket in the run directory, or over TLS from another machine.

Whatever a command asks goes through ``Client``; only its ``Way`` differs.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode

SOCKET = "tula.sock"
"""As in ``tula.engine.control``, which is too heavy to ask whether a daemon runs at all."""
PREFIX = "/api/v1"
_READING = 30.0
"""The same for what changes nothing: a monitor waits for it."""
_TIMEOUT = 120.0
"""Seconds without a byte; a first apply of a large configuration takes some ten."""
_EVERYWHERE = 240.0
"""The same for a change on all balancers, of which some may be slow and some away."""
_NOT_FOUND, _CONFLICT, _OUTDATED = 404, 409, 412
_NONE: Mapping[str, str] = {}
_ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})
_DENIED = frozenset({401, 403, 408, 412, 428, 429})
"""Answers to what was written well, and is not done all the same."""


class NoDaemonError(Exception):
    """Nobody listens: there is no socket, or its daemon has gone."""


class DaemonError(Exception):
    """The daemon cannot be asked, or answered with errors (``status`` is that of HTTP, else 0).

    ``kind`` is the end of a problem's type (RFC 9457), empty from a daemon that tells none.
    """

    def __init__(self, status: int, errors: list[dict[str, Any]], kind: str = "") -> None:
        super().__init__("; ".join(error["message"] for error in errors))
        self.status = status
        self.errors = errors
        self.kind = kind

    @property
    def wrong_input(self) -> bool:
        """Whether the one who asked is wrong, and not the machine."""
        return 400 <= self.status < 500 and self.status not in (_CONFLICT, *_DENIED)

    @property
    def denied(self) -> bool:
        """Whether this token may not do it, now or ever."""
        return self.status in (401, 403)

    @property
    def outdated(self) -> bool:
        """Whether the change was made for another configuration than the one that runs."""
        return self.status == _OUTDATED

    @property
    def may_insist(self) -> bool:
        """Whether it is done when asked for with ``yes``."""
        return self.status == _CONFLICT and self.kind in ("", "loss")


class Answer(NamedTuple):
    """What HTTP answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Way(Protocol):
    """How a daemon is reached."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request carries."""

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """A connection that is not made yet; each wait for the other end is so many seconds."""

    def explain(self, error: OSError, timeout: float) -> Exception:
        """What to raise in its place: NoDaemonError or DaemonError."""

    def place(self, message: str, answer: Answer, /) -> str:
        """An error's message, with what it takes to see where it comes from."""


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """The socket of a daemon on this machine."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def headers(self) -> Mapping[str, str]:
        return {}

    def open(self, timeout: float) -> http.client.HTTPConnection:
        return _UnixConnection(self.path, timeout)

    def explain(self, error: OSError, timeout: float) -> Exception:
        if error.errno in _ABSENT:
            return NoDaemonError(str(self.path))
        reason = error.strerror or error
        if isinstance(error, TimeoutError):
            reason = (
                f"no answer within {timeout:g} s; traffic goes on without it; "
                "restart it: systemctl restart tula"
            )
        return DaemonError(0, [{"message": f"the daemon at {self.path}: {reason}"}])

    def place(self, message: str, _answer: Answer, /) -> str:
        return message


@dataclass(frozen=True, slots=True)
class Client:
    """One request at a time, each on a connection of its own."""

    way: Way
    patience: float = _READING
    """Seconds without a byte, for what changes nothing."""
    change_patience: float = _TIMEOUT
    """The same for what changes something."""

    def get(self, path: str, **query: object) -> Any:
        """The answer's JSON; parameters that are None are left out."""
        return self._ask("GET", path + _given(query))

    def text(self, path: str, **query: object) -> str:
        """The answer's text; parameters that are None are left out."""
        answer = self._exchange("GET", path + _given(query))
        return answer.body.decode() if answer.status < 300 else str(self._read(answer))

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """Sends JSON, or nothing; the answer's JSON."""
        data = None if body is None else json.dumps(body).encode()
        return self._ask(method, path, data, "application/json")

    def delete(self, path: str, **query: object) -> Any:
        """What came of it; parameters that are None are left out."""
        return self._ask("DELETE", path + _given(query))

    def plan(self, source: bytes | None, force: bool, *, file: bool = True) -> Any:
        """What a configuration would change; None: that of the daemon's file, or the running
        one."""
        query = _query(force=force, file=file and source is None)
        return self._ask("POST", f"/plan{query}", source, "application/yaml")

    def digest(self) -> str | None:
        """The digest of the configuration that runs; None: this daemon is too old to say."""
        try:
            return self.configuration()[1] or None
        except DaemonError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def configuration(self) -> tuple[str, str]:
        """The text of the configuration that runs, and its digest."""
        answer = self._exchange("GET", "/configuration")
        if answer.status >= 300:
            self._read(answer)
        return answer.body.decode(), str(answer.headers.get("ETag", "")).strip('"')

    def apply(
        self,
        source: bytes | None,
        instead: str | None = None,
        *,
        force: bool = False,
        yes: bool = False,
        confirm: float | None = None,
    ) -> Any:
        """Has the daemon accept a configuration; None: that of its file.

        ``instead`` is the digest of the one that must run by then; else DaemonError, ``outdated``.
        """
        path = "/reload" if source is None else "/apply"
        # Without it, yes is what force is.
        query = _query(force=force, yes="true" if yes else "false", confirm=confirm)
        more = {} if instead is None else {"If-Match": f'"{instead}"'}
        return self._ask("POST", path + query, source, "application/yaml", more)

    def everywhere(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        source: bytes | None = None,
        instead: str | None = None,
        query: Mapping[str, str | bool | float | None] = _NONE,
    ) -> Any:
        """A change on all balancers, with JSON or a configuration; ``instead`` as in ``apply``.
        Parameters that are None or false are left out."""
        more = {} if instead is None else {"If-Match": f'"{instead}"'}
        data, kind = source, "application/yaml"
        if body is not None:
            data, kind = json.dumps(body).encode(), "application/json"
        asked = replace(self, change_patience=_EVERYWHERE)
        return asked._ask(method, f"/everywhere{path}{_query(**query)}", data, kind, more)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "",
        more: Mapping[str, str] = _NONE,
    ) -> Any:
        return self._read(self._exchange(method, path, body, kind, more))

    def _exchange(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = "",
        more: Mapping[str, str] = _NONE,
    ) -> Answer:
        timeout = self.patience if method == "GET" else self.change_patience
        connection = self.way.open(timeout)
        headers = {**self.way.headers, **more}
        if body is not None:
            headers["Content-Type"] = kind
        try:
            connection.connect()
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, PREFIX + path, body, headers)
            # Even then: a body that is not wanted is not read to its end before the answer.
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        except http.client.HTTPException:
            message = f"the daemon at {self.way.name} ended before it answered"
            raise DaemonError(0, [{"message": message}]) from None
        except OSError as error:
            raise self.way.explain(error, timeout) from None
        finally:
            connection.close()

    def _read(self, answer: Answer) -> Any:
        try:
            found = json.loads(answer.body)
            if answer.status < 300:
                return found
            errors = [
                {**error, "message": self.way.place(str(error["message"]), answer)}
                for error in found["errors"]
            ]
            if errors:
                kind = str(found.get("type") or "").rpartition(":")[2]
                raise DaemonError(answer.status, errors, kind)
        except (ValueError, LookupError, TypeError, AttributeError):
            pass
        message = f"{self.way.name}: what answers there is not Tula's daemon"
        raise DaemonError(0, [{"message": message}])


def _given(query: Mapping[str, object]) -> str:
    given = {
        name: "true" if value is True else str(value)
        for name, value in query.items()
        if value is not None
    }
    return f"?{urlencode(given)}" if given else ""


def _query(**given: str | bool | float | None) -> str:
    """What is false or None is left out."""
    found = {
        name: "true" if value is True else str(value) for name, value in given.items() if value
    }
    return f"?{urlencode(found)}" if found else ""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("tula", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def find_daemon(run_dir: Path) -> Client | None:
    """The daemon of this run directory, None if none runs. Raises DaemonError.

    It only connects: a daemon that is slow to answer is there all the same.
    """
    path = run_dir / SOCKET
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(_TIMEOUT)
            asking.connect(str(path))
    except OSError as error:
        # Without errno: a path too long for a socket's, so no daemon could listen there.
        if error.errno in _ABSENT or error.errno is None or _hidden(path):
            return None
        hint = ""
        if isinstance(error, PermissionError):
            hint = "; be root, or of the group that tula run --socket-group names"
        raise DaemonError(0, [{"message": f"{path}: {error.strerror or error}{hint}"}]) from None
    return Client(UnixSocket(path))


def _hidden(path: Path) -> bool:
    """Whether it cannot even be seen; who lacks rights is told so by what comes next."""
    try:
        path.stat()
    except OSError:
        return True
    return False


def backend_path(service: str, backend: str, verb: str = "") -> str:
    """The path of a command about a backend, or of the backend itself."""
    path = f"/services/{quote(service, safe='')}/backends/{quote(backend, safe='')}"
    return f"{path}/{verb}" if verb else path
