"""``python -m tula.daemon.reader_process FD``: answers in place of the daemon, beside it.

The interpreter's lock is one for all threads of a process: what computes for long would delay a
failover from any thread of the daemon. So large answers are made in a process of their own. It is
sent only what has changed since its last request, ends when the daemon does, and changes nothing.
"""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from tula.config.load import LoadedConfig, parse_config
from tula.daemon.answers import NO_CONFIGURATION, Answers, MetricsRequest, Request, View
from tula.daemon.journal import mark_errors
from tula.engine.reader import Adapters
from tula.engine.store import Remembered
from tula.model.errors import KernelError, StateError
from tula.model.stats import Counted

_CHUNK = 500
"""Entries in a message: pickling one keeps the daemon's other threads waiting, for 1 ms or so."""
_MEASURED = frozenset({"probes", "durations"})
"""What only metrics need; it changes all the time."""
_MAPS = (
    "statuses",
    "findings",
    "overrides",
    "entered",
    "shares",
    "connections",
    "probes",
    "durations",
)

_PATH = "path."

Maps = dict[str, Mapping[Any, Any]]


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of one of the view's mappings that are new or changed, and keys that are gone."""

    name: str
    changed: Mapping[Any, Any]
    gone: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """A request with what is small of the view; ``source`` only if it is another than before."""

    request: Request
    source: bytes | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)
    path: Mapping[str, Any] = field(default_factory=dict)


class Sent:
    """What a reader process knows: the sender's side."""

    def __init__(self) -> None:
        self._maps: Maps = {}
        self._configuration: LoadedConfig | None = None

    def messages(self, request: Request, view: View) -> Iterator[Entries | Ask]:
        """The messages that bring the receiver to the view, the request last."""
        for name, mapping in _maps_of(view).items():
            if name not in _MEASURED or isinstance(request, MetricsRequest):
                yield from self._changes(name, mapping)
        source = None
        if view.configuration is not self._configuration:
            source, self._configuration = view.configuration.source.encode(), view.configuration
        names = {f.name for f in fields(view)} - {*_MAPS, "remembered", "configuration"}
        rest: dict[str, Any] = {name: getattr(view, name) for name in names}
        held = view.connections
        estimated = isinstance(held, Counted) and held.estimated
        empty = held.empty if isinstance(held, Counted) else frozenset()
        rest["counted"] = None if held is None else (estimated, empty)
        path = view.remembered.path.items()
        small = {name: {} if isinstance(value, Mapping) else value for name, value in path}
        yield Ask(request, source, rest, small)

    def _changes(self, name: str, now: Mapping[Any, Any]) -> Iterator[Entries]:
        before = self._maps.get(name, {})
        if now is before:
            return
        missing = object()
        changed = (
            (key, value)
            for key, value in now.items()
            if (old := before.get(key, missing)) is not value and old != value
        )
        while chunk := dict(islice(changed, _CHUNK)):
            yield Entries(name, chunk)
        gone = tuple(before.keys() - now.keys())
        if gone:
            yield Entries(name, {}, gone)
        self._maps[name] = now


class Received:
    """The same, on the receiver's side."""

    def __init__(self) -> None:
        self._maps: dict[str, dict[Any, Any]] = {}
        self._configuration = NO_CONFIGURATION

    def take(self, entries: Entries) -> None:
        """Notes what has changed. Mappings that an answer may have kept are not touched."""
        kept = dict(self._maps.get(entries.name, {}))
        kept.update(entries.changed)
        for key in entries.gone:
            kept.pop(key, None)
        self._maps[entries.name] = kept

    def view(self, ask: Ask) -> View:
        """The view of a request."""
        if ask.source is not None:
            self._configuration = parse_config(ask.source) if ask.source else NO_CONFIGURATION
        rest = dict(ask.rest)
        counted = rest.pop("counted")
        maps: dict[str, Any] = {name: self._maps.get(name, {}) for name in _MAPS}
        maps["connections"] = Counted(maps["connections"], *counted) if counted else None
        path = {name: self._maps.get(_PATH + name, value) for name, value in ask.path.items()}
        remembered = Remembered(path, self._maps.get("retired", {}))
        return View(configuration=self._configuration, remembered=remembered, **maps, **rest)


def _maps_of(view: View) -> Maps:
    maps: Maps = {name: getattr(view, name) or {} for name in _MAPS}
    for name, value in view.remembered.path.items():
        if isinstance(value, Mapping):
            maps[_PATH + name] = value
    return {**maps, "retired": view.remembered.retired}


def send(connection: Connection, messages: Iterable[Entries | Ask]) -> None:
    """Sends them. Raises OSError when the other side has gone."""
    for message in messages:
        connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def serve(connection: Connection, kernel: Adapters) -> None:
    """Answers until the other side closes the connection."""
    answers, received = Answers(kernel), Received()
    while True:
        try:
            message = pickle.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        if isinstance(message, Entries):
            received.take(message)
            continue
        answer: object
        try:
            answer = answers.answer(message.request, received.view(message))
        except (KernelError, StateError) as error:
            answer = error
        except Exception as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        try:
            _reply(connection, answer)
        except ConnectionError:
            return


def _reply(connection: Connection, answer: object) -> None:
    raw = isinstance(answer, bytes)
    connection.send_bytes(b"raw" if raw else b"pickled")
    connection.send_bytes(answer if isinstance(answer, bytes) else pickle.dumps(answer))


def receive(connection: Connection) -> object:
    """An answer; an error is returned, too. Raises EOFError and OSError without the other side."""
    raw = connection.recv_bytes() == b"raw"
    body = connection.recv_bytes()
    return body if raw else pickle.loads(body)


def main() -> None:
    """Serves the connection whose file descriptor is the only argument."""
    mark_errors()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for the daemon
    connection = Connection(int(sys.argv[1]))
    make_adapters = pickle.loads(connection.recv_bytes())
    serve(connection, make_adapters())


if __name__ == "__main__":
    # By its own name, so that what was pickled there is known here.
    from tula.daemon import reader_process

    reader_process.main()
