"""Composes plan, data path and kernel: what apply does, and what the daemon will repeat."""
