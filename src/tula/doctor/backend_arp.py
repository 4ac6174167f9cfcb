"""Whether a backend keeps silent about its VIPs. Pure judging."""

from __future__ import annotations

from collections.abc import Iterator

from tula.agent.commands import write_setting
from tula.doctor.own_side import OwnSide
from tula.doctor.scene import Scene
from tula.model.finding import Finding, Severity

_SILENT = {"arp_ignore": {1, 2, 3, 8}, "arp_announce": {2}}
_HARM = {
    "arp_ignore": "it answers ARP for VIPs there, and takes clients away from the balancer",
    "arp_announce": "it may ask for its neighbours in a VIP's name, and they learn its MAC for it",
}


def judge_silence(scene: Scene, own: OwnSide) -> Iterator[Finding]:
    """The sysctls, as they come out for each interface that speaks ARP."""
    for want in own.want.settings:
        setting = want.name.rpartition("/")[2]
        loud = {
            name: value
            for name, link in scene.host.links.items()
            if any(link.mac) and not name.startswith("tula") and _up(scene, name)
            if (value := own.effective(name, setting)) is not None
            if value not in _SILENT[setting]
        }
        # One mend for all interfaces; the finding is about the first.
        for name, value in list(loud.items())[:1]:
            yield Finding(
                setting.replace("_", "-"), Severity.ERROR, name,
                f"{setting} comes out as {value} on {', '.join(loud)}: {_HARM[setting]}",
                f"set {want.name.replace('/', '.')} to {want.value}, in /etc/sysctl.d too, or "
                "join: tula backend join",
                commands=(str(write_setting(want.name, want.value)),),
            )  # fmt: skip


def _up(scene: Scene, name: str) -> bool:
    state = scene.links.get(name)
    return state is None or state.up
