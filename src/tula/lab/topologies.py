"""Standard networks: what the tests, the demo and the documentation mean by "the lab"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from tula.lab.host import Host
from tula.lab.lab import Lab
from tula.lab.switch import Switch

VIP4 = "10.9.0.100"
VIP6 = "fd09::100"
VIPS = (VIP4, VIP6)


@dataclass(frozen=True, slots=True)
class Network:
    """A balancer, its backends and its clients."""

    lab: Lab
    lan: Switch
    lb: Host
    backends: list[Host]
    clients: list[Host]
    vips: tuple[str, ...]
    router: Host | None = None

    @property
    def client(self) -> Host:
        """The first client."""
        return self.clients[0]

    def backend(self, name: str) -> Host:
        """By its name, such as ``backend-1``."""
        return self.lab[name]

    @property
    def vip4(self) -> str:
        """The first IPv4 VIP."""
        return next(vip for vip in self.vips if ":" not in vip)

    @property
    def vip6(self) -> str:
        """The first IPv6 VIP."""
        return next(vip for vip in self.vips if ":" in vip)

    def announce(self) -> None:
        """Give the balancer the VIPs, so that it answers ARP and neighbour discovery for them.

        What ``tula apply`` does for ``announce: true``; for tests of bare rule sets.
        """
        self.lb.add_address("eth0", *(f"{vip}/{128 if ':' in vip else 32}" for vip in self.vips))


def prepare_backend(host: Host, vips: Iterable[str], ifname: str = "eth0") -> None:
    """Put the VIPs on lo and keep quiet about them.

    ARP for a VIP must find the balancer alone: ``arp_ignore=1`` answers only for addresses of
    the interface that was asked, ``arp_announce=2`` never names the VIP as the sender. IPv6
    needs neither: neighbour discovery answers for the interface's own addresses only.
    """
    for scope in ("all", ifname):
        host.write_sysctl(f"net/ipv4/conf/{scope}/arp_ignore", 1)
        host.write_sysctl(f"net/ipv4/conf/{scope}/arp_announce", 2)
    host.add_address("lo", *(f"{ip_address(vip)}/{32 if ':' not in vip else 128}" for vip in vips))


def _addresses(net4: str, net6: str, number: int, ipv6: bool) -> list[str]:
    return [f"{net4}.{number}/24", *([f"{net6}::{number}/64"] if ipv6 else [])]


def flat(
    lab: Lab,
    clients: int = 2,
    backends: int = 3,
    vips: Sequence[str] | None = None,
    ipv6: bool = True,
    hub: bool = False,
    prepared: bool = True,
) -> Network:
    """Everyone on one switch; the shortest way to a test.

    ::

                          VIP 10.9.0.100, fd09::100
        client-1 … -N          lb                backend-1 … -N
        10.9.0.201 …           10.9.0.2          10.9.0.11 …      (VIP on lo)
        fd09::201 …            fd09::2           fd09::11 …
            │                   │                    │
        ════╧═══════════════════╧════════════════════╧════  lan  10.9.0.0/24, fd09::/64

    The number in the address is the same in both families, read as decimal digits. Without
    ``prepared`` the backends have no VIPs yet.
    """
    wanted = _vips(vips, ipv6)
    lan = lab.switch("lan", hub=hub)
    lb = lab.host("lb", lan, *_addresses("10.9.0", "fd09", 2, ipv6))
    network = Network(
        lab,
        lan,
        lb,
        backends=[
            lab.host(f"backend-{n}", lan, *_addresses("10.9.0", "fd09", 10 + n, ipv6))
            for n in range(1, backends + 1)
        ],
        clients=[
            lab.host(f"client-{n}", lan, *_addresses("10.9.0", "fd09", 200 + n, ipv6))
            for n in range(1, clients + 1)
        ],
        vips=wanted,
    )
    return _finish(network, prepared)


def routed(
    lab: Lab,
    clients: int = 2,
    backends: int = 3,
    vips: Sequence[str] | None = None,
    ipv6: bool = True,
    hub: bool = False,
) -> Network:
    """Clients behind a router: requests pass the balancer, answers do not.

    ::

        client-1 … -N   10.8.0.11 …, fd08::11 …
            │
        ════╪══════════════════════════════════════════  wan  10.8.0.0/24, fd08::/64
            │ 10.8.0.1, fd08::1
          router
            │ 10.9.0.1, fd09::1
        ════╪═══════════════════╤════════════════════╤══  lan  10.9.0.0/24, fd09::/64
                               lb                backend-1 … -N
                               10.9.0.2          10.9.0.11 …      (VIP on lo)
                               fd09::2           fd09::11 …
                          VIP 10.9.0.100, fd09::100

        request:  client ─▶ router ─▶ lb ─▶ backend
        answer:   backend ─▶ router ─▶ client
    """
    wanted = _vips(vips, ipv6)
    lan = lab.switch("lan", hub=hub)
    wan = lab.switch("wan")
    router = lab.router(
        "router",
        (lan, _addresses("10.9.0", "fd09", 1, ipv6)),
        (wan, _addresses("10.8.0", "fd08", 1, ipv6)),
    )
    to_wan = ["10.9.0.1", *(["fd09::1"] if ipv6 else [])]
    to_lan = ["10.8.0.1", *(["fd08::1"] if ipv6 else [])]
    lb = lab.host("lb", lan, *_addresses("10.9.0", "fd09", 2, ipv6), gateway=to_wan)
    network = Network(
        lab,
        lan,
        lb,
        backends=[
            lab.host(
                f"backend-{n}", lan, *_addresses("10.9.0", "fd09", 10 + n, ipv6), gateway=to_wan
            )
            for n in range(1, backends + 1)
        ],
        clients=[
            lab.host(
                f"client-{n}", wan, *_addresses("10.8.0", "fd08", 10 + n, ipv6), gateway=to_lan
            )
            for n in range(1, clients + 1)
        ],
        vips=wanted,
        router=router,
    )
    return _finish(network)


def remote(
    lab: Lab,
    clients: int = 1,
    backends: int = 2,
    vips: Sequence[str] | None = None,
    ipv6: bool = True,
) -> Network:
    """Backends behind a router, for tunnels: their preparation is the caller's.

    ::

        client-1 … -N   10.8.0.11 …, fd08::11 …
            │
        ════╪═══════════════════════════════  wan  10.8.0.0/24, fd08::/64
            │ 10.8.0.1, fd08::1
          router ─── 10.7.0.1, fd07::1 ══╤════════════  far  10.7.0.0/24, fd07::/64
            │ 10.9.0.1, fd09::1          │
        ════╪════════════╤═  lan      backend-1 … -N   10.7.0.11 …, fd07::11 …
                        lb                             (VIP on lo, tunnels' ends)
                        10.9.0.2, fd09::2
                   VIP 10.9.0.100, fd09::100

        request:  client ─▶ router ─▶ lb ═ in a tunnel ═▶ router ═▶ backend
        answer:   backend ─▶ router ─▶ client
    """
    lan, wan, far = lab.switch("lan"), lab.switch("wan"), lab.switch("far")
    router = lab.router(
        "router",
        (lan, _addresses("10.9.0", "fd09", 1, ipv6)),
        (wan, _addresses("10.8.0", "fd08", 1, ipv6)),
        (far, _addresses("10.7.0", "fd07", 1, ipv6)),
    )

    def gateway(net4: str, net6: str) -> list[str]:
        return [f"{net4}.1", *([f"{net6}::1"] if ipv6 else [])]

    near = _addresses("10.9.0", "fd09", 2, ipv6)
    network = Network(
        lab,
        lan,
        lab.host("lb", lan, *near, gateway=gateway("10.9.0", "fd09")),
        backends=[
            lab.host(
                f"backend-{n}",
                far,
                *_addresses("10.7.0", "fd07", 10 + n, ipv6),
                gateway=gateway("10.7.0", "fd07"),
            )
            for n in range(1, backends + 1)
        ],
        clients=[
            lab.host(
                f"client-{n}",
                wan,
                *_addresses("10.8.0", "fd08", 10 + n, ipv6),
                gateway=gateway("10.8.0", "fd08"),
            )
            for n in range(1, clients + 1)
        ],
        vips=_vips(vips, ipv6),
        router=router,
    )
    lab.ready()
    return network


def _vips(vips: Sequence[str] | None, ipv6: bool) -> tuple[str, ...]:
    if vips is not None:
        return tuple(vips)
    return VIPS if ipv6 else (VIP4,)


def _finish(network: Network, prepared: bool = True) -> Network:
    for backend in network.backends if prepared else ():
        prepare_backend(backend, network.vips)
    network.lab.ready()
    return network
