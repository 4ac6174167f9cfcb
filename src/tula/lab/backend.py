"""A host made into a backend of Direct Server Return, by hand."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from tula.lab.host import Host


def prepare_backend(host: Host, vips: Iterable[str], ifname: str = "eth0") -> None:
    """Put the VIPs on lo and keep quiet about them.

    ARP for a VIP must find the balancer alone: ``arp_ignore=1`` answers only for addresses of
    the interface that was asked, ``arp_announce=2`` never names the VIP as the sender. IPv6
    needs neither: neighbour discovery answers for the interface's own addresses only.
    """
    for scope in ("all", ifname):
        host.write_sysctl(f"net/ipv4/conf/{scope}/arp_ignore", 1)
        host.write_sysctl(f"net/ipv4/conf/{scope}/arp_announce", 2)
    host.add_address("lo", *(f"{ip_address(vip)}/{32 if ':' not in vip else 128}" for vip in vips))
