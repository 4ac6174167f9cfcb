"""The ``tula`` command."""

from __future__ import annotations

import gc
import os
from typing import Annotated

import typer

from tula.cli import backend, change, check, doctor, events, lab, operate, run, show

app = typer.Typer(
    name="tula",
    help="Layer-4 load balancer with Direct Server Return, forwarding in the kernel with nftables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Without markup typer does not import Rich, and --help starts in a tenth of a second.
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from tula.version import __version__

        print(f"tula {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Layer-4 load balancer with Direct Server Return, forwarding in the kernel with nftables."""


for command in (
    check.check,
    change.plan,
    change.apply,
    run.run,
    change.reload,
    show.status,
    show.trace,
    events.events,
    doctor.doctor,
    operate.drain,
    operate.undrain,
    operate.disable,
    operate.enable,
    operate.weight,
    change.clear,
    check.schema,
):
    app.command()(command)
app.add_typer(backend.app)
app.add_typer(lab.app)


def main() -> None:
    """Entry point of the console script and of ``python -m tula``."""
    # A large configuration is a million objects that stay: at the usual first threshold of 700
    # the collector walks them over and over, for a quarter of the time of ``plan``.
    gc.set_threshold(50_000, 10, 10)
    if "JOURNAL_STREAM" in os.environ:
        from tula.daemon.journal import mark_errors

        mark_errors()
    app()
