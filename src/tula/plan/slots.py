"""The tables that choose a backend for a flow: Maglev's, and the order of round robin."""

from __future__ import annotations

from collections.abc import Sequence

from tula.model.config import Config, Scheduler, VirtualService
from tula.model.desired import Content, DesiredService, SlotTable
from tula.plan.maglev import SMALLEST, maglev_table, table_size, wrr_table

_LEAST_CONNECTIONS_SLOTS = 1021
_SPARE = 64
_ROUND_ROBIN = (Scheduler.RR, Scheduler.WRR, Scheduler.LEAST_CONNECTIONS)


class SlotTables:
    """Makes the tables of a configuration's services; equal ones are made once and shared."""

    def __init__(self) -> None:
        self._maglev: dict[tuple[Content, int], SlotTable] = {}
        self._orders: dict[tuple[Content, Content], SlotTable] = {}

    def maglev(self, service: VirtualService, config: Config) -> SlotTable | None:
        """The Maglev table; None when nobody serves."""
        content = maglev_content(service)
        if not any(weight for _, weight in content):
            return None
        key = (content, slots_of(service, config))
        table = self._maglev.get(key)
        if table is None:
            table = self._maglev[key] = SlotTable(content, content, maglev_table(*key))
        return table

    def order(self, service: VirtualService) -> SlotTable | None:
        """The order of round robin, weights respected; None for schedulers without one."""
        if service.scheduler not in _ROUND_ROBIN:
            return None
        content = _order_content(service)
        if not any(weight for _, weight in content):
            return None
        key = (_order_group(service, content), content)
        table = self._orders.get(key)
        if table is None:
            slots = tuple(wrr_table(content, _order_length(service)))
            table = self._orders[key] = SlotTable(*key, slots)
        return table

    def pruned(self, services: Sequence[DesiredService]) -> SlotTables:
        """The same, without tables that none of these services has, once they are many."""
        if len(self._maglev) + len(self._orders) <= len(services) * 5 // 4 + _SPARE:
            return self
        kept = SlotTables()
        for service in services:
            if (maglev := service.maglev) is not None:
                kept._maglev[maglev.content, len(maglev.slots)] = maglev
            if (order := service.order) is not None:
                kept._orders[order.group, order.content] = order
        return kept


def slots_of(service: VirtualService, config: Config) -> int:
    """How many slots the service's Maglev table has."""
    return config.maglev.slots or table_size(len(service.backends))


def maglev_content(service: VirtualService) -> Content:
    """What a Maglev table depends on; services that agree in it share one table."""
    return tuple(sorted((backend.key, backend.weight) for backend in service.backends))


def _order_content(service: VirtualService) -> Content:
    """What an order depends on; plain round robin knows no weights but 0."""
    if service.scheduler is Scheduler.LEAST_CONNECTIONS and service.shares:
        pairs = zip(service.backends, service.shares, strict=True)
        return tuple(sorted((backend.key, share) for backend, share in pairs))
    content = maglev_content(service)
    if service.scheduler is not Scheduler.RR:
        return content
    return tuple((key, min(weight, 1)) for key, weight in content)


def _order_group(service: VirtualService, content: Content) -> Content:
    """What services agree in that share an order.

    One that moves by itself is never shared: the rules must not move with it.
    """
    if not _moves_by_itself(service):
        return content
    return ((f"={service.name}", 1),)


def _moves_by_itself(service: VirtualService) -> bool:
    """Whether weights move without a change of the configuration: by counts, or by checks."""
    if service.scheduler is Scheduler.LEAST_CONNECTIONS:
        return True
    return service.scheduler is Scheduler.WRR and any(m.advises for m in service.health)


def _order_length(service: VirtualService) -> int | None:
    """How many slots an order has; None: by its weights. Fixed where weights move every second."""
    if not _moves_by_itself(service):
        return None
    few = len(service.backends) * 16 <= _LEAST_CONNECTIONS_SLOTS
    return _LEAST_CONNECTIONS_SLOTS if few else SMALLEST
