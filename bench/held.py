"""What it costs to count connections by backend: for least-connections, and while one drains.

Fills a table of IPv4 flows in a namespace of the lab, and counts it as the daemon does. Prints a
table in Markdown; time on the CPU, since the kernel is at it all the while.
"""

from __future__ import annotations

import sys
import time

from tula.dataplane.nft.ruleset import Kind, MapName
from tula.dataplane.nft.transaction import AddMap, AddTable
from tula.kernel.nftables import KernelNftables
from tula.lab import Lab

_SIZES = (10_000, 50_000, 100_000, 262_144, 1_000_000)
_AT_ONCE = 2.0
_SHARE = 20
"""As in tula.daemon.connection_counts: the least seconds between counts, and the rest after one."""


def measure(entries: int, limit: float) -> str:
    """A row."""
    with Lab() as lab:
        host = lab.host("lb")
        with host.enter():
            nft = KernelNftables()
            name = MapName(Kind.TCP4, entries)
            nft.run((AddTable(), AddMap(name)))
            texts = (
                f"{n % 65521} . {n // 65521 + 1} . 167772161 . 80 timeout 2h : {n % 8 + 65537}"
                for n in range(entries)
            )
            host.run(
                ["nft", "-f", "-"],
                input=f"add element netdev tula {name} {{ {', '.join(texts)} }}",
                timeout=900,
            )
            start, wall = time.process_time(), time.monotonic()
            counted = nft.connections(limit)
            took, wall = time.process_time() - start, time.monotonic() - wall
    if counted is None:
        return f"| {entries:,} | given up after {took:.1f} s of CPU ({wall:.1f} s) | |"
    assert sum(counted.values()) == entries
    return f"| {entries:,} | {took:.2f} s | {max(_AT_ONCE, took * _SHARE):.0f} s |"


def main() -> None:
    sizes = [int(text) for text in sys.argv[1:]] or _SIZES
    print("| connections | a count | counts are apart |")
    print("|---" * 3 + "|")
    for entries in sizes:
        print(measure(entries, 300.0), flush=True)


if __name__ == "__main__":
    main()
