"""The steps of one atomic change of the table, and their text for nft."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tula.dataplane.nft.codec import element_text, key_text, map_declaration
from tula.dataplane.nft.ruleset import FAMILY, TABLE, Elements, Key, MapName, Rule
from tula.model.stats import Count

PRIORITY = -500
"""Before everything else at ingress that uses the common priorities (nf_tables.h: -200, ...)."""

ADMISSION = "tula_sync"
"""A table of its own, in the family inet: whose clones are taken, by their outer source address."""

REFUSALS = "tula_refuse"
"""A table of its own, in the family inet: it answers what services refuse, where they say so."""

_AT_ONCE = 20000
"""Elements in a command: nft names the whole line in an error, so lines are kept bounded."""


@dataclass(frozen=True, slots=True)
class AddTable:
    pass


@dataclass(frozen=True, slots=True)
class WakeTable:
    """Takes the flag ``dormant`` from the table."""


@dataclass(frozen=True, slots=True)
class DeleteTable:
    pass


@dataclass(frozen=True, slots=True)
class AddCounter:
    name: str


@dataclass(frozen=True, slots=True)
class DeleteCounter:
    name: str


@dataclass(frozen=True, slots=True)
class DeleteObject:
    """A named object that is no counter, by its type: NFT_OBJECT_*."""

    type: int
    name: str


@dataclass(frozen=True, slots=True)
class AddMap:
    name: MapName


@dataclass(frozen=True, slots=True)
class DeleteMap:
    """``name`` is a string: what stands in the table need not be of Tula's kinds."""

    name: str


@dataclass(frozen=True, slots=True)
class FlushMap:
    name: MapName


@dataclass(frozen=True, slots=True)
class AddElements:
    name: MapName
    elements: Elements
    counts: Mapping[Key, Count] = field(default_factory=dict)
    """Where a counter starts from, when it goes on from another map's."""


@dataclass(frozen=True, slots=True)
class DeleteElements:
    name: MapName
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class ForgetEntry:
    """An entry goes of a map that packets fill; refused if it is not there. ``key`` is the
    kernel's bytes."""

    name: MapName
    key: bytes


@dataclass(frozen=True, slots=True)
class AddChain:
    name: str
    device: str = ""


@dataclass(frozen=True, slots=True)
class FlushChain:
    name: str


@dataclass(frozen=True, slots=True)
class DeleteChain:
    name: str


@dataclass(frozen=True, slots=True)
class AddRules:
    chain: str
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Admit:
    """The table ADMISSION gets these rules and no others."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class AdmitNobody:
    """The table ADMISSION goes."""


@dataclass(frozen=True, slots=True)
class AnswerRefused:
    """The table REFUSALS gets these rules and no others."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class AnswerNobody:
    """The table REFUSALS goes."""


Step = (
    AddTable
    | WakeTable
    | DeleteTable
    | AddCounter
    | DeleteCounter
    | DeleteObject
    | AddMap
    | DeleteMap
    | FlushMap
    | AddElements
    | DeleteElements
    | ForgetEntry
    | AddChain
    | FlushChain
    | DeleteChain
    | AddRules
    | Admit
    | AdmitNobody
    | AnswerRefused
    | AnswerNobody
)
Transaction = tuple[Step, ...]

_REMOVALS = (DeleteMap, DeleteChain, DeleteCounter, DeleteObject)
_OBJECTS = {
    **{2: "quota", 3: "ct helper", 4: "limit", 7: "ct timeout", 8: "secmark"},
    **{9: "ct expectation", 10: "synproxy"},
}
"""nft's words for NFT_OBJECT_*; it has none for the others."""


def in_turn(transaction: Transaction) -> tuple[Transaction, Transaction]:
    """What to change, and what to remove after it in a change of its own.

    A packet goes by the rules of the generation in which it came (nft_do_chain), but looks maps
    up in the one that is current by then (nft_lookup_eval), and the elements of a map are gone
    with it: with both changes in one, a packet on its way would find its map empty. Between two
    changes it has arrived: the first one's nft does not end before all have (nft_rcv_nl_event).
    """
    # A foreign map that goes before others are made is not among them: nobody looks it up.
    removals = len(transaction)
    while removals and isinstance(transaction[removals - 1], _REMOVALS):
        removals -= 1
    positions = range(removals, len(transaction))
    last = next((at for at in positions if isinstance(transaction[at], DeleteMap)), 0)
    if not last:
        return transaction, ()
    return transaction[:last], transaction[last:]


def render_transaction(transaction: Transaction) -> str:
    """The text that ``nft -f`` takes as one transaction: a command a line."""
    return "".join(f"{line}\n" for step in transaction for line in _render(step))


def _render(step: Step) -> Iterator[str]:
    where = f"{FAMILY} {TABLE}"
    match step:
        case AddTable() | WakeTable():
            yield f"add table {where}"
        case DeleteTable():
            yield f"delete table {where}"
        case AddCounter(name):
            yield f"add counter {where} {name}"
        case DeleteCounter(name):
            yield f"delete counter {where} {name}"
        case DeleteObject(number, name):
            yield f"delete {_OBJECTS[number]} {where} {name}"
        case AddMap(name):
            what = "set" if name.kind.is_set else "map"
            yield f"add {what} {where} {name} {{ {map_declaration(name)}; }}"
        case DeleteMap(map_name):
            yield f"delete map {where} {map_name}"
        case FlushMap(name):
            yield f"flush map {where} {name}"
        case AddElements(name, elements, counts):
            texts = [element_text(name.kind, k, v, counts.get(k)) for k, v in elements.items()]
            for at in range(0, len(texts), _AT_ONCE):
                joined = ", ".join(texts[at : at + _AT_ONCE])
                yield f"add element {where} {name} {{ {joined} }}"
        case DeleteElements(name, keys):
            texts = [key_text(name.kind, key) for key in keys]
            for at in range(0, len(texts), _AT_ONCE):
                joined = ", ".join(texts[at : at + _AT_ONCE])
                yield f"delete element {where} {name} {{ {joined} }}"
        case ForgetEntry(name):
            raise ValueError(f"an entry of {name} is forgotten over netlink")
        case AddChain(name, device):
            hook = f'type filter hook ingress device "{device}" priority {PRIORITY}; '
            declaration = f" {{ {hook}policy accept; }}" if device else ""
            yield f"add chain {where} {name}{declaration}"
        case FlushChain(name):
            yield f"flush chain {where} {name}"
        case DeleteChain(name):
            yield f"delete chain {where} {name}"
        case AddRules(chain, rules):
            for rule in rules:
                yield f'add rule {where} {chain} {rule.text} comment "{rule.digest}"'
        case Admit(rules):
            yield from _table_anew(ADMISSION, "input", rules)
        case AnswerRefused(rules):
            yield from _table_anew(REFUSALS, "prerouting", rules)
        case AnswerNobody():
            yield f"delete table inet {REFUSALS}"
        case AdmitNobody():
            yield f"delete table inet {ADMISSION}"


def _table_anew(table: str, hook: str, rules: tuple[Rule, ...]) -> Iterator[str]:
    """A table of one chain, named as its hook, whatever stands there."""
    yield f"add table inet {table}"
    yield f"delete table inet {table}"
    yield f"add table inet {table}"
    place = f"{{ type filter hook {hook} priority {PRIORITY}; policy accept; }}"
    yield f"add chain inet {table} {hook} {place}"
    for rule in rules:
        yield f'add rule inet {table} {hook} {rule.text} comment "{rule.digest}"'
