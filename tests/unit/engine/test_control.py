"""What stands at the door: names that are meant, and where a problem stands."""

from __future__ import annotations

import pytest

from support.builders import make_backend, make_config, make_service
from tula.config.load import ConfigError, describe, parse_config, place
from tula.engine.control import NoSuchBackendError, find_backend

CONFIG = make_config(
    make_service("web", backends=[make_backend(1), make_backend(2)]),
    make_service("dns", vips=["10.0.0.101"], backends=[make_backend(3)]),
)


def test_a_backend_by_its_name() -> None:
    assert find_backend(CONFIG, ("web", "b2")) == make_backend(2)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        (("web", "b3"), ("dns/b3",)),
        (("wbe", "b1"), ("web/b1",)),
        (("dns", "b33"), ("dns/b3",)),
        (("qqqqq", "zzzzzzzz"), ()),
    ],
)
def test_names_that_may_be_meant(name: tuple[str, str], near: tuple[str, ...]) -> None:
    with pytest.raises(NoSuchBackendError) as error:
        find_backend(CONFIG, name)
    assert error.value.near == near
    assert str(error.value).endswith(f"did you mean {near[0]}?" if near else "configuration")


def test_a_placed_problem_reads_as_the_line() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config("interfaces: [eth0]\nservices: {}\nfrobs: 1\n")
    (problem,) = error.value.problems
    placed = place(problem, error.value.positions)
    assert (placed.line, placed.column, placed.path) == (3, 1, "frobs")
    assert placed.describe("F") == describe("F", problem, error.value.positions)
