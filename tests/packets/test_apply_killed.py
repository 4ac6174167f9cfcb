"""apply is killed at any moment, or two run at once: whole steps only, and traffic is answered.

It is killed eight times; with TULA_SOAK=1 a hundred (``make soak``).

::

    client-1               lb  VIP 10.9.0.100, fd09::100        backend-1, -2
        │                   │                                    │   (VIPs on lo)
    ════╧═══════════════════╧════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import fcntl
import os
import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from support.asking import Asking
from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.locks import lock_of, waiting_for
from support.snapshots import observe, pieces, snapshot
from support.wrapped_nft import tula_with, wrapped_environment
from tula.lab import Lab, Network, flat, serve_tcp, wait_until

pytestmark = pytest.mark.kernel

KILLS = 100 if os.environ.get("TULA_SOAK") else 6


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    for backend in made.backends:
        serve_tcp(backend, [80])
    return made


@pytest.fixture
def few(network: Network, tmp_path: Path) -> Path:
    """web alone."""
    return write_config(tmp_path / "few.yaml", {"web": service_of(network)})


@pytest.fixture
def many(network: Network, tmp_path: Path) -> Path:
    """web, and six services on VIPs of their own."""
    vips = {f"api-{n}": [f"10.9.0.{100 + n}", f"fd09::{100 + n}"] for n in range(1, 7)}
    services = {name: service_of(network, vip=vip) for name, vip in vips.items()}
    return write_config(tmp_path / "many.yaml", {"web": service_of(network), **services})


@pytest.mark.timeout(900)
def test_killed_at_random_moments(network: Network, few: Path, many: Path) -> None:
    lb, tula, moment = network.lb, InProcess(network.lb), random.Random(7)
    tula.apply(few)
    before, table = snapshot(lb)["addresses"], observe(lb)
    start = time.monotonic()
    lb.tula("plan", "-f", many)
    usual = time.monotonic() - start
    begun = killed = unchanged = 0
    with Asking(network.client, network.vips, 80) as asking:
        while begun < KILLS or killed <= KILLS // 4 or not unchanged:
            begun += 1
            start = time.monotonic()
            process = lb.start_tula("apply", "-f", many, stdout=subprocess.DEVNULL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=usual * moment.uniform(0.5, 1.3))
                usual = time.monotonic() - start  # the machine is less busy than it was
            process.kill()
            killed += process.wait() == -9
            if observe(lb) == table:
                unchanged += 1
            else:
                assert not tula.plan(many).path, "the whole of it, or nothing"
            asking.wait(2)
            tula.apply(few)
            assert observe(lb) == table
        assert snapshot(lb)["addresses"] == before
        lb.tula("apply", "-f", many)
        assert not tula.plan(many)
        asking.wait()
    assert asking.failures == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_around_the_change(
    network: Network, few: Path, many: Path, tmp_path: Path, moment: str
) -> None:
    lb, tula = network.lb, InProcess(network.lb)
    tula.apply(few)
    before = pieces(lb)
    script = {"before": "kill -9 $PPID", "after": '"$NFT" "$@"; kill -9 $PPID'}[moment]
    environment = wrapped_environment(lb, tmp_path / "bin", script)
    with Asking(network.client, network.vips, 80) as asking:
        assert tula_with(lb, environment, "apply", "-f", many).returncode == -9
        assert (pieces(lb) == before) is (moment == "before")
        asking.wait()
        again = lb.tula("apply", "-f", many)
        # After it, only the record of it is left to write.
        assert again.stdout.endswith("nothing changed in the kernel\n") is (moment == "after")
        assert not tula.plan(many)
        assert lb.tula("apply").stdout == "nothing changed\n", "the configuration is accepted"
        asking.wait()
    assert asking.failures == []


def test_half_of_a_change_is_none(network: Network, tmp_path: Path) -> None:
    """Tula dies while nft still reads: nft must not take what it has for all there is."""
    lb, one = network.lb, backends_of(network.backends[0])
    services = {
        f"{'long-' * 11}{port}": service_of(network, vip=network.vip4, ports=[port], backends=one)
        for port in range(1, 801)  # the first 64 kB of the text are "add chain" lines alone
    }
    configuration = write_config(tmp_path / "tula.yaml", services)
    script = 'kill -9 $PPID; "$NFT" "$@"; echo $? > "$DIR/done"'
    environment = wrapped_environment(lb, tmp_path / "bin", script)
    assert tula_with(lb, environment, "apply", "-f", configuration).returncode == -9
    done = tmp_path / "bin" / "done"
    wait_until(lambda: done.exists() and done.read_text() == "0\n", timeout=60)
    table = observe(lb)
    assert table is not None
    chains = [chain for name, chain in table.chains.items() if name.startswith("service4.")]
    assert len(chains) == 800
    assert {len(chain.rules) for chain in chains} == {len(chains[0].rules)} != {0}
    # The VIP comes after the rules where there were none: the next apply takes it.
    assert not InProcess(lb).plan(configuration).path
    assert InProcess(lb).apply(configuration).change.vips
    assert not InProcess(lb).plan(configuration)


# ── Two at once ──────────────────────────────────────────────────────────────────────────────


def test_two_at_once_come_one_after_the_other(network: Network, few: Path, many: Path) -> None:
    lb = network.lb
    lb.tula("apply", "-f", few)
    held = snapshot(lb)
    with lock_of(lb).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        both = [lb.start_tula("apply", "-f", d, stdout=subprocess.DEVNULL) for d in (many, few)]
        wait_until(lambda: waiting_for(lock_of(lb)) == 2, timeout=60, what="two that wait")
        assert snapshot(lb) == held
        assert lb.tula("plan", "-f", many).returncode == 0, "who only reads need not wait"
    assert [process.wait(60) for process in both] == [0, 0]
    assert lb.tula("plan", "--exit-code").stdout == "nothing to change\n"


def test_a_change_under_way_is_waited_for(
    network: Network, few: Path, many: Path, tmp_path: Path
) -> None:
    """Tula is gone, its nft is not: the next apply must not compare before that is through."""
    lb = network.lb
    lb.tula("apply", "-f", few)
    script = 'kill -9 $PPID; until [ -e "$DIR/go" ]; do sleep 0.01; done; exec "$NFT" "$@"'
    environment = wrapped_environment(lb, tmp_path / "bin", script)
    assert tula_with(lb, environment, "apply", "-f", many).returncode == -9
    later = lb.start_tula("apply", "-f", many, stdout=subprocess.PIPE)
    wait_until(lambda: waiting_for(lock_of(lb)) == 1 or later.poll() is not None, timeout=60)
    (tmp_path / "bin" / "go").touch()
    assert later.communicate(timeout=60)[0].endswith("nothing changed in the kernel\n")
