"""What ends a run before, or instead of, pytest's own word."""

from __future__ import annotations


class VmError(Exception):
    """The VM could not be had; the message is for the person who asked."""
