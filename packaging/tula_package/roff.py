"""Text in man(7)'s macros."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DASHES = re.compile(r"(?<![\w-])(-{1,2})(?=\w)|(?<=\w)-(?=\w)")
_CODE = re.compile(r"``([^`]+)``|`([^`]+)`")


def escape(text: str) -> str:
    """A text as it is, on one line: an option's dashes can be searched and copied."""
    flat = " ".join(text.split()).replace("\\", "\\e")
    flat = _DASHES.sub(lambda found: "\\-" * len(found[0]), flat)
    return "\\&" + flat if flat.startswith((".", "'")) else flat


def literal(text: str) -> str:
    """A word that is typed: every dash is one."""
    return text.replace("\\", "\\e").replace("-", "\\-")


def prose(text: str) -> str:
    """A paragraph's text; ``code`` in bold."""
    return (
        escape(_CODE.sub(lambda found: f"\0{found[1] or found[2]}\1", text))
        .replace("\0", "\\fB")
        .replace("\1", "\\fR")
    )


def bold(text: str) -> str:
    return f"\\fB{literal(text)}\\fR"


def italic(text: str) -> str:
    return f"\\fI{literal(text)}\\fR"


def title(name: str, section: int, date: str, version: str) -> str:
    """The page's first line. ``date`` is as 2026-11-28."""
    return f'.TH "{literal(name.upper())}" "{section}" "{date}" "Tula {version}" "Tula"'


def name_section(name: str, purpose: str) -> list[str]:
    """What whatis(1) shows; lexgrog(1) reads it."""
    return [".SH NAME", f"{literal(name)} \\- {escape(purpose)}"]


def paragraphs(text: str) -> list[str]:
    """Paragraphs that blank lines part."""
    lines: list[str] = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines += [".PP", prose(part)]
    return lines


def tagged(tag: str, text: str) -> list[str]:
    """A term, already in roff, and what it means."""
    return [".TP", tag, prose(text)]


def page(lines: Iterable[str]) -> str:
    return "\n".join(lines) + "\n"
