"""Which daemon a command asks: this machine's, or a balancer's that the user names.

Every command says whether it asks the daemon, and so can ask a balancer's (``asks_daemon``), works
on this machine alone (``here_only``), or does that by what a balancer knows, if one is named
(``may_ask_server``). ``chosen_server`` tells what was chosen, so that the commands themselves know
of no servers.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import WRONG, fail

if TYPE_CHECKING:
    from tula.cli.contexts import Context
    from tula.cli.server import Server

Command = Callable[..., None]

SERVER, TOKEN_FILE, CONTEXT = "TULA_SERVER", "TULA_TOKEN_FILE", "TULA_CONTEXT"
_WHERE = "tula_where"
"""The attribute of a command that says which of them it is."""
_HELP: dict[str, tuple[type, str, str]] = {
    "server": (str, "URL", f"Ask the daemon there, as https://lb1:8420. [env var: {SERVER}]"),
    "token_file": (Path, "F", f"The file with the token for it. [env var: {TOKEN_FILE}]"),
    "context": (str, "NAME", f"Ask the balancer that contexts.yaml names so. [env var: {CONTEXT}]"),
    "certificate": (Path, "F", "Certificates of the authorities to trust. [default: the system's]"),
    "fingerprint": (str, "sha256:…", "Trust the certificate that has it, whoever signed it."),
}
_OFTEN = frozenset({"server", "token_file", "context"})


class Where(Enum):
    """What a command works on."""

    DAEMON = "this machine's daemon, or another one's"
    HERE = "this machine"
    NAMED = "this machine, by what a balancer knows"


@dataclass(frozen=True, slots=True)
class Given:
    """The options as they were given."""

    server: str | None = None
    token_file: Path | None = None
    context: str | None = None
    certificate: Path | None = None
    fingerprint: str | None = None

    def over(self, other: Given) -> Given:
        """These options, and the others where these were not given."""
        mine = {name: getattr(self, name) for name in _HELP}
        return Given(
            **{
                name: getattr(other, name) if value is None else value
                for name, value in mine.items()
            }
        )

    @property
    def first(self) -> str:
        """The name of an option that was given, if any was."""
        given = (each.name for each in fields(self) if getattr(self, each.name) is not None)
        return next(map(_option, given), "")


class _Choice:
    """Made when the daemon is first asked for: a command may not come to that."""

    def __init__(self, given: Given, *, here: bool) -> None:
        self._given, self._here = given, here
        self._found: list[Server | None] = []

    def server(self) -> Server | None:
        if not self._found:
            self._found.append(None if self._here else choose_server(self._given))
        return self._found[0]


_choice: ContextVar[_Choice | None] = ContextVar("choice", default=None)


def chosen_server() -> Server | None:
    """The server that the running command is to ask; None: this machine's daemon.

    What is wrong in the options, the environment or the contexts ends the command.
    """
    choice = _choice.get()
    return None if choice is None else choice.server()


def asks_daemon(command: Command) -> Command:
    """A command that asks the daemon: options name another machine's."""

    def run(ctx: typer.Context, **given: Any) -> None:
        options = _taken(given).over(_of_root(ctx))
        places = [name for name in ("run_dir", "state_dir") if _was_given(ctx, name)]
        if places and options.first:
            fail(
                WRONG, f"tula: {_option(places[0])} is of this machine, {options.first} of another"
            )
        token = _choice.set(_Choice(options, here=bool(places)))
        try:
            command(**given)
        finally:
            _choice.reset(token)

    return _with_options(command, run, shown=_OFTEN, where=Where.DAEMON)


def here_only(command: Command) -> Command:
    """A command that works on this machine: options that name another are refused; the environment
    and the default context are not meant for it."""

    def run(ctx: typer.Context, **given: Any) -> None:
        if first := _taken(given).over(_of_root(ctx)).first:
            name = ctx.command_path.partition(" ")[2]
            fail(WRONG, f"tula: {name} works on the machine that it runs on; leave out {first}")
        command(**given)

    return _with_options(command, run, shown=frozenset(), where=Where.HERE)


def may_ask_server(command: Command) -> Command:
    """A command that works on this machine, and for which options may name a balancer; neither the
    environment nor the default context does."""

    def run(ctx: typer.Context, **given: Any) -> None:
        options = _taken(given).over(_of_root(ctx))
        token = _choice.set(_Choice(options, here=not options.first))
        try:
            command(**given)
        finally:
            _choice.reset(token)

    return _with_options(command, run, shown=_OFTEN, where=Where.NAMED)


def names_server(root: Command) -> Command:
    """The root of all commands, which takes the options too: before the command's name."""

    def run(ctx: typer.Context, **given: Any) -> None:
        ctx.obj = _taken(given)
        root(**given)

    return _with_options(root, run, shown=frozenset(_HELP), where=None)


def where_of(command: Callable[..., Any]) -> Where | None:
    """What was said of a command; None if nobody said."""
    found: Where | None = getattr(command, _WHERE, None)
    return found


def choose_server(given: Given) -> Server | None:
    """What the options, the environment and the contexts file mean, in this order; None: this
    machine's daemon. What is wrong ends the command."""
    from tula.cli.token_file import WrongError

    try:
        return _choose(given, os.environ)
    except WrongError as error:
        fail(WRONG, f"tula: {error}")


def completing_server(ctx: typer.Context) -> Server | None:
    """The same for a command that is still being typed. Raises WrongError."""
    given = Given()
    at: Any = ctx
    while at is not None:
        given = given.over(Given(**{name: at.params.get(name) for name in _HELP}))
        at = at.parent
    here = ctx.params.get("state_dir") and _was_given(ctx, "state_dir")
    return None if here else _choose(given, os.environ)


def _choose(given: Given, environment: Mapping[str, str]) -> Server | None:
    from tula.cli.contexts import Context
    from tula.cli.server import Server, check_authorities, parse_server
    from tula.cli.token_file import WrongError, read_fingerprint, read_token_file

    context = _context(given, environment)
    if context is None:
        if first := given.first.replace(_option("context"), ""):
            raise WrongError(f"{first}: for which server? add --server https://lb1:8420")
        return None
    address = parse_server(context.server, context.where)
    from_environment = environment.get(TOKEN_FILE)
    path = given.token_file or context.token_file
    if path is None and from_environment:
        path = Path(from_environment)
    if path is None:
        raise WrongError(
            f"{address.url} wants a token: --token-file F; write F on the balancer with: "
            "tula token create NAME --scope S"
        )
    mine = Context("", "", None, given.certificate, given.fingerprint)
    for trusted, where in ((mine, ""), (context, f"{context.where}.")):
        if trusted.fingerprint is not None and trusted.certificate is not None:
            raise WrongError(
                f"{where or '--'}fingerprint: the certificate with this fingerprint is trusted "
                f"whoever signed it; leave out {where or '--'}certificate"
            )
    trusted = mine if mine.certificate or mine.fingerprint else context
    found = read_token_file(path)
    if trusted.fingerprint is not None:
        where = "--fingerprint" if trusted is mine else f"{context.where}.fingerprint"
        fingerprints = frozenset({read_fingerprint(trusted.fingerprint, where)})
    else:
        # Who names authorities means them, and not what the token's file once was written with.
        fingerprints = frozenset() if trusted.certificate is not None else found.fingerprints
    if trusted.certificate is not None:
        check_authorities(trusted.certificate)
    return Server(address, found.token, path, fingerprints, trusted.certificate)


def _context(given: Given, environment: Mapping[str, str]) -> Context | None:
    """The server that is meant, with what belongs to it; None: this machine."""
    from tula.cli.contexts import HERE, Context, contexts_path, read_contexts
    from tula.cli.token_file import WrongError

    if given.server is not None:
        if given.context is not None:
            raise WrongError("--context names a server, as --server does; leave out one of them")
        return Context("--server", given.server)
    asked_by, name = "--context", given.context
    if name is None:
        if server := environment.get(SERVER):
            if environment.get(CONTEXT):
                raise WrongError(f"{SERVER} and {CONTEXT} are both set; unset one of them")
            return Context(SERVER, server)
        asked_by, name = CONTEXT, environment.get(CONTEXT) or None
    if name == HERE:
        return None
    contexts = read_contexts(contexts_path())
    if name is None:
        asked_by, name = f"{contexts.path}: default", contexts.default
    return None if name in (None, HERE) else contexts.find(str(name), asked_by)


def _of_root(ctx: typer.Context) -> Given:
    found = ctx.find_root().obj
    return found if isinstance(found, Given) else Given()


def _taken(given: dict[str, Any]) -> Given:
    """Takes the options out of what the command is called with."""
    return Given(**{name: given.pop(name) for name in _HELP})


def _was_given(ctx: typer.Context, name: str) -> bool:
    """By an option; the environment may well have it for this machine's own daemon."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _with_options(
    command: Command, run: Command, shown: frozenset[str], where: Where | None
) -> Command:
    """``run`` with the command's signature and these options, as typer reads it."""
    signature = inspect.signature(command, eval_str=True)
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    own = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in signature.parameters.values()
    ]
    options = [_parameter(name, hidden=name not in shown) for name in _HELP]
    run.__name__, run.__doc__, run.__module__ = (
        command.__name__,
        command.__doc__,
        command.__module__,
    )
    run.__annotations__ = {}
    vars(run).update(
        __signature__=signature.replace(parameters=[context, *own, *options]), **{_WHERE: where}
    )
    return run


def _parameter(name: str, hidden: bool) -> inspect.Parameter:
    kind, metavar, text = _HELP[name]
    option = typer.Option(
        _option(name), metavar=metavar, help=text, show_default=False, hidden=hidden
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],
    )
