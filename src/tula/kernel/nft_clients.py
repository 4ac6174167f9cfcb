"""The persistent clients that nftables' maps hold. See ``DataPath`` for what each promises."""

from __future__ import annotations

from collections.abc import Sequence

from tula.dataplane.nft.ids import Ids
from tula.kernel.nftables import Nftables
from tula.model.client_scopes import ClientScope, HeldClient, HeldClients
from tula.model.config import IPAddress

# There are no maps of clients yet: nothing is held.


def list_clients(
    nftables: Nftables,  # noqa: ARG001
    scopes: Sequence[ClientScope],  # noqa: ARG001
    ids: Ids,  # noqa: ARG001
    limit: int,  # noqa: ARG001
) -> HeldClients:
    """At most ``limit`` clients of each scope."""
    return HeldClients()


def forget_clients(
    nftables: Nftables,  # noqa: ARG001
    scopes: Sequence[ClientScope],  # noqa: ARG001
    client: IPAddress | None,  # noqa: ARG001
    ids: Ids,  # noqa: ARG001
) -> int | None:
    """Deletes the entries of one client, or all."""
    return 0


def look_up_client(
    nftables: Nftables,  # noqa: ARG001
    scope: ClientScope,  # noqa: ARG001
    client: IPAddress,  # noqa: ARG001
    ids: Ids,  # noqa: ARG001
) -> HeldClient | None:
    """One client's entry."""
    return None
