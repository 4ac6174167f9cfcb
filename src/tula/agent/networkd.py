"""A backend's side as files of systemd-networkd (systemd.netdev, systemd.network), version 252."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.agent.boot_files import BootFile, BootPlan, plan_boot
from tula.agent.plan import Role, plan_backend_side
from tula.model.backend_setup import BackendSide, End, HeldVip

_FOLDER = "/etc/systemd/network"
_QUIET = "[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"


def plan_networkd(role: Role) -> BootPlan:
    """For a machine whose network systemd-networkd runs."""
    side = plan_backend_side([role], any_mode=False)
    files: list[BootFile] = []
    for end in side.ends:
        files += [_netdev(end), _network(end, _held(side, end.name))]
    files.append(_loopback(_held(side, "lo")))
    name = role.serves[0][1].name
    title = f"Makes this machine the backend {name}, by systemd-networkd, which runs its network."
    return plan_boot(side, title, files, ["systemctl restart systemd-networkd"])


def _held(side: BackendSide, device: str) -> list[HeldVip]:
    return [held for held in side.vips if held.device == device]


def _netdev(end: End) -> BootFile:
    mac = f"MACAddress={end.mac}\n" if end.mac else ""
    text = f"[NetDev]\nName={end.name}\nKind={end.kind}\n{mac}\n" + "".join(
        f"{line}\n" for line in _options(end)
    )
    return BootFile(f"{_FOLDER}/50-{end.name}.netdev", "a tunnel's other end.", text)


def _options(end: End) -> Iterator[str]:
    told = dict(end.told)
    if end.kind == "vxlan":
        yield "[VXLAN]"
        yield f"VNI={told['id']}"
        yield f"DestinationPort={told['port']}"
        yield f"Local={told.get('local', told.get('local6'))}"
        yield "MacLearning=no"
    else:
        yield "[Tunnel]"
        if end.kind == "ip6tnl":
            yield "Mode=any"
        yield f"Local={told['local']}"
        yield f"Remote={told['remote']}"
    # Else the device would wait for an interface whose own file names it.
    yield "Independent=yes"


def _network(end: End, held: Sequence[HeldVip]) -> BootFile:
    # Nothing is said into a tunnel, and nobody waits for one.
    arp = "ARP=no\n" if end.kind == "vxlan" else ""
    text = f"[Match]\nName={end.name}\n\n[Link]\n{arp}RequiredForOnline=no\n\n{_QUIET}"
    text += "".join(map(_address, held))
    return BootFile(f"{_FOLDER}/50-{end.name}.network", "up, and silent.", text)


def _loopback(held: Sequence[HeldVip]) -> BootFile:
    text = f"[Match]\nName=lo\n\n{_QUIET}" + "".join(map(_address, held))
    return BootFile(f"{_FOLDER}/50-tula-vips.network", "the VIPs, where nobody is told.", text)


def _address(held: HeldVip) -> str:
    """Never the source of the machine's own traffic; see ``backend_commands.make_vip``."""
    quiet = "Scope=host\n"
    if held.vip.version == 6:
        quiet = "PreferredLifetime=0\nDuplicateAddressDetection=none\nAddPrefixRoute=no\n"
    return f"\n[Address]\nAddress={held.vip}/{held.vip.max_prefixlen}\n{quiet}"
