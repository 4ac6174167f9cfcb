"""Packets made by hand, sent from a client to the balancer, and where they arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from support.packets import Watch, address_of, vip_of
from tula.lab import Host, Network, send_frame, udp_ask, wait_until

PAYLOAD_AT = {4: 20, 6: 40}
"""Where the transport header begins behind a header without options."""


class Crafted:
    """Sends from the network's first client to the balancer's MAC."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.client, self.lb = network.client, network.lb
        self._macs = Ether(src=self.client.mac(), dst=self.lb.mac())
        self._addresses = {family: address_of(self.client, family) for family in (4, 6)}

    def ip(self, family: int, destination: str = "", **fields: Any) -> Any:
        """A scapy header from the client to the first VIP, or to another destination."""
        to = destination or vip_of(self.network, family)
        header = IP if family == 4 else IPv6
        return header(**{"src": self._addresses[family], "dst": to, **fields})

    def udp(
        self, family: int, sport: int, dport: int, payload: bytes, destination: str = ""
    ) -> bytes:
        """A whole UDP header and payload, with the checksum of its addresses."""
        whole = self.ip(family, destination) / UDP(sport=sport, dport=dport) / Raw(payload)
        return bytes(whole)[PAYLOAD_AT[family] :]

    def pieces(
        self,
        family: int,
        whole: bytes,
        number: int,
        cuts: Sequence[int],
        protocol: int = 17,
        **fields: Any,
    ) -> list[Any]:
        """The fragments of a datagram, cut at these offsets (multiples of 8), in order."""
        edges = [0, *cuts, len(whole)]
        made = []
        for start, end in pairwise(edges):
            more = int(end < len(whole))
            chunk = Raw(whole[start:end])
            if family == 4:
                ip = self.ip(4, id=number, flags=more, frag=start // 8, proto=protocol, **fields)
                made.append(ip / chunk)
            else:
                part = IPv6ExtHdrFragment(nh=protocol, offset=start // 8, m=more, id=number)
                made.append(self.ip(6, nh=44, **fields) / part / chunk)
        return made

    def send(self, *packets: Any) -> None:
        """Send IP packets: scapy's, or bytes (of IPv4 or IPv6 by their first four bits)."""
        send_frame(self.client, "eth0", *(self.frame(packet) for packet in packets))

    def frame(self, packet: Any) -> bytes:
        """The packet behind the MACs."""
        data = bytes(packet)
        kind = 0x86DD if data and data[0] >> 4 == 6 else 0x0800
        return bytes(self._macs)[:12] + kind.to_bytes(2, "big") + data

    def settle(self, family: int, port: int) -> None:
        """Everything sent before has gone its way: whole datagrams behind it were answered."""
        for _ in range(2):
            udp_ask(self.client, vip_of(self.network, family), port, source_port=61000)

    def named_counters(self) -> dict[str, int]:
        """Packets of the balancer's counters by their names."""
        listed = self.lb.run(["nft", "list", "counters", "table", "netdev", "tula"]).stdout
        words = listed.replace("{", " ").replace("}", " ").split()
        return {
            words[at + 1]: int(words[at + 3]) for at, word in enumerate(words) if word == "counter"
        }


def arrivals(watch: Watch, backends: Iterable[Host], tail: bytes) -> dict[str, int]:
    """How many frames ending in ``tail`` each backend received; those without any left out."""
    found = {
        host.name: sum(tail in frame for frame in watch.frames(host, outgoing=False))
        for host in backends
    }
    return {name: count for name, count in found.items() if count}


def wait_arrivals(
    watch: Watch, backends: Sequence[Host], tail: bytes, count: int
) -> dict[str, int]:
    """The same, once so many have arrived."""

    def enough() -> dict[str, int]:
        found = arrivals(watch, backends, tail)
        return found if sum(found.values()) >= count else {}

    return wait_until(enough, what=f"{count} frames with {tail!r}")
