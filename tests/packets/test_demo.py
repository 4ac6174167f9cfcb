"""``tula lab demo`` holds what it claims, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tula.cli.main import app
from tula.lab import remove_named, wait_until
from tula.lab.demo import run
from tula.lab.demo.meter import Bytes
from tula.lab.demo.pair_panel import ClusterView, Row, show
from tula.lab.demo.panel import headings, line, panel
from tula.lab.demo.view import BackendView, View

pytestmark = pytest.mark.kernel


class Demo:
    """Runs ``tula lab`` under a name of its own, and finds what it left."""

    def __init__(self) -> None:
        self.name = f"tulatest{uuid.uuid4().hex[:8]}"
        self.environment = {**os.environ, "TULA_LAB_NAME": self.name, "TERM": "xterm"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tula", "lab", *arguments]

    def run(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=280,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    def processes(self) -> list[str]:
        """Command lines of what still runs of it, found by its environment."""
        mark = f"TULA_LAB_NAME={self.name}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found

    def assert_gone(self) -> None:
        wait_until(lambda: not self.processes(), what="the end of all processes")
        assert not list(Path("/run/netns").glob(f"{self.name}-*"))
        assert not Path(f"/run/tula-lab/{self.name}").exists()


@pytest.fixture
def demo() -> Iterator[Demo]:
    made = Demo()
    yield made
    remove_named(made.name)


def test_the_demo_shows_direct_server_return_and_cleans_up(demo: Demo) -> None:
    told = demo.run("demo", "--fast", "--plain")
    assert "\x1b" not in told
    assert not re.search(r"[ \t]+$", told, re.MULTILINE)
    assert max(map(len, told.splitlines())) <= 80
    past = re.search(r"For each byte that the balancer sent, (\d+)\s+bypassed", told)
    assert past is not None
    assert int(past[1]) > 15
    served = re.search(r"Requests answered: (.*?)\n\n", told, re.DOTALL)
    assert served is not None
    counts = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) by", served[1])]
    assert len(counts) == 6
    assert min(counts) > 0
    assert "✗" not in told
    for claim in (
        r"trace predicted (backend-\d), and \1 answered",
        r"frames of answer, none of them at the balancer",
        r"requests were served by backend-1, backend-2, backend-3, far-1, far-2",
        r"the request went through a tunnel \((?:vxlan|ipip)\) to far-[12], which answered",
        r"no new connections to backend-2 at weight 0",
        r"backend-4 took its share: [1-9]",
        r"UDP requests answered, over IPv4 and IPv6",
        r"no requests failed",
        r"13 namespaces and 6 servers are removed, this machine is as it was",
    ):
        assert re.search(f"✓ .*{claim}", told), claim
    demo.assert_gone()


def test_a_kept_demo_can_be_explored_until_it_is_taken_down(demo: Demo) -> None:
    told = demo.run("demo", "--keep", "--fast", "--plain")
    assert "lab exec lb tula status" in told
    assert len(demo.processes()) == 6, "the servers live on"
    assert Path(f"/run/netns/{demo.name}-lb").exists()

    status = demo.run("exec", "lb", "tula", "status", "--json")
    assert '"backend-4"' in status
    get = (
        "import urllib.request as u\n"
        "for host in '10.9.0.100', '[fd09::100]': print(u.urlopen(f'http://{host}/').read())"
    )
    answers = demo.run("exec", "client-1", sys.executable, "-c", get)
    assert len(re.findall(r"b'backend-[134] (?:10\.8\.0\.11|fd08::11)", answers)) == 2
    assert "no network namespace" in demo.run("exec", "nowhere", "true", status=1)

    for again in (("demo", "--keep"), ("up",)):
        assert "a demo network is already up" in demo.run(*again, status=1)
    assert "removed 13 namespaces" in demo.run("down")
    demo.assert_gone()
    assert "nothing to remove" in demo.run("down")
    assert "no demo network is up" in demo.run("exec", "lb", "true", status=1)


def test_any_balancer_may_die_in_the_demo_of_several(demo: Demo) -> None:
    told = demo.run("demo", "--pair", "--fast", "--plain")
    assert "\x1b" not in told
    assert not re.search(r"[ \t]+$", told, re.MULTILINE)
    assert max(map(len, told.splitlines())) <= 80
    assert "✗" not in told
    for claim in (
        r"none of \d+ downloads broke when (lb[12]) died",
        r"(lb[12]) took over from (?!\1)lb[12]",
        r"lb[12] came back as the standby, and none of the downloads broke",
        r"the router used lb1, lb2, lb3",
        r"none of \d+ downloads broke when lb2 died",
        r"the router has routes to the others, not to lb2",
        r"over IPv4 and IPv6, none failed",
    ):
        assert re.search(f"✓ .*{claim}", told), claim
    demo.assert_gone()


@pytest.mark.parametrize(
    ("command", "until", "status"),
    [
        (["demo", "--keep", "--fast"], b"past the balancer", 130),
        (["up"], b"Ctrl-C removes it", 0),
    ],
    ids=["demo", "up"],
)
def test_control_c_on_a_terminal_removes_everything(
    demo: Demo, command: list[str], until: bytes, status: int
) -> None:
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    master, terminal = os.openpty()
    with subprocess.Popen(
        demo.command(*command),
        env=demo.environment,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as running:
        os.close(terminal)
        seen = b""
        while until not in seen:
            seen += os.read(master, 4096)
        running.send_signal(signal.SIGINT)
        try:
            while more := os.read(master, 4096):
                seen += more
        except OSError:  # EIO: the terminal's other end is closed
            pass
        assert running.wait(30) == status, seen.decode()
    os.close(master)
    assert b"Traceback" not in seen
    demo.assert_gone()


# ── Without a network ────────────────────────────────────────────────────────────────────────


def test_without_root_it_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("demo", "up", "down"):
        result = CliRunner().invoke(app, ["lab", command])
        assert result.exit_code == 1
        assert "the lab needs root" in result.output.splitlines()[-1]


def test_what_did_not_hold_is_told_and_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_demo", lambda *_: ["the sky is blue"])
    result = CliRunner().invoke(app, ["lab", "demo"])
    assert result.exit_code == 1
    assert result.output == "tula: did not hold: the sky is blue\n"


def test_a_network_that_goes_is_not_kept() -> None:
    result = CliRunner().invoke(app, ["lab", "demo", "--pair", "--keep"])
    assert result.exit_code == 2
    assert "--keep and --pair do not go together" in result.output


def view(scale: int) -> View:
    states = {"backend-1": 100, "backend-2": 0, "backend-3": 100, "backend-4": None}
    return View(
        seconds=12.0,
        through=Bytes(scale * 1_000_000, scale * 1_000_000),
        past=scale * 70_000_000,
        through_rate=scale * 1e4,
        past_rate=scale * 1e6,
        backends=[
            BackendView(name, weight, scale * 4e5, scale * 10**7, scale * 100)
            for name, weight in states.items()
        ],
        downloads=scale * 100,
        by_ipv6=scale * 50,
        datagrams=scale * 40,
        cut=scale,
    )


@pytest.mark.parametrize("scale", [0, 1, 99])
@pytest.mark.parametrize("width", [72, 80, 100])
def test_the_panel_fits(width: int, scale: int) -> None:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(panel(view(scale), width))
    shown = console.export_text().splitlines()
    assert [len(row) for row in shown] == [width] * 13
    for name in ("backend-1", "backend-2", "backend-3", "backend-4"):
        assert sum(name in row and "requests" in row for row in shown) == 1
    assert "…" not in console.export_text()
    lines = [*headings(view(scale)).splitlines(), line(view(scale))]
    assert max(map(len, lines)) <= 80


def cluster_view(scale: int) -> ClusterView:
    states = {"lb1": "dead", "lb2": "announces", "lb3": "standby"}
    return ClusterView(
        12.0,
        [Row(name, state, scale * 4e5, scale * 9000) for name, state in states.items()],
        [Row("backend-1", "", scale * 4e5, scale * 900), Row("backend-2", "weight 0", 0.0, scale)],
        8_000_000,
        scale * 100,
        scale * 1000,
        scale * 9,
        scale,
    )


@pytest.mark.parametrize("scale", [0, 1, 99])
@pytest.mark.parametrize("width", [72, 80, 100])
def test_the_panel_of_several_balancers_fits(width: int, scale: int) -> None:
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    shown = show(cluster_view(scale))
    console.print(shown.panel(width))
    rows = console.export_text(clear=False).splitlines()
    assert [len(row) for row in rows] == [width] * 8
    assert "…" not in console.export_text()
    assert max(map(len, [*shown.headings.splitlines(), shown.line])) <= 80
