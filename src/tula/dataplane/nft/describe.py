"""Describes a transaction, for ``tula plan`` and ``tula apply``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tula.dataplane.nft.ruleset import FAMILY, TABLE
from tula.dataplane.nft.transaction import (
    ADMISSION,
    REFUSALS,
    AddChain,
    AddCounter,
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    Admit,
    AdmitNobody,
    AnswerNobody,
    AnswerRefused,
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
from tula.dataplane.port import ChangeStep


@dataclass(slots=True)
class _Entry:
    """What becomes of one object: ``verb`` is add, change or remove."""

    verb: str
    detail: str = ""


def describe_transaction(transaction: Transaction) -> Iterator[ChangeStep]:
    """What changes, a step for each table, chain, map and counter."""
    entries: dict[tuple[str, str], _Entry] = {}
    added: dict[str, int] = {}
    deleted: dict[str, int] = {}
    flushed: set[str] = set()

    def entry_of(what: str, name: str, verb: str) -> _Entry:
        return entries.setdefault((what, name), _Entry(verb))

    for step in transaction:
        match step:
            case AddTable():
                entry_of("table", f"{FAMILY} {TABLE}", "add")
            case WakeTable():
                entry_of("table", f"{FAMILY} {TABLE}", "change").detail = "no longer dormant"
            case Admit(rules):
                entry_of("filter", f"inet {ADMISSION}", "add").detail = _many(len(rules), "rule")
            case AdmitNobody():
                entry_of("filter", f"inet {ADMISSION}", "remove")
            case AnswerRefused(rules):
                entry_of("filter", f"inet {REFUSALS}", "add").detail = _many(len(rules), "rule")
            case AnswerNobody():
                entry_of("filter", f"inet {REFUSALS}", "remove")
            case DeleteTable():
                entry_of("table", f"{FAMILY} {TABLE}", "remove")
            case AddCounter(name):
                entry_of("counter", name, "add")
            case DeleteCounter(name):
                entry_of("counter", name, "remove")
            case DeleteObject(name=name):
                entry_of("object", name, "remove")
            case AddChain(name, device):
                entry = entry_of("chain", name, "add")
                if entry.verb == "remove":  # it moves to another device
                    entry.verb = "change"
                entry.detail = f"at the ingress of {device}" if device else ""
            case DeleteChain(name):
                entry_of("chain", name, "remove")
            case AddRules(name):
                entry = entry_of("chain", name, "change")
                entry.detail = entry.detail or _many(len(step.rules), "rule")
            case AddMap(name):
                entry = entry_of("map", str(name), "add")
                if entry.verb == "remove":  # somebody else's stood in its place
                    entry.verb = "change"
            case DeleteMap(map_name):
                entry_of("map", map_name, "remove")
            case AddElements(name, elements):
                entry_of("map", str(name), "change")
                added[str(name)] = len(elements)
            case FlushMap(name) if not name.kind.dynamic:
                entry_of("map", str(name), "change")
                flushed.add(str(name))
            case DeleteElements(name, keys):
                entry_of("map", str(name), "change")
                deleted[str(name)] = len(keys)
            case _:
                pass  # a flush is part of a change or a removal
    for (what, name), entry in entries.items():
        if name in flushed and entry.verb == "change":
            entry.detail = f"written again: {_many(added.get(name, 0), 'element')}"
        elif what == "map" and entry.verb != "remove":
            entry.detail = _elements(entry.verb, added.get(name, 0), deleted.get(name, 0))
        yield ChangeStep(entry.verb, what, name, entry.detail)


def _elements(verb: str, added: int, deleted: int) -> str:
    if verb == "add":
        return _many(added, "element")
    # An element is changed by deleting and adding it.
    changed = min(added, deleted)
    parts = [(added - changed, "more"), (deleted - changed, "fewer"), (changed, "changed")]
    return "elements: " + ", ".join(f"{count} {how}" for count, how in parts if count)


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
