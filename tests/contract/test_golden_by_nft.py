"""The golden rulesets again: the real nft checks them, where they start from included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.golden import golden_folders, render_golden
from tula.lab import Host, Lab

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    """A namespace with the interfaces that the golden configurations name."""
    with Lab() as lab:
        switch = lab.switch("switch")
        host = lab.host("lb", switch, "10.0.0.2/16")
        lab.connect(host, switch, "10.1.0.2/24", ifname="eth1")
        host.run(["ip", "link", "add", "tula-sync", "type", "vxlan", "id", "1", "dstport", "4790"])
        yield host


@pytest.mark.parametrize("folder", golden_folders(), ids=lambda folder: folder.name)
def test_nft_takes_it(machine: Host, folder: Path) -> None:
    first, _ = render_golden(folder)
    expected = (folder / "expected.nft").read_text()
    assert expected
    # In a transaction of its own, as it is in life: the kernel refuses a range (EEXIST) that holds
    # one which the same transaction has added and deleted.
    if first:
        machine.run(["nft", "-f", "-"], input=first)
    checked = machine.run(["nft", "--check", "-f", "-"], input=expected, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    machine.run(["nft", "-f", "-"], input=expected)
    # nft 1.0.6 crashes on listing some maps that it loads; what operators look at must list.
    listed = machine.run(["nft", "list", "table", "netdev", "tula"])
    assert "chain in.eth0" in listed.stdout
    machine.run(["nft", "list", "ruleset"])
    machine.run(["nft", "flush", "ruleset"])


def test_a_broken_text_would_be_refused(machine: Host) -> None:
    """So that the check above means something."""
    broken = machine.run(["nft", "--check", "-f", "-"], input="add rule x", check=False)
    assert broken.returncode != 0
