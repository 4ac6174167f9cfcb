"""Which network namespace is the machine's own: the lab refuses to change it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NamespaceId = tuple[int, int]
"""Device and inode, which identify a namespace."""


class LabError(Exception):
    """The lab cannot do what was asked; the message is one line for the user."""


def namespace_id(source: int | str | Path) -> NamespaceId:
    """Identity of the namespace behind a path such as ``/proc/1/ns/net`` or an open descriptor."""
    status = os.stat(source)  # noqa: PTH116 - descriptors too
    return status.st_dev, status.st_ino


def current_namespace() -> NamespaceId:
    """The calling thread's network namespace."""
    return namespace_id("/proc/thread-self/ns/net")


HOME = namespace_id("/proc/self/ns/net")
"""The namespace in which the lab was imported: the caller's own network, also off limits."""


def machine_namespace() -> NamespaceId:
    """The machine's network namespace: that of process 1.

    If process 1 has capabilities that root lacks, the kernel hides its namespaces; kernel threads
    are in the same one, so kthreadd's is used instead. If neither is readable, no namespace is
    known to be private, and the lab refuses to work.
    """
    with suppress(PermissionError):
        return namespace_id("/proc/1/ns/net")
    with suppress(OSError):
        if Path("/proc/2/comm").read_text() == "kthreadd\n":
            return namespace_id("/proc/2/ns/net")
    raise LabError(
        "the lab needs root: it cannot tell which network namespace is the machine's own"
    )


def require_root() -> None:
    """Raise LabError unless this process may create network namespaces."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it creates network namespaces and interfaces")


def require_private_namespace(namespace: NamespaceId | None = None) -> None:
    """Raise LabError for the machine's own network namespace.

    Without an argument, the calling thread's namespace is checked: code that is about to change
    addresses, routes or tables calls this first.
    """
    if (namespace or current_namespace()) == machine_namespace():
        raise LabError(
            "refused: this is the machine's own network namespace; the lab only works in those "
            "that it created"
        )


def require_foreign_namespace(namespace: NamespaceId) -> None:
    """Raise LabError for the machine's namespace and for the one this process was started in."""
    require_private_namespace(namespace)
    if namespace == HOME:
        raise LabError(
            "refused: this is the network namespace that the lab was started in; it only works in "
            "those that it created"
        )
