"""BGP's sessions with routers, BFD, and what is told to them. Pure.

What a router makes of the routes it alone knows."""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.bgp import BgpSessionState
from tula.model.config import IPAddress
from tula.model.desired import Announce
from tula.model.finding import HERE, Finding, Severity
from tula.model.wording import counted, named
from tula.plan.high_availability import vips_by


def check_routers(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """Each router is reached, and has a session with this machine."""
    cluster, bgp = observed.cluster, observed.config.high_availability.bgp
    if cluster is None or bgp is None:
        return
    sessions = {session.router: session for session in cluster.sessions}
    for router, number in bgp.routers:
        if _is_gone(observed, responses, router):
            yield Finding(
                "router-unreachable", Severity.ERROR, str(router),
                f"no machine answers for the router {router} on "
                f"{observed.host.routes[router].interface}",
                "correct its address under high_availability.bgp.routers, or check its cable",
            )  # fmt: skip
        session = sessions.get(router)
        if session is None:
            continue  # BIRD does not run, or by another configuration: reported
        if not session.established:
            yield _not_established(session, number)
            continue
        if bgp.bfd and session.bfd != "Up":
            yield Finding(
                "bfd-down", Severity.WARNING, str(router),
                f"BFD with {router} is {session.bfd or 'not there'}: a dead link is noticed by "
                "BGP's hold time only",
                "let the router run BFD for this neighbour, and let UDP ports 3784 and 3785 (4784 "
                "over routers) pass; or set high_availability.bgp.bfd to 0",
            )  # fmt: skip
        yield from _untold(observed, session)


def check_vip_table(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Others' routes in the table that BIRD learns from are announced to routers, too."""
    cluster = observed.cluster
    table = cluster.vip_table if cluster is not None else None
    if table is not None and table.foreign:
        others = named([str(network) for network in table.foreign])
        yield Finding(
            "table-in-use", Severity.WARNING, HERE,
            f"routing table 84, in which Tula keeps the VIPs for BIRD, has routes of others: "
            f"{others}",
            "remove them, or have whoever writes them use another table",
            commands=tuple(
                f"ip -{network.version} route del table 84 {network}" for network in table.foreign
            ),
        )  # fmt: skip


def _not_established(session: BgpSessionState, number: int) -> Finding:
    error = f"; it ended by: {session.error}" if session.error else ""
    return Finding(
        "bgp-session", Severity.ERROR, str(session.router),
        f"the session with {session.router} (AS {number}) is not established but "
        f"{session.state}{error}: it hears of no VIP from this machine",
        "see that the router has this machine as a neighbour with the AS number in "
        "high_availability.bgp.as, and lets TCP port 179 pass",
    )  # fmt: skip


def _untold(observed: Observation, session: BgpSessionState) -> Iterator[Finding]:
    cluster = observed.cluster
    table = cluster.vip_table if cluster is not None else None
    if table is None:
        return
    wanted = vips_by(observed.config, Announce.BGP)
    ready = {r.vip for r in table.routes if r.vip in wanted and r.vip.version in session.versions}
    if session.routes < len(ready):
        yield Finding(
            "routes-not-told", Severity.ERROR, str(session.router),
            f"{session.router} was told of {counted(session.routes, 'route')}, and this machine "
            f"serves {counted(len(ready), 'VIP')}",
            "see what BIRD says: journalctl -u tula-bird",
        )  # fmt: skip
    missing = {vip.version for vip in wanted} - set(session.versions)
    others = [
        other
        for other in (cluster.sessions if cluster is not None else ())
        if other.established and other is not session
    ]
    for version in sorted(missing - {v for other in others for v in other.versions}):
        yield Finding(
            "routes-not-told", Severity.ERROR, str(session.router),
            f"no router takes IPv{version} routes, and there are VIPs of IPv{version}",
            f"activate the address family IPv{version} for this neighbour on the router",
        )  # fmt: skip


def _is_gone(observed: Observation, responses: Responses, router: IPAddress) -> bool:
    route = observed.host.routes.get(router)
    if route is None or route.kind != "unicast" or route.gateway is not None:
        return False
    link, state = observed.host.links.get(route.interface), observed.links.get(route.interface)
    if (
        link is None
        or len(link.mac) != 6
        or (state is not None and not (state.up and state.carrier))
    ):
        return False
    return (route.interface, router) not in responses.macs
