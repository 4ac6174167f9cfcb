"""The demo from the first line to the clean machine."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from tula.lab.demo.claims import Claims
from tula.lab.demo.hints import next_steps, program
from tula.lab.demo.pictures import bytes_table
from tula.lab.demo.screen import Screen
from tula.lab.demo.stage import NAME, Stage, build_stage, first_weights
from tula.lab.demo.story import Story
from tula.lab.guard import LabError
from tula.lab.kept import exists
from tula.lab.lab import Lab


def run_demo(keep: bool, plain: bool, fast: bool) -> list[str]:
    """Tell the story; returns what of it did not hold."""
    if keep:
        _refuse_a_second()
    screen, claims = Screen(plain, fast), Claims()
    with _orderly_end(), Lab(named=NAME if keep else None, keep=keep) as lab:
        screen.say(
            "[bold]Tula: Direct Server Return in a minute.[/] A network of namespaces on this "
            "machine, real traffic; nothing outside of it is touched.",
            seconds=1,
        )
        stage = build_stage(lab)
        story = Story(stage, screen, claims)
        story.tell()
        _summary(screen, story, stage)
        namespaces = {host.namespace.id for host in lab.hosts.values()}
        namespaces |= {switch.namespace.id for switch in lab.switches.values()}
    if not keep:
        left = inhabitants(namespaces)
        claims.check(
            f"{len(namespaces)} namespaces and {len(stage.servers)} servers are gone, "
            "this machine is as it was",
            not left and not stage.document.exists(),
        )
    for claim in claims.all:
        screen.verdict(*claim)
    screen.console.print()
    if keep:
        show_next_steps(screen, stage)
    else:
        screen.say(f"To look around in it: [bold]{program()} lab demo --keep[/]", seconds=0)
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
        with suppress(KeyboardInterrupt):  # which may come as soon as it was promised
            screen.say("\nIt stays until Ctrl-C.", seconds=0)
            signal.pause()
    screen.say("It is removed.", seconds=0)


def show_next_steps(screen: Screen, stage: Stage) -> None:
    """What to try in a network that stays."""
    screen.say(f"The network is up, as namespaces {NAME}-lb and so on. Try:", seconds=0)
    for command, shows in next_steps(stage):
        screen.console.print(f"   [dim]# {shows}[/]", no_wrap=True)
        screen.console.print(f"   {command}", markup=False, soft_wrap=True)


def inhabitants(namespaces: set[tuple[int, int]]) -> list[int]:
    """Processes that live in one of these network namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "ns" / "net").stat()
            except OSError:
                continue  # gone meanwhile, or a kernel thread
            if (status.st_dev, status.st_ino) in namespaces:
                found.append(int(entry.name))
    return found


def _summary(screen: Screen, story: Story, stage: Stage) -> None:
    backends = [host.name for host in stage.backends]
    clients, balancer, sent = (
        story.total.of(names)
        for names in ([host.name for host in stage.network.clients], ["lb"], backends)
    )
    screen.console.print()
    screen.table(bytes_table(clients, balancer, sent))
    screen.say(
        f"\n[bold]For each byte through the balancer, {sent.out / max(1, balancer.out):.0f} went "
        "past it.[/] A proxy or a NAT would have carried both.",
        seconds=1,
    )
    served = ", ".join(f"{story.requests[name]:,} by {name}" for name in backends)
    screen.say(f"Requests answered: {served}.\n", seconds=0)


def _refuse_a_second() -> None:
    if exists(NAME):
        raise LabError(f"a demo network is up already; remove it first: {program()} lab down")


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM and a closed terminal clean up as Ctrl-C does, and nothing disturb that."""
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
