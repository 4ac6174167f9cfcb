"""Health monitors: probes, one file a kind, and the machines that count their outcomes."""
