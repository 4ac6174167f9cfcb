"""What a table does and refuses: the fake and the kernel agree."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings

from support.builders import (
    configs,
    make_backend,
    make_config,
    make_ruleset,
    make_service,
    make_shared,
)
from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.recover import recover_ids
from tula.dataplane.nft.ruleset import Chain, Kind, MapName, Rule, Ruleset
from tula.dataplane.nft.schema import SCHEMA, schema_counter, schema_of
from tula.dataplane.nft.transaction import (
    AddChain,
    AddCounter,
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    Admit,
    AdmitNobody,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    DeleteTable,
    FlushChain,
    Step,
    in_turn,
)
from tula.kernel.nft_table import NewerTableError
from tula.kernel.nft_writer import fits_batch
from tula.kernel.nftables import Nftables
from tula.model.admission import Limits
from tula.model.config import Config, PortRange, Protocol, Tunnel
from tula.model.errors import KernelError
from tula.model.monitor import HealthMonitor, TcpProbe
from tula.model.persistence import Persistence
from tula.model.prefixes import PrefixList
from tula.model.stats import Count

VIA = MapName(Kind.NEXTHOP4, 4)
EXACT = MapName(Kind.SERVICE_PORT4, 4)
SLOTS = MapName(Kind.SLOTS, 3, 1)
HOP = bytes([10, 0, 0, 9])
VIP = bytes([10, 0, 0, 100])
DROP = Rule.of("counter name no_backend drop")
LOOK_UP = Rule.of(f"meta mark set numgen inc mod 3 map @{SLOTS}")

BASE: tuple[Step, ...] = (
    AddTable(),
    AddCounter("no_backend"),
    AddChain("in.eth0", "eth0"),
    AddChain("service4.web"),
    AddMap(VIA),
    AddMap(EXACT),
    AddMap(SLOTS),
    AddElements(VIA, {1: (HOP, "web"), 2: (HOP, "web")}),
    AddElements(EXACT, {(VIP, 6, 80, 80): "service4.web"}),
    AddElements(SLOTS, {0: 1, 1: 2}),
    AddRules("service4.web", (LOOK_UP, DROP)),
)


def bring(nft: Nftables, config: Config) -> None:
    have = nft.observe()
    want = make_ruleset(config, have, recover_ids(have))
    for part in in_turn(diff_rulesets(have, want, nft.counts())):
        nft.run(part)
    assert nft.observe() == want


def test_there_is_nothing_at_first(nft: Nftables) -> None:
    assert not nft.exists()
    assert nft.observe() is None
    assert nft.counts() == {}


def test_what_is_run_is_observed(nft: Nftables) -> None:
    nft.run(BASE)
    assert nft.exists()
    assert nft.observe() == Ruleset(
        maps={
            str(VIA): {1: (HOP, "web"), 2: (HOP, "web")},
            str(EXACT): {(VIP, 6, 80, 80): "service4.web"},
            str(SLOTS): {0: 1, 1: 2},
        },
        chains={"in.eth0": Chain((), "eth0"), "service4.web": Chain((LOOK_UP, DROP))},
        counters=frozenset({"no_backend"}),
    )
    assert nft.counts() == {str(VIA): {1: Count(), 2: Count()}}
    assert nft.named_counts() == {"no_backend": Count()}


def test_a_table_tells_its_schema_and_a_newer_one_is_not_read(nft: Nftables) -> None:
    nft.run((*BASE, AddCounter(schema_counter())))
    observed = nft.observe()
    assert observed is not None
    assert schema_of(observed.counters) == SCHEMA
    assert set(nft.named_counts()) == {"no_backend"}, "it counts nothing"
    # As a newer one would: both for a moment, then the new one.
    nft.run((AddCounter(schema_counter(SCHEMA + 1)),))
    for read in (nft.observe, nft.counts):
        with pytest.raises(NewerTableError, match=f"schema {SCHEMA + 1}, this one knows {SCHEMA}"):
            read()
    assert nft.exists()
    nft.run((DeleteCounter(schema_counter()), DeleteCounter(schema_counter(SCHEMA + 1))))
    observed = nft.observe()
    assert observed is not None
    assert schema_of(observed.counters) == 0, "from before there were any"


@pytest.mark.parametrize(
    "steps",
    [
        (DeleteChain("gone"),),
        (FlushChain("gone"),),
        (AddRules("gone", (DROP,)),),
        (DeleteMap("gone"),),
        (DeleteElements(VIA, (7,)),),
        (AddElements(MapName(Kind.NEXTHOP4, 9999), {1: (HOP, "web")}),),
        (AddElements(EXACT, {(VIP, 6, 81, 81): "gone"}),),
        (AddElements(VIA, {1: (VIP, "web")}),),
        (AddElements(VIA, dict.fromkeys(range(3, 9), (HOP, "web"))),),
        (DeleteChain("service4.web"),),
        (FlushChain("service4.web"), DeleteChain("service4.web")),
        (DeleteMap(str(SLOTS)),),
        (DeleteCounter("no_backend"),),
        (AddRules("service4.web", (Rule.of("meta mark set numgen inc mod 3 map @gone_1"),)),),
        (AddRules("service4.web", (Rule.of("meta l4proto 6 jump gone"),)),),
        (AddRules("service4.web", (Rule.of("goto gone"),)),),
        (AddRules("service4.web", (Rule.of("jump in.eth0"),)),),
        (AddElements(EXACT, {(VIP, 6, 81, 81): "in.eth0"}),),
        (AddRules("service4.web", (Rule.of("counter name gone drop"),)),),
        (
            AddChain("target"),
            AddRules("service4.web", (Rule.of("jump target"),)),
            DeleteChain("target"),
        ),
        (
            AddChain("target"),
            AddRules("service4.web", (Rule.of("goto target"),)),
            DeleteChain("target"),
        ),
    ],
    ids=lambda steps: " ".join(type(step).__name__ for step in steps),
)
def test_a_refused_step_leaves_all_as_it_was(nft: Nftables, steps: tuple[Step, ...]) -> None:
    nft.run(BASE)
    before = nft.observe()
    harmless = AddChain("new")
    with pytest.raises(KernelError) as refused:
        nft.run((harmless, *steps, harmless))
    assert nft.observe() == before
    assert 10 < len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_a_chain_goes_when_nothing_leads_to_it_any_more(nft: Nftables) -> None:
    nft.run((*BASE, AddChain("target"), AddRules("in.eth0", (Rule.of("jump target"),))))
    for rules in ((DROP,), ()):
        nft.run((FlushChain("in.eth0"), AddRules("in.eth0", rules), DeleteChain("target")))
        nft.run((AddChain("target"), AddRules("in.eth0", (Rule.of("goto target"),))))
    nft.run((FlushChain("in.eth0"), FlushChain("target"), DeleteChain("target")))
    observed = nft.observe()
    assert observed is not None
    assert "target" not in observed.chains


def test_nothing_works_without_a_table(nft: Nftables) -> None:
    for step in (AddChain("x"), DeleteTable()):
        with pytest.raises(KernelError):
            nft.run((step,))


def test_a_map_that_is_full_takes_what_replaces_something(nft: Nftables) -> None:
    nft.run(BASE)
    nft.run((AddElements(VIA, {3: (HOP, "web"), 4: (HOP, "web")}),))
    nft.run((DeleteElements(VIA, (1, 2)), AddElements(VIA, {5: (HOP, "a"), 1: (VIP, "web")})))
    observed = nft.observe()
    assert observed is not None
    assert set(observed.maps[str(VIA)]) == {1, 3, 4, 5}


def test_an_element_goes_with_the_chain_it_names(nft: Nftables) -> None:
    nft.run(BASE)
    nft.run(
        (
            DeleteElements(EXACT, ((VIP, 6, 80, 80),)),
            FlushChain("service4.web"),
            DeleteMap(str(SLOTS)),
            DeleteChain("service4.web"),
        )
    )
    observed = nft.observe()
    assert observed is not None
    assert set(observed.chains) == {"in.eth0"}


def test_what_is_unused_goes_by_a_batch(nft: Nftables) -> None:
    """Without an nft: on its way to the kernel it is another message than what nft sends."""
    nft.run(BASE)
    nft.run((FlushChain("service4.web"),))
    before = nft.observe()
    used: tuple[Step, ...] = (DeleteChain("service4.web"), DeleteMap("gone"))
    gone: tuple[Step, ...] = (
        *(DeleteMap(str(EXACT)), DeleteMap(str(SLOTS))),
        *(DeleteChain("service4.web"), DeleteCounter("no_backend")),
    )
    for refused in (used, (*gone, DeleteMap("gone")), (*gone, DeleteCounter("gone"))):
        assert fits_batch(refused)
        with pytest.raises(KernelError):
            nft.run(refused)
        assert nft.observe() == before
    nft.run(gone)
    observed = nft.observe()
    assert observed is not None
    assert (set(observed.maps), set(observed.chains)) == ({str(VIA)}, {"in.eth0"})
    assert not observed.counters


def test_a_counter_goes_on_from_where_it_is_told(nft: Nftables) -> None:
    nft.run(BASE)
    nft.run((AddElements(VIA, {3: (HOP, "web")}, {3: Count(5, 600)}),))
    assert nft.counts()[str(VIA)][3] == Count(5, 600)


def test_every_kind_of_map_takes_its_elements(nft: Nftables) -> None:
    services = [
        make_service(
            "web",
            ["10.0.0.100", "2001:db8::100"],
            [PortRange(80, 80), PortRange(8000, 8010)],
            [make_backend(0), make_backend(1)],
            list(Protocol),
            health=[HealthMonitor(TcpProbe())],
        ),
        make_service("any", ["10.0.0.100", "2001:db8::100"], [], [make_backend(2)]),
        make_service("far", ["10.0.0.101"], backends=[make_backend(3)], tunnel=Tunnel.IPIP),
    ]
    lists = PrefixList.of([ip_network("192.0.2.0/24"), ip_network("2001:db8:9::/48")])
    services[0] = replace(
        services[0],
        persistence=Persistence(300.0),
        allow=lists,
        deny=lists,
        limits=Limits(per_client=20),
    )
    config = make_shared(make_config(*services))
    sampled = replace(config.connections, size=1 << 19)
    bring(nft, replace(config, connections=sampled))
    observed = nft.observe()
    assert observed is not None
    assert nft.entries()["tcp4_524288"] in (0, None)  # Linux 6.1 does not tell
    assert nft.mark_of(MapName(Kind.TCP4, 1 << 19), bytes(16)) is None
    kinds = {parsed.kind for name in observed.maps if (parsed := MapName.parse(name))}
    # Those of a balancer that serves are in golden rulesets, which test_golden_by_nft loads.
    serving = {Kind.OWN4, Kind.OWN6, Kind.PROBE_OWN, Kind.FORWARDED4, Kind.FORWARDED6}
    assert kinds == set(Kind) - {Kind.DEVICE6, Kind.WRR} - serving


def test_whose_clones_are_taken(nft: Nftables) -> None:
    """A table of its own, which comes and goes with the rest or alone."""
    assert nft.admitted() is None
    first = (Rule.of("udp dport 4790 ip saddr { 10.0.0.3 } accept"), Rule.of("udp dport 4790 drop"))
    nft.run((*BASE, Admit(first)))
    assert nft.admitted() == tuple(rule.digest for rule in first)
    nft.run((Admit(first[1:]),))
    assert nft.admitted() == (first[1].digest,)
    with pytest.raises(KernelError):
        nft.run((AdmitNobody(), DeleteMap("gone")))
    assert nft.admitted() == (first[1].digest,)
    nft.run((AdmitNobody(),))
    assert nft.admitted() is None
    with pytest.raises(KernelError):
        nft.run((AdmitNobody(),))
    assert nft.exists()


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(first=configs(), second=configs())
def test_from_any_document_to_any_other(nft: Nftables, first: Config, second: Config) -> None:
    """One machine all the way, so that every example starts from where the last one ended."""
    bring(nft, first)
    bring(nft, second)


def test_a_large_table_and_one_backend_of_it(nft: Nftables) -> None:
    backends = [make_backend(number) for number in range(20)]
    bring(nft, make_config(make_service(backends=backends)))
    bring(nft, make_config(make_service(backends=[replace(backends[0], weight=50), *backends[1:]])))
    bring(nft, make_config(make_service(backends=backends[1:])))
