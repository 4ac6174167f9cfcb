"""Which backends are out for want of a route."""

from __future__ import annotations

from ipaddress import ip_address

from support.builders import make_config, make_service
from tula.model.config import Backend
from tula.model.desired import NextHop
from tula.plan.routes import Routes
from tula.plan.usable import unreached_backends

FOUR = [ip_address(f"10.0.0.{n}") for n in (11, 12)]
SIX = [ip_address(f"2001:db8::{n}") for n in (11, 12)]
BACKENDS = [Backend(f"b{n}", (FOUR[n], SIX[n])) for n in (0, 1)]
CONFIG = make_config(make_service(vips=["10.0.0.100", "2001:db8::100"], backends=BACKENDS))


def unreached(*addresses: object) -> set[str]:
    hops = {a: NextHop(a, "eth0") for a in (*FOUR, *SIX) if a in addresses}
    return {backend for _, backend in unreached_backends(CONFIG, Routes(hops=hops))}


def test_all_routes() -> None:
    assert unreached(*FOUR, *SIX) == set()


def test_a_version_that_is_gone_takes_nothing_from_the_other() -> None:
    assert unreached(*FOUR) == set()
    assert unreached(*SIX) == set()


def test_one_backend_without_one_of_them_is_out() -> None:
    assert unreached(*FOUR, SIX[0]) == {"b1"}
    assert unreached(FOUR[0], SIX[0], SIX[1]) == {"b1"}
    assert unreached(FOUR[0]) == {"b1"}


def test_none() -> None:
    assert unreached() == {"b0", "b1"}
