"""Overrides that the disk lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.loop_scene import B0, Scene
from tula.engine.overrides import override_change
from tula.kernel.clock import boot_time


def test_damaged_overrides_are_told_until_there_are_new_ones(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        scene.daemon.store.save_overrides({})
        (scene.daemon.store.directory / "overrides.json").write_bytes(b"{")
        async with scene.running():
            (told,) = scene.snapshot.problems
            assert "overrides.json is damaged" in told
            assert "give them again" in told
            await scene.loop.override(B0, override_change("drain", boot_time()))
            assert not scene.snapshot.problems

    asyncio.run(asyncio.wait_for(main(), 60))
