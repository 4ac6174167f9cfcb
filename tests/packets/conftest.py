"""Fixtures of the packet tests: they need root, and fail (not skip) without it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tula.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab of anonymous namespaces, gone after the test whatever happened in it."""
    with Lab() as made:
        yield made
