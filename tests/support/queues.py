"""What a busy machine itself drops, to tell it from what was lost."""

from __future__ import annotations

from pathlib import Path


def queue_drops() -> int:
    """Packets that this machine's processors had no room for, in whatever namespace.

    The second column of softnet_stat: full when other work keeps a processor from its packets,
    which no rule of ours decides.
    """
    lines = Path("/proc/net/softnet_stat").read_text().splitlines()
    return sum(int(line.split()[1], 16) for line in lines)
