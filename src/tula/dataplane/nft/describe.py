"""Describes a transaction, for ``tula plan`` and ``tula apply``."""

from __future__ import annotations

from dataclasses import dataclass

from tula.dataplane.nft.ruleset import FAMILY, TABLE
from tula.dataplane.nft.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    DeleteObject,
    DeleteTable,
    FlushMap,
    Transaction,
    WakeTable,
)


@dataclass(slots=True)
class DescribedChange:
    """One object that changes: ``verb`` is add, change or remove."""

    verb: str
    what: str
    name: str
    detail: str = ""


def describe_transaction(transaction: Transaction) -> list[DescribedChange]:
    """What changes, a line for each table, chain, map and counter."""
    lines: dict[tuple[str, str], DescribedChange] = {}
    added: dict[str, int] = {}
    deleted: dict[str, int] = {}
    flushed: set[str] = set()

    def line(what: str, name: str, verb: str) -> DescribedChange:
        return lines.setdefault((what, name), DescribedChange(verb, what, name))

    for step in transaction:
        match step:
            case AddTable():
                line("table", f"{FAMILY} {TABLE}", "add")
            case WakeTable():
                line("table", f"{FAMILY} {TABLE}", "change").detail = "no longer dormant"
            case DeleteTable():
                line("table", f"{FAMILY} {TABLE}", "remove")
            case AddCounter(name):
                line("counter", name, "add")
            case DeleteCounter(name):
                line("counter", name, "remove")
            case DeleteObject(name=name):
                line("object", name, "remove")
            case AddChain(name, device):
                entry = line("chain", name, "add")
                if entry.verb == "remove":  # it moves to another device
                    entry.verb = "change"
                entry.detail = f"at the ingress of {device}" if device else ""
            case DeleteChain(name):
                line("chain", name, "remove")
            case AddRules(name):
                entry = line("chain", name, "change")
                entry.detail = entry.detail or _many(len(step.rules), "rule")
            case AddMap(name):
                entry = line("map", str(name), "add")
                if entry.verb == "remove":  # somebody else's stood in its place
                    entry.verb = "change"
            case DeleteMap(map_name):
                line("map", map_name, "remove")
            case AddElements(name, elements):
                line("map", str(name), "change")
                added[str(name)] = len(elements)
            case FlushMap(name) if not name.kind.dynamic:
                line("map", str(name), "change")
                flushed.add(str(name))
            case DeleteElements(name, keys):
                line("map", str(name), "change")
                deleted[str(name)] = len(keys)
            case _:
                pass  # a flush is part of a change or a removal
    for (what, name), entry in lines.items():
        if name in flushed and entry.verb == "change":
            entry.detail = f"written again: {_many(added.get(name, 0), 'element')}"
        elif what == "map" and entry.verb != "remove":
            entry.detail = _elements(entry.verb, added.get(name, 0), deleted.get(name, 0))
    return list(lines.values())


def _elements(verb: str, added: int, deleted: int) -> str:
    if verb == "add":
        return _many(added, "element")
    # An element is changed by deleting and adding it.
    changed = min(added, deleted)
    parts = [(added - changed, "more"), (deleted - changed, "fewer"), (changed, "changed")]
    return "elements: " + ", ".join(f"{count} {how}" for count, how in parts if count)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
