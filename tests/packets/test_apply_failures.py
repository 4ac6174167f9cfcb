"""A failure leaves what was, and says what failed.

::

    client-1          lb  VIP 10.9.0.100, fd09::100          backend-1, -2
        │             │ eth0       │ eth1 (IPv6 off)         │   (VIPs on lo)
    ════╧═════════════╧════════════╪═════════════════════════╧═════  lan
                                 ══╧══════════════════════════════  dmz
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.in_process import InProcess
from support.lab_configurations import service_of, write_config
from support.own_mounts import after_mounts
from support.snapshots import files, snapshot
from support.wrapped_nft import tula_with, wrapped_environment
from tula.lab import Lab, Network, flat, serve_tcp, tcp_ask

pytestmark = pytest.mark.kernel

REMOUNTED = (
    'mount --bind "$TULA_STATE_DIR" "$TULA_STATE_DIR"; mount -o remount,ro,bind "$TULA_STATE_DIR"'
)
FULL = (
    'mount -t tmpfs -o size=40k tmpfs "$TULA_STATE_DIR"; cp -a "$SAVED"/. "$TULA_STATE_DIR"; '
    'dd if=/dev/zero of="$TULA_STATE_DIR"/fill bs=1k 2>/dev/null'
)
OK = 'exec "$NFT" "$@"'

# What goes wrong: nft's script, what happens to the state directory, and what must be told.
FAILURES = {
    "nft says why and fails": (
        'echo "nft: cannot open shared object" >&2; echo "more" >&2; exit 127',
        "",
        "nft refused the change: nft: cannot open shared object",
    ),
    "nft says nothing and fails": ("exit 1", "", "nft refused the change: no reason given"),
    "nft is killed": ("kill -9 $$", "", "nft was ended by signal 9"),
    "the kernel refuses": (
        '{ cat; echo "delete chain netdev tula nowhere"; } | "$NFT" -f -',
        "",
        "nft refused the change: .*No such file or directory",
    ),
    "the state directory is read-only": (
        OK,
        REMOUNTED,
        "{state}.*: Read-only file system",
    ),
    "the disk is full": (OK, FULL, "{state}/.*: No space left on device"),
}


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    lab.connect(made.lb, lab.switch("dmz"), "10.7.0.2/24", ifname="eth1")
    made.lb.write_sysctl("net/ipv6/conf/eth1/disable_ipv6", 1)
    lab.ready()
    return made


@pytest.fixture
def first(network: Network, tmp_path: Path) -> Path:
    """web on both VIPs."""
    return write_config(tmp_path / "first.yaml", {"web": service_of(network)})


@pytest.fixture
def second(network: Network, tmp_path: Path) -> Path:
    """web on its IPv4 VIP alone, and another service: addresses to add and to remove."""
    services = {
        "web": service_of(network, vip=network.vip4),
        "api": service_of(network, vip=["10.9.0.101", "fd09::101"]),
    }
    return write_config(tmp_path / "second.yaml", services)


CASES = [(failure, "a configuration") for failure in FAILURES]
CASES += [("the kernel refuses", "nothing"), ("the disk is full", "nothing")]


@pytest.mark.parametrize(("failure", "before"), CASES, ids=" after ".join)
def test_what_was_is_still_there(
    network: Network,
    first: Path,
    second: Path,
    tmp_path: Path,
    failure: str,
    before: str,
) -> None:
    lb, (script, mounts, words) = network.lb, FAILURES[failure]
    environment = wrapped_environment(lb, tmp_path / "bin", script)
    state, saved = Path(environment["TULA_STATE_DIR"]), tmp_path / "saved"
    if before == "a configuration":
        InProcess(lb).apply(first)
        serve_tcp(network.backends[0], [80])
        serve_tcp(network.backends[1], [80])
    saved.mkdir()
    for name, content in files(state).items():
        (saved / name).write_bytes(content)
    held, remembered = snapshot(lb), files(saved)

    wrapper = after_mounts(f"set +e; {mounts or ':'}")
    done = tula_with(lb, environment | {"SAVED": str(saved)}, "apply", "-f", second, before=wrapper)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert re.match(f"tula: {words.format(state=state)}", done.stderr)
    assert snapshot(lb) == held
    kept = {name: text for name, text in files(state).items() if not name.endswith(".new")}
    if before == "a configuration":
        assert kept == remembered
        assert {tcp_ask(network.client, vip, 80)[:7] for vip in network.vips} == {"backend"}
    assert InProcess(lb).apply(second), "what was in the way is gone"


def test_an_address_that_cannot_be_added(network: Network, first: Path, tmp_path: Path) -> None:
    lb = network.lb
    lb.tula("apply", "-f", first)
    held = snapshot(lb)
    vips = ["10.9.0.101", "10.9.0.102", "fd09::101"]
    api = service_of(network, vip=vips, announce="eth1")
    services = {"web": service_of(network), "api": api}
    configuration = write_config(tmp_path / "api.yaml", services, interfaces=("eth0", "eth1"))
    done = lb.tula("apply", "-f", configuration, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "tula: cannot add fd09::101 on eth1: IPv6 is off there "
        "(sysctl net.ipv6.conf.eth1.disable_ipv6)\n"
    )
    now = snapshot(lb)
    for name in ("ruleset", "addresses", "routes"):
        assert now[name] == held[name]
    assert lb.tula("apply").stdout == "nothing changed\n"


def test_a_state_directory_that_is_a_file(network: Network, first: Path) -> None:
    held = snapshot(network.lb)
    done = network.lb.tula("apply", "-f", first, "--state-dir", first, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"tula: {first}: Not a directory; choose another --state-dir\n"
    assert snapshot(network.lb) == held


def test_an_interface_that_is_down_gets_its_vip(network: Network, tmp_path: Path) -> None:
    """Nobody can be told on a link that is down; that is no failure."""
    lb = network.lb
    lb.set_link("eth1", False)
    api = service_of(network, vip="10.7.0.100", announce="eth1")
    configuration = write_config(tmp_path / "api.yaml", {"api": api}, interfaces=("eth0", "eth1"))
    assert "+ address 10.7.0.100  (on eth1)" in lb.tula("apply", "-f", configuration).stdout
