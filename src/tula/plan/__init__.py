"""Pure decisions: which backend gets which packets, by which numbers."""
