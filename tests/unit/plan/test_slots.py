"""What the tables of schedulers look like as weights move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.builders import make_backend, make_service
from tula.model.config import Scheduler, VirtualService
from tula.model.monitor import HealthMonitor, HttpProbe, TcpProbe
from tula.plan.slots import SlotTables


def weighed(service: VirtualService, *weights: int) -> VirtualService:
    return replace(
        service,
        backends=tuple(
            replace(backend, weight=weight)
            for backend, weight in zip(service.backends, weights, strict=True)
        ),
    )


@pytest.mark.parametrize(
    ("probe", "fixed"),
    [
        (TcpProbe(), False),
        (HttpProbe(weight_from="body"), True),
        (HttpProbe(drain_on=(404,)), True),
    ],
)
def test_an_order_keeps_its_length_where_checks_give_weights(
    probe: TcpProbe | HttpProbe, fixed: bool
) -> None:
    backends = (make_backend(1), make_backend(2))
    health = (HealthMonitor(probe),)
    service = make_service(backends=backends, scheduler=Scheduler.WRR, health=health)
    tables = SlotTables()
    orders = [tables.order(weighed(service, *weights)) for weights in ((100, 100), (100, 37))]
    lengths = {len(order.slots) for order in orders if order is not None}
    assert (len(lengths) == 1) is fixed
    groups = {order.group for order in orders if order is not None}
    assert (len(groups) == 1) is fixed
