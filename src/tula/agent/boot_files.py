"""A backend's side as files that make it again at every start of the machine.

What systemd-networkd and netplan have no word for is the same for both, and here: settings, the
filter, and GUE's ports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tula.agent.commands import loose_setting, make_filter, make_port
from tula.model.backend_setup import TABLE, BackendSide, GuePort

_FILTER = "/etc/tula/backend.nft"
_SETTINGS = "/etc/sysctl.d/90-tula-backend.conf"
_MODULES = {4: "fou", 6: "fou6"}


@dataclass(frozen=True, slots=True)
class BootFile:
    """A file, and why it is there; ``secret`` where others' reading it is warned of."""

    path: str
    why: str
    text: str
    secret: bool = False


@dataclass(frozen=True, slots=True)
class BootPlan:
    """Files, and the commands that have them read now; both can be done again."""

    title: str
    files: tuple[BootFile, ...]
    commands: tuple[str, ...]


def plan_boot(
    side: BackendSide,
    title: str,
    network: Sequence[BootFile],
    apply: Sequence[str],
) -> BootPlan:
    """``network``: what makes devices and addresses; ``apply``: what has it read.

    Silence and filter come before the VIPs, now and at every start.
    """
    shared = list(_settings(side))
    commands = []
    if shared:
        commands.append(f"/lib/systemd/systemd-sysctl {_SETTINGS}")
    modules = sorted({_MODULES[port.version] for port in side.ports})
    if modules:
        text = "".join(f"{module}\n" for module in modules)
        shared.append(BootFile("/etc/modules-load.d/tula-backend.conf", "GUE is a module.", text))
        commands.append(f"modprobe -a {' '.join(modules)}")
    units: list[BootFile] = []
    if side.filter:
        shared.append(_filter(side))
        units.append(_filter_unit())
    if side.ports:
        units.append(_ports_unit(side.ports))
    if units:
        names = " ".join(unit.path.rpartition("/")[2] for unit in units)
        commands += ["systemctl daemon-reload", f"systemctl enable {names}"]
        commands.append(f"systemctl restart {names}")
    return BootPlan(title, (*shared, *units, *network), (*commands, *apply))


def render_script(plan: BootPlan) -> str:
    """A shell script, run by root, that writes the files and has them read."""
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
    yield "\n# Have them read now."
    yield from plan.commands


def _settings(side: BackendSide) -> Iterator[BootFile]:
    lines = [f"{setting.name} = {setting.value}\n" for setting in side.settings]
    # A device is not there when this is read first; udev has it read again for each that comes
    # (99-systemd.rules). "-": that it is not there is no failure.
    lines += [f"-{loose_setting(end)} = 2\n" for end in side.ends if end.loose]
    if lines:
        why = "no ARP for the VIPs; tunnels bring packets whose way back is another."
        yield BootFile(_SETTINGS, why, "".join(lines))


def _filter(side: BackendSide) -> BootFile:
    text = make_filter(side.filter).text
    why = "tunnels take what is for the VIPs and comes from balancers; clients are told the MSS."
    return BootFile(_FILTER, why, text)


def _filter_unit() -> BootFile:
    # Not in /etc/nftables.conf, which is the administrator's; but loaded again behind it, since
    # it begins by flushing everything.
    text = f"""\
[Unit]
Description=Filter and MSS of a backend of Tula
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
    # systemd-networkd 252 asks for protocol 0 with GUE, which kernels refuse by now (ERANGE, seen
    # on 6.1.192), and for IPv4 whatever the address (fou-tunnel.c).
    # "-": the port is open already when the unit is started again.
    start = "".join(f"ExecStart=-{make_port(port)}\n" for port in ports)
    stop = "".join(f"ExecStop={make_port(port)}\n".replace(" add ", " del ") for port in ports)
    text = f"""\
[Unit]
Description=Ports for GUE of a backend of Tula
After=systemd-modules-load.service

[Service]
Type=oneshot
RemainAfterExit=yes
{start}{stop}
[Install]
WantedBy=multi-user.target
"""
    why = "takes GUE's UDP packets apart."
    return BootFile("/etc/systemd/system/tula-backend-gue.service", why, text)
