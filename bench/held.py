"""What it costs to count connections by backend: for least-connections, and while one drains.

Fills a table of IPv4 flows in a namespace of the lab, and counts it as the daemon does, as a whole
and by its sample. Prints a table in Markdown; time on the CPU, since the kernel is at it all the
while. Arguments are sizes; ``--sample`` leaves out the whole, which takes a minute for a million.
"""

from __future__ import annotations

import sys
import time
from random import Random

from tula.dataplane.nft.ruleset import Kind, MapName
from tula.dataplane.nft.sample import one_in
from tula.dataplane.nft.transaction import AddMap, AddTable
from tula.kernel.nft_counts import HeldConnections
from tula.kernel.nftables import KernelNftables
from tula.lab import Host, Lab

_SIZES = (10_000, 50_000, 100_000, 262_144, 1_000_000)
_BACKENDS = 8
_WHOLE = 600.0
_AT_ONCE = 2.0
_SHARE = 20
"""As in tula.daemon.connection_counts: the least seconds between counts, and the rest after one."""


def _fill(host: Host, name: MapName, flows: range | list[int]) -> None:
    texts = (
        f"{n % 65521} . {n // 65521 + 1} . 167772161 . 80 timeout 2h : {n % _BACKENDS + 65537}"
        for n in flows
    )
    text = f"add element netdev tula {name} {{ {', '.join(texts)} }}"
    host.run(["nft", "-f", "-"], input=text, timeout=900)


def _timed(nft: KernelNftables) -> tuple[HeldConnections | None, float]:
    start = time.process_time()
    counted = nft.connections(_WHOLE)
    return counted, time.process_time() - start


def measure(entries: int, *, whole: bool) -> str:
    """A row."""
    with Lab() as lab:
        host = lab.host("lb")
        with host.enter():
            nft = KernelNftables()
            name, sample = MapName(Kind.TCP4, entries), MapName(Kind.SAMPLE4, 131_072)
            nft.run((AddTable(), AddMap(name)))
            _fill(host, name, range(entries))
            row = f"| {entries:,} | "
            if whole:
                counted, took = _timed(nft)
                assert counted is not None
                assert sum(counted.counts.values()) == entries
                row += f"{took:.2f} s | {max(_AT_ONCE, took * _SHARE):.0f} s | "
            factor = one_in(entries)
            if factor == 1:
                return row + "none needed | | | |"
            of_sample = [n for n in range(entries) if not Random(n).randrange(factor)]
            nft.run((AddMap(sample),))
            _fill(host, sample, of_sample)
            counted, took = _timed(nft)
            assert counted is not None
            assert counted.estimated or entries <= 60_000
            each = entries / _BACKENDS
            off = max(abs(number / each - 1) for number in counted.counts.values())
            apart = f"{max(_AT_ONCE, took * _SHARE):.0f} s"
            return f"{row}1 in {factor} | {took:.3f} s | {apart} | {off:.1%} |"


def main() -> None:
    words = sys.argv[1:]
    sizes = [int(text) for text in words if text != "--sample"] or _SIZES
    print("| connections | as a whole | apart | sample | by the sample | apart | furthest off |")
    print("|---" * 7 + "|")
    for entries in sizes:
        print(measure(entries, whole="--sample" not in words), flush=True)


if __name__ == "__main__":
    main()
