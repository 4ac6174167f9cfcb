"""The nftables table of a backend: who may send into its tunnels, and the MSS clamp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tula.model.backend_setup import TABLE
from tula.model.config import IPAddress

_FAMILY = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class Gate:
    """A UDP port that accepts tunnels from these balancers only; from anyone if there are none.

    ``vni`` is for VXLAN: other networks on the same port are not Tula's.
    """

    version: int
    port: int
    vni: int | None
    balancers: tuple[IPAddress, ...]


@dataclass(frozen=True, slots=True)
class Clamp:
    """The MSS, in bytes, that clients of a VIP are offered at most."""

    vip: IPAddress
    size: int


def render_filter(
    gates: Sequence[Gate],
    devices: Sequence[str],
    inside: Sequence[IPAddress],
    clamps: Sequence[Clamp],
) -> str:
    """The table as text for nft; empty if it would have no rules.

    ``gates`` restrict UDP ports, ``devices`` are tunnels that carry packets for the addresses
    ``inside`` only, and ``clamps`` limit the MSS.
    """
    chains = [
        _chain(
            "arrive", "prerouting", -310, [*map(_gate, _closed(gates)), *_only(devices, inside)]
        ),
        # After NAT (100), which gives the answers of containers and other machines behind this one
        # the VIP as source; output would see only answers of local servers.
        _chain("answer", "postrouting", 150, list(_clamps(clamps))),
    ]
    body = "".join(chains)
    return f"table inet {TABLE} {{\n{body}}}\n" if body else ""


def _chain(name: str, hook: str, priority: int, rules: list[str]) -> str:
    if not rules:
        return ""
    head = f"\t\ttype filter hook {hook} priority {priority}; policy accept;\n"
    return f"\tchain {name} {{\n{head}" + "".join(f"\t\t{rule}\n" for rule in rules) + "\t}\n"


def _closed(gates: Sequence[Gate]) -> Iterator[Gate]:
    """Several configurations may share a port: what one of them allows is allowed."""
    merged: dict[tuple[int, int, int | None], set[IPAddress] | None] = {}
    for gate in gates:
        place = (gate.version, gate.port, gate.vni)
        known = merged.setdefault(place, set())
        if not gate.balancers or known is None:
            merged[place] = None
        else:
            known.update(gate.balancers)
    for (version, port, vni), balancers in merged.items():
        if balancers:
            yield Gate(version, port, vni, tuple(sorted(balancers, key=int)))


def _gate(gate: Gate) -> str:
    family = _FAMILY[gate.version]
    # The VNI is at offset 4 of the VXLAN header, after 8 bytes of UDP (RFC 7348, section 5).
    vni = f" @th,96,24 {gate.vni}" if gate.vni is not None else ""
    return f"udp dport {gate.port}{vni} {family} saddr != {_set(gate.balancers)} counter drop"


def _only(devices: Sequence[str], inside: Sequence[IPAddress]) -> Iterator[str]:
    """Tunnels carry packets for these addresses only: they must not lead around a firewall, into
    other networks of the machine."""
    if not devices:
        return
    names = ", ".join(f'"{name}"' for name in sorted(devices))
    for version, family in _FAMILY.items():
        held = [address for address in inside if address.version == version]
        if held:
            yield f"iifname {{ {names} }} {family} daddr != {_set(held)} counter drop"
        else:
            yield f"iifname {{ {names} }} meta nfproto ipv{version} counter drop"


def _clamps(clamps: Sequence[Clamp]) -> Iterator[str]:
    """Lower the MSS in SYN-ACKs: clients then send segments that fit into the tunnels."""
    groups: dict[tuple[int, int], list[IPAddress]] = {}
    for clamp in clamps:
        groups.setdefault((clamp.vip.version, clamp.size), []).append(clamp.vip)
    for (version, size), vips in sorted(groups.items()):
        yield (
            f"{_FAMILY[version]} saddr {_set(vips)} tcp flags & (syn | ack) == (syn | ack) "
            f"tcp option maxseg size > {size} tcp option maxseg size set {size}"
        )


def _set(addresses: Sequence[IPAddress]) -> str:
    if len(addresses) == 1:
        return str(addresses[0])
    return "{ " + ", ".join(str(a) for a in sorted(addresses, key=int)) + " }"
