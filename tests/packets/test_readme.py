"""The README's deployment, command by command: three bare machines and a client.

::

    client  10.0.0.50    lb1  10.0.0.2    cache-1, cache-2  10.0.0.11, .12
        │                 │                     │
    ════╧═════════════════╧═════════════════════╧════  lan  10.0.0.0/24

What installs (apt, pip, systemd units, nginx) is left out: Tula runs from here, and servers of the
lab say their names. For tunnels only the configuration's ``forwarding`` differs.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest

from support.in_process import call_tula
from support.joined import KINDS
from support.packets import read_packets
from support.running import Running
from tula.lab import Capture, Host, Lab, serve_http

pytestmark = pytest.mark.kernel

README = Path(__file__).parents[2] / "README.md"
VIP = "10.0.0.100"


def blocks() -> list[str]:
    """The shell blocks of "Deploy it", in their order."""
    text = README.read_text()
    section = text[text.index("## Deploy it on three machines") :].partition("\n## Commands")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def configuration() -> str:
    (found,) = re.findall(
        r"cat > /etc/tula/tula.yaml <<'EOF'\n(.*?)EOF\n", "".join(blocks()), re.DOTALL
    )
    return found


def commands(word: str) -> list[list[str]]:
    """The lines of a block that begin so, as words without ``tula``."""
    lines = [line for block in blocks() for line in block.splitlines()]
    return [line.split()[1:] for line in lines if line.startswith(word)]


def run(host: Host, command: list[str], path: Path, kind: str) -> str:
    """By L2 each command is a program, as the reader starts it; else this process is faster."""
    words = [word.replace("/etc/tula/tula.yaml", str(path)) for word in command]
    done = host.tula(*words) if kind == "l2" else call_tula(host, *words)
    assert "health check" not in done.stderr, "the daemon of the last step has something to check"
    return done.stdout


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.link_kinds(*KINDS[kind, 4]))
        for kind in ("l2", "vxlan", *(["ipip"] if os.environ.get("TULA_SOAK") else []))
    ],
)
def test_from_three_bare_machines_to_the_first_answer(lab: Lab, tmp_path: Path, kind: str) -> None:
    lan = lab.switch("lan")
    lb = lab.host("lb1", lan, "10.0.0.2/24")
    caches = [lab.host(f"cache-{n}", lan, f"10.0.0.1{n}/24") for n in (1, 2)]
    client = lab.host("client", lan, "10.0.0.50/24")
    lab.ready()
    for cache in caches:
        serve_http(cache, [80], ["0.0.0.0"])
    path = tmp_path / "tula.yaml"
    text = configuration()
    if kind != "l2":
        text = text.replace("forwarding: l2", f"forwarding: l3\n    tunnel: {kind}")
    path.write_text(text)
    start, spent = time.monotonic(), []

    def timed(what: str) -> None:
        spent.append(f"{time.monotonic() - start:.1f} s: {what}")

    (join,) = commands("tula backend join")
    for cache in caches:
        assert f"This machine is the backend {cache.name}." in run(cache, join, path, kind)
        timed(f"{cache.name}: tula {' '.join(join)}")
    (check,) = commands("tula check")
    run(lb, check, path, kind)
    with Running(lb, path) as daemon:
        daemon.wait_for(within=60.0, cache_1="up", cache_2="up")
        timed("lb1: the daemon has checked both backends")
        with Capture(lb) as capture:
            answers = Counter(
                client.run(["curl", "-s", f"http://{VIP}/"]).stdout.split()[0] for _ in range(12)
            )
            timed(f"client: answers of {dict(answers)}")
            assert all(packet.source != VIP for packet in read_packets(capture.frames()))
        assert set(answers) == {"cache-1", "cache-2"}
        (status,) = commands("tula status")
        shown = run(lb, status, path, kind)
        assert "2 backends up" in shown
        (trace,) = commands("tula trace")
        told = run(lb, trace, path, kind)
        assert "maglev hashes 10.0.0.50 port 40000" in told
        (doctor,) = commands("tula doctor")
        assert "No problems found" in run(lb, doctor, path, kind)
        for command in [*commands("tula plan"), *commands("tula reload")]:
            assert "nothing" in run(lb, command, path, kind)
        spent += [shown, told]
    print("\n".join(spent))
    for cache in caches:
        run(cache, ["backend", "leave"], path, kind)
    (clear,) = commands("tula clear")
    run(lb, clear, path, kind)
