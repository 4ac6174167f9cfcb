"""Two balancers that know each other: what differs is seen on both, and told once.

::

    client-1 ── router ══ lan ══ lb1, lb2, backend-1, backend-2
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import Cluster, Lab, pair, serve_tcp, wait_until
from tula.lab.process import Completed

pytestmark = pytest.mark.kernel

WITHIN = 60.0
"""Seconds for what takes a few on a machine that has nothing else to do."""


@dataclass(frozen=True)
class Pair:
    """Both, with their daemons, and a folder for files."""

    network: Cluster
    daemons: tuple[Running, Running]
    folder: Path

    def tula(
        self, number: int, *words: object, path: str = "", pasted: str = "", check: bool = True
    ) -> Completed:
        """A command on lb1 or lb2; ``path`` is where programs are found before others."""
        host = self.network.lbs[number - 1]
        env = host.environment()
        env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
        command = [sys.executable, "-m", "tula", *map(str, words)]
        return host.run(command, check=check, env=env, input=pasted)

    def peer_of(self, number: int) -> dict[str, Any]:
        """What lb1 or lb2 knows of the other one."""
        (found,) = self.daemons[number - 1].status()["peers"]
        return dict(found)

    def wait_for(self, **wanted: object) -> None:
        """Until both know this of each other."""

        def reached() -> bool:
            found = [self.peer_of(1), self.peer_of(2)]
            return all(peer[key] == value for peer in found for key, value in wanted.items())

        wait_until(reached, WITHIN, f"{wanted}")

    def told(self, number: int, *kinds: str) -> list[str]:
        """The events of lb1 or lb2 that begin so, by default those about differences. Who is
        heard may depend on how busy this machine is."""
        events = self.daemons[number - 1].events()
        wanted = kinds or ("configurations-", "overrides-")
        return [e["kind"] for e in events if e["kind"].startswith(wanted)]

    def file(self, name: str, **keys: Any) -> Path:
        """A configuration of both."""
        web = service_of(self.network, announce=False, **keys)
        return write_config(
            self.folder / name,
            {"web": web},
            load_balancers=self.network.balancers,
            api={"listen": "0.0.0.0:8420"},
        )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("peers")
    with Lab() as lab:
        network = pair(lab)
        for backend in network.backends:
            serve_tcp(backend, [80])
        (folder / "lb1").mkdir()
        (folder / "lb2").mkdir()
        made = Pair(network, (None, None), folder)  # type: ignore[arg-type]
        files = [made.file(f"{lb.name}/tula.yaml") for lb in network.lbs]
        with Running(network.lbs[0], files[0]) as one, Running(network.lbs[1], files[1]) as other:
            made = Pair(network, (one, other), folder)
            for daemon in made.daemons:
                wait_until(
                    lambda daemon=daemon: daemon.status()["daemon"]["network"]["fingerprint"],
                    WITHIN,
                    "the gateway",
                )
            yield made


def fake_ssh(two: Pair, folder: Path) -> str:
    """A folder with an ssh that leads to lb2, whatever it is given."""
    other, environment = two.daemons[1], two.network.lbs[1].environment()
    words = " ".join(f"{name}={environment[name]}" for name in ("TULA_STATE_DIR", "TULA_RUN_DIR"))
    script = folder / "ssh"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\nshift 2\n'
        f'exec nsenter -t {other.pid} -n env {words} {sys.executable} -m "$@"\n'
    )
    script.chmod(0o755)
    return str(folder)


def test_peers_see_what_differs_and_who_is_gone(two: Pair, tmp_path: Path) -> None:
    assert [peer["added"] for peer in map(two.peer_of, (1, 2))] == [False, False]
    done = two.tula(1, "peer", "add", "lb2", "--ssh", path=fake_ssh(two, tmp_path))
    assert (tmp_path / "asked").read_text() == "10.9.0.3 -- tula peer accept\n"
    assert done.stdout.startswith("lb2 answers at https://10.9.0.3:8420, version ")
    assert "lb1 answers at https://10.9.0.2:8420" in done.stderr
    assert "tula_" not in done.stdout + done.stderr
    two.wait_for(alive=True, configuration_equal=True, overrides_equal=True, hears_us=True)
    assert abs(two.peer_of(1)["clock"]) < 2
    assert [two.told(1), two.told(2)] == [[], []], "nothing to tell"
    wait_until(lambda: two.tula(1, "status", "--check", check=False).returncode == 0, WITHIN)

    # Another configuration: not by a comment, nor by what belongs to one machine.
    own = two.file("own.yaml")
    metrics = "metrics: {listen: '127.0.0.1:9420'}\n"
    own.write_text("# mine\n" + own.read_text() + metrics)
    two.tula(1, "apply", "-f", own)
    two.tula(2, "drain", "web/backend-1")
    two.wait_for(configuration_equal=True, overrides_equal=False)
    assert two.peer_of(1)["digest"] != two.peer_of(2)["digest"]
    other = two.file("other.yaml", scheduler="rr")
    other.write_text(other.read_text() + metrics)
    two.tula(1, "apply", "-f", other)
    two.wait_for(configuration_equal=False, overrides_equal=False)
    differ = ["configurations-differ", "overrides-differ"]
    wait_until(lambda: [sorted(two.told(n)) for n in (1, 2)] == [differ, differ], WITHIN)
    for number in (1, 2):
        shown = two.tula(number, "status", "--check", check=False)
        assert shown.returncode == 1
        assert f"lb{3 - number} runs another configuration" in shown.stdout
        assert f"lb{3 - number} has other overrides" in shown.stdout
    asked = two.tula(1, "peer", "copy", "lb2", check=False)
    assert asked.returncode == 1, "nobody was asked"
    assert "-    scheduler: rr" in asked.stderr
    assert "tula: this balancer: drain web/backend-1" in asked.stderr
    two.tula(1, "peer", "copy", "lb2", "--yes")
    assert "127.0.0.1:9420" in two.tula(1, "configuration").stdout, "what is its own stays"
    equal = ["configurations-equal", "overrides-equal"]
    wait_until(
        lambda: [sorted(two.told(n)) for n in (1, 2)] == [sorted(differ + equal)] * 2, WITHIN
    )

    # A daemon that dies, and comes back.
    two.daemons[1].kill()
    wait_until(lambda: not two.peer_of(1)["alive"], WITHIN)
    assert two.told(1, "peer-")[-1] == "peer-lost"
    lost = two.peer_of(1)
    assert (lost["alive"], lost["version"] is not None) == (False, True)
    assert "nobody listens on https://10.9.0.3:8420" in lost["why"]
    shown = two.tula(1, "status", "--check", check=False)
    assert shown.returncode == 1
    assert "lb2 is not heard since" in shown.stdout
    two.daemons[1].start()
    wait_until(lambda: two.told(1, "peer-")[-1] == "peer-back", WITHIN)
    two.wait_for(alive=True, configuration_equal=True, overrides_equal=True, hears_us=True)

    two.tula(2, "peer", "remove", "lb1")
    wait_until(lambda: "does not know our token" in (two.peer_of(1)["why"] or ""), WITHIN)
    assert two.peer_of(2)["added"] is False

    # Again, by pasting: the tokens are new, and work at once.
    assert "sha256:" in two.tula(1, "peer", "list").stdout
    invited = two.tula(1, "peer", "add", "lb2")
    assert "On lb2, run: tula peer accept, and paste this line:" in invited.stderr
    answered = two.tula(2, "peer", "accept", pasted=invited.stdout)
    assert "lb1 answers at https://10.9.0.2:8420" in answered.stderr
    ended = two.tula(1, "peer", "accept", pasted=answered.stdout)
    assert (ended.stdout, "lb2 answers at" in ended.stderr) == ("", True)
    two.wait_for(alive=True, hears_us=True)
    for number, line, wrong in (
        (1, answered.stdout.replace(" lb2 ", " lb7 "), "no balancer 'lb7' in load_balancers"),
        (2, answered.stdout, "lb2 is this balancer"),
        (1, "tula-peer-answer lb1", "this is no line of tula peer"),
        (1, "", "nothing was pasted"),
    ):
        refused = two.tula(number, "peer", "accept", pasted=line, check=False)
        assert (refused.returncode, wrong in refused.stderr) == (2, True), refused
    text = two.tula(1, "configuration").stdout
    (two.folder / "silent.yaml").write_text(text.replace("0.0.0.0:8420", "127.0.0.1:8420"))
    two.tula(1, "apply", "-f", two.folder / "silent.yaml")
    refused = two.tula(1, "peer", "add", "lb2", check=False)
    assert refused.returncode == 2
    assert 'set api: {listen: "10.9.0.2:8420"}' in refused.stderr
    two.tula(1, "rollback")
    two.wait_for(alive=True, configuration_equal=True)

    # The other way, as another balancer: lb2's source is its file, which its own user sees to.
    two.tula(1, "apply", "-f", other)
    two.tula(1, "weight", "web/backend-2", "7")
    given = two.tula(1, "peer", "copy", "lb2", "--give", "--yes")
    assert given.stdout.splitlines() == [
        "lb2: has the configuration of this balancer",
        "lb2: weight web/backend-2 7",
    ]
    assert "lb2: " in given.stderr, "its file differs now"
    two.wait_for(configuration_equal=True, overrides_equal=True)
    nothing = two.tula(1, "peer", "copy", "lb2")
    assert nothing.stdout == "lb2 has the same configuration and the same overrides\n"
    assert "127.0.0.1:9420" not in two.tula(2, "configuration").stdout


def test_a_change_on_both(two: Pair, tmp_path: Path) -> None:
    if not two.peer_of(1)["added"]:
        two.tula(1, "peer", "add", "lb2", "--ssh", path=fake_ssh(two, tmp_path))
    two.wait_for(alive=True, hears_us=True)

    def tula(number: int, *words: str | Path, check: bool = True) -> Completed:
        return call_tula(two.network.lbs[number - 1], *words, check=check)

    file = two.file("everywhere.yaml", scheduler="source-hash")
    done = tula(1, "apply", "-f", file, "--everywhere")
    assert [line.partition(": ")[0] for line in done.stdout.splitlines()] == ["lb1", "lb2"]
    assert [tula(n, "configuration").stdout for n in (1, 2)] == [file.read_text()] * 2
    assert "apply everywhere by root@lb1" in tula(2, "history").stdout
    own = two.file("listens.yaml", scheduler="source-hash")
    own.write_text(own.read_text() + "metrics: {listen: '127.0.0.1:9421'}\n")
    refused = tula(1, "apply", "-f", own, "--everywhere", check=False)
    assert (refused.returncode, "lb2: what listens on" in refused.stderr) == (2, True), refused
    assert tula(1, "configuration").stdout == file.read_text(), "nothing has changed"
    tula(2, "drain", "web/backend-1", "--everywhere")
    assert {d.states()["web/backend-1"] for d in two.daemons} == {"draining"}
    tula(2, "undrain", "web/backend-1", "--everywhere")
    two.wait_for(configuration_equal=True, overrides_equal=True)
