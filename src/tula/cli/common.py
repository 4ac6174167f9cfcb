"""What the commands share: options, input, output and the way errors end a command.

Heavy imports stand inside functions: ``tula --help`` must start at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from tula.config.load import Document, DocumentError
    from tula.engine.balancer import Balancer
    from tula.engine.reader import Adapters
    from tula.engine.store import Store

FAILED, WRONG, DIFFERENT, INTERRUPTED = 1, 2, 3, 130

STATE_DIR = Path("/var/lib/tula")
RUN_DIR = Path("/run/tula")

# Not "readable": what cannot be read has an error of ours, with its place.
File = Annotated[
    Path, typer.Option("--file", "-f", metavar="F", readable=False, help="The document, tula.yaml.")
]
MaybeFile = Annotated[
    Path | None,
    typer.Option(
        *("--file", "-f"),
        metavar="F",
        readable=False,
        help="The document; else the daemon's, or the last applied one.",
    ),
]
StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir",
        envvar="TULA_STATE_DIR",
        metavar="D",
        readable=False,
        help="Where state lives.",
    ),
]
RunDir = Annotated[
    Path,
    typer.Option(
        "--run-dir", envvar="TULA_RUN_DIR", metavar="D", readable=False, help="Where sockets live."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Force = Annotated[
    bool, typer.Option("--force", help="Allow a service to take this machine's SSH port.")
]


def fail(status: int, *lines: str) -> NoReturn:
    """Prints the lines to standard error and ends the command."""
    for line in lines:
        print(line, file=sys.stderr)
    raise typer.Exit(status)


@contextmanager
def errors() -> Iterator[None]:
    """Turns what the kernel or the state directory refused into a line and exit status 1."""
    from tula.model.errors import KernelError, StateError

    try:
        yield
    except (KernelError, StateError) as error:
        hint = "" if has_rights() else "; this needs root (CAP_NET_ADMIN and CAP_NET_RAW)"
        fail(FAILED, f"tula: {error}{hint}")


def has_rights() -> bool:
    """Whether it is root, or has what the shipped unit gives: CAP_NET_ADMIN and CAP_NET_RAW."""
    if os.geteuid() == 0:
        return True
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return held >> 12 & 3 == 3


@contextmanager
def problems(file: str, document: Document) -> Iterator[None]:
    """Turns the problems of a document on this machine into lines and exit status 2."""
    from tula.config.load import describe
    from tula.model.problem import ProblemsError

    try:
        yield
    except ProblemsError as error:
        fail(WRONG, *(describe(file, problem, document.positions) for problem in error.problems))


def read_document(file: Path) -> Document:
    """The document of a file; every problem is a line, and exit status 2."""
    from tula.config.load import DocumentError, load_document

    try:
        return load_document(file)
    except DocumentError as error:
        _refuse(str(file), error)


def applied_document(store: Store) -> tuple[str, Document]:
    """The last applied document and the name to call it by; exit status 2 if there is none."""
    from tula.config.load import DocumentError, parse_document
    from tula.engine.store import CLEARED, DOCUMENT

    name = str(store.directory / DOCUMENT)
    with errors():
        source = store.document()
    if source is None:
        aside = store.directory / CLEARED
        hint = f"; it was cleared, the document is in {aside}" if aside.exists() else ""
        fail(WRONG, f"tula: no document is applied here{hint}; name one with -f tula.yaml")
    try:
        return name, parse_document(source)
    except DocumentError as error:  # of another version of Tula, or edited there
        _refuse(name, error)


def _refuse(name: str, error: DocumentError) -> NoReturn:
    from tula.config.load import describe

    fail(WRONG, *(describe(name, problem, error.positions) for problem in error.problems))


def document_of(file: Path | None, store: Store) -> tuple[str, Document]:
    """The named document, else the last applied one, with the name to call it by."""
    return (str(file), read_document(file)) if file is not None else applied_document(store)


def warn(file: str, document: Document) -> None:
    """Prints the document's warnings to standard error."""
    from tula.config.load import describe

    for problem in document.warnings:
        print("warning: " + describe(file, problem, document.positions), file=sys.stderr)


def open_balancer(store: Store) -> Balancer:
    """The balancer of this network namespace."""
    from tula.engine.balancer import Balancer

    return Balancer(kernel_adapters(), store)


def kernel_adapters() -> Adapters:
    """The kernel of this network namespace."""
    from tula.engine import assemble

    return assemble.kernel_adapters()


def open_store(directory: Path) -> Store:
    """The state directory."""
    from tula.engine.store import Store

    return Store(directory)


def duration(text: str, option: str) -> float:
    """The seconds of a time as documents write it: ``90s``, ``10m``, ``1h30m``."""
    from pydantic_core import PydanticCustomError

    from tula.config.scalars import read_duration

    try:
        return read_duration(text)
    except PydanticCustomError as error:
        fail(WRONG, f"tula: {option}: {error.message()}")


def print_json(value: Any) -> None:
    """JSON on standard output."""
    print(json.dumps(value, indent=2))


def print_table(headings: list[str], rows: list[list[str]], right: frozenset[int]) -> None:
    """Aligned columns, the ones in ``right`` to the right; whole lines, for people and scripts.

    Not by Rich, which takes 20 s for the 25,000 lines of 5,000 services.
    """
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
