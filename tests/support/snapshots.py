"""Everything that the kernel holds in one network namespace, as text that can be compared."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from tula.dataplane.nft.own_stack import GUARD_TABLE
from tula.dataplane.nft.ruleset import Ruleset
from tula.kernel.nftables import KernelNftables
from tula.lab import Host, wait_until

_COMMANDS = {
    "ruleset": "nft -a list ruleset",
    "links": "ip -details link",
    "addresses": "ip address",
    "routes": "ip -4 route show table all; ip -6 route show table all",
    "rules": "ip -4 rule; ip -6 rule",
    "neighbours": "ip neigh show nud permanent",
    "fdb": "bridge fdb",
    "groups": "ip maddress",
}
_MARK = "==== "
_LOWER_UP = 0x10000  # if.h, IFF_LOWER_UP: it has a carrier

# What packets fill, and time empties.
_FILLED = re.compile(r"(flags dynamic,timeout\n(?:\s+timeout \w+\n)?)\s+elements = \{[^}]*\}\n")
_AGING = re.compile(
    r" # handle \d+"  # counted up by whoever adds and deletes
    r"|(?<=counter) packets \d+ bytes \d+|^\s+packets \d+ bytes \d+\n"
    r"|(?<=bytes) used \d+ \w+"  # a quota
    r"| expires \w+"  # an element, or an IPv6 route
    r"|^ +valid_lft .*\n| tentative"  # an address
    r"| \w+_timer +[\d.]+"  # a bridge
    r"| users \d+",  # a group
    re.MULTILINE,
)
_GUARD = re.compile(rf"table inet {GUARD_TABLE} \{{.*?\n\}}\n", re.DOTALL)
_BREAK = re.compile(r",\n\s+")
_MAC = "[0-9a-f]{2}(?::[0-9a-f]{2}){5}"
_LEARNED = re.compile(rf"^{_MAC} dev (?!.* (?:permanent|static) *$).*\n", re.MULTILINE)

_COUNTING = {"nf_conntrack_count", "tcp_available_congestion_control", "tcp_available_ulp"}
"""Sysctls that follow connections, or modules that another test has the kernel load."""


def without_aging(text: str) -> str:
    """What ``nft list``, ``ip`` and ``bridge`` printed, without what time or packets change.

    That is counts, lifetimes and timers, handles, elements that packets add to dynamic sets, and
    hardware addresses that a bridge or VXLAN device has learned.
    """
    text = _BREAK.sub(", ", _AGING.sub("", text))
    return _LEARNED.sub("", _FILLED.sub(r"\1", text))


def without_guard(found: dict[str, str]) -> dict[str, str]:
    """A snapshot without the table that goes with the daemon."""
    return {**found, "ruleset": _GUARD.sub("", found["ruleset"])}


def snapshot(host: Host) -> dict[str, str]:
    """What stands in the host's kernel, without sysctls and without what ages by itself.

    Waits until the kernel has done what it does later: a link that gets a carrier becomes "up" and
    has its own IPv6 address a moment after that, on a busy machine seconds after.
    """
    wait_until(lambda: _is_settled(host), 30, f"{host.name}'s links to settle")
    script = "; ".join(f"echo '{_MARK}{name}'; {line}" for name, line in _COMMANDS.items())

    def dump() -> str:
        done = host.run(["sh", "-ec", script])
        return "" if done.stderr else done.stdout  # ip warns of a dump that was interrupted

    parts = wait_until(dump, what=f"a consistent dump of {host.name}").split(_MARK)[1:]
    named = (part.partition("\n") for part in parts)
    return {name: without_aging(text) for name, _, text in named}


def _is_settled(host: Host) -> bool:
    """Whether every cable of the lab that has a carrier is up and has the link's own address."""
    with host.netlink() as netlink:
        cables = [
            link
            for link in netlink.get_links()
            if link.get("ifname").startswith("eth") and link["flags"] & _LOWER_UP
        ]
        local = {
            address["index"]
            for address in netlink.get_addr(family=socket.AF_INET6)
            if address.get("address").startswith("fe80:")
        }
    return all(
        cable.get("operstate") == "UP"
        and (cable["index"] in local or _without_ipv6(host, cable.get("ifname")))
        for cable in cables
    )


def _without_ipv6(host: Host, interface: str) -> bool:
    return host.read_sysctl(f"net/ipv6/conf/{interface}/disable_ipv6") == "1"


def pieces(host: Host) -> list[str]:
    """nftables' rules, declarations and elements in any order, without the table that goes with
    the daemon: what is made anew stands at the end."""
    ruleset = without_guard(snapshot(host))["ruleset"]
    return sorted(piece.strip() for piece in re.split(r"[\n,{}]", ruleset))


def sysctls(host: Host) -> dict[str, str]:
    """Every readable value under /proc/sys/net but those that change by themselves."""
    found = {}
    with host.enter():
        for path in sorted(Path("/proc/sys/net").rglob("*")):
            try:
                if path.is_file() and path.name not in _COUNTING:
                    found[str(path)] = path.read_text()
            except OSError:
                continue  # write-only, or without a value yet
    return found


def files(directory: Path) -> dict[str, bytes]:
    """The files of a state directory without empty locks, and without the audit log, which grows
    by what was refused as well."""
    found = {p.name: p.read_bytes() for p in directory.glob("*")} if directory.exists() else {}
    return {
        name: content
        for name, content in found.items()
        if (content or "lock" not in name) and not name.startswith("audit.")
    }


def observe(host: Host) -> Ruleset | None:
    """Tula's table in the host, read as Tula reads it."""
    with host.enter():
        return KernelNftables().observe()


def generation(host: Host) -> int:
    """Which of nftables' rulesets the host has; every transaction makes the next."""
    with host.enter():
        return KernelNftables().generation()


def marks(host: Host) -> dict[tuple[str, str], int]:
    """The backend ids in the host's kernel, by service and backend address."""
    found = {}
    table = observe(host)
    for name, elements in table.maps.items() if table else ():
        if name.startswith("nexthop"):
            for mark, value in elements.items():
                assert isinstance(mark, int)
                assert isinstance(value, tuple)
                found[value[1], str(ip_address(value[0]))] = mark
    return found


@contextmanager
def unchanged(host: Host) -> Iterator[None]:
    """Asserts that the block changes neither the host's kernel nor its state directory."""
    state = Path(host.environment()["TULA_STATE_DIR"])

    def everything() -> dict[str, object]:
        return {**snapshot(host), "ruleset": pieces(host), "files": files(state)}

    before = everything()
    yield
    assert everything() == before
    assert not list(state.glob(".*")), "nothing was even begun"
