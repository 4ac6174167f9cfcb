"""Whether foreign nftables chains or programs drop clients' packets before Tula. Pure."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.chain import CT_STATE, BaseChain, ChainRule, Match
from tula.model.config import IPAddress
from tula.model.finding import Finding, Severity

_PRIORITY = -500
"""That of Tula's ingress chains: those with a lower one come first."""
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_NFPROTO = {4: 2, 6: 10}
_NAME = 16
"""Bytes of an interface's name (IFNAMSIZ)."""
_MAX_DEPTH = 16
"""Jumps that nftables allows (NFT_JUMP_STACK_SIZE)."""


class Drops(IntEnum):
    """Whether a chain drops a packet."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class SamplePacket:
    """A client's packet, as far as it is known: not from which client; or one of another machine,
    from ``source`` by the interface that it comes in or goes out by (name and index).

    ``state`` is connection tracking's, as a bit; 0 where it is not known.
    """

    vip: IPAddress
    protocol: int
    port: int | None
    source: IPAddress | None = None
    arrives: tuple[str, int] | None = None
    leaves: tuple[str, int] | None = None
    state: int = 0

    def field(self, where: tuple[str, int, int]) -> bytes | None:
        """The value of a field, or of a part of it; None if it can be anything."""
        if where[0] == CT_STATE:
            return (self.state & where[1]).to_bytes(4, sys.byteorder) if self.state else None
        if where[0] in ("iif", "oif", "iifname", "oifname"):
            return self._interface(where[0])
        version = self.vip.version
        target, header = (16, 9) if version == 4 else (24, 6)
        known = [
            ("network", target, self.vip.packed),
            ("network", header, bytes([self.protocol])),
            ("l4proto", 0, bytes([self.protocol])),
            ("nfproto", 0, bytes([_NFPROTO[version]])),
            ("protocol", 0, _ETHERTYPE[version]),
        ]
        if self.port is not None:
            known.append(("transport", 2, struct.pack("!H", self.port)))
        if self.source is not None:
            known.append(("network", 12 if version == 4 else 8, self.source.packed))
        base, offset, length = where
        for at_base, start, value in known:
            if base == at_base and start <= offset and offset + length <= start + len(value):
                return value[offset - start : offset - start + length]
        return None

    def _interface(self, key: str) -> bytes | None:
        known = self.arrives if key.startswith("iif") else self.leaves
        if known is None:
            return None
        name, index = known
        if key.endswith("name"):
            return name.encode().ljust(_NAME, b"\0")
        return index.to_bytes(4, sys.byteorder)


def check_chains(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Chains at the interfaces in use that drop or divert packets for a VIP."""
    samples = list(_samples(observed))
    for chain in observed.chains:
        used = sorted(set(chain.devices) & set(observed.interfaces))
        if not used or (chain.hook == "ingress" and chain.priority > _PRIORITY):
            continue
        found = [(drops_packet(chain, sample), sample) for sample in samples]
        worst, sample = max(found, key=lambda pair: pair[0], default=(Drops.NO, None))
        if worst is Drops.NO or sample is None:
            continue
        port = f" port {sample.port}" if sample.port is not None else ""
        yes = worst is Drops.YES
        yield Finding(
            "foreign-chain",
            Severity.ERROR if yes else Severity.NOTE,
            used[0],
            f"the chain {chain} at the {chain.hook} of {used[0]} (priority {chain.priority}) "
            + ("drops" if yes else "may drop")
            + f" packets for {sample.vip}{port} before they are forwarded",
            f"have the rules of the table {chain.family} {chain.table} let packets for the VIPs "
            "pass, in the configuration that they are loaded from",
            certain=yes,
        )  # fmt: skip


def dropped_at_egress(observed: Observation) -> set[tuple[str, IPAddress]]:
    """The interfaces, with the VIPs whose packets certainly do not leave by them: missing answers
    say nothing about backends there."""
    return {
        (device, sample.vip)
        for chain in observed.chains
        if chain.hook == "egress"
        for sample in _samples(observed)
        if drops_packet(chain, sample) is Drops.YES
        for device in chain.devices
    }


def check_programs(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Programs that see packets before nftables, and whose effect is unknown."""
    for name in observed.interfaces:
        state = observed.links.get(name)
        for program in state.programs if state is not None else ():
            yield Finding(
                "foreign-program", Severity.NOTE, name,
                f"{program} on {name} sees packets before nftables",
                "if packets are missing, check whether it drops them",
                certain=False,
            )  # fmt: skip


def drops_packet(chain: BaseChain, sample: SamplePacket) -> Drops:
    """Whether such a packet is dropped in the chain, by a rule or the policy."""
    walk = _walk(chain.rules, chain, sample, _MAX_DEPTH, some_pass=False)
    if walk.ended or not chain.drops:
        return walk.drops
    return Drops.YES if walk.drops is Drops.NO and not walk.some_pass else Drops.MAYBE


@dataclass(frozen=True, slots=True)
class _Walk:
    """What rules do: ``ended``: none of the packets go on behind them; ``some_pass``: some may have
    left them before a later rule could drop them."""

    drops: Drops
    ended: bool
    some_pass: bool


def _walk(
    rules: Sequence[ChainRule],
    chain: BaseChain,
    sample: SamplePacket,
    depth: int,
    *,
    some_pass: bool,
) -> _Walk:
    worst = Drops.NO
    for rule in rules:
        fits = fits_rule(rule, sample)
        if fits is False or not rule.verdict:
            continue
        sure = fits is True
        if rule.verdict == "drop":
            if sure and worst is Drops.NO and not some_pass:
                return _Walk(Drops.YES, True, False)
            worst = Drops.MAYBE
            if sure:
                return _Walk(worst, True, some_pass)
        elif rule.verdict in ("jump", "goto") and depth:
            others = chain.others.get(rule.chain, ())
            inner = _walk(others, chain, sample, depth - 1, some_pass=some_pass)
            if inner.drops is not Drops.NO:
                if sure and inner.ended and inner.drops is Drops.YES and worst is Drops.NO:
                    return _Walk(Drops.YES, True, False)
                worst = Drops.MAYBE
            if sure and (inner.ended or rule.verdict == "goto"):
                return _Walk(worst, inner.ended, inner.some_pass)
            # An uncertain goto leaves this chain, as an accept does.
            some_pass |= inner.some_pass or (not sure and (inner.ended or rule.verdict == "goto"))
        elif sure and rule.verdict == "accept":
            return _Walk(worst, True, some_pass)
        elif sure and rule.verdict == "return":
            return _Walk(worst, False, some_pass)
        elif rule.verdict in ("accept", "return", "vmap"):
            some_pass = True
    return _Walk(worst, False, some_pass)


def fits_rule(rule: ChainRule, sample: SamplePacket) -> bool | None:
    """Whether the rule matches such packets; None: some of them, or unknown."""
    whole: bool | None = None if rule.partial else True
    for match in rule.matches:
        fits = _match(match, sample)
        if fits is False:
            return False
        whole = whole if fits else None
    return whole


def _match(match: Match, sample: SamplePacket) -> bool | None:
    value = sample.field(match.field)
    if value is None:
        return None
    # A name that ends in "*" is compared up to there.
    part = value[: len(match.value)] if len(value) == _NAME else value
    return (part == match.value) is match.equal


def _samples(observed: Observation) -> Iterable[SamplePacket]:
    for service in observed.config.services:
        for vip in service.vips:
            for protocol in service.protocols:
                if not service.ports:
                    yield SamplePacket(vip, protocol.number, None)
                for ports in service.ports:
                    yield SamplePacket(vip, protocol.number, ports.first)
