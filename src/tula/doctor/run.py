"""One examination from start to end: look at the machine, ask the network, judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tula.doctor.backend import BACKEND_CHECKS, observe_own_side
from tula.doctor.chains import eaten_at_egress, judge_chains, judge_programs
from tula.doctor.document import (
    judge_balancer,
    judge_difference,
    judge_interfaces,
    judge_kernel,
    judge_reach,
    judge_sources,
)
from tula.doctor.fullness import judge_conntrack, judge_neighbours, judge_tables
from tula.doctor.network import judge_backends, judge_owners, judge_senders
from tula.doctor.packets import ECHO
from tula.doctor.reverse import judge_reverse
from tula.doctor.roles import Roles, roles_of
from tula.doctor.scene import Scene
from tula.doctor.serving import forwarded, judge_site
from tula.doctor.sites import (
    Site,
    askable,
    first_questions,
    plan_sites,
    who_has_backends,
    who_has_vips,
)
from tula.doctor.sizes import judge_sizes, smaller
from tula.doctor.talk import Answers, InTunnel, Question, Talk
from tula.doctor.verdicts import vip_lives
from tula.doctor.ways import judge_passing
from tula.kernel.wire import KernelWire, Wire
from tula.model.config import IPAddress
from tula.model.finding import Finding, Severity

WATCH = 1.0
"""Seconds in which answers to clients that come by here would be seen."""

Judge = Callable[[Scene, Answers], Iterable[Finding]]

BALANCER_CHECKS: Sequence[tuple[str, Judge]] = (
    ("interfaces", judge_interfaces),
    ("routes to backends", judge_reach),
    ("load_balancers", judge_balancer),
    ("addresses to ask from", judge_sources),
    ("kernel and nft", judge_kernel),
    ("the kernel against the document", judge_difference),
    ("who answers ARP and neighbour discovery for VIPs", judge_owners),
    ("who sends ARP requests in the name of VIPs", judge_senders),
    ("who answers for backends and balancers", judge_backends),
    ("whether answers come back through here", judge_passing),
    ("reverse-path filters for health checks", judge_reverse),
    ("tables of connections", judge_tables),
    ("neighbour tables", judge_neighbours),
    ("connection tracking", judge_conntrack),
    ("others' nftables chains", judge_chains),
    ("others' programs at interfaces", judge_programs),
)
"""What each tests, in a few words, and the judge."""

_ORDER = [Severity.ERROR, Severity.WARNING, Severity.NOTE]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, the worst first, and what was tested."""

    roles: Roles
    findings: tuple[Finding, ...]
    tested: tuple[str, ...]


def examine(scene: Scene, patience: float) -> Report:
    """Tests all that this machine can. Raises KernelError."""
    roles = roles_of(scene)
    findings: list[Finding] = []
    tested: list[str] = []
    if roles.balancer:
        vips = scene.vips
        with KernelWire(scene.own - vips, vips) as wire:
            answers, sites = converse(scene, wire, patience)
        findings += judge_balancer_side(scene, answers, sites)
        tested += [what for what, _ in BALANCER_CHECKS]
        tested.append(
            f"{len(sites)} VIPs at backends, by the way of clients' packets: served; sizes"
        )
    # One that balances what it serves is a fault by itself, and needs another setting.
    own = observe_own_side(scene) if roles.backends and not roles.balancer else None
    if own is not None:
        for what, check in BACKEND_CHECKS:
            findings += check(scene, own)
            tested.append(what)
    if not roles.balancer and not roles.backends:
        findings.append(_stranger(scene))
    return Report(roles, tuple(sorted(_distinct(findings), key=_rank)), tuple(tested))


def converse(scene: Scene, wire: Wire, patience: float) -> tuple[Answers, list[Site]]:
    """Asks: whose MACs, then everyone everything, then what silence means."""
    talk = Talk(wire, scene.config.tunnels, scene.own, patience)
    talk.ask((), [*who_has_vips(scene), *who_has_backends(scene)])
    sites = askable(plan_sites(scene, talk.answers.owners))
    talk.ask(first_questions(sites), [*who_has_vips(scene)])
    talk.ask(_further(scene, sites, talk.answers))
    talk.listen(WATCH)
    return talk.answers, sites


def judge_balancer_side(scene: Scene, answers: Answers, sites: Sequence[Site]) -> list[Finding]:
    """All that the balancer can tell."""
    findings = [finding for _, judge in BALANCER_CHECKS for finding in judge(scene, answers)]
    by_backend: dict[str, list[Site]] = {}
    for site in sites:
        by_backend.setdefault(site.backend.key, []).append(site)
    eaten = eaten_at_egress(scene)
    for of_one in by_backend.values():
        for site in of_one:
            if isinstance(site.way, InTunnel) or (site.interface, site.vip) not in eaten:
                findings += judge_site(scene.config, site, of_one, answers)
        findings += judge_sizes(of_one, answers)
    return findings


def _further(scene: Scene, sites: Iterable[Site], answers: Answers) -> list[Question]:
    """What is asked of those who did not answer all."""
    questions: list[Question] = []
    sources: dict[int, IPAddress] = {}
    for version in (4, 6):
        source = scene.sources.to(None, version)
        if source is not None:
            sources[version] = source
    for site in sites:
        silent = any(site.ask_vip("tcp", port) not in answers.replies for port in site.tcp)
        if silent or not vip_lives(answers, site):
            questions += [site.ask_vip(ECHO), site.ask_own(ECHO)]
            if isinstance(site.way, InTunnel):
                questions += forwarded(site, sources)
        questions += smaller(site, answers)
    return questions


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Each thing once: several VIPs and services may show the same."""
    kept: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.fault, finding.where, finding.evidence), finding)
    return list(kept.values())


def _rank(finding: Finding) -> tuple[int, str, str]:
    return _ORDER.index(finding.severity), finding.where, finding.fault


def _stranger(scene: Scene) -> Finding:
    here = ", ".join(sorted(str(a) for a in scene.own if not a.is_loopback)) or "none"
    return Finding(
        "not-in-document", Severity.ERROR, "here",
        f"no address of this machine ({here}) and no interface of it is in the document",
        "run it on a balancer or a backend, or give the right addresses",
    )  # fmt: skip
