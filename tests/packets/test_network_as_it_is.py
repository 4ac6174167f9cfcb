"""What a machine's network does to a right configuration is told, by its cause and with the fix.

::

    client-1 ══╤═════════════╤══════════════════╤══  lan
               lb        backend-1, -2       (eth1 of lb: dmz, where a test says so)
          VIP 10.9.0.100, fd09::100
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.arp_nd import announcements_of, settled
from support.doctor import PATIENCE
from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from tula.lab import (
    Capture,
    Host,
    Lab,
    LabError,
    Network,
    flat,
    flows,
    serve_tcp,
    serve_udp,
    tcp_ask,
    wait_until,
)
from tula.lab.topologies import prepare_backend

pytestmark = pytest.mark.kernel

VIRTUAL = "00:00:5e:00:01:33"
"""The MAC address of VRRP's router 51 (RFC 5798, section 7.3)."""


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    serve(made)
    return made


def serve(network: Network) -> None:
    for backend in network.backends:
        serve_tcp(backend, [80])
        serve_udp(backend, [80])


def configuration(
    network: Network, path: Path, interfaces: tuple[str, ...] = ("eth0",), **keys: Any
) -> Path:
    web = service_of(network, protocol=["tcp", "udp"], **keys)
    return write_config(path / "tula.yaml", {"web": web}, interfaces)


def told(host: Host, command: str, path: Path, *options: str) -> tuple[int, str]:
    """The exit status, and standard error."""
    result = call_tula(host, command, "-f", path, *options, check=False)
    return result.returncode, result.stderr


def findings(host: Host, path: Path) -> list[dict[str, Any]]:
    arguments = ("doctor", "-f", path, "--json", "--patience", PATIENCE)
    return list(json.loads(call_tula(host, *arguments, check=False).stdout)["findings"])


def first_finding(host: Host, path: Path) -> dict[str, Any]:
    return dict(findings(host, path)[0])


def refused(host: Host, path: Path, *words: str) -> None:
    """``check`` warns, and ``plan`` and ``apply`` refuse, with these words."""
    for command, expected in (("check", 0), ("plan", 2), ("apply", 2)):
        status, text = told(host, command, path)
        assert status == expected, text
        assert all(word in text for word in words), text
    assert "tula" not in host.run(["nft", "list", "tables"]).stdout


def warned(host: Host, path: Path, *words: str) -> None:
    """``check``, ``plan`` and ``apply`` warn, and apply."""
    for command in ("check", "plan", "apply"):
        status, text = told(host, command, path)
        assert status == 0, text
        assert all(word in text for word in ("warning: ", *words)), text


def asks(network: Network, vip: str) -> str:
    return tcp_ask(network.client, vip, 80, timeout=1).partition(" ")[0]


def test_a_vip_that_this_machine_sends_from(lab: Lab, tmp_path: Path) -> None:
    """Backends hold it too, and answer no ARP request that comes from it."""
    network = flat(lab, clients=1, backends=2)
    lb = network.lb
    for backend in network.backends:
        prepare_backend(backend, ["10.9.0.2"])
    serve(network)
    path = configuration(network, tmp_path, vip="10.9.0.2")
    refused(lb, path, "services.web.vip: 10.9.0.2 is the address from which this machine sends")
    status, text = told(lb, "apply", path, "--force")
    assert (status, "10.9.0.2 is the address" in text) == (0, True)
    with pytest.raises(LabError):
        asks(network, "10.9.0.2")
    finding = first_finding(lb, path)
    assert (finding["id"], finding["where"]) == ("vip-as-source", "eth0")
    lb.remove_address("eth0", "10.9.0.2/24")
    lb.add_address("eth0", "10.9.0.3/24", "10.9.0.2/24")
    assert told(lb, "apply", path) == (0, "")
    assert asks(network, "10.9.0.2").startswith("backend")


def test_ipv6_without_a_link_local_address(network: Network, tmp_path: Path) -> None:
    """The kernel does not ask for the neighbours of forwarded packets then."""
    lb, path = network.lb, configuration(network, tmp_path)
    link_local = json.loads(lb.run(["ip", "-6", "-j", "address", "show", "dev", "eth0"]).stdout)
    (mine,) = [a["local"] for a in link_local[0]["addr_info"] if a["scope"] == "link"]
    lb.remove_address("eth0", f"{mine}/64")
    lb.run(["ip", "-6", "neigh", "flush", "dev", "eth0"])
    refused(lb, path, "eth0 has no IPv6 link-local address", "fd09::")
    assert told(lb, "apply", path, "--force")[0] == 0
    with pytest.raises(LabError):
        asks(network, network.vip6)
    finding = first_finding(lb, path)
    assert (finding["id"], finding["where"]) == ("no-link-local", "eth0")
    for command in finding["commands"]:
        lb.run(["sh", "-c", command])
    assert mine in lb.run(["ip", "-6", "address"]).stdout, "as the kernel would have made it"
    assert told(lb, "apply", path) == (0, "")
    assert asks(network, network.vip6).startswith("backend")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vip_on_an_interface_that_is_not_listed(
    network: Network, tmp_path: Path, family: int
) -> None:
    """As with keepalived's use_vmac."""
    lb, vip = network.lb, vip_of(network, family)
    made = f"link add vrrp.51 link eth0 address {VIRTUAL} type macvlan\nlink set vrrp.51 up\n"
    lb.run(["ip", "-batch", "-"], input=made)
    path = configuration(network, tmp_path, announce=False)
    warned(lb, path, "vrrp.51 is not listed", "may come to the MAC address of vrrp.51")
    lb.add_address("vrrp.51", f"{vip}/{32 if family == 4 else 128}")
    warned(lb, path, f"vrrp.51 has the VIP {vip}")
    finding = first_finding(lb, path)
    assert (finding["id"], finding["where"]) == ("interface-not-listed", "vrrp.51")
    configuration(network, tmp_path, ("eth0", "vrrp.51"), announce=False)
    assert told(lb, "apply", path) == (0, "")
    assert [found for found in findings(lb, path) if found["severity"] != "note"] == []
    network.client.run(
        ["ip", "neigh", "replace", vip, "lladdr", VIRTUAL, "dev", "eth0", "nud", "permanent"]
    )
    assert asks(network, vip).startswith("backend")


def test_an_interface_that_is_down(network: Network, tmp_path: Path) -> None:
    """It is what is told, not the route that went with it."""
    lb, lab = network.lb, network.lab
    dmz = lab.switch("dmz")
    lab.connect(lb, dmz, "10.7.0.2/24", "fd07::2/64", ifname="eth1")
    far = lab.host("far", dmz, "10.7.0.9/24", "fd07::9/64")
    lab.ready()
    prepare_backend(far, network.vips)
    for address, expected in (
        ("10.7.0.9", "10.7.0.9 is on eth1, which is down; set it up: ip link set eth1 up"),
        ("fd07::9", "no route to fd07::9 (eth1 is down)"),
    ):
        lb.set_link("eth1", False)
        vip = network.vip4 if "." in address else network.vip6
        path = configuration(network, tmp_path, vip=vip, backends={"far": {"address": address}})
        refused(lb, path, expected)
        finding = first_finding(lb, path)
        if "." in address:
            assert (finding["id"], finding["where"]) == ("interface-down", "eth1")
            for command in finding["commands"]:
                lb.run(["sh", "-c", command])
            assert told(lb, "plan", path)[0] == 0


def test_no_carrier(network: Network, tmp_path: Path) -> None:
    """Nobody hears of the VIPs then: that is said, and the next apply tells of them."""
    lb, path = network.lb, configuration(network, tmp_path)
    lb.set_cable("eth0", False)
    warned(lb, path, "eth0 has no carrier")
    assert first_finding(lb, path)["id"] == "interface-down"
    lb.set_cable("eth0", True)
    with Capture(network.client) as capture:
        assert told(lb, "apply", path) == (0, "")
        announced = announcements_of(lb.mac(), settled(lb, capture))
    assert sorted(announced) == sorted([*network.vips] * 2)


def test_a_version_that_is_gone_takes_nothing_from_the_other(
    network: Network, tmp_path: Path
) -> None:
    """IPv6 addresses go with their link, and nobody may add them again: IPv4 goes on."""
    lb, path = network.lb, write_config(tmp_path / "tula.yaml", {"web": service_of(network)})
    with Running(lb, path) as daemon:
        assert flows(network.client, network.vip6, 80, 5)
        lb.run(["ip", "-6", "addr", "flush", "dev", "eth0", "scope", "global"])
        wait_until(lambda: daemon.problems, 60)
        daemon.wait_until_at_rest()
        assert len(flows(network.client, network.vip4, 80, 20)) == 20
        assert set(daemon.states().values()) == {"unknown"}

        # One backend without a way to it is out, and said to be.
        first = next(a for a in network.backends[0].addresses("eth0") if "." in a)
        lb.run(["ip", "route", "add", "unreachable", f"{first}/32"])
        wait_until(lambda: "down" in daemon.states().values(), 60)
        found = [b for b in daemon.backends().values() if b["state"] == "down"]
        assert [b["reason"] for b in found] == ["no route to it"]
        assert network.backends[0].name not in flows(network.client, network.vip4, 80, 20).values()
