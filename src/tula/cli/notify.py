"""``tula notify``: who is told when something changes."""

from __future__ import annotations

import typer

from tula.cli.common import FAILED, RUN_DIR, STATE_DIR, Json, RunDir, StateDir, fail, print_json
from tula.cli.daemon import daemon_errors, daemon_of
from tula.cli.remote import asks_daemon

app = typer.Typer(
    name="notify",
    help="Who is told when something changes: notify in the configuration.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def group() -> None:
    """Who is told when something changes: notify in the configuration."""
    # With one command alone, typer would leave its name out.


@app.command("test")
@asks_daemon
def send_test(
    as_json: Json = False, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR
) -> None:
    """Send each receiver a test message, and print what became of it.

    Exit status 1 if one did not take it.
    """
    daemon = daemon_of(run_dir, state_dir)
    if daemon is None:
        fail(FAILED, "tula: no daemon runs, and it is what sends notifications; start it: tula run")
    with daemon_errors():
        results = daemon.send("POST", "/notify/test")["results"]
    if as_json:
        print_json({"results": results})
    elif not results:
        print("nobody is notified; give notify in the configuration")
    for each in () if as_json else results:
        took = f"in {each['seconds']:.1f} s"
        told = f"sent {took}" if each["sent"] else f"FAILED {took}: {each['error']}"
        print(f"{each['receiver']}: {told}")
    if not all(each["sent"] for each in results):
        raise typer.Exit(FAILED)
