"""Whether answers from VIPs may come in here, which the daemon's checks need. Pure judging.

Clients' packets are forwarded before the kernel looks for the way back to their source; only what
is for this machine itself meets reverse-path filtering (fib_validate_source, fib_frontend.c).
"""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor.scene import Scene
from tula.doctor.talk import Answers
from tula.model.finding import Finding, Severity
from tula.plan.probe_sysctls import plan_probe_sysctls, unmet_requirements


def judge_reverse(scene: Scene, _: Answers) -> Iterator[Finding]:
    """While a daemon checks backends through their VIPs."""
    if not scene.daemon:
        return
    wanted = plan_probe_sysctls(scene.needs, scene.settings, scene.host.links)
    commands = tuple(f"sysctl -w {name}={value}" for name, value in wanted.items())
    for interface in unmet_requirements(scene.needs, scene.settings):
        yield Finding(
            "rp-filter", Severity.WARNING, interface,
            f"answers of health checks from IPv4 VIPs do not come in by {interface}: rp_filter "
            "or accept_local forbids it, and backends there stay unchecked",
            "set what the daemon could not set (is /proc/sys read-only?)",
            commands=commands,
        )  # fmt: skip
