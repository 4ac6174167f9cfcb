"""``tula lab``: a network of namespaces on this machine, for demo and experiments."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tula.cli.common import FAILED, INTERRUPTED, WRONG, fail
from tula.cli.remote import here_only
from tula.model.wording import counted

app = typer.Typer(
    name="lab",
    help="A network of namespaces on this machine, for demo and experiments.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
@here_only
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the network up, and suggest what to try.")
    ] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Do not pause for reading.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Plain lines of text, as without a terminal.")
    ] = False,
    pair: Annotated[
        bool,
        typer.Option("--pair", help="Several balancers instead: one of them dies, nothing breaks."),
    ] = False,
) -> None:
    """Show Direct Server Return with real traffic, in a minute."""
    if pair and keep:
        fail(WRONG, "tula: --keep and --pair do not go together: the networks of --pair go")
    with _errors():
        from tula.lab.demo.run import run_demo, run_pair_demo

        broken = run_pair_demo(plain, fast) if pair else run_demo(keep, plain, fast)
    if broken:
        fail(FAILED, *(f"tula: did not hold: {claim}" for claim in broken))


@app.command()
@here_only
def up() -> None:
    """Bring up the demo's network, with the balancer configured, until Ctrl-C."""
    with _errors():
        from tula.lab.demo.run import run_up

        run_up()


@app.command()
@here_only
def down() -> None:
    """Remove the network that "tula lab demo --keep" left up."""
    with _errors():
        from tula.lab.demo.stage import NAME
        from tula.lab.guard import require_root
        from tula.lab.kept import exists, remove_named

        require_root()
        found = exists(NAME)
        removed = remove_named(NAME)
    print(f"removed {counted(len(removed), 'namespace')}" if found else "nothing to remove")


@app.command(context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True})
@here_only
def exec(
    host: Annotated[
        str, typer.Argument(metavar="HOST", help="For example lb, client-1 or backend-2.")
    ],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...")],
) -> None:
    """Run a command on a host of the running demo network."""
    with _errors():
        from tula.lab.demo.stage import NAME
        from tula.lab.guard import LabError
        from tula.lab.kept import directory, exists
        from tula.lab.namespace import NAMED, Namespace

        if not exists(NAME):
            from tula.lab.demo.run import program

            raise LabError(f"no demo network is up; start one: {program()} lab up")
        inside = Namespace.open(NAMED / f"{NAME}-{host}")
        state = directory(NAME) / host
        os.environ["TULA_STATE_DIR"] = str(state / "state")
        os.environ["TULA_RUN_DIR"] = str(state / "run")
        # tula itself, from where it was called, and root's tools.
        places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
        os.environ["PATH"] = ":".join([*places, "/usr/sbin", "/sbin"])
        with inside.enter():
            try:
                os.execvp(command[0], command)
            except OSError as error:
                raise LabError(f"{command[0]}: {error.strerror}") from None


@contextmanager
def _errors() -> Iterator[None]:
    """Turns errors of the lab into a line, and Ctrl-C into exit status 130."""
    try:
        from tula.lab.guard import LabError
    except ModuleNotFoundError:
        # A Debian package of its own: the lab and what it draws with is not needed to balance.
        fail(FAILED, "tula: the lab is in another package: apt install tula-lab")

    try:
        yield
    except LabError as error:
        fail(FAILED, f"tula: {error}")
    except OSError as error:
        hint = ""
        if isinstance(error, PermissionError):
            hint = "; it needs CAP_SYS_ADMIN and CAP_NET_ADMIN, which root in a container may lack"
        fail(FAILED, f"tula: the lab: {error.strerror or error}{hint}")
    except KeyboardInterrupt:
        fail(INTERRUPTED, "tula: interrupted; the network is removed")
