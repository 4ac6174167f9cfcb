"""The command line by itself: help, completion, arguments, and no kernel anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from tula.cli.main import app
from tula.engine.store import Store
from tula.version import __version__

Call = Callable[..., Result]
SCRIPT = Path(sys.executable).with_name("tula")


def commands() -> list[list[str]]:
    """Every command and group, as a user would type it."""
    found: list[list[str]] = []

    def walk(command: click.Command, words: list[str]) -> None:
        found.append(words)
        for name, below in getattr(command, "commands", {}).items():
            walk(below, [*words, name])

    walk(typer.main.get_command(app), [])
    return found


def test_version(tula: Call) -> None:
    assert tula("--version").output == f"tula {__version__}\n"
    done = subprocess.run(
        [sys.executable, "-m", "tula", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"tula {__version__}\n"


def test_the_contracts_commands_are_there() -> None:
    names = {words[0] for words in commands() if len(words) == 1}
    assert {"check", "plan", "apply", "status", "trace", "clear", "lab", "doctor"} <= names
    assert {"run", "reload", "events", "drain", "undrain", "disable", "enable", "weight"} <= names


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words) or "tula")
def test_help(tula: Call, words: list[str]) -> None:
    result = tula(*words, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: tula {' '.join(words)}".rstrip())
    described = result.stdout.split("\n\n")[1].strip()
    assert len(described) > 20, "says what it does"
    assert result.stderr == ""


@pytest.mark.parametrize("words", [[], ["drain"], ["backend", "join"]], ids=" ".join)
def test_h_is_short_for_help(tula: Call, words: list[str]) -> None:
    assert tula(*words, "-h").output == tula(*words, "--help").output


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["--frobnicate"],
        ["apply", "--frobnicate"],
        ["check"],
        ["trace"],
        ["plan", "x"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_status_2(tula: Call, arguments: list[str]) -> None:
    result = tula(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


HEAVY = [
    *("pydantic", "pyroute2", "yaml", "rich", "asyncio", "http.client", "fastapi", "uvicorn"),
    *("prometheus_client", "tula.config", "tula.daemon", "tula.api"),
]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]], ids=" ".join)
def test_help_starts_without_what_the_work_needs(arguments: list[str]) -> None:
    script = (
        "import sys; from tula.cli.main import app\n"
        f"try: app({arguments!r})\n"
        f"finally: print('loaded:', *(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr == "loaded:\n"


def test_schema_is_json(tula: Call) -> None:
    schema = json.loads(tula("schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"interfaces", "services", "connections", "marks"} <= set(schema["properties"])


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("bash", "complete -o default -F _tula_completion tula"),
        ("zsh", "compdef"),
        ("fish", "tula"),
    ],
)
def test_completion_scripts(shell: str, words: str) -> None:
    done = subprocess.run(
        [SCRIPT],
        env={**os.environ, "_TULA_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert words in done.stdout
    assert f"_TULA_COMPLETE=complete_{shell}" in done.stdout


def test_completion_of_a_command() -> None:
    env = {"_TULA_COMPLETE": "complete_bash", "COMP_WORDS": "tula tr", "COMP_CWORD": "1"}
    done = subprocess.run(
        [SCRIPT],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["trace"]


@pytest.mark.parametrize(
    "arguments",
    [["plan"], ["apply"], ["status"], ["trace", "10.0.0.1:80", "--client", "10.0.0.9:1234"]],
    ids=" ".join,
)
def test_without_any_document(tula: Call, arguments: list[str]) -> None:
    result = tula(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr
        == "tula: no configuration has been applied here; name one with -f tula.yaml\n"
    )


@pytest.mark.parametrize("command", ["plan", "apply", "status"])
def test_an_applied_document_that_no_longer_fits(tula: Call, tmp_path: Path, command: str) -> None:
    applied = tmp_path / "state" / "document.yaml"
    applied.parent.mkdir()
    applied.write_text("interfaces: [eth0]\nservices: {}\nfrobs: 1\n")
    result = tula(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"{applied}:3:1: frobs: unknown key")


@pytest.mark.usefixtures("daemon")
def test_versions(tula: Call) -> None:
    assert tula("version").stdout.splitlines() == [f"tula {__version__}", f"daemon {__version__}"]
    assert json.loads(tula("version", "--json").stdout) == {
        "version": __version__,
        "daemon": __version__,
    }


@pytest.mark.parametrize("words", [["schema"], ["--help"], ["version"]], ids=" ".join)
def test_nobody_reads_on(words: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tula", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tula", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "tula: standard output: No space left on device\n"


def test_names_are_completed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    names = "services: {web: {backends: {b1: 1, b2: 2}}, web-2: {}, dns: {}}"
    Store(state).prepare_configuration(names.encode())()

    def complete(line: str) -> list[str]:
        words = {"_TULA_COMPLETE": "complete_bash", "COMP_WORDS": line}
        words |= {"COMP_CWORD": str(len(line.split(" ")) - 1), "TULA_STATE_DIR": str(state)}
        done = CliRunner().invoke(app, [], prog_name="tula", env=words)
        return done.stdout.split()

    assert complete("tula status w") == ["web", "web-2"]
    assert complete("tula drain w") == ["web/", "web-2/"]
    assert complete("tula drain web/b") == ["web/b1", "web/b2"]
    assert complete("tula drain nothing/b") == []
