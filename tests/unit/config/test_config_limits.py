"""Documents made to exhaust: refused soon, whatever they multiply. And large ones: read soon.

The times allowed are many times those measured: they tell linear from quadratic, not fast from
slow.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import yaml

from tula.config import compose
from tula.config.load import ConfigError, describe, parse_config

HEAD = "interfaces: [eth0]\n"


@contextmanager
def within(seconds: float) -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds


def first_line(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(text)
    return describe("F", caught.value.problems[0], caught.value.positions)


def service(name: str, vip: str, ports: str, backends: str = "{}") -> str:
    return f"  {name}: {{vip: {vip}, ports: {ports}, forwarding: l2, backends: {backends}}}\n"


def address(number: int) -> str:
    return f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def test_five_thousand_services_of_four_backends() -> None:
    text = HEAD + "services:\n"
    for i in range(5000):
        backends = ", ".join(f"b{j}: {{address: 10.{address(4 * i + j)}}}" for j in range(4))
        text += service(f"s{i}", f"100.{address(i)}", "[80, 443, 8000-8010]", f"{{{backends}}}")
    with within(30):
        assert len(parse_config(text).config.services) == 5000


def test_five_thousand_services_on_one_vip() -> None:
    text = HEAD + "services:\n"
    text += "".join(service(f"s{i}", "198.51.100.10", str(i + 1)) for i in range(5000))
    with within(30):
        assert len(parse_config(text).config.services) == 5000


def test_five_thousand_services_that_all_overlap() -> None:
    text = HEAD + "services:\n"
    text += "".join(service(f"s{i}", "198.51.100.10", "1-65535") for i in range(5000))
    with within(30), pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert len(caught.value.problems) == 4999


def test_five_thousand_services_that_are_all_wrong() -> None:
    text = HEAD + "services:\n"
    text += "".join(service(f"s{i}", "nowhere", "[0, 1]") for i in range(5000))
    with within(60), pytest.raises(ConfigError) as caught:
        parse_config(text)
    assert len(caught.value.problems) == 10000


def test_ports_times_vips() -> None:
    vips = ", ".join(f"100.{address(i)}" for i in range(2000))
    ports = ", ".join(str(2 * port) for port in range(1, 2001))
    with within(30):
        line = first_line(HEAD + "services:\n" + service("web", f"[{vips}]", f"[{ports}]"))
    assert line.startswith("F:2:1: services: 4,000,000 combinations of VIP, protocol and port")


def test_an_alias_bomb() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    text += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 15))
    with within(10):
        assert "values, counting those of aliases each time" in first_line(text)


def test_a_merge_bomb() -> None:
    text = "a: &a {" + ", ".join(f"k{i}: x" for i in range(2000)) + "}\n"
    text += "".join(f"b{i}: {{<<: *a}}\n" for i in range(1000))
    with within(20):
        assert "values, counting those of aliases each time" in first_line(text)


def test_more_values_than_any_document_needs() -> None:
    with within(60):
        assert "more than 1,000,000 values" in first_line("a: [" + "x," * 1_100_000 + "]\n")


def test_depth() -> None:
    for text in ("[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000):
        with within(10):
            line = first_line(text)
        assert "more than 20 levels of maps and lists" in line or "cannot be a key" in line


def test_depth_by_aliases() -> None:
    text = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 30))
    assert first_line(text) == "F:20:12: more than 20 levels of maps and lists"


def test_a_scalar_of_megabytes_is_shown_in_short() -> None:
    with within(10):
        line = first_line(HEAD + "services: " + "'" + "\\" * 5_000_000 + "'\n")
    assert len(line) < 300


def test_a_key_of_megabytes_is_shown_in_short() -> None:
    # Longer than YAML allows an implicit key to be.
    with within(10):
        line = first_line(HEAD + "services: {}\n? " + "w" * 5_000_000 + "\n: x\n")
    assert len(line) < 400


def test_depth_without_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compose, "_LOADER", yaml.SafeLoader)
    assert "more than 20 levels of maps and lists" in first_line("[" * 5000)
    assert "an escape sequence is not a character" in first_line('a: "\\UFFFFFFFF"')
    assert "half of a surrogate pair" in first_line('a: "\\ud800"')
