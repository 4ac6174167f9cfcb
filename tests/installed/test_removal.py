"""Removed, traffic goes on and it is said how to end that; purged, the machine is as before.

See ``support.site`` for the network.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.booted import Machine
from support.machines import differences
from support.site import FILE, Site, configuration
from support.whole_machine import texts
from tula.lab import Lab, flows, prepare_backend, serve_tcp, wait_until

pytestmark = pytest.mark.kernel


def like_a_server(machine: Machine) -> dict[str, object]:
    """Everything of it, once it has what servers have."""
    machine.equip()
    return texts(machine)


def test_removed_and_purged_a_balancer_is_as_before(bare_site: Site, package: Path) -> None:
    site, lb = bare_site, bare_site.lb
    before = like_a_server(lb)
    lb.install(package)
    site.serve()
    lb.run("tula", "drain", "web/cache-2")
    lb.run("tula", "undrain", "web/cache-2")
    site.wait_until_up()
    with site.load() as load:
        said = lb.run("apt-get", "remove", "-y", "tula", timeout=600).stdout
        print(*(line for line in said.splitlines() if line.startswith("tula")), sep="\n")
        assert "goes on forwarding" in said
        load.wait()
    assert lb.path(FILE).exists(), "the configuration stays"
    lb.install(package)
    lb.run("systemctl", "start", "tula")
    site.wait_until_up()
    lb.run("apt-get", "purge", "-y", "tula", timeout=600)
    lb.run("apt-get", "autoremove", "--purge", "-y", timeout=600)
    assert flows(site.client, "10.0.0.100", 80, 5, allow_loss=True, timeout=2.0) == {}
    assert differences(before, texts(lb)) == {}


def test_after_a_removal_and_a_reboot_nothing_is_left_to_do(site: Site) -> None:
    site.serve()
    site.lb.run("apt-get", "remove", "-y", "tula", timeout=600)
    site.lb.reboot()
    assert "10.0.0.100" not in site.lb.host.addresses()
    purged = site.lb.run("apt-get", "purge", "-y", "tula", timeout=600)
    assert "rror" not in purged.stdout + purged.stderr


def test_a_backend_joins_reboots_leaves_and_is_purged(
    lab: Lab, bare: list[Path], package: Path
) -> None:
    """While it is joined, too; it serves until then."""
    lan = lab.switch("lan")
    lb = lab.host("lb1", lan, "10.0.0.2/24", "fd00::2/64")
    client = lab.host("client", lan, "10.0.0.50/24", "fd00::50/64")
    other = lab.host("cache-2", lan, "10.0.0.12/24", "fd00::12/64")
    cache = Machine(lab, "cache-1", lan, ["10.0.0.11/24", "fd00::11/64"], bare)
    cache.start()
    lab.ready()
    prepare_backend(other, ["10.0.0.100", "fd00::100"])
    file = lab["lb1"].directory / "tula.yaml"
    file.parent.mkdir(exist_ok=True)

    def serve() -> None:
        serve_tcp(cache.host, [80], ["0.0.0.0", "::"])

    def served() -> bool:
        """By this backend, through the balancer."""
        found = flows(client, "10.0.0.100", 80, 20, allow_loss=True, timeout=5.0)
        return "cache-1" in found.values()

    before = like_a_server(cache)
    cache.install(package)
    cache.path(FILE).write_text(configuration())
    cache.run("tula", "backend", "join", "-f", FILE)
    serve()
    lb.tula("apply", "-f", _without_health(file))
    wait_until(served, 60, "the backend")
    cache.reboot()
    lab.ready()
    serve()
    wait_until(served, 60, "the backend after a reboot")
    assert cache.run("tula", "backend", "status", "--exit-code").returncode == 0

    said = cache.run("apt-get", "remove", "-y", "tula", timeout=600).stdout
    assert "goes on serving as a backend" in said
    assert served(), "until it is told otherwise"
    cache.reboot()
    lab.ready()
    cache.install(package)
    cache.reboot()
    lab.ready()
    serve()
    wait_until(served, 60, "the backend, installed again and rebooted")
    cache.run("apt-get", "purge", "-y", "tula", timeout=600)
    cache.run("apt-get", "autoremove", "--purge", "-y", timeout=600)
    assert "10.0.0.100" not in cache.host.addresses()
    assert differences(before, texts(cache)) == {}


def _without_health(file: Path) -> Path:
    document = yaml.safe_load(configuration())
    for service in document["services"].values():
        service.pop("health", None)
    file.write_text(yaml.safe_dump(document))
    return file
