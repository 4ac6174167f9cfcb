"""Makes a planned change of the data path, though others change their tables meanwhile."""

from __future__ import annotations

from tula.dataplane.port import DataPath, Receipt
from tula.engine.change import Prepared
from tula.model.errors import StaleError

_TRIES = 5


def commit_path(path: DataPath, prepared: Prepared) -> Receipt:
    """Raises KernelError, and StaleError when Tula's table is not as it was when it was read.

    Others change their own tables all the time: as long as Tula's is as it was, a revision that
    has moved means nothing.
    """
    have = prepared.have
    for _ in range(_TRIES):
        try:
            return path.commit(prepared.path, have.revision)
        except StaleError:
            again = path.observe()
            if not again.holds_what(have):
                raise
            have = again
    return path.commit(prepared.path, None)
