"""The chapters of the demo, and the claims that it checks."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from tula.lab.demo.frames import watch_request, watch_tunnel
from tula.lab.demo.load import Load
from tula.lab.demo.meter import Meter, Reading
from tula.lab.demo.panel import ANSWERS, CHANGED, REQUESTS, percent, show
from tula.lab.demo.pictures import FAR_NETWORK, NETWORK, exchange_table, tunnel_table
from tula.lab.demo.screen import Screen
from tula.lab.demo.stage import (
    DRAINED,
    FAR,
    FULL_WEIGHT,
    PORT,
    SPARE,
    Stage,
    first_weights,
    render_config,
)
from tula.lab.demo.view import Viewer

CHAPTERS = 6
_SOURCE_PORT = 40001
_GROWN = 1.7
"""By how much requests and acknowledgements may grow, at most: a tunnel adds 50 bytes to each."""
_SMALL_SHARE = 0.06
"""What the balancer may send per byte of answer, at most: one acknowledgement per frame is 5 %."""


class Claim(NamedTuple):
    """A statement, and whether it held this time."""

    text: str
    held: bool


class Claims:
    """The claims of the demo, in order; it fails if one of them did not hold."""

    def __init__(self) -> None:
        self.all: list[Claim] = []

    def check(self, text: str, held: bool) -> bool:
        """Record a claim; returns whether it held."""
        self.all.append(Claim(text, held))
        return held

    @property
    def broken(self) -> list[str]:
        """Those that did not hold."""
        return [claim.text for claim in self.all if not claim.held]


class Story:
    """The demo's story, told once."""

    def __init__(self, stage: Stage, screen: Screen, claims: Claims) -> None:
        self._stage = stage
        self._screen = screen
        self._claims = claims
        self._calm, self._after = (5.0, 4.0) if screen.paced else (3.0, 2.0)
        self.total: Reading
        """Bytes by host, in total."""
        self.requests: Counter[str]
        """Answered requests by backend."""

    def tell(self) -> None:
        """All chapters."""
        self._network()
        self._apply()
        self._one_request()
        self._far()
        stage = self._stage
        with Meter(stage.hosts) as meter, Load(stage.network.clients, stage.vips) as load:
            watch = Viewer(self._stage, load, meter)
            with self._screen.live(lambda: show(watch.view())):
                self._many(watch)
                self._drain(load)
                self._add(load)
            load.stop()
            self.total, self.requests = meter.total(), load.requests()
        self._check_totals(load)

    def _network(self) -> None:
        screen = self._screen
        screen.chapter(1, CHAPTERS, "The network")
        screen.draw(NETWORK)
        screen.say(
            f"Clients use one address, the VIP. Their [{REQUESTS}]requests[/] reach the balancer, "
            "whose kernel forwards each to a backend. The backend has the VIP as well, but does "
            f"not announce it, and [{ANSWERS}]answers[/] the client directly: Direct Server "
            "Return. The answers are most of the traffic, and they never pass the balancer."
        )

    def _apply(self) -> None:
        screen = self._screen
        screen.chapter(2, CHAPTERS, "One configuration file, one command")
        weights = first_weights()
        screen.code(render_config(weights))
        screen.pause(4)
        screen.command("tula apply -f tula.yaml")
        ran = self._stage.apply(weights)
        screen.output(ran.output)
        screen.say(
            f"Done in {ran.seconds:.1f} s. No Tula process is running: the kernel does all of the "
            "forwarding."
        )

    def _one_request(self) -> None:
        screen, network = self._screen, self._stage.network
        screen.chapter(3, CHAPTERS, "One request, frame by frame")
        client = network.client.addresses("eth0")[0]
        target, source = f"{network.vip4}:{PORT}", f"{client}:{_SOURCE_PORT}"
        screen.say("Which backend will get a connection? Tula can tell before it is made:")
        screen.command(f"tula trace {target} --client {source}")
        traced = self._stage.tula("trace", target, "--client", source).output
        screen.output(traced)
        predicted = traced.partition(":")[0].partition("/")[2]
        screen.say("Now make that connection, and capture its frames:")
        seen = watch_request(self._stage, _SOURCE_PORT)
        screen.table(exchange_table(seen))
        right = self._claims.check(
            f"trace predicted {predicted}, and {seen.backend} answered", predicted == seen.backend
        )
        self._claims.check(
            f"{seen.frames} frames of answer, {seen.at_balancer or 'none'} of them at the balancer",
            seen.frames > 0 and seen.at_balancer == 0,
        )
        self._claims.check(
            "only MAC addresses and TTL of the request were changed",
            seen.arrives.same == seen.leaves.same
            and seen.arrives.ttl == seen.leaves.ttl + 1
            and seen.leaves.mac_to == seen.answer.mac_from == seen.backend,
        )
        screen.say(
            f"{seen.backend} answered{', as predicted' if right else ''}. The request still had "
            "the client's address as its source and the VIP as its destination, so the backend "
            "answers the client directly, from the VIP. Of the answer's "
            f"{seen.frames} frames the balancer saw [bold]{seen.at_balancer or 'none'}[/]."
        )

    def _far(self) -> None:
        screen, stage = self._screen, self._stage
        screen.chapter(4, CHAPTERS, "Backends behind a router")
        screen.draw(FAR_NETWORK)
        screen.say(
            "Rewriting the MAC address works within a subnet only. To a backend elsewhere, the "
            "balancer sends the packet through a tunnel, and the backend decapsulates it. Each "
            "service chooses how its packets are forwarded:"
        )
        before = render_config(stage.weights)
        ran = stage.reach_far()
        screen.diff(before, render_config(stage.weights, stage.tunnel))
        screen.pause(3)
        screen.command("tula apply -f tula.yaml")
        screen.output("\n".join(line for line in ran.output.splitlines() if "tunnel" in line))
        screen.command("tula backend instructions -f tula.yaml far-1   # run it on far-1")
        seen = watch_tunnel(stage, _SOURCE_PORT)
        screen.table(tunnel_table(seen))
        outer = (stage.network.lb.addresses("eth0")[0], FAR[seen.backend])
        self._claims.check(
            f"the request went through a tunnel ({stage.tunnel}) to {seen.backend}, which answered",
            seen.outer == outer and seen.inside.same == seen.arrives.same,
        )
        self._claims.check(
            f"{seen.frames} frames of its answer, {seen.at_balancer or 'none'} of them at the "
            "balancer",
            seen.frames > 0 and seen.at_balancer == 0,
        )
        screen.say(
            f"Inside the tunnel the request is as the client sent it, so {seen.backend} answers "
            "the client directly as well."
        )

    def _many(self, watch: Viewer) -> None:
        screen = self._screen
        screen.chapter(5, CHAPTERS, "Many requests to both services")
        screen.watch(self._calm)
        listed = [*self._stage.weights, *FAR]
        self._await(lambda: all(b.requests for b in watch.view().backends if b.name in listed))
        view = watch.view()
        screen.say(
            f"The balancer carries requests and acknowledgements: [bold]{percent(view.share)}[/] "
            "of the bytes. The answers bypass it.",
            seconds=0,
        )
        served = [backend.name for backend in view.backends if backend.requests]
        self._claims.check(f"requests were served by {', '.join(served)}", served == listed)
        screen.watch(2 if screen.paced else 0)

    def _drain(self, load: Load) -> None:
        screen = self._screen
        screen.chapter(6, CHAPTERS, "Changes under load")
        screen.say(f"Stop sending new connections to {DRAINED}:", seconds=1)
        before = len(load.cut)
        since = self._edit(self._stage.weights | {DRAINED: 0})
        screen.watch(self._after)
        late = sum(
            request.backend == DRAINED and request.started > since for request in load.downloads
        )
        self._claims.check(f"{late or 'no'} new connections to {DRAINED} at weight 0", late == 0)
        cut = load.cut[before:]
        others = sum(request.backend not in (DRAINED, "") for request in cut)
        self._claims.check(
            f"draining {DRAINED} broke {others or 'no'} downloads from other backends", others <= 2
        )
        if cut:
            screen.say(
                f"[{CHANGED}]{len(cut) - others} downloads from it broke[/] and were retried at "
                f"once; of those from other backends, {others or 'none'}."
            )
        else:
            screen.say("The downloads that it was serving ran to their end: none broke.")

    def _add(self, load: Load) -> None:
        screen = self._screen
        screen.say(f"Add {SPARE}, which is ready to serve:", seconds=1)
        before = len(load.cut)
        since = self._edit(self._stage.weights | {SPARE: FULL_WEIGHT})
        screen.watch(self._after)

        def answered() -> int:
            fresh = (request for request in load.downloads if request.started > since)
            return sum(request.backend == SPARE for request in fresh)

        self._await(lambda: answered() > 0)
        if cut := len(load.cut) - before:
            screen.say(f"[{CHANGED}]{cut} downloads broke and were retried.[/]")
        else:
            screen.say("It takes its share, and no running download broke.")
        self._claims.check(f"{SPARE} took its share: {answered()} downloads", answered() > 0)

    def _await(self, condition: Callable[[], bool]) -> None:
        """Give a busy machine more time."""
        for _ in range(10):
            if condition():
                return
            self._screen.watch(1)

    def _edit(self, weights: dict[str, int]) -> float:
        """Edit the configuration and apply it; returns the monotonic time when that was done."""
        screen = self._screen
        tunnel = self._stage.tunnel
        screen.diff(render_config(self._stage.weights, tunnel), render_config(weights, tunnel))
        screen.pause(2)
        screen.command("tula apply -f tula.yaml")
        screen.output(self._stage.apply(weights).output)
        return time.monotonic()

    def _check_totals(self, load: Load) -> None:
        """Check the claims about the traffic as a whole."""
        names = [backend.name for backend in self._stage.backends]
        balancer, backends = self.total.of(["lb"]), self.total.of(names)
        share = balancer.out / max(1, backends.out)
        self._claims.check(
            f"the balancer sent {percent(share)} of what the backends sent",
            share < _SMALL_SHARE and balancer.out <= balancer.into * _GROWN,
        )
        broken = f"{len(load.cut)} broke and were retried" if load.cut else "none broke"
        versions = {":" in request.vip for request in load.downloads}
        datagrams = {":" in request.vip for request in load.datagrams}
        self._claims.check(
            f"{len(load.downloads):,} downloads and {len(load.datagrams):,} UDP requests answered, "
            "over IPv4 and IPv6",
            versions == datagrams == {True, False},
        )
        self._claims.check(
            f"{load.given_up or 'no'} requests failed; {broken}",
            load.given_up == 0,
        )
