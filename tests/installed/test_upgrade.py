"""Other versions come while 300 connections and a UDP stream go on; see ``support.site``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.packages import changed, version_of
from support.site import Site
from tula.lab import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def serving(site: Site) -> Site:
    site.serve()
    return site


def break_start(tree: Path) -> None:
    """A daemon that ends at once."""
    program = tree / "usr/lib/tula/bin/tula"
    program.write_text("#!/bin/sh\necho this version is broken >&2\nexit 1\n")


def raise_schema(tree: Path) -> None:
    """As a version would be whose rules an older one must not read."""
    (path,) = tree.glob("usr/lib/tula/lib/python*/site-packages/tula/dataplane/nft/schema.py")
    text, number = re.subn(r"(?m)^SCHEMA = \d+$", "SCHEMA = 99", path.read_text())
    assert number == 1
    path.write_text(text)


def test_up_and_down_again_and_no_packet_is_lost(
    serving: Site, package: Path, tmp_path: Path
) -> None:
    site, lb = serving, serving.lb
    version = version_of(package)
    newer = changed(package, tmp_path, f"{version}+1")
    site.lb.run("tula", "weight", "web/cache-1", "50")
    with site.load() as load:
        for each in (newer, package):  # and down again: both know the table's schema
            before = site.pid()
            lb.install(each)
            installed = lb.run("dpkg-query", "-W", "-f=${Version}", "tula").stdout
            assert installed == version_of(each)
            assert site.pid() not in (0, before), "its daemon has taken over"
            assert lb.show("tula", "UnitFileState") == "enabled"
            site.wait_until_up()
            load.wait()
    assert lb.show("tula", "NRestarts") == "0"
    (web,) = (each for each in site.status()["services"] if each["name"] == "web")
    weights = {each["name"]: each["effective_weight"] for each in web["backends"]}
    assert weights == {"cache-1": 50, "cache-2": 100}


def test_a_version_that_does_not_start_is_told_and_traffic_goes_on(
    serving: Site, package: Path, tmp_path: Path
) -> None:
    site, lb = serving, serving.lb
    version = version_of(package)
    broken = changed(package, tmp_path, f"{version}+1", break_start)
    good = changed(package, tmp_path, f"{version}+2")
    with site.load() as load:
        said = lb.install(broken)
        assert "the daemon of this version did not start" in said.stdout + said.stderr
        assert lb.run("dpkg-query", "-W", "-f=${db:Status-Status}", "tula").stdout == "installed"
        load.wait()
        lb.install(good)
        wait_until(lambda: lb.show("tula", "ActiveState") == "active", 60)
        site.wait_until_up()
        load.wait()


def test_down_across_a_schema_is_told_and_traffic_goes_on(
    serving: Site, package: Path, tmp_path: Path
) -> None:
    """The older version touches nothing and says what to do (docs/adr/0010)."""
    site, lb = serving, serving.lb
    newer = changed(package, tmp_path, f"{version_of(package)}+1", raise_schema)
    with site.load() as load:
        lb.install(newer)
        site.wait_until_up()
        lb.install(package)
        told = wait_until(
            lambda: re.search("of a newer Tula.*|newer Tula.*", lb.sh("tula status 2>&1 || true")),
            60,
            "the older version to say why",
        )
        assert "tula clear" in told.group()
        load.wait()
    lb.sh("systemctl stop tula; tula clear; systemctl start tula")
    site.wait_until_up()
    assert set(site.answers()) == {"cache-1", "cache-2"}
