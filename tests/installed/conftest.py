"""Machines of Debian 12 and 13, booted by systemd, with the packages that ``make package`` built.

Needs root. ``make test-packages`` builds the packages and runs these tests.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.booted import RELEASES, Machine, debian_machine
from support.packages import package_of, registry_layer
from support.site import Site
from tula.lab import Lab


@pytest.fixture(scope="session", params=RELEASES)
def release(request: pytest.FixtureRequest) -> str:
    """Debian 12's name, then 13's."""
    return str(request.param)


@pytest.fixture(scope="session")
def package(release: str) -> Path:
    """The package for this release."""
    return package_of(release)


@pytest.fixture(scope="session")
def bare(release: str, package: Path) -> list[Path]:
    """The files of a machine on which apt can install it, without a network."""
    machine = debian_machine(release)
    return [registry_layer(machine, package), machine]


@pytest.fixture(scope="session")
def image(bare: list[Path], package: Path) -> list[Path]:
    """The files of a machine on which it was installed, once for all runs with this package."""
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:16]
    kept = bare[-1].with_name(f"{bare[-1].name}.installed")
    if not (kept / digest).is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        with Lab() as lab:
            machine = Machine(lab, "image", lab.switch("lan"), ["10.0.0.9/24"], bare)
            machine.start()
            machine.install(package)
            machine.stop()
            subprocess.run(["mv", machine.upper, kept / digest], check=True)
    return [kept / digest, *bare]


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab, gone after the test with its machines."""
    with Lab() as made:
        yield made


@pytest.fixture
def site(lab: Lab, image: list[Path]) -> Site:
    """A balancer that is installed and not configured, backends and a client."""
    return Site(lab, image)


@pytest.fixture
def bare_site(lab: Lab, bare: list[Path]) -> Site:
    """The same where nothing is installed yet."""
    return Site(lab, bare)
