"""Draws docs/status.svg: what `tula status` prints in a lab, with the states in colour.

Run as root: scripts/as-root .venv/bin/python scripts/status_svg.py docs/status.svg

::

    client  10.0.0.50    lb1  10.0.0.2    cache-1 to cache-3  10.0.0.11, .12, .13
        │                 │                     │
    ════╧═════════════════╧═════════════════════╧════  lan  10.0.0.0/24

cache-2 is being drained while some downloads run, and cache-3 fails its health check. Text and
colours are the command's own, as on a terminal of 100 columns.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tula.lab import Host, Lab, serve_http, serve_udp, udp_ask, wait_until
from tula.lab.topologies import prepare_backend

CONFIGURATION = """\
interfaces: [eth0]
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l2
    health: {type: http, path: /healthz, interval: 200ms, timeout: 200ms}
    backends:
      cache-1: {address: 10.0.0.11}
      cache-2: {address: 10.0.0.12}
      cache-3: {address: 10.0.0.13}
  dns:
    vip: 10.0.0.100
    protocol: udp
    ports: [53]
    scheduler: rr
    forwarding: l2
    health: {type: icmp, interval: 200ms, timeout: 200ms}
    backends:
      cache-1: {address: 10.0.0.11}
      cache-2: {address: 10.0.0.12}
"""
WIDTH = 100
"""Columns of the terminal."""
TIMEOUT = 60.0
"""Seconds to wait for the daemon's checks."""


def main() -> None:
    """Writes the picture to the file that is named."""
    output = Path(sys.argv[1])
    os.environ["TERM"] = "xterm-256color"
    os.environ.pop("NO_COLOR", None)
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        lan = lab.switch("lan")
        lb = lab.host("lb1", lan, "10.0.0.2/24")
        caches = [lab.host(f"cache-{n}", lan, f"10.0.0.1{n}/24") for n in (1, 2, 3)]
        client = lab.host("client", lan, "10.0.0.50/24")
        lab.ready()
        servers = []
        for cache in caches:
            prepare_backend(cache, ["10.0.0.100"])
            servers.append(serve_http(cache, [80], ["0.0.0.0"]))
            serve_udp(cache, [53])
        path = Path(folder) / "tula.yaml"
        path.write_text(CONFIGURATION)
        log = (Path(folder) / "log").open("w")
        lb.start_tula("run", "-f", path, stdout=log.fileno(), stderr=log.fileno())
        wait_until(lambda: states(lb).get("web/cache-3") == "up", TIMEOUT, "all are up")
        for _ in range(60):
            client.run(["curl", "-s", "-o", "/dev/null", "http://10.0.0.100/bytes/100000"])
        for _ in range(30):
            udp_ask(client, "10.0.0.100", 53)
        for _ in range(9):
            client.popen(["curl", "-s", "-o", "/dev/null", "http://10.0.0.100/slow/100000000"])
        servers[2].healthy = False
        wait_until(lambda: states(lb).get("web/cache-3") == "down", TIMEOUT, "cache-3 is down")
        lb.tula("drain", "web/cache-2")
        wait_until(lambda: "connections left" in screen(lb), TIMEOUT, "connections are counted")
        text = screen(lb)
    draw(text, output)


def screen(lb: Host) -> str:
    """What the command prints on a terminal."""
    here, there = pty.openpty()
    size = struct.pack("HHHH", 40, WIDTH, 0, 0)
    fcntl.ioctl(there, termios.TIOCSWINSZ, size)
    process = lb.start_tula("status", stdout=there, stderr=there)
    os.close(there)
    text = b""
    with suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(here, 65536):
            text += chunk
    process.wait()
    os.close(here)
    return text.decode().replace("\r\n", "\n")


def states(lb: Host) -> dict[str, str]:
    """By SERVICE/BACKEND; empty while there is no daemon."""
    done = lb.tula("status", "--json", check=False)
    if done.returncode:
        return {}
    services = json.loads(done.stdout)["services"]
    return {f"{s['name']}/{b['name']}": b["state"] for s in services for b in s["backends"]}


def draw(text: str, output: Path) -> None:
    """The text as a terminal window."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("$ tula status\n" + text.rstrip()))
    svg = console.export_svg(title="lb1", unique_id="status")
    # A page that shows the picture loads no fonts from elsewhere.
    output.write_text(re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
