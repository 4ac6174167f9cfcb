"""Rulesets that nftables.service loads: whether somebody saved Tula's tables there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tula.dataplane.nft.own_stack import GUARD_TABLE
from tula.dataplane.nft.ruleset import FAMILY, TABLE

_FILES = (
    *("etc/nftables.conf", "etc/nftables/*.nft", "etc/nftables.d/*"),
    *("etc/sysconfig/nftables.conf", "etc/nftables.rules"),
)
"""Where the distributions' services and what they include have their rules."""
_TABLE = re.compile(
    rf"^\s*(?:add\s+)?table\s+({FAMILY}\s+{TABLE}|inet\s+{GUARD_TABLE})\s*\{{", re.MULTILINE
)
_LARGEST = 1 << 26


def read_saved_tables(root: Path = Path("/")) -> Mapping[str, Sequence[str]]:
    """Tula's tables in them, by file; what cannot be read is skipped."""
    found = {str(file): _tables(file) for file in _existing(root)}
    return {file: tables for file, tables in found.items() if tables}


def _existing(root: Path) -> Iterable[Path]:
    for pattern in _FILES:
        yield from sorted(root.glob(pattern))


def _tables(file: Path) -> list[str]:
    try:
        if file.stat().st_size > _LARGEST:
            return []
        text = file.read_text(errors="replace")
    except OSError:
        return []
    return sorted({" ".join(name.split()) for name in _TABLE.findall(text)})
