"""The golden rulesets: configurations, and the text that nft is given for them.

Their machine is the one of ``make_host``: eth0 with 10.0.0.2/16 and 2001:db8::2/64, eth1 with
10.1.0.2/24 and 2001:db8:1::2/64. A folder holds ``tula.yaml``, for a change also the
``before.yaml`` that it starts from (``before.schema_1.yaml``: in a table of schema 1), and
``expected.nft``.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from support.builders import make_host, make_numbered, number_config
from support.schema_1 import as_schema_1, table_of_schema_1
from tula.config.load import parse_config
from tula.dataplane.nft.build import build_ruleset
from tula.dataplane.nft.client_admission import refusal_rules
from tula.dataplane.nft.diff import diff_admission, diff_refusals, diff_rulesets
from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.own_stack import REFUSED_MARK
from tula.dataplane.nft.recover import recover_ids
from tula.dataplane.nft.ruleset import Ruleset
from tula.dataplane.nft.shared_flows import admission_rules
from tula.dataplane.nft.transaction import render_transaction
from tula.model.config import Config
from tula.model.desired import SharedWith
from tula.plan.routes import backend_addresses

GOLDEN = Path(__file__).parents[1] / "golden"
SECOND = [ip_network("10.1.0.0/24"), ip_network("2001:db8:1::/64")]


def golden_folders() -> list[Path]:
    """One folder a case."""
    return sorted(path for path in GOLDEN.iterdir() if (path / "tula.yaml").exists())


def render_golden(folder: Path) -> tuple[str, str]:
    """The text that brings the machine to the configuration before (nothing without one), and
    from there to ``tula.yaml``."""
    first, shared = "", None
    have, ids = None, Ids()
    for before in folder.glob("before.*"):
        have, ids, shared = _build(before, None, ids)
        others = (
            *diff_admission(None, shared),
            *diff_refusals(None, answered=_refusals(have) is not None),
        )
        first = render_transaction((*others, *diff_rulesets(None, have)))
        if before.name == "before.schema_1.yaml":
            have, first = table_of_schema_1(have), as_schema_1(first)
            ids = recover_ids(have)
    want, _, now = _build(folder / "tula.yaml", have, ids)
    admitted = None if shared is None else tuple(rule.digest for rule in admission_rules(shared))
    admission = (
        *diff_admission(admitted, now),
        *diff_refusals(_refusals(have), answered=_refusals(want) is not None),
    )
    return first, render_transaction((*admission, *diff_rulesets(have, want)))


def _build(path: Path, have: Ruleset | None, known: Ids) -> tuple[Ruleset, Ids, SharedWith | None]:
    config = parse_config(path.read_bytes()).config
    host = make_host(config, second=_on_second(config))
    ids = number_config(config, known, host=host)
    desired = make_numbered(config, host, ids)
    ruleset = build_ruleset(desired, have.maps if have else ()).ruleset
    return ruleset, ids, desired.shared_with


def _refusals(ruleset: Ruleset | None) -> tuple[str, ...] | None:
    """The digests of the rules that answer what these refuse."""
    chains = ruleset.chains.values() if ruleset is not None else ()
    answered = any(f"set {REFUSED_MARK:#x}" in rule.text for each in chains for rule in each.rules)
    return tuple(rule.digest for rule in refusal_rules()) if answered else None


def _on_second(config: Config) -> list[str]:
    return [str(a) for a in backend_addresses(config) if any(a in net for net in SECOND)]
