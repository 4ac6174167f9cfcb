"""Which of Tula's tables stand in files that nftables.service loads."""

from __future__ import annotations

from pathlib import Path

from tula.kernel.saved_rulesets import read_saved_tables

SAVED = """#!/usr/sbin/nft -f
flush ruleset
table inet filter {
\tchain input { type filter hook input priority 0; }
}
table netdev tula {
\tcounter schema_2 { packets 0 bytes 0 }
}
table inet tula_guard { # progname python3
\tflags owner
}
"""


def test_a_saved_ruleset(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "nftables.d").mkdir(parents=True)
    (etc / "nftables.conf").write_text(SAVED)
    (etc / "nftables.d" / "other.nft").write_text("table inet tula_guarded { }\n")
    (etc / "nftables.d" / "ours.nft").write_text("  add table  netdev tula { }\n")
    (etc / "nftables.d" / "folder").mkdir()
    assert read_saved_tables(tmp_path) == {
        str(etc / "nftables.conf"): ["inet tula_guard", "netdev tula"],
        str(etc / "nftables.d" / "ours.nft"): ["netdev tula"],
    }


def test_none(tmp_path: Path) -> None:
    assert read_saved_tables(tmp_path) == {}
