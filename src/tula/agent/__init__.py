"""The backend's side: makes a machine serve VIPs, and takes all of it back."""
