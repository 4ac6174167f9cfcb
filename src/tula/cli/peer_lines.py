"""How two balancers become peers: the lines that they exchange, and the first question."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tula.cli.common import FAILED, WRONG, applied_config, caller, errors, fail, open_store
from tula.engine.peer_client import PeerClient, PeerError
from tula.engine.peer_view import NoViewError, View, parse_view, same_configuration
from tula.engine.peers import Line, Peer, PeerStore, token_name

if TYPE_CHECKING:
    from tula.config.load import LoadedConfig
    from tula.model.config import Config
    from tula.model.listening import Endpoint

_TIMEOUT = 5.0
_CLOCKS = 2.0
"""Seconds by which clocks may differ; as ``tula.daemon.peer_state`` has it."""
_SSH = 255
"""The exit status of ssh itself (ssh(1))."""


@dataclass(frozen=True, slots=True)
class Balancer:
    """This machine in its accepted configuration: its name there, and where its API answers."""

    name: str
    url: str
    fingerprint: str
    others: Mapping[str, str]
    """the addresses of the other balancers, by name"""
    configuration: LoadedConfig

    def require_other(self, name: str) -> str:
        """The address of that balancer; who is none of the others ends the command."""
        if name == self.name:
            fail(WRONG, f"tula: {name} is this balancer; name another one")
        if name not in self.others:
            known = ", ".join(self.others) or "none but this one"
            fail(
                WRONG,
                f"tula: no balancer {name!r} in load_balancers of the accepted configuration; "
                f"there are {known}",
            )
        return self.others[name]


def find_balancer(state_dir: Path) -> Balancer:
    """This machine, as others may ask it; what is missing for that ends the command."""
    from tula.cli.common import kernel_adapters
    from tula.cli.token import certificate_of
    from tula.plan.high_availability import own_balancer

    name, configuration = applied_config(open_store(state_dir))
    config = configuration.config
    with errors():
        own = own_balancer(config, kernel_adapters().network.view(()))
    if own is None:
        held = ", ".join(f"{n} ({address})" for n, address in config.load_balancers) or "none"
        fail(
            WRONG,
            f"tula: load_balancers in {name} names no address of this machine: there is {held}",
        )
    endpoint = _endpoint(config, str(own[1]))
    if endpoint is None:
        example = f"[{own[1]}]:8420" if own[1].version == 6 else f"{own[1]}:8420"
        fail(
            WRONG,
            "tula: the API does not listen where another balancer could ask it; set "
            f'api: {{listen: "{example}"}}, apply that, and do this again',
        )
    fingerprint = certificate_of(state_dir).fingerprint
    if not fingerprint:
        fail(
            FAILED,
            "tula: the API has no certificate yet; start the daemon, which makes one, and do this "
            "again: systemctl start tula",
        )
    others = {n: str(address) for n, address in config.load_balancers if n != own[0]}
    return Balancer(own[0], f"https://{endpoint}", fingerprint, others, configuration)


def _endpoint(config: Config, own: str) -> Endpoint | None:
    """Where others reach the API: on the balancer's own address where it listens there."""
    from dataclasses import replace
    from ipaddress import ip_address

    address = ip_address(own)
    found = [each for each in config.api.listen if not each.address.is_loopback]
    for each in found:
        if each.address == address:
            return each
    for each in found:
        # Of the IPv6 wildcard, IPv4 has no part: Tula's listeners are of one family each.
        if each.address.is_unspecified and each.address.version == address.version:
            return replace(each, address=address)
    return next((each for each in found if not each.address.is_unspecified), None)


def invite(state_dir: Path, me: Balancer, name: str, *, answer: bool = False) -> Line:
    """A line for that balancer, with a new token for it; the one before counts no more."""
    from tula.engine.callers import Grant, Scope
    from tula.engine.tokens import TokenStore

    grant = Grant(Scope.PEER)
    secret, _ = TokenStore(state_dir).create(token_name(name), grant, None, caller(), anew=True)
    return Line(Peer(me.name, me.url, me.fingerprint, secret), name, answer)


def ask_by_ssh(destination: str, line: Line, *, sudo: bool) -> str:
    """Has ``tula peer accept`` run there, and returns the line that it prints. The user's own ssh
    decides whom to trust, and asks what it has to."""
    if destination.startswith("-"):
        fail(WRONG, f"tula: --to {destination!r} is no destination of ssh's")
    remote = [*(["sudo", "-n"] if sudo else []), "tula", "peer", "accept"]
    try:
        done = subprocess.run(
            ["ssh", destination, "--", *remote],
            input=f"{line}\n",
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    except OSError as error:
        fail(FAILED, f"tula: ssh: {error.strerror or error}; without it, leave out --ssh and --to")
    found = next((t for t in done.stdout.splitlines() if t.startswith("tula-peer-answer ")), "")
    if not found:
        if done.returncode == _SSH:
            fail(FAILED, _again(f"ssh to {destination} failed"))
        hint = "" if sudo else "; if that takes root there: --sudo, or --to root@HOST"
        fail(FAILED, _again(f"tula peer accept on {destination} failed (see above){hint}"))
    if done.returncode:
        print(f"tula: {destination} cannot ask this balancer yet (see above)", file=sys.stderr)
    return found


def _again(what: str) -> str:
    return f"tula: {what}; put that right and do this again: tokens made before count no more"


def ask_peer(state_dir: Path, me: Balancer, name: str) -> Iterator[str]:
    """Asks a peer how it is; lines for people. Raises PeerError."""
    with errors():
        peer = next(each for each in PeerStore(state_dir).peers() if each.name == name)
    client = PeerClient(peer, _TIMEOUT)
    try:
        answer = client.ask("GET", "/peer")
        if answer.status == 404:
            raise PeerError("its daemon is of a version that knows no peers; upgrade it")
        if answer.status >= 300:
            raise PeerError(answer.refusal())
        view = parse_view(answer.json())
    except NoViewError as error:
        raise PeerError(str(error)) from None
    finally:
        client.close()
    if view.name and view.name != name:
        raise PeerError(f"who answers at {peer.url} is {view.name}")
    took = answer.heard - answer.sent
    yield f"{name} answers at {peer.url}, version {view.version}"
    if view.time is not None:
        ahead = view.time - (time.time() - took / 2)
        if abs(ahead) > _CLOCKS:
            yield f"warning: its clock is {ahead:+.1f} s away from this machine's; use NTP on both"
    if same_configuration(_own_view(me.configuration), view) is False:
        yield f"warning: it runs another configuration; tula peer copy {name} takes that over"


def _own_view(configuration: LoadedConfig) -> View:
    from tula.engine.history import digest_of
    from tula.engine.shared_digest import shared_digest

    return View(
        digest=digest_of(configuration.source.encode()),
        shared_digest=shared_digest(configuration.config),
    )
