"""The MAC addresses of balancers that forward to this machine, as the kernel knows them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from tula.kernel.network import Network
from tula.model.config import Config
from tula.model.errors import KernelError
from tula.model.host import HostView
from tula.plan.forwarders import forwarders, unknown_forwarders
from tula.plan.routes import backend_addresses

_PATIENCE, _PAUSE = 1.0, 0.02
"""Seconds that a neighbour has for its answer, and between looks for it."""


def with_macs(config: Config, host: HostView, network: Network) -> HostView:
    """The view with the MAC addresses that its plan needs. Raises KernelError."""
    wanted = forwarders(config, host)
    return replace(host, macs=network.macs(wanted)) if wanted else host


def ask_for_macs(config: Config, network: Network) -> None:
    """Has the kernel find those that it does not know yet, and waits a while: without a daemon
    nobody hears of them later."""
    host = network.view(backend_addresses(config))
    end = time.monotonic() + _PATIENCE
    while unknown := unknown_forwarders(config, with_macs(config, host, network)):
        with suppress(KernelError):
            network.resolve((host.links[name].index, address) for name, address in unknown)
        if time.monotonic() > end:
            return
        time.sleep(_PAUSE)
