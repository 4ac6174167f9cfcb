"""The fields of packets as nft expressions, by IP version (4, 6).

Protocols are numbers: their names need /etc/protocols, which a minimal machine does not have.

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
# With one hash for both, a table of 262,144 flows would have a collision every few thousand flows.
# With two, only flows that share client port and service port can collide, which hardly ever
# happens.
KEY_SEEDS = (0x54756C61, 0x616C7554)
KEY_RANGE = 0xFFFFFFFF


def _four_byte_loads(base: str, first: int, bits: int) -> str:
    """A long field in loads of 4 bytes, which take nft_payload's fast path (nf_tables_core.c)."""
    return " . ".join(f"@{base},{at},32" for at in range(first, first + bits, 32))


def _two_hashes(addresses: str, ports: str) -> str:
    hashed = zip((addresses, ports), KEY_SEEDS, strict=True)
    return " . ".join(f"jhash {fields} mod {KEY_RANGE} seed {seed:#x}" for fields, seed in hashed)


FLOW_KEY = {4: FLOW_KEY4, 6: _two_hashes(_four_byte_loads("nh", 64, 256), "th sport . th dport")}
"""The flow table's key."""

HOT_KEY4 = "@nh,96,32 . @nh,128,32 . @th,0,32"
HOT_KEY = {
    4: HOT_KEY4,
    6: f"jhash {_four_byte_loads('nh', 64, 256)} mod {KEY_RANGE} seed {KEY_SEEDS[0]:#x} . @th,0,32",
}
"""The hot table's key: cheaper, as it need not match ICMP errors, whose ports are reversed."""

CLIENT = {4: "@nh,96,32", 6: _four_byte_loads("nh", 64, 128)}
CLIENT_PORT = "@th,0,16"
"""What the hash is of. By their names, ``ip saddr`` and ``th sport``, nft would first ask for the
protocol again, in each rule."""

CLIENT_FIELD = {4: "@nh,96,32", 6: "@nh,64,128"}
"""The same as one field, which can be masked and is the key of persistent clients, and of sets of
prefixes."""


def masked(field: str, version: int, bits: int) -> str:
    """The first bits of a client's address; of all of them the field as it is."""
    length = 32 if version == 4 else 128
    if bits == length:
        return field
    return f"{field} & {((1 << bits) - 1) << (length - bits):#x}"


def client_key(version: int, bits: int) -> str:
    """The key of a persistent client that is told by that many bits of its address."""
    return masked(CLIENT_FIELD[version], version, bits)


CLIENT_GROUP = {4: "@nh,96,32", 6: "@nh,64,64"}
"""What counts as one client where connections are counted: an address; of IPv6 a subnet of 64 bits,
of which any machine may use any address (RFC 4291, section 2.5.4; RFC 8981)."""

FRAGMENT_KEY4 = "ip saddr . ip daddr . ip id . ip protocol"
FRAGMENT_KEY = {
    4: FRAGMENT_KEY4,
    6: f"jhash ip6 saddr . ip6 daddr . frag id mod {KEY_RANGE} seed {KEY_SEEDS[0]:#x}",
}
"""The fields that all fragments of a datagram share (RFC 791; RFC 8200, section 4.5)."""


@dataclass(frozen=True, slots=True)
class Inner:
    """The packet inside an ICMP error: the backend's answer, from VIP to client.

    The VIP is read from the outer header, as its destination: an error sent to another address is
    never taken for one about a service, whatever it claims to contain.
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


# As offsets, like the inner fields, for which nft has no names: they are keys of the same maps.
_OUTER_VIP = {4: "@nh,128,32", 6: "@nh,192,128"}
INNER = {
    4: (Inner(4, "@th,136,8", "@th,192,32", "@th,240,16", "@th,224,16"),),
    6: (
        Inner(6, "@th,112,8", "@th,256,128", "@th,400,16", "@th,384,16"),
        # IPv6 routers do not fragment. An answer too big for the path may itself be a fragment,
        # and the first one of a datagram contains the ports (RFC 8200, section 4.5).
        Inner(
            *(6, "@th,384,8", "@th,256,128", "@th,464,16", "@th,448,16"),
            match="@th,112,8 44 @th,400,16 & 0xfff8 == 0 ",
        ),
    ),
}
"""The forms that the inner packet may have."""

# A header of 20 bytes: the ports are where FLOW_KEY4 reads them. Packets with IPv4 options go by
# hash: no key of 16 bytes finds their ports (nft 1.0.6 gives "@th,0,16" a type of its own).
PLAIN_HEADER = {4: "@nh,0,8 0x45 ", 6: ""}
FIRST_FRAGMENT = {4: "ip frag-off & 0x2000 != 0", 6: "exthdr frag exists"}
LATER_FRAGMENT = {4: "ip frag-off & 0x1fff != 0", 6: "frag frag-off != 0"}
READABLE = "@th,0,24 >= 0"
"""True where the kernel finds a transport header and the packet is not a later fragment.

A load of 3 bytes takes nft_payload's slow path, which unlike loads of 1, 2 or 4 bytes refuses
later fragments. It catches what LATER_FRAGMENT[6] misses: the second of two fragment headers.
"""


def unfragmented(version: int, protocol: int) -> str:
    """Matches packets of a protocol (by its number) that are not fragments, in the fewest loads.

    It may match crafted packets of the other IP version: match the frame's type too.
    """
    # IPv4: bytes 6 to 9 are flags and fragment offset, TTL, protocol. IPv6: byte 6 is the next
    # header, so that no packet with extension headers matches.
    return f"@nh,48,32 & 0x3fff00ff == {protocol:#x} " if version == 4 else f"@nh,48,8 {protocol} "


ETHERNET = {4: "@ll,96,16 0x0800 ", 6: "@ll,96,16 0x86dd "}
"""Matches frames by their Ethernet type, read where it stands.

A tagged frame shows the tag's type there, also when the card has taken the tag out
(nft_payload_copy_vlan): it does not belong to the parent interface. ``ether type`` would first ask
what kind of interface it is, which costs 50 ns.
"""
BY_PROTOCOL = {4: "meta protocol ip ", 6: "meta protocol ip6 "}
"""Matches packets by the protocol that the kernel found, whatever is in front of them: for
interfaces without an Ethernet header, and for frames whose tag says nothing of a VLAN."""
PRIORITY_TAGGED = tuple(
    f"@ll,96,16 {tag} @ll,112,16 & 0x0fff == 0 " for tag in ("0x8100", "0x88a8")
)
"""Matches frames with a tag of VLAN 0, which says their priority only: the kernel takes them as
untagged (IEEE 802.1Q, table 9-2; __netif_receive_skb_core)."""


def whole_packet(version: int, frame: str) -> str:
    """Matches packets for this host; of IPv4 no fragments, which the key of IPv6's dispatch
    excludes."""
    whole = "ip frag-off & 0x3fff == 0 " if version == 4 else ""
    return f"meta pkttype host {frame}{whole}"


def maybe_fragment(version: int, frame: str) -> str:
    """Matches fragments; for IPv6 also extension headers, which a fragment header may follow."""
    if version == 4:
        return f"{frame}ip frag-off & 0x3fff != 0 "
    return f"{frame}ip6 nexthdr != 6 ip6 nexthdr != 17 "


PROTOCOL = {4: "ip protocol", 6: "ip6 nexthdr"}
"""The protocol, where no extension headers precede it: cheaper than ``meta l4proto``."""

ICMP_ERROR = {
    4: ("ip protocol 1 icmp type { destination-unreachable, time-exceeded, parameter-problem } "),
    6: "meta l4proto 58 icmpv6 type 1-4 ",
}
"""Matches the errors of ICMP (RFC 792) and ICMPv6 (RFC 4443, section 2.1)."""

INNER_UNREADABLE = {
    4: ("@th,64,8 != 0x45", "@th,112,16 & 0x1fff != 0"),
    6: (),
}
"""Matches inner packets whose ports INNER cannot read: with options, or later fragments."""
