"""``tula context``: the balancers that the contexts file names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from tula.cli.common import FAILED, WRONG, Json, fail, print_json, print_table
from tula.cli.remote import here_only

app = typer.Typer(
    name="context",
    help="The balancers that contexts.yaml names, for --context.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
@here_only
def list_contexts(json: Json = False) -> None:
    """Show the balancers that the contexts file names; * marks the default."""
    from tula.cli.contexts import contexts_path, read_contexts

    with _errors():
        found = read_contexts(contexts_path())
    if json:
        print_json(
            {
                "file": str(found.path),
                "default": found.default,
                "contexts": [
                    {
                        "name": name,
                        "server": context.server,
                        "token_file": str(context.token_file) if context.token_file else None,
                    }
                    for name, context in found.of.items()
                ],
            }
        )
    elif not found.of:
        print(f"no contexts: {found.path} does not name any")
    else:
        rows = [
            [
                *("*" if name == found.default else "", name, context.server),
                str(context.token_file or "-"),
            ]
            for name, context in found.of.items()
        ]
        print_table(["", "NAME", "SERVER", "TOKEN FILE"], rows, frozenset())


@app.command()
@here_only
def use(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A context; local for this machine's own daemon.")
    ],
) -> None:
    """Make a context the default of all commands that ask the daemon."""
    from tula.cli.contexts import HERE, contexts_path, read_contexts, with_default
    from tula.cli.token_file import WrongError
    from tula.kernel.directory import Directory

    path = contexts_path()
    with _errors():
        found = read_contexts(path)
        if name != HERE:
            found.find(name, "tula context use")
        elif not path.exists():
            raise WrongError(f"there is no {path}, so this machine's own daemon is asked already")
    try:
        file = path.resolve()  # where a link leads, such as to somebody's collection of settings
        text = with_default(file.read_text(), name).encode()
        Directory(file.parent).write(file.name, text, file.stat().st_mode & 0o777)
    except OSError as error:
        fail(FAILED, f"tula: {path}: {error.strerror or error}")
    print(f"{name} is the default now")


@contextmanager
def _errors() -> Iterator[None]:
    from tula.cli.token_file import WrongError

    try:
        yield
    except WrongError as error:
        fail(WRONG, f"tula: {error}")
