"""A configuration as maps, lists and scalars that remember where they were written.

Scalars keep their text. YAML 1.1 would make 4890 of ``80:90``, True of ``on`` and an integer of
a service named ``123``; here the key that wants a number or a boolean reads the text itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from tula.model.problem import Path

Mark = tuple[int, int]
"""Line and column, both counted from 1."""

WHOLE: Mark = (1, 1)


class Plain(str):
    """A scalar written without quotes: the only kind that may be a number or a boolean."""

    __slots__ = ()


class MapNode(dict[str, "Value"]):
    """A map, with the mark of each key and of each value."""

    __slots__ = ("key_marks", "value_marks")

    def __init__(self) -> None:
        super().__init__()
        self.key_marks: dict[str, Mark] = {}
        self.value_marks: dict[str, Mark] = {}


class ListNode(list["Value"]):
    """A list, with the mark of each item."""

    __slots__ = ("marks",)

    def __init__(self) -> None:
        super().__init__()
        self.marks: list[Mark] = []


Value = None | str | MapNode | ListNode

_MISSING = object()


class Positions:
    """Where the parts of one text are.

    What an alias names is found at its anchor, for that is the text to fix.
    """

    def __init__(
        self,
        root: Value = None,
        whole: Mark | None = WHOLE,
        files: tuple[tuple[int, str], ...] = (),
    ) -> None:
        """``files``, of a directory: the number of the line before each one's first, its name."""
        self._root = root
        self._whole = whole
        self._files = files

    @property
    def known(self) -> bool:
        """False when there is no text to point into, as for a file that does not exist."""
        return self._whole is not None

    def of(self, path: Path, on_key: bool = False) -> Mark:
        """Line and column, from 1, of the value at ``path``, or of its key when ``on_key``.

        For a path that the text does not have (a key that is missing), the key of the
        nearest ancestor that it has; (1, 1) for the whole text.
        """
        node, key, value = self._root, self._whole or WHOLE, self._whole or WHOLE
        for part in path:
            if isinstance(node, MapNode) and part in node.key_marks:
                name = str(part)
                key, value = node.key_marks[name], node.value_marks[name]
                node = node.get(name)
            elif isinstance(node, ListNode) and isinstance(part, int) and part < len(node):
                key = value = node.marks[part]
                node = node[part]
            else:
                return key
        return key if on_key else value

    def in_file(self, line: int) -> tuple[str, int]:
        """The file that a line of the text comes from, and its number there; no name where the
        text is that of one file."""
        found, above = "", 0
        for begin, name in self._files:
            if begin < line:
                found, above = name, begin
        return found, line - above

    def has(self, path: Path) -> bool:
        """Whether the text has a value at ``path``."""
        return self._find(path) is not _MISSING

    def keys(self, path: Path) -> list[str] | None:
        """The keys of the map at ``path`` as they are written; None if there is no map."""
        node = self._find(path)
        return list(node) if isinstance(node, MapNode) else None

    def cut(self, path: Path, count: int) -> bool:
        """Whether the list at ``path`` has other than ``count`` items, invalid ones being cut."""
        node = self._find(path)
        return isinstance(node, ListNode) and len(node) != count

    def item(self, path: Path, index: int, count: int) -> Path:
        """The path of one of a list's ``count`` items that were read.

        The path of the list when invalid items were cut, since they shift the others, and of the
        value when it stands without a list.
        """
        node = self._find(path)
        return (*path, index) if isinstance(node, ListNode) and len(node) == count else path

    def paths_to(self, key: str, value: object, within: Path) -> Iterator[Path]:
        """Where that key has that value below a path: a scalar, or a tuple of them."""
        wanted = [str(each) for each in value] if isinstance(value, tuple) else str(value)
        todo: list[tuple[Path, object]] = [(within, self._find(within))]
        while todo:
            path, node = todo.pop()
            if path[-1:] == (key,) and (node == wanted or [node] == wanted):
                yield path
            if isinstance(node, MapNode):
                todo.extend(((*path, name), child) for name, child in node.items())
            elif isinstance(node, ListNode):
                todo.extend(((*path, index), child) for index, child in enumerate(node))

    def _find(self, path: Path) -> object:
        node = self._root
        for part in path:
            if isinstance(node, MapNode) and part in node:
                node = node[str(part)]
            elif isinstance(node, ListNode) and isinstance(part, int) and part < len(node):
                node = node[part]
            else:
                return _MISSING
        return node
