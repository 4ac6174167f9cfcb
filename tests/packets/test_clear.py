"""clear leaves the machine as it was before the first apply, and what others made untouched.

::

    client-1               lb  VIP 10.9.0.100, fd09::100       backend-1, -2
        │                   │  + tables, tunnels, addresses     │   (VIPs on lo)
        │                   │    and routes of others           │
    ════╧═══════════════════╧═══════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.machines import differences, machine
from support.running import Running
from support.snapshots import observe, snapshot, sysctls
from tula.lab import Lab, Network, flat, serve_tcp, tcp_ask

pytestmark = pytest.mark.kernel

# Others' tables, two of them with Tula's name in another family, and chains at its own hook.
FOREIGN_TABLES = """
table inet firewall {
  set blocked { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.7 } }
  map ports { type inet_service : verdict; elements = { 9 : drop } }
  chain input { type filter hook input priority filter; policy accept;
    ip saddr @blocked counter drop comment "not ours"
    tcp dport vmap @ports
  }
}
table ip tula {
  chain in.eth0 {
    counter accept
  }
}
table inet tula {
  chain in.eth0 { type filter hook prerouting priority -500; policy accept; }
}
table netdev sniffer {
  counter seen { packets 7 bytes 700 }
  chain early { type filter hook ingress device "eth0" priority -600; policy accept;
    udp dport 9 drop
  }
  chain same { type filter hook ingress device "eth0" priority -500; policy accept; }
  chain late { type filter hook ingress device "eth0" priority 10; policy accept; }
}
"""
FOREIGN_NETWORK = """
link add vx0 type vxlan id 42 dstport 4789 local 10.9.0.2 dev eth0
link set vx0 up
tuntap add dev tun0 mode tun
address add 192.0.2.1/32 dev tun0
address add 10.9.0.50/24 dev eth0
address add fd09::50/64 dev eth0 nodad
address add 203.0.113.1/32 dev lo
address add 10.9.0.101/32 dev eth0 scope host
address add fd09::101/128 dev eth0 nodad preferred_lft 0 noprefixroute
link set tun0 up
route add 198.51.100.0/24 via 10.9.0.201 dev eth0
route add table 100 default via 10.9.0.201 dev eth0
route add 2001:db8:1::/48 via fd09::201 dev eth0
rule add from 203.0.113.1 lookup 100
neighbour add 10.9.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
neighbour add fd09::77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent
"""
SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv4/conf/eth0/rp_filter": 1,
    "net/ipv4/conf/eth0/arp_announce": 1,
    "net/ipv6/conf/eth0/dad_transmits": 2,
}


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    for backend in made.backends:
        serve_tcp(backend, [80])
    return made


@pytest.fixture
def configuration(network: Network, tmp_path: Path) -> Path:
    return write_config(tmp_path / "tula.yaml", {"web": service_of(network)})


def answered(network: Network) -> bool:
    """Whether both VIPs are served, through the balancer."""
    return all(tcp_ask(network.client, vip, 80).startswith("backend") for vip in network.vips)


def test_the_machine_is_as_before_the_first_apply(
    network: Network, configuration: Path, tmp_path: Path
) -> None:
    lb = network.lb
    lb.run(["nft", "-f", "-"], input=FOREIGN_TABLES)
    lb.run(["ip", "-batch", "-"], input=FOREIGN_NETWORK)
    for name, value in SYSCTLS.items():
        lb.write_sysctl(name, value)
    before, set_before = snapshot(lb), sysctls(lb)
    assert all(before.values()), "there is something of every kind"
    assert len(set_before) > 500

    call_tula(lb, "apply", "-f", configuration)
    assert answered(network)
    during = snapshot(lb)
    for name, text in before.items():
        assert set(text.splitlines()) <= set(during[name].splitlines()), "untouched beside ours"
    assert sysctls(lb) == set_before
    other = service_of(network, vip=["10.9.0.100", "10.9.0.102"], ports="any")
    call_tula(lb, "apply", "-f", write_config(tmp_path / "other.yaml", {"other": other}))

    done = call_tula(lb, "clear")
    assert done.stdout.splitlines() == [
        "- table netdev tula",
        "- address 10.9.0.100  (on eth0)",
        "- address 10.9.0.102  (on eth0)",
    ]
    assert snapshot(lb) == before
    assert sysctls(lb) == set_before


def test_its_commands_do_it_without_tula(network: Network, tmp_path: Path) -> None:
    """What the package leaves on a machine from which it is removed."""
    lb = network.lb
    before = machine(lb)
    nothing = call_tula(lb, "clear", "--dry-run")
    assert nothing.stdout == "# Nothing to remove.\n"
    web = service_of(network, health={"type": "tcp", "interval": "200ms", "rise": 1})
    far = {**web, "ports": [81], "forwarding": "l3", "tunnel": "vxlan"}
    path = write_config(tmp_path / "tula.yaml", {"web": web, "far": far})
    with Running(lb, path) as daemon:
        daemon.wait_until_at_rest()
        # A daemon that runs is no hindrance: this only prints.
        assert call_tula(lb, "clear", "--dry-run").stdout
    during = machine(lb)
    commands = call_tula(lb, "clear", "--dry-run").stdout.splitlines()
    words = ("nft delete table", "ip link del", "ip address del", "rule flush", "sysctl")
    assert all(any(word in line for line in commands) for word in words)
    assert not differences(during, machine(lb)), "it only printed"
    for line in commands:
        lb.run(["sh", "-c", line])
    assert not differences(before, machine(lb))
    assert call_tula(lb, "clear", "--dry-run").stdout == nothing.stdout


def test_a_vip_that_was_there_is_used_and_stays(network: Network, configuration: Path) -> None:
    lb = network.lb
    lb.add_address("eth0", "10.9.0.100/24", "fd09::100/64")
    before = snapshot(lb)
    done = call_tula(lb, "apply", "-f", configuration)
    assert "address" not in done.stdout
    assert snapshot(lb)["addresses"] == before["addresses"]
    assert answered(network)
    assert "address" not in call_tula(lb, "clear").stdout
    assert snapshot(lb) == before


def test_clear_again_and_clear_of_nothing(network: Network, configuration: Path) -> None:
    lb = network.lb
    before = snapshot(lb)
    assert call_tula(lb, "clear").stdout == "nothing to remove\n"
    assert snapshot(lb) == before
    InProcess(lb).apply(configuration)
    as_json = json.loads(call_tula(lb, "clear", "--json").stdout)
    assert as_json["changed"] is True
    assert {(step["verb"], step["what"]) for step in as_json["steps"]} == {
        ("remove", "table"),
        ("remove", "address"),
    }
    assert call_tula(lb, "clear").stdout == "nothing to remove\n"
    assert snapshot(lb) == before


def test_the_document_is_put_aside_and_named(network: Network, configuration: Path) -> None:
    lb = network.lb
    InProcess(lb).apply(configuration)
    call_tula(lb, "clear")
    aside = Path(lb.environment()["TULA_STATE_DIR"]) / "cleared.yaml"
    assert aside.read_bytes() == configuration.read_bytes()
    refused = call_tula(lb, "apply", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"tula: no configuration has been applied here; it was cleared, and is kept in {aside}; "
        "name one with -f tula.yaml\n"
    )
    assert observe(lb) is None
    call_tula(lb, "apply", "-f", aside)
    assert answered(network)


@pytest.mark.parametrize("gone", ["state", "table", "addresses", "interface"])
def test_clear_needs_none_of_the_parts(network: Network, configuration: Path, gone: str) -> None:
    lb = network.lb
    before = snapshot(lb)
    InProcess(lb).apply(configuration)
    if gone == "state":
        shutil.rmtree(lb.environment()["TULA_STATE_DIR"])
    elif gone == "table":
        lb.run(["nft", "flush", "ruleset"])
    elif gone == "addresses":
        lb.run(["ip", "address", "flush", "dev", "eth0", "scope", "host"])
        lb.remove_address("eth0", "fd09::100/128")
    else:
        lb.remove_interface("eth0")
    call_tula(lb, "clear")
    assert observe(lb) is None
    if gone != "interface":
        assert snapshot(lb) == before
    assert call_tula(lb, "clear").stdout == "nothing to remove\n"
