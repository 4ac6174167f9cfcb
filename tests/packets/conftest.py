"""Fixtures of the packet tests: they need root, and fail (not skip) without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.health_matrix import HealthMatrix
from support.serving import Serving
from support.tunnelled import LINK_KINDS, Tunnelled
from tula.lab import Lab, Network, flat, serve_tcp, serve_udp


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab of anonymous namespaces, gone after the test whatever happened in it."""
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def four_backends() -> Iterator[Network]:
    """One switch, two clients, and four backends that say their names on ports 80 and 81."""
    with Lab() as lab:
        made = flat(lab, backends=4)
        made.lb.add_address("eth0", "10.50.0.1/16")  # a network for backends that are nowhere
        for backend in made.backends:
            serve_tcp(backend, [80, 81])
            serve_udp(backend, [80, 81])
        yield made


@pytest.fixture
def serving(four_backends: Network, tmp_path: Path) -> Iterator[Serving]:
    """Three of them serve, by a configuration just applied to a balancer without any past."""
    with Serving(four_backends, tmp_path / "tula.yaml") as made:
        made.start_over()
        made.apply()
        yield made


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(kind, marks=pytest.mark.link_kinds(*needed), id=f"{kind[0]}-over-ipv{kind[1]}")
        for kind, needed in LINK_KINDS.items()
    ],
)
def tunnelled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tunnelled]:
    """Two backends behind a router in tunnels of one kind, over IPv4 or IPv6; tests leave it so."""
    tunnel, outer = request.param
    with Lab() as lab:
        made = Tunnelled(lab, tmp_path_factory.mktemp("tunnels"), tunnel, outer)
        made.apply()
        made.prepare()
        made.serve()
        yield made


# A minute and a half each in the emulated VM: test_health_tunnels.py has a part for `make test`.
HEALTH_KINDS = {
    kind: needed
    for kind, needed in LINK_KINDS.items()
    if os.environ.get("TULA_SOAK") or kind[0] == "vxlan"
}


def pytest_report_header() -> str | None:
    left = [
        f"{tunnel} over IPv{outer}" for tunnel, outer in LINK_KINDS.keys() - HEALTH_KINDS.keys()
    ]
    return f"all of health by {', '.join(sorted(left))}: only in make soak" if left else None


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(("", 4), id="l2"),
        *(
            pytest.param(
                kind, marks=pytest.mark.link_kinds(*needed), id=f"{kind[0]}-over-ipv{kind[1]}"
            )
            for kind, needed in HEALTH_KINDS.items()
        ),
    ],
)
def health_matrix(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> HealthMatrix:
    """What a daemon said, and what clients were answered, while things went wrong and were
    repaired; all of it is over."""
    with Lab() as lab:
        made = HealthMatrix(lab, tmp_path_factory.mktemp("health"), *request.param)
        made.run()
    return made
