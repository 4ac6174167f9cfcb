"""Builds Tula's packages: ``make package`` (docs/contributing/packages.md).

What a package holds is a ``Tree`` in memory, put together by functions that return; only ``build``
runs programs and writes files.
"""
