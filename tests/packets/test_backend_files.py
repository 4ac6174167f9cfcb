"""What ``tula backend instructions`` prints makes bare machines into backends, as it is printed.

::

    l2:      client-1      lb  VIP 10.9.0.100, fd09::100      backend-1, -2
                 │         │                                     │
             ════╧═════════╧═════════════════════════════════════╧════  lan

    vxlan:   client-1 ── wan ── router ── far ── backend-1, -2
                                  │
                             lan ═╧═ lb

systemd's and netplan's own programs, of Debian's packages, read the files; nothing else is done.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.boot import Boot
from support.debian import Debian
from support.in_process import call_tula
from support.joined import Joined
from support.packets import read_packets
from support.tunnelled import LINK_KINDS
from tula.lab import Capture, Host, Lab, flows, serve_tcp, serve_udp, wait_until

pytestmark = pytest.mark.kernel

HERE = [("l2", 4), ("vxlan", 4), ("vxlan", 6)]
IN_VM = [
    pytest.param("networkd", *kind, marks=pytest.mark.link_kinds(*LINK_KINDS[kind]))
    for kind in [("gue", 4), *([("gue", 6)] if os.environ.get("TULA_SOAK") else [])]
]
"""With ipip's devices, and the ports; programs start slowly there, so the other is for soak."""


def printed(joined: Joined, host: Host, form: str) -> str:
    """The instructions for this backend."""
    command = ["backend", "instructions", "-f", joined.path, host.name, "--format", form]
    done = call_tula(host, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_files(joined: Joined, host: Host, form: str, folder: Path) -> Boot:
    """Only writes what the script writes: its last part is for this kernel's kinds alone."""
    debian = Debian(host, folder)
    writing, having_read, _ = printed(joined, host, form).partition("\n# Load them now.")
    assert having_read
    debian.run("sh", input=writing)
    return Boot(debian, folder / f"{host.name}.log")


def follow(joined: Joined, host: Host, form: str, folder: Path) -> Boot:
    """Runs all of the script on the machine, and what it has systemd do."""
    debian = Debian(host, folder)
    boot = Boot(debian, folder / f"{host.name}.log")
    debian.run("sh", input=printed(joined, host, form))
    boot.start_units()
    if form != "ip":
        boot.start_networkd()
    return boot


def _wait_for_vips(joined: Joined, host: Host) -> None:
    """Until each is where it must be."""
    number = {("l2", 4): 0, ("gue", 4): 2}.get((joined.kind, joined.outer), 1)

    def there() -> bool:
        tunnels = [name for name in host.interfaces() if name.startswith("tula-")]
        on_lo = set(joined.network.vips) <= set(host.addresses("lo"))
        return (
            on_lo
            and len(tunnels) == number
            and all(
                joined.network.vip4 in host.addresses(name) for name in tunnels if "sit" not in name
            )
        )

    wait_until(there, 120, f"the VIPs at {host.name}")


@pytest.mark.parametrize(
    ("form", "kind", "outer"),
    [(form, *kind) for form in ("ip", "networkd", "netplan") for kind in HERE] + IN_VM,
)
def test_a_bare_machine_serves_by_what_is_printed(
    lab: Lab, tmp_path: Path, form: str, kind: str, outer: int
) -> None:
    joined = Joined(lab, tmp_path, kind, outer, backends=1 if "TULA_VM" in os.environ else 2)
    joined.configuration()
    for host in joined.backends:
        host.write_sysctl("net.ipv4.conf.default.rp_filter", 1)  # as many machines have it
        boot = follow(joined, host, form, tmp_path)
        if form != "ip":
            _wait_for_vips(joined, host)
            boot.add_devices()
            assert not boot.complaints
        serve_tcp(host, [80])
        serve_udp(host, [80])
    joined.balancer.apply(joined.path)
    with Capture(joined.lb) as at_lb:
        for vip in joined.network.vips:
            for protocol in ("tcp", "udp"):
                answered = flows(joined.client, vip, 80, range(20000, 20020), protocol)
                assert set(answered.values()) == {host.name for host in joined.backends}
        sources = {packet.source for packet in read_packets(at_lb.frames())}
    assert not sources & set(joined.network.vips), "answers go straight to the client"


@pytest.mark.parametrize("outer", [4, 6])
def test_networkd_understands_the_files_of_all_kinds(lab: Lab, tmp_path: Path, outer: int) -> None:
    joined = Joined(lab, tmp_path, "vxlan", outer, backends=1)
    (host,) = joined.backends
    joined.offer("ipip", "gre", "gue", "vxlan")
    joined.configuration()
    boot = write_files(joined, host, "networkd", tmp_path)
    boot.start_networkd()
    assert not boot.complaints


@pytest.mark.parametrize(
    ("outer", "kinds"), [(4, {"ipip": 2, "gre": 1, "vxlan": 1}), (6, {"gre": 1, "vxlan": 1})]
)
def test_netplan_understands_what_it_can(
    lab: Lab, tmp_path: Path, outer: int, kinds: dict[str, int]
) -> None:
    joined = Joined(lab, tmp_path, "vxlan", outer, backends=1)
    (host,) = joined.backends
    joined.offer(*kinds)
    joined.configuration()
    debian = write_files(joined, host, "netplan", tmp_path).debian
    debian.run("netplan", "generate")
    written = debian.tree / "run/systemd/network"
    assert len(list(written.glob("10-netplan-tula-*.netdev"))) == sum(kinds.values())
