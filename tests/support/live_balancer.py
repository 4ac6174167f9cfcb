"""One of several balancers, in a process of its own that dies where a test says: the real daemon
and its gateway with TLS, but for the kernel."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.api_daemon import ControlScene
from tula.api.gateway.service import Gateway
from tula.api.server import serve
from tula.daemon.everywhere import coordinator, members, participant
from tula.daemon.everywhere.assemble import make_everywhere
from tula.daemon.gateway_messages import API, Listener, Order, send_order
from tula.engine.audit import AuditLog
from tula.engine.callers import GatewayProcesses
from tula.engine.control import SOCKET
from tula.engine.everywhere_journal import Journal
from tula.kernel.clock import boot_time

STEPS: dict[str, tuple[Any, str]] = {
    "begin": (Journal, "begin"),
    "decide": (Journal, "decide"),
    "settle": (Journal, "settle"),
    "take": (participant.Participant, "prepare"),
    "keep": (participant.Participant, "confirm"),
    "adopt": (participant.Participant, "adopt"),
    "abort": (participant.Participant, "abort"),
}
"""Where a balancer may die: ``before:take``, ``after:decide``."""


@dataclass(frozen=True)
class Life:
    """How a balancer lives; ``hold`` and ``grace`` are in seconds."""

    directory: str
    name: str
    address: str
    certificate: str
    text: str
    dies: str = ""
    hold: float = 0.0
    refuses: bool = False
    """its disk takes no journal"""


def live(life: Life) -> None:
    """A balancer's life, until it is killed."""
    if life.dies:
        _die_at(life.dies)
    if life.hold:
        coordinator.HOLD, participant.GRACE = life.hold, 2 * life.hold
    members._CONNECT = members.KNOW = 20.0
    asyncio.run(_main(life))


def _die_at(where: str) -> None:
    when, _, step = where.partition(":")
    cls, name = STEPS[step]
    method = getattr(cls, name)

    def due(arguments: tuple[Any, ...]) -> bool:
        return step != "take" or not arguments[-1].dry

    async def asked(*arguments: Any) -> Any:
        if when == "before" and due(arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        done = await method(*arguments)
        if when == "after" and due(arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    def written(*arguments: Any) -> Any:
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        done = method(*arguments)
        if when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    setattr(cls, name, written if cls is Journal else asked)


async def _main(life: Life) -> None:
    run_dir = Path(life.directory)
    scene = ControlScene(run_dir, life.text, boot_time)
    store, audit = scene.daemon.store, AuditLog(scene.daemon.store.directory)
    own_name: Callable[[object], str] = lambda _: life.name  # noqa: E731
    async with scene.running() as control:
        control.everywhere = everywhere = make_everywhere(
            *(control, scene.loop, scene.daemon.writer, store, scene.daemon.events, scene.watch),
            own_name,
        )
        scene.tell_problems = everywhere.problems
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        endpoint = f"{life.address}:8420"
        with ExitStack() as stack:
            stack.enter_context(audit.written())
            listening = stack.enter_context(socket.create_server((life.address, 8420)))
            listeners = (Listener(endpoint, API, True),)
            files = str(run_dir / SOCKET), str(store.directory), life.certificate, life.certificate
            gateway = asyncio.create_task(Gateway(theirs).run())
            send_order(ours, Order(listeners, (endpoint,), *files), [listening])
            processes = GatewayProcesses({os.getpid()})
            await asyncio.gather(
                everywhere.run(),
                gateway,
                serve(control, run_dir, None, None, processes, audit),
            )
