"""Rulesets for ``--shape``: nft's text, with a little notation for what is there many times.

``<device>``, ``<device_mac>``, ``<slots>``, ``<seed>``, ``<backends>`` and ``<services>`` stand for
the rig's values. A line that begins with ``each ITEM:`` is written once for every item, and
``[[ITEM| text]]`` within a line becomes a list joined by commas. Items, and what they know:

================ ==========================================================================
``backend``      ``<backend>`` 0, 1, ..., ``<address>``, ``<mac>``
``service``      ``<service>`` 0, 1, ..., ``<vip>``, ``<port>``, ``<mark>``: its number << 16
``slot``         ``<slot>`` and the backend that the Maglev table has there
``pair``         a service and a backend, and ``<id>``: the service's mark and the backend + 1
``service_slot`` a service and a slot, and ``<id>``
================ ==========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

from generator import BACKEND_MAC, SERVICE_PORT
from rig import INTERFACE, MAC, Rig

from tula.plan.maglev import maglev_table, table_size

SEED = "0x54756c61"

Item = dict[str, object]
_AT_ONCE = 20000


class Template:
    """The items of one rig."""

    def __init__(self, rig: Rig, slots: int | None = None) -> None:
        self._rig = rig
        self.slots = slots or table_size(rig.backends)

    @cached_property
    def _table(self) -> list[int]:
        keys = [(address, 100) for address in self._rig.addresses()]
        return maglev_table(keys, self.slots)

    def _backends(self) -> list[Item]:
        return [
            {
                "backend": number,
                "number": number + 1,
                "address": address,
                "mac": BACKEND_MAC.format(number),
            }
            for number, address in enumerate(self._rig.addresses())
        ]

    def _services(self) -> Iterator[Item]:
        for number in range(self._rig.traffic.services):
            vip = self._rig.traffic.vip(number)
            words = [vip.packed[at : at + 4].hex() for at in range(0, len(vip.packed), 4)]
            raw = " . ".join(f"0x{word}" for word in words)
            names: Item = {"vip": vip, "vip_words": raw, "port": SERVICE_PORT}
            yield names | {"service": number, "mark": number + 1 << 16}

    def _items(self, kind: str) -> Iterator[Item]:
        backends = self._backends()
        slots = [{"slot": slot} | backends[n] for slot, n in enumerate(self._table)]
        alone = {"backend": backends, "slot": slots}
        if kind in alone:
            yield from alone[kind]
            return
        if kind == "service":
            yield from self._services()
            return
        beside = {"pair": backends, "service_slot": slots}[kind]
        for number, service in enumerate(self._services()):
            for item in beside:
                yield service | item | {"id": number + 1 << 16 | int(str(item["number"]))}

    def expand(self, text: str) -> str:
        """The ruleset for this rig."""
        whole: Item = {
            "device": INTERFACE,
            "device_mac": MAC,
            "slots": self.slots,
            "seed": SEED,
            "backends": self._rig.backends,
            "services": self._rig.traffic.services,
        }
        return "\n".join(line for row in text.splitlines() for line in self._row(row, whole)) + "\n"

    def _row(self, row: str, known: Item) -> Iterator[str]:
        repeated = re.match(r"\s*each (\w+):\s*(.*)", row)
        listed = re.search(r"\[\[(\w+)\|(.*?)\]\]", row)
        if repeated:
            for item in self._items(repeated[1]):
                yield from self._row(repeated[2], known | item)
        elif listed:
            elements = [_fill(listed[2], known | item) for item in self._items(listed[1])]
            # nft names the whole line in an error: lines are kept bounded.
            for at in range(0, len(elements), _AT_ONCE):
                joined = ",".join(elements[at : at + _AT_ONCE])
                yield _fill(row[: listed.start()] + joined + row[listed.end() :], known)
        else:
            yield _fill(row, known)


def _fill(text: str, values: Item) -> str:
    return re.sub(r"<(\w+)>", lambda found: str(values[found[1]]), text)
