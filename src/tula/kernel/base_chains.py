"""The base chains of all tables at hooks where packets come in, read over netlink.

nft itself loads every element of every set before it lists a chain, loses the devices in JSON
(1.0.6), and may crash on rules of a newer version. Numbers are from
include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tula.dataplane.nft.own_stack import GUARD_TABLE
from tula.dataplane.nft.ruleset import FAMILY, TABLE
from tula.dataplane.nft.transaction import ADMISSION, REFUSALS
from tula.kernel.netlink import (
    Attributes,
    InterruptedDumpError,
    attribute_list,
    attributes,
    text_of,
)
from tula.kernel.nft_reader import NftReader
from tula.model.backend_setup import TABLE as BACKEND_TABLE
from tula.model.chain import CT_STATE, BaseChain, ChainRule, Match
from tula.model.errors import KernelError

_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_AT_INTERFACES = {5: {0: "ingress", 1: "egress"}, 1: {5: "ingress"}}
"""The hooks' names, by the families that have hooks at interfaces."""
_ARRIVING = {family: {0: "prerouting", 1: "input"} for family in (1, 2, 10)}
"""Where packets for the machine itself pass."""
_OWN = {
    family: {0: "prerouting", 1: "input", 3: "output", 4: "postrouting"} for family in _ARRIVING
}
"""Where its own packets pass, too."""
_GET_CHAIN, _GET_RULE = 4, 7
_BASES = {1: "network", 2: "transport"}
_META = {
    **{1: ("protocol", 2), 4: ("iif", 4), 5: ("oif", 4), 6: ("iifname", 16), 7: ("oifname", 16)},
    **{15: ("nfproto", 1), 16: ("l4proto", 1)},
}
_CT_STATE = 0
_VERDICTS = {0: "drop", 1: "accept", -3: "jump", -4: "goto", -5: "return"}
_CONSUMERS = {"fwd", "queue", "reject", "synproxy"}
"""Expressions after which a packet does not go on."""
_IDLE = {"counter", "log", "dup", "notrack", "objref", "nat"}
"""Expressions that decide nothing."""
_REDIRECTS = {"redir", "tproxy"}
_TARGETS = {"DNAT", "NETMAP", "REDIRECT", "TPROXY"}
"""Of iptables, in the expression "target"."""
_DNAT = 1
_VERDICT_REGISTER = 0
_LEGACY = {4: "ip_tables_names", 6: "ip6_tables_names"}
_TRIES = 5
_OURS = {
    (FAMILY, TABLE),
    *(("inet", name) for name in (BACKEND_TABLE, GUARD_TABLE, ADMISSION, REFUSALS)),
}


def read_base_chains() -> list[BaseChain]:
    """The chains at interfaces' hooks that are not Tula's. Raises KernelError."""
    return _read_all(_AT_INTERFACES)


def read_arriving_chains() -> list[BaseChain]:
    """The chains that see packets for the machine itself, in the order of the hooks."""
    return sorted(_read_all(_ARRIVING), key=lambda c: (c.hook != "prerouting", c.priority))


def read_own_chains() -> list[BaseChain]:
    """The chains that see packets for the machine itself, and those that it sends."""
    return _read_all(_OWN)


def read_legacy_nat() -> frozenset[int]:
    """The IP versions for which iptables-legacy has NAT rules, which nobody else can read."""
    found = set()
    for version, name in _LEGACY.items():
        with suppress(OSError):
            if "nat" in (Path("/proc/thread-self/net") / name).read_text().split():
                found.add(version)
    return frozenset(found)


def _read_all(hooks: Mapping[int, Mapping[int, str]]) -> list[BaseChain]:
    for _ in range(_TRIES):
        try:
            return [chain for family in hooks for chain in _read(family, hooks[family])]
        except InterruptedDumpError:
            continue
        except OSError as error:
            raise KernelError(f"cannot read nftables: {error.strerror}") from error
    raise KernelError("the nftables rules change too fast to be read; try again")


def _read(number: int, hooks: Mapping[int, str]) -> Iterator[BaseChain]:
    family = _FAMILIES[number]
    with NftReader(number) as reader:
        chains = [attributes(data) for data in reader.dump(_GET_CHAIN)]
        rules: dict[tuple[str, str], list[ChainRule]] = {}
        for data in reader.dump(_GET_RULE):
            entry = attributes(data)
            key = (text_of(entry.get(1)), text_of(entry.get(2)))
            rules.setdefault(key, []).append(_rule(entry))
    for entry in chains:
        table, name = text_of(entry.get(1)), text_of(entry.get(3))
        if 4 not in entry or (family, table) in _OURS:
            continue
        hook = attributes(entry[4])
        what = hooks.get(int.from_bytes(hook[1], "big"))
        if what is None:
            continue
        devices = [text_of(hook[3])] if 3 in hook else []
        if 4 in hook:
            devices += [text_of(value) for _, value in attribute_list(hook[4])]
        yield BaseChain(
            family=family,
            table=table,
            name=name,
            hook=what,
            devices=tuple(dict.fromkeys(devices)),
            priority=struct.unpack("!i", hook[2])[0],
            drops=5 in entry and int.from_bytes(entry[5], "big") == 0,
            rules=tuple(rules.get((table, name), ())),
            others={chain: tuple(found) for (of, chain), found in rules.items() if of == table},
        )


def _rule(entry: Attributes) -> ChainRule:
    """A rule by its expressions: what they load and compare, as far as that is simple."""
    loaded: dict[int, tuple[str, int, int]] = {}
    matches: list[Match] = []
    partial, redirects, verdict, chain = False, False, "", ""
    for _, element in attribute_list(entry[4]) if 4 in entry else ():
        expression = attributes(element)
        name = text_of(expression.get(1))
        data = attributes(expression[2]) if 2 in expression else {}
        if name == "payload" and 1 in data and _number(data, 2) in _BASES:
            where = (_BASES[_number(data, 2)], _number(data, 3), _number(data, 4))
            loaded[_number(data, 1)] = where
        elif name == "meta" and 1 in data and _number(data, 2) in _META:
            what, length = _META[_number(data, 2)]
            loaded[_number(data, 1)] = (what, 0, length)
        elif name == "ct" and 1 in data and _number(data, 2) == _CT_STATE:
            loaded[_number(data, 1)] = (CT_STATE, 0, 4)
        elif name == "bitwise" and loaded.get(_number(data, 1), ("",))[0] == CT_STATE:
            del loaded[_number(data, 1)]
            mask = int.from_bytes(attributes(data[4])[1], sys.byteorder) if 4 in data else 0
            loaded[_number(data, 2)] = (CT_STATE, mask, 4)
        elif name == "cmp" and _number(data, 1) in loaded and _number(data, 2) in (0, 1):
            value = bytes(attributes(data[3])[1])
            matches.append(Match(loaded[_number(data, 1)], _number(data, 2) == 0, value))
        elif name == "immediate" and 2 in data:
            found = attributes(data[2])
            if 2 in found:
                inner = attributes(found[2])
                code = struct.unpack("!i", inner[1])[0]
                verdict, chain = _VERDICTS.get(code, ""), text_of(inner.get(2))
        elif _is_redirect(name, data):
            redirects = True
        elif name == "lookup" and _number(data, 3) == _VERDICT_REGISTER:
            verdict = "vmap"
        elif name in _CONSUMERS:
            verdict = "drop"
        elif name not in _IDLE:
            loaded.clear()  # such as a mask or a hash: what is compared then is not the field
            partial = True
    return ChainRule(tuple(matches), partial, verdict, chain, redirects)


def _is_redirect(name: str, data: Attributes) -> bool:
    if name == "nat":
        return _number(data, 1) == _DNAT
    return name in _REDIRECTS or (name == "target" and text_of(data.get(1)) in _TARGETS)


def _number(data: Attributes, kind: int) -> int:
    return int.from_bytes(data[kind], "big") if kind in data else -1
