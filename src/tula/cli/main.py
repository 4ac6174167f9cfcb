"""The ``tula`` command."""

from __future__ import annotations

import errno
import gc
import os
import sys
from typing import Annotated, NoReturn

import typer

from tula.cli import (
    accepted,
    audit,
    backend,
    change,
    check,
    context,
    doctor,
    events,
    lab,
    notify,
    operate,
    peer,
    persistence,
    run,
    show,
    standby,
    token,
    version,
)
from tula.cli.remote import asks_daemon, here_only, names_server

app = typer.Typer(
    name="tula",
    help="Layer-4 load balancer with Direct Server Return, forwarding in the kernel with nftables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Without markup typer does not import Rich, and --help starts in a tenth of a second.
    rich_markup_mode=None,
)


_UNWRITABLE = frozenset({errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF})


def _version(wanted: bool) -> None:
    if wanted:
        from tula.version import __version__

        print(f"tula {__version__}")
        raise typer.Exit


@app.callback()
@names_server
def root(
    print_version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Layer-4 load balancer with Direct Server Return, forwarding in the kernel with nftables."""


for command in (
    here_only(check.check),
    asks_daemon(change.plan),
    asks_daemon(change.apply),
    here_only(run.run),
    asks_daemon(change.reload),
    asks_daemon(accepted.confirm),
    asks_daemon(accepted.configuration),
    asks_daemon(accepted.history),
    asks_daemon(accepted.diff),
    asks_daemon(accepted.rollback),
    asks_daemon(show.status),
    asks_daemon(show.trace),
    asks_daemon(events.events),
    asks_daemon(audit.audit),
    here_only(doctor.doctor),
    asks_daemon(operate.drain),
    asks_daemon(operate.undrain),
    asks_daemon(operate.disable),
    asks_daemon(operate.enable),
    asks_daemon(operate.weight),
    asks_daemon(standby.standby),
    asks_daemon(standby.active),
    here_only(change.clear),
    here_only(check.schema),
    asks_daemon(version.version),
):
    app.command()(command)
app.add_typer(token.app)
app.add_typer(peer.app)
app.add_typer(persistence.app)
app.add_typer(notify.app)
app.add_typer(backend.app)
app.add_typer(context.app)
app.add_typer(lab.app)


def main() -> None:
    """Entry point of the console script and of ``python -m tula``."""
    # A large configuration is a million objects that stay: at the usual first threshold of 700
    # the collector walks them over and over, for a quarter of the time of ``plan``.
    gc.set_threshold(50_000, 10, 10)
    if "JOURNAL_STREAM" in os.environ:
        from tula.daemon.journal import mark_errors

        mark_errors()
    try:
        app()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _give_up_output(error)
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            _give_up_output(error)


def _give_up_output(error: OSError) -> NoReturn:
    """Ends the command whose output nobody takes: a pipe that was closed needs no words."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:
        print(f"tula: standard output: {error.strerror}", file=sys.stderr)
    sys.exit(1)
