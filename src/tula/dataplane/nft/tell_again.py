"""When other balancers must hear of every active flow again, and how: pure.

Hot packets pass the rules that tell (``shared_flows``). With the hot tables empty every active flow
takes the longer way with its next packet, and is told.

In a transaction of its own, some time after the one that it is for: to empty tables of 100,000
flows takes as long as a thousand changes of health, which must not wait for it.
"""

from __future__ import annotations

from tula.dataplane.nft.ruleset import Kind, MapName, Ruleset
from tula.dataplane.nft.transaction import (
    AddElements,
    AddMap,
    AddRules,
    AddTable,
    DeleteElements,
    FlushMap,
    Transaction,
)
from tula.dataplane.nft.tunnel_devices import SYNC_DEVICE
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.model.desired import SharedWith


def empty_hot_tables(ruleset: Ruleset) -> Transaction:
    """Has every active flow pass the rules that tell; nothing where there is no backend."""
    names = [name for text in ruleset.maps if (name := MapName.parse(text)) is not None]
    empty = tuple(FlushMap(name) for name in names if name.kind.hot)
    sent_as = next((name for name in names if name.kind is Kind.SENT_AS), None)
    elements = {} if sent_as is None else ruleset.maps[str(sent_as)]
    if sent_as is None or not elements:
        return ()
    # Tables that are empty already would make this no change to the kernel, and the revision that
    # it leads to unknown. So one element is written again.
    key = next(iter(elements))
    again = {key: elements[key]}
    return (*empty, DeleteElements(sent_as, (key,)), AddElements(sent_as, again))


def tells_again(shared: SharedWith | None, transaction: Transaction, tunnels: TunnelChange) -> bool:
    """Whether after this change the others must know flows that they did not have to know, or are
    others."""
    if shared is None or any(isinstance(step, AddTable) for step in transaction):
        return False
    if any(device.name == SYNC_DEVICE for device in tunnels.add):
        return True
    if any(peer.device == SYNC_DEVICE for peer in tunnels.add_peers):
        return True
    for step in transaction:
        match step:
            case AddMap(name) if name.kind is Kind.SENT_AS:
                return True
            case AddElements(name) | DeleteElements(name) if name.kind is Kind.SLOTS:
                if not shared.all_flows:  # other flows are exceptions now
                    return True
            case AddRules(chain) if chain.startswith("service") and not shared.all_flows:
                return True
            case _:
                pass
    return False
