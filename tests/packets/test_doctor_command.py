"""The command around the checks: which configuration, what is printed, how long it takes."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from support.doctor import Setup, l2_setup
from support.lab_configurations import service_of
from tula.lab import Lab, flat, serve_tcp
from tula.lab.topologies import prepare_backend

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]


def test_what_is_printed(lab: Lab, tmp_path: Path) -> None:
    """Without -f, the last applied configuration is used."""
    setup = l2_setup(lab, tmp_path)
    fine = setup.lb.tula("doctor", check=False)
    assert fine.returncode == 0
    assert "No problems found." in fine.stdout
    assert "Tested, as a balancer:" in fine.stdout
    setup.first.remove_address("lo", "10.9.0.100/32")
    ill = setup.lb.tula("doctor", check=False)
    assert ill.returncode == 1
    assert "error backend-1: vip-missing, a guess" in ill.stdout
    assert re.search(r"^  on backend-1:\n(    .*\n)*    ip .*10\.9\.0\.100/32", ill.stdout, re.M)


def test_an_invalid_configuration(lab: Lab, tmp_path: Path) -> None:
    setup = l2_setup(lab, tmp_path)
    setup.path.write_text("interfaces: [eth0]\nservices: {web: {}}\n")
    result = setup.lb.tula("doctor", "-f", setup.path, check=False)
    assert result.returncode == 2
    assert "tula.yaml:2:" in result.stderr
    assert setup.first.tula("doctor", check=False).returncode == 2  # none was applied there


def test_an_old_nft(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = l2_setup(lab, tmp_path)
    program = tmp_path / "bin" / "nft"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'nftables v0.9.8 (E.D.S.)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert counts(setup) == {"kernel-lacks": 1}


def test_programs_before_nftables_are_noted(lab: Lab, tmp_path: Path) -> None:
    setup = l2_setup(lab, tmp_path)
    setup.lb.run(["tc", "qdisc", "add", "dev", "eth0", "clsact"])
    (found,) = setup.examine()
    assert (found["id"], found["severity"]) == ("foreign-program", "note")


def test_a_machine_that_is_not_configured(lab: Lab, tmp_path: Path) -> None:
    setup = l2_setup(lab, tmp_path)
    stranger = lab.host("stranger")
    result = stranger.tula("doctor", "-f", setup.path, "--json", check=False)
    assert result.returncode == 1
    assert [f["id"] for f in json.loads(result.stdout)["findings"]] == ["not-in-configuration"]


def test_a_hundred_backends(lab: Lab, tmp_path: Path) -> None:
    """Half of them are gone, the others lack a VIP."""
    network = flat(lab, clients=1, backends=0, vips=("10.9.0.240", "fd09::240"))
    for number in range(100):
        addresses = (f"10.9.0.{11 + number}/24", f"fd09::{11 + number}/64")
        host = lab.host(f"b{number}", network.lan, *addresses)
        prepare_backend(host, network.vips)
        serve_tcp(host, [80])
        network.backends.append(host)
    lab.ready()
    setup = Setup(network, tmp_path / "tula.yaml", {"web": service_of(network)})
    setup.apply()
    assert counts(setup) == {}
    for host in network.backends[:50]:
        host.set_cable("eth0", False)
    for host in network.backends[50:]:
        host.remove_address("lo", "10.9.0.240/32")
    began = time.monotonic()
    # One of each family that is gone, one of the family that is lacking.
    assert counts(setup) == {"backend-unreachable": 100, "vip-missing": 50}
    # One after the other, those who stay silent alone would take 100 times 2.5 s.
    assert time.monotonic() - began < 200


def counts(setup: Setup) -> Counter[str]:
    """How often each id is found."""
    arguments = ("doctor", "-f", setup.path, "--json", "--patience", "2.5")
    result = setup.lb.tula(*arguments, check=False, timeout=600)
    found = Counter(finding["id"] for finding in json.loads(result.stdout)["findings"])
    assert found.pop("no-health-checks") == 1
    return found
