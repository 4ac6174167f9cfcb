"""Runs tests in a VM with Debian's stock kernel; ``scripts/vm`` is the door."""
