"""VIPs that others route to this machine (``announce: false``): they own them, and say so."""

from __future__ import annotations

from collections.abc import Sequence

from tula.model.announcing import Announcing
from tula.model.desired import DesiredVip
from tula.model.host import HostView
from tula.vip.owner import NoChange, QuietOwner


class ExternalVips(QuietOwner):
    """Nothing to do here, for any of them."""

    def diff(
        self,
        host: HostView,  # noqa: ARG002
        wanted: Sequence[DesiredVip],  # noqa: ARG002
        announcing: Announcing | None,  # noqa: ARG002
    ) -> NoChange:
        return NoChange()

    def take(self, change: NoChange) -> tuple[NoChange, list[str]]:
        return change, []

    def announce(self, host: HostView) -> list[str]:  # noqa: ARG002
        return []

    def announce_again(self, host: HostView) -> list[str]:  # noqa: ARG002
        return []

    def release(self, change: NoChange) -> list[str]:  # noqa: ARG002
        return []

    def undo(self, change: NoChange) -> None:
        """There is nothing to take back."""
