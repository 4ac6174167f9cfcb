"""keepalived's configuration, as text."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import PurePath

import pytest

from tula.model.announcing import Announcing
from tula.model.desired import DesiredVip
from tula.model.high_availability import HighAvailability, VipMac, Vrrp
from tula.model.host import OwnedAddress
from tula.vip.keepalived import (
    parse_keepalived,
    parse_virtual_macs,
    render_keepalived,
    render_services,
    render_standby,
)

PLACE = PurePath("/run/tula/keepalived")
PAIR = Announcing(
    settings=HighAvailability(vrrp=Vrrp(84)),
    name="lb1",
    address=ip_address("10.0.0.2"),
    interface="eth0",
    peers=(("lb2", ip_address("10.0.0.3")),),
    hold_down=3.0,
    near=frozenset({ip_address("10.0.0.3")}),
)
VIPS = [
    DesiredVip(ip_address("10.0.0.100"), "eth0", ("web",)),
    DesiredVip(ip_address("10.1.0.100"), "eth1", ("web",)),
    DesiredVip(ip_address("fd00::100"), "eth0", ("web",)),
]
TEXT = """\
# Written by Tula, and replaced by it: changes here are lost.
global_defs {
    router_id lb1
    vrrp_version 3
    vrrp_check_unicast_src
    vrrp_garp_master_repeat 1
    vrrp_garp_master_delay 1
    vrrp_garp_lower_prio_repeat 1
    vrrp_garp_lower_prio_delay 1
    vrrp_garp_master_refresh 60
    vrrp_garp_master_refresh_repeat 1
    vmac_addr_prefix tula-vrrpx
}
track_file services {
    file /run/tula/keepalived/services
    weight 1
}
track_file standby {
    file /run/tula/keepalived/standby
    weight 1
}
vrrp_instance tula {
    state BACKUP
    interface eth0
    virtual_router_id 84
    priority 150
    advert_int 0.1
    preempt_delay 3
    unicast_src_ip 10.0.0.2
    unicast_peer {
        10.0.0.3 min_ttl 255
    }
    track_file {
        services
        standby
    }
    track_interface {
        eth1 weight -40
    }
    virtual_ipaddress {
        169.254.84.84/32 dev lo scope host no_track
    }
    virtual_ipaddress_excluded {
        10.0.0.100/32 dev eth0 scope host no_track
        10.1.0.100/32 dev eth1 scope host no_track
        fd00::100/128 dev eth0 preferred_lft 0 noprefixroute no_track
    }
}
"""


def test_both_families_in_one_instance() -> None:
    assert render_keepalived(VIPS, PAIR, PLACE) == TEXT
    assert parse_keepalived(TEXT) == {
        OwnedAddress(ip_address("169.254.84.84"), "lo"),
        *(OwnedAddress(vip.address, vip.interface) for vip in VIPS),
    }


def test_adverts_of_a_peer_behind_a_router_have_passed_it() -> None:
    text = render_keepalived(VIPS, replace(PAIR, near=frozenset()), PLACE)
    assert text == TEXT.replace(" min_ttl 255", "")


def test_an_instance_of_ipv6() -> None:
    peers = (("lb2", ip_address("fd00::3")),)
    text = render_keepalived(VIPS, replace(PAIR, address=ip_address("fd00::2"), peers=peers), PLACE)
    assert text is not None
    assert "        fe80::5654:54/128 dev lo preferred_lft 0 no_track\n" in text
    assert OwnedAddress(ip_address("fe80::5654:54"), "lo") in parse_keepalived(text)


def test_with_a_virtual_mac_vips_are_on_its_device() -> None:
    virtual = HighAvailability(vrrp=Vrrp(7, mac=VipMac.VIRTUAL))
    text = render_keepalived([VIPS[0], VIPS[2]], replace(PAIR, settings=virtual), PLACE)
    assert text is not None
    assert "    use_vmac tula-vrrp7\n    vmac_xmit_base\n" in text
    assert "        10.0.0.100/32 scope host no_track\n" in text
    assert "        fd00::100/128 use_vmac preferred_lft 0 noprefixroute no_track\n" in text
    assert OwnedAddress(VIPS[0].address, "tula-vrrp7") in parse_keepalived(text)
    assert OwnedAddress(VIPS[2].address, "tula-vrrpx.7") in parse_keepalived(text)
    macs = (bytes.fromhex("00005e000107"), bytes.fromhex("00005e000207"))
    assert parse_virtual_macs(text) == ("eth0", macs)
    assert parse_virtual_macs(TEXT) is None


@pytest.mark.parametrize(
    ("vips", "announcing"),
    [([], PAIR), (VIPS, None), (VIPS, replace(PAIR, settings=HighAvailability()))],
)
def test_nothing_for_keepalived(vips: list[DesiredVip], announcing: Announcing | None) -> None:
    assert render_keepalived(vips, announcing, PLACE) is None


@pytest.mark.parametrize("count", [1, 3, 100, 500])
def test_priorities(count: int) -> None:
    """Within VRRP's 1 to 254; less served is less, and standby is less than anything."""
    names = [f"s{n}" for n in range(count)]

    def priority(served: int, *, standby: bool) -> int:
        services = {name: n < served for n, name in enumerate(names)}
        return 150 + int(render_services(names, services)) + int(render_standby(standby))

    everything = [priority(served, standby=False) for served in range(count + 1)]
    assert everything == sorted(everything)
    assert everything[-1] > everything[-2]
    assert max(everything) <= 254
    aside = [priority(served, standby=True) for served in range(count + 1)]
    assert min(aside) >= 1
    assert max(aside) < min(everything)
