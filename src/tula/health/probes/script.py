"""script: a program that the configuration names ends with status 0.

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
from tula.model.monitor import ScriptProbe

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


async def probe(settings: ScriptProbe, attempt: Attempt) -> str:
    """Runs it, and returns the first line that it wrote."""
    attempt.stage = "did not end"
    try:
        ended = await run_group(
            (*without_capabilities(), *settings.command),
            {"PATH": _PATH, **attempt.environment},
        )
    except OSError as error:
        raise NotSentError(f"cannot start a program: {error.strerror}") from error
    line = clean(ended.output.strip().split(b"\n")[0], 120)
    if ended.status == 0 and not ended.flooded:
        return line or "exit status 0"
    raise Failure(f"{_how(ended)}: {line}" if line else _how(ended))


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
