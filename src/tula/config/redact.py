"""A configuration's text without its secrets, to be shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SECRET = re.compile(
    r"headers|.*(password|passwd|secret|token|credential|authorization|cookie|api[-_]?key).*",
    re.IGNORECASE | re.DOTALL,
)
_HIDDEN = '"********"'


def redact(text: str) -> str:
    """The text, with every value of a header, and of a key that names a secret, hidden.

    Everything else keeps its place, comments too.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return "(not shown: this is not valid YAML)\n"
    spans = sorted(set(_secrets(root)), reverse=True)
    for start, end in spans:
        ended = "\n" if text[start:end].endswith("\n") else ""
        text = text[:start] + _HIDDEN + ended + text[end:]
    return text


def redacted_diff(have: str, want: str, have_name: str, want_name: str) -> str:
    """A unified diff of two configurations without their secrets; empty if they are equal."""
    lines = difflib.unified_diff(
        redact(have).splitlines(), redact(want).splitlines(), have_name, want_name, lineterm=""
    )
    found = list(lines)
    if not found and have != want:
        found = ["(only secrets, or the end of the last line, differ)"]
    return "".join(f"{line}\n" for line in found)


def _secrets(root: Any) -> Iterator[tuple[int, int]]:
    """The scalars to hide, as offsets of the text."""
    todo: list[tuple[Any, bool]] = [(root, False)]
    seen: set[tuple[int, bool]] = set()
    while todo:
        node, secret = todo.pop()
        if node is None or (id(node), secret) in seen:  # aliases share their nodes
            continue
        seen.add((id(node), secret))
        if isinstance(node, yaml.ScalarNode):
            if secret:
                yield node.start_mark.index, node.end_mark.index
        elif isinstance(node, yaml.SequenceNode):
            todo.extend((value, secret) for value in node.value)
        else:
            for key, value in node.value:
                named = isinstance(key, yaml.ScalarNode) and _SECRET.fullmatch(key.value)
                todo.append((value, secret or bool(named)))
