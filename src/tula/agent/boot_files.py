"""A backend's setup as files that restore it at every boot.

What neither systemd-networkd nor netplan can express is the same for both, and is here: sysctls,
the packet filter, and GUE's ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tula.agent.commands import make_filter, make_port, rp_filter_of
from tula.model.backend_setup import TABLE, BackendSetup, GuePort

_FILTER = "/etc/tula/backend.nft"
_SETTINGS = "/etc/sysctl.d/90-tula-backend.conf"
_MODULES = {4: "fou", 6: "fou6"}


@dataclass(frozen=True, slots=True)
class BootFile:
    """A file and its purpose; ``secret`` if its owner warns when others can read it."""

    path: str
    why: str
    text: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class BootPlan:
    """Files, and the commands that load them now; both can be repeated."""

    title: str
    files: tuple[BootFile, ...]
    commands: tuple[str, ...]


def plan_boot(
    setup: BackendSetup,
    title: str,
    network: Sequence[BootFile],
    apply: Sequence[str],
) -> BootPlan:
    """``network`` are the files for devices and addresses, ``apply`` the commands that load them.

    ARP settings and filter come before the VIPs, now and at every boot.
    """
    shared = list(_settings(setup))
    commands = []
    if shared:
        commands.append(f"/lib/systemd/systemd-sysctl {_SETTINGS}")
    modules = sorted({_MODULES[port.version] for port in setup.ports})
    if modules:
        text = "".join(f"{module}\n" for module in modules)
        shared.append(
            BootFile("/etc/modules-load.d/tula-backend.conf", "the kernel module for GUE.", text)
        )
        commands.append(f"modprobe -a {' '.join(modules)}")
    units: list[BootFile] = []
    if setup.filter:
        shared.append(_filter(setup))
        units.append(_filter_unit())
    if setup.ports:
        units.append(_ports_unit(setup.ports))
    if units:
        names = " ".join(unit.path.rpartition("/")[2] for unit in units)
        commands += ["systemctl daemon-reload", f"systemctl enable {names}"]
        commands.append(f"systemctl restart {names}")
    return BootPlan(title, (*shared, *units, *network), (*commands, *apply))


def render_script(plan: BootPlan) -> str:
    """A shell script, to be run by root, that writes the files and loads them."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: BootPlan) -> Iterator[str]:
    yield f"# {plan.title}"
    yield "set -e"
    folders = sorted({file.path.rpartition("/")[0] for file in plan.files})
    yield f"mkdir -p {' '.join(folders)}"
    for file in plan.files:
        yield f"\n# {file.path}: {file.why}"
        yield f"cat >{file.path} <<'EOF'\n{file.text}EOF"
        if file.secret:
            yield f"chmod 600 {file.path}"
    yield "\n# Load them now."
    yield from plan.commands


def _settings(setup: BackendSetup) -> Iterator[BootFile]:
    lines = [f"{setting.name} = {setting.value}\n" for setting in setup.settings]
    # The devices do not exist yet when this is read at boot; udev reads it again for each new one
    # (99-systemd.rules). "-": a missing device is not an error.
    lines += [
        f"-{rp_filter_of(device)} = 2\n" for device in setup.devices if device.loose_rp_filter
    ]
    if lines:
        why = "no ARP for the VIPs; loose reverse-path filtering on tunnel devices."
        yield BootFile(_SETTINGS, why, "".join(lines))


def _filter(setup: BackendSetup) -> BootFile:
    text = make_filter(setup.filter).text
    why = "tunnels accept packets from balancers to the VIPs only; MSS clamp."
    return BootFile(_FILTER, why, text)


def _filter_unit() -> BootFile:
    # Not in /etc/nftables.conf, which is the administrator's; but reloaded after it, since it
    # begins by flushing everything.
    text = f"""\
[Unit]
Description=Packet filter and MSS clamp of a Tula backend
After=nftables.service
PartOf=nftables.service
ReloadPropagatedFrom=nftables.service
Before=network-pre.target
Wants=network-pre.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=nft -f {_FILTER}
ExecReload=nft -f {_FILTER}
ExecStop=-nft delete table inet {TABLE}

[Install]
WantedBy=multi-user.target
"""
    return BootFile("/etc/systemd/system/tula-backend-filter.service", f"loads {_FILTER}.", text)


def _ports_unit(ports: Sequence[GuePort]) -> BootFile:
    # systemd-networkd 252 asks for protocol 0 with GUE, which newer kernels refuse (ERANGE, seen
    # on 6.1.192), and for IPv4 whatever the address (fou-tunnel.c).
    # "-": on a restart of the unit the port is open already.
    start = "".join(f"ExecStart=-{make_port(port)}\n" for port in ports)
    stop = "".join(f"ExecStop={make_port(port)}\n".replace(" add ", " del ") for port in ports)
    text = f"""\
[Unit]
Description=GUE ports of a Tula backend
After=systemd-modules-load.service

[Service]
Type=oneshot
RemainAfterExit=yes
{start}{stop}
[Install]
WantedBy=multi-user.target
"""
    why = "decapsulates GUE."
    return BootFile("/etc/systemd/system/tula-backend-gue.service", why, text)
