"""What others put into Tula's table is seen, and goes alone: the fake and the kernel agree.

Whatever it is, the maps that packets fill stay as they are, and with them the connections.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from support.builders import make_backend, make_config, make_ruleset, make_service
from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.recover import recover_ids
from tula.dataplane.nft.ruleset import Chain, Foreign, Kind, MapName, Rule, Ruleset
from tula.dataplane.nft.transaction import (
    AddMap,
    AddTable,
    FlushMap,
    Transaction,
    in_turn,
)
from tula.kernel.fake_nftables import FakeNftables
from tula.kernel.nft_counts import HeldConnections
from tula.kernel.nft_reader import NftReader
from tula.kernel.nftables import Nftables
from tula.model.stats import Count

WEB = make_config(make_service(backends=[make_backend(0), make_backend(1)]))
TCP, EXACT, VIA = "tcp4_262144", "service_port4_1024", "nexthop4_1024"
SLOTS, ANY = "slots_1_4093", "service_any4_1024"
STRAY = Rule("", "")


@dataclass(frozen=True)
class Case:
    """``text`` is for nft; ``change`` makes of the table what is then read of it."""

    text: str
    change: Callable[[Ruleset], Ruleset]
    chains: tuple[str, ...] = ()
    """Those whose rules are written again."""


def foreign(**parts: object) -> Callable[[Ruleset], Ruleset]:
    return lambda table: replace(table, foreign=Foreign(**parts))  # type: ignore[arg-type]


def maps(*names: str) -> Callable[[Ruleset], Ruleset]:
    return foreign(maps=frozenset(names))


def unreadable(name: str) -> Callable[[Ruleset], Ruleset]:
    return foreign(elements=frozenset({name}))


def with_chain(name: str, chain: Chain) -> Callable[[Ruleset], Ruleset]:
    return lambda table: replace(table, chains={**table.chains, name: chain})


def with_rule(name: str, rule: Rule = STRAY) -> Callable[[Ruleset], Ruleset]:
    def change(table: Ruleset) -> Ruleset:
        chain = table.chains[name]
        return with_chain(name, replace(chain, rules=(*chain.rules, rule)))(table)

    return change


def both(*changes: Callable[[Ruleset], Ruleset]) -> Callable[[Ruleset], Ruleset]:
    def change(table: Ruleset) -> Ruleset:
        for each in changes:
            table = each(table)
        return table

    return change


CASES = {
    "set-of-a-maps-name": Case(
        "add set service_any4 { type ipv4_addr; elements = { 1.2.3.4 }; }", maps("service_any4")
    ),
    "set-with-a-maps-whole-name": Case(
        f"add set {ANY} {{ type ipv4_addr; size 1024; elements = {{ 1.2.3.4 }}; }}", maps(ANY)
    ),
    "map-with-shorter-keys": Case(
        f"add map {ANY} {{ type mark : verdict; size 1024; }}", maps(ANY)
    ),
    "map-of-another-size": Case(
        f"add map {ANY} {{ typeof ip daddr . meta l4proto : verdict; size 1000; }}", maps(ANY)
    ),
    "map-with-other-values": Case(
        "add map nexthop4_7 { type mark : ipv6_addr; size 7; counter; }", maps("nexthop4_7")
    ),
    "map-of-other-types": Case(
        "add map nexthop4_7 { type ipv4_addr : ipv4_addr; size 7; counter; }", maps("nexthop4_7")
    ),
    "map-without-counters": Case(
        "add map nexthop4_7 { type mark : ipv4_addr; size 7; }", maps("nexthop4_7")
    ),
    "map-whose-elements-age": Case(
        "add set open_7 { type mark; size 7; timeout 1h; }", maps("open_7")
    ),
    "flows-that-are-no-map": Case(
        "add set tcp4_7 { type mark; size 7; flags dynamic,timeout; elements = { 1 }; }",
        maps("tcp4_7"),
    ),
    "map-of-no-name-of-ours": Case(
        "add map stray { type ipv4_addr . inet_service : verdict; flags interval; "
        "elements = { 10.0.0.0/8 . 1-5 : drop }; }",
        maps("stray"),
    ),
    "map-of-objects": Case(
        "add counter theirs\nadd map stray { type mark : counter; elements = { 1 : theirs }; }",
        both(
            lambda table: replace(table, counters=table.counters | {"theirs"}),
            maps("stray"),
        ),
    ),
    "map-used-by-a-rule-in-our-chain": Case(
        "add map stray { type mark : verdict; }\nadd rule service4.web meta mark vmap @stray",
        both(maps("stray"), with_rule("service4.web", Rule("", "meta mark vmap @stray"))),
        ("service4.web",),
    ),
    "map-that-leads-to-our-chain": Case(
        "add map stray { type mark : verdict; elements = { 7 : goto service4.web }; }",
        maps("stray"),
    ),
    "element-that-drops": Case(
        f"add element {EXACT} {{ 10.0.0.7 . 6 . 80 : drop }}", unreadable(EXACT)
    ),
    "element-that-jumps": Case(
        f"add element {EXACT} {{ 10.0.0.7 . 6 . 80 : jump service4.web }}", unreadable(EXACT)
    ),
    "element-for-all-keys": Case(f"add element {EXACT} {{ * : drop }}", unreadable(EXACT)),
    "hop-for-all-marks": Case(f"add element {VIA} {{ * : 1.2.3.4 }}", unreadable(VIA)),
    "slot-for-all-numbers": Case(f"add element {SLOTS} {{ * : 7 }}", unreadable(SLOTS)),
    "element-in-an-empty-map": Case(
        "add element accepts_new_flows_1024 { 77 }", lambda table: with_open(table)
    ),
    "chain": Case("add chain stray\nadd rule stray drop", with_chain("stray", Chain((STRAY,)))),
    "chain-that-jumps-to-ours": Case(
        "add chain stray\nadd rule stray jump service4.web",
        with_chain("stray", Chain((Rule("", "jump service4.web"),))),
    ),
    "chain-that-uses-our-map": Case(
        f"add chain stray\nadd rule stray fwd ip to meta mark map @{VIA} device eth0",
        with_chain("stray", Chain((Rule("", f"fwd ip to meta mark map @{VIA} device eth0"),))),
    ),
    "base-chain": Case(
        'add chain stray { type filter hook ingress device "eth0" priority -600; }',
        with_chain("stray", Chain((), "eth0", "priority -600")),
    ),
    "base-chain-at-egress": Case(
        'add chain stray { type filter hook egress device "eth0" priority -500; policy drop; }',
        with_chain("stray", Chain((), "eth0", "hook 1, policy drop")),
    ),
    "policy-of-our-chain": Case(
        'add chain in.eth0 { type filter hook ingress device "eth0" priority -500; policy drop; }',
        lambda table: with_chain(
            "in.eth0", replace(table.chains["in.eth0"], foreign="policy drop")
        )(table),
        ("in.eth0",),
    ),
    "rule-in-our-chain": Case("add rule in.eth0 drop", with_rule("in.eth0"), ("in.eth0",)),
    "rule-with-a-comment-that-is-no-text": Case(
        'add rule in.eth0 drop comment "\udcff"', with_rule("in.eth0", Rule("\udcff")), ("in.eth0",)
    ),
    "counter": Case(
        "add counter theirs", lambda table: replace(table, counters=table.counters | {"theirs"})
    ),
    "quota-and-limit": Case(
        "add quota no_backend { 10 mbytes; }\nadd limit theirs { rate 10/second; }",
        foreign(objects=frozenset({(2, "no_backend"), (4, "theirs")})),
    ),
    "quota-used-by-a-rule": Case(
        'add quota theirs { 10 mbytes; }\nadd rule service4.web quota name "theirs"',
        both(foreign(objects=frozenset({(2, "theirs")})), with_rule("service4.web")),
        ("service4.web",),
    ),
    "dormant": Case("add table { flags dormant; }", foreign(dormant=True)),
}


def with_open(table: Ruleset) -> Ruleset:
    name = "accepts_new_flows_1024"
    return replace(table, maps={**table.maps, name: {**table.maps[name], 77: None}})


def meddle(nft: Nftables, case: Case) -> None:
    """Somebody else does it: in the fake by values, in the kernel by nft."""
    if isinstance(nft, FakeNftables):
        assert nft.table is not None
        nft.table = case.change(nft.table)
        return
    lines = []
    for line in case.text.splitlines():
        verb, what, rest = line.split(" ", 2)
        lines.append(f"{verb} {what} netdev tula {rest}")
    text = "\n".join(lines).encode(errors="surrogateescape")
    subprocess.run(["nft", "-f", "-"], input=text, check=True)


def bring(nft: Nftables, want: Ruleset) -> Transaction:
    """What an apply does."""
    have = nft.observe()
    transaction = diff_rulesets(have, want, nft.counts())
    for part in in_turn(transaction):
        nft.run(part)
    assert nft.observe() == want
    assert diff_rulesets(nft.observe(), want) == ()
    return transaction


def add_flow(nft: Nftables) -> None:
    if isinstance(nft, FakeNftables):
        nft.flows[TCP, bytes(16)] = 7
        return
    text = f"add element netdev tula {TCP} {{ 0 . 0 . 0 . 0 timeout 1h : 7 }}"
    subprocess.run(["nft", text], check=True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_is_seen_and_goes_alone(nft: Nftables, case: Case) -> None:
    want = make_ruleset(WEB)
    bring(nft, want)
    add_flow(nft)
    meddle(nft, case)
    assert nft.observe() == case.change(want)
    nft.counts()
    assert TCP in nft.entries()
    assert nft.connections(10) == HeldConnections({7: 1})
    seen = nft.observe()
    assert seen is not None
    assert make_ruleset(WEB, seen, recover_ids(seen)) == want, "it is planned as before"
    steps = bring(nft, want)
    assert nft.connections(10) == HeldConnections({7: 1})
    touched = {step.chain for step in steps if hasattr(step, "chain")}
    assert touched == set(case.chains)
    assert not any(isinstance(s, (AddMap, AddTable)) for s in steps)
    flushed = {s.name for s in steps if isinstance(s, FlushMap) and not s.name.kind.hot}
    assert {str(name) for name in flushed} <= (seen.foreign.elements if seen.foreign else set())


WANTED = {
    "set-in-place-of-a-map": (
        f"add set {EXACT} {{ type ipv4_addr; elements = {{ 1.2.3.4 }}; }}",
        (EXACT,),
    ),
    "map-of-another-size": (f"add map {VIA} {{ type mark : ipv4_addr; size 7; counter; }}", (VIA,)),
    "flows-of-another-kind": (f"add set {TCP} {{ type mark; flags dynamic; }}", (TCP,)),
    "two-of-them": (
        "add map accepts_new_flows_1024 { type mark : verdict; }\n"
        "add set icmp_service_port4_1024 { type mark; }",
        ("accepts_new_flows_1024", "icmp_service_port4_1024"),
    ),
}


@pytest.mark.parametrize(("text", "names"), WANTED.values(), ids=WANTED)
@pytest.mark.parametrize("rules", [False, True], ids=["alone", "in-use"])
def test_a_foreign_map_gives_its_name_back(
    nft: Nftables, text: str, names: tuple[str, ...], rules: bool
) -> None:
    """Alone in the table, and where all else is there: our rules, and foreign ones that name it."""
    want = make_ruleset(WEB)
    if rules:
        bring(nft, without(want, names))
    else:
        nft.run((AddTable(),))
    meddle(nft, Case(text, lambda table: replace(table, foreign=Foreign(frozenset(names)))))
    if rules:
        use = f"add chain stray\nadd rule stray meta mark @{names[0]}"
        rule = Chain((Rule("", f"meta mark @{names[0]}"),))
        if "verdict" not in text and "ipv4_addr" not in text:
            meddle(nft, Case(use, with_chain("stray", rule)))
    seen = nft.observe()
    assert seen is not None
    assert seen.foreign.maps == set(names)
    assert not seen.maps.keys() & set(names)
    bring(nft, want)


def without(table: Ruleset, names: tuple[str, ...]) -> Ruleset:
    """The table without these maps and the rules that name them."""

    def kept(chain: Chain) -> Chain:
        used = [f"@{name} " for name in names]
        return replace(
            chain,
            rules=tuple(r for r in chain.rules if not any(u in f"{r.text} " for u in used)),
        )

    return replace(
        table,
        maps={name: elements for name, elements in table.maps.items() if name not in names},
        chains={name: kept(chain) for name, chain in table.chains.items()},
    )


def test_a_foreign_chain_gives_its_name_back(nft: Nftables) -> None:
    """A plain chain of a base chain's name, that a map, an element and a rule lead to."""
    want = make_ruleset(WEB)
    bring(nft, without_chain(want, "in.eth0"))
    text = (
        "add chain in.eth0\nadd rule in.eth0 drop\nadd chain stray\nadd rule stray jump in.eth0\n"
        "add map stray { type mark : verdict; elements = { 7 : goto in.eth0 }; }\n"
        f"add element {EXACT} {{ 10.0.0.7 . 6 . 80 : goto in.eth0 }}"
    )

    def change(table: Ruleset) -> Ruleset:
        exact = {**table.maps[EXACT], (bytes([10, 0, 0, 7]), 6, 80, 80): "in.eth0"}
        return Ruleset(
            {**table.maps, EXACT: exact},
            {
                **table.chains,
                "in.eth0": Chain((STRAY,)),
                "stray": Chain((Rule("", "jump in.eth0"),)),
            },
            table.counters,
            Foreign(frozenset({"stray"})),
        )

    meddle(nft, Case(text, change))
    assert nft.observe() == change(without_chain(want, "in.eth0"))
    bring(nft, want)


def without_chain(table: Ruleset, name: str) -> Ruleset:
    return replace(table, chains={k: chain for k, chain in table.chains.items() if k != name})


def test_counts_go_on_when_a_map_is_written_again(nft: Nftables) -> None:
    want = make_ruleset(WEB)
    bring(nft, want)
    mark = next(iter(want.maps[VIA]))
    if isinstance(nft, FakeNftables):
        nft.element_counts[VIA] = {mark: Count(5, 600)}
    else:
        (hop, owner) = want.maps[VIA][mark]  # type: ignore[misc]
        hop = ".".join(map(str, hop))
        where = f"element netdev tula {VIA}"
        element = f'{mark} counter packets 5 bytes 600 comment "{owner}" : {hop}'
        text = f"delete {where} {{ {mark} }}\nadd {where} {{ {element} }}"
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    meddle(nft, CASES["hop-for-all-marks"])
    bring(nft, want)
    assert nft.counts()[VIA][mark] == Count(5, 600)


@pytest.mark.parametrize("nft", [pytest.param("kernel", marks=pytest.mark.kernel)], indirect=True)
def test_a_comment_on_a_slot_is_not_foreign(nft: Nftables) -> None:
    """Only slower to read: the bulk of pairs is not alike any more."""
    want = make_ruleset(WEB)
    bring(nft, want)
    value = want.maps[SLOTS][5]
    text = (
        f"delete element netdev tula {SLOTS} {{ 5 }}\n"
        f'add element netdev tula {SLOTS} {{ 5 comment "x" : {value} }}'
    )
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)
    assert nft.observe() == want


@pytest.mark.kernel
@pytest.mark.parametrize("nft", ["kernel"], indirect=True)
def test_every_kind_of_map_is_known_by_what_nft_makes_of_it(nft: Nftables) -> None:
    unsized = {
        Kind.SERVICE_RANGE4,
        Kind.SERVICE_RANGE6,
        Kind.ICMP_SERVICE_RANGE4,
        Kind.ICMP_SERVICE_RANGE6,
    }
    names = [
        MapName(
            kind,
            size=0 if kind in unsized or kind.prefixes else 8,
            number=3 if kind.numbered or kind.prefixes else 0,
            label="service.web.24" if kind.labelled else "",
        )
        for kind in Kind
    ]
    nft.run((AddTable(), *map(AddMap, names)))
    seen = nft.observe()
    assert seen is not None
    assert set(seen.maps) == set(map(str, names))
    assert not seen.foreign
    with NftReader() as reader:
        assert len(reader.maps("tula")) == len(names)
