"""YAML text to a tree, event by event.

Not by PyYAML's own composer: that one recurses in C (a file of brackets overflows the stack),
resolves every scalar with regular expressions, and knows neither duplicate keys nor alias bombs.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import yaml

from tula.config.errors import BrokenError, quoted
from tula.config.source import syntax_error
from tula.config.tree import ListNode, MapNode, Mark, Plain, Value
from tula.model.problem import Path, Problem

MAX_DEPTH = 20
"""Maps and lists inside one another; the contract needs 6."""

MAX_VALUES = 1_000_000
"""Keys and values, counting those of aliases each time; 5,000 services have some 200,000."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_MERGE = "<<"


class _Frame:
    """A map or list that is still open."""

    __slots__ = ("anchor", "before", "height", "key", "key_mark", "mark", "merges", "node", "seen")

    def __init__(
        self, node: MapNode | ListNode, mark: Mark, anchor: str | None, before: int
    ) -> None:
        self.node = node
        self.mark = mark
        self.anchor = anchor
        self.before = before  # the count of values when it was opened
        self.height = 1
        self.key: str | None = None  # of a map: the key whose value comes next
        self.key_mark: Mark = mark
        self.merges: list[MapNode] | None = None  # of a map: those of `<<`, if it stands there
        self.seen: dict[str, list[Mark]] = {}  # where the keys stand that are given again


class _Anchored:
    """What an anchor names: the value, how many values it holds and how deep it is."""

    __slots__ = ("height", "size", "value")

    def __init__(self, value: Value, size: int, height: int) -> None:
        self.value = value
        self.size = size
        self.height = height


def compose(text: str, above: int = 0) -> tuple[Value, list[Problem]]:
    """The tree of one YAML document, and the errors that did not prevent it (duplicate keys, tags).

    ``above`` is the number of lines before it, which the marks count.

    Raises BrokenError for what does: bad syntax, several documents, keys that are not text,
    aliases without anchor, recursion, and more depth or more values than allowed.
    """
    composer = _Composer(above)
    events = yaml.parse(text, Loader=_LOADER)
    try:
        for event in events:
            composer.take(event)
    except yaml.YAMLError as error:
        broken = syntax_error(error, text)
        if broken.mark is not None:
            broken.mark = broken.mark[0] + above, broken.mark[1]
        raise broken from None
    except (ValueError, OverflowError):
        # PyYAML without libyaml hands "\UFFFFFFFF" to chr().
        raise BrokenError(
            "not valid YAML: an escape sequence is not a character", composer.mark
        ) from None
    return composer.root, composer.problems


class _Composer:
    def __init__(self, above: int) -> None:
        self.root: Value = None
        self._above = above
        self.problems: list[Problem] = []
        self.mark: Mark = (above + 1, 1)
        self._stack: list[_Frame] = []
        self._anchors: dict[str, _Anchored | None] = {}  # None: still open
        self._plain: dict[str, Plain] = {}  # ports and addresses come again and again
        self._count = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        start = event.start_mark
        line = start.line + 1 + self._above
        # Marks of one line share its number: a large file has hundreds of thousands of them.
        last = self.mark[0]
        self.mark = (last if line == last else line, start.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open(MapNode(), event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open(ListNode(), event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(str(event.anchor))
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._break("a second YAML document begins here; a file may have only one")

    def _scalar(self, event: Any) -> None:
        self._spend(1)
        text: str = event.value
        plain: bool = event.implicit[0]
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            self._break("half of a surrogate pair is not a character")
        if event.tag is not None:
            self._tag(event.tag)
        frame = self._wants_key()
        if frame:
            self._key(frame, text, merge=plain and text == _MERGE)
            if event.anchor is not None:
                self._anchors[event.anchor] = _Anchored(text, 1, 0)
            return
        value: Value = text
        if plain:
            value = None if text in _NULLS else self._plain.setdefault(text, Plain(text))
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(value, 1, 0)
        self._attach(value, 0, self.mark)

    def _open(self, node: MapNode | ListNode, event: Any) -> None:
        if self._wants_key():
            self._break(
                "a map or list cannot be a key; quote text that begins with { or [ (a template?)"
            )
        if len(self._stack) >= MAX_DEPTH:
            self._break(f"more than {MAX_DEPTH} levels of maps and lists")
        if event.tag is not None:
            self._tag(event.tag)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(node, self.mark, event.anchor, self._count))
        self._spend(1)

    def _close(self) -> None:
        frame = self._stack[-1]
        node = frame.node
        if isinstance(node, MapNode):
            self._report_duplicates(frame)
            for source in frame.merges or ():
                self._merge(node, source)
        self._stack.pop()
        if frame.anchor is not None:
            size = self._count - frame.before
            self._anchors[frame.anchor] = _Anchored(node, size, frame.height)
        self._attach(node, frame.height, frame.mark)

    def _alias(self, name: str) -> None:
        if name not in self._anchors:
            self._break(f"*{name[:40]} refers to no anchor; quote it if it is text")
        target = self._anchors[name]
        if target is None:
            self._break(f"*{name[:40]} is inside the value that it refers to")
        if len(self._stack) + target.height > MAX_DEPTH:
            self._break(f"more than {MAX_DEPTH} levels of maps and lists")
        self._spend(target.size)
        frame = self._wants_key()
        if not frame:
            self._attach(target.value, target.height, self.mark)
        elif isinstance(target.value, str):
            self._key(frame, str(target.value), merge=False)
        else:
            self._break("a map or list cannot be a key")

    def _wants_key(self) -> _Frame | None:
        """The open map, when what comes next is a key of it."""
        if not self._stack:
            return None
        frame = self._stack[-1]
        return frame if frame.key is None and isinstance(frame.node, MapNode) else None

    def _key(self, frame: _Frame, text: str, merge: bool) -> None:
        node = frame.node
        assert isinstance(node, MapNode)
        text = sys.intern(text)  # most keys are a few, thousands of times
        if text in node.key_marks:
            frame.seen.setdefault(text, [node.key_marks[text]]).append(self.mark)
        elif merge:
            frame.merges = []
        frame.key = text
        # A duplicate key keeps its last place: that is the one to remove.
        node.key_marks[text] = self.mark

    def _attach(self, value: Value, height: int, mark: Mark) -> None:
        if not self._stack:
            self.root = value
            return
        frame = self._stack[-1]
        frame.height = max(frame.height, height + 1)
        node = frame.node
        if isinstance(node, ListNode):
            node.append(value)
            node.marks.append(mark)
            return
        key = frame.key or ""
        frame.key = None
        node.value_marks[key] = mark
        if key == _MERGE and frame.merges is not None:
            self._collect(frame.merges, value)
        else:
            node[key] = value

    def _collect(self, merges: list[MapNode], value: Value) -> None:
        sources = value if isinstance(value, ListNode) else [value]
        maps = [source for source in sources if isinstance(source, MapNode)]
        if len(maps) == len(sources):
            merges.extend(maps)
        else:
            message = "<< takes a map or a list of maps, such as *base"
            self.problems.append(Problem((*self._path(), _MERGE), message))

    def _merge(self, node: MapNode, source: MapNode) -> None:
        # Each merge copies keys, so a chain of them is a bomb like any other.
        self._spend(len(source))
        for key in source:
            if key not in node:
                node[key] = source[key]
                node.key_marks[key] = source.key_marks[key]
                node.value_marks[key] = source.value_marks[key]

    def _report_duplicates(self, frame: _Frame) -> None:
        path = self._path()
        for key, marks in frame.seen.items():
            times = "twice" if len(marks) == 2 else f"{len(marks)} times"
            message = f"given {times}, first on line {marks[0][0] - self._above}; keep one"
            self.problems.append(Problem((*path, key), message, on_key=True))

    def _tag(self, tag: str) -> None:
        name = quoted(tag.replace("tag:yaml.org,2002:", "!!"))
        message = (
            f"the YAML tag {name} is not supported; remove it, and quote the value if it is text"
        )
        self.problems.append(Problem(self._here(), message))

    def _path(self) -> Path:
        """The path of the innermost open map or list."""
        return tuple(
            frame.key or "" if isinstance(frame.node, MapNode) else len(frame.node)
            for frame in self._stack[:-1]
        )

    def _here(self) -> Path:
        """The path of the value that comes next; of the map, when that is a key."""
        if not self._stack:
            return ()
        frame = self._stack[-1]
        if isinstance(frame.node, ListNode):
            return (*self._path(), len(frame.node))
        return self._path() if frame.key is None else (*self._path(), frame.key)

    def _spend(self, values: int) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            self._break(f"more than {MAX_VALUES:,} values, counting those of aliases each time")

    def _break(self, message: str) -> NoReturn:
        raise BrokenError(message, self.mark)
