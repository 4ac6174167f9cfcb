"""The lab never touches the machine's own network; this module knows which one that is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NamespaceId = tuple[int, int]
"""Device and inode: what makes two paths the same namespace."""


class LabError(Exception):
    """The lab cannot do what was asked; the message is one line for the person who asked."""


def namespace_id(source: int | str | Path) -> NamespaceId:
    """Identity of the namespace behind a path such as ``/proc/1/ns/net`` or an open descriptor."""
    status = os.stat(source)  # noqa: PTH116 - descriptors too
    return status.st_dev, status.st_ino


def current_namespace() -> NamespaceId:
    """The calling thread's network namespace."""
    return namespace_id("/proc/thread-self/ns/net")


HOME = namespace_id("/proc/self/ns/net")
"""Where this process was when the lab was imported: the caller's own network, also off limits."""


def machine_namespace() -> NamespaceId:
    """The machine's network namespace: that of process 1.

    Process 1 may hold capabilities that root lacks, and the kernel then hides its namespaces;
    the kernel's own threads live in the same one, so kthreadd answers in its stead. When neither
    can be asked, nothing can be called private, and the lab refuses.
    """
    with suppress(PermissionError):
        return namespace_id("/proc/1/ns/net")
    with suppress(OSError):
        if Path("/proc/2/comm").read_text() == "kthreadd\n":
            return namespace_id("/proc/2/ns/net")
    raise LabError("the lab needs root: it cannot see which network namespace is the machine's")


def require_root() -> None:
    """Refuse, in one clear line, when network namespaces cannot be made."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces and interfaces")


def require_private_namespace(namespace: NamespaceId | None = None) -> None:
    """Refuse the machine's own network namespace.

    Without an argument the calling thread's namespace is meant: code that is about to change
    addresses, routes or tables calls this first.
    """
    if (namespace or current_namespace()) == machine_namespace():
        raise LabError(
            "refused: this is the machine's own network namespace; the lab works in its own only"
        )


def require_foreign_namespace(namespace: NamespaceId) -> None:
    """Refuse the machine's namespace and the one that this process was started in."""
    require_private_namespace(namespace)
    if namespace == HOME:
        raise LabError(
            "refused: this is the network namespace the lab was started from; "
            "the lab works in its own only"
        )
