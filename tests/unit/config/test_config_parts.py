"""A configuration in several files of a directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tula.config.load import ConfigError, describe, load_config, parse_config
from tula.config.parts import read_text, stamp_of

BASE = "interfaces: [eth0]\ndefaults: {scheduler: maglev}\n"
WEB = """\
services:
  web: {vip: 10.0.0.100, ports: 80, forwarding: l2, backends: {a: {address: 10.0.0.11}}}
"""
DNS = """\
# no newline at its end
services:
  dns:
    vip: 10.0.0.100
    protocol: udp
    ports: 53
    forwarding: l2
    backends: {a: {address: 10.0.0.12}}"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write(tmp_path, {"10-base.yaml": BASE, "20-web.yaml": WEB, "30-dns.yaml": DNS})
    (tmp_path / ".30-dns.yaml.swp").write_bytes(b"\0")
    (tmp_path / "README").write_text("not YAML: [")
    return tmp_path


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).write_text(text)


def refusal(directory: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(directory)
    error = caught.value
    return [describe("conf.d", problem, error.positions) for problem in error.problems]


def test_they_are_one(directory: Path) -> None:
    loaded = load_config(directory)
    assert [service.name for service in loaded.config.services] == ["web", "dns"]
    assert parse_config(loaded.source).config == loaded.config, "its text is enough"


@pytest.mark.parametrize(
    ("files", "lines"),
    [
        (
            {"40-more.yaml": "\nservices:\n  web: {}\n"},
            ["conf.d/40-more.yaml:3:3: services.web: also given at 20-web.yaml:2:3"],
        ),
        (
            {"00-first.yaml": "interfaces: [eth1]\n"},
            ["conf.d/10-base.yaml:1:1: interfaces: also given at 00-first.yaml:1:1"],
        ),
        (
            {"40-more.yaml": "defaults: {scheduler: wrr}"},
            ["conf.d/40-more.yaml:1:12: defaults.scheduler: also given at 10-base.yaml:2:12"],
        ),
        (
            {"20-web.yaml": WEB.replace("ports: 80", "ports: 99999")},
            ["conf.d/20-web.yaml:2:33: services.web.ports: "],
        ),
        (
            {"20-web.yaml": "# first\nservices: [\n"},
            ["conf.d/20-web.yaml:3:1: not valid YAML: "],
        ),
        (
            {"30-dns.yaml": DNS + "\nservices: {}\n"},
            ["conf.d/30-dns.yaml:9:1: services: given twice, first on line 2; keep one"],
        ),
        ({"40-more.yaml": "- a list\n"}, ["conf.d/40-more.yaml:1:1: expected a map"]),
        ({"40-more.yml": "x: 1"}, ["conf.d: only *.yaml are read; rename 40-more.yml"]),
        ({"40-more.yaml": "---\nx: 1\n---\n"}, ["conf.d/40-more.yaml:3:1: a second YAML document"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_name_their_file(directory: Path, files: dict[str, str], lines: list[str]) -> None:
    write(directory, files)
    found = refusal(directory)
    assert len(found) == len(lines), found
    for line, begin in zip(found, lines, strict=True):
        assert line.startswith(begin)


def test_what_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path) == ["conf.d: a directory without *.yaml; put the configuration there"]
    (tmp_path / "a.yaml").mkdir()
    assert refusal(tmp_path) == [
        "conf.d: a.yaml: a directory, not a file; give the path of a YAML file"
    ]


def test_an_empty_file_gives_nothing(directory: Path) -> None:
    write(directory, {"00-empty.yaml": "", "40-comment.yaml": "# nothing\n"})
    assert len(load_config(directory).config.services) == 2


def test_an_anchor_belongs_to_its_file(directory: Path) -> None:
    write(directory, {"20-web.yaml": WEB.replace("web: {", "web: &web {")})
    write(directory, {"40-more.yaml": "services: {other: *web}\n"})
    assert refusal(directory)[0].startswith("conf.d/40-more.yaml:1:19: *web refers to no anchor")


def test_changes_are_seen(directory: Path) -> None:
    stamps = {stamp_of(directory)}
    for change in (
        lambda: (directory / "20-web.yaml").write_text(WEB + "#"),
        lambda: (directory / "20-web.yaml").chmod(0o600),
        lambda: (directory / "30-dns.yaml").unlink(),
    ):
        change()
        stamps.add(stamp_of(directory))
    assert len(stamps) == 4
    assert stamp_of(directory / "none") is None
    assert read_text(directory).startswith(b"#=== file 10-base.yaml\ninterfaces: [eth0]\n")
