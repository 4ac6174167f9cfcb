"""``tula persistence``: the clients that services remember, and to have them forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.audit import audited
from tula.cli.common import (
    RUN_DIR,
    STATE_DIR,
    WRONG,
    Json,
    RunDir,
    StateDir,
    applied_config,
    errors,
    fail,
    open_balancer,
    open_store,
    print_json,
    print_table,
    require_yes,
)
from tula.cli.completion import complete_services
from tula.cli.daemon import daemon_errors, daemon_of, insist
from tula.cli.remote import asks_daemon

if TYPE_CHECKING:
    from tula.model.config import IPAddress

app = typer.Typer(
    name="persistence",
    help="Clients that services remember, each with its backend.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_USUAL, _MOST = 1000, 10_000
"""As in ``tula.engine.persistent_clients``, which is too heavy for --help."""


@app.command(name="list")
@asks_daemon
def list_clients(
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE",
            help="One service, and those that share its scope.",
            autocompletion=complete_services,
        ),
    ] = None,
    client: Annotated[
        str | None, typer.Option("--client", metavar="ADDR", help="One client.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "-n", "--limit", min=1, max=_MOST, metavar="N", help="Clients of each scope at most."
        ),
    ] = _USUAL,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show the clients that services remember, with their backends and the time that is left.

    A client without an entry chooses a backend by its service's scheduler.
    """
    address = _address(client)
    daemon = daemon_of(run_dir)
    if daemon is not None:
        with daemon_errors():
            answer = daemon.get("/persistence", service=service, client=address, limit=limit)
    else:
        answer = _list_here(state_dir, run_dir, service, address, limit)
    if json:
        print_json(answer)
    else:
        _print(answer, limit)


@app.command()
@asks_daemon
def clear(
    client: Annotated[
        str | None, typer.Argument(metavar="[CLIENT]", help="A client's address.")
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            "--service",
            metavar="S",
            help="Only what this service and those that share its scope remember.",
            autocompletion=complete_services,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before all clients are forgotten.")
    ] = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Forget a client, or all clients: their next connections choose a backend again.

    Connections that exist go on where they are.
    """
    from tula.engine.persistent_clients import cleared_text

    address = _address(client)
    daemon = daemon_of(run_dir, state_dir)
    if daemon is not None:
        with daemon_errors():
            answer = insist(
                lambda sure: daemon.delete(
                    "/persistence", service=service, client=address, force=sure or None
                ),
                yes,
            )
    else:
        answer = _clear_here(state_dir, run_dir, service, address, yes)
    if json:
        print_json(answer)
    else:
        print(cleared_text(answer))


def _address(text: str | None) -> IPAddress | None:
    if text is None:
        return None
    from tula.engine.persistent_clients import read_client

    try:
        return read_client(text)
    except ValueError as error:
        fail(WRONG, f"tula: {error}")


def _list_here(
    state_dir: Path, run_dir: Path, service: str | None, client: IPAddress | None, limit: int
) -> dict[str, Any]:
    """Without a daemon: what the kernel holds for the last applied configuration."""
    from tula.engine.persistent_clients import describe_clients

    store, config, scopes = _here(state_dir, service)
    with errors():
        found = open_balancer(store, run_dir).clients(scopes, client, limit)
    return describe_clients(config, found)


def _clear_here(
    state_dir: Path, run_dir: Path, service: str | None, client: IPAddress | None, yes: bool
) -> dict[str, Any]:
    from tula.engine.persistent_clients import Cleared, describe_cleared, forgets_all

    store, _, scopes = _here(state_dir, service)
    if client is None and not yes and scopes:
        require_yes((forgets_all(scopes),))
    asked = {"service": service, "client": None if client is None else str(client)}
    with audited(state_dir, "clear_persistence", details=asked), errors():
        balancer = open_balancer(store, run_dir)
        with store.locked():
            count = balancer.forget_clients(scopes, client)
    return describe_cleared(Cleared(count, scopes), client, dry=False)


def _here(state_dir: Path, service: str | None) -> tuple[Any, Any, Any]:
    """The state directory, the last applied configuration, and the scopes that are meant."""
    from tula.engine.persistent_clients import NoPersistenceError, chosen_scopes

    store = open_store(state_dir)
    _, configuration = applied_config(store)
    try:
        return store, configuration.config, chosen_scopes(configuration.config, service)
    except NoPersistenceError as error:
        fail(WRONG, f"tula: {error}")


def _print(answer: dict[str, Any], limit: int) -> None:
    from tula.engine.persistent_clients import client_text
    from tula.plan.persistent_clients import time_left

    clients = answer["clients"]
    if not clients:
        print("no clients are remembered")
        return
    rows = [
        [
            entry["scope"],
            client_text(entry),
            entry["backend"] or "(gone)",
            entry["address"] or "",
            time_left(entry["seconds"]),
        ]
        for entry in clients
    ]
    print_table(["SCOPE", "CLIENT", "BACKEND", "ADDRESS", "LEFT"], rows, frozenset())
    if not answer["complete"]:
        print(f"there are more: at most {limit} of each scope are shown; -n shows up to {_MOST}")
