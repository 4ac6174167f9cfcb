"""Tunnels that a kernel cannot make, told with those that it can."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address

from tula.dataplane.nft.tunnel_plan import kinds_of
from tula.model.config import Config, IPAddress, Tunnel
from tula.model.problem import Path, Problem
from tula.plan.tunnels import outer_address

Missing = Callable[[Iterable[str]], set[str]]
"""Which of these kinds of links the kernel lacks."""


def missing_tunnels(config: Config, missing: Missing) -> list[Problem]:
    """A problem for each service, or backend of its own kind, whose tunnels the kernel cannot
    make."""
    needs = list(_needs(config))
    lacking = missing(set().union(*(kinds for _, _, kinds in needs)))
    if not lacking:
        return []
    problems: dict[Path, Problem] = {}
    for path, text, kinds in needs:
        if lack := sorted(kinds & lacking):
            what = " and ".join(lack)
            here = _here(missing) or "none"
            message = f"this kernel has no {what}, which {text} needs; it can make: {here}"
            problems.setdefault(path, Problem(path, message))
    return list(problems.values())


def _needs(config: Config) -> Iterator[tuple[Path, str, set[str]]]:
    for service in config.services:
        for backend in service.backends:
            tunnel = service.tunnel_of(backend)
            if tunnel is None:
                continue
            remote: IPAddress = outer_address(backend)
            path: Path = ("services", service.name, "tunnel")
            if backend.tunnel is not None:
                path = ("services", service.name, "backends", backend.name, "tunnel")
            for version in service.versions:
                text = f"{tunnel} to the IPv{remote.version} address {remote}"
                yield path, text, kinds_of(tunnel, remote, version)


def _here(missing: Missing) -> str:
    """The tunnels that work for IPv4 outside, the most that can be asked of all of them."""
    kinds = {tunnel: _all_kinds(tunnel) for tunnel in Tunnel}
    lacking = missing(set().union(*kinds.values()))
    return ", ".join(str(tunnel) for tunnel, needed in kinds.items() if not needed & lacking)


def _all_kinds(tunnel: Tunnel) -> set[str]:
    return kinds_of(tunnel, IPv4Address(0), 4)
