"""The text of a configuration: read from a file, and what is wrong with it as text or as YAML."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import yaml

from tula.config.errors import BrokenError
from tula.config.tree import WHOLE, Mark
from tula.users import user_name

MAX_BYTES = 16 * 1024 * 1024
"""5,000 services are some 1.5 MB; nobody needs ten times that."""

_QUOTE = "quote text that contains a colon followed by a space or ends in one"
# YAML allows U+0085, U+2028 and U+2029 as line ends. Editors do not, so a hidden one would put
# text on a line that nobody sees, and every later position would be wrong.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
)


def read_bytes(path: Path) -> bytes:
    """The file's bytes; BrokenError when it is missing, unreadable, no regular file or too big."""
    try:
        # Asked before opening, because opening a device can do things; O_NONBLOCK, because a
        # FIFO put there in between would hang until somebody writes into it.
        _must_be_regular(path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _must_be_regular(os.fstat(descriptor).st_mode)
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BrokenError("no such file", None) from None
    except PermissionError:
        who = user_name(os.geteuid())
        message = f"permission denied: user {who} cannot read it; give {who} read access"
        raise BrokenError(message, None) from None
    except (OSError, ValueError) as error:
        # ValueError: a NUL in the name.
        reason = getattr(error, "strerror", None) or str(error)
        raise BrokenError(f"cannot be read: {reason[:200]}", None) from None


def decode(data: str | bytes) -> str:
    """The text without its byte order mark; BrokenError when it is too big, not UTF-8, or holds
    characters that no configuration needs."""
    if len(data) > MAX_BYTES:
        raise BrokenError(
            f"larger than {MAX_BYTES // 1024 // 1024} MiB, too large for a configuration", WHOLE
        )
    text = data if isinstance(data, str) else _utf8(data)
    text = text.removeprefix("\ufeff")
    if found := _FORBIDDEN.search(text):
        code = f"U+{ord(found[0]):04X}"
        raise BrokenError(
            f"the character {code} is not allowed; remove it", _mark(text, found.start())
        )
    return text


def syntax_error(error: yaml.YAMLError, text: str) -> BrokenError:
    """The syntax error as a BrokenError at its line and column."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        reason = getattr(error, "reason", None) or str(error)
        return BrokenError(f"not valid YAML: {_line(reason)}", WHOLE)
    mark = (error.problem_mark.line + 1, error.problem_mark.column + 1)
    began = error.context_mark.line + 1 if error.context_mark else mark[0]
    problem, context = error.problem or "syntax error", error.context or ""
    message = f"not valid YAML: {_line(problem)}"
    if context:
        message += f" ({_line(context)}"
        message += f" that began on line {began})" if began != mark[0] else ")"
    hint = _hint(problem, _rest(text, mark)) or _unclosed(context, began)
    return BrokenError(f"{message}; {hint}" if hint else message, mark)


def _must_be_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        kind = "a directory"
    elif stat.S_ISFIFO(mode):
        kind = "a pipe"
    elif stat.S_ISSOCK(mode):
        kind = "a socket"
    else:
        kind = "a device"
    raise BrokenError(f"{kind}, not a file; give the path of a YAML file", None)


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        message = f"not UTF-8: byte 0x{data[error.start]:02x}; save the file as UTF-8"
        raise BrokenError(message, _mark(before, len(before))) from None


def _mark(text: str, offset: int) -> Mark:
    start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - start + 1


def _unclosed(context: str, line: int) -> str | None:
    """The fix, from what the parser was in when it stopped."""
    if "flow sequence" in context:
        return f"close the [ of line {line} with ]"
    if "flow mapping" in context:
        return f"close the {{ of line {line} with }}"
    if "quoted scalar" in context:
        return f"close the quote of line {line}"
    if "alias" in context or "anchor" in context:
        return "quote text that begins with * or &; for all ports write any"
    return None


def _hint(problem: str, rest: str) -> str | None:
    """The fix, from the text where the parser stopped."""
    if rest.startswith("\t"):
        return "indent with spaces, not with tabs"
    if rest.startswith("::"):
        return 'quote an IPv6 address that begins with a colon, such as "::1"'
    if rest.startswith(("@", "`", "%")):
        return f"quote text that begins with {rest[0]}"
    if problem.startswith("mapping values are not allowed"):
        return _QUOTE
    if "could not find expected ':'" in problem:
        return "give every key a colon and a value"
    if "expected <block end>" in problem or "expected key" in problem:
        return "check the indentation"
    return None


def _rest(text: str, mark: Mark) -> str:
    """The line from the mark on."""
    lines = text.splitlines()
    return lines[mark[0] - 1][mark[1] - 1 :] if mark[0] <= len(lines) else ""


def _line(text: str) -> str:
    """On one line, printable, not long."""
    words = " ".join(text.split())
    return "".join(char if char.isprintable() else "?" for char in words)[:100]
