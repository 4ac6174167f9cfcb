"""What the documentation lists is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tula.api.gateway import service
from tula.config.load import parse_config
from tula.metrics import collector
from tula.model.config import Scheduler
from tula.model.event import EventKind
from tula.model.health import State
from tula.model.monitor import PROBES

DOCS = Path(__file__).parents[2] / "docs"


def section(page: str, heading: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    text = (DOCS / page).read_text()
    level = heading.partition(" ")[0]
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"{page} has no {heading!r}"
    return re.split(rf"\n#{{1,{len(level)}}} ", rest)[0]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_whole_configurations_can_be_read(page: Path) -> None:
    for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        if re.search(r"^interfaces:", text, re.MULTILINE):
            assert parse_config(text).config.services


def test_every_kind_of_event_is_listed_and_no_other() -> None:
    _, _, listed = section("api.md", "## Events").partition("`kind` is one of: ")
    assert set(re.findall(r"`([a-z-]+)`", listed)) == set(EventKind)


def test_every_metric_is_listed_and_no_other() -> None:
    folder = Path(collector.__file__).parent
    source = "".join(path.read_text() for path in sorted(folder.glob("*.py")))
    made = set(re.findall(r'"(tula_[a-z_]+)"', source))
    own = re.findall(r"# TYPE (tula_[a-z_]+)", Path(service.__file__).read_text())
    made |= {name.removesuffix("_total") for name in own}
    table = section("api.md", "## Metrics")
    listed = set()
    for row in re.findall(r"^\| (`tula_.*?) \|", table, re.MULTILINE):
        first, *rest = re.findall(r"`([^`]+)`", row)
        listed.add(first)
        listed |= {shortened(first, more) for more in rest}
    plain = {re.sub(r"_(total|bucket|sum|count|info)$", "", name) for name in listed}
    assert plain == made


def shortened(first: str, more: str) -> str:
    """``…_bytes_total`` beside ``tula_backend_packets_total``."""
    tail = more.removeprefix("…")
    if tail in ("_sum", "_count", "_bucket"):
        return re.sub(r"_(sum|count|bucket)$", "", first) + tail
    parts = first.removeprefix("tula_").split("_")
    return "_".join(["tula", *parts[: len(parts) - tail.count("_")]]) + tail


def test_schedulers_states_and_checks_are_all_there() -> None:
    service = section("configuration.md", "## A service")
    (row,) = re.findall(r"^\| `scheduler` \| (.*?) \|", service, re.MULTILINE)
    assert set(re.findall(r"`([a-z-]+)`", row)) == set(Scheduler)
    for scheduler in Scheduler:
        assert f"`{scheduler}`" in service.partition("**Scheduler.**")[2]
    states = re.findall(
        r"^\| `([a-z]+)` \|", section("commands.md", "## tula status"), re.MULTILINE
    )
    assert set(State) <= set(states)
    health = section("configuration.md", "## health, checks")
    (row,) = re.findall(r"^\| `type` \| all \| (.*?) \|", health, re.MULTILINE)
    assert set(re.findall(r"`([a-z]+)`", row)) == set(PROBES)
