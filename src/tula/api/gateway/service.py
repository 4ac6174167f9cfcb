"""Listens as the daemon says, and answers: who asks, may they, and what does the daemon say."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import ssl
import sys
from asyncio import sslproto
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from tula.api.gateway import limits
from tula.api.gateway.answers import Answer, RefusalError, refusal
from tula.api.gateway.connection import Connection, Head, Stream
from tula.api.gateway.stream import TARGET, Events, parse_place
from tula.api.gateway.tls import Certificate
from tula.api.gateway.upstream import Forwarded, Upstream
from tula.daemon.gateway_messages import (
    METRICS,
    Listener,
    Order,
    Report,
    encode_report,
    receive_order,
)
from tula.daemon.journal import WARNING, is_journal, prefixed
from tula.engine.authenticator import Authenticator, Refused
from tula.engine.callers import Scope
from tula.engine.refusals import Buckets, FailedAttempts, RefusalLog, client_key
from tula.engine.tokens import Token

_LOOK = 1.0
"""Seconds between looks at the certificate's files."""
_LEFT = 20
"""Ended connections after which what they leave is collected."""
_HANDED_ON = frozenset(
    {b"accept", b"content-type", b"if-match", b"if-none-match", b"last-event-id"}
)
"""Of a client's headers; nothing else of them reaches the daemon."""
_METRICS = "/metrics"
_REST = 4.0
"""Scrapes without a token take a fifth of the daemon's readers at most."""
_GRACE = 3.0
_TLS_BUFFER = 32 * 1024
"""Bytes that each TLS connection reads into: 256 KiB by default, which 500 clients would make
125 MiB."""
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_USER_TIMEOUT = 60_000
"""Milliseconds until a client that acknowledges nothing has gone (tcp(7))."""


class Gateway:
    """All of the process. ``run`` lives until the daemon's end of the channel is closed."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._order = Order()
        self._sockets: dict[str, tuple[socket.socket, asyncio.Task[None]]] = {}
        self._certificate: Certificate | None = None
        self._trouble = ""
        self._reported = Report()
        self._upstream = Upstream("")
        self._events = Events(self._upstream)
        self._tokens: Authenticator | None = None
        self._places = limits.Places()
        self._budget = limits.Budget()
        self._untaken = limits.Answers()
        self._new = Buckets(limits.NEW, 1 / limits.NEW_RATE)
        self._requests = Buckets(limits.REQUESTS, 1 / limits.REQUEST_RATE)
        self._attempts = FailedAttempts()
        self._log = RefusalLog(_log_refusal)
        self._clients: set[asyncio.Task[None]] = set()
        self._left = 0

    async def run(self) -> None:
        """Follows the daemon's orders."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_tell_unless_clients)
        sslproto.SSLProtocol.max_size = _TLS_BUFFER
        self._channel.setblocking(False)
        ended, events = asyncio.Event(), asyncio.create_task(self._events.run())
        loop.add_reader(self._channel.fileno(), self._hear, ended)
        try:
            while not ended.is_set():
                self._look_at_certificate()
                self._collect()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await ended.wait()
        finally:
            loop.remove_reader(self._channel.fileno())
            self._listen(Order(), [])
            events.cancel()
            await self._finish()

    def _collect(self) -> None:
        """Frees what ended connections have left: the parts of asyncio's TLS refer to each other,
        and Python would collect their buffers, up to a megabyte each, after thousands of them."""
        if self._left >= _LEFT:
            self._left = 0
            gc.collect()

    async def _finish(self) -> None:
        """Gives requests that are under way time to be answered; what rests or streams ends."""
        if self._clients:
            await asyncio.wait(self._clients, timeout=_GRACE if self._upstream.busy else 0.1)
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _hear(self, ended: asyncio.Event) -> None:
        try:
            found = receive_order(self._channel)
        except BlockingIOError:
            return
        except OSError:
            found = None
        if found is None:
            ended.set()
            return
        self._listen(*found)

    def _listen(self, order: Order, descriptors: list[int]) -> None:
        wanted = {listener.endpoint for listener in order.listeners}
        for endpoint in self._sockets.keys() - wanted:
            opened, task = self._sockets.pop(endpoint)
            task.cancel()
            opened.close()
        if order.socket:
            self._upstream.path = order.socket
        if order.state_dir and order.state_dir != self._order.state_dir:
            self._tokens = Authenticator(
                Path(order.state_dir), on_unreadable=lambda why: _log("tokens", why)
            )
        files = order.certificate, order.key
        if files != (self._certificate.files if self._certificate else ("", "")):
            self._certificate = Certificate(*files) if order.certificate else None
        self._order = order
        for endpoint, descriptor in zip(order.new, descriptors, strict=True):
            opened = socket.socket(fileno=descriptor)
            opened.setblocking(False)
            task = asyncio.create_task(self._accept(endpoint, opened))
            self._sockets[endpoint] = opened, task
        self._look_at_certificate()

    def _look_at_certificate(self) -> None:
        found = self._certificate
        if found is not None:
            found.refresh()
        fingerprint, problem = (found.fingerprint, found.problem) if found else ("", "")
        unreadable = self._tokens.problem() if self._tokens else ""
        problems = tuple(filter(None, (problem, self._trouble, unreadable)))
        report = Report(problems, fingerprint)
        if report != self._reported:
            with suppress(BlockingIOError, OSError):
                self._channel.send(encode_report(report))
                self._reported = report

    def _listener(self, endpoint: str) -> Listener | None:
        return next((each for each in self._order.listeners if each.endpoint == endpoint), None)

    async def _accept(self, endpoint: str, opened: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                made, address = await loop.sock_accept(opened)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return  # the daemon has ended it
                # What a client did to its connection meanwhile is none of ours (accept(2)).
                await asyncio.sleep(0.1 if error.errno in _NO_ROOM else 0.0)
                continue
            listener = self._listener(endpoint)
            context = self._certificate.context if self._certificate else None
            refused = listener is None or (listener.tls and context is None)
            if refused or not self._admit(listener, made, address[0], context):
                made.close()

    def _admit(
        self,
        listener: Listener | None,
        made: socket.socket,
        address: str,
        context: ssl.SSLContext | None,
    ) -> bool:
        assert listener is not None
        loop = asyncio.get_running_loop()
        if self._new.take(client_key(address), loop.time()):
            self._log.counts["too-many-connections"] += 1
            return False
        ended: list[Callable[[], object]] = []
        ticket = self._places.take(address, lambda: ended[0]())
        if ticket is None:
            self._log.note(address, "", "no-room")
            return False
        work = self._serve(listener, made, address, ticket, context if listener.tls else None)
        task = asyncio.create_task(work)
        ended.append(task.cancel)
        self._clients.add(task)

        def end(_: object) -> None:
            self._clients.discard(task)
            self._left += 1
            self._places.release(ticket)
            made.close()

        task.add_done_callback(end)
        return True

    async def _serve(
        self,
        listener: Listener,
        made: socket.socket,
        address: str,
        ticket: limits.Ticket,
        context: ssl.SSLContext | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        reader = asyncio.StreamReader(limit=limits.HEAD_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        timeouts = (
            {}
            if context is None
            else {
                "ssl_handshake_timeout": limits.HANDSHAKE,
                "ssl_shutdown_timeout": 1.0,
            }
        )
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, made, ssl=context, **timeouts
            )
        except (OSError, ssl.SSLError) as error:
            self._log.note(address, "", "slow" if _timed_out(error) else "no-handshake")
            return
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        connection = Connection(
            reader,
            writer,
            address,
            self._budget,
            lambda: self._places.rest(ticket),
            self._untaken,
        )
        answer = self._answer_metrics if listener.kind == METRICS else self._answer

        async def handle(head: Head, _: Connection) -> Answer | Stream:
            wait = self._requests.take(client_key(address), loop.time())
            if wait:
                raise refusal(429, "too many requests", "too-many-requests", wait=wait)
            return await answer(head, connection, ticket)

        try:
            await connection.run(handle, self._log.note)
            writer.close()
            with suppress(OSError, ssl.SSLError):
                await writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass  # the client has gone, or takes nothing
        finally:
            transport.abort()

    async def _answer_metrics(
        self, head: Head, _: Connection, ticket: limits.Ticket
    ) -> Answer | Stream:
        if head.path != _METRICS:
            raise refusal(404, "only /metrics is here", close=True)
        if head.method not in ("GET", "HEAD"):
            found = refusal(405, "only GET", close=True).answer
            raise RefusalError(Answer(405, [*found.headers, (b"allow", b"GET")], found.body))
        self._places.prove(ticket)
        caller = _caller("metrics", str(Scope.READ), "")
        answer = await self._upstream.ask(Forwarded("GET", _METRICS, caller), _REST)
        return self._with_own(answer)

    async def _answer(
        self, head: Head, connection: Connection, ticket: limits.Ticket
    ) -> Answer | Stream:
        token = self._authenticate(head, connection.address)
        if not self._places.prove(ticket):
            message = "too many connections from this address"
            raise refusal(429, message, "too-many-connections", wait=1, close=True)
        caller = _caller(token.name, str(token.grant), connection.address)
        # As the daemon takes it: its stream, asked for by another spelling, would be a reader's
        # place taken for as long as an answer may take.
        path = unquote(head.path)
        if path == TARGET and head.method == "GET" and token.grant.scope.covers(Scope.READ):
            return self._stream(head, token)
        body = await connection.read_body(head, large=token.grant.scope.covers(Scope.READ))
        given = tuple(each for each in head.headers if each[0] in _HANDED_ON)
        for name in _HANDED_ON:
            head.header(name)
        request = Forwarded(head.method, head.target, (*caller, *given), body)
        answer = await self._upstream.ask(request, 1.0)
        if path == _METRICS:
            answer = self._with_own(answer)
        if answer.status == 403:
            self._log.note(connection.address, head.path, "scope")
        return answer

    def _authenticate(self, head: Head, address: str) -> Token:
        assert self._tokens is not None
        found = self._tokens.authenticate(head.header(b"authorization"))
        if not isinstance(found, Refused):
            return found
        close = head.method not in ("GET", "HEAD")
        if found.status == 401 and (wait := self._attempts.note(address)):
            message = "too many requests without a token that counts"
            raise refusal(429, message, "too-many-attempts", wait=wait, close=True)
        raise refusal(found.status, found.message, str(found.reason), close=close)

    def _stream(self, head: Head, token: Token) -> Stream:
        last = None
        if (text := head.header(b"last-event-id")) is not None:
            last = parse_place(text)
            if last is None:
                raise refusal(422, "Last-Event-ID: give the id of an event, EPOCH:NUMBER")
        tokens = self._tokens
        assert tokens is not None
        return Stream(self._events.follow(last), lambda: tokens.still_valid(token))

    def _with_own(self, answer: Answer) -> Answer:
        """Metrics of the gateway beside the daemon's."""
        if answer.status != 200:
            return answer
        lines = [
            "# HELP tula_api_connections Connections of the API and of metrics.",
            "# TYPE tula_api_connections gauge",
            f"tula_api_connections {len(self._places)}",
            "# HELP tula_api_event_streams Clients that follow events.",
            "# TYPE tula_api_event_streams gauge",
            f"tula_api_event_streams {self._events.clients}",
            "# HELP tula_api_refused_total Requests and connections that were refused.",
            "# TYPE tula_api_refused_total counter",
            *(
                f'tula_api_refused_total{{reason="{reason}"}} {count}'
                for reason, count in sorted(self._log.counts.items())
            ),
        ]
        own = "".join(f"{line}\n" for line in lines).encode()
        return Answer(answer.status, answer.headers, answer.body + own)


def _caller(name: str, scope: str, address: str) -> tuple[tuple[bytes, bytes], ...]:
    found = ((b"tula-caller", name), (b"tula-scope", scope), (b"tula-from", address))
    return tuple((key, value.encode()) for key, value in found if value)


def _timed_out(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or "handshake is taking longer" in str(error)


def _log_refusal(address: str, path: str, reason: str, left_out: int) -> None:
    more = f" left_out={left_out}" if left_out else ""
    _write(f'level=warning event=api-refused from={address} path="{path}" reason={reason}{more}')


def _log(what: str, why: str) -> None:
    _write(f'level=warning event=api-warning what={what} message="{why}"')


def _write(line: str) -> None:
    print(prefixed(line, WARNING) if is_journal() else line, file=sys.stderr, flush=True)


def _tell_unless_clients(loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """What clients do to their connections is none of the log's business; the rest is a bug."""
    if not isinstance(context.get("exception"), OSError | ssl.SSLError):
        loop.default_exception_handler(context)
