"""From the tunnels that are there to those that must be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given

from support.builders import configs, make_config, make_host, make_numbered
from tula.dataplane.nft.tunnel_devices import TunnelDevice, Tunnels
from tula.dataplane.nft.tunnel_diff import diff_tunnels
from tula.kernel.fake import FakeNetwork, FakeTunnels
from tula.model.config import Config

GRE = TunnelDevice("gre", ip_address("10.0.0.2"), ip_address("10.0.0.9"), 1500, index=1 << 30)


def of(*devices: TunnelDevice) -> Tunnels:
    return Tunnels({device.name: device for device in devices})


@given(configs(), configs())
def test_diff_then_prepare_then_finish_gives_want(one: Config, other: Config) -> None:
    network = FakeNetwork(make_host(make_config()))
    tunnels = FakeTunnels(network)
    for config in (one, other, one):
        have, want = tunnels.tunnels, make_numbered(config).tunnels
        change = diff_tunnels(have, want)
        tunnels.prepare(change, have)
        tunnels.finish(change)
        assert tunnels.tunnels == want
        assert not diff_tunnels(tunnels.tunnels, want)


def test_a_changed_device_is_made_again() -> None:
    changed = Tunnels({GRE.name: replace(GRE, ttl=1)})
    change = diff_tunnels(changed, of(GRE))
    assert (change.first, change.add, change.remove) == ((GRE.name,), (GRE,), ())
    gone = Tunnels({GRE.name: None})
    assert diff_tunnels(gone, of(GRE)).first == (GRE.name,)


def test_one_with_the_same_ends_makes_room_first() -> None:
    smaller = replace(GRE, mtu=1400)
    change = diff_tunnels(of(GRE), of(smaller))
    assert (change.first, change.add, change.remove) == ((GRE.name,), (smaller,), ())


def test_one_with_other_ends_goes_last() -> None:
    other = replace(GRE, remote=ip_address("10.0.0.10"))
    change = diff_tunnels(of(GRE), of(other))
    assert (change.first, change.add, change.remove) == ((), (other,), (GRE.name,))
