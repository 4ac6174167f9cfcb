"""script: a program that the configuration names ends with status 0.

Its exit status, or what it writes, may give the backend's weight instead.

It runs without a shell, without capabilities, and with an environment of PATH and what tells it
which backend is meant: TULA_SERVICE, TULA_BACKEND, TULA_ADDRESS, TULA_PORT and TULA_VIP.
"""

from __future__ import annotations

import os
import shutil
import signal

from tula.health.check import clean
from tula.health.probes.attempt import Attempt, Failure, NotSentError
from tula.health.probes.process import Ended, run_group
from tula.health.words import not_a_weight, parse_weight, weighs, weight_of_status
from tula.model.advice import Words
from tula.model.monitor import ScriptProbe

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def probe(settings: ScriptProbe, attempt: Attempt) -> str:
    """Runs it, and returns the first line that it wrote."""
    attempt.stage = "did not end"
    try:
        ended = await run_group(
            (*without_capabilities(), *settings.command),
            {"PATH": _PATH, **attempt.environment},
            apart=settings.weight_from == "body",
        )
    except OSError as error:
        raise NotSentError(f"cannot start a program: {error.strerror}") from error
    passes = weighs(ended.status) if settings.weight_from == "exit" else ended.status == 0
    if not passes or ended.flooded:
        line = _first_line(ended.errors or ended.output)
        raise Failure(f"{_how(ended)}: {line}" if line else _how(ended))
    if settings.weight_from == "body":
        return _weight(attempt, ended.output)
    line = _first_line(ended.output)
    if settings.weight_from != "exit":
        return line or "exit status 0"
    attempt.words = Words(weight_of_status(ended.status))
    return f"{_how(ended)}: {line}" if line else _how(ended)


def _weight(attempt: Attempt, output: bytes) -> str:
    weight = parse_weight(output)
    if weight is None:
        raise Failure(not_a_weight("what it writes", output))
    attempt.words = Words(weight)
    return f"weight {weight}"


def _first_line(output: bytes) -> str:
    return clean(output.strip().split(b"\n")[0], 120)


def without_capabilities() -> tuple[str, ...]:
    """util-linux's setpriv in front of the command."""
    setpriv = shutil.which("setpriv", path=_PATH)
    if setpriv is None:
        raise NotSentError("setpriv is missing; install util-linux")
    given = (setpriv, "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all")
    # Root gets all that the bounding set holds at exec, and only root may empty it.
    return (*given, "--bounding-set=-all", "--") if os.geteuid() == 0 else (*given, "--")


def _how(ended: Ended) -> str:
    if ended.flooded:
        return "wrote too much output"
    if ended.status < 0:
        return f"killed by {signal.Signals(-ended.status).name}"
    return f"exit status {ended.status}"
