"""What the shipped unit leaves to Tula is enough, and no more than it says.

::

    client-1        lb  (tula as the unit runs it)     backend-1
        │            │                                     │
    ════╧════════════╧═════════════════════════════════════╧════  lan
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.lab_configurations import service_of, write_config
from support.running import Running
from support.sandbox import Sandbox
from support.unit_file import SHIPPED, UnitFile
from tula.kernel.engines import BIRD, KEEPALIVED
from tula.lab import Lab, Network, flat, flows, serve_tcp, wait_until
from tula.lab.process import Process

pytestmark = pytest.mark.kernel

MADE = {
    *("AmbientCapabilities", "CapabilityBoundingSet", "NoNewPrivileges", "User", "Group", "UMask"),
    *("ProtectSystem", "ProtectHome", "PrivateTmp", "PrivateDevices", "MemoryDenyWriteExecute"),
    *("StateDirectory", "RuntimeDirectory", "RuntimeDirectoryPreserve"),
}
"""The settings that the sandbox of these tests has too."""
LEFT = {
    *("SystemCallFilter", "SystemCallArchitectures", "SystemCallErrorNumber"),
    *("RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
    *("LockPersonality", "ProtectClock", "ProtectHostname", "ProtectProc", "RemoveIPC"),
    *("ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups"),
    *("PrivateMounts", "PrivateIPC", "KeyringMode"),
}
"""By seccomp, or about what Tula has no use for."""
LIFE = {
    *("Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "KillMode"),
    *("TimeoutStartSec", "TimeoutStopSec", "WatchdogSec", "NotifyAccess", "OOMPolicy"),
}


@pytest.fixture
def unit() -> UnitFile:
    return UnitFile.parse(SHIPPED.read_text())


@pytest.fixture
def network(lab: Lab) -> Network:
    return flat(lab, clients=1, backends=1)


@pytest.fixture
def sandbox(network: Network, unit: UnitFile, tmp_path: Path) -> Sandbox:
    made = Sandbox(network.lb, unit, tmp_path)
    write_config(made.configuration, {"web": service_of(network)})
    return made


def test_the_sandbox_knows_every_setting_of_the_unit(unit: UnitFile) -> None:
    """A setting that is new must be added to the sandbox, or to what it leaves."""
    assert set(unit.sections["Service"]) == MADE | LEFT | LIFE
    assert unit.words("CapabilityBoundingSet") == unit.words("AmbientCapabilities")


ENGINES = {"tula-keepalived": KEEPALIVED, "tula-bird": BIRD}


@pytest.mark.parametrize("name", ENGINES)
def test_engines_get_no_more_than_the_daemon(unit: UnitFile, name: str) -> None:
    """And run as ``tula run`` would run them, which the next tests prove to be enough."""
    engine = UnitFile.parse(SHIPPED.with_name(f"{name}.service").read_text())
    kept = (MADE | LEFT) - {"StateDirectory", "RuntimeDirectory", "RemoveIPC", "ProtectProc"}
    assert {key: engine.words(key) for key in kept} == {key: unit.words(key) for key in kept}
    settings = {"ExecStart", "Restart", "RestartSec", "KillMode", "TimeoutStopSec", "Type"}
    more = {"ExecReload", "OOMScoreAdjust", "Nice", "RuntimeDirectory"}
    assert set(engine.sections["Service"]) == kept | settings | more
    program = ENGINES[name]
    place = f"/run/tula/{program.name}"
    paths = {"file": f"{place}/{program.file}", "pid": f"{place}/{program.pid_file}"}
    words = [word.format(**paths, directory=place) for word in program.run]
    assert engine.command == [f"/usr/sbin/{words[0]}", *words[1:]]
    assert engine.sections["Unit"]["ConditionPathExists"] == [paths["file"]]
    path = UnitFile.parse(SHIPPED.with_name(f"{name}.path").read_text())
    assert path.sections["Path"] == {"PathExists": [paths["file"]]}


def test_keepalived_runs(two: Network, unit: UnitFile, tmp_path: Path) -> None:
    """As the unit's user, by the files in its directory."""
    sandbox = Sandbox(two.lb, unit, tmp_path)
    write_config(
        sandbox.configuration,
        {"web": service_of(two)},
        load_balancers={"lb1": "10.9.0.2", "lb2": "10.9.0.3"},
        high_availability={"vrrp": {"id": 84}},
    )
    with Unit(two, sandbox) as daemon:
        wait_until(lambda: set(two.vips) <= set(two.lb.addresses()), 60)
        assert answering(two) == {"backend-1", "backend-2"}
        assert daemon.problems == ""
    (parent, child) = two.lb.processes("keepalived")
    assert_confined(parent)
    assert_confined(child)
    assert set(two.vips) <= set(two.lb.addresses()), "without the daemon"


def assert_confined(pid: int) -> None:
    """Not root, and no other capabilities than CAP_NET_ADMIN and CAP_NET_RAW."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    held = dict(line.split(":\t") for line in lines if ":\t" in line)
    assert held["Uid"].split()[0] != "0"
    assert int(held["CapPrm"], 16) & ~0x3000 == 0


def test_bird_runs(two: Network, unit: UnitFile, tmp_path: Path) -> None:
    """As the unit's user; it may listen, open BFD's sockets on an interface, and read the table."""
    sandbox = Sandbox(two.lb, unit, tmp_path)
    write_config(
        sandbox.configuration,
        {"web": service_of(two, vip=["10.77.0.100", "fd77::100"])},
        load_balancers={"lb1": "10.9.0.2", "lb2": "10.9.0.3"},
        high_availability={"bgp": {"as": 65001, "routers": {"10.9.0.201": 65000}}},
    )
    with Unit(two, sandbox) as daemon:

        def tries() -> bool:
            (session,) = daemon.status()["bgp"]
            return session["bfd"] == "Down" and "refused" in session["error"]

        wait_until(tries, 60, "a session to be tried")
        table = two.lb.run(["ip", "route", "show", "table", "84"]).stdout.split()
        assert table == ["blackhole", "10.77.0.100", "proto", "84", "metric", "100"]
    (pid,) = two.lb.processes("bird")
    assert_confined(pid)
    listening = two.lb.run(["ss", "-Hltn"]).stdout
    assert ":17984 " in listening


def test_a_document_is_applied(network: Network, sandbox: Sandbox) -> None:
    """And its packets go their way; with the unit's user, directories and capabilities alone."""
    (backend,) = network.backends
    serve_tcp(backend, [80])
    arguments = ("-f", sandbox.command[3])
    assert sandbox.command == ["tula", "run", *arguments]
    assert "valid; services: 1, backends: 1" in sandbox.run("tula", "check", *arguments).stdout
    assert "+ service" in sandbox.run("tula", "apply", *arguments).stdout
    for vip in (network.vip4, network.vip6):
        assert set(flows(network.client, vip, 80, 5, "tcp").values()) == {backend.name}
    assert sandbox.run("tula", "apply").stdout == "nothing changed\n"
    (service,) = json.loads(sandbox.run("tula", "status", "--json").stdout)["services"]
    assert service["packets"] > 0
    assert sandbox.run("tula", "clear").stdout.startswith("- ")


QUICK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}
SCRIPT = {
    **{"type": "script", "interval": "1s", "timeout": "900ms"},
    "command": ["/bin/sh", "-c", "grep CapEff /proc/self/status; exit 1"],
}


class Unit(Running):
    """The daemon as the unit runs it."""

    def __init__(self, network: Network, sandbox: Sandbox) -> None:
        super().__init__(network.lb, sandbox.configuration)
        self.sandbox = sandbox

    def launch(self, output: int) -> Process:
        return self.sandbox.popen(*self.sandbox.command, stdout=output, stderr=output)

    @property
    def run_dir(self) -> Path:
        return self.sandbox.run_dir


@pytest.fixture
def two(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    for backend in made.backends:
        serve_tcp(backend, [80])
    return made


def answering(network: Network) -> set[str]:
    found = (flows(network.client, vip, 80, 40, "tcp").values() for vip in network.vips)
    return set().union(*found)


def test_the_daemon_runs(two: Network, unit: UnitFile, tmp_path: Path) -> None:
    """Checks, sysctls, repairs and commands; with the unit's user, directories, capabilities."""
    network, lost = two, two.backends[1]
    sandbox = Sandbox(network.lb, unit, tmp_path)
    web = service_of(network, health=QUICK)
    job = service_of(network, vip="10.9.0.101", health=SCRIPT, announce=False)
    notify = [{"exec": SCRIPT["command"]}, {"webhook": "http://127.0.0.1:9/"}]
    write_config(sandbox.configuration, {"web": web, "job": job}, notify=notify)
    before = network.lb.read_sysctl("net.ipv4.conf.eth0.accept_local")
    with Unit(network, sandbox) as daemon:
        wait_until(lambda: daemon.states()["web/backend-1"] == "up", 60)
        wait_until(lambda: daemon.states()["web/backend-2"] == "up", 60)
        assert daemon.problems == ""
        assert network.lb.read_sysctl("net.ipv4.conf.eth0.accept_local") == "1" != before
        assert answering(network) == {"backend-1", "backend-2"}
        # The script runs as the same user, without a single capability.
        daemon.wait_for_reason("job/backend-1", r"exit status 1: CapEff:\t0000000000000000")

        # So does a program that is notified.
        told = sandbox.run("tula", "notify", "test", check=False).stdout.splitlines()
        assert told[0].endswith("exit status 1: CapEff:?0000000000000000"), told
        assert told[1].endswith(": nobody listens there"), told

        for vip in network.vips:
            lost.remove_address("lo", f"{vip}/{128 if ':' in vip else 32}")
        wait_until(lambda: daemon.states()["web/backend-2"] == "down", 60)
        assert answering(network) == {"backend-1"}
        for vip in network.vips:
            lost.add_address("lo", f"{vip}/{128 if ':' in vip else 32}")
        wait_until(lambda: daemon.states()["web/backend-2"] == "up", 60)
        assert answering(network) == {"backend-1", "backend-2"}

        said = sandbox.run_as_operator("tula", "drain", "web/backend-1", member=True)
        assert (said.returncode, said.stderr) == (0, "")
        assert daemon.states()["web/backend-1"] == "draining"
        assert answering(network) == {"backend-2"}
        done = sandbox.run_as_operator("tula", "apply", member=True)
        assert (done.stdout, done.stderr) == ("nothing changed\n", "")
        kept_out = sandbox.run_as_operator("tula", "undrain", "web/backend-1", member=False)
        assert kept_out.returncode == 1
        assert kept_out.stderr == (
            "tula: /run/tula/tula.sock: Permission denied; be root, or of the group that "
            "tula run --socket-group names\n"
        )

        assert daemon.stop() == 0
        assert answering(network) == {"backend-2"}
        daemon.start()
        assert daemon.states()["web/backend-1"] == "draining"
        wait_until(lambda: daemon.states()["web/backend-2"] == "up", 60)
        assert daemon.problems == ""

        # The file is root's, and somebody closes it to the daemon's user.
        sandbox.configuration.chmod(0o600)
        wait_until(lambda: daemon.figure("tula_configuration_refused"), 60)
        told = daemon.status()["daemon"]["configuration"]["refused"]["problems"][0]["message"]
        assert told.startswith("permission denied: user ")
        reloaded = sandbox.run("tula", "reload", check=False)
        assert (reloaded.returncode, reloaded.stdout) == (2, "")
        assert reloaded.stderr.endswith(f": {told}\n")
        assert told in sandbox.run("tula", "status").stderr
        assert any(told in event["message"] for event in daemon.events())
        sandbox.configuration.chmod(0o644)
        wait_until(lambda: not daemon.figure("tula_configuration_refused"), 60)
    assert sandbox.run("tula", "clear").stdout.startswith("- ")
    assert network.lb.read_sysctl("net.ipv4.conf.eth0.accept_local") == before


def test_where_sysctls_are_read_only(two: Network, unit: UnitFile, tmp_path: Path) -> None:
    """As in a container: it names what it lacks, and goes on with what works."""
    network, lost = two, two.backends[1]
    sandbox = Sandbox(network.lb, unit, tmp_path, sysctls=False)
    four = service_of(network, vip=network.vip4, health=QUICK)
    six = service_of(network, vip=network.vip6, health=QUICK)
    write_config(sandbox.configuration, {"four": four, "six": six})
    with Unit(network, sandbox) as daemon:
        wait_until(lambda: daemon.states()["six/backend-1"] == "up", 60)
        wait_until(lambda: daemon.states()["six/backend-2"] == "up", 60)
        daemon.wait_for_problem(
            "cannot set sysctl net/ipv4/conf/eth0/accept_local to 1: Read-only file system"
        )
        daemon.wait_for_problem("answers from IPv4 VIPs do not come in by eth0: ")
        assert daemon.states()["four/backend-1"] == "unknown", "nobody could tell"
        assert answering(network) == {"backend-1", "backend-2"}
        lost.remove_address("lo", f"{network.vip6}/128")
        wait_until(lambda: daemon.states()["six/backend-2"] == "down", 60)
        assert set(flows(network.client, network.vip6, 80, 40, "tcp").values()) == {"backend-1"}
        assert daemon.states()["four/backend-2"] == "unknown"
        # Somebody who may sets it: the next look finds that, and IPv4 is checked too.
        network.lb.write_sysctl("net.ipv4.conf.eth0.accept_local", 1)
        sandbox.run_as_operator("tula", "apply", member=True)
        wait_until(lambda: daemon.states()["four/backend-1"] == "up", 60)
        assert daemon.problems == ""


INSIDE = """
import json, os, socket
def can(what):
    try:
        what()
    except OSError as error:
        return error.strerror
    return True
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "uid": os.getuid(),
    "groups": os.getgroups(),
    "capabilities": [status["Cap" + name] for name in ("Eff", "Bnd", "Amb")],
    "no_new_privs": status["NoNewPrivs"].strip(),
    "write": {path: can(lambda: open(path + "/mark", "w")) for path in (
        "/etc", "/usr", "/var/lib", "/run", "/opt/src", "/var/lib/tula", "/run/tula", "/tmp")},
    "tmp": os.listdir("/tmp"),
    "home": [can(lambda: os.listdir(path)) for path in ("/root", "/home")],
    "disk": sorted(os.listdir("/dev")),
    "own_sysctl": can(lambda: open("/proc/sys/net/ipv4/conf/all/arp_notify", "w").write("1")),
    "kernel_sysctl": can(lambda: open("/proc/sys/kernel/printk_ratelimit", "r+")),
    "packet_socket": can(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
}))
"""


def test_no_more_than_the_unit_says(sandbox: Sandbox, network: Network, tmp_path: Path) -> None:
    """So that what passes in here would pass there too."""
    found = json.loads(sandbox.run("python", "-c", INSIDE).stdout)
    assert found["uid"] >= 61184
    assert found["groups"] == []
    wanted = f"{1 << 12 | 1 << 13:016x}"  # CAP_NET_ADMIN and CAP_NET_RAW, capability.h
    assert found["capabilities"] == [wanted] * 3
    assert found["no_new_privs"] == "1"
    writable = {path for path, could in found["write"].items() if could is True}
    assert writable == {"/var/lib/tula", "/run/tula", "/tmp"}
    assert found["tmp"] == ["mark"]
    assert True not in found["home"]
    assert found["disk"] == sorted(["null", "zero", "full", "random", "urandom", "tty"])
    assert found["own_sysctl"] is True
    assert network.lb.read_sysctl("net.ipv4.conf.all.arp_notify") == "1"
    assert found["kernel_sysctl"] == "Permission denied"
    assert found["packet_socket"] is True
    assert (tmp_path / "state" / "mark").stat().st_uid == found["uid"]
