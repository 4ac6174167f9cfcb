"""The demo from its first line to the cleanup, and what to try afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from tula.lab.demo.pair_stage import build_pair, build_three, require_engines
from tula.lab.demo.pair_story import PairStory
from tula.lab.demo.pictures import bytes_table
from tula.lab.demo.screen import Screen
from tula.lab.demo.stage import NAME, Stage, build_stage, first_weights
from tula.lab.demo.story import Claims, Story
from tula.lab.guard import LabError, require_root
from tula.lab.kept import exists
from tula.lab.lab import Lab
from tula.lab.process import processes_in
from tula.lab.topologies import VIP4


def run_demo(keep: bool, plain: bool, fast: bool) -> list[str]:
    """Run the demo; returns the claims that did not hold."""
    if keep:
        _refuse_a_second()
    screen, claims = Screen(plain, fast), Claims()
    with _orderly_end(), Lab(named=NAME if keep else None, keep=keep) as lab:
        screen.say(
            "[bold]Tula: Direct Server Return in a minute.[/] Real traffic in a network of "
            "namespaces on this machine; the machine's own network is not touched.",
            seconds=1,
        )
        stage = build_stage(lab)
        story = Story(stage, screen, claims)
        story.tell()
        _summary(screen, story, stage)
        namespaces = {host.namespace.id for host in lab.hosts.values()}
        namespaces |= {switch.namespace.id for switch in lab.switches.values()}
    if not keep:
        left = processes_in(namespaces)
        claims.check(
            f"{len(namespaces)} namespaces and {len(stage.servers)} servers are removed, "
            "this machine is as it was",
            not left and not stage.configuration.exists(),
        )
    for claim in claims.all:
        screen.verdict(*claim)
    screen.console.print()
    if keep:
        show_next_steps(screen, stage)
    else:
        screen.say(
            f"To explore the network yourself: [bold]{program()} lab demo --keep[/]\n"
            f"Two balancers, then three, and one dies: [bold]{program()} lab demo --pair[/]",
            seconds=0,
        )
    return claims.broken


def run_pair_demo(plain: bool, fast: bool) -> list[str]:
    """The demo of several balancers, in two networks; returns the claims that did not hold."""
    screen, claims = Screen(plain, fast), Claims()
    with _orderly_end():
        require_root()
        require_engines()
        screen.say(
            "[bold]Tula: any balancer may die.[/] Real traffic in networks of namespaces on this "
            "machine; the machine's own network is not touched.",
            seconds=1,
        )
        story = PairStory(screen, claims)
        with Lab() as lab:
            stage = build_pair(lab)
            before = stage.config()
            story.tell_pair(stage)
        with Lab() as lab:
            story.tell_three(build_three(lab), before)
    screen.console.print()
    for claim in claims.all:
        screen.verdict(*claim)
    return claims.broken


def run_up() -> None:
    """Bring the network up with its balancer configured, and wait for Ctrl-C."""
    _refuse_a_second()
    screen = Screen(plain=False, fast=True)
    with _orderly_end(), Lab(named=NAME) as lab:
        stage = build_stage(lab)
        stage.apply(first_weights())
        stage.reach_far()
        show_next_steps(screen, stage)
        with suppress(KeyboardInterrupt):  # which may come as soon as it is mentioned
            screen.say("\nCtrl-C removes it.", seconds=0)
            signal.pause()
    screen.say("Removed.", seconds=0)


def show_next_steps(screen: Screen, stage: Stage) -> None:
    """Show what to try in a network that stays up."""
    screen.say(f"The network is up, in namespaces named {NAME}-lb and so on. Try:", seconds=0)
    for command, shows in next_steps(stage):
        screen.console.print(f"   [dim]# {shows}[/]", no_wrap=True)
        screen.console.print(f"   {command}", markup=False, soft_wrap=True)


def program() -> str:
    """How the reader would call ``tula`` from here, as root."""
    called = Path(sys.argv[0])
    name = "tula"
    if called.name == "tula" and shutil.which("tula") != str(called.absolute()):
        here = Path.cwd()
        absolute = called.absolute()
        name = str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
    return f"sudo {name}" if "SUDO_USER" in os.environ else name


def next_steps(stage: Stage) -> list[tuple[str, str]]:
    """Commands for a network that stays up, each with what it shows."""
    tula = program()
    get = f"curl -si http://{VIP4}/"
    if shutil.which("curl") is None:
        get = f"python3 -c 'import urllib.request as u; print(u.urlopen(\"http://{VIP4}\").read())'"
    steps = [
        (f"{tula} lab exec lb tula status", "services, backends, packets, bytes"),
        (f"{tula} lab exec client-1 {get}", "which backend answers?"),
        (
            f"{tula} lab exec lb tula apply -f {stage.configuration}",
            "apply that file, after you edited it",
        ),
        (f"{tula} lab exec lb nft list table netdev tula", "all of Tula's rules in the kernel"),
        (f"{tula} lab exec lb sh", "a shell on the balancer, or on any other host"),
    ]
    if shutil.which("tcpdump") is not None:
        steps.insert(
            2,
            (
                f"{tula} lab exec lb tcpdump -eni eth0 port 80",
                "requests arrive and leave; answers never do",
            ),
        )
    return [*steps, (f"{tula} lab down", "remove everything")]


def _summary(screen: Screen, story: Story, stage: Stage) -> None:
    backends = [host.name for host in stage.backends]
    clients, balancer, sent = (
        story.total.of(names)
        for names in ([host.name for host in stage.network.clients], ["lb"], backends)
    )
    screen.console.print()
    screen.table(bytes_table(clients, balancer, sent))
    screen.say(
        f"\n[bold]For each byte that the balancer sent, {sent.out / max(1, balancer.out):.0f} "
        "bypassed it.[/] A proxy or NAT would have carried them all.",
        seconds=1,
    )
    served = ", ".join(f"{story.requests[name]:,} by {name}" for name in backends)
    screen.say(f"Requests answered: {served}.\n", seconds=0)


def _refuse_a_second() -> None:
    if exists(NAME):
        raise LabError(f"a demo network is already up; remove it first: {program()} lab down")


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Clean up on SIGTERM and a closed terminal as on Ctrl-C, and let no signal interrupt that."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in signals}

    def stop(number: int, _: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # under nohup, say
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
