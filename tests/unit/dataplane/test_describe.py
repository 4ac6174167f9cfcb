"""A change in words: a line for each thing, with the verb that a reader would use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.builders import make_backend, make_config, make_ruleset, make_service
from tula.dataplane.nft.describe import describe_transaction
from tula.dataplane.nft.diff import diff_rulesets
from tula.dataplane.nft.ruleset import Chain, Rule, Ruleset
from tula.dataplane.port import ChangeStep
from tula.model.config import Affinity, Config, PortRange

BACKENDS = [make_backend(0), make_backend(1)]
WEB = make_service("web", backends=BACKENDS)


def lines(have: Ruleset | None, want: Ruleset | None) -> list[str]:
    return [
        " ".join(filter(None, (d.verb, d.what, d.name, d.detail)))
        for d in describe_transaction(diff_rulesets(have, want))
    ]


def change(before: Config, after: Config) -> list[str]:
    have = make_ruleset(before)
    return lines(have, make_ruleset(after, have))


def test_nothing_has_no_words() -> None:
    assert not list(describe_transaction(()))
    assert change(make_config(WEB), make_config(WEB)) == []


def test_a_first_apply_adds_everything() -> None:
    found = lines(None, make_ruleset(make_config(WEB)))
    assert found[0] == "add table netdev tula"
    assert all(line.startswith("add ") for line in found)
    assert [line for line in found if " chain in." in line or " chain service" in line] == [
        "add chain service4.web 3 rules",
        "add chain in.eth0 at the ingress of eth0",
    ]
    assert set(found) >= {
        "add counter no_backend",
        "add counter table_full",
        "add map slots_1_4093 4093 elements",
        "add map accepts_new_flows_1024 2 elements",
        "add map nexthop4_1024 2 elements",
        "add map tcp4_262144 0 elements",
        "add map service_port4_1024 1 element",
    }


def test_clear_removes_the_table() -> None:
    assert lines(make_ruleset(make_config(WEB)), None) == ["remove table netdev tula"]


def test_a_weight_changes_elements_alone() -> None:
    lighter = replace(WEB, backends=(replace(BACKENDS[0], weight=50), BACKENDS[1]))
    (line,) = change(make_config(WEB), make_config(lighter))
    assert line.startswith("change map slots_1_4093 elements: ")
    assert line.endswith(" changed")
    assert "more" not in line


def test_more_and_fewer_elements() -> None:
    ports = {
        name: make_config(replace(WEB, ports=tuple(PortRange(p, p) for p in numbers)))
        for name, numbers in (("one", [80]), ("three", [80, 81, 82]), ("other", [83, 84]))
    }

    def both(detail: str) -> list[str]:
        """Ports are looked up in packets, and in ICMP errors about them."""
        return [
            f"change map {name}_1024 elements: {detail}"
            for name in ("icmp_service_port4", "service_port4")
        ]

    assert sorted(change(ports["one"], ports["three"])) == sorted(both("2 more"))
    assert sorted(change(ports["three"], ports["one"])) == sorted(both("2 fewer"))
    assert sorted(change(ports["three"], ports["other"])) == sorted(both("1 fewer, 2 changed"))


def test_a_rule_that_changes_changes_its_chain() -> None:
    by_client = replace(WEB, affinity=Affinity.CLIENT)
    assert change(make_config(WEB), make_config(by_client)) == [
        "change chain service4.web 3 rules",
        "change chain icmp4.web 1 rule",
    ]


def test_a_service_comes_and_goes() -> None:
    api = make_service("api", ports=[PortRange(81, 81)], backends=BACKENDS[:1])
    came = change(make_config(WEB), make_config(WEB, api))
    assert sorted(came) == [
        "add chain icmp4.api 1 rule",
        "add chain service4.api 3 rules",
        "add counter no_backend.api",
        "add map slots_2_4093 4093 elements",
        "change map accepts_new_flows_1024 elements: 1 more",
        "change map icmp_service_port4_1024 elements: 1 more",
        "change map nexthop4_1024 elements: 1 more",
        "change map service_port4_1024 elements: 1 more",
    ]
    went = change(make_config(WEB, api), make_config(WEB))
    assert sorted(went) == [
        "change map accepts_new_flows_1024 elements: 1 fewer",
        "change map icmp_service_port4_1024 elements: 1 fewer",
        "change map nexthop4_1024 elements: 1 fewer",
        "change map service_port4_1024 elements: 1 fewer",
        "remove chain icmp4.api",
        "remove chain service4.api",
        "remove counter no_backend.api",
        "remove map slots_2_4093",
    ]


def test_a_table_that_gets_a_second_user_holds_numbers_for_both() -> None:
    api = make_service("api", ports=[PortRange(81, 81)], backends=BACKENDS)
    came = change(make_config(WEB), make_config(WEB, api))
    assert "change map slots_1_4093 elements: 4093 changed" in came
    assert {"change chain service4.web 3 rules", "add chain service4.api 3 rules"} < set(came)


@pytest.mark.parametrize(
    ("have", "line"),
    [
        (Ruleset(chains={"mine": Chain((Rule.of("accept"),))}), "remove chain mine"),
        (Ruleset(maps={"mine": {}}), "remove map mine"),
        (Ruleset(counters=frozenset({"mine"})), "remove counter mine"),
    ],
)
def test_what_was_put_there_by_hand_goes(have: Ruleset, line: str) -> None:
    assert lines(have, Ruleset()) == [line]


def test_a_chain_on_another_device_says_which() -> None:
    have = Ruleset(chains={"in.x": Chain((), "eth0")})
    want = Ruleset(chains={"in.x": Chain((), "eth1")})
    (described,) = describe_transaction(diff_rulesets(have, want))
    assert described == ChangeStep("change", "chain", "in.x", "at the ingress of eth1")
