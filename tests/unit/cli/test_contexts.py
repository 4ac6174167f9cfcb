"""The contexts file, and the commands about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tula.cli.main import app

Call = Callable[..., Result]
CONTEXTS = """\
# Balancers of the shop.
contexts:
  lb1: {server: "https://lb1:8420", token_file: lb1.token}  # the old one
  lb2:
    server: https://lb2:8420
    token_file: /etc/tula/lb2.token
    certificate: ~/ca.pem
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "tula" / "contexts.yaml"
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def tula(tmp_path: Path) -> Call:
    def call(*words: str) -> Result:
        env = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
        return CliRunner().invoke(app, words, env=env)

    return call


def test_no_contexts(tula: Call, path: Path) -> None:
    assert tula("context", "list").stdout == f"no contexts: {path} does not name any\n"
    found = tula("context", "use", "lb1")
    assert found.exit_code == 2
    assert found.stderr == f"tula: tula context use: no context 'lb1': {path} holds none\n"
    assert tula("context", "use", "local").exit_code == 2
    path.write_text("# nothing yet\n")
    assert json.loads(tula("context", "list", "--json").stdout)["contexts"] == []


def test_the_default_is_chosen(tula: Call, path: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.yaml"
    kept.write_text(CONTEXTS)
    kept.chmod(0o640)
    path.symlink_to(kept)
    assert tula("context", "use", "lb1").stdout == "lb1 is the default now\n"
    assert kept.read_text() == CONTEXTS + "default: lb1\n"
    assert tula("context", "use", "lb2").exit_code == 0
    assert kept.read_text() == CONTEXTS + "default: lb2\n"
    assert (path.is_symlink(), kept.stat().st_mode & 0o777) == (True, 0o640)
    assert tula("context", "list").stdout == (
        "   NAME  SERVER            TOKEN FILE\n"
        f"   lb1   https://lb1:8420  {path.parent}/lb1.token\n"
        "*  lb2   https://lb2:8420  /etc/tula/lb2.token\n"
    )
    assert tula("context", "use", "local").exit_code == 0
    assert json.loads(tula("context", "list", "--json").stdout)["default"] == "local"
    found = tula("context", "use", "lb3")
    assert "no context 'lb3' in " in found.stderr
    assert "did you mean lb2?" in found.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("contexts: [", ":2:1: "),
        ("lb1", ": write contexts: with a server under each name"),
        ("context: {}", ": unknown key 'context'; did you mean contexts?"),
        ("contexts: [lb1]", ": contexts: write a name, and under it server and token_file"),
        ("contexts: {lb1: https://lb1}", ": contexts.lb1: write server and token_file under it"),
        ("contexts: {lb1: {}}", ": contexts.lb1: server is missing, such as https://lb1:8420"),
        ("contexts: {lb1: {server: 1}}", ": contexts.lb1.server: write text, in quotes"),
        (
            "contexts: {lb1: {token: x}}",
            ": contexts.lb1: unknown key 'token'; did you mean ",
        ),
        ("contexts: {local: {server: x}}", ": contexts.local: the name stands for this machine's"),
        ("default: lb1", ": default: 'lb1' is no context; there are: none"),
        (
            "contexts: {lb1: {server: lb1, token_file: F}}\ndefault: lb1",
            ": contexts.lb1: 'lb1' ",
        ),
    ],
)
def test_what_is_wrong_in_the_file(tula: Call, path: Path, text: str, words: str) -> None:
    path.write_text(f"{text}\n")
    found = tula("status")
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith(f"tula: {path}{words}")
    assert found.stderr.count("\n") == 1
    assert tula("version", "--run-dir", "/nowhere").exit_code == 0, "this machine needs no file"


def test_a_user_without_a_home_has_no_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    from tula.cli.contexts import contexts_path, read_contexts

    def homeless(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert read_contexts(contexts_path()).of == {}
