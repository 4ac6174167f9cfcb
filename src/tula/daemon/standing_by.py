"""``tula standby`` and ``tula active``, by the daemon."""

from __future__ import annotations

from tula.daemon.components import Components
from tula.daemon.own_peer_view import own_role
from tula.engine.control import Stood


async def stand_by(components: Components, standby: bool, by: str, dry: bool) -> Stood:
    """See ``Control.stand_by``."""
    loop, peers = components.loop, components.peers
    changed = standby != (loop.snapshot.standby is not None)
    if not dry:
        changed = await loop.ask_writer(lambda writer: writer.stand_by(standby, by))
    alive = () if peers is None else tuple(p.name for p in peers.facts.peers if p.alive)
    return Stood(standby, changed, own_role(loop.snapshot).role, alive)
