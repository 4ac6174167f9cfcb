"""script: status, environment, bounds, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from support.probe_servers import settings
from tula.health.check import Outcome
from tula.health.probes import script, send_probe
from tula.kernel.probe_sockets import KernelProbeSockets
from tula.lab.wait import wait_until
from tula.model.advice import GivenWeight, Words
from tula.model.health import ProbeTarget


def ran(*command: str, timeout: float = 5.0, **environment: str) -> Outcome:
    monitor = settings("script", timeout=timeout, command=command)
    target = ProbeTarget(ip_address("10.0.0.1"), 80)
    return asyncio.run(send_probe(monitor, target, KernelProbeSockets(), environment))


def shell(text: str, timeout: float = 5.0, **environment: str) -> Outcome:
    return ran("/bin/sh", "-c", text, timeout=timeout, **environment)


@pytest.mark.parametrize(
    ("text", "passed", "evidence"),
    [
        ("exit 0", True, "script /bin/sh: exit status 0"),
        ("echo fine; echo more", True, "script /bin/sh: fine"),
        ("echo 'no disk' >&2; exit 3", False, "script /bin/sh: exit status 3: no disk"),
        ("kill -TERM $$", False, "script /bin/sh: killed by SIGTERM"),
        ("printf 'a\\033[31mb'", True, "script /bin/sh: a\\x1b[31mb"),
        ("head -c 300000 /dev/zero | tr '\\0' x", True, "xxx..."),
        ("cat", True, "exit status 0"),
    ],
)
def test_how_it_ends(text: str, passed: bool, evidence: str) -> None:
    outcome = shell(text)
    assert outcome.passed is passed
    assert outcome.evidence.endswith(evidence)
    assert len(outcome.evidence) < 300


def test_a_program_that_is_not_there_fails() -> None:
    outcome = ran("/nowhere/check")
    assert outcome.passed is False
    assert "/nowhere/check" in outcome.evidence


def test_there_is_no_shell() -> None:
    assert ran("/bin/echo", "$PATH; exit 1").evidence.endswith("$PATH; exit 1")


def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "1")
    written = tmp_path / "environment"
    assert shell(f"env > {written}; pwd >> {written}", TULA_SERVICE="web").passed
    lines = set(written.read_text().split("\n"))
    assert {"TULA_SERVICE=web", "/"} <= lines
    assert not any(line.startswith(("SECRET", "HOME", "TULA_LAB")) for line in lines)


def test_it_has_no_capabilities(tmp_path: Path) -> None:
    written = tmp_path / "status"
    assert shell(f"cat /proc/self/status > {written}").passed
    status = dict(line.split(":\t", 1) for line in written.read_text().splitlines())
    names = ["CapInh", "CapPrm", "CapEff", "CapAmb"] + ["CapBnd"] * (os.geteuid() == 0)
    assert {int(status[name], 16) for name in names} == {0}
    assert status["NoNewPrivs"] == "1"


def group_is_gone(file: Path) -> bool:
    """Whether the process whose id is in the file has ended: gone, or a zombie of init's."""
    if not file.exists() or not file.read_text().strip():
        return False
    try:
        stat = Path(f"/proc/{file.read_text().strip()}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


def test_at_the_timeout_its_group_is_killed(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    outcome = shell(f"sleep 100 & echo $! > {child}; trap '' TERM; wait", timeout=0.3)
    assert outcome.passed is False
    assert outcome.evidence == "script /bin/sh: did not end within 0.3 s"
    assert outcome.seconds < 50, "sooner than its child ends"
    wait_until(lambda: group_is_gone(child))


def test_what_it_leaves_behind_is_killed_too(tmp_path: Path) -> None:
    child = tmp_path / "pid"
    assert shell(f"sleep 100 & echo $! > {child}").passed
    wait_until(lambda: group_is_gone(child))


def test_output_without_end_is_stopped() -> None:
    outcome = shell("yes")
    assert outcome.passed is False
    assert outcome.evidence.endswith("wrote too much output: y")


def test_nothing_stays_open() -> None:
    open_files = Path("/proc/self/fd")

    async def run() -> None:
        monitor = settings("script", command=("/bin/true",))
        target = ProbeTarget(ip_address("10.0.0.1"))
        await send_probe(monitor, target, KernelProbeSockets())
        before = len(list(open_files.iterdir()))
        for _ in range(5):
            await send_probe(monitor, target, KernelProbeSockets())
        assert len(list(open_files.iterdir())) == before
        with suppress(ChildProcessError):
            assert os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    asyncio.run(run())


def test_without_setpriv_it_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "_PATH", "/nowhere")
    outcome = shell("exit 1")
    assert outcome.passed is None
    assert outcome.evidence.endswith("setpriv is missing; install util-linux")


def weighed(text: str, weight_from: str) -> Outcome:
    monitor = settings(
        "script", timeout=20.0, command=("/bin/sh", "-c", text), weight_from=weight_from
    )
    target = ProbeTarget(ip_address("10.0.0.1"), 80)
    return asyncio.run(send_probe(monitor, target, KernelProbeSockets()))


@pytest.mark.parametrize(
    ("text", "passed", "weight", "evidence"),
    [
        ("exit 0", True, None, "exit status 0"),
        ("echo bad; exit 1", False, None, "exit status 1: bad"),
        ("exit 2", True, GivenWeight(0), "exit status 2"),
        ("echo half; exit 52", True, GivenWeight(50), "exit status 52: half"),
        ("exit 255", True, GivenWeight(253), "exit status 255"),
        ("kill -KILL $$", False, None, "killed by SIGKILL"),
        ("yes; exit 50", False, None, "wrote too much output: y"),
    ],
)
def test_the_exit_status_gives_a_weight(
    text: str, passed: bool, weight: GivenWeight | None, evidence: str
) -> None:
    outcome = weighed(text, "exit")
    assert outcome.passed is passed
    assert outcome.words == (Words(weight) if passed else None)
    assert outcome.evidence.endswith(f": {evidence}")


@pytest.mark.parametrize(
    ("text", "weight", "evidence"),
    [
        ("echo 75%", GivenWeight(75, percent=True), "weight 75%"),
        ("echo loaded >&2; echo 30", GivenWeight(30), "weight 30"),
        ("echo 30; exit 3", None, "exit status 3: 30"),
        ("echo 'no disk' >&2; exit 3", None, "exit status 3: no disk"),
        ("echo weight: 30", None, "'weight: 30'; wanted 0 to 65535, or a percentage such as 75%"),
        ("echo 30 >&2", None, "nothing; wanted 0 to 65535, or a percentage such as 75%"),
        ("yes >&2; echo 30", None, "wrote too much output: y"),
    ],
)
def test_standard_output_gives_a_weight(
    text: str, weight: GivenWeight | None, evidence: str
) -> None:
    outcome = weighed(text, "body")
    assert outcome.passed is (weight is not None)
    assert outcome.words == (Words(weight) if weight is not None else None)
    assert outcome.evidence.endswith(evidence)
