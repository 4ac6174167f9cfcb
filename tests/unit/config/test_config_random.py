"""Random configs survive being written and read; random text never does more than be refused."""

from __future__ import annotations

import random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from support.configurations import BAD, GOOD, render_config, valid_configs
from tula.config import compose
from tula.config.load import ConfigError, describe, parse_config
from tula.model.config import Config

DOCUMENTS = [path.read_bytes() for path in sorted((*GOOD.glob("*"), *BAD.glob("*.yaml")))]
SPLICES = [
    *(b"&a ", b"*a", b"<<: ", b"!!int ", b"? ", b": ", b"- ", b"\n", b"\n  ", b"[", b"]", b"{"),
    *(b"}", b"'", b'"', b"|\n", b"\\x00", b"\x00", b"\xff", b"~", b"0x50", b"80:90", b"any"),
    *(b"9" * 5000, b"'" + b"w" * 5000 + b"'", b'"\\ud800"', b'"\\UFFFFFFFF"', b"\xe2\x80\xa8"),
]


@pytest.fixture(params=["libyaml", "python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML: the one in C may be missing."""
    if request.param == "python":
        monkeypatch.setattr(compose, "_LOADER", yaml.SafeLoader)
    elif not yaml.__with_libyaml__:
        pytest.skip("PyYAML without libyaml")


def parse_or_refuse(text: str | bytes) -> None:
    try:
        parse_config(text)
    except ConfigError as error:
        refused = error
    else:
        return
    assert refused.problems
    for problem in refused.problems:
        line = describe("F", problem, refused.positions)
        assert line.isprintable(), line
        assert len(problem.message) <= 400, line
        assert len(line) <= 1000, line


@given(valid_configs())
@settings(max_examples=100)
def test_a_config_written_out_is_read_back_the_same(config: Config) -> None:
    assert parse_config(render_config(config)).config == config


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
@settings(max_examples=200)
def test_random_text_is_refused(text: str | bytes) -> None:
    parse_or_refuse(text)


@given(st.text("&*!<>|%@`-?:,[]{}#'\"\\\n \t~a1", max_size=60))
@settings(max_examples=300)
def test_random_yaml_is_refused(text: str) -> None:
    parse_or_refuse(text)


WORDS = """
interfaces services defaults connections maglev marks load_balancers web vip ports protocol
forwarding backends address weight health checks type slots first last tcp x
"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.text(max_size=3),
    st.sampled_from(["l2", "l3", "any", "8-1", "10.0.0.1", "::1", "rr", "http", "2h", "eth0"]),
)
TREES = st.recursive(
    SCALARS, lambda t: st.lists(t, max_size=3) | st.dictionaries(KEYS, t, max_size=4), max_leaves=20
)


@given(st.dictionaries(KEYS, TREES, max_size=5), st.dictionaries(KEYS, TREES, max_size=8))
@settings(max_examples=300)
def test_documents_of_known_keys_and_random_values(
    top: dict[str, object], service: dict[str, object]
) -> None:
    tree = {"interfaces": ["eth0"], "services": {"web": service}} | top
    parse_or_refuse(yaml.safe_dump(tree))


@pytest.mark.usefixtures("loader")
def test_mutated_documents() -> None:
    # Of a fixed seed: what fails here fails the next time.
    rng = random.Random(1)
    for _ in range(600):
        text = bytearray(rng.choice(DOCUMENTS)[:4000])
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(text))
            text[at : at + rng.choice([0, 0, 1, 5, 40])] = rng.choice(SPLICES)
        parse_or_refuse(bytes(text))
