"""What others take from a backend is put back while ``tula backend join --watch`` runs.

The networks are those of test_backend_join.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.boot import Boot
from support.debian import Debian
from support.in_process import call_tula
from support.joined import Joined, agent
from support.machines import differences, machine
from support.unit_file import UnitFile
from tula.agent.agent import Agent
from tula.agent.plan import role_by_name
from tula.agent.record import Record, RecordFile, Source
from tula.agent.unit import Unit
from tula.config.load import load_config
from tula.kernel.backend_host import KernelBackendHost
from tula.lab import Host, Lab, flows, serve_tcp, wait_until
from tula.lab.process import Process
from tula.model.backend_setup import UNMANAGED_FILE

pytestmark = pytest.mark.kernel

DEVICE = "tula-vxlan-rmlx"
TAKEN = [
    # As networkd takes what it did not make; as a person does; as a firewall's reload does.
    (f"ip address flush dev {DEVICE}", "ip address flush dev HOLDER to 10.9.0.100/32"),
    (f"ip link set {DEVICE} down",),
    ("ip address del fd09::100/128 dev HOLDER", f"ip link del {DEVICE}"),
    ("nft flush ruleset",),
    ("nft flush chain inet tula_backend answer",),
    ("sysctl -qw net.ipv4.conf.all.arp_ignore=0", f"sysctl -qw net.ipv4.conf.{DEVICE}.rp_filter=1"),
]


def start(host: Host, log: Path, *arguments: str | Path) -> Process:
    """The watch, as a program with the rights that its unit gives it."""
    unit = UnitFile.parse(Unit(Path("/var/lib/tula")).text())
    kept = [f"+{name.removeprefix('CAP_').lower()}" for name in unit.words("CapabilityBoundingSet")]
    rights = ["setpriv", f"--bounding-set=-all,{','.join(kept)}", "--no-new-privs"]
    program = [*rights, sys.executable, "-m", "tula", "backend", "join", "--watch", *arguments]
    with log.open("a") as output:
        file = output.fileno()
        return host.popen(program, stdout=file, stderr=file, env=host.environment())


def said(log: Path) -> str:
    return log.read_text()


def all_in_place(host: Host) -> bool:
    return all(part["ok"] for part in agent(host, "status")["parts"])


def test_what_others_take_is_put_back(lab: Lab, tmp_path: Path) -> None:
    joined = Joined(lab, tmp_path, "vxlan", 4, backends=1)
    host, path = joined.backends[0], joined.configuration()
    serve_tcp(host, [80], ["0.0.0.0", "::"])
    before = machine(host)
    joined.balancer.apply(path)
    log = tmp_path / "log"
    watch = start(host, log, "-f", path)
    wait_until(lambda: agent(host, "status")["watched"], what="the watch")
    assert all_in_place(host)
    assert agent(host, "status")["watched"]
    # Where the kernel has dummy devices it is one of them.
    holder = "tula-vips" if "tula-vips" in host.interfaces() else "lo"
    second = call_tula(host, "backend", "join", "--watch", check=False)
    assert second.returncode == 1
    assert f"watched already, by process {watch.pid}" in second.stderr
    for commands in TAKEN:
        for command in commands:
            host.run(command.replace("HOLDER", holder).split())
        wait_until(lambda: all_in_place(host), what=f"repair after {commands}")
        for vip in joined.network.vips:
            assert len(flows(joined.client, vip, 80, range(20000, 20005))) == 5, commands
    for name in (f"10.9.0.100 on {holder}", DEVICE, "tula_backend", "arp_ignore"):
        assert name in said(log)
    assert "not repaired" not in said(log)
    # Killed, it leaves all as it is, and somebody else joins and leaves.
    watch.kill()
    watch.wait()
    assert all_in_place(host)
    assert not agent(host, "status")["watched"]
    watch = start(host, log)
    wait_until(lambda: agent(host, "status")["watched"], what="the watch")
    agent(host, "leave")
    assert watch.wait(60) == 0
    assert "no longer a backend" in said(log)
    assert differences(before, machine(host)) == {}


def test_networkd_leaves_its_devices_alone(lab: Lab, tmp_path: Path) -> None:
    """The real one, with a file that matches all devices; it takes the other VXLAN device."""
    joined = Joined(lab, tmp_path, "vxlan", 4, backends=1)
    (host,) = joined.backends
    debian = Debian(host, tmp_path)
    folder = debian.tree / "etc/systemd/network"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "00-all.network").write_text("[Match]\nName=*\n\n[Network]\nDHCP=yes\n")
    host.run(["ip", "link", "add", "own", "type", "vxlan", "id", "7", "dstport", "4999"])
    file = Path(f"{debian.tree}{UNMANAGED_FILE}")
    loaded = load_config(joined.configuration())
    role = role_by_name(loaded.config, host.name)
    assert role is not None
    record = Record((Source(str(joined.path), loaded.source, host.name),))
    records = RecordFile(Path(host.environment()["TULA_STATE_DIR"]))
    with host.enter():
        Agent(KernelBackendHost(), records, unmanaged=str(file)).join([role], record)
    assert {"what": "file", "name": str(file), "state": "in place", "ok": True} in agent(
        host, "status"
    )["parts"]
    boot = Boot(debian, tmp_path / "networkd.log")
    boot.start_networkd("own: State changed: initialized -> configuring")
    wait_until(lambda: f"{DEVICE}: State changed: initialized -> unmanaged" in boot.said)
    # Without dummy devices VIPs are on lo, which networkd takes for its own since systemd 257.
    missing = [part["name"] for part in agent(host, "status")["parts"] if not part["ok"]]
    assert all(name.endswith(" on lo") for name in missing)
    with host.enter():
        Agent(KernelBackendHost(), records, unmanaged=str(file)).join([role], record)
    assert all_in_place(host)
    agent(host, "leave")
    assert not file.exists()
