"""The API on the network, by the unit as it is shipped; a balancer restored from its backup.

See ``support.site`` for the network.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest

from support.booted import Machine
from support.site import FILE, Site, configuration
from tula.lab import wait_until
from tula.lab.process import Completed

pytestmark = pytest.mark.kernel

LISTEN = "10.0.0.2:8420"
WITH_API = configuration(
    api={"listen": LISTEN},
    metrics={"listen": "10.0.0.2:9420"},
)


def afar(site: Site, token: Path, *command: str) -> Completed:
    """Tula's command on the client, which asks the balancer."""
    program = [sys.executable, "-m", "tula", "--server", f"https://{LISTEN}", "--token-file", token]
    return site.client.run([*program, *command], check=False)


def token_of(site: Site, folder: Path, scope: str) -> Path:
    """A token file; its certificate is pinned in it."""
    file = folder / scope
    text = site.lb.run("tula", "token", "create", f"of-{scope}", "--scope", scope).stdout
    if "sha256:" not in text:
        text += f"sha256:{fingerprint(site.lb)}\n"
    file.touch(mode=0o600)
    file.write_text(text)
    return file


def fingerprint(machine: Machine) -> str:
    """Of the certificate that was made for it."""
    text = machine.run("cat", "/var/lib/tula/tls-certificate.pem").stdout
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest()


@pytest.fixture
def serving(site: Site) -> Site:
    site.configure(WITH_API)
    site.lb.run("systemctl", "enable", "--now", "tula.service")
    site.wait_until_up()
    wait_until(lambda: metrics(site) != "", 60, "the listener of metrics")
    return site


def metrics(site: Site) -> str:
    return site.client.run(
        ["curl", "-s", "-m", "5", "http://10.0.0.2:9420/metrics"], check=False
    ).stdout


def test_the_gateway_works_in_the_units_sandbox(serving: Site, tmp_path: Path) -> None:
    """TLS, tokens, metrics; without capabilities; ended and killed, it is there again."""
    site, lb = serving, serving.lb
    token = token_of(site, tmp_path, "operate")
    wait_until(lambda: afar(site, token, "status").returncode == 0, 60, "an answer by TLS")
    assert "cache-1" in afar(site, token, "status").stdout
    assert "tula_build_info" in metrics(site)
    assert afar(site, token, "drain", "web/cache-2").returncode == 0
    assert site.states("web")["cache-2"] == "draining"
    refused = afar(site, token, "rollback")
    assert refused.returncode != 0
    (gateway,) = lb.sh("pgrep -f [t]ula.api.gateway").split()
    status = lb.sh(f"cat /proc/{gateway}/status")
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    lb.run("kill", "-9", gateway)
    wait_until(lambda: afar(site, token, "status").returncode == 0, 60, "another gateway")
    lb.run("systemctl", "restart", "tula")
    wait_until(lambda: afar(site, token, "status").returncode == 0, 60, "that of the next daemon")
    assert lb.sh("systemctl --failed --no-legend") == ""


def kept(machine: Machine, site: Site) -> dict[str, Any]:
    """What must be the same after a restoration."""

    def ask(*command: str) -> Any:
        return json.loads(machine.run("tula", *command, "--json").stdout)

    status = site.status()
    return {
        "digest": status["configuration"]["digest"],
        "states": site.states("web"),
        "history": ask("history"),
        "tokens": ask("token", "list"),
        "audit": ask("audit"),
        "certificate": fingerprint(machine),
        "owners": machine.sh("ls -ln /var/lib/tula | wc -l; stat -c %U:%G:%a /var/lib/tula"),
    }


def test_a_balancer_is_restored_from_its_backup(
    serving: Site, image: list[Path], tmp_path: Path
) -> None:
    """By docs/operations.md, on a machine that was installed anew, with the same address."""
    site = serving
    token = token_of(site, tmp_path, "read")
    site.configure(WITH_API.replace("500ms", "600ms"))
    site.lb.run("tula", "apply", "-f", FILE)
    site.wait_until_up()
    site.lb.run("tula", "drain", "web/cache-2")
    before = kept(site.lb, site)
    assert before["states"] == {"cache-1": "up", "cache-2": "draining"}
    site.lb.sh("tar --create --gzip --file /root/tula.tgz --directory / etc/tula var/lib/tula")
    backup = site.lb.path("root/tula.tgz").read_bytes()
    site.lb.cut()
    site.lan.unplug("lb1.eth0")

    site.lb = Machine(site.lab, "lb1-new", site.lan, site.lb.addresses, image)
    site.lb.start()
    site.lab.ready()
    site.lb.path("root/tula.tgz").write_bytes(backup)
    site.lb.sh("tar --extract --gzip --file /root/tula.tgz --directory /")
    site.lb.sh("systemctl enable --now tula")
    wait_until(lambda: site.states("web") == before["states"], 60, "the first checks")
    assert kept(site.lb, site) == before
    assert set(site.answers()) == {"cache-1"}
    wait_until(lambda: afar(site, token, "status").returncode == 0, 60, "the pinned certificate")
