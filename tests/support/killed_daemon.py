"""A daemon in a process of its own, to be killed: the real one but for the kernel."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.api_daemon import ControlScene
from tula.api.server import serve


def live(directory: str) -> None:
    """A daemon's life, until it is killed."""

    async def main() -> None:
        scene = ControlScene(Path(directory))
        async with scene.running() as control:
            await serve(control, Path(directory))

    asyncio.run(main())
