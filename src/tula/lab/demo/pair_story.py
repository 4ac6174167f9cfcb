"""The story of several balancers, any of which may die."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tula.lab.demo.load import Load
from tula.lab.demo.meter import Meter
from tula.lab.demo.pair_panel import ClusterViewer, show
from tula.lab.demo.pair_stage import ClusterStage, serve
from tula.lab.demo.panel import ANSWERS, REQUESTS
from tula.lab.demo.screen import Screen
from tula.lab.demo.stage import DRAINED
from tula.lab.demo.story import Claims
from tula.lab.host import Host

CHAPTERS = 6
_SIZE = 16_000_000
"""Bytes of a download: eight seconds, so that many are under way when a balancer dies, some from
a backend that was drained a moment before."""

_PAIR = f"""
    client-1 ─╮            [{REQUESTS}]╭─────▶[/] lb1   active: it has [bold]10.9.0.100[/]
              ├── router [{REQUESTS}]──┤[/]        ║
    client-2 ─╯     [{ANSWERS}]▲[/]      [{REQUESTS}]╰ ─ ─ ▶[/] lb2   standby
                    [{ANSWERS}]║[/]                [{REQUESTS}]│[/]  both forward
                    [{ANSWERS}]║[/]                [{REQUESTS}]▼[/]
                    [{ANSWERS}]╚══════════[/] backend-1 … backend-3
"""
_THREE = f"""
    client-1 ─╮            [{REQUESTS}]╭─────▶[/] lb1
              ├── router [{REQUESTS}]──┼─────▶[/] lb2   each announces [bold]10.77.0.100[/] by BGP
    client-2 ─╯     [{ANSWERS}]▲[/]      [{REQUESTS}]╰─────▶[/] lb3
                    [{ANSWERS}]║[/]                [{REQUESTS}]│[/]
                    [{ANSWERS}]║[/]                [{REQUESTS}]▼[/]
                    [{ANSWERS}]╚══════════[/] backend-1 … backend-3
"""


@dataclass
class Traffic:
    """The downloads while a chapter runs."""

    load: Load
    meter: Meter
    viewer: ClusterViewer


class PairStory:
    """Told once, in two networks."""

    def __init__(self, screen: Screen, claims: Claims) -> None:
        self._screen = screen
        self._claims = claims
        self._calm, self._after = (5.0, 6.0) if screen.paced else (2.0, 3.0)

    def tell_pair(self, stage: ClusterStage) -> None:
        """Two balancers by VRRP."""
        screen = self._screen
        screen.chapter(1, CHAPTERS, "Two balancers, one address")
        screen.draw(_PAIR)
        screen.say(
            "keepalived, which Tula configures and starts, gives the VIP to one of the two (VRRP). "
            "The other one does not wait to be told: it forwards as well, whatever reaches it."
        )
        screen.chapter(2, CHAPTERS, "The same file on both")
        screen.code(stage.config())
        screen.pause(4)
        screen.command("tula run -f tula.yaml      # on lb1 and on lb2")
        seconds = serve(stage)
        (active,) = stage.in_state("active")
        screen.say(f"After {seconds:.1f} s {active.name} has the VIP, and clients are served.")
        with self._traffic(stage) as traffic:
            screen.chapter(3, CHAPTERS, "A backend is drained")
            self._drain(stage, traffic)
            screen.chapter(4, CHAPTERS, "The active balancer dies")
            other = next(lb for lb in stage.network.lbs if lb is not active)
            self._die(stage, traffic, active)
            self._claims.check(
                f"{other.name} took over from {active.name}", stage.in_state("active") == [other]
            )
            self._return(stage, traffic, active)
        self._totals(traffic.load)

    def tell_three(self, stage: ClusterStage, before: str) -> None:
        """Three balancers by BGP; ``before`` is the pair's configuration."""
        screen = self._screen
        screen.chapter(5, CHAPTERS, "A router and three balancers")
        screen.draw(_THREE)
        screen.say(
            "Where the router speaks BGP, all balancers are active: BIRD, which Tula configures "
            "and starts, announces the VIP, and the router spreads connections over equal routes."
        )
        screen.diff(before, stage.config())
        screen.pause(3)
        screen.command("tula run -f tula.yaml      # on lb1, lb2 and lb3")
        screen.say(f"After {serve(stage):.1f} s the router has three routes.")
        with self._traffic(stage) as traffic:
            self._await(lambda: all(row.count > 10 for row in traffic.viewer.view().balancers))
            shares = {row.name: row.count for row in traffic.viewer.view().balancers}
            self._claims.check(
                f"the router used {', '.join(name for name, sent in shares.items() if sent > 10)}",
                min(shares.values()) > 10,
            )
            self._drain(stage, traffic)
            screen.chapter(6, CHAPTERS, "One of three dies")
            dying = stage.network.lbs[1]
            self._die(stage, traffic, dying)
            self._claims.check(
                f"the router has routes to the others, not to {dying.name}",
                len(stage.in_state("announces")) == 2,
            )
        self._totals(traffic.load)

    @contextmanager
    def _traffic(self, stage: ClusterStage) -> Iterator[Traffic]:
        network = stage.network
        with Meter(stage.hosts) as meter, Load(network.clients, network.vips, _SIZE) as load:
            viewer = ClusterViewer(stage, load, meter, _SIZE)
            with self._screen.live(lambda: show(viewer.view())):
                self._screen.watch(self._calm)
                self._await(lambda: all(r.count for r in viewer.view().backends))
                yield Traffic(load, meter, viewer)
            load.stop()

    def _drain(self, stage: ClusterStage, traffic: Traffic) -> None:
        screen = self._screen
        weights = stage.weights | {DRAINED: 0}
        screen.diff(stage.config(), stage.config(weights))
        screen.command("tula apply -f tula.yaml    # on each")
        stage.apply(weights)
        running = traffic.load.running()[DRAINED]
        screen.say(
            f"New connections no longer go to {DRAINED}; {running} downloads from it still run. "
            "They are where no hash says they are: a balancer that does not know them would send "
            "them elsewhere. The kernel of the one that does has told the others.",
            seconds=0,
        )

    def _die(self, stage: ClusterStage, traffic: Traffic, dying: Host) -> None:
        screen, load = self._screen, traffic.load
        running, cut = load.running(), len(load.cut)
        dying.power_off()
        screen.say(
            f"[bold]{dying.name} has lost its power:[/] {running.total()} downloads run, "
            f"{running[DRAINED]} of them from {DRAINED}.",
            seconds=0,
        )
        stage.wait_for(
            lambda: (
                stage.in_state("active" if stage.router is None else "announces")
                and dying not in stage.in_state("announces")
            ),
            f"the others to take over from {dying.name}",
        )
        screen.watch(self._after)
        broken = len(load.cut) - cut
        self._claims.check(
            f"{broken or 'none'} of {running.total()} downloads broke when {dying.name} died",
            broken == 0 and running.total() > 0,
        )

    def _return(self, stage: ClusterStage, traffic: Traffic, dead: Host) -> None:
        screen, load = self._screen, traffic.load
        cut = len(load.cut)
        active = stage.in_state("active")
        screen.say(f"{dead.name} boots, and starts its daemon:", seconds=0)
        screen.command("tula run -f tula.yaml      # on " + dead.name)
        stage.network.lab.power_on(dead)
        traffic.meter.open(dead)
        stage.start(dead)
        # Its answer tells that it runs; that it takes nothing over, that it is ready to.
        stage.wait_for(lambda: dead.processes("keepalived"), f"keepalived on {dead.name}")
        screen.watch(self._after)
        self._claims.check(
            f"{dead.name} came back as the standby, and {len(load.cut) - cut or 'none'} of the "
            "downloads broke",
            stage.in_state("active") == active and len(load.cut) == cut,
        )

    def _totals(self, load: Load) -> None:
        versions = {":" in request.vip for request in load.downloads}
        self._claims.check(
            f"{len(load.downloads):,} downloads, {len(load.datagrams):,} UDP requests over IPv4 "
            f"and IPv6, {load.given_up or 'none'} failed",
            versions == {True, False} and load.given_up == 0,
        )

    def _await(self, condition: Callable[[], bool]) -> None:
        """Give a busy machine more time."""
        for _ in range(20):
            if condition():
                return
            self._screen.watch(1)
