"""``tula plan``, ``tula apply`` and ``tula clear``: what changes the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    DIFFERENT,
    RUN_DIR,
    STATE_DIR,
    Force,
    Json,
    MaybeFile,
    RunDir,
    StateDir,
    document_of,
    errors,
    open_balancer,
    open_store,
    print_json,
    problems,
    warn,
)

if TYPE_CHECKING:
    from tula.daemon.balancer import Change

_SIGNS = {"add": "+", "change": "~", "remove": "-"}


def plan(
    file: MaybeFile = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 when apply would change something.")
    ] = False,
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show what apply would change in the kernel; change nothing."""
    store = open_store(state_dir)
    name, document = document_of(file, store)
    warn(name, document)
    with errors(), problems(name, document):
        change = open_balancer(store).plan(document.config, document.source.encode(), force=force)
    _show(change, json, "nothing to change")
    if change and exit_code:
        raise typer.Exit(DIFFERENT)


def apply(
    file: MaybeFile = None,
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Bring the kernel to the document in one atomic step, without a daemon."""
    store = open_store(state_dir)
    name, document = document_of(file, store)
    warn(name, document)
    with errors(), problems(name, document):
        change = open_balancer(store).apply(document.config, document.source.encode(), force=force)
    _show(change, json, "nothing changed")


def clear(
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Remove from the kernel all that tula made, and nothing else."""
    with errors():
        change = open_balancer(open_store(state_dir)).clear()
    _show(change, json, "nothing to remove")


def _show(change: Change, as_json: bool, nothing: str) -> None:
    steps = _steps(change)
    if as_json:
        print_json({"changed": bool(change), "steps": steps})
    elif not change:
        print(nothing)
    else:
        for step in steps:
            line = f"{_SIGNS[step['verb']]} {step['what']} {step['name']}"
            print(f"{line}  ({step['detail']})" if step["detail"] else line)


def _steps(change: Change) -> list[dict[str, Any]]:
    from tula.cli.tunnel_steps import tunnel_steps
    from tula.dataplane.nft.describe import describe_transaction

    def address(verb: str, owned: Any) -> dict[str, Any]:
        name, where = str(owned.address), f"on {owned.interface}"
        return {"verb": verb, "what": "address", "name": name, "detail": where}

    steps = tunnel_steps(change, before=True)
    steps += [address("add", owned) for owned in change.add]
    steps += [
        {"verb": d.verb, "what": d.what, "name": d.name, "detail": d.detail}
        for d in describe_transaction(change.transaction)
    ]
    steps += [address("remove", owned) for owned in change.remove]
    return steps + tunnel_steps(change, before=False)
