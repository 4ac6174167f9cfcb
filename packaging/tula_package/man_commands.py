"""Manual pages of the commands, from the commands themselves: they say what ``--help`` says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tula_package import roff

_OPTION = re.compile(r"--?[a-z][a-z-]*")
_EXIT = (
    ("0", "Done."),
    ("1", "It failed: the machine refused, a right is missing, or what was checked is not well."),
    ("2", "Wrong input or usage. Nothing was changed."),
    ("3", "With --exit-code: there is a difference."),
)
_FILES = (
    ("/etc/tula/tula.yaml", "The configuration that the daemon takes, see tula.yaml(5)."),
    ("/var/lib/tula", "What was accepted, drains and weights, events."),
    ("/run/tula/tula.sock", "The daemon's socket."),
)


def command_pages(root: Any, date: str, version: str) -> dict[str, str]:
    """``tula.1`` and one page for every command by file name; ``root`` is typer's group.

    A group's page has all of its commands.
    """
    context = root.context_class(root, info_name="tula")
    pages = {"tula.1": roff.page(_main_page(root, context, date, version))}
    for name, command in _visible(root):
        full = f"tula-{name}"
        below = command.context_class(command, info_name=name, parent=context)
        pages[f"{full}.1"] = roff.page(
            [
                roff.title(full, 1, date, version),
                *roff.name_section(full, _purpose(command)),
                *_body(command, below),
                *_end(["tula(1)", "tula.yaml(5)"]),
            ]
        )
    return pages


def _main_page(root: Any, context: Any, date: str, version: str) -> Iterator[str]:
    yield roff.title("tula", 1, date, version)
    yield from roff.name_section("tula", "layer-4 load balancer with Direct Server Return")
    yield from _synopsis(root, context)
    yield ".SH DESCRIPTION"
    yield from roff.paragraphs(root.help)
    yield from _options(root, context)
    yield ".SH COMMANDS"
    for name, command in _visible(root):
        yield from roff.tagged(f"{roff.bold(f'tula-{name}')}(1)", _purpose(command) + ".")
    yield ".SH EXIT STATUS"
    for status, meaning in _EXIT:
        yield from roff.tagged(roff.bold(status), meaning)
    yield ".SH FILES"
    for path, meaning in _FILES:
        yield from roff.tagged(roff.italic(path), meaning)
    yield from _end(["tula.yaml(5)", "nft(8)"])


def _visible(group: Any) -> list[tuple[str, Any]]:
    return [(name, each) for name, each in group.commands.items() if not each.hidden]


def _purpose(command: Any) -> str:
    """The first sentence of its help, as man pages have it: without a full stop."""
    first = re.split(r"\n\s*\n", (command.help or "").strip())[0]
    return " ".join(first.split()).removesuffix(".")


def _body(command: Any, context: Any) -> Iterator[str]:
    yield from _synopsis(command, context)
    yield ".SH DESCRIPTION"
    yield from roff.paragraphs(command.help)
    yield from _options(command, context)
    if hasattr(command, "commands"):
        yield ".SH COMMANDS"
        for name, below in _visible(command):
            inner = below.context_class(below, info_name=name, parent=context)
            yield f".SS {_usage(below, inner)}"
            yield from roff.paragraphs(below.help)
            yield from _parameters(below, inner)


def _synopsis(command: Any, context: Any) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    yield _usage(command, context)


def _usage(command: Any, context: Any) -> str:
    pieces = " ".join(command.collect_usage_pieces(context))
    return f"{roff.bold(context.command_path)} {roff.italic(pieces)}"


def _options(command: Any, context: Any) -> Iterator[str]:
    lines = list(_parameters(command, context))
    if lines:
        yield ".SH OPTIONS"
        yield from lines


def _parameters(command: Any, context: Any) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            names, text = record
            tag, last = "", 0
            for found in _OPTION.finditer(names):
                tag += roff.italic(names[last : found.start()]) if last else ""
                tag += roff.bold(found[0])
                last = found.end()
            tag += roff.italic(names[last:])
            yield from roff.tagged(tag, text or "\u200b")


def _end(pages: list[str]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    references = []
    for each in pages:
        name, _, section = each.partition("(")
        references.append(f"{roff.bold(name)}({section}")
    yield ", ".join(references)
    yield ".PP"
    yield f"The documentation in {roff.italic('/usr/share/doc/tula')}."
