"""An ``nft`` that stands before the real one in PATH and misbehaves."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tula.lab import Host
from tula.lab.process import Completed

NFT = shutil.which("nft", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or "nft"


def wrapped_environment(host: Host, directory: Path, script: str) -> dict[str, str]:
    """The host's environment with such an nft: a shell script in which ``$NFT`` is the real one.

    ``$PPID`` is tula, ``$DIR`` the directory.
    """
    directory.mkdir(exist_ok=True)
    wrapper = directory / "nft"
    wrapper.write_text(f"#!/bin/sh\nNFT={NFT} DIR={directory}\n{script}\n")
    wrapper.chmod(0o755)
    environment = host.environment()
    return environment | {"PATH": f"{directory}:{environment['PATH']}"}


def tula_with(
    host: Host, environment: dict[str, str], *arguments: str | Path, before: tuple[str, ...] = ()
) -> Completed:
    """``tula ARGUMENTS`` in the host with this environment, run by the program ``before``."""
    command = [*before, sys.executable, "-m", "tula", *arguments]
    return host.run(command, env=environment, check=False)
