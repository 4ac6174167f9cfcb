"""How to remove from the kernel what Tula made on a machine that no longer has Tula."""

from __future__ import annotations

from tula.engine.reader import Adapters
from tula.engine.store import Store
from tula.model.command import Command


def removal_commands(adapters: Adapters, store: Store) -> list[Command]:
    """What ``Balancer.clear`` would do now, as commands for a shell, in its order; changes nothing.

    Settings that somebody else changed since are left out. Raises KernelError and StateError.
    """
    commands = [*adapters.vips.removal(), *adapters.path.removal(adapters.path.observe_presence())]
    for owned in adapters.network.view(()).owned:
        prefix = f"{owned.address}/{owned.address.max_prefixlen}"
        commands.append(Command(("ip", "address", "del", prefix, "dev", owned.interface)))
    commands += adapters.probe_route.removal()
    for name, change in reversed(store.sysctls().items()):
        if adapters.sysctls.read(name) == change.made:
            commands.append(Command(("sysctl", "-q", "-w", f"{name}={change.found}")))
    return commands
