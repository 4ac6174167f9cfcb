"""``tula doctor`` where it cannot do its work."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from click.testing import Result


def test_it_needs_root(tula: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tula.cli.doctor.has_rights", lambda: False)
    result = tula("doctor", "-f", "DOC/tula.yaml")
    assert result.exit_code == 1
    assert result.stderr == "tula: doctor needs root (CAP_NET_ADMIN and CAP_NET_RAW)\n"
