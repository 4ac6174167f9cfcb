"""Tables as Tula left them up to schema 1, under the names of then.

Beside names and digests nothing changed with schema 2, so a table of today is turned back.
"""

from __future__ import annotations

import re
from dataclasses import replace

from tula.dataplane.nft.ruleset import Elements, Rule, Ruleset

_MAPS = {
    "accepts_new_flows": "open",
    "has_large_device4": "wide",
    "large_device4": "big4",
    "probe_backend": "probed",
    "wrr": "turns",
}
_MAPS_BY_VERSION = {
    "nexthop": "via",
    "service_port": "exact",
    "service_range": "range",
    "service_any": "any",
    "icmp_service_port": "icmpexact",
    "icmp_service_range": "icmprange",
    "icmp_service_any": "icmpany",
    "hot_tcp": "hottcp",
    "hot_udp": "hotudp",
    "probe_nexthop": "probe",
    "probe_device": "probedevice",
}
_CHAINS = {
    "service": "svc",
    "backend_chosen": "chosen",
    "forward_by_size": "send",
    "forward_icmp": "steer",
    "hit_closed": "closed",
    "learn_fragment": "keep",
    "lookup_tcp": "known_tcp",
    "lookup_udp": "known_udp",
    "try_forward_icmp": "known",
    "try_learn": "turn",
}
_BY_VERSION = {**_MAPS_BY_VERSION, **_CHAINS}
_OLD = {
    **_MAPS,
    **{f"{new}{v}": f"{old}{v}" for new, old in _BY_VERSION.items() for v in (4, 6)},
    "schema_2": "schema_1",
}
# Whole names, up to the number and size of a map or the service of a chain.
_NEW = re.compile(rf"(?<![\w.])({'|'.join(sorted(_OLD, key=len, reverse=True))})(?=[_.]|\b)")


def as_schema_1(text: str) -> str:
    """nft's text, or a name, with the names of schema 1."""
    return _NEW.sub(lambda found: _OLD[found[1]], text)


def table_of_schema_1(table: Ruleset) -> Ruleset:
    """The table with the names of schema 1; its rules have other digests then."""
    return Ruleset(
        {as_schema_1(name): _elements(elements) for name, elements in table.maps.items()},
        {
            as_schema_1(name): replace(chain, rules=tuple(map(_rule, chain.rules)))
            for name, chain in table.chains.items()
        },
        frozenset(map(as_schema_1, table.counters)),
    )


def _elements(elements: Elements) -> Elements:
    return {
        key: as_schema_1(value) if isinstance(value, str) else value
        for key, value in elements.items()
    }


def _rule(rule: Rule) -> Rule:
    text = as_schema_1(rule.text)
    return rule if text == rule.text else Rule.of(text)
