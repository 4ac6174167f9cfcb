"""Who starts an engine: systemd, the daemon, or nobody without being told."""

from __future__ import annotations

from pathlib import Path

import pytest

from tula.kernel import engines
from tula.kernel.engines import KEEPALIVED, KernelEngine
from tula.kernel.systemd import own_service
from tula.model.errors import KernelError
from tula.vip.generated import GeneratedEngine


@pytest.mark.parametrize(
    ("groups", "service"),
    [
        ("0::/system.slice/tula.service\n", "tula.service"),
        ("9:pids:/\n1:name=systemd:/system.slice/tula.service\n0::/\n", "tula.service"),
        ("0::/user.slice/user-0.slice/session-3.scope\n", ""),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/shell.scope\n", ""),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_the_service_by_the_control_group(tmp_path: Path, groups: str, service: str) -> None:
    file = tmp_path / "cgroup"
    file.write_text(groups)
    assert own_service(file, tmp_path) == service
    assert own_service(file, tmp_path / "missing") == "", "no systemd: a container, the lab"


def test_a_service_starts_no_engine_that_would_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is there, so that the unit starts it as soon as it is enabled."""
    monkeypatch.setattr(engines, "_RUN_DIR", tmp_path)
    monkeypatch.setattr(engines, "_UNITS", tmp_path / "units")
    monkeypatch.setattr(engines, "systemd_runs", lambda: True)
    monkeypatch.setattr(engines, "own_service", lambda: "tula.service")
    engine = KernelEngine(KEEPALIVED, tmp_path)
    generated = GeneratedEngine(engine)
    told = (
        "keepalived is not started, for it would end with tula.service: let systemd do it: "
        "systemctl enable --now tula-keepalived.path"
    )
    assert generated.settle(generated.diff("text")) == [told]
    assert engine.read() == "text"
    assert generated.settle(generated.diff("text")) == [told], "as long as it is so"
    assert generated.revive() == [told]
    with pytest.raises(KernelError, match="enable --now"):
        engine.start()

    wants = tmp_path / "units/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "tula-keepalived.path").touch()
    assert engine.kept
    engine.start()
    assert not generated.diff("text")
    assert generated.revive() == []
