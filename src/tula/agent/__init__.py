"""The backend's side: what a machine needs to serve VIPs; join, leave, status, instructions."""
