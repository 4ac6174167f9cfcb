"""Whether the engines that announce VIPs run, and whether VRRP's priorities fit what balancers
serve. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tula.doctor.engine_state import EngineState
from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.finding import HERE, Finding, Severity


def check_engines(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Installed, and running by Tula's file."""
    for engine in observed.cluster.engines if observed.cluster is not None else ():
        if engine.missing:
            yield Finding(
                "engine-missing", Severity.ERROR, engine.name,
                f"{engine.name} is not installed here: nobody announces this machine's VIPs",
                "install it, and apply the configuration again",
                commands=(f"apt-get install -y {engine.package}",),
            )  # fmt: skip
        elif not engine.runs:
            yield _stands_still(observed, engine)


def _stands_still(observed: Observation, engine: EngineState) -> Finding:
    if engine.configured:
        evidence = f"{engine.name} does not run, and its file is there: it has died"
        fix = (
            f"see why (journalctl -u {engine.unit}), and start it"
            if engine.kept
            else "the daemon starts it again: see what tula events says, or start tula run"
        )
    elif observed.has_daemon:
        evidence = f"{engine.name} does not run: the daemon has not put its file there yet"
        fix = "wait for its first health checks and its peers' flows; see tula events"
    else:
        evidence = f"{engine.name} does not run: no daemon has put its file there since the boot"
        fix = "start the daemon"
    commands = (f"systemctl restart {engine.unit}",) if engine.configured and engine.kept else ()
    return Finding(
        "engine-not-running", Severity.ERROR, engine.name, evidence, fix, commands=commands
    )


def check_priorities(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """Balancers with equal views have equal priorities, and one that serves more is active."""
    cluster = observed.cluster
    if cluster is None or cluster.vrrp is None:
        return
    own = next((e.priority for e in cluster.engines if e.priority is not None), None)
    if own is None:
        return
    sent = [a for a in responses.adverts if a.outgoing and a.id == cluster.vrrp.id and a.priority]
    if sent and sent[-1].priority != own:
        yield Finding(
            "priorities-differ", Severity.WARNING, HERE,
            f"this machine advertises priority {sent[-1].priority}, and Tula's files say {own}",
            "restart keepalived here; see that it runs by Tula's file",
            certain=False,
        )  # fmt: skip
    if sent:
        return
    for address, name in cluster.names.items():
        theirs = [
            a
            for a in responses.adverts
            if a.source == address and a.id == cluster.vrrp.id and a.priority and not a.outgoing
        ]
        if not theirs or theirs[-1].priority == own:
            continue
        priority, peer = theirs[-1].priority, cluster.peer(name)
        if peer is not None and _see_alike(cluster.status or {}, peer):
            yield Finding(
                "priorities-differ", Severity.WARNING, name,
                f"{name} and this machine see the same, and have priorities {priority} and {own}",
                f"see that keepalived on {name} runs by Tula's file: tula doctor there",
                certain=False,
            )  # fmt: skip
        elif priority < own:
            yield Finding(
                "priorities-differ", Severity.NOTE, name,
                f"{name} is active with priority {priority}, and this machine has {own}: it takes "
                "the VIPs when it has been better for long enough (preempt_delay)",
                "run the doctor again in a few seconds; if this stays, see what keepalived says",
                certain=False,
            )  # fmt: skip


def _see_alike(status: Any, peer: Any) -> bool:
    """Whether both balance alike, and neither stands by."""
    return bool(
        peer.get("alive")
        and peer.get("configuration_equal")
        and peer.get("overrides_equal")
        and not peer.get("seen_otherwise_total")
        and not peer.get("standby")
        and not status.get("standby")
    )
