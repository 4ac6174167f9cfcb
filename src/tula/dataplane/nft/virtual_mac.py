"""Frames for VRRP's virtual MAC addresses (RFC 5798, section 7.3) at the interface below it.

Every balancer forwards, whether it is active or not. But to the interface these frames are for
another machine: on the active one they reach the device that has the address only after ingress,
on the others nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tula.dataplane.nft.ruleset import Rule
from tula.model.desired import DesiredState
from tula.model.high_availability import VipMac


def virtual_macs(state: DesiredState) -> Mapping[str, tuple[bytes, ...]]:
    """The virtual MAC addresses by the interface below it; none with ``mac: own``."""
    announcing = state.announcing
    vrrp = None if announcing is None else announcing.settings.vrrp
    if announcing is None or vrrp is None or vrrp.mac is VipMac.OWN:
        return {}
    interface = vrrp.interface or announcing.interface
    return {interface: vrrp.virtual_macs} if interface in state.interfaces else {}


def admit_virtual_macs(rules: tuple[Rule, ...], macs: Iterable[bytes]) -> tuple[Rule, ...]:
    """The rules of a base chain that serve such frames as well. What they do not take is for
    another machine again: a balancer that routes would send it to the active one once more."""
    matches = [f"@ll,0,48 0x{mac.hex()} meta pkttype set" for mac in macs]
    first, last = ([Rule.of(f"{m} {kind}") for m in matches] for kind in ("host", "other"))
    return (*first, *rules, *last)
