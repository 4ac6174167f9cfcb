"""What UDP servers are asked, so that they answer: silence tells nothing else. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import dns.exception
import dns.message

from tula.model.config import Protocol, VirtualService
from tula.model.monitor import DnsProbe, HealthMonitor, UdpProbe

_DNS_PORT = 53
_ROOT = bytes.fromhex("547501000001000000000000" + "00" + "00020001")
"""The name servers of the root: any DNS server says something to that, if only that it refuses."""


def udp_payloads(services: Iterable[VirtualService]) -> dict[int, bytes]:
    """By port: a monitor's question, and DNS for its usual port."""
    found: dict[int, bytes] = {}
    for service in services:
        if Protocol.UDP not in service.protocols:
            continue
        for monitor in service.health:
            payload = _asked(monitor)
            if payload:
                for port in _ports(service, monitor):
                    found.setdefault(port, payload)
    found.setdefault(_DNS_PORT, _ROOT)
    return found


def _asked(monitor: HealthMonitor) -> bytes:
    probe = monitor.probe
    if isinstance(probe, UdpProbe):
        return probe.send.encode() if probe.expect else b""
    if isinstance(probe, DnsProbe):
        try:
            query = dns.message.make_query(probe.name, probe.record)
        except (dns.exception.DNSException, ValueError):
            return b""
        return query.to_wire()
    return b""


def _ports(service: VirtualService, monitor: HealthMonitor) -> list[int]:
    """The port that the monitor names, else the service's single ones."""
    if monitor.port:
        return [monitor.port]
    return [ports.first for ports in service.ports if ports.first == ports.last]
