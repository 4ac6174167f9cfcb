"""``tula lab``: a network of namespaces on this machine, to try and to test in."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tula.cli.common import FAILED, INTERRUPTED, fail

app = typer.Typer(
    name="lab",
    help="A network of namespaces on this machine, to try and to test in.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it up, and say what to try.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Without pauses to read.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines only, as without a terminal.")
    ] = False,
) -> None:
    """Show Direct Server Return on real traffic, in a minute."""
    with _errors():
        from tula.lab.demo.run import run_demo

        broken = run_demo(keep, plain, fast)
    if broken:
        fail(FAILED, *(f"tula: did not hold: {claim}" for claim in broken))


@app.command()
def up() -> None:
    """Bring the demo's network up, balancer configured, until Ctrl-C."""
    with _errors():
        from tula.lab.demo.run import run_up

        run_up()


@app.command()
def down() -> None:
    """Remove what "tula lab demo --keep" left."""
    with _errors():
        from tula.lab.demo.stage import NAME
        from tula.lab.guard import require_root
        from tula.lab.kept import exists, remove_named

        require_root()
        found = exists(NAME)
        removed = remove_named(NAME)
    print(f"removed {len(removed)} namespaces" if found else "nothing to remove")


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
def exec(
    host: Annotated[str, typer.Argument(metavar="HOST", help="Such as lb, client-1 or backend-2.")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...")],
) -> None:
    """Run a command on a host of the demo's network that is up."""
    with _errors():
        from tula.lab.demo.hints import program
        from tula.lab.demo.stage import NAME
        from tula.lab.guard import LabError
        from tula.lab.kept import directory, exists
        from tula.lab.namespace import NAMED, Namespace

        if not exists(NAME):
            raise LabError(f"no demo network is up; bring one up: {program()} lab up")
        inside = Namespace.open(NAMED / f"{NAME}-{host}")
        state = directory(NAME) / host
        os.environ["TULA_STATE_DIR"] = str(state / "state")
        os.environ["TULA_RUN_DIR"] = str(state / "run")
        # tula itself, from wherever it was called, and the tools of root.
        places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        os.environ["PATH"] = ":".join([*places, "/usr/sbin", "/sbin"])
        with inside.enter():
            try:
                os.execvp(command[0], command)
            except OSError as error:
                raise LabError(f"{command[0]}: {error.strerror}") from None


@contextmanager
def _errors() -> Iterator[None]:
    """Turns what goes wrong in the lab into a line, and Ctrl-C into a quiet end."""
    from tula.lab.guard import LabError

    try:
        yield
    except LabError as error:
        fail(FAILED, f"tula: {error}")
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = "; it needs CAP_SYS_ADMIN and CAP_NET_ADMIN, which a container's root may lack"
        fail(FAILED, f"tula: the lab: {error.strerror or error}{hint}")
    except KeyboardInterrupt:
        fail(INTERRUPTED, "tula: stopped; all of it is removed")
