"""Which files of the Python packages go where: what running needs, the lab, or nowhere."""

from __future__ import annotations

import re

# Rich is typer's for help in colours, which Tula has switched off; the lab draws with it.
LAB_LIBRARIES = frozenset({"rich", "pygments", "markdown_it_py", "mdurl"})

# cryptography needs cffi's compiled part alone.
_DROPPED_LIBRARIES = frozenset({"pycparser"})

_TOP_LEVEL = {
    **dict.fromkeys(("rich", "pygments", "mdurl"), "lab"),
    "markdown_it": "lab",
    "cffi": "",
    "pycparser": "",
    "bin": "",
}
_TULA_LAB = re.compile(r"tula/(lab/|kernel/(fake[a-z_]*|failures)\.py$)")
"""What only the demo and the tests need of Tula itself."""

_NOT_RUN = re.compile(
    r"""
      (^|/)(tests?|\.agents|__pycache__)/          # of libraries
    | \.(pyi|pxd|pyx|c|h|typed)$                   # for type checkers and compilers
    | (^|/)py\.typed$
    | ^fastapi/(cli|__main__)\.py$                 # their own commands
    | ^typer/(cli|__main__)\.py$
    | \.dist-info/(RECORD|INSTALLER|REQUESTED|WHEEL|direct_url\.json|zip-safe|top_level\.txt)$
    """,
    re.VERBOSE,
)


def _library(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def place(path: str) -> str:
    """The package of a file in site-packages: ``tula``, ``lab``, or an empty string for none."""
    top, _, rest = path.partition("/")
    if _NOT_RUN.search(path):
        return ""
    if top.endswith(".dist-info"):
        library = _library(top.removesuffix(".dist-info").rpartition("-")[0])
        if library in _DROPPED_LIBRARIES:
            return ""
        return "lab" if library in LAB_LIBRARIES else "tula"
    if not rest and "." in top:
        return "tula"
    if _TULA_LAB.match(path):
        return "lab"
    return _TOP_LEVEL.get(top, "tula")
