"""A daemon on the fake kernel that answers HTTP: its real control, writer, store and API.

Only the kernel and the health checks are fakes. It runs in a thread with an event loop of its own;
whoever asks says by a header for whom the gateway would speak.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import uvicorn

from support.configurations import render_config
from support.daemon import CONFIG, FakeChecker, FakeDaemon
from tula.api.app import make_app
from tula.api.gateway.service import Gateway
from tula.api.server import serve
from tula.daemon.checks import Checks
from tula.daemon.components import Components
from tula.daemon.gateway_messages import API, Listener, Order, send_order
from tula.daemon.local_control import LocalControl
from tula.daemon.loop import ControlLoop
from tula.daemon.peers import PeerWatch
from tula.daemon.supervisor import Supervisor
from tula.daemon.watch import FileWatch
from tula.engine.callers import GatewayProcesses, parse_grant
from tula.engine.control import SOCKET
from tula.engine.tokens import TokenStore

T = TypeVar("T")
AS = "X-Test-Caller"
"""A scope such as ``read`` or ``backend:b0``; without the header a local user asks."""
_GATEWAY = 4711
Message = MutableMapping[str, Any]
App = Callable[[Message, Any, Any], Awaitable[None]]


class ControlScene:
    """A daemon on fakes, and what it is asked by."""

    def __init__(
        self,
        directory: Path,
        text: str | None = None,
        clock: Callable[[], float] = lambda: 1000.0,
    ) -> None:
        """``text`` is what its file holds; ``clock`` stands still unless a test has another."""
        self.path = directory / "tula.yaml"
        self.path.write_text(render_config(CONFIG) if text is None else text)
        self.daemon = FakeDaemon(directory / "state", CONFIG, clock=clock)
        checker, supervisor = FakeChecker(), Supervisor(self.daemon.events)
        checks, watch = Checks(checker), FileWatch(self.path)  # type: ignore[arg-type]
        self.watch = watch
        self.tell_problems: Callable[[], tuple[str, ...]] = tuple
        machine = self.daemon.machine
        self.loop = ControlLoop(
            *(self.daemon.writer, checks, self.daemon.kernel_events, watch, machine.sysctls),
            supervisor,
        )
        components = Components(
            self.loop,
            checker,  # type: ignore[arg-type]
            checks,
            self.daemon.events,
            watch,
            supervisor,
            peers=PeerWatch(
                directory, lambda: self.loop.snapshot, self.daemon.events, self.loop.share_flows
            ),
            problems=lambda: self.tell_problems(),
        )
        self.control = LocalControl(components, lambda: machine.adapters, self.daemon.store)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[LocalControl]:
        """Its control, once it has begun."""
        task = asyncio.create_task(self.loop.run())
        try:
            await self.loop.started.wait()
            yield self.control
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.loop.close()
            await asyncio.to_thread(self.control.close)

    @property
    def running_text(self) -> str:
        """The configuration that runs."""
        found = self.loop.snapshot.configuration
        assert found is not None
        return found.source


class ApiDaemon(ControlScene):
    """The same with HTTP on a loopback address, and behind a real gateway on another."""

    url = ""
    network_url = ""

    @contextmanager
    def served(self) -> Iterator[str]:
        """Its address, ``http://127.0.0.1:PORT``."""
        begun, ended = threading.Event(), threading.Event()
        failed: list[BaseException] = []

        async def main() -> None:
            async with self.running() as control:
                app = make_app(control, GatewayProcesses({_GATEWAY}))
                config = uvicorn.Config(
                    _speaking(app), port=0, loop="none", lifespan="off", log_config=None
                )
                server = uvicorn.Server(config)
                work = asyncio.create_task(server.serve())
                while not server.started:
                    await asyncio.sleep(0.005)
                port = server.servers[0].sockets[0].getsockname()[1]
                self.url = f"http://127.0.0.1:{port}"
                async with self._gateway(control):
                    begun.set()
                    await asyncio.to_thread(ended.wait)
                app.state.streams.close()
                server.should_exit = True
                await work

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                failed.append(error)
                begun.set()

        thread = threading.Thread(target=run, name="api-daemon")
        thread.start()
        try:
            assert begun.wait(60)
            assert not failed, failed
            yield self.url
        finally:
            ended.set()
            thread.join(60)
        assert not failed, failed

    @asynccontextmanager
    async def _gateway(self, control: LocalControl) -> AsyncIterator[None]:
        run_dir, listening = self.path.parent, socket.create_server(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{listening.getsockname()[1]}"
        ready = asyncio.Event()
        processes = GatewayProcesses({os.getpid()})
        answering = asyncio.create_task(serve(control, run_dir, None, ready, processes))
        await ready.wait()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, listening:
            gateway = asyncio.create_task(Gateway(theirs).run())
            order = Order(
                (Listener(endpoint, API, False),),
                (endpoint,),
                str(run_dir / SOCKET),
                str(self.daemon.store.directory),
            )
            send_order(ours, order, [listening])
            self.network_url = f"http://{endpoint}"
            try:
                yield
            finally:
                ours.close()
                await gateway
                answering.cancel()
                await asyncio.gather(answering, return_exceptions=True)

    def token(self, scope: str) -> str:
        """A new token of that scope, for the gateway."""
        store = TokenStore(self.daemon.store.directory)
        name = f"t{len(store.tokens())}"
        return store.create(name, parse_grant(scope), None, "test")[0]

    def client(self, caller: str = "") -> httpx2.Client:
        """One for whom the gateway speaks with this scope, or a local user."""
        headers = {AS: caller} if caller else {}
        return httpx2.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=60)


def _speaking(app: Any) -> App:
    async def speaking(scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            name = AS.lower().encode()
            caller = dict(scope["headers"]).get(name)
            if caller is not None:
                told = [(b"tula-caller", b"tester"), (b"tula-scope", caller)]
                scope["client"] = (str(os.geteuid()), _GATEWAY)
                scope["headers"] = [*scope["headers"], *told, (b"tula-from", b"192.0.2.9")]
        await app(scope, receive, send)

    return speaking


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs it, for a minute at most."""
    return asyncio.run(asyncio.wait_for(main(), 60))
