"""Answers are the same from a thread and from a process, which is sent only what has changed."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.builders import make_backend, make_config, make_service
from support.configurations import render_config
from support.daemon import CONFIG, FakeDaemon, broken_kernel, fake_kernel
from tula.config.load import parse_config
from tula.daemon.answers import (
    Answer,
    Answers,
    CompareRequest,
    CountRequest,
    MetricsRequest,
    PlanRequest,
    StatusRequest,
    TraceRequest,
    View,
)
from tula.daemon.reader_process import Ask, Entries, Received, Sent
from tula.daemon.readers import ReaderProcess, Readers, is_large
from tula.engine.control import ApplyOutcome, DaemonFacts
from tula.engine.store import Remembered
from tula.model.config import Config, Protocol
from tula.model.errors import KernelError
from tula.model.flow import Flow
from tula.model.health import Health
from tula.model.stats import Count, Counted, is_estimate
from tula.plan.trace import Trace

OTHER = make_config(make_service(backends=[make_backend(0)]))
FLOW = Flow(make_backend(9).addresses[0], 1234, CONFIG.services[0].vips[0], 80, Protocol.TCP)


@pytest.fixture
def daemon(tmp_path: Path) -> FakeDaemon:
    made = FakeDaemon(tmp_path, CONFIG)
    made.accept(CONFIG)
    return made


def view_of(daemon: FakeDaemon, findings: dict[tuple[str, str], Health] | None = None) -> View:
    snapshot = daemon.writer.snapshot
    assert snapshot.configuration is not None
    assert snapshot.applied is not None
    return View(
        configuration=snapshot.configuration,
        now=1000.0,
        facts=DaemonFacts(1, 2.0, Path("/etc/tula/tula.yaml")),
        statuses=snapshot.statuses.of,
        findings=findings or {},
        remembered=snapshot.remembered,
        revision=snapshot.applied.receipt.revision,
        cycles=snapshot.cycles,
    )


REQUESTS = [
    StatusRequest(),
    MetricsRequest(),
    TraceRequest(FLOW, None),
    PlanRequest(None, False),
    PlanRequest(render_config(OTHER).encode(), False),
    PlanRequest(b"services: {}\nfrobs: 1\n", False),
    CompareRequest(),
    CountRequest(1.0),
]


def timeless(answer: Answer) -> Answer:
    """Without what depends on when it was asked."""
    timed = rb'"compared": [0-9.]+|"rates": (null|{[^}]*})'
    return re.sub(timed, b"", answer) if isinstance(answer, bytes) else answer


def test_a_thread_and_a_process_give_the_same_answers(daemon: FakeDaemon) -> None:
    here, beside = Answers(daemon.machine.adapters), ReaderProcess(fake_kernel)
    try:
        for findings in ({}, {("web", "b0"): Health(False, 5.0, "tcp: refused")}):
            view = view_of(daemon, findings)
            for request in REQUESTS:
                one, other = beside.ask(request, view), here.answer(request, view)
                assert timeless(one) == timeless(other), request
        pid = beside.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        again = beside.ask(StatusRequest(), view)
        assert timeless(again) == timeless(here.answer(StatusRequest(), view))
        assert beside.pid not in (pid, None), "it was started again, and told everything"
    finally:
        beside.close()
    assert beside.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_is_answered(daemon: FakeDaemon) -> None:
    answers, view = Answers(daemon.machine.adapters), view_of(daemon)
    status = json.loads(answers.answer(StatusRequest(), view))  # type: ignore[arg-type]
    assert [backend["name"] for backend in status["services"][0]["backends"]] == ["b0", "b1"]
    assert status["configuration"] == {
        "digest": None,
        "accepted": None,
        "file": "/etc/tula/tula.yaml",
        "source": "file",
        "file_differs": False,
        "file_differs_since": None,
        "confirm_until": None,
        "confirm_everywhere": False,
    }
    assert b"tula_service_packets_total" in answers.answer(MetricsRequest(), view)  # type: ignore[operator]
    assert isinstance(answers.answer(TraceRequest(FLOW, None), view), Trace)
    same = answers.answer(PlanRequest(None, False), view)
    assert isinstance(same, ApplyOutcome)
    assert (same.changed, same.steps, same.summary) == (False, b"[]", ())
    other = answers.answer(PlanRequest(render_config(OTHER).encode(), False), view)
    assert isinstance(other, ApplyOutcome)
    assert other.changed
    assert json.loads(other.steps)
    broken = answers.answer(PlanRequest(b"services: {}\nfrobs: 1\n", False), view)
    assert isinstance(broken, ApplyOutcome)
    assert "frobs" in [problem.path for problem in broken.problems]
    assert daemon.machine.nftables.table is not None


def test_errors_of_the_kernel_come_back(daemon: FakeDaemon) -> None:
    beside = ReaderProcess(broken_kernel)
    try:
        with pytest.raises(KernelError, match="no such kernel"):
            beside.ask(StatusRequest(), view_of(daemon))
        with pytest.raises(KernelError, match="no such kernel"):
            beside.ask(CountRequest(1.0), view_of(daemon))
    finally:
        beside.close()


def test_only_what_has_changed_is_sent(daemon: FakeDaemon) -> None:
    sent, received = Sent(), Received()

    def bring(view: View) -> list[Entries | Ask]:
        messages = list(sent.messages(StatusRequest(), view))
        for message in messages:
            if isinstance(message, Entries):
                received.take(message)
            else:
                found = received.view(message)
                assert found is not None
                assert found.config == view.config
                assert replace(found, configuration=view.configuration) == view
        return messages

    first = view_of(daemon, {("web", "b0"): Health(True, 1.0), ("web", "b1"): Health(True, 1.0)})
    assert isinstance(bring(first)[-1], Ask)
    (again,) = bring(replace(first, now=1001.0))
    assert isinstance(again, Ask)
    assert again.source is None, "the configuration is sent once"
    findings = {("web", "b0"): first.findings["web", "b0"], ("web", "b1"): Health(False, 2.0)}
    changed, _ = bring(replace(first, findings=findings))
    assert changed == Entries("findings", {("web", "b1"): Health(False, 2.0)})
    gone, _ = bring(replace(first, findings={("web", "b1"): findings["web", "b1"]}))
    assert gone == Entries("findings", {}, (("web", "b0"),))
    bring(replace(first, connections={("web", "b0"): 3}))
    bring(replace(first, connections=None))
    configuration = parse_config(render_config(OTHER))
    assert bring(replace(first, configuration=configuration))[-1].source is not None  # type: ignore[union-attr]


def test_counters_do_not_fall_while_a_change_is_under_way(daemon: FakeDaemon) -> None:
    """An element that leaves takes its counter along before the writer has published it."""
    answers, nftables = Answers(daemon.machine.adapters), daemon.machine.nftables
    name = next(n for n in nftables.counts() if nftables.counts()[n])
    mark = next(iter(nftables.counts()[name]))
    nftables.element_counts = {name: {mark: Count(5, 500)}}

    def packets(view: View) -> int:
        status = json.loads(answers.answer(StatusRequest(), view))  # type: ignore[arg-type]
        return int(status["services"][0]["packets"])

    view = view_of(daemon)
    assert packets(view) == 5
    nftables.element_counts = {}
    nftables.commits += 1
    assert packets(view) == 5, "the kernel is ahead of what was published"
    past = {"web": {CONFIG.services[0].backends[0].key: Count(5, 500)}}
    numbers = view.remembered.path
    later = replace(view, remembered=Remembered(numbers, past), revision=nftables.commits)
    assert packets(later) == 5
    cleared = replace(view, remembered=Remembered(numbers), revision=nftables.commits)
    assert packets(cleared) == 0, "a table that somebody deleted has counted nothing"


def test_what_is_large(daemon: FakeDaemon) -> None:
    small = view_of(daemon)
    assert not is_large(StatusRequest(), small)
    assert not is_large(CountRequest(1.0), small)
    assert is_large(PlanRequest(b"#" * 100_000, False), small)
    config: Config = make_config(make_service(backends=[make_backend(n) for n in range(200)]))
    large = replace(small, configuration=replace(small.configuration, config=config))
    assert is_large(StatusRequest(), large)


def test_equal_requests_that_wait_share_an_answer_made_after_all_of_them(
    daemon: FakeDaemon,
) -> None:
    async def main() -> None:
        made: list[int] = []
        inside, go_on = threading.Event(), threading.Event()

        def make_view(_: object) -> Any:
            made.append(len(made))

            def make() -> View:
                if len(made) == 1:
                    inside.set()
                    go_on.wait(60)
                return view_of(daemon)

            return make

        readers = Readers(lambda: daemon.machine.adapters, make_view)
        first = asyncio.create_task(readers.ask(StatusRequest()))
        await asyncio.to_thread(inside.wait)
        others = [asyncio.create_task(readers.ask(StatusRequest())) for _ in range(5)]
        await asyncio.sleep(0)
        plan = await readers.ask(PlanRequest(None, False))
        assert isinstance(plan, ApplyOutcome), "a plan does not wait for a status"
        assert not first.done()
        go_on.set()
        await asyncio.gather(first, *others)
        assert len(made) == 3, "one for the first, one for all others, one for the plan"
        await asyncio.to_thread(readers.close)

    asyncio.run(main())


def test_an_estimate_reaches_a_reader_in_another_process(daemon: FakeDaemon) -> None:
    counts = Counted({("web", "b1"): 900_000}, True, [("web", "b0")])
    view = replace(view_of(daemon), connections=counts)
    received, found = Received(), None
    for message in Sent().messages(StatusRequest(), view):
        if isinstance(message, Ask):
            found = received.view(pickle.loads(pickle.dumps(message))).connections
        else:
            received.take(message)
    assert found == counts
    assert is_estimate(found, ("web", "b1"))
    assert not is_estimate(found, ("web", "b0"))
