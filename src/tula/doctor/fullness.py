"""Tables of the kernel that are full, or soon will be. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor.machine import Usage
from tula.doctor.scene import Scene
from tula.doctor.talk import Answers
from tula.model.finding import HERE, Finding, Severity

_NEARLY = 0.9
_FAMILIES = {4: "ipv4", 6: "ipv6"}


def judge_tables(scene: Scene, _: Answers) -> Iterator[Finding]:
    """Tula's tables of connections: new flows of a full one go by hash, and may move later."""
    for table in scene.tables:
        if table.entries is not None and table.entries >= _NEARLY * table.size:
            yield Finding(
                "table-full", Severity.WARNING, HERE,
                f"the table {table.name} holds {table.entries} of {table.size} connections",
                "raise connections.size in the document, or lower connections.tcp or udp",
            )  # fmt: skip
    unknown = bool(scene.tables) and all(table.entries is None for table in scene.tables)
    if unknown and scene.full:
        yield Finding(
            "table-full", Severity.WARNING, HERE,
            f"{scene.full} packets found a table of connections full; this kernel does not tell "
            "how full they are now",
            "raise connections.size in the document, or lower connections.tcp or udp",
            certain=False,
        )  # fmt: skip


def judge_neighbours(scene: Scene, _: Answers) -> Iterator[Finding]:
    """At gc_thresh3 no new neighbour is learned: backends and clients cannot be sent to."""
    for version, usage in sorted(scene.neighbours.items()):
        limits = {3: usage.most, 2: usage.soft}
        near = [n for n, limit in limits.items() if limit and usage.used >= _NEARLY * limit]
        if not near:
            continue
        base = f"net.{_FAMILIES[version]}.neigh.default.gc_thresh"
        most = max(usage.most, usage.used) * 4
        yield Finding(
            "neighbour-table",
            Severity.WARNING if near[0] == 3 else Severity.NOTE,
            HERE,
            f"the IPv{version} neighbour table holds {usage.used} entries; gc_thresh{near[0]} is "
            f"{limits[near[0]]}",
            "raise gc_thresh1 to 3, in /etc/sysctl.d too",
            commands=(f"sysctl -w {base}1={most // 4} {base}2={most // 2} {base}3={most}",),
        )  # fmt: skip


def judge_conntrack(scene: Scene, _: Answers) -> Iterator[Finding]:
    """Tula's packets are not tracked; but this machine's own are lost when the table is full."""
    usage: Usage | None = scene.conntrack
    if usage is not None and usage.most and usage.used >= _NEARLY * usage.most:
        yield Finding(
            "conntrack-full", Severity.WARNING, HERE,
            f"connection tracking holds {usage.used} of {usage.most} entries",
            "raise net.netfilter.nf_conntrack_max, or do not track what need not be",
            commands=(f"sysctl -w net.netfilter.nf_conntrack_max={usage.most * 4}",),
        )  # fmt: skip
