"""Everything that the kernel holds in one network namespace, as text that can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

from tula.dataplane.nft.ruleset import Ruleset
from tula.kernel.nftables import KernelNftables
from tula.lab import Host

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
# Handles and lifetimes count on by themselves; a memory of use is no configuration.
_PASSING = re.compile(r" # handle \d+|^ +valid_lft .*\n| users \d+", re.MULTILINE)

# What packets fill, and time empties.
_FILLED = re.compile(r"(flags dynamic,timeout\n)\s+elements = \{[^}]*\}\n")


def snapshot(host: Host) -> dict[str, str]:
    """What stands in the host's kernel, without sysctls; what passes by itself is left out."""
    script = "; ".join(f"echo '{_MARK}{name}'; {line}" for name, line in _COMMANDS.items())
    parts = host.run(["sh", "-c", script]).stdout.split(_MARK)[1:]
    named = (part.partition("\n") for part in parts)
    kept = {name: _PASSING.sub("", text) for name, _, text in named}
    return {name: _FILLED.sub(r"\1", text) for name, text in kept.items()}


def pieces(host: Host) -> list[str]:
    """nftables' rules, declarations and elements in any order and without counts.

    What is made anew stands at the end, and how the lines are broken depends on the counts.
    """
    text = re.sub(r"packets \d+ bytes \d+", "", snapshot(host)["ruleset"])
    return sorted(piece.strip() for piece in re.split(r"[\n,{}]", text))


def sysctls(host: Host) -> dict[str, str]:
    """Every readable value under /proc/sys/net."""
    found = {}
    with host.enter():
        for path in sorted(Path("/proc/sys/net").rglob("*")):
            try:
                if path.is_file():
                    found[str(path)] = path.read_text()
            except OSError:
                continue  # write-only, or without a value yet
    return found


def files(directory: Path) -> dict[str, bytes]:
    """The files of a state directory without empty locks."""
    found = {p.name: p.read_bytes() for p in directory.glob("*")} if directory.exists() else {}
    return {name: content for name, content in found.items() if content or "lock" not in name}


def observe(host: Host) -> Ruleset | None:
    """Tula's table in the host, read as Tula reads it."""
    with host.enter():
        return KernelNftables().observe()


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
