"""Who puts the VIPs on this machine and tells the network of them."""
