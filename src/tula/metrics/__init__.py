"""Figures of the daemon for Prometheus."""
