"""Standard networks of several balancers, any of which may die."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import pairwise

from tula.lab.host import Host
from tula.lab.lab import Lab
from tula.lab.topologies import VIPS, Network, prepare_backend

ROUTED_VIPS = ("10.77.0.100", "fd77::100")
"""In no network: a router must have learned the way to them."""


@dataclass(frozen=True, slots=True)
class Cluster(Network):
    """Several balancers before the same backends; ``lb`` is the first one."""

    lbs: tuple[Host, ...] = ()

    @property
    def gateway(self) -> Host:
        """The router between the clients and the balancers."""
        assert self.router is not None
        return self.router

    @property
    def balancers(self) -> dict[str, str]:
        """Names and IPv4 addresses, for the key ``load_balancers``."""
        return {lb.name: address_in("10.9.", lb) for lb in self.lbs}

    def route(self, *lbs: Host) -> None:
        """Static routes at the router: each flow to the VIPs by one of these balancers (ECMP)."""
        for vip in self.vips:
            prefix, size = ("fd09:", 128) if ":" in vip else ("10.9.", 32)
            hops = [word for lb in lbs for word in ("nexthop", "via", address_in(prefix, lb))]
            self.gateway.run(["ip", "route", "replace", f"{vip}/{size}", *hops])

    def routes(self, vip: str) -> list[str]:
        """The names of the balancers by which the router sends what is for a VIP."""
        family = "-6" if ":" in vip else "-4"
        shown = self.gateway.run(["ip", family, "route", "show", vip]).stdout.split()
        hops = {after for word, after in pairwise(shown) if word == "via"}
        return [lb.name for lb in self.lbs if hops & _all_addresses(lb)]


def address_in(prefix: str, host: Host) -> str:
    """The address of its own, not a VIP, that begins so."""
    return next(text for text in host.card()[0] if text.startswith(prefix))


def _all_addresses(host: Host) -> set[str]:
    """With the link-local one, made of the MAC (RFC 4291): next hops of IPv6 routes are such."""
    addresses, mac = host.card()
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    own = b"\xfe\x80" + bytes(6) + bytes(octets[:3]) + b"\xff\xfe" + bytes(octets[3:])
    return {*addresses, str(IPv6Address(own))}


def pair(
    lab: Lab,
    clients: int = 1,
    backends: int = 2,
    vips: Sequence[str] = VIPS,
    far: bool = False,
) -> Cluster:
    """Two balancers; the router finds who has a VIP by ARP and neighbour discovery.

    ::

        client-1 … -N   10.8.0.11 …, fd08::11 …
            │
        ════╪═════════════════════════════════  wan  10.8.0.0/24, fd08::/64
            │ 10.8.0.1, fd08::1
          router ─── 10.7.0.1, fd07::1 ══╤══════════  far  10.7.0.0/24, fd07::/64
            │ 10.9.0.1, fd09::1          │
            │                         backend-1 … -N  (with far)  10.7.0.11 …, fd07::11 …
            │
        ════╪═════════╤═════════════╤════════════╤══  lan  10.9.0.0/16, fd09::/64
                     lb1           lb2        backend-1 … -N      (VIPs on lo)
                     10.9.0.2      10.9.0.3   10.9.0.11 …
                     fd09::2       fd09::3    fd09::11 …
                        VIP 10.9.0.100, fd09::100

    With ``far`` the backends are for tunnels, and their preparation is the caller's. The LAN has
    room for many VIPs (``many_vips``). Ports of the switch fail by ``host.set_cable`` and
    ``host.set_silent``, machines by ``host.power_off``.
    """
    return _cluster(lab, 2, clients, backends, vips, far)


def three(
    lab: Lab,
    clients: int = 1,
    backends: int = 3,
    vips: Sequence[str] = ROUTED_VIPS,
    far: bool = False,
) -> Cluster:
    """Three balancers, lb1 … lb3, and a router that spreads flows over equal routes (ECMP).

    As ``pair``, but the VIPs (10.77.0.100, fd77::100) are in no network: the router must learn
    the routes by BGP, or get them by ``Cluster.route``. It takes ports into account
    (fib_multipath_hash_policy=1).
    """
    return _cluster(lab, 3, clients, backends, vips, far)


def many_vips(ipv4: int, ipv6: int = 0) -> list[str]:
    """VIPs in the balancers' LAN: 10.9.100.1 …, fd09::a:1 …"""
    return [
        *(f"10.9.{100 + number // 256}.{number % 256}" for number in range(1, ipv4 + 1)),
        *(f"fd09::a:{number:x}" for number in range(1, ipv6 + 1)),
    ]


def hold(host: Host, *prefixes: str) -> None:
    """Give a backend all addresses of these prefixes, as VIPs on lo, in one route each.

    In place of hundreds of addresses; the host stays quiet about them as ``prepare_backend``
    has it.
    """
    host.write_sysctl("net.ipv6.ip_nonlocal_bind", 1)  # such an address is no address to bind()
    for prefix in prefixes:
        host.run(["ip", "route", "add", "local", prefix, "dev", "lo"])


def _cluster(
    lab: Lab, balancers: int, clients: int, backends: int, vips: Sequence[str], far: bool
) -> Cluster:
    lab.strays.watch()
    wan, lan = lab.switch("wan"), lab.switch("lan")
    networks = [(lan, _router("9", 16)), (wan, _router("8", 24))]
    if far:
        networks.append((lab.switch("far"), _router("7", 24)))
    router = lab.router("router", *networks)
    for version in ("ipv4", "ipv6"):
        router.write_sysctl(f"net/{version}/fib_multipath_hash_policy", 1)
    digit, size, switch = ("7", 24, lab.switches["far"]) if far else ("9", 16, lan)
    made = Cluster(
        lab,
        lan,
        lb=lab.host("lb1", lan, *_addresses("9", 2, 16), gateway=_gateway("9")),
        backends=[
            lab.host(
                f"backend-{n}", switch, *_addresses(digit, 10 + n, size), gateway=_gateway(digit)
            )
            for n in range(1, backends + 1)
        ],
        clients=[
            lab.host(f"client-{n}", wan, *_addresses("8", 10 + n, 24), gateway=_gateway("8"))
            for n in range(1, clients + 1)
        ],
        vips=tuple(vips),
        router=router,
        lbs=(
            lab.hosts["lb1"],
            *(
                lab.host(f"lb{n}", lan, *_addresses("9", 1 + n, 16), gateway=_gateway("9"))
                for n in range(2, balancers + 1)
            ),
        ),
    )
    for backend in () if far else made.backends:
        prepare_backend(backend, made.vips)
    lab.ready()
    return made


def _addresses(digit: str, number: int, size: int) -> list[str]:
    return [f"10.{digit}.0.{number}/{size}", f"fd0{digit}::{number}/64"]


def _router(digit: str, size: int) -> list[str]:
    return _addresses(digit, 1, size)


def _gateway(digit: str) -> list[str]:
    return [f"10.{digit}.0.1", f"fd0{digit}::1"]
