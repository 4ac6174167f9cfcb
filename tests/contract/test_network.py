"""Links, addresses and routes: the fake and the kernel agree.

::

              lb  eth0 10.0.0.2/16, 2001:db8::2/64      eth1 10.1.0.2/24, 2001:db8:1::2/64
                   │                                     │
        ═══════════╧═════════════════════════════════════╧═══════  switch
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from support.builders import MACS, make_backend, make_config, make_host, make_service
from tula.kernel.fake import FakeNetwork
from tula.kernel.network import KernelNetwork, Network
from tula.lab import Lab, wait_until
from tula.model.errors import KernelError
from tula.model.host import HostAddress, HostView, OwnedAddress, Route

NEAR, FAR = make_backend(0), ip_address("192.0.2.1")
CONFIGURATION = make_config(make_service(backends=[NEAR]))
ON_SECOND = ip_address("10.1.0.9")
SECOND = Route("unicast", "eth1", source=ip_address("10.1.0.2"))
OWN = {4: ip_address("10.0.0.2"), 6: ip_address("2001:db8::2")}
VIPS = [ip_address("10.0.0.100"), ip_address("2001:db8::100")]


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """The machine of ``make_host``."""
    if request.param == "fake":
        host = make_host(CONFIGURATION)
        routes = {**host.routes, ON_SECOND: SECOND}
        yield FakeNetwork(replace(host, routes=routes))
        return
    with Lab() as lab:
        switch, lb = lab.switch(), lab.host("lb")
        for name, addresses in (
            ("eth0", ("10.0.0.2/16", "2001:db8::2/64")),
            ("eth1", ("10.1.0.2/24", "2001:db8:1::2/64")),
        ):
            mac = ":".join(f"{byte:02x}" for byte in MACS[name])
            lab.connect(lb, switch, *addresses, ifname=name, mac=mac)
        with lb.enter():
            made = KernelNetwork()
            # The kernel adds these by itself, some time after the carrier is there.
            wait_until(lambda: link_local(made) == {"eth0", "eth1"}, 60, "link-local addresses")
            yield made


def link_local(network: Network) -> set[str]:
    held = network.view(()).addresses
    return {one.interface for one in held if one.address.is_link_local}


def ours(view: HostView) -> list[HostAddress]:
    return [held for held in view.addresses if held.ours]


def test_one_reading_tells_links_addresses_and_routes(network: Network) -> None:
    view = network.view([*NEAR.addresses, ON_SECOND, FAR])
    assert {name: link.mac for name, link in view.links.items() if name != "lo"} == MACS
    assert len({link.index for link in view.links.values()}) == 3
    assert HostAddress("eth0", ip_interface("10.0.0.2/16")) in view.addresses
    assert HostAddress("eth1", ip_interface("2001:db8:1::2/64")) in view.addresses
    assert ours(view) == []
    assert view.routes == {
        **{a: Route("unicast", "eth0", source=OWN[a.version]) for a in NEAR.addresses},
        ON_SECOND: SECOND,
        FAR: Route("none"),
    }
    assert 22 in network.ssh_ports()


def test_an_address_comes_once_and_goes_once(network: Network) -> None:
    before = network.view(())
    for vip in VIPS:
        owned = OwnedAddress(vip, "eth0")
        for _ in range(2):
            network.add_address(owned)
            assert ours(network.view(())) == [HostAddress("eth0", ip_interface(vip), ours=True)]
        for _ in range(2):
            network.remove_address(owned)
            assert network.view(()) == before


def test_one_vip_may_be_on_two_interfaces_while_it_moves(network: Network) -> None:
    for vip in VIPS:
        network.add_address(OwnedAddress(vip, "eth0"))
        network.add_address(OwnedAddress(vip, "eth1"))
        assert {held.interface for held in ours(network.view(()))} == {"eth0", "eth1"}
        network.remove_address(OwnedAddress(vip, "eth0"))
        assert ours(network.view(())) == [HostAddress("eth1", ip_interface(vip), ours=True)]
        network.remove_address(OwnedAddress(vip, "eth1"))


def test_an_interface_that_is_not_there(network: Network) -> None:
    for vip in VIPS:
        with pytest.raises(KernelError, match=f"cannot add {vip} on eth7: No such device"):
            network.add_address(OwnedAddress(vip, "eth7"))
        network.remove_address(OwnedAddress(vip, "eth7"))  # what it had went with it
