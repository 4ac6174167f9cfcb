"""Where a flow goes in the kernel as it is now, in sync with the configuration or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tula.dataplane.port import Followed
from tula.engine.balancer import Balancer
from tula.model.config import Config
from tula.model.flow import Flow
from tula.model.health import BackendName, BackendStatus
from tula.plan.backend_status import NO_SHARES, Shares, effective_config
from tula.plan.trace import Trace


def trace_now(
    balancer: Balancer,
    config: Config,
    statuses: Mapping[BackendName, BackendStatus],
    flow: Flow,
    datagram: int | None = None,
    shares: Shares = NO_SHARES,
    in_sync: Callable[[], bool] = lambda: False,
) -> Trace:
    """Where a flow goes, or a later fragment of one of its datagrams.

    ``in_sync`` saves the comparison if it knows that nothing differs. Raises KernelError and
    StateError.
    """
    entry = balancer.find_entry(flow, datagram)
    effective = effective_config(config, statuses)
    held = balancer.find_client(config, flow) if datagram is None else None
    planned = balancer.trace(
        effective,
        flow,
        entry,
        later_fragment=datagram is not None,
        held=held,
        statuses=statuses,
    )
    if in_sync():
        return planned
    found = balancer.inspect(config, statuses, shares)
    # A later fragment goes by its datagram's entry alone.
    if not found.path or (datagram is not None and found.have.present):
        return planned
    return replace(_named(balancer.follow(found, flow, entry), config), client=planned.client)


def _named(followed: Followed, config: Config) -> Trace:
    """With the backend's name, where the configuration has it."""
    backend = next(
        (
            backend.name
            for service in config.services
            if service.name == followed.service
            for backend in service.backends
            if backend.key == followed.backend
        ),
        followed.backend,
    )
    return Trace(followed.service, backend, f"out of sync: {followed.reason}")
