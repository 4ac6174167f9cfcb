"""A day of an operator, under load: what each event costs the clients."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support import day_load
from support.boot import Boot
from support.day_costs import Cost, attribute
from support.debian import Debian
from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.own_mounts import after_mounts
from support.running import Running
from tula.kernel.probe_route import PREFERENCE, TABLE
from tula.lab import Host, LabError, Network, wait_until
from tula.lab.process import Completed, Process

PORT = 8000
CONNECTIONS, FLOWS = 20, 20
HEALTH = {"type": "tcp", "interval": "500ms", "timeout": "2s", "rise": 2, "fall": 3}
"""Patient enough for a busy machine."""
SMALL = 'mount -t tmpfs -o size=512k,mode=755 tmpfs "$TULA_STATE_DIR"'
_CLOCK = "TULA_TEST_CLOCK"
_OTHER = os.environ.get("TULA_DAY_SOURCE")
"""Another version's ``src``, to see what its day costs."""
OTHERS = 12
"""Services beside the one that is measured, before it in the file."""

FIREWALL = """
add table inet {name}
delete table inet {name}
table inet {name} {{
  chain input {{
    type filter hook input priority {priority}; policy {policy};
    ct state established,related accept
    iifname "lo" accept
    meta l4proto {{ icmp, icmpv6 }} accept
    {last}
  }}
  chain output {{
    type filter hook output priority {priority}; policy {policy};
    ct state established,related accept
    oifname "lo" accept
    meta l4proto {{ icmp, icmpv6 }} accept
  }}
}}
"""
"""As firewalld writes it: its own table anew, and meanwhile one that drops all new connections."""


def environment(directory: Path) -> dict[str, str]:
    """What the balancer's programs need: a clock to be set, and which version they are."""
    folders = [str(Path(day_load.__file__).parent / "set_clock"), _OTHER]
    folders.append(os.environ.get("PYTHONPATH"))
    return {
        "PYTHONPATH": os.pathsep.join(folder for folder in folders if folder),
        _CLOCK: str(directory / "clock"),
    }


class Day:
    """A network with a daemon and load on it; the events are its methods."""

    def __init__(self, network: Network, directory: Path, *, long: bool) -> None:
        """``long``: with a second after each event, and every backend's turn."""
        self.network, self.lb = network, network.lb
        self._long = long
        self.directory = directory
        self.costs: list[Cost] = []
        self._servers: dict[str, Process] = {}
        self.path = self.write()
        self._holder = self._own_state()
        self.daemon = Running(
            self.lb, self.path, before=("nsenter", "-m", "-r", "-w", "-t", str(self._holder.pid))
        )

    def _own_state(self) -> Process:
        """A small disk for the state, which outlives the daemon's process."""
        waiting = ["sh", "-c", "echo ready; exec sleep infinity"]
        holder = self.lb.popen(
            [*after_mounts(SMALL), *waiting], stdout=subprocess.PIPE, env=self.lb.environment()
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        return holder

    # What runs

    def services(self, backends: Sequence[Host]) -> dict[str, Any]:
        """The measured one is last."""
        first = self.network.backends[:2]
        others = {
            f"other-{n}": service_of(self.network, ports=[9000 + n], backends=backends_of(*first))
            for n in range(OTHERS)
        }
        web = service_of(
            self.network,
            protocol=["tcp", "udp"],
            ports=[PORT],
            health=HEALTH,
            backends=backends_of(*backends),
        )
        return {**others, "web": web}

    def write(self) -> Path:
        """The configuration as it should be."""
        return write_config(
            self.directory / "tula.yaml",
            self.services(self.network.backends),
            maglev={"slots": 2039},
        )

    def serve(self, backend: Host) -> None:
        """Starts its server."""
        program = [sys.executable, day_load.__file__, "serve", backend.name, str(PORT)]
        server = backend.popen([*program, *self.network.vips], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        self._servers[backend.name] = server

    def tula(self, *words: str | Path) -> Completed:
        """A command on the balancer; refusals are a part of the day."""
        if _OTHER:
            return self.lb.tula(*words, check=False)
        return call_tula(self.lb, *words, check=False)

    def all_up(self) -> None:
        """All backends serve, and the daemon has nothing more to do."""
        names = {backend.name.replace("-", "_"): "up" for backend in self.network.backends}
        with suppress(LabError):  # an older version may never get there: that is told by the costs
            self.daemon.wait_for(within=20.0, **names)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Servers, daemon and load; the costs are complete when the block is left."""
        for backend in self.network.backends:
            self.serve(backend)
        with self.daemon:
            self.all_up()
            command = [sys.executable, day_load.__file__, "load", str(CONNECTIONS), str(FLOWS)]
            load = self.network.client.popen(
                [*command, str(PORT), *self.network.vips], stdout=subprocess.PIPE
            )
            assert load.stdout is not None
            assert load.stdout.readline() == "ready\n"
            try:
                yield
            finally:
                load.send_signal(signal.SIGTERM)
                noted = load.communicate(timeout=120)[0]
            attribute(json.loads(noted), self.costs)

    def during(self, name: str, act: Callable[[], object], exempt: str = "") -> None:
        """One event, and a while in which its effects may show."""
        self.costs.append(Cost(name, time.monotonic(), exempt))
        act()
        self.all_up()
        self._pause(1.0)

    def _pause(self, seconds: float) -> None:
        """Requests that go on meanwhile are the measurement, not a condition for anything."""
        time.sleep(seconds if self._long else seconds / 4)

    # What happens

    def nothing(self) -> None:
        """The load alone."""

    def bad_edits(self) -> None:
        """Each is ordered too: refused."""
        whole = self.path.read_text()
        for text in (
            whole.replace("ports:", "port:", 1),
            whole.replace("10.9.0.100", "10.9.0.999", 1),
            whole.replace("  web:", "  other-1:", 1),
            "services: [\n",
            "",
        ):
            self.path.write_text(text)
            os.kill(self.daemon.pid, signal.SIGHUP)
            self.tula("apply", "-f", self.path)
        self.path.unlink()
        self.tula("reload")
        self._pause(2.5)  # a daemon that follows its file has seen it
        self.write()
        self.tula("apply")

    def half_a_file(self) -> None:
        """A copy that stops: all of it is valid, and the last services are missing."""
        whole = self.path.read_text()
        self.path.write_text(whole[: whole.index(f"  other-{OTHERS // 3}:")])
        self._pause(2.5)  # a daemon that follows its file has seen it
        self.path.write_text(whole)
        self._pause(2.5)  # a daemon that follows its file has seen it

    def half_a_file_is_reloaded(self) -> None:
        """As before, and somebody reloads meanwhile."""
        whole = self.path.read_text()
        self.path.write_text(whole[: whole.index(f"  other-{OTHERS // 3}:")])
        os.kill(self.daemon.pid, signal.SIGHUP)
        self.tula("reload")
        self._pause(2.5)  # a daemon that follows its file has seen it
        self.path.write_text(whole)
        self.tula("reload")

    def flush(self) -> None:
        """As a restart of nftables.service."""
        self.lb.run(["nft", "flush", "ruleset"])
        self.lb.run(["nft", "-f", "-"], input="table inet filter {\n chain input {\n }\n}\n")
        self._table_is_back()

    def delete_table(self) -> None:
        """By hand."""
        self.lb.run(["nft", "delete", "table", "netdev", "tula"])
        self._table_is_back()

    def _table_is_back(self) -> None:
        def there() -> bool:
            return "netdev tula" in self.lb.run(["nft", "list", "tables"]).stdout

        wait_until(there, 60, "the table")

    def link_down_and_up(self) -> None:
        """For a second; what manages the network puts the IPv6 address back."""
        self.lb.set_link("eth0", up=False)
        time.sleep(1.0)
        self.lb.set_link("eth0", up=True)
        self.lb.add_address("eth0", "fd09::2/64")
        self._vips_are_back()

    def delete_vips(self) -> None:
        """By hand."""
        self.lb.remove_address("eth0", *(f"{vip}/{_length(vip)}" for vip in self.network.vips))
        self._vips_are_back()

    def _vips_are_back(self) -> None:
        def there() -> bool:
            return set(self.network.vips) <= set(self.lb.addresses("eth0"))

        wait_until(there, 60, "the VIPs")

    def kill(self) -> None:
        """``kill -9``; the unit starts it again after two seconds."""
        self.daemon.kill()
        self._pause(2.0)
        self.daemon.start()

    def restart(self) -> None:
        """``systemctl restart``."""
        self.daemon.stop()
        self.daemon.start()

    def fill_disk(self) -> None:
        """Meanwhile somebody applies and drains, and the daemon is killed."""
        filling = self.daemon.state / "filling"
        with filling.open("wb", buffering=0) as handle, suppress(OSError):
            while handle.write(bytes(1024)):
                pass
        self.tula("drain", "web/backend-1")
        self.path.write_text(self.path.read_text().replace("interval: 500ms", "interval: 501ms"))
        self.tula("apply")
        self.kill()
        self.tula("undrain", "web/backend-1")
        (self.daemon.state / "filling").unlink()
        self.write()
        self.tula("apply")

    def set_clock(self) -> None:
        """An hour on, ten years back, and right again, while a drain waits for its deadline."""
        self.tula("drain", "web/backend-1", "--deadline", "1h")
        for seconds in (3700.0, -3.2e8, 0.0):
            self._set_clock(seconds)
            self._pause(1.0)
        self.tula("undrain", "web/backend-1")

    def _set_clock(self, seconds: float) -> None:
        if os.environ.get("TULA_VM"):  # nobody else's
            now = time.monotonic() + self._epoch
            time.clock_settime(time.CLOCK_REALTIME, now + seconds)
        else:
            Path(os.environ[_CLOCK]).write_text(str(seconds))

    _epoch = time.time() - time.monotonic()

    def roll_backends(self) -> None:
        """One after the other: drained, its server told to end, stopped and started; undrained."""
        for backend in self.network.backends if self._long else self.network.backends[:1]:
            name = f"web/{backend.name}"
            key = backend.name.replace("-", "_")
            self.tula("drain", name)
            server = self._servers[backend.name]
            server.send_signal(signal.SIGHUP)  # its connections end in good order
            wait_until(lambda b=backend: not _established(b), 60, "no connections")
            self.tula("drain", name, "--deadline", "100ms")  # UDP flows never end
            self.daemon.wait_for(**{key: "disabled"})
            server.kill()
            server.wait(60)
            self.serve(backend)
            self.tula("undrain", name)
            self.all_up()

    def disable(self) -> None:
        """Of backend-2, for a second."""
        self.tula("disable", "web/backend-2")
        self._pause(1.0)
        self.tula("enable", "web/backend-2")

    def reload_firewalld(self) -> None:
        """For half a second new connections of the machine itself are dropped."""
        names = {"name": "firewalld_policy_drop", "policy": "drop", "priority": 9, "last": ""}
        self.lb.run(["nft", "-f", "-"], input=FIREWALL.format(**names))
        time.sleep(0.5)
        again = {"name": "firewalld", "policy": "accept", "priority": 10}
        text = FIREWALL.format(**again, last="reject with icmpx admin-prohibited")
        self.lb.run(["nft", "-f", "-"], input=f"{text}\ndelete table inet firewalld_policy_drop")

    def start_networkd(self) -> None:
        """The real one. Of what it finds on its interface it takes nothing, at a start."""
        debian = Debian(self.lb, self.directory)
        folder = debian.tree / "etc/systemd/network"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "eth0.network").write_text(
            "[Match]\nName=eth0\n\n[Network]\nAddress=fd09::2/64\nIPv6AcceptRA=no\n\n"
            "[Address]\nAddress=10.9.0.2/24\nBroadcast=no\n"  # as the lab's, or it never ends
        )
        boot = Boot(debian, self.directory / "networkd.log")
        boot.start_networkd("eth0: State changed: configuring -> configured")

    def reload_networkd(self) -> None:
        """As ``networkctl reload``, which needs a message bus: addresses, policy rules and routes
        that are in no file of its own go."""
        self.lb.remove_address("eth0", *(f"{vip}/{_length(vip)}" for vip in self.network.vips))
        for family in ("-4", "-6"):
            self.lb.run(["ip", family, "rule", "del", "pref", str(PREFERENCE)])
            self.lb.run(["ip", family, "route", "flush", "table", str(TABLE)])
        self._vips_are_back()


def _established(backend: Host) -> str:
    listing = ["ss", "-Htn", "state", "established", f"sport = :{PORT}"]
    return backend.run(listing).stdout.strip()


def _length(address: str) -> int:
    return 128 if ":" in address else 32
