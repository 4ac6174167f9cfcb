"""A configuration's text without its secrets, to be shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tula.model.problem import Path

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SECRET = re.compile(
    r"headers|.*(password|passwd|secret|token|credential|authorization|cookie|api[-_]?key).*",
    re.IGNORECASE | re.DOTALL,
)
_STARS = "***"
_PLACE = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(?=[/?#]|$)")
"""What of a webhook's URL is no secret."""
_HIDDEN = '"********"'


def redact(text: str) -> str:
    """The text, with every value of a header, of a key or a program's option that names a secret,
    every path whose query does and what a webhook's URL has after its host, hidden.

    Everything else keeps its place, comments too. While libyaml reads a large one, no other thread
    of this process runs.
    """
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return "(not shown: this is not valid YAML)\n"
    spans = {
        (node.start_mark.index, node.end_mark.index): _shown(path, node)
        for path, node in _secrets(root)
    }
    for (start, end), shown in sorted(spans.items(), reverse=True):
        ended = "\n" if text[start:end].endswith("\n") else ""
        text = text[:start] + shown + ended + text[end:]
    return text


def _shown(path: Path, node: yaml.ScalarNode) -> str:
    """What stands in the place of a secret: of a webhook, who is asked."""
    found = _PLACE.match(node.value) if path[-1:] == ("webhook",) else None
    if found is None:
        return _HIDDEN
    bare = found[0] == node.value.rstrip("/")
    return f'"{node.value}"' if bare else f'"{found[0]}/{_HIDDEN[1:]}'


def hidden_places(text: str) -> list[Path]:
    """Where there is no secret, but what ``redact`` shows in its place."""
    if _STARS not in text:
        return []
    root = yaml.compose(text, Loader=_LOADER)
    return [path for path, node in _secrets(root) if set(_secret_of(path, node.value)) == {"*"}]


def _secret_of(path: Path, value: str) -> str:
    return _PLACE.sub("", value, count=1).strip("/") if path[-1:] == ("webhook",) else value


def redacted_diff(have: str, want: str, have_name: str, want_name: str) -> str:
    """A unified diff of two configurations without their secrets; empty if they are equal."""
    lines = difflib.unified_diff(
        redact(have).splitlines(), redact(want).splitlines(), have_name, want_name, lineterm=""
    )
    found = list(lines)
    if not found and have != want:
        found = ["(only secrets, or the end of the last line, differ)"]
    return "".join(f"{line}\n" for line in found)


def _secrets(root: Any) -> Iterator[tuple[Path, yaml.ScalarNode]]:
    """The scalars to hide, and their paths."""
    todo: list[tuple[Path, Any, bool]] = [((), root, False)]
    seen: set[tuple[int, bool]] = set()
    while todo:
        path, node, secret = todo.pop()
        if node is None or (id(node), secret) in seen:  # aliases share their nodes
            continue
        seen.add((id(node), secret))
        if isinstance(node, yaml.ScalarNode):
            if secret:
                yield path, node
        elif isinstance(node, yaml.SequenceNode):
            option = False
            for n, value in enumerate(node.value):
                todo.append(((*path, n), value, secret or option or _is_option(value, "=")))
                option = _is_option(value)
        else:
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else ""
                named = _SECRET.fullmatch(name)
                asks = name == "path" and _asks_with_secret(value)
                asks |= name == "webhook" and isinstance(value, yaml.ScalarNode)
                todo.append(((*path, name), value, secret or bool(named) or asks))


def _is_option(node: Any, separator: str = "") -> bool:
    """Whether it is a program's option that names a secret: the next argument's, or with the
    separator its own, as in ``--password=…``."""
    if not isinstance(node, yaml.ScalarNode) or not node.value.startswith("-"):
        return False
    name, found, _ = node.value.partition("=")
    return found == separator and bool(_SECRET.fullmatch(name))


def _asks_with_secret(node: Any) -> bool:
    query = node.value.partition("?")[2] if isinstance(node, yaml.ScalarNode) else ""
    return any(_SECRET.fullmatch(each.partition("=")[0]) for each in query.split("&"))
