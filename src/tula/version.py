"""The one place that names Tula's version."""

__version__ = "0.1.0"
