"""The daemon's API: HTTP with JSON under /api/v1."""
