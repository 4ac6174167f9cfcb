"""Functions of texts in a process of their own, for those that would stop the daemon's threads.

libyaml composes a whole text in one call and keeps the interpreter's lock meanwhile: 0.4 s for
600 KB, in which no health check is judged. Whoever may read the configuration may ask for that.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar, cast

from tula.config.redact import redact
from tula.model.errors import KernelError

_R = TypeVar("_R")
_SMALL = 16 * 1024
"""Characters that take less than starting a process."""
_LIMIT = 120.0
_NICE = 10


def apart(function: Callable[..., _R], *texts: str) -> _R:
    """What the function, one of a module, gives for the texts. The caller's thread waits for it.

    Raises KernelError if the process does not answer.
    """
    if sum(map(len, texts)) <= _SMALL:
        return function(*texts)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tula.daemon.apart"],
            input=pickle.dumps((function, texts)),
            stdout=subprocess.PIPE,
            env=environment,
            timeout=_LIMIT,
            check=True,
        )
        return cast("_R", pickle.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, EOFError, pickle.UnpicklingError) as error:
        raise KernelError(f"a process of the daemon ended: {error!r}") from error


def main() -> None:
    """Answers what is on standard input."""
    os.nice(_NICE)
    function, texts = pickle.load(sys.stdin.buffer)
    sys.stdout.buffer.write(pickle.dumps(function(*texts)))


if __name__ == "__main__":
    main()


@lru_cache(maxsize=2)
def hide_secrets(text: str) -> str:
    """A configuration without them; many may ask for that, again and again."""
    return apart(redact, text)
