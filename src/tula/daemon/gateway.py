"""Keeps the gateway: the process that answers the network as the running configuration says.

The daemon opens the listening sockets and hands them over. So what cannot be listened on is known
here, and while the process is started again, clients wait in the sockets' queues and are not
refused. The process has no capabilities, and neither it nor a socket outlives the daemon.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tula.daemon.gateway_messages import (
    API,
    LARGEST,
    METRICS,
    Listener,
    Order,
    Report,
    decode_report,
    send_order,
)
from tula.daemon.snapshot import Snapshot
from tula.engine.callers import GatewayProcesses
from tula.engine.certificates import ensure_own
from tula.engine.control import SOCKET, NetworkFacts
from tula.engine.event_log import EventLog
from tula.kernel.stream_listeners import ListenError, open_listener
from tula.model.errors import StateError
from tula.model.event import EventKind
from tula.model.listening import ApiSettings, Endpoint, MetricsSettings

MODULE = "tula.api.gateway"
_RETRY = 2.0
"""Seconds between tries to listen where that failed: an address may come later."""
_GRACE = 5.0
"""Seconds for requests that are under way when the daemon ends, or nothing is listened on."""

_OnReport = Callable[[bytes], object]
Wanted = tuple[ApiSettings, MetricsSettings]
_NOTHING: Wanted = (ApiSettings(), MetricsSettings())


class GatewayError(Exception):
    """The process ended, or could not be started."""


class Gateway:
    """Follows what the writer publishes; ``run`` keeps the process."""

    def __init__(
        self, state_dir: Path, run_dir: Path, events: EventLog, processes: GatewayProcesses
    ) -> None:
        self._state_dir, self._run_dir = state_dir.absolute(), run_dir.absolute()
        self._events = events
        self._processes = processes
        self._wanted = _NOTHING
        self._changed = asyncio.Event()
        self._opened: dict[Endpoint, socket.socket] = {}
        self._failed: dict[Endpoint, str] = {}
        self._pair: tuple[str, str] = ("", "")
        self._unmade = ""
        """why there is no certificate"""
        self._report = Report()
        self._told: frozenset[str] = frozenset()
        self._child: _Child | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the configuration's ``api`` and ``metrics`` does not work, a line each."""
        unmade = (f"api: {self._unmade}",) if self._unmade else ()
        reported = tuple(f"api: {each}" for each in self._report.problems)
        return (*self._failed.values(), *unmade, *reported)

    @property
    def facts(self) -> NetworkFacts:
        """How it stands, for status."""
        listening = tuple(
            f"{'https' if each.tls else 'http'}://{each.endpoint}"
            for each in self._listeners()
            if self._report.fingerprint or not each.tls  # without a certificate nobody gets in
        )
        return NetworkFacts(listening, self._report.fingerprint, self.problems)

    def follow(self, snapshot: Snapshot) -> None:
        """What is wanted from now on."""
        if snapshot.configuration is None:
            return
        config = snapshot.configuration.config
        if (config.api, config.metrics) != self._wanted:
            self._wanted = (config.api, config.metrics)
            self._changed.set()

    async def run(self) -> None:
        """Until it is cancelled. Raises GatewayError when the process has ended by itself; the
        sockets are kept for the next one."""
        try:
            while True:
                self._changed.clear()
                await self._obey()
                if self._child is None and not self._failed:
                    await self._changed.wait()
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY if self._failed else None):
                        await self._news()
        finally:
            await self._end()

    def close(self) -> None:
        """Closes what is listened on."""
        while self._opened:
            _stop_listening(self._opened.popitem()[1])

    async def _obey(self) -> None:
        before = set(self._opened) if self._child is not None else set()
        self._listen()
        await self._provide_certificate()
        if self._opened:
            if self._child is None:
                self._child = _Child(self._heard)
                self._processes.pids.add(self._child.pid)
                before = set()
            self._send(self._child, [each for each in self._opened if each not in before])
        elif self._child is not None:
            await self._end()
        self._tell()

    def _listen(self) -> None:
        api, metrics = self._wanted
        wanted = dict.fromkeys((*api.listen, *metrics.listen))
        for endpoint in self._opened.keys() - wanted.keys():
            _stop_listening(self._opened.pop(endpoint))
        self._failed = {}
        for endpoint in wanted:
            if endpoint not in self._opened:
                try:
                    self._opened[endpoint] = open_listener(endpoint.address, endpoint.port)
                except ListenError as error:
                    key = "api" if endpoint in api.listen else "metrics"
                    self._failed[endpoint] = f"{key}: cannot listen on {endpoint}: {error}"

    def _listeners(self) -> tuple[Listener, ...]:
        api, metrics = self._wanted
        secured = bool(api.certificate)
        return (
            *(
                # Never plain HTTP but on an address that no other machine can reach.
                Listener(str(each), API, secured or not each.address.is_loopback)
                for each in api.listen
                if each in self._opened
            ),
            *(
                Listener(str(each), METRICS, False)
                for each in metrics.listen
                if each in self._opened
            ),
        )

    async def _provide_certificate(self) -> None:
        """The pair of files that the gateway shows; the own one is made if it is needed."""
        api, self._unmade = self._wanted[0], ""
        self._pair = api.certificate, api.key
        if api.certificate or not any(each.tls for each in self._listeners()):
            return
        names = [socket.gethostname(), "localhost", *(str(each.address) for each in api.listen)]
        try:
            made = await asyncio.to_thread(ensure_own, self._state_dir, names)
            self._pair = str(made.certificate), str(made.key)
        except (StateError, OSError, subprocess.SubprocessError) as error:
            self._unmade = str(error)

    def _send(self, child: _Child, new: list[Endpoint]) -> None:
        order = Order(
            self._listeners(),
            tuple(map(str, new)),
            str(self._run_dir / SOCKET),
            str(self._state_dir),
            *self._pair,
        )
        try:
            send_order(child.channel, order, [self._opened[each] for each in new])
        except OSError as error:
            raise GatewayError(f"the gateway does not take orders: {error.strerror}") from error

    async def _news(self) -> None:
        """Returns when something else is wanted. Raises GatewayError when the process ends."""
        assert self._child is not None or self._failed
        if self._child is None:
            await self._changed.wait()
            return
        changed: asyncio.Future[object] = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({changed, self._child.ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            changed.cancel()
        if self._child.ended.done():
            status = await self._end()
            why = f"signal {-status}" if status < 0 else f"exit status {status}"
            raise GatewayError(f"the gateway's process ended: {why}")

    async def _end(self) -> int:
        """Ends the process, if it runs; its exit status."""
        child, self._child = self._child, None
        if child is None:
            return 0
        child.channel_ends()
        try:
            async with asyncio.timeout(_GRACE):
                await asyncio.shield(child.ended)
        except TimeoutError:
            child.kill()
        finally:
            # Before it is reaped: after that, its number may be anybody's.
            self._processes.pids.discard(child.pid)
            status = child.reap()
        self._report = Report()
        return status

    def _heard(self, text: bytes) -> None:
        with suppress(ValueError, TypeError, LookupError):
            self._report = decode_report(text)
            if self._report.problems and not self._wanted[0].certificate:
                self._changed.set()  # somebody has removed the own certificate: it is made anew
            self._tell()

    def _tell(self) -> None:
        now = frozenset(self.problems)
        for problem in sorted(now - self._told):
            self._events.add(EventKind.API_WARNING, message=problem)
        if self._told and not now:
            self._events.add(EventKind.API_RECOVERED, message="the network is answered again")
        self._told = now


class _Child:
    """The process, and the daemon's end of the channel to it."""

    def __init__(self, on_report: _OnReport) -> None:
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, kind)
        self.channel.setblocking(False)
        self._loop, self._on_report = loop, on_report
        with theirs:
            # From the loop's thread, which lives as long as the daemon: the kernel ends the child
            # with the thread that started it (PR_SET_PDEATHSIG).
            command = [sys.executable, "-I", "-m", MODULE, str(theirs.fileno()), str(os.getpid())]
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    env=_environment(),
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                )
            except OSError as error:
                self.channel.close()
                raise GatewayError(f"the gateway cannot be started: {error}") from error
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self.ended: asyncio.Future[object] = loop.create_future()
        loop.add_reader(self._pidfd, self._note_end)
        loop.add_reader(self.channel.fileno(), self._read)

    def channel_ends(self) -> None:
        """Tells it to end, which it does once it has answered what is under way."""
        if self.channel.fileno() >= 0:
            self._loop.remove_reader(self.channel.fileno())
            self.channel.close()

    def kill(self) -> None:
        """At once."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def reap(self) -> int:
        """Its exit status, negative for a signal; it is killed if it has not ended."""
        if not self.ended.done():
            self.kill()
        self.channel_ends()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        return self._process.wait()

    def _note_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self.ended.done():
            self.ended.set_result(None)

    def _read(self) -> None:
        try:
            text = self.channel.recv(LARGEST)
        except BlockingIOError:
            return
        except OSError:
            text = b""
        if text:
            self._on_report(text)
        else:
            self._loop.remove_reader(self.channel.fileno())


def _environment() -> dict[str, str]:
    kept = ("PATH", "JOURNAL_STREAM", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ}


def _stop_listening(opened: socket.socket) -> None:
    # The gateway has a descriptor of it for a moment yet, which must not keep the port.
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
    opened.close()
