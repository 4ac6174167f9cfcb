"""Packets that are not whole or not a flow's own follow their client's entry too.

::

    client-1        lb        backend-1 … 4
        │            │             │   (VIPs on lo)
    ════╧════════════╧═════════════╧═════  lan

Its backend drains once it is remembered: neither the scheduler nor the hash gives it any more.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import TCP, UDP, IPOption_NOP
from scapy.packet import Raw

from support.crafted import Crafted, arrivals, wait_arrivals
from support.icmp_errors import ERRORS, error, inside, reached
from support.packets import watching
from support.persistent import Persistent
from tula.lab import Network, wait_until

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(("family", "scheduler"), [(4, "maglev"), (6, "rr")])
def test_fragments_options_and_icmp_errors_follow_the_client(
    four_backends: Network, tmp_path: Path, family: int, scheduler: str
) -> None:
    network, crafted = four_backends, Crafted(four_backends)
    backends = network.backends
    with (
        Persistent(network, tmp_path / "tula.yaml", scheduler) as web,
        watching(*backends) as watch,
    ):
        first = crafted.ip(family) / UDP(sport=700, dport=80) / Raw(b"the first one")
        crafted.send(first)
        (name,) = wait_arrivals(watch, backends, b"the first one", 1)
        number = int(name.removeprefix("backend-"))
        web.weigh(**{f"b{n}": 0 if n == number else 100 for n in (1, 2, 3)})

        whole = crafted.udp(family, 701, 80, b"in pieces" * 300)
        crafted.send(*crafted.pieces(family, whole, 4711, [800, 1600]))
        assert wait_arrivals(watch, backends, b"in pieces", 3).keys() == {name}

        if family == 4:
            for flags, text in (("S", b"options: SYN"), ("A", b"options: ACK")):
                ip = crafted.ip(4, options=[IPOption_NOP()] * 4)
                crafted.send(ip / TCP(sport=702, dport=80, flags=flags) / Raw(text))
                assert wait_arrivals(watch, backends, text, 1) == {name: 1}
        for flags in ("R", "FA"):
            text = b"of no flow: " + flags.encode()
            crafted.send(crafted.ip(family) / TCP(sport=703, dport=80, flags=flags) / Raw(text))
            assert wait_arrivals(watch, backends, text, 1) == {name: 1}

        crafted.send(
            error(crafted, family, ERRORS[family][0], inside(crafted, family, "udp", 80, 704))
        )

        def told() -> list[str]:
            return [
                host.name
                for host in backends
                for _, _, port in reached(watch.frames(host, outgoing=False), family)
                if port == 704
            ]

        assert wait_until(told) == [name]
        assert arrivals(watch, backends, b"in pieces").keys() == {name}
