"""Routers configured as docs/high-availability.md says, in a lab's router."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tula.lab import Cluster, wait_until

PAGE = Path(__file__).parents[2] / "docs" / "high-availability.md"
_FRR = Path("/usr/lib/frr")


def from_page(heading: str) -> str:
    """The first block below a heading, with the lab's addresses in place of the page's."""
    section = PAGE.read_text().split(f"### {heading}\n", 1)[1]
    found = re.search(r"^```\n(.*?)^```$", section, re.M | re.S)
    assert found is not None, heading
    text = found[1].replace("10.0.0.", "10.9.0.").replace("2001:db8:77::", "fd77::")
    return text.replace("2001:db8::", "fd09::")


def start_frr(network: Cluster) -> None:
    """zebra, bfdd and bgpd as their own user; the lab ends them."""
    folder = network.gateway.directory / "frr"
    folder.mkdir(parents=True)
    shutil.chown(folder, "frr", "frr")
    network.gateway.directory.parent.chmod(0o711)  # the lab's, which only root may enter
    file = folder / "frr.conf"
    file.write_text(from_page("FRR as the router"))
    for name in ("zebra", "bfdd", "bgpd"):
        options = ["-u", "frr", "-g", "frr", "-f", file, "-i", folder / f"{name}.pid"]
        options += ["-z", folder / "zserv.api", "--vty_socket", folder]
        options += ["--bfdctl", folder / "bfdd.sock"] if name == "bfdd" else []
        with (folder / f"{name}.log").open("w") as log:
            output = log.fileno()
            network.gateway.popen([_FRR / name, *options], stdout=output, stderr=output)
        wait_until((folder / f"{name}.vty").exists, 60, f"{name}; its log is in {folder}")


def start_bird(network: Cluster) -> None:
    """With the sessions that the page leaves out; the lab ends it."""
    folder = network.gateway.directory / "router"
    folder.mkdir(parents=True)
    text = from_page("BIRD as the router")
    others = [line for line in text.splitlines() if line.startswith("protocol bgp lb1")]
    for number in range(2, 1 + len(network.lbs)):
        for line in others:
            line = line.replace("lb1", f"lb{number}").replace("10.9.0.2", f"10.9.0.{1 + number}")
            text += line.replace("fd09::2", f"fd09::{1 + number}") + "\n"
    file = folder / "bird.conf"
    file.write_text(f"router id 10.9.0.1;\nprotocol device {{ }}\n{text}")
    with (folder / "bird.log").open("w") as log:
        network.gateway.popen(
            ["bird", "-f", "-c", file, "-s", folder / "ctl", "-P", folder / "pid"],
            stdout=log.fileno(),
            stderr=log.fileno(),
        )
