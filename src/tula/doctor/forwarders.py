"""Whether this machine knows the balancers that forward to it as their backend. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.finding import Finding, Severity
from tula.plan.forwarders import forwarders


def check_forwarders(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """The kernel knows the MAC address that they answer with: frames are told by it."""
    names = {address: name for name, address in observed.config.load_balancers}
    for address in forwarders(observed.config, observed.host):
        answered = {
            mac for (_, asked), macs in responses.macs.items() if asked == address for mac in macs
        }
        known = observed.host.macs.get(address)
        if not answered or known in answered:
            continue
        says = f"the kernel has {known.hex(':')}" if known else "the kernel knows none"
        real = ", ".join(sorted(mac.hex(":") for mac in answered))
        yield Finding(
            "forwarder-unknown", Severity.WARNING, names[address],
            f"{names[address]} ({address}) has the MAC address {real}, and {says}: what it "
            "forwards to this machine is balanced once more here, and may go around until its TTL "
            "ends",
            "apply the configuration again, or have the daemon run, which hears of it",
            commands=("tula apply",),
        )  # fmt: skip
