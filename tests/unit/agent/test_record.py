"""What a join keeps on disk: nothing is taken from it, or done by it, that is not Tula's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tula.agent.record import Record, RecordFile, Source
from tula.model.errors import KernelError

ARP = "net/ipv4/conf/all/arp_ignore"
CHANGE = '{"found": "0", "made": "1", "written": "1"}'


def test_a_record_with_a_sysctl_that_no_join_sets_is_damaged(tmp_path: Path) -> None:
    """Root puts the value back, and the record may be in a directory of the daemon's user."""
    records = RecordFile(tmp_path)
    records.write(Record((Source("tula.yaml", "text"),)))
    empty = records.path.read_text()
    text = re.sub(r'"settings": ?\{\}', f'"settings": {{"{ARP}": {CHANGE}}}', empty)
    records.path.write_text(text)
    assert records.read() is not None
    for name in ("kernel/core_pattern", "net/ipv4/conf/../x", "net/ipv4/conf/a -p b/x", "net.x"):
        records.path.write_text(text.replace(ARP, name))
        with pytest.raises(KernelError, match="damaged"):
            records.read()


def test_who_leaves_does_not_remove_the_lock_that_it_holds(tmp_path: Path) -> None:
    """Another would lock a new file then, and both change the machine."""
    records = RecordFile(tmp_path)
    with records.locked():
        records.remove()
        inode = (tmp_path / "backend.lock").stat().st_ino
    with records.locked():
        assert (tmp_path / "backend.lock").stat().st_ino == inode


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    victim, state = tmp_path / "victim", tmp_path / "state"
    victim.write_text("precious")
    state.mkdir()
    (state / "backend.lock").symlink_to(victim)
    with (
        pytest.raises(KernelError, match="is a symbolic link; remove it"),
        RecordFile(state).locked(),
    ):
        pytest.fail("locked somebody else's file")
    assert victim.read_text() == "precious"
