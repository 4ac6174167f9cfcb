"""A configuration's text with those of its sections that belong to one machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SectionsError(ValueError):
    """The text is not of lines that sections could be taken from; one line."""


def with_own_sections(text: str, own: str, keys: Iterable[str]) -> str:
    """``text``, with the sections of these keys as ``own`` has them, and without those that it
    does not have. Everything else keeps its place, comments too. Raises SectionsError."""
    wanted = {key: block for key in keys if (block := _block(own, key)) is not None}
    for key in keys:
        span, block = _span(text, key), wanted.get(key)
        if span is None and block is None:
            continue
        if span is None:
            text = (text if text.endswith("\n") or not text else text + "\n") + str(block)
            continue
        lines = text.splitlines(keepends=True)
        text = "".join([*lines[: span[0]], block or "", *lines[span[1] :]])
    return text


def _block(text: str, key: str) -> str | None:
    """The lines of a key of the whole, if it is there."""
    span = _span(text, key)
    if span is None:
        return None
    found = "".join(text.splitlines(keepends=True)[span[0] : span[1]])
    return found if found.endswith("\n") else found + "\n"


def _span(text: str, key: str) -> tuple[int, int] | None:
    """The first line of the key, and the one after its last; the comments that stand above the
    next key are that one's."""
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        raise SectionsError("it is no valid YAML") from None
    if not isinstance(root, yaml.MappingNode):
        raise SectionsError("it is no map")
    starts = [name.start_mark.line for name, _ in root.value]
    at = next((n for n, (name, _) in enumerate(root.value) if name.value == key), None)
    if at is None:
        return None
    if root.flow_style or len(set(starts)) != len(starts):
        raise SectionsError(f"{key} does not stand on lines of its own")
    lines = text.splitlines()
    end = starts[at + 1] if at + 1 < len(starts) else len(lines)
    while end > starts[at] + 1 and _is_aside(lines[end - 1]):
        end -= 1
    return starts[at], end


def _is_aside(line: str) -> bool:
    stripped = line.strip()
    return not stripped or stripped.startswith("#") or stripped in ("...", "---")
