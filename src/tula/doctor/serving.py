"""Whether every backend accepts packets for its VIPs, and serves there. Pure.

Requests for the VIP took the path of clients' packets to one backend at a time, and the same
requests went to the backend's own address. Which of them were answered shows where packets are
lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.doctor import fixes
from tula.doctor.packets import TCP, UDP
from tula.doctor.reachability import (
    PortState,
    backend_answers,
    no_endpoint_error,
    not_local_error,
    port_state,
    prohibited_error,
    unreachable_error,
    vip_answers,
    vip_requests,
)
from tula.doctor.replies import Reply, ReplyKind
from tula.doctor.requests import Request, Responses, TunnelPath
from tula.doctor.targets import Target
from tula.model.config import Config, IPAddress
from tula.model.finding import Finding, Severity

_OTHER_CAUSES = (
    "no tunnel device there; one of another type, key, id or MAC; rp_filter there (all, or the "
    "device's own); a filter that does not know this balancer's address (tula backend join there "
    "again, if it was added to load_balancers later); or a missing VIP"
)


def check_target(
    config: Config, target: Target, targets: Sequence[Target], responses: Responses
) -> list[Finding]:
    """What is wrong with one VIP at one backend; ``targets`` are all of this backend."""
    if vip_answers(responses, target):
        return [*_check_ports(target, responses)]
    errors = (responses.send_errors.get(request) for request in vip_requests(target))
    if any(isinstance(error, PermissionError) for error in errors):
        return [_dropped_here(target)]
    found = _reported_by_icmp(config, target, responses)
    if found is not None:
        return [found]
    alive = any(backend_answers(responses, t) or vip_answers(responses, t) for t in targets)
    if not alive:
        return [_unreachable(target, responses)]
    if isinstance(target.path, TunnelPath):
        return [_no_answer_in_tunnel(config, target, target.path, responses)]
    return [_vip_missing(target, f"does not answer for {target.vip}", certain=False)]


def over_path_requests(target: Target, sources: dict[int, IPAddress]) -> list[Request]:
    """Echoes to the backend's own addresses inside the tunnel."""
    return [
        target.over_path(address, sources[address.version])
        for address in target.backend.addresses
        if address.version in sources
    ]


def _reported_by_icmp(config: Config, target: Target, responses: Responses) -> Finding | None:
    """The problem that an ICMP error names."""
    name, path = target.backend.name, target.path
    no_endpoint = no_endpoint_error(responses, target)
    if isinstance(path, TunnelPath) and no_endpoint is not None:
        return Finding(
            "tunnel-missing", Severity.ERROR, name,
            f"packets of the {path.tunnel} tunnel get {_icmp(no_endpoint)}",
            f"create the tunnel device on {name}: see tula backend instructions, or run these "
            "commands",
            on=name, commands=fixes.recreate_tunnels(config, name),
        )  # fmt: skip
    if (prohibited := prohibited_error(responses, target)) is not None:
        reply, outer = prohibited
        what = "its tunnel" if outer else f"the VIP {target.vip}"
        return Finding(
            "firewall", Severity.ERROR, name,
            f"packets for {what} get {_icmp(reply)}",
            f"allow them in the firewall of {reply.source}",
            on=name,
        )  # fmt: skip
    if not_local_error(responses, target) is not None:
        return _vip_missing(target, f"forwards packets for {target.vip}", certain=True)
    unreachable = unreachable_error(responses, target)
    if unreachable is None:
        return None
    if unreachable.source in target.backend.addresses:
        return _vip_missing(target, f"reports that it cannot reach {target.vip}", certain=True)
    return Finding(
        "backend-unreachable", Severity.ERROR, name,
        f"packets to {target.outer_destination} get {_icmp(unreachable)}",
        f"start {name}, or repair the routes to it",
    )  # fmt: skip


def _dropped_here(target: Target) -> Finding:
    """netfilter dropped the packet on its way out (nf_hook_slow, netfilter/core.c)."""
    return Finding(
        "foreign-chain", Severity.ERROR, target.interface,
        f"this machine's own rules drop packets to {target.outer_destination} for {target.vip}",
        "allow them in the output and postrouting chains (nft list ruleset)",
    )  # fmt: skip


def _unreachable(target: Target, responses: Responses) -> Finding:
    """No address replied to anything."""
    if isinstance(target.path, TunnelPath):
        evidence = f"no answer from {target.outer_destination}, neither to TCP or UDP nor to echoes"
    else:
        evidence = f"{target.outer_destination} answers ARP or neighbour discovery, nothing else"
    errors = responses.send_errors.items()
    refused = next((e for r, e in errors if r.destination == target.address), None)
    if refused is not None:
        evidence += f" (this machine reports: {refused.strerror})"
    # UDP servers need not answer, nor need hosts answer echoes.
    severe = bool(target.tcp) or isinstance(target.path, TunnelPath)
    severity = Severity.ERROR if severe else Severity.NOTE
    return Finding(
        "backend-unreachable", severity, target.backend.name, evidence,
        f"start {target.backend.name}; check the routes, and firewalls on the path and on it"
        + ("" if severe else "; or it ignores echoes, and UDP requests that it does not know"),
        certain=False,
    )  # fmt: skip


def _no_answer_in_tunnel(
    config: Config, target: Target, path: TunnelPath, responses: Responses
) -> Finding:
    """The backend is up, and the VIP does not answer what comes through the tunnel."""
    name = target.backend.name
    through = [
        request
        for request, replies in responses.replies.items()
        if isinstance(request.path, TunnelPath)
        and (request.path.tunnel, request.path.remote) == (path.tunnel, path.remote)
        and any(reply.kind is not ReplyKind.ERROR for reply in replies)
    ]
    same_version = any(request.source.version == target.vip.version for request in through)
    # No reverse-path filter checks IPv6.
    if same_version or (through and target.vip.version == 6):
        because = f"answers through the {path.tunnel} tunnel, but not for {target.vip}"
        return _vip_missing(target, because, certain=False)
    commands = fixes.recreate_tunnels(config, name)
    if through and target.vip.version == 4:
        return Finding(
            "rp-filter", Severity.ERROR, name,
            f"{name} answers IPv6 through the {path.tunnel} tunnel, which no reverse-path filter "
            "checks, and IPv4 only at its own address",
            f"set loose reverse-path filtering on the tunnel device of {name} (rp_filter 2, and "
            "an IPv4 address on it); if that does not help, look for a firewall there",
            certain=False, on=name, commands=commands,
        )  # fmt: skip
    return Finding(
        "tunnel-missing", Severity.ERROR, name,
        f"{name} answers at its own address, but nothing through the {path.tunnel} tunnel to "
        f"{path.remote}",
        f"recreate the tunnel device on {name}; possible causes: {_OTHER_CAUSES}",
        certain=False, on=name, commands=commands,
    )  # fmt: skip


def _vip_missing(target: Target, because: str, *, certain: bool) -> Finding:
    name = target.backend.name
    otherwise = "" if certain else (
        "; if it has it, look for a firewall there that drops everything for the VIP, or for a "
        "filter on the path that drops replies from it (source filtering, uRPF)"
    )  # fmt: skip
    return Finding(
        "vip-missing", Severity.ERROR, name,
        f"{name} is up, and {because}",
        f"add the VIP to lo on {name}{otherwise}",
        certain=certain, on=name, commands=fixes.hold_vip(target.vip),
    )  # fmt: skip


def _check_ports(target: Target, responses: Responses) -> Iterator[Finding]:
    """The backend accepts packets for the VIP: does it serve there?"""
    states = {port: port_state(responses, target.to_vip(TCP, port)) for port in target.tcp}
    some_open = any(state is PortState.OPEN for state in states.values())
    for port, state in states.items():
        own = port_state(responses, target.to_backend(TCP, port))
        yield from _check_port(target, f"tcp port {port}", state, own, some_open)
    for port in target.udp:
        request = target.to_vip(UDP, port)
        state = port_state(responses, request)
        replies = responses.to(request)
        others = [r.source for r in replies if r.kind is ReplyKind.OPEN and r.source != target.vip]
        if others:
            yield Finding(
                "answers-by-own-address", Severity.ERROR, target.backend.name,
                f"requests to {target.vip} udp port {port} are answered from {others[0]}: clients "
                "drop that",
                "bind the server to the VIP itself", on=target.backend.name,
            )  # fmt: skip
            continue
        own = port_state(responses, target.to_backend(UDP, port))
        if state is PortState.NO_ANSWER and own is not PortState.OPEN:
            continue  # UDP servers need not answer
        if (
            state is not PortState.NO_ANSWER
            and own is PortState.NO_ANSWER
            and backend_answers(responses, target)
        ):
            own = PortState.OPEN  # a closed port would have been reported
        yield from _check_port(target, f"udp port {port}", state, own, False)


def _check_port(
    target: Target, port: str, state: PortState, own: PortState, some_open: bool
) -> Iterator[Finding]:
    """``state`` at the VIP, ``own`` at the backend's own address."""
    name, vip, serves = target.backend.name, target.vip, own is PortState.OPEN
    if state is PortState.OPEN:
        return
    if state is PortState.CLOSED and serves:
        yield Finding(
            "listens-elsewhere", Severity.ERROR, name,
            f"{vip} {port} is closed, {target.address} {port} is open",
            f"have the server listen on {vip} or on all addresses",
            on=name,
        )  # fmt: skip
    elif state is PortState.CLOSED:
        yield Finding(
            "not-listening", Severity.NOTE if some_open else Severity.ERROR, name,
            f"{vip} {port} is closed"
            + (f", and so is {target.address} {port}" if own is PortState.CLOSED else ""),
            f"start the server, or remove the port from {', '.join(target.services)}",
            on=name,
        )  # fmt: skip
    else:
        how = "is rejected by a filter" if state is PortState.REJECTED else "does not answer"
        yield Finding(
            "firewall", Severity.ERROR, name,
            f"{name} accepts packets for {vip}, but {port} {how}"
            + (f"; {target.address} {port} is open" if serves else ""),
            f"allow {vip} {port} in the firewall of {name} (nft list ruleset)",
            certain=serves or state is PortState.REJECTED, on=name,
        )  # fmt: skip


def _icmp(reply: Reply) -> str:
    text = {
        4: {
            (3, 0): "net unreachable", (3, 1): "host unreachable",
            (3, 2): "protocol unreachable", (3, 3): "port unreachable",
        },
        6: {
            (1, 0): "no route", (1, 3): "address unreachable", (1, 4): "port unreachable",
            (4, 1): "unrecognized next header",
        },
    }[reply.source.version].get(reply.icmp, "administratively prohibited")  # fmt: skip
    return f'ICMP "{text}" from {reply.source}'
