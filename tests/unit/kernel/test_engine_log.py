"""The log of an engine that runs without systemd."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tula.kernel.engine_log import bound_log, open_log


def test_what_a_stranger_has_an_engine_say_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "keepalived.log"
    log = open_log(path)
    try:
        os.write(log, b"few\n")
        bound_log(path)
        assert path.read_bytes() == b"few\n"
        os.write(log, b"not a unicast peer\n" * 60_000)
        bound_log(path)
        assert path.read_bytes() == b""
        os.write(log, b"goes on at its beginning\n")
        assert path.read_bytes() == b"goes on at its beginning\n"
    finally:
        os.close(log)


def test_no_other_file_is_touched_by_a_link_in_its_place(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "keepalived.log"
    other.write_bytes(bytes(2 << 20))
    path.symlink_to(other)
    bound_log(path)
    with pytest.raises(OSError, match="symbolic"):
        open_log(path)
    assert other.stat().st_size == 2 << 20
    bound_log(tmp_path / "none")
