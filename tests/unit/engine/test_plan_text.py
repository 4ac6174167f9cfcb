"""Plan and apply in the user's terms."""

from __future__ import annotations

from support.builders import make_backend, make_config, make_service
from tula.dataplane.nft.describe import describe_transaction
from tula.dataplane.nft.transaction import Admit
from tula.dataplane.port import ChangeStep
from tula.engine.plan_text import describe_plan
from tula.plan.config_changes import describe_config_changes

WEB = make_config(make_service("web", backends=[make_backend(0), make_backend(1)]))
ADDRESS = ChangeStep("add", "address", "10.0.0.100", "on eth0")
INSIDE = [ChangeStep("add", "map", f"m{n}") for n in range(40)]
TABLE = ChangeStep("add", "table", "netdev tula")


def test_a_first_apply() -> None:
    changes = describe_config_changes(None, WEB)
    assert describe_plan(changes, WEB, [ADDRESS, TABLE, *INSIDE]) == (
        "+ service web: 2 backends",
        "+ address 10.0.0.100  (on eth0)",
    )


def test_a_table_that_is_gone_is_filled_anew() -> None:
    assert describe_plan((), WEB, [TABLE, *INSIDE]) == ("+ service web: 2 backends",)


def test_a_change() -> None:
    other = make_config(make_service("web", backends=[make_backend(0), make_backend(2)]))
    changes = describe_config_changes(WEB, other)
    assert describe_plan(changes, other, INSIDE) == changes
    assert changes == ("~ service web: + backend b2, - backend b1",)


def test_a_second_table_is_not_the_table() -> None:
    """What lets balancers alone tell of flows comes with high_availability, and may be missing
    while everything is forwarded."""
    senders = [*describe_transaction((Admit(()),))]
    changes = ("+ high_availability.vrrp: id 84",)
    assert describe_plan(changes, WEB, senders) == changes
    assert describe_plan((), WEB, senders) == ("~ kernel: filter inet tula_sync is missing",)


def test_a_kernel_that_differs() -> None:
    lines = describe_plan((), WEB, [ADDRESS, *INSIDE])
    assert lines[:2] == ("+ address 10.0.0.100  (on eth0)", "~ kernel: map m0 is missing")
    assert lines[-1] == "~ kernel: and 20 more"
    assert describe_plan((), WEB, []) == ()
