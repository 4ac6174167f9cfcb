"""keepalived's configuration (keepalived.conf(5), version 2.2.7), rendered from what is wanted.

One VRRPv3 instance (RFC 5798) for the VIPs of both families. All balancers are equal: state
BACKUP, the same base priority, and on top of it the share of the services that are served, from a
file that keepalived watches. Equal views make equal priorities, and then nothing moves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from pathlib import PurePath

from tula.model.announcing import Announcing
from tula.model.config import IPAddress
from tula.model.desired import DesiredVip
from tula.model.high_availability import VipMac, Vrrp
from tula.model.host import OwnedAddress

SERVICES, STANDBY = "services", "standby"
"""The files whose numbers are added to the priority."""

BASE = 150
"""The priority of a balancer that serves nothing."""
_SHARE = 100
_STANDBY = -149
"""Below every balancer that does not stand by, and above 0, which would be FAULT: if all stand
by, one still has the VIPs."""
_REFRESH = 60
"""Seconds between announcements, for switches that forget."""

_DEVICE, _OTHER = "tula-vrrp", "tula-vrrpx"

_HEAD = """\
# Written by Tula, and replaced by it: changes here are lost.
global_defs {{
    router_id {name}
    vrrp_version 3
    vrrp_check_unicast_src
    vrrp_garp_master_repeat 1
    vrrp_garp_master_delay 1
    vrrp_garp_lower_prio_repeat 1
    vrrp_garp_lower_prio_delay 1
    vrrp_garp_master_refresh {refresh}
    vrrp_garp_master_refresh_repeat 1
    vmac_addr_prefix {other}
}}
track_file services {{
    file {directory}/services
    weight 1
}}
track_file standby {{
    file {directory}/standby
    weight 1
}}
vrrp_instance tula {{
    state BACKUP
    interface {interface}
    virtual_router_id {id}
    priority {base}
    advert_int {interval:g}
    preempt_delay {hold_down:g}
    unicast_src_ip {address}
"""
_VIP = re.compile(
    r"^ {8}([0-9a-f.:]+)/(?:32|128)(?: dev (\S+)|( use_vmac)|) (?:scope host|preferred_lft 0)", re.M
)
_VIRTUAL = re.compile(r"^    use_vmac (\S+)$", re.M)
_ANCHORS = {4: "169.254.84.{id}", 6: "fe80::5654:{id:x}"}


def render_keepalived(
    vips: Sequence[DesiredVip], announcing: Announcing | None, directory: PurePath
) -> str | None:
    """The whole file; None where keepalived has nothing to do. ``directory`` holds the files
    SERVICES and STANDBY."""
    vrrp = None if announcing is None else announcing.settings.vrrp
    if not vips or announcing is None or vrrp is None:
        return None
    interface = vrrp.interface or announcing.interface
    lines = [
        _HEAD.format(
            name=announcing.name,
            refresh=_REFRESH,
            other=_OTHER,
            directory=directory,
            interface=interface,
            id=vrrp.id,
            base=BASE,
            interval=vrrp.interval,
            hold_down=announcing.hold_down,
            address=announcing.address,
        )
    ]
    if announcing.peers:
        lines += _block("unicast_peer", [_peer(announcing, each) for _, each in announcing.peers])
    lines += _block("track_file", [SERVICES, STANDBY])
    if vrrp.mac is VipMac.VIRTUAL:
        lines += [f"    use_vmac {virtual_device(vrrp)}\n", "    vmac_xmit_base\n"]
    others = sorted({vip.interface for vip in vips} - {interface})
    # Without a weight, a card that goes would make all VIPs nobody's where all balancers lack it.
    lines += _block("track_interface", [f"{name} weight -40" for name in others])
    lines += _block("virtual_ipaddress", [_anchor(announcing, vrrp)])
    version = announcing.address.version if vrrp.mac is VipMac.VIRTUAL else None
    lines += _block("virtual_ipaddress_excluded", [_vip(vip, version) for vip in vips])
    return "".join((*lines, "}\n"))


def parse_keepalived(text: str) -> frozenset[OwnedAddress]:
    """The addresses of a rendered file, where keepalived puts them."""
    found = _VIRTUAL.search(text)
    device = found[1] if found else ""
    other = f"{_OTHER}.{device.removeprefix(_DEVICE)}"
    return frozenset(
        OwnedAddress(ip_address(address), interface or (other if second else device))
        for address, interface, second in _VIP.findall(text)
    )


def virtual_device(vrrp: Vrrp) -> str:
    """The device that has the virtual MAC address, on the balancer that has the VIPs."""
    return f"{_DEVICE}{vrrp.id}"


def parse_virtual_macs(text: str) -> tuple[str, tuple[bytes, ...]] | None:
    """The interface and the virtual MAC addresses of a rendered file, if it has any."""
    if _VIRTUAL.search(text) is None:
        return None
    interface, number = (
        next(line.split()[1] for line in text.splitlines() if line.split()[:1] == [key])
        for key in ("interface", "virtual_router_id")
    )
    return interface, Vrrp(int(number)).virtual_macs


def render_services(services: Collection[str], served: Mapping[str, bool]) -> str:
    """The content of SERVICES: the share of these services that are served, rounded down so that
    one that is not is seen among any number."""
    count = sum(served.get(name, False) for name in services)
    return f"{_SHARE * count // len(services) if services else 0}\n"


def render_standby(standby: bool) -> str:
    """The content of STANDBY."""
    return f"{_STANDBY if standby else 0}\n"


def _peer(announcing: Announcing, address: IPAddress) -> str:
    """VRRPv3 has no authentication. A hop limit of 255 says that no router passed the advert on
    (RFC 5798, 5.1.1.3): nobody elsewhere takes the VIPs with a balancer's address as his source.
    keepalived does not ask for it by itself from unicast peers."""
    return f"{address} min_ttl 255" if address in announcing.near else str(address)


def _anchor(announcing: Announcing, vrrp: Vrrp) -> str:
    """The one address in the adverts. VRRPv3 needs one, and balancers whose adverts name different
    ones would not hear each other: VIPs come and go on one before the other."""
    version = announcing.address.version
    prefix = 32 if version == 4 else 128
    options = "scope host" if version == 4 else "preferred_lft 0"
    return f"{_ANCHORS[version].format(id=vrrp.id)}/{prefix} dev lo {options} no_track"


def _vip(vip: DesiredVip, virtual: int | None) -> str:
    """As Tula itself adds one: never a source address, no duplicate address detection.

    With a virtual MAC address, keepalived puts those of the instance's IP version ``virtual`` on
    its device, and others on a second one, that of their version.
    """
    device = f" dev {vip.interface}"
    if virtual is not None:
        device = "" if vip.address.version == virtual else " use_vmac"
    if vip.address.version == 4:
        return f"{vip.address}/32{device} scope host no_track"
    return f"{vip.address}/128{device} preferred_lft 0 noprefixroute no_track"


def _block(name: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    return [f"    {name} {{\n", *(f"        {line}\n" for line in lines), "    }\n"]
