"""Which way answers take: straight to the clients, or back through this machine. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor.network import names_by_mac
from tula.doctor.scene import STRAYS, Scene
from tula.doctor.talk import Answers, mac_text
from tula.model.finding import Finding, Severity


def judge_passing(scene: Scene, answers: Answers) -> Iterator[Finding]:
    """Packets from a VIP to somebody else that came to this machine's MAC."""
    known = names_by_mac(scene, answers.owners)
    seen: set[tuple[str, int]] = set()
    for each in sorted(answers.passing, key=str):
        name = known.get(each.mac, each.interface)
        version = each.source.version
        if (name, version) in seen:
            continue
        seen.add((name, version))
        stray = STRAYS[version]
        to = "what it cannot reach itself" if each.target == stray else f"{each.target}"
        route = scene.host.routes.get(stray)
        gateway = route.gateway if route is not None and route.kind == "unicast" else None
        through = gateway is not None and route is not None and route.interface == each.interface
        backend = name if each.mac in known else ""
        family = "-6 " if version == 6 else ""
        yield Finding(
            "answers-through-balancer", Severity.ERROR, name,
            f"{name} ({mac_text(each.mac)}) sends its answers from {each.source} to {to} by this "
            "machine: they are twice its load, and lost where it does not forward",
            "set the backend's default route to a router"
            + (f", such as {gateway}, which this machine uses" if through else ""),
            on=backend or "here",
            commands=(f"ip {family}route replace default via {gateway}",)
            if backend and through
            else (),
        )  # fmt: skip
