"""The name of the fault, from what was asked when a probe through the data path failed. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tula.health.outcome import Fault, Outcome

_NOT_THE_VIP = "the backend serves, but does not accept the VIP; "
_ARRIVES = (
    "what is forwarded to it arrives, so the VIP is not on it, or a firewall there drops all that "
    "is for the VIP"
)
_DROPPED = "what is forwarded to it is dropped without a word; look at: "
_LOOK = {
    4: "rp_filter on it, does its tunnel end there, a firewall between them",
    6: "does its tunnel end there, a firewall between them",
}
"""By IP version of the VIP: IPv6 has no rp_filter."""
_ANYTHING = "look at: is the VIP on it, "


@dataclass(frozen=True, slots=True)
class Echoes:
    """What echoes found: to the VIP, to the backend's own address, and to that address by the way
    that clients' packets take. None where they were not asked."""

    vip: Outcome | None = None
    direct: Outcome | None = None
    forwarded: Outcome | None = None


def name_fault(
    port: int, failed: Outcome, direct: Outcome, echoes: Echoes, version: int = 4
) -> str:
    """What is wrong with a backend, empty when nothing can be added.

    ``failed`` is the probe to the VIP, ``direct`` the same to the backend's own address;
    ``version`` is the VIP's.
    """
    if failed.fault is Fault.REFUSED:
        return _refused(port, direct)
    if failed.fault is Fault.ANSWER:
        # It accepts the VIP, and its answer is there already.
        if direct.passed:
            return "by its own address it passes: the server answers otherwise for the VIP"
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
        return ""
    if direct.fault is Fault.REFUSED:
        return f"the host answers, but nothing listens on its port {port} by its own address either"
    if direct.fault is Fault.ANSWER:
        return f"the backend does not serve by its own address either ({_last(direct)})"
    if vip_answers:
        return f"the host accepts the VIP, but its port {port} does not answer, by no address"
    if host_answers:
        return "the host answers echo, but does not serve, by its own address either"
    if echoes.direct is None or echoes.direct.passed is None:
        return "the host does not answer by its own address either"
    if not port:
        # Nothing else was asked, and many hosts are silent to echoes alone.
        return "the host does not answer echoes by its own address either"
    return "the host does not answer at all"


def _refused(port: int, direct: Outcome) -> str:
    if direct.passed:
        return (
            f"nothing listens on the VIP's port {port}, or a firewall rejects what is for it; "
            "by its own address the backend serves"
        )
    return f"nothing listens on the VIP's port {port}"


def _why_not(forwarded: Outcome | None, version: int) -> str:
    """Where packets for the VIP are lost, by what became of those for the backend's own address."""
    if forwarded is None or forwarded.passed is None:
        return _ANYTHING + _LOOK[version]
    if forwarded.passed:
        return _ARRIVES
    if forwarded.fault is Fault.REFUSED:
        said = _last(forwarded)
        return f"its tunnel does not end there: what is forwarded to it is answered by {said}"
    if forwarded.fault is Fault.UNREACHABLE:
        return f"what is forwarded to it is rejected: {_last(forwarded)}"
    return _DROPPED + _LOOK[version]


def _passed(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.passed is True


def _last(outcome: Outcome) -> str:
    """The outcome without where it was asked."""
    return outcome.evidence.partition(": ")[2] or outcome.evidence
