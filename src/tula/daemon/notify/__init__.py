"""Tells people and programs outside what changed: the key ``notify``."""
