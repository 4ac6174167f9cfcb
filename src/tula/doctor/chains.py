"""Whether others' nftables chains or programs take clients' packets before Tula. Pure judging."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from tula.doctor.scene import Scene
from tula.doctor.talk import Answers
from tula.model.chain import BaseChain, ChainRule, Match
from tula.model.config import IPAddress
from tula.model.finding import Finding, Severity

PRIORITY = -500
"""Of Tula's chains at ingress: lower ones come before."""
_ETHERTYPE = {4: b"\x08\x00", 6: b"\x86\xdd"}
_NFPROTO = {4: 2, 6: 10}
_DEEP = 16
"""Jumps that nftables allows (NFT_JUMP_STACK_SIZE)."""


class Eats(IntEnum):
    """Whether a chain takes a packet."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """A client's packet, as far as it is known: not whose it is."""

    vip: IPAddress
    protocol: int
    port: int | None

    def field(self, where: tuple[str, int, int]) -> bytes | None:
        """The value of a field, or of a part of it; None if any may stand there."""
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
        base, offset, length = where
        for at_base, start, value in known:
            if base == at_base and start <= offset and offset + length <= start + len(value):
                return value[offset - start : offset - start + length]
        return None


def judge_chains(scene: Scene, _: Answers) -> Iterator[Finding]:
    """Chains at the interfaces in use that drop, or send elsewhere, what is for a VIP."""
    samples = list(_samples(scene))
    for chain in scene.chains:
        used = sorted(set(chain.devices) & set(scene.interfaces))
        if not used or (chain.hook == "ingress" and chain.priority > PRIORITY):
            continue
        found = [(eats(chain, sample), sample) for sample in samples]
        worst, sample = max(found, key=lambda pair: pair[0], default=(Eats.NO, None))
        if worst is Eats.NO or sample is None:
            continue
        port = f" port {sample.port}" if sample.port is not None else ""
        yes = worst is Eats.YES
        yield Finding(
            "foreign-chain",
            Severity.ERROR if yes else Severity.NOTE,
            used[0],
            f"the chain {chain} at the {chain.hook} of {used[0]} (priority {chain.priority}) "
            + ("takes" if yes else "may take")
            + f" packets for {sample.vip}{port} before they are forwarded",
            f"let what is for the VIPs pass there, or remove it: nft delete chain {chain}",
            certain=yes,
            commands=(f"nft flush chain {chain}", f"nft delete chain {chain}") if yes else (),
        )  # fmt: skip


def eaten_at_egress(scene: Scene) -> set[tuple[str, IPAddress]]:
    """The interfaces, and the VIPs whose packets certainly do not leave by them: what is silent
    there tells nothing of backends."""
    return {
        (device, sample.vip)
        for chain in scene.chains
        if chain.hook == "egress"
        for sample in _samples(scene)
        if eats(chain, sample) is Eats.YES
        for device in chain.devices
    }


def judge_programs(scene: Scene, _: Answers) -> Iterator[Finding]:
    """What sees packets before nftables, and cannot be read."""
    for name in scene.interfaces:
        state = scene.links.get(name)
        for program in state.programs if state is not None else ():
            yield Finding(
                "foreign-program", Severity.NOTE, name,
                f"{program} on {name} sees packets before nftables",
                "if packets are missing, look whether it drops them",
                certain=False,
            )  # fmt: skip


def eats(chain: BaseChain, sample: Sample) -> Eats:
    """Whether such a packet ends in the chain."""
    found, ended = _walk(chain.rules, chain, sample, _DEEP)
    if ended or not chain.drops:
        return found
    return Eats.YES if found is Eats.NO else found


def _walk(
    rules: Sequence[ChainRule], chain: BaseChain, sample: Sample, deep: int
) -> tuple[Eats, bool]:
    """What the rules do, and whether all of the packets end in them."""
    worst = Eats.NO
    for rule in rules:
        fits = _fits(rule, sample)
        if fits is False or not rule.verdict:
            continue
        sure = fits is True
        if rule.verdict == "drop":
            if sure and worst is Eats.NO:
                return Eats.YES, True
            worst = Eats.MAYBE
            if sure:
                return worst, True
        elif rule.verdict in ("jump", "goto") and deep:
            inner, ended = _walk(chain.others.get(rule.chain, ()), chain, sample, deep - 1)
            if inner is not Eats.NO:
                if sure and ended and inner is Eats.YES and worst is Eats.NO:
                    return Eats.YES, True
                worst = Eats.MAYBE
            if sure and (ended or rule.verdict == "goto"):
                return worst, ended
        elif sure and rule.verdict == "accept":
            return worst, True
        elif sure and rule.verdict == "return":
            return worst, False
        elif rule.verdict in ("accept", "return") and chain.drops:
            worst = Eats.MAYBE  # some get past the policy
    return worst, False


def _fits(rule: ChainRule, sample: Sample) -> bool | None:
    """Whether the rule is for such packets; None: for some of them, or unknown."""
    whole: bool | None = None if rule.partial else True
    for match in rule.matches:
        fits = _match(match, sample)
        if fits is False:
            return False
        whole = whole if fits else None
    return whole


def _match(match: Match, sample: Sample) -> bool | None:
    value = sample.field(match.field)
    if value is None:
        return None
    return (value == match.value) is match.equal


def _samples(scene: Scene) -> Iterable[Sample]:
    for service in scene.config.services:
        for vip in service.vips:
            for protocol in service.protocols:
                if not service.ports:
                    yield Sample(vip, protocol.number, None)
                for ports in service.ports:
                    yield Sample(vip, protocol.number, ports.first)
