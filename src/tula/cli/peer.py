"""``tula peer``: the other balancers of the configuration, which this one asks and may be asked by.

Works on the state directory's files, with a daemon and without. Tokens go by standard input, files
and prompts without echo: other users see command lines.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli import peer_copy
from tula.cli.audit import audited
from tula.cli.common import (
    FAILED,
    STATE_DIR,
    WRONG,
    Json,
    StateDir,
    applied_config,
    errors,
    fail,
    open_store,
    print_json,
    print_table,
)
from tula.cli.remote import here_only

if TYPE_CHECKING:
    from tula.cli.peer_lines import Balancer
    from tula.engine.peers import Line

app = typer.Typer(
    name="peer",
    help="The other balancers of the configuration: those that this one asks, and may be asked by.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="A balancer of the configuration's load_balancers.")
]


@app.command()
@here_only
def add(
    name: Name,
    ssh: Annotated[
        bool, typer.Option("--ssh", help="Exchange tokens by ssh, to the balancer's address.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="[USER@]HOST", help="The same, to this destination of ssh's."),
    ] = None,
    sudo: Annotated[
        bool, typer.Option("--sudo", help="With ssh: run tula there by sudo, without a password.")
    ] = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Exchange tokens with another balancer, so that each may ask the other.

    Without ssh it prints a line for tula peer accept there, and takes the line that this prints.
    Doing it again makes new tokens.
    """
    from tula.cli.peer_lines import ask_by_ssh, find_balancer, invite

    if sudo and not (ssh or to):
        fail(WRONG, "tula: --sudo is for ssh: add --ssh, or --to [USER@]HOST")
    me = find_balancer(state_dir)
    address = me.require_other(name)
    by = to or (address if ssh else None)
    with audited(state_dir, "peer-add", name, {"ssh": by}), errors():
        line = invite(state_dir, me, name)
        if by is not None:
            answer = ask_by_ssh(by, line, sudo=sudo)
        else:
            print(f"On {name}, run: tula peer accept, and paste this line:", file=sys.stderr)
            print(line, flush=True)
            answer = _read_line(f"The line that it prints on {name} (it is not shown): ")
            if not answer:
                print(
                    f"then give the line that it prints to: tula peer accept, here on {me.name}",
                    file=sys.stderr,
                )
                return
        _take(state_dir, me, _parse(answer), name)
    _verify(state_dir, me, name, sys.stdout)


@app.command()
@here_only
def accept(state_dir: StateDir = STATE_DIR) -> None:
    """Take the line that tula peer add, or accept, has printed on the other balancer.

    It comes from standard input. The line for the other balancer is printed, if it wants one.
    """
    from tula.cli.peer_lines import find_balancer, invite

    text = _read_line("The line from the other balancer (it is not shown): ")
    if not text:
        fail(WRONG, "tula: nothing was pasted; give the line that tula peer add printed")
    line = _parse(text)
    me, other = find_balancer(state_dir), line.sender.name
    me.require_other(other)
    with audited(state_dir, "peer-add", other), errors():
        _take(state_dir, me, line, other)
        if not line.answer:
            if sys.stdout.isatty():
                print(f"Paste this line on {other}:", file=sys.stderr)
            print(invite(state_dir, me, other, answer=True), flush=True)
    _verify(state_dir, me, other, sys.stderr)


app.command()(peer_copy.copy)


@app.command(name="list")
@here_only
def list_peers(json: Json = False, state_dir: StateDir = STATE_DIR) -> None:
    """Show the balancers that this one has a token for; tula status shows how they are."""
    from tula.engine.peers import PeerStore

    with errors():
        found = PeerStore(state_dir).peers()
    _, configuration = applied_config(open_store(state_dir))
    configured = {name for name, _ in configuration.config.load_balancers}
    if json:
        peers = [_describe(peer) | {"configured": peer.name in configured} for peer in found]
        print_json({"peers": peers})
        return
    if not found:
        print("no peers were added; tula peer add NAME does it")
        return
    rows = [
        [p.name, p.url, f"sha256:{p.fingerprint}", "yes" if p.name in configured else "no"]
        for p in found
    ]
    print_table(["NAME", "URL", "FINGERPRINT", "CONFIGURED"], rows, frozenset())


@app.command()
@here_only
def remove(name: Name, json: Json = False, state_dir: StateDir = STATE_DIR) -> None:
    """Forget a balancer's token, and revoke the one by which it asks here."""
    from tula.engine.peers import PeerStore, token_name
    from tula.engine.tokens import TokenError, TokenStore

    with audited(state_dir, "peer-remove", name), errors():
        known = PeerStore(state_dir).remove(name)
        try:
            TokenStore(state_dir).revoke(token_name(name))
        except TokenError:
            if not known:
                names = ", ".join(peer.name for peer in PeerStore(state_dir).peers())
                fail(WRONG, f"tula: no peer {name!r} was added; there are {names or 'none'}")
    if json:
        print_json({"name": name})
    else:
        print(f"{name} is no peer any more; on {name}, run: tula peer remove, too")


def _read_line(prompt: str) -> str:
    """One line of standard input, which may hold a token."""
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            return getpass(prompt, sys.stderr).strip()
        except EOFError:
            return ""
    return sys.stdin.readline(65536).strip()


def _parse(text: str) -> Line:
    from tula.engine.peers import LineError, parse_line

    try:
        return parse_line(text)
    except LineError as error:
        fail(WRONG, f"tula: {error}")


def _take(state_dir: Path, me: Balancer, line: Line, name: str) -> None:
    """Remembers who sent the line; ``name``: who must have."""
    from tula.engine.peers import PeerStore

    if line.to != me.name or line.sender.name != name:
        fail(
            WRONG,
            f"tula: that line is from {line.sender.name} to {line.to}, and not from {name} to "
            f"{me.name}; nothing was added",
        )
    PeerStore(state_dir).put(line.sender)


def _verify(state_dir: Path, me: Balancer, name: str, out: Any) -> None:
    """Asks the new peer at once, and says how that went; ends the command if it did not."""
    from tula.cli.peer_lines import ask_peer
    from tula.engine.peer_client import PeerError

    try:
        for line in ask_peer(state_dir, me, name):
            print(line, file=out)
    except PeerError as error:
        fail(FAILED, f"tula: {name} was added, and cannot be asked yet: {error}")


def _describe(peer: Any) -> dict[str, Any]:
    return {"name": peer.name, "url": peer.url, "fingerprint": peer.fingerprint}
