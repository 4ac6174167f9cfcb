"""Why a probe through the data path failed: asks in other ways, and says what follows from that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from tula.health.check import FailureKind, Outcome
from tula.model.health import ProbeTarget
from tula.model.monitor import HealthMonitor, IcmpProbe

Send = Callable[[HealthMonitor, ProbeTarget, Mapping[str, str]], Awaitable[Outcome]]
"""Sends one probe; the map is a script's environment."""

_NOT_THE_VIP = "the backend serves, but does not accept the VIP; "
_ARRIVES = (
    "forwarded packets arrive, so the VIP is not configured on it, or a firewall there drops "
    "everything for the VIP"
)
_DROPPED = "forwarded packets are dropped silently; check "
_LOOK = {
    4: "its rp_filter, its tunnel endpoint, and firewalls on the path",
    6: "its tunnel endpoint, and firewalls on the path",
}
"""By IP version of the VIP: IPv6 has no rp_filter."""
_ANYTHING = "check that it has the VIP; also check "


@dataclass(frozen=True, slots=True)
class Echoes:
    """What echo requests found: to the VIP, to the backend's own address, and to that address on
    the path of clients' packets. None where none was sent."""

    vip: Outcome | None = None
    direct: Outcome | None = None
    forwarded: Outcome | None = None


def can_diagnose(settings: HealthMonitor, direct: ProbeTarget | None) -> bool:
    """Whether it can be asked in another way: of a script, nothing is known."""
    return settings.by_vip and direct is not None and settings.type != "script"


async def diagnose(
    settings: HealthMonitor, target: ProbeTarget, direct: ProbeTarget, failed: Outcome, send: Send
) -> str | None:
    """What is wrong, from the backend's own address and, if it is silent, from echoes.

    Empty when nothing can be added, None when it could not be asked.
    """
    none: Mapping[str, str] = {}
    sent: list[Awaitable[Outcome | None]] = [send(settings, direct, none)]
    silent = failed.failure not in (FailureKind.REFUSED, FailureKind.ANSWER)
    echo = HealthMonitor(IcmpProbe(), timeout=settings.timeout)
    forwarded = replace(target, address=direct.address, port=0)
    if silent and direct.address.version == target.address.version:
        # The path of the VIP's packets, without the VIP: does anything come through?
        sent.append(send(replace(echo, probe=IcmpProbe(errors=True)), forwarded, none))
    else:
        sent.append(_nothing())
    if silent and settings.type != "icmp":
        sent += [send(echo, replace(where, port=0), none) for where in (target, direct)]
    own, through, *rest = await asyncio.gather(*sent)
    assert own is not None
    # Of an icmp monitor, the probe to the backend's own address is the echo request there.
    to_vip, to_own = rest or (None, own if settings.type == "icmp" else None)
    echoes = Echoes(to_vip, to_own, through)
    return explain(target.port, failed, own, echoes, target.address.version)


def explain(
    port: int, failed: Outcome, direct: Outcome, echoes: Echoes, version: int = 4
) -> str | None:
    """What is wrong with a backend: empty when nothing can be added, None when ``direct`` does not
    tell.

    ``failed`` is the probe to the VIP, ``direct`` the same to the backend's own address;
    ``version`` is the VIP's.
    """
    if failed.failure is FailureKind.REFUSED:
        return _refused(port, direct)
    if failed.failure is FailureKind.ANSWER:
        # It accepts the VIP, and its answer is there already.
        if direct.passed and not direct.drains:
            return "on its own address the check passes: the server answers differently for the VIP"
        return ""
    vip_answers, host_answers = _passed(echoes.vip), _passed(echoes.direct)
    if direct.passed:
        if vip_answers:
            what = f"its port {port}" if port else "the service"
            return (
                f"the backend serves and accepts the VIP, but {what} is filtered or not served "
                "there: a firewall, or a server that listens on one address only?"
            )
        return _NOT_THE_VIP + _why_not(echoes.forwarded, version)
    if direct.passed is None:
        return None
    if direct.failure is FailureKind.REFUSED:
        return f"the host answers, but nothing listens on port {port} of its own address either"
    if direct.failure is FailureKind.ANSWER:
        return f"the backend does not serve on its own address either ({_last(direct)})"
    if vip_answers:
        return f"the host accepts the VIP, but its port {port} answers on neither address"
    if host_answers:
        return "the host answers pings, but does not serve on its own address either"
    if echoes.direct is None or echoes.direct.passed is None:
        return "the host does not answer on its own address either"
    if not port:
        # Nothing else was asked, and many hosts are silent to echoes alone.
        return "the host does not answer pings to its own address either"
    return "the host does not answer at all"


def _refused(port: int, direct: Outcome) -> str:
    if direct.passed:
        return (
            f"nothing listens on the VIP's port {port}, or a firewall rejects packets to it; "
            "the backend serves on its own address"
        )
    return f"nothing listens on the VIP's port {port}"


def _why_not(forwarded: Outcome | None, version: int) -> str:
    """Where packets for the VIP are lost, by what became of those for the backend's own address."""
    if forwarded is None or forwarded.passed is None:
        return _ANYTHING + _LOOK[version]
    if forwarded.passed:
        return _ARRIVES
    if forwarded.failure is FailureKind.REFUSED:
        said = _last(forwarded)
        return f"it has no tunnel endpoint: forwarded packets are answered with {said}"
    if forwarded.failure is FailureKind.UNREACHABLE:
        return f"forwarded packets are rejected: {_last(forwarded)}"
    return _DROPPED + _LOOK[version]


def _passed(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.passed is True


def _last(outcome: Outcome) -> str:
    """The outcome without where it was asked."""
    return outcome.evidence.partition(": ")[2] or outcome.evidence


async def _nothing() -> None:
    return None
