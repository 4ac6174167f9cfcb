"""``tula backend``: commands for the machines that serve."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

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
    read_config,
    warn,
)
from tula.cli.instructions import instructions
from tula.cli.remote import chosen_server, here_only, may_ask_server

if TYPE_CHECKING:
    from tula.agent.agent import Agent, Plan
    from tula.agent.plan import Role
    from tula.agent.record import Record
    from tula.cli.server import Server
    from tula.model.config import IPAddress

app = typer.Typer(
    name="backend",
    help="Set this machine up as a backend, or undo that.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Files = Annotated[
    list[Path] | None,
    typer.Option(
        *("--file", "-f"),
        metavar="F",
        readable=False,
        help="Configuration file; repeat it for a backend of several. [default: those joined last]",
        show_default=False,
    ),
]
_As = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="NAME", help="Be this backend; this machine must have its address."
    ),
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the commands without running them.")
]


@app.callback()
def root() -> None:
    """Set this machine up as a backend, or undo that."""


@app.command()
@may_ask_server
def join(
    file: _Files = None,
    as_: _As = None,
    dry_run: _DryRun = False,
    persist: Annotated[
        bool | None,
        typer.Option(
            "--persist/--no-persist",
            help="Join again after a reboot, with a systemd unit. "
            "[default: persist under systemd, outside of containers and namespaces]",
            show_default=False,
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Stay, and put back what others take. The systemd unit does."),
    ] = False,
    state_dir: StateDir = STATE_DIR,
    json: Json = False,
) -> None:
    """Make this machine a backend of the configuration. Can be repeated: changes what differs.

    With --server, of the configuration that runs on that balancer, by the backend's token.
    """
    from tula.agent.unit import own_namespace

    if watch and (dry_run or json):
        fail(WRONG, "tula: --watch goes with neither --dry-run nor --json")
    own = own_namespace()
    if persist and not own:
        fail(
            WRONG,
            "tula: --persist: a systemd unit would join in the machine's own network namespace, "
            "but this is another one, or systemd is not running; use --no-persist",
        )
    persist = own if persist is None else persist
    agent = _agent(state_dir)
    with errors(), _join_errors():
        server = chosen_server()
        if server is None:
            record, roles = _roles(agent, file, as_)
        else:
            record, roles = _roles_by(server, file, as_)
        plan = agent.plan(roles, persist) if dry_run else agent.join(roles, record, persist)
    names = sorted({backend.name for role in roles for _, backend in role.serves})
    if json:
        print_json({"backends": names, "changed": bool(plan), "steps": _steps(plan)})
    elif dry_run:
        _print_commands(plan)
    else:
        _print_steps(plan)
        more = ", also after a reboot" if persist else ""
        what = "backend" if len(names) == 1 else "backends"
        print(f"This machine is the {what} {' and '.join(names)}{more}.", flush=True)
    if watch:
        _watch(agent)


def _watch(agent: Agent) -> None:
    """Repairs until this machine leaves, or the process is ended: at any moment, unharmed."""
    import os

    from tula.agent.identity import roles_of
    from tula.agent.watch import Severity, Watch
    from tula.daemon.systemd import READY, notify
    from tula.kernel.events import KernelEvents

    def tell(severity: Severity, text: str) -> None:
        # The journal reads the severity from the line (sd-daemon(3)).
        prefix = f"<{severity.value}>" if "JOURNAL_STREAM" in os.environ else "tula: "
        print(f"{prefix}{text}", file=sys.stderr, flush=True)

    with errors(), agent.watching(), KernelEvents(routes=False) as events:
        notify(READY)
        Watch(agent, events, lambda record: roles_of(record, _own_addresses()), tell).run()


@app.command()
@here_only
def leave(dry_run: _DryRun = False, state_dir: StateDir = STATE_DIR, json: Json = False) -> None:
    """Undo what join did on this machine, sysctls included."""
    agent = _agent(state_dir)
    with errors():
        record = agent.record()
        if record is None:
            if json:
                print_json({"changed": False, "steps": []})
            else:
                print("Nothing to undo: this machine has not joined.")
            return
        plan = agent.plan_leave(record) if dry_run else agent.leave()
    if json:
        print_json({"changed": bool(plan), "steps": _steps(plan)})
    elif dry_run:
        _print_commands(plan)
    else:
        _print_steps(plan, unit="remove")
        print("This machine is no longer a backend.")


@app.command()
@here_only
def status(
    file: _Files = None,
    as_: _As = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with status 3 if something is not in place.")
    ] = False,
    state_dir: StateDir = STATE_DIR,
    json: Json = False,
) -> None:
    """Show which parts of this backend's setup are in place, and what is wrong with the others."""
    from tula.agent.diff import parts_of

    agent = _agent(state_dir)
    with errors(), _join_errors():
        joined = agent.record() is not None
        if not joined and not file:
            nothing = {"joined": False, "watched": False, "backends": [], "parts": []}
            print_json(nothing) if json else print(
                "This machine has not joined; with -f tula.yaml, see what it lacks."
            )
            return
        _, roles = _roles(agent, file, as_)
        plan = agent.compare(roles)
    parts = parts_of(plan.want, plan.steps)
    watched = agent.is_watched()
    names = sorted({backend.name for role in roles for _, backend in role.serves})
    if json:
        shown = [
            {"what": p.what, "name": p.name, "state": p.problem or "in place", "ok": not p.problem}
            for p in parts
        ]
        print_json({"joined": joined, "watched": watched, "backends": names, "parts": shown})
    else:
        print(f"{' and '.join(names)}, {_how(joined, watched)}:")
        print_table(
            ["", "what", "name", "state"],
            [["!" if p.problem else "", p.what, p.name, p.problem or "in place"] for p in parts],
            frozenset(),
        )
        if joined and any(part.problem for part in parts):
            print("To put this right: tula backend join" + _options(state_dir))
    if exit_code and any(part.problem for part in parts):
        raise typer.Exit(DIFFERENT)


def _options(state_dir: Path) -> str:
    return f" --state-dir {state_dir}" if state_dir != STATE_DIR else ""


def _how(joined: bool, watched: bool) -> str:
    if not joined:
        return "not joined"
    return "watched: what others take is put back" if watched else "not watched"


app.command()(here_only(instructions))


def _agent(state_dir: Path) -> Agent:
    from tula.agent.agent import Agent
    from tula.agent.record import RecordFile
    from tula.agent.unit import Unit, own_namespace
    from tula.kernel.backend_host import KernelBackendHost
    from tula.model.backend_setup import UNMANAGED_FILE

    if not own_namespace():
        return Agent(KernelBackendHost(), RecordFile(state_dir))
    return Agent(
        KernelBackendHost(), RecordFile(state_dir), Unit(state_dir), unmanaged=UNMANAGED_FILE
    )


@contextmanager
def _join_errors() -> Iterator[None]:
    """Turns a configuration that this machine cannot join into a line and exit status 2."""
    from tula.agent.agent import CannotJoinError
    from tula.agent.identity import NotABackendError

    try:
        yield
    except (CannotJoinError, NotABackendError) as error:
        fail(WRONG, f"tula: {error}")


def _roles(
    agent: Agent, files: list[Path] | None, name: str | None
) -> tuple[Record, Sequence[Role]]:
    """What is to be joined: these files, or what was joined last."""
    from tula.agent.identity import find_role, roles_of
    from tula.agent.record import Record, Source

    here = _own_addresses()
    if not files:
        record = agent.record()
        if record is None or not record.sources:
            fail(WRONG, "tula: this machine has not joined yet; name the configuration with -f")
        return record, roles_of(record, here)
    sources, roles = [], []
    for file in files:
        configuration = read_config(file)
        warn(str(file), configuration)
        roles.append(find_role(str(file), configuration.config, here, name))
        sources.append(Source(str(file.absolute()), configuration.source, name))
    return Record(tuple(sources), addresses=tuple(sorted(map(str, here)))), roles


def _roles_by(
    server: Server, files: list[Path] | None, name: str | None
) -> tuple[Record, Sequence[Role]]:
    """What a balancer says is to be joined; where it does not answer, nothing is changed."""
    from tula.agent.identity import find_role
    from tula.agent.record import Record, Source
    from tula.cli.client import Client
    from tula.cli.common import parse
    from tula.cli.daemon import daemon_errors

    if files:
        fail(WRONG, "tula: the configuration is that of the server; leave out -f, or --server")
    balancer, here = Client(server), _own_addresses()
    with daemon_errors():
        name = name or _name_of(balancer.get("/caller"))
        text = balancer.text(f"/backends/{quote(name, safe='')}/configuration")
    configuration = parse(server.name, text)
    role = find_role(server.name, configuration.config, here, name)
    source = Source(server.name, configuration.source, name)
    return Record((source,), addresses=tuple(sorted(map(str, here)))), [role]


def _name_of(caller: dict[str, Any]) -> str:
    """The backend that a token is for."""
    scope, _, name = str(caller["scope"]).partition(":")
    if scope != "backend":
        fail(WRONG, f"tula: this token has scope {scope}; say with --as which backend this is")
    return name


def _own_addresses() -> set[IPAddress]:
    """Without loopback's own; VIPs that are here already are among them."""
    from tula.kernel.network import KernelNetwork

    return {
        held.address.ip
        for held in KernelNetwork().view(()).addresses
        if not held.address.ip.is_loopback
    }


def _steps(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "verb": step.verb,
            "what": step.what,
            "name": step.name,
            "reason": step.reason,
            "commands": [str(command) for command in step.commands],
        }
        for step in plan.steps
    ]


def _print_commands(plan: Plan) -> None:
    for step in plan.steps:
        print(f"# {step.verb} {step.what} {step.name}" + (f": {step.reason}" * bool(step.reason)))
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
