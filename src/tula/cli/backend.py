"""``tula backend``: the other side, machines that serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    DIFFERENT,
    STATE_DIR,
    WRONG,
    Json,
    StateDir,
    errors,
    fail,
    print_json,
    print_table,
    read_document,
    warn,
)
from tula.cli.instructions import instructions

if TYPE_CHECKING:
    from tula.agent.agent import Agent, Plan
    from tula.agent.plan import Role
    from tula.agent.record import Record
    from tula.model.config import IPAddress

app = typer.Typer(
    name="backend",
    help="Make machines into backends, for services of a document.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Files = Annotated[
    list[Path] | None,
    typer.Option(
        *("--file", "-f"),
        metavar="F",
        readable=False,
        help="The document, tula.yaml; several for a backend of several. "
        "Without: those that were joined last.",
    ),
]
_As = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help="Be this backend, whatever this machine's addresses."
    ),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the commands, and run none.")]


@app.callback()
def root() -> None:
    """Make machines into backends, for services of a document."""


@app.command()
def join(
    file: _Files = None,
    as_: _As = None,
    dry_run: _DryRun = False,
    persist: Annotated[
        bool | None,
        typer.Option(
            "--persist/--no-persist",
            help="Join again after a reboot, by a systemd unit. "
            "[default: in the machine's own network namespace under systemd]",
            show_default=False,
        ),
    ] = None,
    state_dir: StateDir = STATE_DIR,
    json: Json = False,
) -> None:
    """Make this machine a backend of the document; again, and only what differs is changed."""
    from tula.agent.unit import own_namespace

    own = own_namespace()
    if persist and not own:
        fail(
            WRONG,
            "tula: --persist: a unit of systemd would join in the machine's own network "
            "namespace, and this is not it (or there is no systemd)",
        )
    persist = own if persist is None else persist
    agent = _agent(state_dir)
    with errors(), _fitting():
        record, roles = _roles(agent, file, as_)
        plan = agent.plan(roles, persist) if dry_run else agent.join(roles, record, persist)
    names = sorted({backend.name for role in roles for _, backend in role.serves})
    if json:
        print_json({"backends": names, "changed": bool(plan), "steps": _steps(plan)})
    elif dry_run:
        _print_commands(plan)
    else:
        _print_steps(plan)
        more = "; it will be one again after a reboot" if persist else ""
        print(f"This machine is {' and '.join(names)}{more}.")


@app.command()
def leave(dry_run: _DryRun = False, state_dir: StateDir = STATE_DIR, json: Json = False) -> None:
    """Take back all that join did on this machine, and put sysctls back as they were."""
    agent = _agent(state_dir)
    with errors():
        record = agent.record()
        if record is None:
            if json:
                print_json({"changed": False, "steps": []})
            else:
                print("Nothing to take back: this machine has joined nothing.")
            return
        plan = agent.plan_leave(record) if dry_run else agent.leave()
    if json:
        print_json({"changed": bool(plan), "steps": _steps(plan)})
    elif dry_run:
        _print_commands(plan)
    else:
        _print_steps(plan, unit="remove")
        print("This machine is no backend any more.")


@app.command()
def status(
    file: _Files = None,
    as_: _As = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 when something is not in place.")
    ] = False,
    state_dir: StateDir = STATE_DIR,
    json: Json = False,
) -> None:
    """Show what of this machine's backend's side is in place, and what is missing."""
    from tula.agent.status import parts_of

    agent = _agent(state_dir)
    with errors(), _fitting():
        joined = agent.record() is not None
        if not joined and not file:
            print_json({"joined": False, "backends": [], "parts": []}) if json else print(
                "This machine has joined nothing; -f tula.yaml tells what it lacks."
            )
            return
        _, roles = _roles(agent, file, as_)
        plan = agent.plan(roles)
    parts = parts_of(plan.want, plan.steps)
    names = sorted({backend.name for role in roles for _, backend in role.serves})
    if json:
        shown = [
            {"what": p.what, "name": p.name, "state": p.fault or "in place", "ok": not p.fault}
            for p in parts
        ]
        print_json({"joined": joined, "backends": names, "parts": shown})
    else:
        print(f"{' and '.join(names)}{'' if joined else ', not joined'}:")
        print_table(
            ["", "what", "name", "state"],
            [["!" if p.fault else "", p.what, p.name, p.fault or "in place"] for p in parts],
            frozenset(),
        )
    if exit_code and any(part.fault for part in parts):
        raise typer.Exit(DIFFERENT)


app.command()(instructions)


def _agent(state_dir: Path) -> Agent:
    from tula.agent.agent import Agent
    from tula.agent.record import RecordFile
    from tula.agent.unit import Unit, own_namespace
    from tula.kernel.backend_host import KernelBackendHost

    unit = Unit(state_dir) if own_namespace() else None
    return Agent(KernelBackendHost(), RecordFile(state_dir), unit)


@contextmanager
def _fitting() -> Iterator[None]:
    """Turns a document that does not fit this machine into a line and exit status 2."""
    from tula.agent.agent import NotFitError
    from tula.agent.identity import NotFoundError

    try:
        yield
    except (NotFitError, NotFoundError) as error:
        fail(WRONG, f"tula: {error}")


def _roles(
    agent: Agent, files: list[Path] | None, name: str | None
) -> tuple[Record, Sequence[Role]]:
    """What is to be joined, by the files or as it was joined last."""
    from tula.agent.identity import find_role, roles_of
    from tula.agent.record import Record, Source

    here = _own_addresses()
    if not files:
        record = agent.record()
        if record is None or not record.sources:
            fail(WRONG, "tula: this machine has joined nothing yet; name a document with -f")
        return record, roles_of(record, here)
    sources, roles = [], []
    for file in files:
        document = read_document(file)
        warn(str(file), document)
        roles.append(find_role(str(file), document.config, here, name))
        sources.append(Source(str(file.absolute()), document.source, name))
    return Record(tuple(sources), addresses=tuple(sorted(map(str, here)))), roles


def _own_addresses() -> set[IPAddress]:
    """Without those of loopback, and VIPs that are here already."""
    from tula.kernel.network import KernelNetwork

    return {
        held.address.ip
        for held in KernelNetwork().view(()).addresses
        if held.interface != "lo" and not held.interface.startswith("tula-")
    }


def _steps(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "verb": step.verb,
            "what": step.what,
            "name": step.name,
            "fault": step.fault,
            "commands": [str(command) for command in step.commands],
        }
        for step in plan.steps
    ]


def _print_commands(plan: Plan) -> None:
    for step in plan.steps:
        print(f"# {step.verb} {step.what} {step.name}" + (f": {step.fault}" * bool(step.fault)))
        for command in step.commands:
            print(command)
    if plan.unit:
        print("# and the systemd unit tula-backend.service")
    if not plan:
        print("# Nothing to do.")


def _print_steps(plan: Plan, unit: str = "add") -> None:
    if not plan:
        print("Nothing changed.")
        return
    for step in plan.steps:
        print(f"{step.verb:8}{step.what:9} {step.name}")
    if plan.unit:
        print(f"{unit:8}unit      tula-backend.service")
