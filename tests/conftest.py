"""Options of all suites."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["support.link_kinds"]

# No test asserts a timing, hypothesis's own neither: a busy machine is slow, not wrong.
settings.register_profile("tula", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tula")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update",
        action="store_true",
        help="write the expected files anew (make golden); read the difference before committing",
    )


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether expected files are to be written anew."""
    return bool(request.config.getoption("--update"))
