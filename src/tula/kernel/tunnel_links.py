"""Tunnel devices as rtnetlink's attributes: as they are requested, and as they are read back.

Sources: if_link.h and if_tunnel.h for the numbers; ipip.c, sit.c, ip_gre.c, ip6_tunnel.c,
ip6_gre.c and vxlan_core.c for what they mean.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from tula.dataplane.nft.tunnel_devices import GROUP, LEAVING, SYNC_DEVICE, TunnelDevice
from tula.model.config import IPAddress

_INHERIT_TOS = 1
"""The outer TOS is the inner one's; ECN as RFC 6040 has it either way (inet_ecn.h)."""
_ENCAP_GUE = 2
_ENCAP_CSUM6 = 1 << 1
_IGNORE_ENCAP_LIMIT = 1 << 0
_ORIGINAL_TCLASS = 1 << 1
_UP = 1

Attributes = dict[str, Any]


def link_attributes(device: TunnelDevice) -> Attributes:
    """The device's own attributes, without the prefix that its kind gives them."""
    if device.kind == "vxlan":
        found: Attributes = {"id": device.vni, "port": device.port, "learning": 0}
        suffix = "" if device.local.version == 4 else "6"
        found |= {f"local{suffix}": str(device.local)}
        return found | {"ttl": device.ttl, "tos": _INHERIT_TOS}
    found = {"local": str(device.local), "remote": str(device.remote), "ttl": device.ttl}
    if device.bound:
        found["link"] = device.bound
    if device.kind in ("ip6tnl", "ip6gre"):
        found["flags"] = _IGNORE_ENCAP_LIMIT | _ORIGINAL_TCLASS
    else:
        found |= {"tos": _INHERIT_TOS, "pmtudisc": int(not device.fragments)}
    if device.kind in ("sit", "ip6tnl"):
        found["proto"] = 0  # any: IPv4 and IPv6 inside
    if device.kind == "gre":
        found["ignore_df"] = int(device.fragments)
    if device.gue_port:
        flags = _ENCAP_CSUM6 if device.local.version == 6 else 0
        found |= {"encap_type": _ENCAP_GUE, "encap_sport": 0, "encap_dport": device.gue_port}
        found["encap_flags"] = flags
    return found


def add_request(device: TunnelDevice) -> Attributes:
    """The arguments of pyroute2's ``link("add", ...)``."""
    own = {f"{device.kind}_{name}": value for name, value in link_attributes(device).items()}
    request: Attributes = {"ifname": device.name, "kind": device.kind, "index": device.index}
    return request | {"mtu": device.mtu, "group": GROUP} | own


def is_ours(link: Any) -> bool:
    """Whether Tula made this interface."""
    return link.get_attr("IFLA_GROUP") in (GROUP, LEAVING)


def read_device(link: Any) -> TunnelDevice | None:
    """The device that a link of Tula's is; None if it is none, is down, or is being removed."""
    info = link.get_attr("IFLA_LINKINFO")
    kind = str(info.get_attr("IFLA_INFO_KIND")) if info is not None else ""
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    if data is None or not link["flags"] & _UP or link.get_attr("IFLA_GROUP") == LEAVING:
        return None
    prefix = f"IFLA_{kind.upper()}_"

    def read(name: str) -> Any:
        return data.get_attr(prefix + name.upper())

    try:
        device = _vxlan(link, read) if kind == "vxlan" else _point_to_point(link, kind, read)
    except ValueError:
        return None
    same = all(
        _holds(name, read(name) or 0, value) for name, value in link_attributes(device).items()
    )
    return device if same else None


def _holds(name: str, found: Any, asked: Any) -> bool:
    """Whether the kernel reports what was requested; it leaves out what is empty."""
    if name == "flags":  # ip6_tunnel.c adds capabilities (IP6_TNL_F_CAP_XMIT, ...)
        return bool(found & asked == asked)
    return asked in ("0.0.0.0", "::") or found == asked


def _point_to_point(link: Any, kind: str, read: Any) -> TunnelDevice:
    return TunnelDevice(
        kind=kind,
        local=ip_address(read("local") or ""),
        remote=ip_address(read("remote") or ""),
        mtu=link.get_attr("IFLA_MTU"),
        ttl=read("ttl") or 0,
        fragments=kind in ("ipip", "sit", "gre") and not read("pmtudisc"),
        bound=read("link") or 0,
        gue_port=(read("encap_dport") or 0) if read("encap_type") == _ENCAP_GUE else 0,
        index=link["index"],
    )


def _vxlan(link: Any, read: Any) -> TunnelDevice:
    local = read("local") or read("local6")
    anywhere: tuple[IPAddress, ...] = (IPv4Address(0), IPv6Address(0))
    choices = (ip_address(local),) if local else anywhere
    name = link.get_attr("IFLA_IFNAME")
    devices = [
        TunnelDevice(
            kind="vxlan",
            local=choice,
            remote=None,
            mtu=link.get_attr("IFLA_MTU"),
            ttl=read("ttl") or 0,
            fragments=True,
            vni=read("id") or 0,
            port=read("port") or 0,
            index=link["index"],
            called=name if name == SYNC_DEVICE else "",
        )
        for choice in choices
    ]
    # The kernel does not report the family of a device without an address; its name shows it.
    return next((device for device in devices if device.name == name), devices[0])
