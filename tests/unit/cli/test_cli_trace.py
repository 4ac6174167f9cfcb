"""``tula trace``: endpoints as people write them, and what cannot be meant."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

Call = Callable[..., Result]


@pytest.mark.parametrize(
    ("target", "client", "answer"),
    [
        ("10.0.0.100:80", "10.0.0.9:1234", "web/one: web takes port 80; maglev hashes"),
        ("[2001:db8::100]:80", "[2001:db8::9]:0", "web/one: web takes port 80; maglev hashes"),
        ("10.0.0.100:81", "10.0.0.9:65535", "-/-: no service for 10.0.0.100 tcp port 81"),
    ],
)
def test_trace(tula: Call, target: str, client: str, answer: str) -> None:
    result = tula("trace", target, "--client", client, "-f", "DOC/tula.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(answer)
    as_json = tula("trace", target, "--client", client, "-f", "DOC/tula.yaml", "--json")
    assert set(json.loads(as_json.stdout)) == {"service", "backend", "reason", "persistence"}


GOOD = "10.0.0.9:1234"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["10.0.0.100", "--client", GOOD], "VIP:PORT '10.0.0.100': give an address and a port"),
        (
            ["2001:db8::1:80", "--client", GOOD],
            r"write an IPv6 address with its port as [ADDR]:PORT",
        ),
        (["[2001:db8::1]", "--client", GOOD], "as [ADDR]:PORT"),
        (["web:80", "--client", GOOD], "VIP:PORT 'web:80': give an address and a port"),
        (["10.0.0.100:", "--client", GOOD], "invalid port ''; give 0 to 65535"),
        (["10.0.0.100:http", "--client", GOOD], "invalid port 'http'"),
        (["10.0.0.100:65536", "--client", GOOD], "invalid port '65536'"),
        (["10.0.0.100:-1", "--client", GOOD], "invalid port '-1'"),
        (["10.0.0.100:٨٠", "--client", GOOD], "invalid port"),
        (["10.0.0.100:" + "9" * 5000, "--client", GOOD], "invalid port"),
        (["10.0.0.100:80", "--client", "10.0.0.9"], "--client '10.0.0.9': give an address"),
        (["10.0.0.100:80", "--client", "10.0.0.300:1"], "--client '10.0.0.300:1': give"),
        (["10.0.0.100:80", "--client", "[2001:db8::9]:1"], "have different IP versions"),
        (["10.0.0.100:80", "--client", GOOD, "--protocol", "sctp"], "give tcp or udp"),
        (["10.0.0.100:80", "--client", GOOD, "--fragment", "65536"], "0 to 65535"),
        (["10.0.0.100:80", "--client", GOOD, "--fragment", "-1"], "0 to 65535"),
        (["10.0.0.100:80", "--client", GOOD, "--fragment", "first"], "give the identification"),
        (
            ["[2001:db8::1]:80", "--client", "[2001:db8::9]:1", "--fragment", "0x100000000"],
            "0 to 4294967295",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_trace_refuses(tula: Call, arguments: list[str], words: str) -> None:
    result = tula("trace", *arguments, "-f", "DOC/tula.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.startswith("tula: ")
    assert result.stderr.count("\n") == 1
