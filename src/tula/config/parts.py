"""A configuration in several files: the ``*.yaml`` of a directory, in the order of their names.

They are kept as one text, in which a line before each part names its file, so that the text that
was accepted is all that is needed to read it again:

    #=== file 10-base.yaml
    interfaces: [eth0]
    #=== file 20-web.yaml
    services: …
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from dataclasses import dataclass
from pathlib import Path

from tula.config.errors import BrokenError
from tula.config.source import read_bytes
from tula.config.tree import MapNode, Mark, Value
from tula.model.problem import Problem

_MARKER = "#=== file "


@dataclass(frozen=True, slots=True)
class Part:
    """One file's part of a text; ``line`` is the number of the line before its first."""

    name: str
    line: int
    text: str


def read_text(path: Path) -> bytes:
    """What a configuration's file holds, or the files of a directory together, without byte order
    marks. Raises BrokenError as ``read_bytes`` does, and for a directory without ``*.yaml``."""
    if not _is_directory(path):
        return read_bytes(path).removeprefix(BOM_UTF8)
    found = [_read_part(file) for file in _files(path)]
    return b"".join(found)


def stamp_of(path: Path) -> tuple[object, ...] | None:
    """Something that is another one once the content is; None where nothing can be read."""
    try:
        found = path.stat()
        files = _files(path) if _is_directory(path) else []
        # The mode too: what nobody may read any more is news.
        return (
            *(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode),
            *((file.name, stamp_of(file)) for file in files),
        )
    except (OSError, ValueError, BrokenError):
        return None


def split(text: str) -> list[Part]:
    """The parts of a text; one without a name where it is no directory's."""
    if not text.startswith(_MARKER):
        return [Part("", 0, text)]
    parts: list[Part] = []
    name, begin, lines = "", 0, text.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if line.startswith(_MARKER):
            if begin:
                parts.append(Part(name, begin, "".join(lines[begin : number - 1])))
            name, begin = line.removeprefix(_MARKER).strip(), number
    parts.append(Part(name, begin, "".join(lines[begin:])))
    return parts


def merge_parts(found: list[tuple[Part, Value]]) -> tuple[Value, list[Problem]]:
    """The trees of several files as one. What one of them gives, no other may give again: at the
    top, and below a key of the top that holds a map. Raises BrokenError."""
    if len(found) == 1:
        return found[0][1], []
    merged, problems = MapNode(), list[Problem]()
    places: dict[tuple[str, ...], tuple[Part, Mark]] = {}
    for part, root in found:
        if root is None:
            continue
        if not isinstance(root, MapNode):
            raise BrokenError("expected a map, such as services:", (part.line + 1, 1))
        for key, value in root.items():
            old = merged.get(key)
            if isinstance(old, MapNode) and isinstance(value, MapNode):
                _merge((key,), old, value, part, places, problems)
            elif key in merged:
                _given_again((key,), merged, root, part, places, problems)
            else:
                kept = _copy(value) if isinstance(value, MapNode) else value
                _put(merged, key, kept, root)
                places[key,] = part, root.key_marks[key]
                if isinstance(value, MapNode):
                    for below in value:
                        places[key, below] = part, value.key_marks[below]
    return merged, problems


def _merge(
    path: tuple[str, ...],
    old: MapNode,
    new: MapNode,
    part: Part,
    places: dict[tuple[str, ...], tuple[Part, Mark]],
    problems: list[Problem],
) -> None:
    for key, value in new.items():
        if key in old:
            _given_again((*path, key), old, new, part, places, problems)
        else:
            _put(old, key, value, new)
            places[(*path, key)] = part, new.key_marks[key]


def _given_again(
    path: tuple[str, ...],
    old: MapNode,
    new: MapNode,
    part: Part,
    places: dict[tuple[str, ...], tuple[Part, Mark]],
    problems: list[Problem],
) -> None:
    """The place of the problem is the later one; its message names the earlier."""
    first, (line, column) = places[path]
    message = f"also given at {first.name}:{line - first.line}:{column}; keep one"
    problems.append(Problem(path, message, on_key=True))
    old.key_marks[path[-1]] = new.key_marks[path[-1]]
    places[path] = part, new.key_marks[path[-1]]


def _put(node: MapNode, key: str, value: Value, source: MapNode) -> None:
    node[key] = value
    node.key_marks[key] = source.key_marks[key]
    node.value_marks[key] = source.value_marks[key]


def _copy(source: MapNode) -> MapNode:
    """An anchor may name the same map elsewhere, which must not grow."""
    made = MapNode()
    for key, value in source.items():
        _put(made, key, value, source)
    return made


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # what it is will be told by who reads it
        return False


def _files(directory: Path) -> list[Path]:
    try:
        names = sorted(entry.name for entry in os.scandir(directory))
    except OSError as error:
        raise BrokenError(f"cannot be read: {error.strerror}", None) from None
    names = [name for name in names if not name.startswith(".")]
    for name in names:
        if name.endswith((".yaml", ".yml")) and not name.isprintable():
            raise BrokenError(f"rename {name!r}: its name is not printable", None)
        if name.endswith(".yml"):
            raise BrokenError(f"only *.yaml are read; rename {name} to end in .yaml", None)
    found = [directory / name for name in names if name.endswith(".yaml")]
    if not found:
        raise BrokenError("a directory without *.yaml; put the configuration there", None)
    return found


def _read_part(file: Path) -> bytes:
    try:
        text = read_bytes(file).removeprefix(BOM_UTF8)
    except BrokenError as error:
        raise BrokenError(f"{file.name}: {error.message}", None) from None
    ended = b"" if not text or text.endswith(b"\n") else b"\n"
    return f"{_MARKER}{file.name}\n".encode() + text + ended
