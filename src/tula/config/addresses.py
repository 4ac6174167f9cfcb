"""Readers of addresses, ports and names."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

from tula.config.errors import shown
from tula.config.scalars import as_bool, invalid, read_int
from tula.config.tree import Plain
from tula.model.config import SELF, IPAddress, PortRange
from tula.model.listening import Endpoint
from tula.model.prefixes import IPNetwork
from tula.model.setting import Integer

LEVELS = Integer(1, 255)
"""Of backups."""
NAME = r"[a-z0-9-]{1,63}"
INTERFACE = r"[A-Za-z0-9._@+-]{1,15}"
"""The kernel allows more; what nft, sysctl paths or a shell would misread is left out."""

_BROADCAST = IPv4Address("255.255.255.255")
_NAME = re.compile(NAME)
_INTERFACE = re.compile(INTERFACE)
_PORTS = "expected a list of ports such as [80, 443, 8000-8010], or any"
_ENDPOINT = "give one such as '10.0.0.2:8420' or '[2001:db8::2]:8420'"
_PORT_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


def read_address(value: object) -> IPAddress:
    """An address of one machine, IPv4 or IPv6, without prefix length, zone or port."""
    if isinstance(value, dict) and len(value) == 1 and all(":" in key for key in value):
        # 2001:db8:: at the end of a line is a key to YAML.
        raise invalid("expected an address; quote an IPv6 address that ends in a colon")
    if not isinstance(value, str):
        raise invalid(f"expected an address such as 198.51.100.10; got {shown(value)}")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise invalid(_invalid_address(value)) from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise invalid(f"{shown(value)} has a zone; give the address without the %")
        if address.ipv4_mapped is not None:
            raise invalid(f"{shown(value)} is an IPv4 address in IPv6; write {address.ipv4_mapped}")
    if kind := _unusable(address):
        raise invalid(f"{address} is {kind}; give the address of one machine")
    return address


def read_backend_address(value: object) -> IPAddress:
    """One of a backend's addresses, of which SELF is none."""
    if value == SELF:
        raise invalid("self stands alone: it is each balancer itself; give self or addresses")
    return read_address(value)


def read_prefix(value: object) -> IPNetwork:
    """An address or a prefix, IPv4 or IPv6, whose bits beyond its length are 0."""
    if isinstance(value, str) and "/" not in value:
        return ipaddress.ip_network(read_address(value))
    if not isinstance(value, str):
        raise invalid(f"expected a prefix such as 10.0.0.0/8; got {shown(value)}")
    try:
        return ipaddress.ip_network(value)
    except ValueError:
        pass
    try:
        found = ipaddress.ip_network(value, strict=False)
    except ValueError:
        message = f"{shown(value)} is not a prefix; give one such as 10.0.0.0/8 or 2001:db8::/32"
        raise invalid(message) from None
    raise invalid(f"{shown(value)} has bits beyond its length; write {found}")


def read_backup(value: object) -> int:
    """The level of a backup: 0 for false, 1 for true."""
    boolean = as_bool(value)
    if boolean is not None:
        return int(boolean)
    if not isinstance(value, Plain) or not value.lstrip("+-").isdigit():
        raise invalid(f"expected true, false or a level from 1 to 255; got {shown(value)}")
    return read_int(value, LEVELS.low, LEVELS.high)


def read_name(value: object) -> str:
    """A service's or backend's name."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return str(value)
    raise invalid(f"invalid name {shown(value)}; use 1 to 63 of a-z, 0-9 and - (hyphen)")


def read_interface(value: object) -> str:
    """A network interface's name."""
    if isinstance(value, str) and _INTERFACE.fullmatch(value) and value not in (".", ".."):
        return str(value)
    if not isinstance(value, str):
        raise invalid(f"expected the name of an interface such as eth0; got {shown(value)}")
    raise invalid(
        f"invalid interface name {shown(value)}; use 1 to 15 letters, digits and . _ - @ +"
    )


def read_announce(value: object) -> bool | str:
    """true, false, vrrp, bgp, or an interface's name."""
    boolean = as_bool(value)
    if boolean is not None:
        return boolean
    if not isinstance(value, str):
        raise invalid(
            f"expected true, false, vrrp, bgp or the name of an interface; got {shown(value)}"
        )
    return read_interface(value)


def as_port_list(value: object) -> object:
    """What ``ports`` gives as a list: ``any`` is the empty one, a single port a list of one."""
    if isinstance(value, str):
        return [] if value == "any" else [value]
    if not isinstance(value, list):
        raise invalid(f"{_PORTS}; got {shown(value)}")
    if not value:
        raise invalid(f"{_PORTS}; got an empty list")
    return value


def read_ports(value: object) -> PortRange:
    """One port, or a range ``8000-8010``, 1 to 65535."""
    if isinstance(value, PortRange):
        return value
    if not isinstance(value, str):
        raise invalid(
            f"expected a port such as 80 or a range such as 8000-8010; got {shown(value)}"
        )
    if found := _PORT_RANGE.fullmatch(value):
        first, last = (_end_of_range(part, value) for part in found.groups())
        if first > last:
            raise invalid(f"{value} is reversed; write {last}-{first}")
        return PortRange(first, last)
    if re.fullmatch(r"[+-]?[0-9]+|0x[0-9a-fA-F]+", value):
        port = read_int(Plain(value), 1, 65535)
        return PortRange(port, port)
    raise invalid(_invalid_port(value))


def read_endpoint(value: object) -> Endpoint:
    """An address of this machine with a TCP port, an IPv6 address in brackets; ``0.0.0.0`` and
    ``[::]`` are all addresses of a family."""
    if not isinstance(value, str):
        raise invalid(f"expected an address with a port; got {shown(value)}; {_ENDPOINT}")
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = value.strip("[]")
    if not colon or ("]" not in bare and _parses(bare)):
        raise invalid(_without_port(value))
    if not host:
        raise invalid(f"{shown(value)} has no address; write '0.0.0.0{value}' for all of IPv4")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        what = _invalid_address(host).partition(";")[2] or " give an IPv4 or IPv6 address"
        raise invalid(f"invalid address in {shown(value)};{what}") from None
    if bracketed != (address.version == 6):
        raise invalid(f"invalid address {shown(value)}; {_ENDPOINT}")
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise invalid(f"{shown(value)} has a zone; give an address without the %")
        if address.ipv4_mapped is not None:
            mapped = f"{address.ipv4_mapped}:{port}"
            raise invalid(f"{shown(value)} is an IPv4 address in IPv6; write {mapped}")
    kind = _unusable(address)
    if kind and not (address.is_unspecified or address.is_loopback):
        raise invalid(f"{address} is {kind}; give an address of this machine")
    return Endpoint(address, read_int(Plain(port), 1, 65535))


def _without_port(text: str) -> str:
    bare = text.strip("[]")
    if len(text) <= 60 and _parses(bare):
        host = f"[{bare}]" if ":" in bare else bare
        return f"{shown(text)} has no port; write {shown(f'{host}:8420')}"
    if len(text) <= 5 and text.isdecimal():
        return f"{text} has no address; write '0.0.0.0:{text}' for all of IPv4"
    return f"{shown(text)} has no port; {_ENDPOINT}"


def _invalid_address(text: str) -> str:
    if len(text) <= 60:
        plain = re.sub(r"(?<![0-9a-fA-F:.])0+(?=[0-9])|(?<=\.)0+(?=[0-9])", "", text)
        if plain != text and _parses(plain):
            # Some programs read 010 as eight.
            return f"{shown(text)} has leading zeros; write {plain}"
        head, slash, tail = text.partition("/")
        if slash and _parses(head):
            return f"{shown(text)} has a prefix length; give {head} without the /{tail[:20]}"
        head = text.rpartition(":")[0].strip("[]")
        if _parses(head):
            return f"{shown(text)} has a port; give {head} alone, and the port in ports"
        if _parses(text.strip("[] ")):
            return f"invalid address {shown(text)}; write {text.strip('[] ')}"
        if "," in text or " " in text:
            return f"invalid address {shown(text)}; give several as a list, such as [A, B]"
        if re.fullmatch(r"[A-Za-z0-9-]*[A-Za-z][A-Za-z0-9-]*(\.[A-Za-z0-9-]+)*", text):
            return f"invalid address {shown(text)}; names are not looked up, give the address"
    return f"invalid address {shown(text)}; give an IPv4 or IPv6 address such as 198.51.100.10"


def _parses(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _unusable(address: IPAddress) -> str | None:
    if address.is_unspecified:
        return "the unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_multicast:
        return "a multicast address"
    if address == _BROADCAST:
        return "the broadcast address"
    if isinstance(address, IPv6Address) and address.is_link_local:
        return "a link-local address"
    return None


def _end_of_range(text: str, whole: str) -> int:
    port = read_int(Plain(text), 0, 999999999)
    if not 1 <= port <= 65535:
        raise invalid(f"{whole} is out of range; give ports from 1 to 65535")
    return port


def _invalid_port(text: str) -> str:
    if text == "any":
        return "any must stand alone; write ports: any, or remove it from the list"
    if text in ("all", "*"):
        return f"invalid port {shown(text)}; write any"
    if len(text) <= 60:
        if found := re.fullmatch(r"([0-9]{1,5}) *(?:-|:|\.\.|–| to ) *([0-9]{1,5})", text):
            return f"invalid port range {shown(text)}; write {found[1]}-{found[2]}"
        if re.fullmatch(r"[0-9-]+([, ]+[0-9-]+)+", text):
            return (
                f"invalid port {shown(text)}; write a list: [{', '.join(re.split('[, ]+', text))}]"
            )
    return f"invalid port {shown(text)}; {_PORTS}"
