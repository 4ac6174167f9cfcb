"""``tula backend instructions --format``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tula.cli.main import app

CONFIGURATION = """\
interfaces: [eth0]
load_balancers: {lb1: 10.0.0.2}
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l3
    tunnel: %s
    backends: {far: {address: 10.7.0.11}}
"""


def instructions(folder: Path, tunnel: str, *options: str) -> Result:
    path = folder / "tula.yaml"
    path.write_text(CONFIGURATION % tunnel)
    return CliRunner().invoke(app, ["backend", "instructions", "-f", str(path), *options])


@pytest.mark.parametrize("form", ["ip", "networkd", "netplan"])
def test_each_format_prints_a_script(tmp_path: Path, form: str) -> None:
    done = instructions(tmp_path, "vxlan", "far", "--format", form)
    assert done.exit_code == 0
    assert done.stdout.startswith("# Sets this machine up as the backend far, ")
    assert "\nset -e\n" in done.stdout


def test_without_a_format_it_is_ip(tmp_path: Path) -> None:
    default = instructions(tmp_path, "vxlan", "far").stdout
    assert default == instructions(tmp_path, "vxlan", "far", "--format", "ip").stdout


def test_json_has_the_files(tmp_path: Path) -> None:
    done = instructions(tmp_path, "gre", "far", "--format", "networkd", "--json")
    shown = json.loads(done.stdout)
    assert {"path", "why", "text"} == set(shown["files"][0])
    assert shown["commands"][-1] == "systemctl restart systemd-networkd"


def test_what_netplan_cannot_do_is_wrong_usage_and_names_what_can(tmp_path: Path) -> None:
    done = instructions(tmp_path, "gue", "far", "--format", "netplan")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "tula: netplan does not support GUE; use --format networkd or --format ip"
    )


def test_another_name_is_wrong_usage(tmp_path: Path) -> None:
    done = instructions(tmp_path, "gue", "near", "--format", "networkd")
    assert done.exit_code == 2
    assert "no backend 'near'" in done.stderr
    assert "its backends are: far" in done.stderr
