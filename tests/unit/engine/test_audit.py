"""The audit log: what is entered, what lasts, and what a disk that takes nothing does to it."""

from __future__ import annotations

import errno
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tula.engine.audit import (
    AUDIT,
    AuditFile,
    AuditLog,
    Entry,
    Result,
    describe_entry,
    new_entry,
    read_audit,
)
from tula.engine.callers import DAEMON, Caller, Scope
from tula.kernel.directory import Directory

ROOT = Caller("root", Scope.LOCAL)
CI = Caller("ci", Scope.OPERATE, "192.0.2.7")


def entry(number: int, caller: Caller = ROOT) -> Entry:
    return new_entry(caller, "drain", f"web/b{number}", {"deadline": 60.0}, wall=lambda: number)


def subjects(directory: Path, limit: int = 10_000) -> list[str]:
    return [each.subject for each in read_audit(directory, limit)]


def test_a_change_and_what_came_of_it(tmp_path: Path) -> None:
    file, first, second = AuditFile(tmp_path), entry(1, CI), entry(2)
    file.write([first], sync=False)
    file.write([second, first.ended(Result.REFUSED, "the last one", force=True)])
    assert read_audit(tmp_path, 10) == [
        first.ended(Result.REFUSED, "the last one", force=True),
        second,
    ]
    assert read_audit(tmp_path, 1) == [second]
    assert second.result is Result.BEGUN
    assert (first.who, first.scope, first.origin) == ("token:ci", "operate", "192.0.2.7")
    assert stat.S_IMODE((tmp_path / AUDIT).stat().st_mode) == 0o600


def test_no_name_has_a_terminal_do_anything(tmp_path: Path) -> None:
    made = new_entry(CI, "drain", "web/\x1b]0;b\x07\r\n1", {"\x9b2J": "\u202e"})
    AuditFile(tmp_path).write([made.ended(Result.REFUSED, "no backend \x1b[31m")])
    shown = describe_entry(read_audit(tmp_path, 1)[0])
    assert (shown["subject"], shown["details"], shown["why"]) == (
        "web/?]0;b?? 1",
        {"?2J": "?"},
        "no backend ?[31m",
    )


def test_old_files_go_and_the_latest_stay(tmp_path: Path) -> None:
    file = AuditFile(tmp_path, full=2000)
    for number in range(200):
        file.write([entry(number).ended(Result.DONE)], sync=False)
    names = sorted(path.name for path in tmp_path.glob("*.jsonl"))
    assert names == sorted([AUDIT, *(f"audit.{n}.jsonl" for n in range(1, 8))])
    assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) < 8 * 2500
    kept = subjects(tmp_path)
    assert kept == [f"web/b{n}" for n in range(200 - len(kept), 200)]
    assert len(kept) > 40
    assert subjects(tmp_path, 3) == ["web/b197", "web/b198", "web/b199"]


def test_begun_in_one_file_and_ended_in_the_next(tmp_path: Path) -> None:
    file, first = AuditFile(tmp_path, full=1), entry(1)
    file.write([first])
    file.write([first.ended(Result.DONE)])
    assert (tmp_path / "audit.1.jsonl").exists()
    assert read_audit(tmp_path, 10) == [first.ended(Result.DONE)]


def test_a_torn_line_costs_itself(tmp_path: Path) -> None:
    file = AuditFile(tmp_path)
    file.write([entry(1)])
    whole = (tmp_path / AUDIT).read_bytes()
    file.write([entry(2)])
    torn = (tmp_path / AUDIT).read_bytes().removeprefix(whole)
    for cut in range(1, len(torn)):
        (tmp_path / AUDIT).write_bytes(whole + torn[:cut])
        found = subjects(tmp_path)
        assert found == ["web/b1", "web/b2"] if cut == len(torn) - 1 else ["web/b1"]
        file.write([entry(3)])
        assert subjects(tmp_path) == [*found, "web/b3"]


@pytest.mark.parametrize(
    "line",
    ["", "{}", "[1]", "\x00" * 50, '{"id": 1}', "[" * 100_000, '{"id":"a","result":"later"}'],
    ids=range(7),
)
def test_what_is_no_entry_is_passed_over(tmp_path: Path, line: str) -> None:
    AuditFile(tmp_path).write([entry(1)])
    with (tmp_path / AUDIT).open("a") as file:
        file.write(line + "\n")
    AuditFile(tmp_path).write([entry(2)])
    assert subjects(tmp_path) == ["web/b1", "web/b2"]


def test_what_users_give_stays_a_line(tmp_path: Path) -> None:
    given: dict[str, Any] = {"a\nb": "x\ny", "long": "z" * 70_000, "nan": float("nan"), "n": 3}
    made = new_entry(ROOT, "apply\n", "\udcff\u2028", given).ended(Result.REFUSED, "one\ntwo")
    AuditFile(tmp_path).write([made])
    text = (tmp_path / AUDIT).read_bytes()
    assert text.count(b"\n") == 1
    assert len(text) < 2000
    assert json.loads(text)["details"]["n"] == 3
    assert json.loads(text)["details"]["nan"] == "nan"


def test_two_processes_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tula.engine.audit import *\n"
        "from tula.engine.callers import DAEMON\n"
        "for n in range(50):\n"
        "    AuditFile(Path(sys.argv[1]), 5000).write([new_entry(DAEMON, 'x')], sync=False)"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0] * 3
    lines = [line for path in tmp_path.glob("*.jsonl") for line in path.read_bytes().splitlines()]
    assert len(lines) == 150
    assert all(json.loads(line)["who"] == DAEMON.name for line in lines)


class Disk:
    """A disk that is full for as long as the test wants."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.full = False
        append = Directory.append

        def checked(this: Directory, name: str, text: bytes, **given: Any) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            append(this, name, text, **given)

        patch.setattr(Directory, "append", checked)


def test_a_full_disk_stops_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, told = Disk(monkeypatch), list[str]()
    log = AuditLog(tmp_path, told.append)
    with log.written():
        log.add(entry(1)).result(60)
        assert log.problem == ""
        disk.full = True
        for number in (2, 3, 4):
            log.add(entry(number)).result(60)
        assert "No space left on device" in log.problem
        assert len(told) == 1
        disk.full = False
        log.add(entry(5)).result(60)
        assert log.problem == ""
    assert subjects(tmp_path) == [f"web/b{n}" for n in range(1, 6)]


def test_of_very_many_that_wait_the_latest_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    disk.full = True
    log = AuditLog(tmp_path)
    with log.written():
        for number in range(1500):
            log.add(entry(number)).result(60)
        disk.full = False
    found = read_audit(tmp_path, 10_000)
    lost = [each for each in found if each.action == "lost-entries"]
    assert [each.details["number"] for each in lost] == [500]
    assert "No space left" in lost[0].why
    assert [each.subject for each in found if each not in lost][:1] == ["web/b500"]
    assert len(found) == 1001


def test_what_waits_at_the_end_is_written(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    with log.written():
        for number in range(100):
            log.add(entry(number))
    assert len(subjects(tmp_path)) == 100
    log.add(entry(101)).result(60)
    assert len(subjects(tmp_path)) == 100, "nobody writes any more, and nobody waits"


def test_a_killed_process_leaves_that_it_began(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from tula.engine.audit import *\n"
        "from tula.engine.callers import DAEMON\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "with log.written():\n"
        "    log.add(new_entry(DAEMON, 'apply')).result()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -9
    (found,) = read_audit(tmp_path, 10)
    assert (found.action, found.result) == ("apply", Result.BEGUN)
