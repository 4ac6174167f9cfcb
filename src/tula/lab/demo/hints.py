"""What to try next."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tula.lab.demo.stage import Stage
from tula.lab.topologies import VIP4


def program() -> str:
    """How the person who reads this calls ``tula`` from where they are, as root."""
    called = Path(sys.argv[0])
    name = "tula"
    if called.name == "tula" and shutil.which("tula") != str(called.absolute()):
        here = Path.cwd()
        absolute = called.absolute()
        name = str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
    return f"sudo {name}" if "SUDO_USER" in os.environ else name


def next_steps(stage: Stage) -> list[tuple[str, str]]:
    """Commands for a network that stays, each with what it shows."""
    tula = program()
    get = f"curl -si http://{VIP4}/"
    if shutil.which("curl") is None:
        get = f"python3 -c 'import urllib.request as u; print(u.urlopen(\"http://{VIP4}\").read())'"
    steps = [
        (f"{tula} lab exec lb tula status", "services, backends, packets, bytes"),
        (f"{tula} lab exec client-1 {get}", "who answers?"),
        (f"{tula} lab exec lb tula apply -f {stage.document}", "edit that file, then:"),
        (f"{tula} lab exec lb nft list table netdev tula", "all that is in the kernel"),
        (f"{tula} lab exec lb sh", "a shell on the balancer, or on any host"),
    ]
    if shutil.which("tcpdump") is not None:
        steps.insert(
            2,
            (
                f"{tula} lab exec lb tcpdump -eni eth0 port 80",
                "requests come and go; no answer does",
            ),
        )
    return [*steps, (f"{tula} lab down", "remove it all")]
