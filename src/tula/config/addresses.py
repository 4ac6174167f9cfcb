"""Readers of addresses and of names."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

from tula.config.scalars import as_bool, fault
from tula.config.shown import shown
from tula.model.config import IPAddress

NAME = r"[a-z0-9-]{1,63}"
INTERFACE = r"[A-Za-z0-9._@+-]{1,15}"
"""The kernel allows more; what nft, sysctl paths or a shell would misread is left out."""

_NAME = re.compile(NAME)
_INTERFACE = re.compile(INTERFACE)


def read_address(value: object) -> IPAddress:
    """An address of one machine, IPv4 or IPv6, without prefix length, zone or port."""
    if isinstance(value, dict) and len(value) == 1 and all(":" in key for key in value):
        # 2001:db8:: at the end of a line is a key to YAML.
        raise fault("expected an address; quote an IPv6 address that ends in a colon")
    if not isinstance(value, str):
        raise fault(f"expected an address such as 198.51.100.10; got {shown(value)}")
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise fault(_no_address(value)) from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise fault(f"{shown(value)} has a zone; give the address without the %")
        if address.ipv4_mapped is not None:
            raise fault(f"{shown(value)} is an IPv4 address in IPv6; write {address.ipv4_mapped}")
    if kind := _unusable(address):
        raise fault(f"{address} is {kind}; give the address of one machine")
    return address


def read_name(value: object) -> str:
    """A service's or backend's name."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return str(value)
    raise fault(f"{shown(value)} is no name; use 1 to 63 of a-z, 0-9 and - (hyphen)")


def read_interface(value: object) -> str:
    """A network interface's name."""
    if isinstance(value, str) and _INTERFACE.fullmatch(value) and value not in (".", ".."):
        return str(value)
    if not isinstance(value, str):
        raise fault(f"expected the name of an interface such as eth0; got {shown(value)}")
    raise fault(f"{shown(value)} is no interface name; use 1 to 15 letters, digits and . _ - @ +")


def read_announce(value: object) -> bool | str:
    """true, false, or an interface's name."""
    boolean = as_bool(value)
    if boolean is not None:
        return boolean
    if not isinstance(value, str):
        raise fault(f"expected true, false or the name of an interface; got {shown(value)}")
    return read_interface(value)


def _no_address(text: str) -> str:
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
            return f"{shown(text)} is no address; write {text.strip('[] ')}"
        if "," in text or " " in text:
            return f"{shown(text)} is no address; give several as a list, such as [A, B]"
        if re.fullmatch(r"[A-Za-z0-9-]*[A-Za-z][A-Za-z0-9-]*(\.[A-Za-z0-9-]+)*", text):
            return f"{shown(text)} is no address; names are not looked up, give the address"
    return f"{shown(text)} is no IPv4 or IPv6 address; give one such as 198.51.100.10"


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
    if address == IPv4Address("255.255.255.255"):
        return "the broadcast address"
    if isinstance(address, IPv6Address) and address.is_link_local:
        return "a link-local address"
    return None
