"""``tula token``: who may ask the API over the network. Works on the state directory's file, with
a daemon and without."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from tula.cli.audit import audited
from tula.cli.common import (
    STATE_DIR,
    WRONG,
    Json,
    StateDir,
    caller,
    duration,
    errors,
    fail,
    open_store,
    print_json,
    print_table,
)
from tula.cli.remote import here_only

if TYPE_CHECKING:
    from tula.engine.tokens import Token

app = typer.Typer(
    name="token",
    help="Tokens of the API: who may ask it over the network, and for what.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 of a-z, 0-9 and - (hyphen).")]


@app.command()
@here_only
def create(
    name: Name,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            metavar="S",
            help="read, operate, configure, peer, or backend:NAME.",
        ),
    ],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="How long it counts, such as 90d."),
    ] = None,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Make a token and print it, this once, as a file for --token-file."""
    from tula.engine.callers import parse_grant

    lifetime = None if expires is None else duration(expires, "--expires")
    try:
        grant = parse_grant(scope)
    except ValueError as error:
        fail(WRONG, f"tula: --scope: {error}")
    asked = {"scope": str(grant), "expires": expires}
    with _wrong_input(), audited(state_dir, "token-create", name, asked), errors():
        secret, made = _store(state_dir).create(name, grant, lifetime, caller())
    shown = certificate_of(state_dir)
    if json:
        print_json(_describe(made) | {"token": secret, "fingerprint": shown.fingerprint or None})
        return
    print(f"# Tula: token {name}, scope {made.grant}, {_expiry(made)}")
    print(secret)
    for line in shown.lines():
        print(line)
    sys.stdout.flush()
    if not shown.fingerprint:
        print(
            "the API has no certificate here yet; when it listens, tula token list shows the line "
            "sha256:… that clients pin",
            file=sys.stderr,
        )
    if sys.stdout.isatty():
        print("keep it now: it is shown this once, and stored nowhere", file=sys.stderr)
    elif _others_read(sys.stdout):
        print(
            "warning: other users can read the file that the token went to: chmod 600 it",
            file=sys.stderr,
        )


@app.command(name="list")
@here_only
def list_tokens(json: Json = False, state_dir: StateDir = STATE_DIR) -> None:
    """Show the tokens: names, scopes and expiry, never a token itself."""
    with errors():
        found = _store(state_dir).tokens()
    shown = certificate_of(state_dir)
    if json:
        tokens = [_describe(token) for token in found]
        print_json({"tokens": tokens, "fingerprint": shown.fingerprint or None})
        return
    _print(found)
    for line in shown.lines():
        print(line)


def _print(found: Sequence[Token]) -> None:
    if not found:
        print("there are no tokens; tula token create makes one")
        return
    headings = ["NAME", "SCOPE", "CREATED", "BY", "EXPIRES"]
    rows = [[t.name, str(t.grant), _moment(t.created), t.by, _expiry(t, "").strip()] for t in found]
    print_table(headings, rows, frozenset())


@app.command()
@here_only
def revoke(name: Name, json: Json = False, state_dir: StateDir = STATE_DIR) -> None:
    """End a token: from now on it counts no more, on open connections too."""
    with _wrong_input(), audited(state_dir, "token-revoke", name), errors():
        gone = _store(state_dir).revoke(name)
    if json:
        print_json(_describe(gone))
    else:
        print(f"token {name} is revoked")


def _store(state_dir: Path) -> Any:
    from tula.engine.tokens import TokenStore

    return TokenStore(state_dir)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The one that the API shows, if there is one yet; ``file`` is the configuration's, if it
    names one."""

    fingerprint: str = ""
    file: str = ""

    def lines(self) -> list[str]:
        """For a token file: Tula's own is pinned; another may be renewed, and be trusted then by
        who signed it."""
        if not self.fingerprint:
            return []
        if not self.file:
            return [f"sha256:{self.fingerprint}"]
        return [f"# not pinned, for {self.file} may be renewed: sha256:{self.fingerprint}"]


def certificate_of(state_dir: Path) -> Certificate:
    """The one that this machine's API shows."""
    from tula.config.load import ConfigError, parse_config
    from tula.engine.certificates import fingerprint_of, own_pair
    from tula.model.errors import StateError

    try:
        source = open_store(state_dir).configuration()
        file = "" if source is None else parse_config(source).config.api.certificate
    except (StateError, ConfigError):
        file = ""
    try:
        return Certificate(fingerprint_of(Path(file or own_pair(state_dir).certificate)), file)
    except StateError:
        return Certificate(file=file)


def _others_read(stream: TextIO) -> bool:
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o077)


@contextmanager
def _wrong_input() -> Iterator[None]:
    from tula.engine.tokens import TokenError

    try:
        yield
    except TokenError as error:
        fail(WRONG, f"tula: {error}")


def _describe(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "scope": str(token.grant),
        "created": token.created,
        "expires": token.expires,
        "expired": token.expired(time.time()),
        "by": token.by,
    }


def _expiry(token: Token, verb: str = "expires ") -> str:
    if token.expires is None:
        return "never expires" if verb else "never"
    if token.expired(time.time()):
        return f"expired {_moment(token.expires)}"
    return f"{verb}{_moment(token.expires)}"


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
