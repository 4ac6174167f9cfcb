"""Files that are none, and the lines that users read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tula.config.load import ConfigError, Positions, describe, load_config, parse_config
from tula.config.source import MAX_BYTES
from tula.model.problem import Problem, ProblemsError
from tula.users import user_name


def refusal(path: Path) -> str:
    with pytest.raises(ProblemsError) as caught:
        load_config(path)
    assert isinstance(caught.value, ConfigError)
    (problem,) = caught.value.problems
    return describe("F", problem, caught.value.positions)


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == "F: no such file"
    assert refusal(tmp_path / "x" / "none.yaml") == "F: no such file"


def test_a_pipe_is_not_waited_on(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe").startswith("F: a pipe, not a file")


def test_device() -> None:
    assert refusal(Path("/dev/zero")).startswith("F: a device, not a file")


def test_names_that_the_kernel_refuses(tmp_path: Path) -> None:
    assert refusal(tmp_path / ("x" * 300)).startswith("F: cannot be read: ")
    assert refusal(Path("a\0b")).startswith("F: cannot be read: ")
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file" / "x").startswith("F: cannot be read: ")


def test_unreadable(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("")
    (tmp_path / "secret").chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root reads everything
    try:
        who = user_name(os.geteuid())
        assert refusal(tmp_path / "secret") == (
            f"F: permission denied: user {who} cannot read it; give {who} read access"
        )
    finally:
        if root:
            os.seteuid(0)


def test_a_huge_file_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES * 1000)
    assert refusal(path) == "F:1:1: larger than 16 MiB, too large for a configuration"


def test_a_byte_order_mark_is_no_character_of_the_first_line() -> None:
    text = b"\xef\xbb\xbfinterfaces: [eth0]\nservices: {}\n"
    assert parse_config(text).config.interfaces == ("eth0",)


def test_windows_line_ends() -> None:
    text = b"interfaces: [eth0]\r\nservices: {}\r\nx: 1\r\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    (problem,) = caught.value.problems
    assert caught.value.positions.of(problem.path, on_key=True) == (3, 1)


def test_describe() -> None:
    nowhere = Positions(whole=None)
    assert describe("F", Problem((), "no such file"), nowhere) == "F: no such file"
    assert describe("F", Problem((), "empty"), Positions()) == "F:1:1: empty"
    path = ("services", "a\nb", "ports", 2)
    line = describe("F", Problem(path, "wrong"), Positions())
    assert line == r"F:1:1: services.'a\nb'.ports[2]: wrong"


def test_positions() -> None:
    text = """\
interfaces: [eth0, eth1]
services:
  web: &web
    vip:
      - 198.51.100.10
    ports: any
    forwarding: l2
    backends: {}
  www:
    <<: *web
    vip: 198.51.100.11
"""
    of = parse_config(text).positions.of
    assert of(()) == (1, 1)
    assert of(("interfaces",), on_key=True) == (1, 1)
    assert of(("interfaces",)) == (1, 13)
    assert of(("interfaces", 1)) == of(("interfaces", 1), on_key=True) == (1, 20)
    assert of(("services", "web"), on_key=True) == (3, 3)
    assert of(("services", "web", "vip", 0)) == (5, 9)
    assert of(("services", "web", "scheduler")) == (3, 3), "missing: the nearest key above"
    assert of(("services", "api", "vip")) == (2, 1)
    assert of(("interfaces", 7)) == (1, 1)
    assert of(("nothing", "at", "all")) == (1, 1)
    assert of(("services", "www", "ports")) == (6, 12), "merged: where it is written"
    assert of(("services", "www", "vip"), on_key=True) == (11, 5)


def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, tula.config; print({'pydantic', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
