"""One writer composes plan, data path, VIPs and store: commands and the daemon use the same."""
