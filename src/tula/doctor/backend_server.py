"""Whether something listens on a backend's VIPs, and whether packets reach it. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor.chains import Eats, Sample, eats
from tula.doctor.own_side import OwnSide
from tula.doctor.scene import Scene
from tula.model.config import IPAddress, Protocol, VirtualService
from tula.model.finding import Finding, Severity

_MANY = 16
"""Ports of a range that are looked at: a wide one need not be served whole."""


def judge_servers(_scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """A server for each port, on the VIP or on all addresses."""
    for service, _ in own.role.serves:
        for protocol in service.protocols:
            ports = _ports(service)
            for vip in service.vips:
                closed = [p for p in ports if not _listens(own, protocol, vip, p)]
                # Of a range, one that is served will do.
                for port in closed if len(closed) == len(ports) else ():
                    yield _silent(own, protocol, vip, port)


def _ports(service: VirtualService) -> list[int]:
    return [p for r in service.ports for p in range(r.first, min(r.last, r.first + _MANY) + 1)]


def _listens(own: OwnSide, protocol: Protocol, vip: IPAddress, port: int) -> bool:
    return any(
        (kind, at) == (protocol, port) and _reaches(address, vip)
        for kind, address, at in own.listeners
    )


def _reaches(address: IPAddress, vip: IPAddress) -> bool:
    # A socket of :: takes IPv4 too, unless it says otherwise, which /proc does not tell.
    return address == vip or (address.is_unspecified and (address.version == 6 or vip.version == 4))


def _silent(own: OwnSide, protocol: Protocol, vip: IPAddress, port: int) -> Finding:
    elsewhere = sorted({str(a) for kind, a, at in own.listeners if (kind, at) == (protocol, port)})
    if elsewhere:
        return Finding(
            "listens-elsewhere", Severity.ERROR, str(vip),
            f"{protocol} port {port} is served on {', '.join(elsewhere)}, and not on {vip}",
            f"have the server listen on {vip}, or on all addresses",
        )  # fmt: skip
    return Finding(
        "not-listening", Severity.ERROR, str(vip),
        f"nothing listens on {protocol} port {port}",
        "start the server",
    )  # fmt: skip


def judge_firewall(_scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """Chains of others that drop what is for a VIP, as far as their rules can be read."""
    for service, _ in own.role.serves:
        for vip in service.vips:
            for protocol in service.protocols:
                port = next(iter(_ports(service)), None)
                yield from _eaten(own, Sample(vip, protocol.number, port))


def _eaten(own: OwnSide, sample: Sample) -> Iterator[Finding]:
    for chain in own.chains:
        if chain.family == {4: "ip6", 6: "ip"}[sample.vip.version]:
            continue
        if eats(chain, sample) is not Eats.YES:
            continue
        port = f" port {sample.port}" if sample.port is not None else ""
        name = {6: "tcp", 17: "udp"}[sample.protocol]
        family = "ip" if sample.vip.version == 4 else "ip6"
        match = f"{name} dport {sample.port} " if sample.port is not None else ""
        yield Finding(
            "firewall", Severity.ERROR, str(sample.vip),
            f"the chain {chain} ({chain.hook}) drops packets for {sample.vip} {name}{port}",
            "allow them there",
            commands=(f"nft insert rule {chain} {family} daddr {sample.vip} {match}accept",),
        )  # fmt: skip
