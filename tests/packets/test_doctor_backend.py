"""The doctor on a backend: each fault is injected, found, fixed as printed, and gone.

The networks are those of test_backend_join.py; the backend has joined, and serves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.joined import Joined, agent, together
from support.packets import address_of
from tula.lab import Host, Lab, serve_tcp, serve_udp

pytestmark = pytest.mark.kernel

DEVICE = "tula-vxlan-rmlx"


@dataclass(frozen=True)
class Fault:
    """``make`` are commands on the backend; ``ids`` are those of the findings, no others."""

    make: tuple[str, ...]
    ids: frozenset[str]


def title(value: object) -> str:
    """A case's part of a test's name."""
    return value.make[0].replace(" ", "_") if isinstance(value, Fault) else str(value)


def fault(ids: str, *make: str) -> Fault:
    return Fault(make, frozenset(ids.split()))


L2 = [
    fault("vip-missing", "ip address del 10.9.0.100/32 dev lo"),
    fault("vip-missing", "ip address del fd09::100/128 dev lo"),
    fault("vip-announced", "ip address add 10.9.0.100/24 dev eth0"),
    fault("vip-announced", "ip address add fd09::100/64 dev eth0 nodad"),
    fault("arp-ignore", "sysctl -w net.ipv4.conf.all.arp_ignore=0"),
    fault("arp-announce", "sysctl -w net.ipv4.conf.all.arp_announce=1"),
    fault(
        "firewall",
        "nft add table inet wall",
        "nft add chain inet wall in { type filter hook input priority 0; policy drop; }",
        "nft add rule inet wall in ip saddr 10.9.0.2 accept",
    ),
    fault(
        "firewall",
        "nft add table ip6 wall",
        "nft add chain ip6 wall in { type filter hook prerouting priority 0; }",
        "nft add rule ip6 wall in ip6 daddr fd09::100 drop",
    ),
]
VXLAN = [
    fault("tunnel-missing", f"ip link del {DEVICE}"),
    fault("tunnel-missing", f"ip link set {DEVICE} down"),
    fault(
        "tunnel-missing",
        f"ip link del {DEVICE}",
        f"ip link add {DEVICE} address 02:54:0a:07:00:0b type vxlan id 99 dstport 4789 nolearning",
        f"ip link set {DEVICE} up",
    ),
    fault("tunnel-missing", f"ip link set {DEVICE} address 02:00:00:00:00:99"),
    fault("rp-filter", f"sysctl -w net.ipv4.conf.{DEVICE}.rp_filter=1"),
    fault("rp-filter", f"ip address del 10.9.0.100/32 dev {DEVICE}"),
    fault("mss-not-clamped", "nft delete table inet tula_backend"),
    fault("mss-not-clamped", "nft flush chain inet tula_backend answer"),
    fault(
        "mss-not-clamped",
        "nft delete chain inet tula_backend answer",
        "nft add chain inet tula_backend answer { type filter hook output priority -150; }",
        "nft add rule inet tula_backend answer ip saddr 10.9.0.100 tcp option maxseg size set 1410",
    ),
    fault(
        "balancer-not-admitted",
        "nft flush chain inet tula_backend arrive",
        "nft add rule inet tula_backend arrive udp dport 4789 ip saddr != 10.9.0.9 counter drop",
    ),
    fault(
        "vip-missing rp-filter",
        f"ip address del 10.9.0.100/32 dev {DEVICE}",
        "ip address del 10.9.0.100/32 dev lo",
    ),
]


def doctor(host: Host, path: Path | None = None) -> list[dict[str, Any]]:
    """What it finds, without notes; its exit status says whether there is any."""
    named = ("-f", path) if path is not None else ()
    done = call_tula(host, "doctor", *named, "--json", check=False)
    assert done.returncode in (0, 1), (done.stdout, done.stderr)
    findings = [f for f in json.loads(done.stdout)["findings"] if f["severity"] != "note"]
    assert bool(findings) == (done.returncode == 1)
    return findings


def fix(host: Host, findings: list[dict[str, Any]]) -> None:
    """Runs what was printed."""
    for finding in findings:
        assert finding["on"] == "here"
        assert finding["commands"], finding
        host.run(["sh", "-e", "-c", "\n".join(finding["commands"])])


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Joined]]:
    """One network for all faults of a kind."""
    made: dict[str, Joined] = {}
    with Lab() as flat_lab, Lab() as routed_lab:

        def place(kind: str) -> Joined:
            if kind not in made:
                lab = flat_lab if kind == "l2" else routed_lab
                joined = Joined(lab, tmp_path_factory.mktemp(kind), kind, 4, backends=1)
                host = joined.backends[0]
                agent(host, "join", "-f", joined.configuration())
                serve_tcp(host, [80], ["0.0.0.0", "::"])
                serve_udp(host, [80], ["0.0.0.0", "::"])
                made[kind] = joined
            return made[kind]

        yield place


CASES = [("l2", each) for each in L2] + [("vxlan", each) for each in VXLAN]


@pytest.mark.parametrize(("kind", "made"), CASES, ids=title)
def test_each_is_found_and_fixed(places: Callable[[str], Joined], kind: str, made: Fault) -> None:
    joined = places(kind)
    host = joined.backends[0]
    agent(host, "join")
    assert doctor(host, joined.path) == []
    for command in made.make:
        host.run(command.split())
    found = doctor(host, joined.path)
    assert {finding["id"] for finding in found} == made.ids
    fix(host, found)
    assert doctor(host, joined.path) == []
    for family in ("inet", "ip6"):
        host.run(["nft", "delete", "table", family, "wall"], check=False)


PAIRS = [
    ("l2", one, other)
    for one, other in combinations([L2[0], L2[2], L2[4], L2[5], L2[6]], 2)
    if (one, other) != (L2[0], L2[2])
] + [("vxlan", one, other) for one, other in combinations([VXLAN[1], VXLAN[4], VXLAN[6]], 2)]


@pytest.mark.parametrize(("kind", "one", "other"), PAIRS, ids=title)
def test_pairs_are_found_and_fixed(
    places: Callable[[str], Joined], kind: str, one: Fault, other: Fault
) -> None:
    joined = places(kind)
    host = joined.backends[0]
    agent(host, "join")
    for command in (*one.make, *other.make):
        host.run(command.split())
    found = doctor(host, joined.path)
    assert {finding["id"] for finding in found} == one.ids | other.ids
    fix(host, found)
    assert doctor(host, joined.path) == []
    host.run(["nft", "delete", "table", "inet", "wall"], check=False)


def test_who_listens_and_where_answers_go(lab: Lab, tmp_path: Path) -> None:
    joined = Joined(lab, tmp_path, "l2", 4, backends=1)
    joined.services["web"]["protocol"] = "tcp"
    host = joined.backends[0]
    agent(host, "join", "-f", joined.configuration())
    assert {f["id"] for f in doctor(host, joined.path)} == {"not-listening"}
    own = serve_tcp(host, [80], [address_of(host, 4), address_of(host, 6)])
    found = doctor(host, joined.path)
    assert {f["id"] for f in found} == {"listens-elsewhere"}
    assert address_of(host, 4) in found[0]["evidence"]
    own.close()
    serve_tcp(host, [80], joined.network.vips)
    assert doctor(host, joined.path) == []
    assert doctor(host) == [], "by the configuration that it has joined"
    host.add_route("default", address_of(joined.lb, 4))
    found = doctor(host, joined.path)
    assert {f["id"] for f in found} == {"answers-through-balancer"}


def replaced(host: Host, devices: dict[str, str], outer: int, balancer: Host) -> None:
    """Devices of these kinds in place of those of the same names."""
    local, remote = address_of(host, outer), address_of(balancer, outer)
    for name in devices:
        host.run(["ip", "link", "del", name])
    for name, kind in devices.items():
        host.run(f"ip link add {name} type {kind} local {local} remote {remote}".split())
        host.run(["ip", "link", "set", name, "up"])


@pytest.mark.parametrize(
    ("kinds", "outer"),
    [together(("gre", "gue"), 4), together(("gre", "ipip"), 6)],
)
def test_tunnels_of_other_kinds(
    lab: Lab, tmp_path: Path, kinds: tuple[str, str], outer: int
) -> None:
    """A backend of two kinds: all that one needs is spoilt together with all that the other does,
    for a doctor takes seconds in the emulated VM."""
    joined = Joined(lab, tmp_path, kinds[0], outer, backends=1)
    joined.offer(*kinds)
    host = joined.backends[0]
    agent(host, "join", "-f", joined.configuration())
    serve_tcp(host, [80, 81], ["0.0.0.0", "::"])
    serve_udp(host, [80, 81], ["0.0.0.0", "::"])
    assert doctor(host, joined.path) == []
    ends = {p["name"] for p in agent(host, "status")["parts"] if p["what"] == "device"}
    ends = {name for name in ends - {"tula-vips"} if "sit" not in name}
    others = {name: f"vxlan id {n} dstport 4999" for n, name in enumerate(sorted(ends), 1)}
    assert len(others) == 2
    keyed = {name: "gre key 7" for name in ends if "gre" in name}
    for devices in (others, *([keyed] if outer == 4 else [])):
        replaced(host, devices, outer, joined.lb)
        if devices is keyed:
            host.run(["ip", "fou", "del", "port", "5555", "gue"])
        found = doctor(host, joined.path)
        assert {finding["id"] for finding in found} == {"tunnel-missing"}
        assert len(found) == 2
        fix(host, found)
        assert doctor(host, joined.path) == []
