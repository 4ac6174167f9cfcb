"""All commands of the command line, and how each is called to compare its two ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import typer

from tula.cli.main import app
from tula.cli.remote import Where, where_of


def all_commands(
    at: typer.Typer = app, before: str = ""
) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Each command's words and its function."""
    for command in at.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        yield f"{before}{name}", command.callback
    for group in at.registered_groups:
        assert group.typer_instance is not None
        yield from all_commands(group.typer_instance, f"{before}{group.typer_instance.info.name} ")


DECIDED = dict(all_commands())
REMOTE = sorted(name for name, command in DECIDED.items() if where_of(command) is Where.DAEMON)
"""What can ask a daemon on another machine."""
HERE = sorted(name for name, command in DECIDED.items() if where_of(command) is Where.HERE)
"""What works on the machine that it runs on."""
