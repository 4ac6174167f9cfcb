"""What a backend's machine lacks and what it has too much, as steps; and what `leave` must undo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tula.agent.commands import (
    make_device,
    make_filter,
    make_port,
    make_unmanaged,
    make_vip,
    remove_device,
    remove_filter,
    remove_port,
    remove_unmanaged,
    remove_vip,
    rp_filter_of,
    set_device,
    write_setting,
)
from tula.model.backend_setup import (
    TABLE,
    UNMANAGED,
    BackendFacts,
    BackendSetup,
    Device,
    VipAddress,
    disable_ipv6,
)
from tula.model.command import Command


@dataclass(frozen=True, slots=True)
class SysctlChange:
    """The value that a sysctl had before, and the one that Tula wrote."""

    found: str
    written: str


@dataclass(frozen=True, slots=True)
class Made:
    """What Tula created and changed on this machine, or was about to when it was killed."""

    setup: BackendSetup = field(default_factory=BackendSetup)
    settings: Mapping[str, SysctlChange] = field(default_factory=dict)
    listing: str = ""
    """How nft listed the table right after it was loaded from ``setup.filter``."""


@dataclass(frozen=True, slots=True)
class BackendStep:
    """One thing to do; ``reason`` is what is wrong now, empty for what is to be removed."""

    verb: str
    what: str
    name: str
    reason: str
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the setup; ``problem`` is empty if it is in place."""

    what: str
    name: str
    problem: str = ""


def diff_backend(want: BackendSetup, facts: BackendFacts, made: Made) -> list[BackendStep]:
    """The steps in order: first all additions, then removals, last made first removed."""
    return [*_add(want, facts, made), *_remove(want, facts, made)]


def parts_of(want: BackendSetup, steps: list[BackendStep]) -> list[Part]:
    """All that must be there and whether it is, and what is left over."""
    problems = {(step.what, step.name): step.reason for step in steps if step.reason}
    parts = [Part(what, name, problems.get((what, name), "")) for what, name in _names(want)]
    left = [step for step in steps if not step.reason]
    return parts + [Part(step.what, step.name, "no longer needed") for step in left]


def _names(want: BackendSetup) -> Iterator[tuple[str, str]]:
    for setting in want.settings:
        yield "sysctl", setting.name
    if want.unmanaged:
        yield "file", want.unmanaged
    if want.filter:
        yield "table", TABLE
    for port in want.ports:
        yield "gue port", str(port.port)
    for device in want.devices:
        yield "device", device.name
    for address in want.vips:
        yield "address", _shown(address)


def _shown(address: VipAddress) -> str:
    return f"{address.vip} on {address.device}"


def settings_of(setup: BackendSetup, made: Made) -> list[str]:
    """The names of the sysctls whose values a difference depends on."""
    loose = [rp_filter_of(device) for device in setup.devices if device.loose_rp_filter]
    six = [disable_ipv6(name) for name in ("default", *_ipv6_devices(setup))]
    return [*(setting.name for setting in setup.settings), *loose, *six, *made.settings]


def files_of(setup: BackendSetup, made: Made) -> list[str]:
    """The files whose content a difference depends on."""
    return [path for path in dict.fromkeys((setup.unmanaged, made.setup.unmanaged)) if path]


def ipv6_problem(want: BackendSetup, facts: BackendFacts) -> str:
    """Why this machine cannot have the IPv6 VIPs; empty if it can, or there are none."""
    devices = _ipv6_devices(want)
    if not devices:
        return ""
    if not facts.ipv6:
        return "this kernel has no IPv6 (ipv6.disable=1 on its command line?)"
    for device in devices:
        # A device that is not there yet begins with the values of default.
        name = device if device in facts.links else "default"
        if facts.settings.get(disable_ipv6(name), "0") != "0":
            return f"IPv6 is disabled on this machine (net.ipv6.conf.{name}.disable_ipv6 = 1)"
    return ""


def _ipv6_devices(setup: BackendSetup) -> list[str]:
    """The devices that IPv6 VIPs are on, and those that requests for them arrive on."""
    held = [address.device for address in setup.vips if address.vip.version == 6]
    return list(dict.fromkeys((*held, *(d.name for d in setup.devices)))) if held else []


def _add(want: BackendSetup, facts: BackendFacts, made: Made) -> Iterator[BackendStep]:
    for setting in want.settings:
        value = facts.settings.get(setting.name)
        if value is not None and value not in setting.accepted:
            write = write_setting(setting.name, setting.value)
            yield BackendStep("set", "sysctl", setting.name, f"is {value}", (write,))
    if want.unmanaged and facts.files.get(want.unmanaged) != UNMANAGED:
        problem = "was changed" if want.unmanaged in facts.files else "missing"
        commands = tuple(make_unmanaged(want.unmanaged))
        yield BackendStep("add", "file", want.unmanaged, problem, commands)
    if want.filter and (problem := _filter_problem(want, facts, made)):
        yield BackendStep("add", "table", TABLE, problem, (make_filter(want.filter),))
    for port in want.ports:
        if port not in facts.ports:
            yield BackendStep("add", "gue port", str(port.port), "missing", (make_port(port),))
    created: set[str] = set()
    for device in want.devices:
        if device.name not in facts.links:
            created.add(device.name)
            yield BackendStep("add", "device", device.name, "missing", tuple(make_device(device)))
        elif problem := _mismatch(device, facts):
            created.add(device.name)
            commands = (remove_device(device), *make_device(device))
            yield BackendStep("change", "device", device.name, problem, commands)
        elif problem := _misconfigured(device, facts):
            yield BackendStep("set", "device", device.name, problem, tuple(set_device(device)))
    no_ipv6 = ipv6_problem(want, facts)
    for address in want.vips:
        if address.device in created or not _is_present(address, facts):
            why = no_ipv6 if no_ipv6 and address.vip.version == 6 else "missing"
            yield BackendStep("add", "address", _shown(address), why, (make_vip(address),))


def _is_present(address: VipAddress, facts: BackendFacts) -> bool:
    # If this machine balances the VIP as well, it already accepts it where the balancer added it.
    there = (address.vip, address.device) in facts.addresses
    return there or (address.vip in facts.balanced and not address.device.startswith("tula-"))


def _filter_problem(want: BackendSetup, facts: BackendFacts, made: Made) -> str:
    """What is wrong with the table; nft's listing is compared with the one recorded at creation."""
    if not facts.filter:
        return "missing"
    if want.filter != made.setup.filter:
        return "is for another configuration"
    if not made.listing:
        return "is left from an interrupted join"
    return "" if facts.filter == made.listing else "was changed"


def _mismatch(device: Device, facts: BackendFacts) -> str:
    """What of an existing device can only be put right by creating it again."""
    link = facts.links[device.name]
    if link.kind != device.kind:
        return f"is of kind {link.kind or 'none'}, not {device.kind}"
    if device.mac and link.mac != device.mac:
        return f"has the MAC {link.mac}, not {device.mac}"
    for key, value in device.attributes:
        if link.attributes.get(key) != value:
            return f"has {key} {link.attributes.get(key)}, not {value}"
    return ""


def _misconfigured(device: Device, facts: BackendFacts) -> str:
    if not facts.links[device.name].up:
        return "is down"
    value = facts.settings.get(rp_filter_of(device))
    if device.loose_rp_filter and value is not None and value != "2":
        return f"has rp_filter {value}, not 2"
    return ""


def _remove(want: BackendSetup, facts: BackendFacts, made: Made) -> Iterator[BackendStep]:
    setup = made.setup
    names = {device.name for device in want.devices}
    for address in reversed(setup.vips):
        # Removing a device removes its addresses.
        goes = address.device.startswith("tula-") and address.device not in names
        stays = address in want.vips or goes
        if not stays and (address.vip, address.device) in facts.addresses:
            yield BackendStep("remove", "address", _shown(address), "", (remove_vip(address),))
    for device in reversed(setup.devices):
        if device.name not in names and device.name in facts.links:
            yield BackendStep("remove", "device", device.name, "", (remove_device(device),))
    for port in reversed(setup.ports):
        if port not in want.ports and port in facts.ports:
            yield BackendStep("remove", "gue port", str(port.port), "", (remove_port(port),))
    if setup.filter and not want.filter and facts.filter:
        yield BackendStep("remove", "table", TABLE, "", (remove_filter(),))
    if setup.unmanaged and not want.unmanaged and setup.unmanaged in facts.files:
        remove = remove_unmanaged(setup.unmanaged)
        yield BackendStep("remove", "file", setup.unmanaged, "", (remove,))
    wanted = {setting.name for setting in want.settings}
    for name, change in reversed(list(made.settings.items())):
        if name not in wanted and facts.settings.get(name) == change.written != change.found:
            write = write_setting(name, change.found)
            yield BackendStep("restore", "sysctl", name, "", (write,))


def made_before_steps(want: BackendSetup, facts: BackendFacts, made: Made) -> Made:
    """What must be on record before the steps are taken: all that they may leave behind.

    What existed before Tula is used, but never becomes Tula's to remove.
    """
    setup = made.setup
    vips = [v for v in want.vips if v in setup.vips or (v.vip, v.device) not in facts.addresses]
    devices = [d for d in want.devices if _is_ours(d, setup) or d.name not in facts.links]
    devices += [d for d in want.devices if d not in devices and _mismatch(d, facts)]
    ports = [p for p in want.ports if p in setup.ports or p not in facts.ports]
    settings = dict(made.settings)
    for setting in want.settings:
        value = facts.settings.get(setting.name)
        known = settings.get(setting.name)
        if known is not None and value != known.written:
            # Somebody has set it since, or the machine was rebooted.
            del settings[setting.name]
        if value is not None and value not in setting.accepted:
            found = known.found if known is not None and value == known.written else value
            settings[setting.name] = SysctlChange(found, setting.value)
    union = BackendSetup(
        unmanaged=want.unmanaged or setup.unmanaged,
        filter=want.filter or setup.filter,
        ports=tuple(dict.fromkeys((*setup.ports, *ports))),
        devices=tuple({d.name: d for d in (*setup.devices, *devices)}.values()),
        vips=tuple(dict.fromkeys((*setup.vips, *vips))),
    )
    # nft never lists a table as nothing: if this one is not loaded after all, it is loaded again.
    return Made(union, settings, made.listing if want.filter == setup.filter else "")


def _is_ours(device: Device, setup: BackendSetup) -> bool:
    return any(known.name == device.name for known in setup.devices)


def made_after_steps(want: BackendSetup, made: Made, listing: str) -> Made:
    """What must be on record after all steps: without what they removed."""
    setup = made.setup
    wanted = {device.name for device in want.devices}
    names = {setting.name for setting in want.settings}
    return Made(
        BackendSetup(
            unmanaged=want.unmanaged,
            filter=want.filter,
            ports=tuple(port for port in setup.ports if port in want.ports),
            devices=tuple(device for device in setup.devices if device.name in wanted),
            vips=tuple(address for address in setup.vips if address in want.vips),
        ),
        {name: change for name, change in made.settings.items() if name in names},
        listing,
    )
