"""Rules of what the balancer listens on: ``api`` and ``metrics``."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.services import Merged
from tula.config.tree import Positions
from tula.model.config import Config, Protocol
from tula.model.listening import Endpoint
from tula.model.problem import Path, Problem


def listen_problems(
    config: Config, services: list[Merged], positions: Positions
) -> Iterator[Problem]:
    """Addresses that cannot be listened on together, or never hear anything, and half a pair of
    certificate and key."""
    yield from _pair(config, positions)
    seen: list[tuple[Endpoint, str]] = []
    for path, endpoints in (
        (("api", "listen"), config.api.listen),
        (("metrics", "listen"), config.metrics.listen),
    ):
        for index, endpoint in enumerate(endpoints):
            place = positions.item(path, index, len(endpoints))
            yield from _clash(endpoint, seen, place)
            yield from _forwarded(endpoint, services, place)
            seen.append((endpoint, ".".join(path)))


def _clash(endpoint: Endpoint, seen: list[tuple[Endpoint, str]], place: Path) -> Iterator[Problem]:
    for other, where in seen:
        if other == endpoint:
            yield Problem(place, f"{endpoint} is given twice, already in {where}; keep one")
            return
        same = (other.port, other.address.version) == (endpoint.port, endpoint.address.version)
        if same and (other.address.is_unspecified or endpoint.address.is_unspecified):
            yield Problem(place, f"{endpoint} and {other} in {where} overlap; keep one")
            return


def _forwarded(endpoint: Endpoint, services: list[Merged], place: Path) -> Iterator[Problem]:
    for service in services:
        value = service.value
        if (
            service.has("vip", "ports")
            and endpoint.address in value.vips
            and Protocol.TCP in value.protocols
            and (not value.ports or any(endpoint.port in ports for ports in value.ports))
        ):
            message = f"service {service.name!r} forwards {endpoint} to its backends"
            yield Problem(place, f"{message}; give another address or port")
            return


def _pair(config: Config, positions: Positions) -> Iterator[Problem]:
    for key, other in (("certificate", "key"), ("key", "certificate")):
        if getattr(config.api, key) and not positions.has(("api", other)):
            yield Problem(("api", key), f"needs {other!r} beside it; give both, or neither")
