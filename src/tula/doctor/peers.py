"""What the daemon knows of the other balancers: whether they can be asked, and what differs. Pure.

Their own doctor's findings are not asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.config import Forwarding
from tula.model.finding import HERE, Finding, Severity
from tula.model.health import State
from tula.model.wording import named
from tula.version import __version__

_CLOCKS = 2.0
"""Seconds by which clocks may differ."""

_OPERATORS = {str(State.DRAINING), str(State.DISABLED)}

Peer = Mapping[str, Any]
"""As status has it."""


def check_peers(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Each other balancer answers, and is as this one."""
    cluster = observed.cluster
    if cluster is None:
        return
    if cluster.status is None:
        yield Finding(
            "peers-unknown", Severity.NOTE, HERE,
            f"no daemon runs here, so {named([name for name, _ in cluster.peers])} cannot be "
            "compared with this machine",
            "start the daemon",
        )  # fmt: skip
        return
    for name, _address in cluster.peers:
        peer = cluster.peer(name)
        if peer is None:
            continue  # the daemon has another configuration, which is reported
        if not peer.get("added"):
            yield Finding(
                "peer-not-added", Severity.WARNING, name,
                f"this machine has no token for {name}, so it does not see what differs there, nor "
                "asks it for its flows when it starts",
                f"tula peer add {name} --ssh, or without --ssh by pasting",
            )  # fmt: skip
        elif not peer.get("alive"):
            yield Finding(
                "peer-unreachable", Severity.WARNING, name,
                f"{name} ({peer.get('address')}) does not answer: {peer.get('why') or 'no answer'}",
                f"see that tula run is alive on {name} and that its api is open to this machine; "
                "traffic does not depend on it",
            )  # fmt: skip
        else:
            yield from _differences(observed, name, peer)


def _differences(observed: Observation, name: str, peer: Peer) -> Iterator[Finding]:
    if peer.get("hears_us") is False:
        yield Finding(
            "peer-does-not-hear", Severity.WARNING, name,
            f"{name} answers this machine, and gets no answer from it",
            f"tula peer list on {name} says why: no token, another certificate, or a firewall in "
            "front of this machine's api",
        )  # fmt: skip
    if peer.get("configuration_equal") is False:
        waits = f"; {name}'s waits for confirmation" if peer.get("tentative") else ""
        yield Finding(
            "configurations-differ", Severity.ERROR, name,
            f"{name} runs another configuration ({str(peer.get('digest'))[:12]}){waits}: flows go "
            "to other backends when it takes over",
            f"on the one that is wrong, take the other's: tula peer copy {name} here; or apply the "
            "same one on all: tula apply --everywhere",
        )  # fmt: skip
    if peer.get("overrides_equal") is False:
        listed = peer.get("seen_otherwise") or ()
        others = [str(each["backend"]) for each in listed if _by_operator(each)]
        yield Finding(
            "overrides-differ", Severity.ERROR, name,
            f"backends are drained, disabled or weighted otherwise on {name}"
            + (f", such as {named(others)}" if others else ""),
            f"repeat the command with --everywhere, or take {name}'s: tula peer copy {name}",
        )  # fmt: skip
    yield from _otherwise(observed, name, peer)
    clock = peer.get("clock")
    if clock is not None and abs(clock) > _CLOCKS:
        yield Finding(
            "clocks-differ", Severity.WARNING, name,
            f"{name}'s clock is {abs(clock):.0f} s {'ahead of' if clock > 0 else 'behind'} this "
            "machine's: events and logs cannot be compared",
            "have both synchronize their clocks (chrony, systemd-timesyncd)",
        )  # fmt: skip
    version = peer.get("version")
    if version and version != __version__:
        yield Finding(
            "versions-differ", Severity.NOTE, name,
            f"{name} runs version {version}, this machine {__version__}",
            "fine during an upgrade; finish it",
        )  # fmt: skip


def _by_operator(otherwise: Mapping[str, Any]) -> bool:
    """Whether it differs by what somebody said, not by health."""
    return bool({otherwise["here"], otherwise["there"]} & _OPERATORS)


def _otherwise(observed: Observation, name: str, peer: Peer) -> Iterator[Finding]:
    """Backends that one balancer reaches and another does not."""
    listed = peer.get("seen_otherwise") or ()
    seen = [each for each in listed if not _by_operator(each)]
    if not seen:
        return
    services = {service.name: service for service in observed.config.services}
    tunnelled = False
    for each in seen:
        service = services.get(str(each["backend"]).partition("/")[0])
        tunnelled |= service is not None and Forwarding.L3 in service.forwardings
    shown = [f"{each['backend']} ({each['here']} here, {each['there']} there)" for each in seen]
    more = (peer.get("seen_otherwise_total") or 0) - len(listed)
    yield Finding(
        "health-differs", Severity.WARNING, name,
        f"{name} sees backends otherwise: {named(shown)}" + (f", and {more} more" * (more > 0)),
        f"if it stays for more than a few checks, run tula doctor here and on {name}"
        + (
            ": a backend that joined before a balancer was added to load_balancers takes tunnels "
            "from the others only, until tula backend join runs there again"
            if tunnelled
            else ""
        ),
        certain=False,
    )  # fmt: skip
