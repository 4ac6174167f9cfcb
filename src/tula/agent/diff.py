"""The difference between what a backend's machine has and what it must have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tula.agent.commands import (
    loose_setting,
    make_end,
    make_filter,
    make_port,
    make_vip,
    remove_end,
    remove_filter,
    remove_port,
    remove_vip,
    set_end,
    write_setting,
)
from tula.model.backend_setup import BackendFacts, BackendSide, End, HeldVip
from tula.model.command import Command


@dataclass(frozen=True, slots=True)
class Changed:
    """A sysctl's value that was found, and the one that Tula wrote."""

    found: str
    made: str


@dataclass(frozen=True, slots=True)
class Made:
    """What Tula made on this machine, or was about to make when it was killed."""

    side: BackendSide = field(default_factory=BackendSide)
    settings: Mapping[str, Changed] = field(default_factory=dict)
    listing: str = ""
    """How nft listed the table that was made of ``side.filter``."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; ``fault`` is what is wrong now, empty for what goes."""

    verb: str
    what: str
    name: str
    fault: str
    commands: tuple[Command, ...]


def diff_backend(want: BackendSide, facts: BackendFacts, made: Made) -> list[Step]:
    """The steps in their order: first all that is added, then what goes, the last one first."""
    return [*_add(want, facts, made), *_remove(want, facts, made)]


def settings_of(side: BackendSide, made: Made) -> list[str]:
    """The sysctls that a difference needs to know."""
    loose = [loose_setting(end) for end in side.ends if end.loose]
    return [*(s.name for s in side.settings), *loose, *made.settings]


def _add(want: BackendSide, facts: BackendFacts, made: Made) -> Iterator[Step]:
    for setting in want.settings:
        value = facts.settings.get(setting.name)
        if value is not None and value not in setting.fine:
            write = write_setting(setting.name, setting.value)
            yield Step("set", "sysctl", setting.name, f"is {value}", (write,))
    if want.filter and (fault := filter_fault(want, facts, made)):
        yield Step("add", "table", "tula_backend", fault, (make_filter(want.filter),))
    for port in want.ports:
        if port not in facts.ports:
            yield Step("add", "gue port", str(port.port), "is missing", (make_port(port),))
    again: set[str] = set()
    for end in want.ends:
        if end.name not in facts.links:
            again.add(end.name)
            yield Step("add", "device", end.name, "is missing", tuple(make_end(end)))
        elif fault := _another(end, facts):
            again.add(end.name)
            commands = (remove_end(end), *make_end(end))
            yield Step("change", "device", end.name, fault, commands)
        elif fault := _unset(end, facts):
            yield Step("set", "device", end.name, fault, tuple(set_end(end)))
    for held in want.vips:
        if held.device in again or not _held(held, facts):
            what = f"{held.vip} on {held.device}"
            yield Step("add", "address", what, "is missing", (make_vip(held),))


def _held(held: HeldVip, facts: BackendFacts) -> bool:
    # A VIP that this machine balances as well is accepted where the balancer has it.
    there = (held.vip, held.device) in facts.addresses
    return there or (held.vip in facts.balanced and not held.device.startswith("tula-"))


def filter_fault(want: BackendSide, facts: BackendFacts, made: Made) -> str:
    """What is wrong with the table; nft's own listing is compared with that of what was made."""
    if not facts.filter:
        return "is missing"
    if want.filter != made.side.filter:
        return "is of another document"
    if not made.listing:
        return "is of a join that did not end"
    return "" if facts.filter == made.listing else "was changed"


def _another(end: End, facts: BackendFacts) -> str:
    """What makes the device another one than it must be."""
    link = facts.links[end.name]
    if link.kind != end.kind:
        return f"is of kind {link.kind or 'none'}, not {end.kind}"
    if end.mac and link.mac != end.mac:
        return f"has the MAC {link.mac}, not {end.mac}"
    for key, value in end.told:
        if link.told.get(key) != value:
            return f"has {key} {link.told.get(key)}, not {value}"
    return ""


def _unset(end: End, facts: BackendFacts) -> str:
    if not facts.links[end.name].up:
        return "is down"
    value = facts.settings.get(loose_setting(end))
    if end.loose and value is not None and value != "2":
        return f"has rp_filter {value}, not 2"
    return ""


def _remove(want: BackendSide, facts: BackendFacts, made: Made) -> Iterator[Step]:
    side = made.side
    names = {end.name for end in want.ends}
    for held in reversed(side.vips):
        # Addresses go with their device.
        stays = held in want.vips or (held.device.startswith("tula-") and held.device not in names)
        if not stays and (held.vip, held.device) in facts.addresses:
            yield Step("remove", "address", f"{held.vip} on {held.device}", "", (remove_vip(held),))
    for end in reversed(side.ends):
        if end.name not in names and end.name in facts.links:
            yield Step("remove", "device", end.name, "", (remove_end(end),))
    for port in reversed(side.ports):
        if port not in want.ports and port in facts.ports:
            yield Step("remove", "gue port", str(port.port), "", (remove_port(port),))
    if side.filter and not want.filter and facts.filter:
        yield Step("remove", "table", "tula_backend", "", (remove_filter(),))
    wanted = {setting.name for setting in want.settings}
    for name, changed in reversed(list(made.settings.items())):
        if name not in wanted and facts.settings.get(name) == changed.made != changed.found:
            write = write_setting(name, changed.found)
            yield Step("restore", "sysctl", name, "", (write,))


def will_have_made(want: BackendSide, facts: BackendFacts, made: Made) -> Made:
    """What must be remembered before the steps are taken: all that they may leave behind.

    What was there before Tula came is used, and is not Tula's.
    """
    side = made.side
    vips = [h for h in want.vips if h in side.vips or (h.vip, h.device) not in facts.addresses]
    ends = [e for e in want.ends if _is_ours(e, side) or e.name not in facts.links]
    ends += [e for e in want.ends if e not in ends and _another(e, facts)]
    ports = [p for p in want.ports if p in side.ports or p not in facts.ports]
    settings = dict(made.settings)
    for setting in want.settings:
        value = facts.settings.get(setting.name)
        known = settings.get(setting.name)
        if known is not None and value != known.made:
            # Somebody set it since, or the machine was started again.
            del settings[setting.name]
        if value is not None and value not in setting.fine:
            found = known.found if known is not None and value == known.made else value
            settings[setting.name] = Changed(found, setting.value)
    union = BackendSide(
        filter=want.filter or side.filter,
        ports=tuple(dict.fromkeys((*side.ports, *ports))),
        ends=tuple({e.name: e for e in (*side.ends, *ends)}.values()),
        vips=tuple(dict.fromkeys((*side.vips, *vips))),
    )
    # An empty listing is none that nft prints: was the table not made after all, it is made anew.
    return Made(union, settings, made.listing if want.filter == side.filter else "")


def _is_ours(end: End, side: BackendSide) -> bool:
    return any(known.name == end.name for known in side.ends)


def has_made(want: BackendSide, made: Made, listing: str) -> Made:
    """What is to be remembered after all steps: without what went."""
    side = made.side
    wanted = {end.name for end in want.ends}
    names = {setting.name for setting in want.settings}
    return Made(
        BackendSide(
            filter=want.filter,
            ports=tuple(port for port in side.ports if port in want.ports),
            ends=tuple(end for end in side.ends if end.name in wanted),
            vips=tuple(held for held in side.vips if held in want.vips),
        ),
        {name: changed for name, changed in made.settings.items() if name in names},
        listing,
    )
