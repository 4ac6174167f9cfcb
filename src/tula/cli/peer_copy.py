"""``tula peer copy``: what two balancers must have in common, taken from one of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    FAILED,
    RUN_DIR,
    STATE_DIR,
    WRONG,
    RunDir,
    StateDir,
    Yes,
    errors,
    fail,
    parse,
    require_yes,
)
from tula.cli.daemon import daemon_errors, insist, require_daemon
from tula.cli.remote import here_only

if TYPE_CHECKING:
    from tula.cli.client import Client

_NONE: Mapping[str, Any] = {"drain": False, "disable": False, "weight": None}


@dataclass(frozen=True, slots=True)
class _End:
    """A balancer that is copied from, or to."""

    name: str
    daemon: Client
    text: str
    digest: str
    overrides: Mapping[str, Mapping[str, Any]]


@here_only
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A balancer that was added.")],
    give: Annotated[
        bool, typer.Option("--give", help="The other way: NAME takes what this balancer has.")
    ] = False,
    yes: Yes = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Take over another balancer's configuration and overrides, once you have seen what differs.

    What belongs to each machine stays as it is: api and metrics.
    """
    with daemon_errors():
        here = _end("this balancer", require_daemon(run_dir))
        there = _end(name, _peer(state_dir, name))
    source, target = (here, there) if give else (there, here)
    text = _configuration(source, target)
    changes = list(_overrides(source, target))
    lines = [*_shown(source, target, text), *(change.line for change in changes)]
    if not lines:
        print(f"{name} has the same configuration and the same overrides")
        return
    if not yes:
        require_yes(lines)
    if text is not None:
        source_text = text.encode()

        def apply(insists: bool) -> Any:
            return target.daemon.apply(source_text, target.digest, yes=insists, force=yes)

        with daemon_errors(lambda: f"the configuration of {source.name}"):
            insist(apply, yes)
        print(f"{target.name}: has the configuration of {source.name}")
        _tell_file(target)
    for change in changes:
        with daemon_errors():
            insist(change.send, yes)
        print(change.line)


def _tell_file(target: _End) -> None:
    """Says whether the file that the next reload takes holds another configuration now."""
    with daemon_errors():
        found = target.daemon.get("/status")["configuration"]
    if found["source"] == "file" and found["file_differs"]:
        print(
            f"{target.name}: {found['file']} differs from what runs now; write that there, too: "
            "tula configuration shows it",
            file=sys.stderr,
        )


def _peer(state_dir: Path, name: str) -> Client:
    from tula.cli.client import Client
    from tula.cli.server import Server, parse_server
    from tula.engine.peers import PeerStore

    store = PeerStore(state_dir)
    with errors():
        found = {peer.name: peer for peer in store.peers()}
    if name not in found:
        known = f"there are {', '.join(found)}" if found else "there are none"
        fail(WRONG, f"tula: no peer {name!r} was added; {known}; tula peer add does it")
    peer = found[name]
    address = parse_server(peer.url, str(store.path))
    return Client(Server(address, peer.token, store.path, frozenset({peer.fingerprint})))


def _end(name: str, daemon: Client) -> _End:
    text, digest = daemon.configuration()
    details = daemon.get("/peer")["details"]
    return _End(name, daemon, text, digest, details["overrides"])


def _configuration(source: _End, target: _End) -> str | None:
    """What the target must have accepted; None: it has that."""
    from tula.config.own_sections import SectionsError, with_own_sections
    from tula.engine.shared_digest import OWN_SECTIONS, shared_digest

    if source.text == target.text:
        return None
    wanted = shared_digest(parse(source.name, source.text).config)
    if wanted == shared_digest(parse(target.name, target.text).config):
        return None
    try:
        text = with_own_sections(source.text, target.text, OWN_SECTIONS)
    except SectionsError as error:
        fail(FAILED, f"tula: cannot put api and metrics of {target.name} in its place: {error}")
    if shared_digest(parse(source.name, text).config) != wanted:
        fail(FAILED, f"tula: api and metrics cannot be told from the rest of {source.name}'s text")
    return text


def _shown(source: _End, target: _End, text: str | None) -> Iterator[str]:
    from tula.config.redact import redacted_diff

    if text is None:
        return
    names = f"{target.name} now", f"{target.name} with the configuration of {source.name}"
    yield from redacted_diff(target.text, text, *names).splitlines()


@dataclass(frozen=True, slots=True)
class _Change:
    """One change of an override at the target."""

    target: _End
    backend: str
    verb: str
    weight: int | None = None

    @property
    def line(self) -> str:
        weight = "configured" if self.weight is None else str(self.weight)
        words = f" {weight}" if self.verb == "weight" else ""
        return f"{self.target.name}: {self.verb} {self.backend}{words}"

    def send(self, yes: bool) -> Any:
        from tula.cli.client import backend_path

        service, _, backend = self.backend.partition("/")
        path = backend_path(service, backend, self.verb)
        path += "?force=true" if yes and self.verb not in ("undrain", "enable") else ""
        if self.verb == "weight":
            return self.target.daemon.send("PUT", path, {"weight": self.weight})
        return self.target.daemon.send("POST", path)


def _overrides(source: _End, target: _End) -> Iterator[_Change]:
    """Those that give first: a backend that comes back is there before another one goes."""
    found = []
    for backend in sorted({*source.overrides, *target.overrides}):
        want = source.overrides.get(backend, _NONE)
        have = target.overrides.get(backend, _NONE)
        for key, on, off in (("drain", "drain", "undrain"), ("disable", "disable", "enable")):
            if bool(want.get(key)) != bool(have.get(key)):
                found.append(_Change(target, backend, on if want.get(key) else off))
        if want.get("weight") != have.get("weight"):
            found.append(_Change(target, backend, "weight", want.get("weight")))
    yield from sorted(found, key=lambda change: change.verb in ("drain", "disable"))
