"""A backend sets itself up by its excerpt as it would by the whole configuration."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.configurations import GOOD, valid_configs
from tula.agent.plan import plan_backend_setup, role_by_name
from tula.config.excerpt import backend_excerpt
from tula.config.load import load_config, parse_config
from tula.model.config import Config


def names(config: Config) -> list[str]:
    return sorted({b.name for service in config.services for b in service.backends})


def require_same(config: Config, name: str) -> None:
    text = backend_excerpt(config, name)
    assert text is not None
    loaded = parse_config(text.encode())
    assert not loaded.warnings
    whole, part = role_by_name(config, name), role_by_name(loaded.config, name)
    assert whole is not None
    assert part is not None
    assert plan_backend_setup([part]) == plan_backend_setup([whole])


@given(valid_configs(), st.randoms())
def test_of_any_configuration(config: Config, random: Random) -> None:
    found = names(config)
    if found:
        require_same(config, random.choice(found))
    assert backend_excerpt(config, "nobody-has-this-name") is None


@pytest.mark.parametrize("path", sorted(GOOD.glob("*.yaml")), ids=lambda path: path.stem)
def test_of_those_that_are_written_down(path: Path) -> None:
    config = load_config(path).config
    for name in names(config):
        require_same(config, name)


def test_others_are_not_in_it() -> None:
    text = """\
interfaces: [eth0]
tunnels: {vxlan_id: 7}
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l3
    health: {type: http, headers: {authorization: hush}}
    backends: {one: {address: 10.0.0.11}, two: {address: 10.0.0.12}}
  dns:
    vip: 10.0.0.101
    ports: any
    forwarding: l2
    backends: {uno: {address: 10.0.0.11}}
  mail:
    vip: 10.0.0.102
    ports: [25]
    forwarding: l2
    backends: {two: {address: 10.0.0.12}}
"""
    found = backend_excerpt(parse_config(text.encode()).config, "one")
    assert found is not None
    for hidden in ("two", "10.0.0.12", "mail", "10.0.0.102", "hush", "health"):
        assert hidden not in found
    for shown in ("10.0.0.100", "10.0.0.101", "uno", "vxlan_id: 7"):
        assert shown in found
