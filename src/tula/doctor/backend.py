"""What a backend can tell of itself, by looking at the machine it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tula.agent.plan import plan_backend_setup, role_by_addresses
from tula.doctor.backend_arp import judge_silence
from tula.doctor.backend_server import judge_firewall, judge_servers
from tula.doctor.backend_tunnels import judge_ends, judge_filter, judge_reverse_path
from tula.doctor.backend_vips import judge_addresses, judge_gateway
from tula.doctor.own_side import OwnSide
from tula.doctor.scene import Scene
from tula.kernel.backend_host import BackendHost, KernelBackendHost
from tula.kernel.listening import read_listeners
from tula.kernel.nfchains import read_arriving_chains
from tula.model.finding import Finding

BackendJudge = Callable[[Scene, OwnSide], Iterable[Finding]]

BACKEND_CHECKS: Sequence[tuple[str, BackendJudge]] = (
    ("VIPs, and where they are", judge_addresses),
    ("silence about them", judge_silence),
    ("tunnels' ends", judge_ends),
    ("reverse-path filtering", judge_reverse_path),
    ("who may send into tunnels, and segments' sizes", judge_filter),
    ("the way of answers", judge_gateway),
    ("who listens", judge_servers),
    ("others' nftables chains", judge_firewall),
)
"""What each tests, in a few words, and the judge."""


def observe_own_side(scene: Scene, host: BackendHost | None = None) -> OwnSide | None:
    """Reads the machine as a backend; None when it is none. Changes nothing. Raises KernelError."""
    role = role_by_addresses(scene.config, scene.own - scene.vips)
    if role is None:
        return None
    want = plan_backend_setup([role])
    host = host if host is not None else KernelBackendHost()
    settings = [
        f"net/ipv4/conf/{name}/{setting}"
        for name in ("all", *scene.host.links)
        for setting in ("arp_ignore", "arp_announce", "rp_filter")
    ]
    return OwnSide(
        role=role,
        want=want,
        facts=host.observe(settings),
        listeners=read_listeners(),
        chains=tuple(read_arriving_chains()),
    )
