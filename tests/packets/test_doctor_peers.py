"""The doctor on a balancer whose daemon knows another one: what differs is found, and gone again.

::

    client-1 ── router ══ lan ══ lb1, lb2, backend-1, -2
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.high_availability import Balancers
from support.in_process import call_tula
from support.lab_configurations import service_of
from tula.lab import Host, Lab, pair, serve_tcp, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

WITHIN = 60.0


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancers]:
    with Lab() as lab:
        network = pair(lab)
        for backend in network.backends:
            serve_tcp(backend, [80])
        folder = tmp_path_factory.mktemp("peers")
        web = {"web": service_of(network)}
        api = {"listen": "0.0.0.0:8420"}
        with Balancers(network, folder, {"vrrp": {"id": 84}}, web, api=api) as made:
            yield made
        for lb in network.lbs:
            call_tula(lb, "clear", check=False)


def found(two: Balancers) -> list[dict[str, Any]]:
    """What the doctor finds on lb1."""
    lb1 = two.cluster.lbs[0]
    result = call_tula(lb1, "doctor", "--json", check=False)
    return [f for f in json.loads(result.stdout)["findings"] if f["id"] != "no-health-checks"]


def wait_for(two: Balancers, *ids: str) -> list[dict[str, Any]]:
    """Until these are found and no others: peers ask each other once a second."""
    last: list[dict[str, Any]] = []

    def there() -> bool:
        last[:] = found(two)
        return {f["id"] for f in last} == set(ids)

    try:
        wait_until(there, WITHIN, "findings")
    except Exception as error:
        raise AssertionError((ids, last)) from error
    return last


def add_each_other(two: Balancers, folder: Path) -> None:
    """By an ssh that leads to lb2, whatever it is given."""
    lb1, lb2 = two.cluster.lbs
    env = lb2.environment()
    words = " ".join(f"{name}={env[name]}" for name in ("TULA_STATE_DIR", "TULA_RUN_DIR"))
    script = folder / "ssh"
    script.write_text(
        "#!/bin/sh\nshift 2\nexec nsenter -t "
        f'{two.daemons["lb2"].pid} -n env {words} {sys.executable} -m "$@"\n'
    )
    script.chmod(0o755)
    here = lb1.environment()
    here["PATH"] = f"{folder}:{here['PATH']}"
    lb1.run([sys.executable, "-m", "tula", "peer", "add", "lb2", "--ssh"], env=here)


def apply(two: Balancers, lb: Host, **keys: Any) -> None:
    """Another service on one balancer alone."""
    two.services = {"web": service_of(two.cluster, **keys)}
    call_tula(lb, "apply", "-f", two.write(lb))


def test_peers_that_differ(two: Balancers, tmp_path: Path) -> None:
    lb1, lb2 = two.cluster.lbs
    for daemon in two.daemons.values():
        wait_until(
            lambda daemon=daemon: daemon.status()["daemon"]["network"]["fingerprint"], WITHIN, "api"
        )
    (missing,) = wait_for(two, "peer-not-added")
    assert missing["where"] == "lb2"
    add_each_other(two, tmp_path)
    wait_for(two)
    call_tula(lb1, "drain", "web/backend-1")
    apply(two, lb2, ports=[80, 81])
    wait_for(two, "overrides-differ", "configurations-differ")
    call_tula(lb1, "undrain", "web/backend-1")
    apply(two, lb2)
    wait_for(two)
    two.daemons["lb2"].stop()
    (gone,) = wait_for(two, "peer-unreachable")
    assert "10.9.0.3" in gone["evidence"]
