"""Failures of the machine, as opposed to wrong input (``ProblemsError``): exit status 1, not 2."""

from __future__ import annotations


class KernelError(Exception):
    """The kernel, or a tool that speaks to it, refused; nothing of the step was done."""


class StaleError(KernelError):
    """The data path changed since the revision that a change was planned on; nothing was done."""

    def __init__(self) -> None:
        super().__init__("nftables was changed by someone else meanwhile; compare again")


class StateError(Exception):
    """The state directory cannot be read or written."""
