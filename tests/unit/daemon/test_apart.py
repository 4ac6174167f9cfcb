"""Large texts are read in another process, with the same result."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tula.config.redact import hidden_places, redact, redacted_diff
from tula.daemon.apart import apart
from tula.model.errors import KernelError

TEXT = 'a: {password: x}\nb: {token: "***"}\n' + "# a long comment\n" * 2000


def test_large_texts_are_read_elsewhere_and_small_ones_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, run = [], subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: started.append(a) or run(*a, **k))
    assert apart(len, "small") == 5
    assert not started
    assert apart(len, TEXT) == len(TEXT)
    assert len(started) == 1


def test_the_result_is_the_same() -> None:
    assert apart(redact, TEXT) == redact(TEXT)
    assert "password: x" not in redact(TEXT)
    assert apart(hidden_places, TEXT) == hidden_places(TEXT) == [("b", "token")]
    texts = (TEXT, TEXT.replace("a:", "c:"), "before", "after")
    assert apart(redacted_diff, *texts) == redacted_diff(*texts)


def test_a_process_that_ends_is_told() -> None:
    with pytest.raises(KernelError, match="ended"):
        apart(sys.exit, TEXT)
