"""``tula run``: the daemon."""

from __future__ import annotations

from typing import Annotated

import typer

from tula.cli.common import (
    FAILED,
    RUN_DIR,
    STATE_DIR,
    File,
    Force,
    RunDir,
    StateDir,
    adapters_of,
    duration,
    errors,
    fail,
)


def run(
    file: File,
    watch: Annotated[
        bool, typer.Option("--watch", help="Take the file's configuration whenever it changes.")
    ] = False,
    force: Force = False,
    clear_on_exit: Annotated[
        bool,
        typer.Option(
            "--clear-on-exit", help="Remove everything from the kernel when the daemon ends."
        ),
    ] = False,
    socket_group: Annotated[
        str | None,
        typer.Option("--socket-group", metavar="G", help="A group that may control the daemon."),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval",
            metavar="TIME",
            help="Compare the whole kernel state this often, such as 30s.",
        ),
    ] = None,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Run the daemon: health checks, reconciliation and the API, until it is stopped.

    It runs the accepted configuration, at first the file's; later changes of the file are taken by
    tula apply, tula reload and SIGHUP. SIGTERM ends the daemon, and traffic goes on.
    """
    seconds = None if interval is None else duration(interval, "--interval")
    from tula.api.server import ServeError, serve
    from tula.daemon.run import run as run_daemon

    try:
        with errors():
            status = run_daemon(
                file,
                state_dir,
                run_dir,
                adapters_of(run_dir),
                serve=serve,
                watch=watch,
                force=force,
                clear_on_exit=clear_on_exit,
                socket_group=socket_group,
                interval=seconds,
            )
    except ServeError as error:
        fail(FAILED, f"tula: {error}")
    raise typer.Exit(status)
