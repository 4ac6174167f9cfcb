"""Whether this machine is what the document says, and has what it needs. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor import mends
from tula.doctor.scene import Scene
from tula.doctor.talk import Answers
from tula.model.config import Forwarding
from tula.model.finding import HERE, Finding, Severity
from tula.model.host import Route
from tula.plan.tunnels import outer_address

_NFT = (1, 0, 6)
_SHOWN = 3
"""Lines of a plan that are told."""


def judge_interfaces(scene: Scene, _: Answers) -> Iterator[Finding]:
    """Those of the document are here, and up."""
    for name in dict.fromkeys([*scene.config.interfaces, *scene.interfaces]):
        if name not in scene.host.links:
            here = ", ".join(sorted(set(scene.host.links) - {"lo"})) or "none"
            yield Finding(
                "interface-missing", Severity.ERROR, name,
                f"there is no interface {name} here; there are: {here}",
                "give the right name under interfaces, or put the card back",
            )  # fmt: skip
            continue
        state = scene.links.get(name)
        if state is None or (state.up and state.carrier):
            continue
        up = (f"ip link set {name} up",)
        yield Finding(
            "interface-down", Severity.ERROR, name,
            f"{name} is down" if not state.up else f"{name} has no carrier",
            f"set {name} up" if not state.up else "plug the cable in at both ends",
            commands=() if state.up else up,
        )  # fmt: skip


def judge_reach(scene: Scene, _: Answers) -> Iterator[Finding]:
    """Every backend has a way that its forwarding can take."""
    for service in scene.config.services:
        l3 = service.forwarding is Forwarding.L3
        for backend in service.backends:
            addresses = [a for a in backend.addresses if a.version in service.versions]
            for address in [outer_address(backend)] if l3 else addresses:
                route = scene.host.routes.get(address, Route("none"))
                if route.kind == "local":
                    yield Finding(
                        "own-backend", Severity.ERROR, backend.name,
                        f"{address} is this machine's own address",
                        "a balancer cannot be its own backend: take it out of the document",
                    )  # fmt: skip
                elif route.kind != "unicast":
                    yield Finding(
                        "no-route", Severity.ERROR, backend.name,
                        f"no route to {address}",
                        "add a route, or give the backend's right address",
                    )  # fmt: skip
                elif route.gateway is not None and not l3:
                    yield Finding(
                        "off-link", Severity.ERROR, backend.name,
                        f"{address} is behind the router {route.gateway}: forwarding l2 writes "
                        "MACs, and reaches its own link only",
                        "give an address of the same subnet, or forwarding: l3",
                    )  # fmt: skip


def judge_balancer(scene: Scene, _: Answers) -> Iterator[Finding]:
    """Backends take tunnels from ``load_balancers`` only, so this machine must be one."""
    known = {address for _, address in scene.config.load_balancers}
    if not known:
        return
    strange = sorted({str(o.local) for o in scene.reach.endpoints.values()} - set(map(str, known)))
    l3 = any(s.forwarding is Forwarding.L3 for s in scene.config.services)
    if strange or not known & scene.own:
        listed = ", ".join(map(str, sorted(known, key=str)))
        what = f"sends tunnels from {', '.join(strange)}" if strange else "has none of them"
        yield Finding(
            "not-a-load-balancer", Severity.ERROR if l3 else Severity.WARNING, HERE,
            f"load_balancers are {listed}, and this machine {what}"
            + ("; backends drop its tunnels" if l3 else ""),
            "add this machine's address to load_balancers on all machines, and prepare the "
            "backends again",
        )  # fmt: skip


def judge_sources(scene: Scene, _: Answers) -> Iterator[Finding]:
    """Backends are asked from an address that is no VIP: answers must come back to this machine."""
    for version in (4, 6):
        vips = sorted(str(vip) for vip in scene.vips if vip.version == version)
        if vips and scene.sources.to(None, version) is None:
            yield Finding(
                "no-source-address", Severity.NOTE, HERE,
                f"backends were not asked for {', '.join(vips[:_SHOWN])}: this machine has no "
                f"other address of IPv{version}",
                f"give it one of IPv{version} to have them tested; clients do not need it",
            )  # fmt: skip


def judge_difference(scene: Scene, _: Answers) -> Iterator[Finding]:
    """The kernel is what the document says."""
    for owned in scene.reach.held if scene.table else ():
        if owned.address not in scene.own:
            yield Finding(
                "vip-not-held", Severity.ERROR, owned.interface,
                f"the VIP {owned.address} is announced by the document, and not on this machine",
                "apply the document", commands=mends.apply(scene.text),
            )  # fmt: skip
    if not scene.difference:
        return
    shown = "; ".join(scene.difference[:_SHOWN])
    more = len(scene.difference) - _SHOWN
    evidence = shown + (f"; and {more} more" if more > 0 else "")
    if not scene.table:
        fault, text = "not-applied", "nothing of Tula's is in the kernel"
    elif not scene.same:
        fault, text = (
            "not-applied",
            f"another document is applied; this one would change: {evidence}",
        )
    else:
        fault, text = "drift", f"somebody changed what Tula made; apply would: {evidence}"
    yield Finding(
        fault, Severity.ERROR, HERE, text, "apply the document",
        commands=mends.apply(scene.text),
    )  # fmt: skip


def judge_kernel(scene: Scene, _: Answers) -> Iterator[Finding]:
    """The kernel and nft have what the document needs."""
    for problem in scene.lacking:
        service = str(problem.path[1]) if len(problem.path) > 1 else HERE
        yield Finding(
            "kernel-lacks", Severity.ERROR, HERE, f"{service}: {problem.message}",
            "take a tunnel that it can make, or a kernel that has the other",
        )  # fmt: skip
    if scene.nft is None or scene.nft < _NFT:
        found = ".".join(map(str, scene.nft)) if scene.nft else "none"
        needed = ".".join(map(str, _NFT))
        yield Finding(
            "kernel-lacks", Severity.ERROR, HERE,
            f"nftables {needed} or newer is needed; this machine has {found}",
            "install nftables", commands=("apt-get install -y nftables",),
        )  # fmt: skip
