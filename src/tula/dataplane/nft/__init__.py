"""The nftables data path: tables, maps and chains in the netdev family."""
