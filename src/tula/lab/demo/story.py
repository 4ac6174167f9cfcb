"""The chapters of the demo."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from tula.lab.demo.claims import Claims
from tula.lab.demo.document import FAR, FULL_WEIGHT, render_document
from tula.lab.demo.frames import watch_request, watch_tunnel
from tula.lab.demo.load import Load
from tula.lab.demo.meter import Meter, Reading
from tula.lab.demo.panel import ANSWERS, CHANGED, REQUESTS, percent
from tula.lab.demo.pictures import FAR_NETWORK, NETWORK, anatomy_table, tunnel_table
from tula.lab.demo.screen import Screen
from tula.lab.demo.stage import DRAINED, PORT, SPARE, Stage, first_weights
from tula.lab.demo.view import Watch

CHAPTERS = 6
_SOURCE_PORT = 40001
_GROWN = 1.7
"""By how much requests and acknowledgements may grow, at most: in tunnels 50 bytes come on top."""
_SMALL_PART = 0.06
"""What the balancer may send at most for each byte of answer: an acknowledgement a frame is 5 %."""


class Story:
    """Told once, on one stage."""

    def __init__(self, stage: Stage, screen: Screen, claims: Claims) -> None:
        self._stage = stage
        self._screen = screen
        self._claims = claims
        self._calm, self._after = (5.0, 4.0) if screen.paced else (3.0, 2.0)
        self.total: Reading
        """Bytes by host, of the whole traffic."""
        self.requests: Counter[str]
        """Answered requests by backend."""

    def tell(self) -> None:
        """All chapters."""
        self._network()
        self._apply()
        self._one_request()
        self._far()
        stage = self._stage
        with Meter(stage) as meter, Load(stage.network.clients, stage.vips) as load:
            watch = Watch(self._stage, load, meter)
            with self._screen.live(watch.view):
                self._many(watch)
                self._drain(load)
                self._add(load)
            load.stop()
            self.total, self.requests = meter.total(), load.requests()
        self._settle(load)

    def _network(self) -> None:
        screen = self._screen
        screen.chapter(1, CHAPTERS, "The network")
        screen.draw(NETWORK)
        screen.say(
            f"Clients know one address. Their [{REQUESTS}]requests[/] come to the balancer, whose "
            "kernel sends each on to a backend. The backend has that address too, quietly, and "
            f"[{ANSWERS}]answers[/] the client itself: Direct Server Return. Answers are most of "
            "the bytes; the balancer never sees them."
        )

    def _apply(self) -> None:
        screen = self._screen
        screen.chapter(2, CHAPTERS, "One document, one command")
        weights = first_weights()
        screen.code(render_document(weights))
        screen.pause(4)
        screen.command("tula apply -f tula.yaml")
        ran = self._stage.apply(weights)
        screen.output(ran.output)
        screen.say(f"{ran.seconds:.1f} s. Nothing of Tula runs now: the kernel forwards alone.")

    def _one_request(self) -> None:
        screen, network = self._screen, self._stage.network
        screen.chapter(3, CHAPTERS, "One request, frame by frame")
        client = network.client.addresses("eth0")[0]
        target, source = f"{network.vip4}:{PORT}", f"{client}:{_SOURCE_PORT}"
        screen.say("Which backend will get a connection? Tula knows before it is made:")
        screen.command(f"tula trace {target} --client {source}")
        traced = self._stage.tula("trace", target, "--client", source).output
        screen.output(traced)
        predicted = traced.partition(":")[0].partition("/")[2]
        screen.say("So make it, and read the wire:")
        seen = watch_request(self._stage, _SOURCE_PORT)
        screen.table(anatomy_table(seen))
        right = self._claims.check(
            f"trace named {predicted}, and {seen.backend} answered", predicted == seen.backend
        )
        self._claims.check(
            f"{seen.frames} frames of answer, {seen.at_balancer or 'none'} of them at the balancer",
            seen.frames > 0 and seen.at_balancer == 0,
        )
        self._claims.check(
            "of the request, only the MAC addresses and the TTL changed",
            seen.arrives.same == seen.leaves.same
            and seen.arrives.ttl == seen.leaves.ttl + 1
            and seen.leaves.mac_to == seen.answer.mac_from == seen.backend,
        )
        screen.say(
            f"{seen.backend} it was{', as told' if right else ''}. The request kept its addresses, "
            f"so the answer's source is the one the client asked. Of the answer's {seen.frames} "
            f"frames the balancer saw [bold]{seen.at_balancer or 'none'}[/]."
        )

    def _far(self) -> None:
        screen, stage = self._screen, self._stage
        screen.chapter(4, CHAPTERS, "Backends behind a router")
        screen.draw(FAR_NETWORK)
        screen.say(
            "A MAC address reaches no further than the subnet. For backends elsewhere the packet "
            "travels inside another one, and is unpacked there. Any number of services, each its "
            "own way:"
        )
        before = render_document(stage.weights)
        ran = stage.reach_far()
        screen.diff(before, render_document(stage.weights, stage.tunnel))
        screen.pause(3)
        screen.command("tula apply -f tula.yaml")
        screen.output("\n".join(line for line in ran.output.splitlines() if "tunnel" in line))
        screen.command("tula backend instructions -f tula.yaml far-1   # run on far-1, and so on")
        seen = watch_tunnel(stage, _SOURCE_PORT)
        screen.table(tunnel_table(seen))
        outer = (stage.network.lb.addresses("eth0")[0], FAR[seen.backend])
        self._claims.check(
            f"the request went in a tunnel ({stage.tunnel}) to {seen.backend}, which answered",
            seen.outer == outer and seen.inside.same == seen.arrives.same,
        )
        self._claims.check(
            f"{seen.frames} frames of its answer, {seen.at_balancer or 'none'} of them at the "
            "balancer",
            seen.frames > 0 and seen.at_balancer == 0,
        )
        screen.say(
            f"Inside, the request is as the client sent it: {seen.backend} answers the client "
            "itself, past the balancer, as near ones do."
        )

    def _many(self, watch: Watch) -> None:
        screen = self._screen
        screen.chapter(5, CHAPTERS, "Many requests, both ways side by side")
        screen.watch(self._calm)
        listed = [*self._stage.weights, *FAR]
        self._await(lambda: all(b.requests for b in watch.view().backends if b.name in listed))
        view = watch.view()
        screen.say(
            f"The balancer carries requests and acknowledgements: [bold]{percent(view.share)}[/] "
            "of the bytes. The answers go past it.",
            seconds=0,
        )
        served = [backend.name for backend in view.backends if backend.requests]
        self._claims.check(f"all served: {', '.join(served)}", served == listed)
        screen.watch(2 if screen.paced else 0)

    def _drain(self, load: Load) -> None:
        screen = self._screen
        screen.chapter(6, CHAPTERS, "Change it under load")
        screen.say(f"No new connections for {DRAINED}:", seconds=1)
        before = len(load.cut)
        since = self._edit(self._stage.weights | {DRAINED: 0})
        screen.watch(self._after)
        late = sum(flow.backend == DRAINED and flow.started > since for flow in load.downloads)
        self._claims.check(f"{late or 'no'} new connections for {DRAINED} at weight 0", late == 0)
        cut = load.cut[before:]
        others = sum(flow.backend not in (DRAINED, "") for flow in cut)
        self._claims.check(
            f"taking {DRAINED} out cut {others or 'no'} downloads of other backends", others <= 2
        )
        if cut:
            screen.say(
                f"[{CHANGED}]{len(cut) - others} downloads that it was serving were cut[/] and "
                f"asked again at once; of the other backends', {others or 'none'}."
            )
        else:
            screen.say("Its running downloads were finished: none was cut.")

    def _add(self, load: Load) -> None:
        screen = self._screen
        screen.say(f"{SPARE}, which stood ready, takes its share:", seconds=1)
        before = len(load.cut)
        since = self._edit(self._stage.weights | {SPARE: FULL_WEIGHT})
        screen.watch(self._after)

        def answered() -> int:
            fresh = (flow for flow in load.downloads if flow.started > since)
            return sum(flow.backend == SPARE for flow in fresh)

        self._await(lambda: answered() > 0)
        if cut := len(load.cut) - before:
            screen.say(f"[{CHANGED}]{cut} downloads were cut and asked again.[/]")
        else:
            screen.say("No running download was cut.")
        self._claims.check(f"{SPARE} took its share: {answered()} downloads", answered() > 0)

    def _await(self, condition: Callable[[], bool]) -> None:
        """A loaded machine is given more time."""
        for _ in range(10):
            if condition():
                return
            self._screen.watch(1)

    def _edit(self, weights: dict[str, int]) -> float:
        """Edit the document and apply it; returns when that was done."""
        screen = self._screen
        tunnel = self._stage.tunnel
        screen.diff(render_document(self._stage.weights, tunnel), render_document(weights, tunnel))
        screen.pause(2)
        screen.command("tula apply -f tula.yaml")
        screen.output(self._stage.apply(weights).output)
        return time.monotonic()

    def _settle(self, load: Load) -> None:
        """What can be said of the traffic as a whole."""
        names = [backend.name for backend in self._stage.backends]
        balancer, backends = self.total.of(["lb"]), self.total.of(names)
        share = balancer.out / max(1, backends.out)
        self._claims.check(
            f"the balancer sent {percent(share)} of what the backends sent",
            share < _SMALL_PART and balancer.out <= balancer.into * _GROWN,
        )
        versions = {":" in flow.vip for flow in load.downloads}
        datagrams = {":" in flow.vip for flow in load.datagrams}
        self._claims.check(
            f"{len(load.downloads):,} downloads and {len(load.datagrams):,} UDP requests answered, "
            "by IPv4 and IPv6",
            versions == datagrams == {True, False},
        )
        self._claims.check(
            f"{load.given_up or 'no'} requests failed; {len(load.cut)} were cut and asked again",
            load.given_up == 0,
        )
