"""The counts that outlive what counted them: a service's total never falls."""

from __future__ import annotations

from collections.abc import Mapping

from tula.engine.store import RetiredCounts
from tula.model.config import Config
from tula.model.stats import BackendKey, Count


def add_counts(
    before: RetiredCounts, retired: Mapping[BackendKey, Count], config: Config
) -> dict[str, Mapping[str, Count]]:
    """``before`` with what retired now; services that are not in ``config`` are forgotten."""
    listed = {service.name for service in config.services}
    kept = {service: counts for service, counts in before.items() if service in listed}
    for (service, key), count in retired.items():
        if service in listed:
            totals = dict(kept.get(service, {}))
            totals[key] = totals.get(key, Count()) + count
            kept[service] = totals
    return kept
