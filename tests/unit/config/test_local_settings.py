"""What a configuration may have only from this machine's own file."""

from __future__ import annotations

import pytest

from tula.config.errors import place
from tula.config.load import parse_config
from tula.config.local_settings import foreign_problems, known_settings, local_settings

HEAD = "interfaces: [eth0]\n"
API = "api: {listen: '10.0.0.2:8420', certificate: /etc/c.pem, key: /etc/k.pem, source: api}\n"
SERVICE = """\
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l2
    backends: {b0: {address: 10.0.0.10}}
    health:
      checks:
        - {type: tcp}
        - {type: script, command: [/bin/check, "-v"]}
  dns:
    vip: 10.0.0.101
    ports: [53]
    forwarding: l2
    backends: {b0: {address: 10.0.0.10}}
"""


LOCAL = HEAD + API.replace("8420", "8421") + "metrics: {listen: '127.0.0.1:1'}\nservices: {}\n"


def problems(new: str, running: str, local: str = LOCAL) -> list[str]:
    want = parse_config(new)
    known = known_settings(parse_config(local).config)
    found = foreign_problems(
        want.config, want.positions, parse_config(running).config, known, "/etc/tula/tula.yaml"
    )
    placed = [place(problem, want.positions) for problem in found]
    return [f"{p.line}:{p.column}: {p.path}: {p.message[:24]}" for p in placed]


def test_which_there_are() -> None:
    found = {
        (s.declared[1], str(s.value)) for s in local_settings(parse_config(SERVICE + HEAD).config)
    }
    assert {name for name, _ in found} == {"api", "metrics", "notify", "command"}


def test_what_runs_already_may_stay() -> None:
    whole = HEAD + API + SERVICE
    assert problems(whole, whole) == []
    assert problems(whole.replace("vip: 10.0.0.101", "vip: 10.0.0.102"), whole) == []
    assert problems(whole.replace("  web:\n", "  # more\n  web:\n"), whole) == []
    fewer = HEAD + API + "services: {}\n"
    assert problems(fewer, whole) == [], "a program that runs no longer"


def test_what_the_local_file_has_may_come() -> None:
    whole, bare = HEAD + API + SERVICE, HEAD + API + "services: {}\n"
    assert problems(whole, bare, local=whole) == []
    elsewhere = whole.replace("  web:", "  other:")
    assert problems(elsewhere, bare, local=whole) == [], "wherever it stands there"


@pytest.mark.parametrize(
    ("have", "want", "at"),
    [
        (
            '[/bin/check, "-v"]',
            '[/bin/check, "-x"]',
            "12:35: services.web.health.checks[1].command",
        ),
        ('[/bin/check, "-v"]', "/bin/other", "12:35: services.web.health.checks[1].command"),
        ("source: api}", "source: file}", "2:1: api"),
        ("10.0.0.2:8420", "0.0.0.0:8420", "2:1: api"),
        ("/etc/k.pem", "/etc/other.pem", "2:1: api"),
        (API, "", "1:1: api"),
        (API, API + "metrics: {listen: '127.0.0.1:9420'}\n", "3:1: metrics"),
        (
            "    ports: [53]\n",
            "    ports: [53]\n    health: {type: script, command: /bin/check}\n",
            "16:37: services.dns.health.command",
        ),
    ],
)
def test_anything_else_may_not(have: str, want: str, at: str) -> None:
    whole = HEAD + API + SERVICE
    changed = whole.replace(have, want)
    assert changed != whole
    (found,) = problems(changed, whole)
    assert found.startswith(f"{at}: what "), found


def test_by_defaults_and_aliases() -> None:
    running = HEAD + API + SERVICE
    defaults = "defaults: {health: {type: script, command: /bin/evil}}\n"
    (first,) = problems(HEAD + API + defaults + SERVICE, running)
    assert first.startswith("3:44: defaults.health.command: what runs")
    alias = SERVICE.replace('command: [/bin/check, "-v"]', "command: &c [/bin/evil]").replace(
        "    ports: [53]\n", "    ports: [53]\n    health: {type: script, command: *c}\n"
    )
    assert len(problems(HEAD + API + alias, running)) == 2


def test_what_several_balancers_do_may_come_from_the_network() -> None:
    """It names no file, runs nothing that somebody has chosen, and listens to balancers alone."""
    several = (
        "load_balancers: {lb1: 10.0.0.2, lb2: 10.0.0.3}\nhigh_availability: {vrrp: {id: 84}}\n"
    )
    running = HEAD + API + SERVICE
    assert problems(running + several, running) == []
