"""Who answers what only reads: threads of the daemon for small configurations, else processes.

Called in the event loop. Nothing here waits for the writer, and nothing makes it wait.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from tula.daemon.answers import (
    Answer,
    Answers,
    CompareRequest,
    CountRequest,
    PlanRequest,
    Request,
    View,
)
from tula.daemon.reader_process import Sent, receive, send
from tula.engine.reader import Adapters
from tula.model.config import Config
from tula.model.errors import KernelError

MakeAdapters = Callable[[], Adapters]
"""A function of a module, so that another process can find it by its name."""
MakeView = Callable[[Request], Callable[[], View]]
"""Called in the event loop; what it returns is called in a reader's thread, and may compute."""

_SMALL_BYTES = 16 * 1024
_SMALL_BACKENDS = 200
_SMALL_SECONDS = 0.05
"""What took longer in a thread is asked of a process the next time."""
_LIMIT = 120.0
"""Seconds after which a process that does not answer is ended."""
_ENDING = 2.0
_NICE = 10
"""Of reader processes: the daemon itself comes first when there are too few processors."""


class ReaderProcess:
    """One process beside the daemon; started when it is needed, and again when it has died.

    Called in one thread. In the daemon's network namespace and with its rights.
    """

    def __init__(self, make_adapters: MakeAdapters) -> None:
        self._make_adapters = make_adapters
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._sent = Sent()

    @property
    def pid(self) -> int | None:
        """Its process id while there is one."""
        return None if self._process is None else self._process.pid

    def ask(self, request: Request, view: View) -> Answer:
        """The answer. Raises what answering raises, and KernelError if no process answers."""
        for left in reversed(range(2)):
            try:
                answer = self._ask(request, view)
                break
            except (EOFError, OSError) as error:
                self.close()
                if not left:
                    raise KernelError(f"the reader process ended: {error!r}") from error
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            try:
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                self._process.terminate()
                try:
                    self._process.wait(_ENDING)
                except subprocess.TimeoutExpired:
                    self._process.kill()
                    self._process.wait()
        self._process = self._connection = None
        self._sent = Sent()

    def _ask(self, request: Request, view: View) -> object:
        connection = self._connection or self._start()
        send(connection, self._sent.messages(request, view))
        if not connection.poll(_LIMIT):
            self.close()
            raise KernelError(f"no answer from the reader process within {_LIMIT:.0f} s")
        return receive(connection)

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        hidden = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        environment = {name: text for name, text in os.environ.items() if name not in hidden}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        number = theirs.fileno()
        # A program of its own, never a fork: the daemon has threads. -P: not the working directory.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tula.daemon.reader_process", str(number)],
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=(number,),
        )
        theirs.close()
        # From outside and at once: importing alone takes it a fifth of a second.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, os.nice(0) + _NICE)
        self._connection = ours
        ours.send_bytes(pickle.dumps(self._make_adapters))
        return ours


class _Lane:
    """Requests that wait for each other, in a thread of their own."""

    def __init__(self, name: str, make_adapters: MakeAdapters, *, once: bool = False) -> None:
        """``once``: a process answers one request only, and its memory is free again."""
        self.turn = asyncio.Lock()
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=f"reader-{name}")
        self.process = ReaderProcess(make_adapters)
        self._make_adapters = make_adapters
        self._once = once
        self._answers: Answers | None = None
        self._slow: set[type[Request]] = set()

    def answer(self, request: Request, make_view: Callable[[], View]) -> Answer:
        """In the lane's thread."""
        view = make_view()
        if type(request) in self._slow or is_large(request, view):
            try:
                return self.process.ask(request, view)
            finally:
                if self._once:
                    self.process.close()
        if self._answers is None:
            self._answers = Answers(self._make_adapters())
        start = time.thread_time()
        try:
            return self._answers.answer(request, view)
        finally:
            if time.thread_time() - start > _SMALL_SECONDS:
                self._slow.add(type(request))


def is_large(request: Request, view: View) -> bool:
    """Whether answering would keep the daemon's other threads from the interpreter for long."""
    if isinstance(request, PlanRequest) and len(request.source or b"") > _SMALL_BYTES:
        return True
    if isinstance(request, CountRequest) and request.empty:
        return True  # takes a minute or two, which only a process can be kept from
    return is_large_config(view.config)


def is_large_config(config: Config) -> bool:
    """Whether whatever is asked about it keeps the interpreter busy for long."""
    backends = 0
    for service in config.services:
        backends += len(service.backends)
        if backends >= _SMALL_BACKENDS:
            return True
    return False


class Readers:
    """Answers requests. Equal ones that wait at the same time get the same answer."""

    def __init__(self, make_adapters: MakeAdapters, make_view: MakeView) -> None:
        self._make_view = make_view
        self._waiting: dict[Request, asyncio.Task[Answer]] = {}
        self._answers = _Lane("answers", make_adapters)
        self._counts = _Lane("counts", make_adapters)
        self._plans = _Lane("plans", make_adapters, once=True)

    async def ask(self, request: Request) -> Answer:
        """The answer, by a snapshot that is not older than this call.

        Raises KernelError, StateError, and what making the view raises.
        """
        task = self._waiting.get(request)
        if task is None:
            task = asyncio.create_task(self._run(request))
            self._waiting[request] = task
        return await asyncio.shield(task)

    def close(self) -> None:
        """Ends threads and processes; what is under way is cut short."""
        for lane in (self._answers, self._counts, self._plans):
            process = lane.process
            if process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, 15)
            lane.thread.submit(process.close)
            lane.thread.shutdown(wait=True)

    async def _run(self, request: Request) -> Answer:
        lane = self._answers
        if isinstance(request, CountRequest):
            lane = self._counts
        elif isinstance(request, PlanRequest | CompareRequest):
            lane = self._plans
        async with lane.turn:
            # Who asks from here on gets a later snapshot.
            del self._waiting[request]
            make_view = self._make_view(request)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(lane.thread, lane.answer, request, make_view)
