"""What the commands share: options, input, output and error handling.

Heavy imports are inside functions, so that ``tula --help`` starts at once.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from tula.config.load import ConfigError, LoadedConfig
    from tula.engine.balancer import Balancer
    from tula.engine.reader import Adapters
    from tula.engine.store import Store
    from tula.model.problem import Problem

FAILED, WRONG, DIFFERENT, INTERRUPTED = 1, 2, 3, 130

STATE_DIR = Path("/var/lib/tula")
RUN_DIR = Path("/run/tula")

# Not "readable": a file that cannot be read gets an error of our own, with its path.
_FILE = "Configuration file, or a directory of *.yaml."
File = Annotated[Path, typer.Option("--file", "-f", metavar="F", readable=False, help=_FILE)]
MaybeFile = Annotated[
    Path | None,
    typer.Option(
        *("--file", "-f"),
        metavar="F",
        readable=False,
        help=f"{_FILE} [default: the daemon's, or the last one applied]",
        show_default=False,
    ),
]
StateDir = Annotated[
    Path,
    typer.Option(
        "--state-dir",
        envvar="TULA_STATE_DIR",
        metavar="D",
        readable=False,
        help="Directory for state.",
    ),
]
RunDir = Annotated[
    Path,
    typer.Option(
        "--run-dir",
        envvar="TULA_RUN_DIR",
        metavar="D",
        readable=False,
        help="Directory for sockets.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Do not ask before much is taken out of service."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Allow a service to take this machine's SSH port.")
]


class Ended(typer.Exit):
    """The end of a command that did not do what it was asked for."""

    def __init__(self, status: int, lines: Sequence[str]) -> None:
        super().__init__(status)
        self.lines = tuple(lines)


def fail(status: int, *lines: str) -> NoReturn:
    """Prints the lines to standard error and ends the command."""
    for line in lines:
        print(line, file=sys.stderr)
    raise Ended(status, lines)


def caller() -> str:
    """Who runs this command, for the history."""
    from tula.users import user_name

    return user_name(os.geteuid())


def is_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()


def require_yes(lines: Sequence[str]) -> None:
    """Asks on a terminal whether that is meant; elsewhere, and for any answer but yes, fails."""
    if not is_terminal():
        fail(FAILED, *(f"tula: {line}" for line in lines), "tula: repeat it with --yes to do it")
    for line in lines:
        print(line, file=sys.stderr)
    print("Is that meant? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        fail(FAILED, "tula: nothing was changed")


@contextmanager
def errors() -> Iterator[None]:
    """Turns errors of the kernel and the state directory into a line and exit status 1."""
    from tula.model.errors import KernelError, StateError

    try:
        yield
    except (KernelError, StateError) as error:
        hint = "" if has_rights() else "; this needs root (CAP_NET_ADMIN and CAP_NET_RAW)"
        fail(FAILED, f"tula: {error}{hint}")


def has_rights() -> bool:
    """Whether this is root, or has CAP_NET_ADMIN and CAP_NET_RAW, as in the shipped unit."""
    if os.geteuid() == 0:
        return True
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    return held >> 12 & 3 == 3


@contextmanager
def problems(file: str, configuration: LoadedConfig) -> Iterator[None]:
    """Turns problems of a configuration on this machine into lines and exit status 2."""
    from tula.config.load import describe
    from tula.model.problem import ProblemsError

    try:
        yield
    except ProblemsError as error:
        fail(
            WRONG, *(describe(file, problem, configuration.positions) for problem in error.problems)
        )


def read_config(file: Path) -> LoadedConfig:
    """Load a configuration file; problems are printed, one a line, with exit status 2."""
    from tula.config.load import ConfigError, load_config

    try:
        return load_config(file)
    except ConfigError as error:
        _refuse(str(file), error)


def parse(name: str, text: str) -> LoadedConfig:
    """A configuration that came from elsewhere; problems are printed, with exit status 1: it is no
    input of this user's."""
    from tula.config.load import ConfigError, describe, parse_config

    try:
        return parse_config(text.encode())
    except ConfigError as error:
        hint = "tula: this version of Tula does not read the balancer's configuration"
        fail(FAILED, *(describe(name, p, error.positions) for p in error.problems), hint)


def applied_config(store: Store) -> tuple[str, LoadedConfig]:
    """The last applied configuration with its path for messages; exit status 2 if there is none."""
    from tula.config.load import ConfigError, parse_config
    from tula.engine.store import CLEARED, CONFIGURATION

    name = str(store.directory / CONFIGURATION)
    with errors():
        source = store.configuration()
    if source is None:
        aside = store.directory / CLEARED
        hint = f"; it was cleared, and is kept in {aside}" if aside.exists() else ""
        fail(
            WRONG, f"tula: no configuration has been applied here{hint}; name one with -f tula.yaml"
        )
    try:
        return name, parse_config(source)
    except ConfigError as error:  # by another version of Tula, or edited in place
        _refuse(name, error)


def _refuse(name: str, error: ConfigError) -> NoReturn:
    from tula.config.load import describe

    fail(WRONG, *(describe(name, problem, error.positions) for problem in error.problems))


def config_of(file: Path | None, store: Store) -> tuple[str, LoadedConfig]:
    """The configuration of this file, or the last applied one, with its path for messages."""
    return (str(file), read_config(file)) if file is not None else applied_config(store)


def warn(file: str, configuration: LoadedConfig, problems: Iterable[Problem] | None = None) -> None:
    """Prints warnings about a configuration to standard error: its own, or these."""
    from tula.config.load import describe

    for problem in configuration.warnings if problems is None else problems:
        print("warning: " + describe(file, problem, configuration.positions), file=sys.stderr)


def open_balancer(store: Store, run_dir: Path | None = None) -> Balancer:
    """The balancer of this network namespace."""
    from tula.engine.balancer import Balancer

    return Balancer(kernel_adapters(run_dir), store)


def kernel_adapters(run_dir: Path | None = None) -> Adapters:
    """The kernel of this network namespace. The run directory is that of the environment where a
    command has no option for it."""
    from tula.engine import assemble

    return assemble.kernel_adapters(run_dir or Path(os.environ.get("TULA_RUN_DIR") or RUN_DIR))


def adapters_of(run_dir: Path) -> Callable[[], Adapters]:
    """``kernel_adapters`` for a process that it is sent to by its name."""
    from functools import partial

    return partial(kernel_adapters, run_dir)


def open_store(directory: Path) -> Store:
    """The state directory."""
    from tula.engine.store import Store

    return Store(directory)


def duration(text: str, option: str) -> float:
    """A time in seconds, written as in configurations: ``90s``, ``10m``, ``1h30m``."""
    from pydantic_core import PydanticCustomError

    from tula.config.scalars import read_duration

    try:
        return read_duration(text)
    except PydanticCustomError as error:
        fail(WRONG, f"tula: {option}: {error.message()}")


def print_json(value: Any) -> None:
    """Print JSON on standard output."""
    print(json.dumps(value, indent=2))


def print_table(headings: list[str], rows: list[list[str]], right: frozenset[int]) -> None:
    """Print aligned columns, those in ``right`` right-aligned; lines are never wrapped.

    Not with Rich, which takes 20 s for the 25,000 lines of 5,000 services.
    """
    table = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
