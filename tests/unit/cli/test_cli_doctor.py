"""``tula doctor``: what it refuses, and what its JSON holds."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from support.builders import make_config, make_service
from tula.doctor.observation import Observation
from tula.doctor.run import Report, Roles
from tula.model.finding import Finding, Severity

FINDING = Finding(
    "vip-missing", Severity.ERROR, "b0", "b0 is up, and …", "add the VIP", False, "b0", ("ip …",)
)


def test_it_needs_root(tula: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tula.cli.doctor.has_rights", lambda: False)
    result = tula("doctor", "-f", "DOC/tula.yaml")
    assert result.exit_code == 1
    assert result.stderr == "tula: doctor needs root (CAP_NET_ADMIN and CAP_NET_RAW)\n"


@pytest.fixture
def one_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which the doctor finds one problem."""
    monkeypatch.setattr("tula.cli.doctor.has_rights", lambda: True)
    monkeypatch.setattr("tula.cli.doctor.kernel_adapters", lambda *_: None)
    monkeypatch.setattr(
        "tula.doctor.observation.observe_machine",
        lambda *_: Observation(make_config(make_service())),
    )
    report = Report(Roles(True), (FINDING,), ("interfaces",))
    monkeypatch.setattr("tula.doctor.run.examine", lambda *_: report)


@pytest.mark.usefixtures("one_finding")
def test_json(tula: Callable[..., Result]) -> None:
    result = tula("doctor", "-f", "DOC/tula.yaml", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "findings": [
            {
                "id": "vip-missing",
                "severity": "error",
                "where": "b0",
                "evidence": "b0 is up, and …",
                "fix": "add the VIP",
                "certain": False,
                "on": "b0",
                "commands": ["ip …"],
            }
        ],
        "tested": ["interfaces"],
    }


@pytest.mark.usefixtures("one_finding")
def test_text(tula: Callable[..., Result]) -> None:
    assert tula("doctor", "-f", "DOC/tula.yaml").stdout == (
        "error b0: vip-missing, a guess\n"
        "  b0 is up, and …\n"
        "  fix: add the VIP\n"
        "  on b0:\n"
        "    ip …\n"
        "\n"
        "Tested, as a balancer:\n"
        "  interfaces\n"
        "\n"
        "1 error.\n"
    )
