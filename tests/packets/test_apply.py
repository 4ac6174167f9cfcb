"""apply brings the kernel to the configuration, and then says that nothing changed.

::

    client-1               lb  VIP 10.9.0.100, fd09::100        backend-1 … 3
        │                   │                                    │   (VIPs on lo)
    ════╧═══════════════════╧════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.snapshots import files, marks, observe, snapshot
from tula.lab import Host, Lab, Network, flat, flows, serve_tcp

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(lab: Lab) -> Network:
    return flat(lab, clients=1)


@pytest.fixture
def configuration(network: Network, tmp_path: Path) -> Path:
    """web on TCP 80, on both VIPs, served by all three."""
    return write_config(tmp_path / "tula.yaml", {"web": service_of(network)})


def state_of(host: Host) -> Path:
    return Path(host.environment()["TULA_STATE_DIR"])


def test_a_second_apply_says_that_nothing_changed(network: Network, configuration: Path) -> None:
    lb = network.lb
    before = snapshot(lb), files(state_of(lb))
    planned = call_tula(lb, "plan", "-f", configuration)
    assert call_tula(lb, "plan", "-f", configuration, "--exit-code", check=False).returncode == 3
    assert (
        json.loads(call_tula(lb, "plan", "-f", configuration, "--json").stdout)["changed"] is True
    )
    assert (snapshot(lb), files(state_of(lb))) == before, "plan only tells"

    done = call_tula(lb, "apply", "-f", configuration)
    assert (done.stdout, done.stderr) == (planned.stdout, "")
    assert "+ address 10.9.0.100  (on eth0)" in done.stdout
    assert "+ service web: " in done.stdout
    assert "+ table" not in done.stdout, "that is for -v"
    after = snapshot(lb), files(state_of(lb))
    assert after != before

    assert call_tula(lb, "apply", "-f", configuration).stdout == "nothing changed\n"
    assert call_tula(lb, "plan", "-f", configuration, "--exit-code").stdout == "nothing to change\n"
    again = json.loads(call_tula(lb, "apply", "--json").stdout)
    assert again == {"changed": False, "summary": [], "steps": []}
    assert (snapshot(lb), files(state_of(lb))) == after


def test_without_a_file_the_last_applied_document_is_meant(
    network: Network, configuration: Path
) -> None:
    lb = network.lb
    refused = call_tula(lb, "apply", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert (
        refused.stderr
        == "tula: no configuration has been applied here; name one with -f tula.yaml\n"
    )
    assert observe(lb) is None

    call_tula(lb, "apply", "-f", configuration)
    applied = snapshot(lb)
    configuration.write_text("frobs: 1\n")  # what is being written is not meant
    lb.run(["nft", "delete", "table", "netdev", "tula"])
    assert call_tula(lb, "plan", "--exit-code", check=False).returncode == 3
    assert "+ table netdev tula" in call_tula(lb, "apply", "-v").stdout
    assert snapshot(lb) == applied


def test_after_a_reboot_the_state_directory_brings_all_back(
    network: Network, configuration: Path
) -> None:
    lb = network.lb
    for backend in network.backends:
        serve_tcp(backend, [80])
    call_tula(lb, "apply", "-f", configuration)
    applied, ids = snapshot(lb), marks(lb)
    chosen = {vip: flows(network.client, vip, 80, 50) for vip in network.vips}
    lb.run(["nft", "flush", "ruleset"])
    for vip in network.vips:
        lb.run(["ip", "address", "del", vip, "dev", "eth0"])
    call_tula(lb, "apply")
    assert marks(lb) == ids
    assert snapshot(lb) == applied
    assert {vip: flows(network.client, vip, 80, 50) for vip in network.vips} == chosen


# ── Ids ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("lost", ["nothing", "state directory", "kernel"])
def test_ids_stay(network: Network, tmp_path: Path, lost: str) -> None:
    lb, tula = network.lb, InProcess(network.lb)
    first, second, third = network.backends
    old = service_of(network, ports=[81], backends=backends_of(second))
    web = service_of(network, backends=backends_of(third, second, first))
    tula.apply(write_config(tmp_path / "first.yaml", {"old": old, "web": web}))
    configuration = write_config(tmp_path / "tula.yaml", {"web": service_of(network)})
    tula.apply(configuration)
    before = marks(lb)
    assert len(before) == 6, "three backends, two families"
    if lost == "state directory":
        shutil.rmtree(state_of(lb))
    elif lost == "kernel":
        lb.run(["nft", "delete", "table", "netdev", "tula"])
    tula.apply(configuration)
    assert marks(lb) == before
    assert not tula.apply(configuration)
    # These are no numbers that a machine without memory would give.
    shutil.rmtree(state_of(lb))
    lb.run(["nft", "delete", "table", "netdev", "tula"])
    tula.apply(configuration)
    assert marks(lb) != before


def test_a_freed_id_is_not_given_to_the_next(network: Network, tmp_path: Path) -> None:
    tula, seen = InProcess(network.lb), []
    first, second, third = network.backends
    for number, hosts in enumerate([(first, second), (first,), (first, third), (first, second)]):
        web = service_of(network, vip=network.vip4, backends=backends_of(*hosts))
        tula.apply(write_config(tmp_path / f"{number}.yaml", {"web": web}))
        seen.append({address: mark for (_, address), mark in marks(network.lb).items()})
    assert len({step["10.9.0.11"] for step in seen}) == 1
    assert seen[2]["10.9.0.13"] != seen[0]["10.9.0.12"]
    assert seen[3]["10.9.0.12"] == seen[0]["10.9.0.12"], "it is its own again, when it returns"


def test_ids_move_with_the_mark_range(network: Network, tmp_path: Path) -> None:
    lb, tula = network.lb, InProcess(network.lb)
    for backend in network.backends:
        serve_tcp(backend, [80])
    services = {"web": service_of(network)}
    tula.apply(write_config(tmp_path / "tula.yaml", services))
    assert {mark >> 16 for mark in marks(lb).values()} == {1}
    chosen = flows(network.client, network.vip4, 80, 50)
    moved = write_config(
        tmp_path / "moved.yaml", services, marks={"first": 0x50000000, "last": 0x5FFFFFFF}
    )
    tula.apply(moved)
    assert {mark >> 28 for mark in marks(lb).values()} == {5}
    assert flows(network.client, network.vip4, 80, 50) == chosen
    assert not tula.apply(moved)
    counted = json.loads(call_tula(lb, "status", "--json").stdout)["services"][0]["packets"]
    assert counted >= 100, "of both marks"
