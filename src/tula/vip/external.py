"""VIPs that others route to this machine (``announce: false``): they own them, and say so."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tula.model.desired import DesiredVip
from tula.model.host import HostView
from tula.vip.owner import VipChange


class ExternalVips:
    """Nothing to do here, for any of them."""

    def diff(
        self,
        host: HostView,  # noqa: ARG002
        wanted: Sequence[DesiredVip],  # noqa: ARG002
        serving: Collection[str],  # noqa: ARG002
    ) -> VipChange:
        return VipChange()

    def take(self, change: VipChange) -> tuple[VipChange, list[str]]:
        return change, []

    def announce(self, host: HostView) -> list[str]:  # noqa: ARG002
        return []

    def announce_again(self, host: HostView) -> list[str]:  # noqa: ARG002
        return []

    def release(self, change: VipChange) -> list[str]:  # noqa: ARG002
        return []

    def undo(self, change: VipChange) -> None:
        """There is nothing to take back."""
