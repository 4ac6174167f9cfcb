"""Probes, one file a kind, and ``send_probe``, which runs one within its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from tula.health.check import FailureKind, Outcome, clean
from tula.health.probes import agent, dns, http, icmp, script, tcp, udp
from tula.health.probes.attempt import Attempt, Failure, NotSentError, failure_of
from tula.kernel.probe_sockets import ProbeSockets
from tula.model.errors import KernelError
from tula.model.health import ProbeTarget
from tula.model.monitor import (
    AgentProbe,
    DnsProbe,
    HealthMonitor,
    HttpProbe,
    IcmpProbe,
    Probe,
    ScriptProbe,
    TcpProbe,
    UdpProbe,
)

_STALLED, _STALLED_LEAST = 1.5, 0.1
"""A timeout that comes later than this (times itself, and seconds) says nothing of the backend."""
_LOST_LEAST = 0.01
_NO_ENVIRONMENT: Mapping[str, str] = {}


async def send_probe(
    settings: HealthMonitor,
    target: ProbeTarget,
    sockets: ProbeSockets,
    environment: Mapping[str, str] = _NO_ENVIRONMENT,
    lost: Callable[[], float] = lambda: 0.0,
) -> Outcome:
    """Sends one probe and returns its outcome, within ``settings.timeout``.

    ``environment`` is a script's, beside PATH. ``lost`` tells how many seconds the loop has been
    busy elsewhere, in all: a probe gets that time back, up to its timeout once more.
    """
    attempt = Attempt(target, sockets, environment)
    begun = time.perf_counter()
    passed: bool | None = False
    kind: FailureKind | None = None
    try:
        async with _FairTimeout(settings.timeout, lost) as limit:
            evidence = await _run(settings.probe, attempt)
        passed = True
    except Failure as failure:
        evidence, kind = failure.evidence, failure.kind
    except TimeoutError:
        passed = attempt.silence_passes
        kind = None if passed else FailureKind.SILENT
        evidence = f"{attempt.stage} within {settings.timeout:g} s"
        waited = time.perf_counter() - begun - limit.given
        if waited > _STALLED * settings.timeout + _STALLED_LEAST:
            # What was answered meanwhile is lost: the loop looks at timers first.
            passed, kind, evidence = None, None, "this machine was too busy to receive an answer"
    except (KernelError, NotSentError) as error:
        passed, evidence = None, str(error)
    except OSError as error:
        verdict = failure_of(error)
        if isinstance(verdict, Failure):
            evidence, kind = verdict.evidence, verdict.kind
        else:
            passed, evidence = None, f"{verdict} on this machine"
    if settings.auxiliary and not passed:
        passed, kind = None, None
    return Outcome(
        passed,
        f"{_what(settings, target)}: {evidence}",
        time.perf_counter() - begun,
        attempt.warning,
        kind,
        attempt.words if passed else None,
    )


async def _run(probe: Probe, attempt: Attempt) -> str:
    match probe:
        case TcpProbe():
            return await tcp.probe(probe, attempt)
        case HttpProbe():
            return await http.probe(probe, attempt)
        case UdpProbe():
            return await udp.probe(probe, attempt)
        case DnsProbe():
            return await dns.probe(probe, attempt)
        case IcmpProbe():
            return await icmp.probe(probe, attempt)
        case ScriptProbe():
            return await script.probe(probe, attempt)
        case AgentProbe():
            return await agent.probe(probe, attempt)


class _FairTimeout:
    """``asyncio.timeout`` for time in which the loop was there to hear an answer.

    While it runs after its work, an answer waits for it in every step of a probe: a busy machine
    would find all of its backends down, and be busier for it.
    """

    def __init__(self, seconds: float, lost: Callable[[], float]) -> None:
        self._seconds = seconds
        self._lost = lost
        self._before = 0.0
        self._scope = asyncio.timeout(None)
        self._timer: asyncio.TimerHandle | None = None
        self.given = 0.0

    async def __aenter__(self) -> _FairTimeout:
        await self._scope.__aenter__()
        self._before = self._lost()
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._end)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    def _end(self) -> None:
        loop = asyncio.get_running_loop()
        more = min(self._lost() - self._before, self._seconds) - self.given
        if more > _LOST_LEAST:
            self.given += more
            self._timer = loop.call_later(more, self._end)
        else:
            self._scope.reschedule(loop.time())


def _what(settings: HealthMonitor, target: ProbeTarget) -> str:
    if isinstance(settings.probe, ScriptProbe):
        return f"script {clean(settings.probe.command[0], 80)}"
    if not target.port:
        return f"{settings.type} to {target.address}"
    return f"{settings.type} to {target.address} port {target.port}"
