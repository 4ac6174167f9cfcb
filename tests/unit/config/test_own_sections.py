"""What belongs to one machine stays when it takes another's configuration."""

from __future__ import annotations

import pytest

from tula.config.own_sections import SectionsError, with_own_sections

KEYS = ("api", "metrics")
OWN = """\
services: {}
api:
  listen: "10.0.0.2:8420"   # this one

# Prometheus
metrics: {listen: "127.0.0.1:9420"}
"""
OTHER = """\
# all of them
interfaces: [eth0]
api: {listen: "10.0.0.3:8420",
      source: api}
# what is served
services:
  web: {}
"""


def test_sections_are_exchanged_and_the_rest_stays() -> None:
    assert with_own_sections(OTHER, OWN, KEYS) == (
        "# all of them\ninterfaces: [eth0]\n"
        'api:\n  listen: "10.0.0.2:8420"   # this one\n'
        "# what is served\nservices:\n  web: {}\n"
        'metrics: {listen: "127.0.0.1:9420"}\n'
    )
    assert with_own_sections(OTHER, "services: {}", KEYS) == (
        "# all of them\ninterfaces: [eth0]\n# what is served\nservices:\n  web: {}\n"
    )
    assert with_own_sections(OTHER, OTHER, KEYS) == OTHER


@pytest.mark.parametrize("text", ["{services: {}, api: {}}", "- a", "a: [", ""])
def test_what_is_not_of_lines_is_refused(text: str) -> None:
    with pytest.raises(SectionsError):
        with_own_sections(text, OWN, ("api",))
