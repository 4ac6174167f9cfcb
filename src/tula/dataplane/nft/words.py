"""The fields of packets in nft's words, by IP version (4, 6).

Protocols are numbers: their names need /etc/protocols, which a bare machine has not.

Offsets are in bits from the network header (@nh) or the transport header (@th). Fields without
a name of their own have no type either, which lets one map serve a packet's own flow and the
flow inside an ICMP error.
"""

from __future__ import annotations

from dataclasses import dataclass

VERSIONS = (4, 6)
IP = {4: "ip", 6: "ip6"}

# IPv4 flows: client, its port, VIP, its port, read behind a header without options. 16 bytes are
# the most that nft 1.0.6 takes as the key of a map that packets fill.
FLOW_KEY4 = "@nh,96,32 . @nh,160,16 . @nh,128,32 . @nh,176,16"

# IPv6 flows do not fit into 16 bytes: a hash of the addresses and one of the ports stand for them.
# With one hash for all, two flows of a table of 262,144 would meet every few thousand flows; of
# those that share client port and service port, as here, hardly ever.
KEY_SEEDS = (0x54756C61, 0x616C7554)
KEY_RANGE = 0xFFFFFFFF


def _words(base: str, first: int, bits: int) -> str:
    """A long field in loads of 4 bytes, which take nft_payload's fast way (nf_tables_core.c)."""
    return " . ".join(f"@{base},{at},32" for at in range(first, first + bits, 32))


def _two_hashes(addresses: str, ports: str) -> str:
    hashed = zip((addresses, ports), KEY_SEEDS, strict=True)
    return " . ".join(f"jhash {fields} mod {KEY_RANGE} seed {seed:#x}" for fields, seed in hashed)


FLOW_KEY = {4: FLOW_KEY4, 6: _two_hashes(_words("nh", 64, 256), "th sport . th dport")}
"""The flow table's key."""

HOT_KEY4 = "@nh,96,32 . @nh,128,32 . @th,0,32"
HOT_KEY = {
    4: HOT_KEY4,
    6: f"jhash {_words('nh', 64, 256)} mod {KEY_RANGE} seed {KEY_SEEDS[0]:#x} . @th,0,32",
}
"""The hot table's key: cheaper, as no ICMP error must be found by it, whose ports are reversed."""

FRAGMENT_KEY4 = "ip saddr . ip daddr . ip id . ip protocol"
FRAGMENT_KEY = {
    4: FRAGMENT_KEY4,
    6: f"jhash ip6 saddr . ip6 daddr . frag id mod {KEY_RANGE} seed {KEY_SEEDS[0]:#x}",
}
"""What all fragments of a datagram share (RFC 791; RFC 8200, section 4.5)."""


@dataclass(frozen=True, slots=True)
class Inner:
    """Inside an ICMP error, whose inner packet is the backend's answer: from VIP to client.

    The VIP is read from the outer header, whose destination it is: an error for another address
    is never taken for one about a service, whatever it claims to hold.
    """

    version: int
    protocol: str
    client: str
    client_port: str
    port: str
    match: str = ""

    @property
    def vip(self) -> str:
        """VIP and protocol, for the dispatch."""
        return f"{_OUTER_VIP[self.version]} . {self.protocol}"

    @property
    def key(self) -> str:
        """The flow table's key."""
        vip = _OUTER_VIP[self.version]
        if self.version == 4:
            return f"{self.client} . {self.client_port} . {vip} . {self.port}"
        return _two_hashes(f"{self.client} . {vip}", f"{self.client_port} . {self.port}")


# Without nft's names for them, as the inner fields have none: they share the maps.
_OUTER_VIP = {4: "@nh,128,32", 6: "@nh,192,128"}
INNER = {
    4: (Inner(4, "@th,136,8", "@th,192,32", "@th,240,16", "@th,224,16"),),
    6: (
        Inner(6, "@th,112,8", "@th,256,128", "@th,400,16", "@th,384,16"),
        # IPv6 routers do not fragment: an answer too big for the path may itself be a fragment,
        # and the first of a datagram still shows the ports (RFC 8200, section 4.5).
        Inner(
            *(6, "@th,384,8", "@th,256,128", "@th,464,16", "@th,448,16"),
            match="@th,112,8 44 @th,400,16 & 0xfff8 == 0 ",
        ),
    ),
}
"""The forms that the inner packet may have."""

# A header of 20 bytes: ports stand where FLOW_KEY4 reads them. Packets with IPv4 options go by
# hash: no key of 16 bytes finds their ports (nft 1.0.6 gives "@th,0,16" a type of its own).
PLAIN_HEADER = {4: "@nh,0,8 0x45 ", 6: ""}
FIRST_FRAGMENT = {4: "ip frag-off & 0x2000 != 0", 6: "exthdr frag exists"}
LATER_FRAGMENT = {4: "ip frag-off & 0x1fff != 0", 6: "frag frag-off != 0"}
READABLE = "@th,0,24 >= 0"
"""True where the kernel finds a transport header and the packet is no later fragment.

A load of 3 bytes takes nft_payload's slow way, which refuses later fragments as loads of 1, 2
or 4 bytes do not. It sees what LATER_FRAGMENT[6] misses: the second of two fragment headers.
"""


def whole(version: int, number: int) -> str:
    """Matches a protocol's packets (by its number) that are no fragments, in the fewest loads.

    It may match packets of the other IP version that were made to look so: ask for the frame's
    type too.
    """
    # IPv4: bytes 6 to 9 are flags and fragment offset, TTL, protocol. IPv6: byte 6 is the next
    # header, so that no packet with extension headers matches.
    return f"@nh,48,32 & 0x3fff00ff == {number:#x} " if version == 4 else f"@nh,48,8 {number} "


USUAL = {
    4: "meta pkttype host ether type ip ip frag-off & 0x3fff == 0 ",
    6: "meta pkttype host ether type ip6 ",
}
"""Matches what is for this host and no fragment; IPv6's dispatch sees to that by its key."""
UNUSUAL = {
    4: "ether type ip ip frag-off & 0x3fff != 0 ",
    6: "ether type ip6 ip6 nexthdr != 6 ip6 nexthdr != 17 ",
}
"""Matches fragments; for IPv6 also extension headers, behind which a fragment header may be."""
PROTOCOL = {4: "ip protocol", 6: "ip6 nexthdr"}
"""The protocol, where no extension headers stand before it: cheaper than ``meta l4proto``."""

ICMP_ERROR = {
    4: ("ip protocol 1 icmp type { destination-unreachable, time-exceeded, parameter-problem } "),
    6: "meta l4proto 58 icmpv6 type 1-4 ",
}
"""Matches the errors of ICMP (RFC 792) and ICMPv6 (RFC 4443, section 2.1)."""

INNER_UNUSUAL = {
    4: ("@th,64,8 != 0x45", "@th,112,16 & 0x1fff != 0"),
    6: (),
}
"""Matches inner packets whose ports stand elsewhere: with options, or later fragments."""
