"""A key is declared once, on the field that holds it: what is read, defaults and schema follow."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import MISSING, fields

import pytest

from tula.config.fields import settings_of
from tula.config.load import ConfigError, parse_config
from tula.config.schema import json_schema
from tula.model.config import (
    Backend,
    Config,
    Connections,
    MaglevSettings,
    MarkRange,
    TunnelSettings,
)
from tula.model.high_availability import Bgp, HighAvailability, Vrrp
from tula.model.listening import ApiSettings, MetricsSettings
from tula.model.monitor import PROBES, HealthMonitor, HealthPolicy, IcmpProbe

SECTIONS = {
    "high_availability": HighAvailability,
    "connections": Connections,
    "maglev": MaglevSettings,
    "marks": MarkRange,
    "tunnels": TunnelSettings,
    "api": ApiSettings,
    "metrics": MetricsSettings,
}
DECLARING = [
    *(Config, Backend, HealthMonitor, HealthPolicy, Vrrp, Bgp),
    *SECTIONS.values(),
    *PROBES.values(),
]


@pytest.mark.parametrize(("key", "cls"), SECTIONS.items())
def test_a_section_has_the_keys_and_defaults_of_its_fields(key: str, cls: type) -> None:
    model = "".join(map(str.capitalize, key.split("_")))
    properties = json_schema()["$defs"][f"{model}Model"]["properties"]
    assert list(properties) == [field.name for field in fields(cls)]
    for field in fields(cls):
        # The schema has no default that only stands for "not given".
        default = None if field.default in ((), "") else field.default
        assert properties[field.name].get("default") == default
    config = parse_config(f"interfaces: [eth0]\nservices: {{}}\n{key}: {{}}\n").config
    assert getattr(config, key) == cls()


@pytest.mark.parametrize("cls", DECLARING)
def test_every_key_is_described_in_a_sentence(cls: type) -> None:
    for declared in settings_of(cls):
        about = declared.setting.about
        assert about.endswith(".")
        assert "  " not in about


@pytest.mark.parametrize(("kind", "cls"), PROBES.items())
def test_every_kind_of_check_takes_its_own_keys_and_no_others(kind: str, cls: type) -> None:
    own = {declared.key for declared in settings_of(cls)}
    required = {d.key for d in settings_of(cls) if d.field.default is MISSING}
    everybodys = {declared.key for each in PROBES.values() for declared in settings_of(each)}
    for key in sorted(everybodys):
        keys = {name: VALUES[name] for name in required} | {
            key: VALUES[key],
            "type": kind,
            "via": "direct",
        }
        text = ", ".join(f"{name}: {value}" for name, value in keys.items())
        configuration = f"""\
interfaces: [eth0]
services:
  web: {{vip: 10.0.0.1, ports: 80, forwarding: l2, backends: {{}}, health: {{{text}}}}}
"""
        if key in own:
            (monitor,) = parse_config(configuration).config.services[0].health
            assert type(monitor.probe) is cls
            assert getattr(monitor.probe, key) not in ("", (), None)
        else:
            with pytest.raises(ConfigError, match=f"a check of type {kind} has no '{key}'"):
                parse_config(configuration)


VALUES = {
    "port": "8080",
    "send": "PING",
    "expect": "PONG",
    "path": "/ready",
    "host": "www.example.org",
    "headers": "{X-Probe: tula}",
    "status": "204",
    "body": "ready",
    "verify": "true",
    "expires_within": "1h",
    "name": "example.org",
    "record": "TXT",
    "command": "/bin/true",
    "drain_on": "404",
    "weight_from": "body",
}


def test_what_only_diagnosis_asks_for_is_not_a_key() -> None:
    assert "errors" in {field.name for field in fields(IcmpProbe)}
    assert settings_of(IcmpProbe) == ()


def test_the_declarations_import_nothing_heavy() -> None:
    code = "import sys, tula.model.config; print({'pydantic', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
