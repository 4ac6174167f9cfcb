"""The daemon is killed at any moment: what was accepted is there, and traffic goes on.

::

    client-1            lb  VIP 10.9.0.100, fd09::100        backend-1 … 3
        │                │                                     │   (VIPs on lo)
    ════╧════════════════╧═════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from support import accepting
from support.asking import Asking
from support.in_process import InProcess, call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.locks import lock_of, waiting_for
from support.running import Running
from support.snapshots import generation, marks, snapshot, without_guard
from support.wrapped_nft import wrapped_environment
from tula.cli.client import Client, DaemonError, NoDaemonError, backend_path
from tula.config.load import parse_config
from tula.engine.overrides import changed_overrides, override_change
from tula.engine.store import Store
from tula.lab import Host, Lab, Network, ask_all, flat, serve_tcp, tcp_flows, wait_until
from tula.model.health import BackendName, Override

pytestmark = pytest.mark.kernel

SOAK = bool(os.environ.get("TULA_SOAK"))
LIVES = 500 if SOAK else 16
KILLS = 200 if SOAK else 4
QUICK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 2}


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=3)
    for backend in made.backends:
        serve_tcp(backend, [80])
    return made


def store_of(host: Host) -> Store:
    return Store(Path(host.environment()["TULA_STATE_DIR"]))


# ── Around what accepts, without the API: many kills in little time ──────────────────────────


@pytest.mark.timeout(900)
def test_what_is_accepted_is_there_after_any_end(network: Network, tmp_path: Path) -> None:
    lb = network.lb
    vips = {f"api-{n}": [f"10.9.0.{100 + n}", f"fd09::{100 + n}"] for n in range(1, 4)}
    extra = {name: service_of(network, vip=vip) for name, vip in vips.items()}
    web = service_of(network)
    configurations = [
        write_config(tmp_path / "a.yaml", {"web": web}),
        write_config(tmp_path / "b.yaml", {"web": {**web, "scheduler": "wrr"}, **extra}),
        write_config(tmp_path / "c.yaml", {"web": {**web, "ports": [80, 81]}}),
    ]
    program = [sys.executable, str(accepting.__file__), str(store_of(lb).directory)]
    done = lb.run(
        [*program, str(LIVES), "11", *map(str, configurations)],
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    print(done.stdout)
    assert int(done.stdout.split()[2]) > LIVES // 10, "it is killed while it works"


# ── The daemon itself ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Said:
    """A configuration by the weight that it gives to backend-3, and the overrides."""

    weight: int
    overrides: dict[BackendName, Override]

    def __eq__(self, other: object) -> bool:
        """Times aside."""
        return isinstance(other, Said) and self._plain() == other._plain()

    def _plain(self) -> object:
        bare = {name: replace(o, since=0.0) for name, o in self.overrides.items()}
        return self.weight, bare


class Operator(threading.Thread):
    """Puts configurations in place and says things of backends, until nobody answers any more."""

    def __init__(
        self, client: Client, network: Network, configuration: Path, said: Said, seed: int
    ):
        super().__init__()
        self._client, self._network, self._configuration = client, network, configuration
        self._chance = random.Random(seed)
        self.accepted = said
        self.begun = said
        self.answers = 0

    def run(self) -> None:
        try:
            while True:
                self._speak()
                self.accepted = self.begun
                self.answers += 1
        except (DaemonError, NoDaemonError) as error:
            if isinstance(error, DaemonError) and error.status:
                raise

    def _speak(self) -> None:
        if self._chance.random() < 0.4:
            self.begun = replace(self.accepted, weight=self.accepted.weight + 1)
            put(self._configuration, self._network, self.begun.weight)
            self._client.apply(None, yes=True)
            while self._weight() != self.begun.weight:
                time.sleep(0.02)
            return
        name = ("web", self._chance.choice(["backend-1", "backend-2"]))
        verb = self._chance.choice(["drain", "undrain", "disable", "enable", "weight"])
        weight = self._chance.choice([None, 5]) if verb == "weight" else None
        now = changed_overrides(
            self.accepted.overrides, name, override_change(verb, 0, weight=weight)
        )
        self.begun = replace(self.accepted, overrides=now)
        body = {"weight": {"weight": weight}, "drain": {"deadline": None}}.get(verb)
        method = "PUT" if verb == "weight" else "POST"
        self._client.send(method, backend_path(*name, verb) + "?force=true", body)

    def _weight(self) -> int:
        backends = self._client.get("/status")["services"][0]["backends"]
        return next(int(b["weight"]) for b in backends if b["name"] == "backend-3")


def put(configuration: Path, network: Network, weight: int) -> None:
    """The file replaced as a whole, as configuration tools do."""
    first, second, third = network.backends
    backends = {**backends_of(first, second), **backends_of(third, weight=weight)}
    web = service_of(network, backends=backends)
    write_config(configuration.with_suffix(".new"), {"web": web}).replace(configuration)


def on_disk(host: Host) -> Said:
    store = store_of(host)
    source = store.configuration()
    assert source is not None
    (service,) = parse_config(source).config.services
    weight = next(b.weight for b in service.backends if b.name == "backend-3")
    return Said(weight, store.overrides())


@pytest.mark.timeout(1800)
def test_the_daemon_is_killed_while_it_is_told_things(network: Network, tmp_path: Path) -> None:
    lb, configuration, chance = network.lb, tmp_path / "tula.yaml", random.Random(5)
    put(configuration, network, 100)
    said, answers, busy = Said(100, {}), 0, 0
    daemon = Running(lb, configuration)
    daemon.start()
    with Asking(network.client, network.vips, 80) as asking:
        for number in range(KILLS):
            operator = Operator(daemon.client(), network, configuration, said, number)
            operator.start()
            time.sleep(chance.uniform(0, 0.6))  # any moment
            daemon.kill()
            operator.join(30)
            assert not operator.is_alive()
            answers += operator.answers
            with store_of(lb).locked():  # an nft that is under way comes to its end
                found = on_disk(lb)
            assert found in (operator.accepted, operator.begun), f"kill {number}"
            busy += operator.accepted != operator.begun
            asking.wait(2)
            daemon.start()
            # The file may hold what nobody has accepted.
            assert daemon.backends()["web/backend-3"]["weight"] == found.weight
            assert daemon.status()["configuration"]["file_differs"] == (
                found.weight != operator.begun.weight
            )
            assert daemon.problems == ""
            said = on_disk(lb)
            assert said == found
            put(configuration, network, said.weight)
            assert daemon.states() == {
                name: expected_state(said.overrides.get(("web", name.split("/")[1])))
                for name in daemon.backends()
            }
            assert not InProcess(lb).plan(configuration)
            asking.wait(2)
    assert asking.failures == []
    print(f"{KILLS} kills, {answers} things accepted before; {busy} in the middle of one")
    assert busy > KILLS // 4
    daemon.stop()


def expected_state(override: Override | None) -> str:
    if override is None:
        return "unknown"
    return "disabled" if override.disable else "draining" if override.drain else "unknown"


def test_a_change_under_way_is_waited_for(network: Network, tmp_path: Path) -> None:
    """The daemon is gone, its nft is not: the next daemon compares after that is through."""
    lb = network.lb
    backends = backends_of(network.backends[0])
    web = service_of(network, backends=backends)
    configuration = write_config(tmp_path / "tula.yaml", {"web": web})
    script = """
    [ -e "$DIR/armed" ] || exec "$NFT" "$@"
    rm "$DIR/armed"; kill -9 $PPID
    until [ -e "$DIR/go" ]; do sleep 0.01; done; exec "$NFT" "$@"
    """
    path = wrapped_environment(lb, tmp_path / "bin", script)["PATH"]
    daemon = Running(lb, configuration, before=("env", f"PATH={path}"))
    daemon.start()
    for verb in ("drain", "undrain"):  # the start is over: from now on nothing is read before
        daemon.client().send("POST", backend_path("web", "backend-1", verb) + "?force=true", {})
    (tmp_path / "bin" / "armed").touch()
    # The last backend goes, and with it chains and tables: a change for nft.
    with pytest.raises(DaemonError, match="ended before it answered"):
        daemon.client().send("POST", backend_path("web", "backend-1", "disable") + "?force=true")
    daemon.kill()
    assert not (tmp_path / "bin" / "armed").exists()
    daemon.spawn()
    wait_until(lambda: waiting_for(lock_of(lb)) or daemon.log.count("daemon-started") > 1, 60)
    assert waiting_for(lock_of(lb)) == 1
    (tmp_path / "bin" / "go").touch()
    daemon.wait_until_it_answers()
    assert daemon.states() == {"web/backend-1": "disabled"}
    assert not InProcess(lb).plan(configuration)
    daemon.stop()


def test_a_new_daemon_changes_nothing_that_is_right(network: Network, tmp_path: Path) -> None:
    """Flows, counts and ids stay, and who was down stays down without a moment in service."""
    lb, client = network.lb, network.client
    web = service_of(network, health=QUICK)
    api = service_of(network, vip=["10.9.0.101", "fd09::101"])
    configuration = write_config(tmp_path / "tula.yaml", {"web": web, "api": api})
    lost = network.backends[1]
    with Running(lb, configuration) as daemon:
        wait_until(lambda: list(daemon.states().values()).count("up") == 3, 60)
        for vip in network.vips:
            lost.remove_address("lo", f"{vip}/{128 if ':' in vip else 32}")
        wait_until(lambda: daemon.states()["web/backend-2"] == "down", 60)
        call_tula(lb, "weight", "web/backend-1", "60")
        call_tula(lb, "drain", "api/backend-3")
        open_flows = tcp_flows(client, network.vip4, 80, 40)
        before = {flow: answer.split()[0] for flow, answer in ask_all(open_flows).items()}
        wait_until(lambda: daemon.status()["daemon"]["last_cycle"]["outcome"], 60)
        packets = daemon.status()["services"][0]["packets"]
        kernel, ids, number = snapshot(lb), marks(lb), generation(lb)
        told = daemon.events()[-1]["number"]
        for starts, end in enumerate((daemon.kill, daemon.stop), 1):
            end()
            assert snapshot(lb) == without_guard(kernel), "the daemon's end changes nothing"
            ask_all(open_flows)
            daemon.start()
            states = daemon.states()
            assert states["web/backend-2"] == "down", "adopted"
            assert states["api/backend-3"] == "draining"
            assert daemon.backends()["web/backend-1"]["effective_weight"] == 60
            wait_until(lambda: daemon.states()["web/backend-1"] == "up", 60)
            assert not [
                event
                for event in daemon.events()
                # Why it is down may be told anew, and is.
                if event["number"] > told
                and "backend-2" in event["subject"]
                and event["kind"] != "backend-diagnosed"
            ]
            own = number + starts  # its own table, each time
            assert generation(lb) == own, "nothing else in nftables was even touched"
            assert without_guard(snapshot(lb)) == without_guard(kernel)
            assert marks(lb) == ids
            assert {f: a.split()[0] for f, a in ask_all(open_flows).items()} == before
            now = daemon.status()["services"][0]["packets"]
            assert now > packets
            packets = now
        for vip in network.vips:
            lost.add_address("lo", f"{vip}/{128 if ':' in vip else 32}")
        wait_until(lambda: daemon.states()["web/backend-2"] == "up", 60)
