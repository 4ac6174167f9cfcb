"""What makes two checks one probe, and one check the same as another before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tula.health.check import Check
from tula.health.scheduled import ScheduledProbe
from tula.model.health import BackendName

ProbeKey = tuple[object, ...]


def probe_key(check: Check) -> ProbeKey:
    """What makes two checks one probe. A script is told which backend it runs for."""
    backend = check.backend if check.settings.type == "script" else None
    return (check.settings, check.target, check.direct, backend)


def similar_key(backend: BackendName, check: Check) -> ProbeKey:
    """What makes a check the same as one before, whatever the backend's id is now."""
    at = check.target
    return (backend, check.settings, at.address, at.port, at.source, at.mark, check.direct)


def by_backend(probes: Iterable[ScheduledProbe]) -> dict[ProbeKey, ScheduledProbe]:
    """The probes by what ``similar_key`` makes of them, for each backend that shares them."""
    return {
        similar_key(backend.name, probe.check): probe
        for probe in probes
        for backend in probe.backends
    }


def script_environment(check: Check) -> Mapping[str, str]:
    """A script's environment; nothing for other kinds."""
    if check.settings.type != "script":
        return {}
    own = check.direct or check.target
    vip = str(check.target.address) if check.target.source is not None else ""
    return {
        "TULA_SERVICE": check.backend[0],
        "TULA_BACKEND": check.backend[1],
        "TULA_ADDRESS": str(own.address),
        "TULA_PORT": str(check.target.port or ""),
        "TULA_VIP": vip,
    }
