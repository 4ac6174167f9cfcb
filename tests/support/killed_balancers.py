"""Three balancers on loopback addresses that know each other as peers; any may be killed."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from support.certificates import make_certificate
from support.configurations import render_config
from support.daemon import CONFIG
from support.live_balancer import Life, live
from tula.engine.callers import parse_grant
from tula.engine.history import digest_of
from tula.engine.peers import Peer, PeerStore
from tula.engine.store import Store
from tula.engine.tokens import TokenStore
from tula.lab.wait import wait_until

NAMES = ("lb1", "lb2", "lb3")
YAML = {"Content-Type": "application/yaml"}
BASE = render_config(CONFIG).replace(
    "load_balancers: {}",
    "load_balancers: {lb1: 10.0.0.2, lb2: 10.0.0.3, lb3: 10.0.0.4}",
)
WITHIN = 120.0


def changed(what: object, text: str = BASE) -> str:
    """Another configuration, of another digest."""
    return f"{text}# {what}\n"


class Balancer:
    """One of them."""

    def __init__(self, context: Any, life: Life) -> None:
        self._context = context
        self.life = life
        self.store = Store(Path(life.directory) / "state")
        self.process: Any = None
        transport = httpx2.HTTPTransport(uds=str(Path(life.directory) / "tula.sock"))
        self.client = httpx2.Client(transport=transport, base_url="http://tula/api/v1", timeout=180)

    def start(self, **more: Any) -> None:
        """With other things about its life; waits until it answers."""
        self.process = self._context.Process(target=live, args=(replace(self.life, **more),))
        self.process.start()
        wait_until(self.answers, WITHIN, self.life.name)

    def answers(self) -> bool:
        assert self.process.is_alive()
        with suppress(httpx2.TransportError):
            return self.client.get("/configuration").is_success
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.join(60)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.is_alive()

    @property
    def running(self) -> str:
        """The text of the configuration that runs."""
        return str(self.client.get("/configuration").text)

    @property
    def accepted(self) -> str:
        """That on its disk."""
        return (self.store.configuration() or b"").decode()

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get("/status").json()
        return found

    @property
    def problems(self) -> str:
        return "\n".join(self.status["problems"])

    def kinds(self) -> list[str]:
        """Of its events."""
        events = self.client.get("/events", params={"limit": 1000}).json()["events"]
        return [event["kind"] for event in events]

    def apply(self, text: str, query: str = "") -> httpx2.Response:
        """On all."""
        path = f"/everywhere/apply{query}"
        return self.client.post(path, content=text.encode(), headers=YAML)


class Balancers:
    """All of them."""

    def __init__(self, of: dict[str, Balancer]) -> None:
        self.of = of

    def __getitem__(self, name: str) -> Balancer:
        return self.of[name]

    def revive(self) -> None:
        """Who is dead comes back."""
        for balancer in self.of.values():
            if not balancer.alive:
                balancer.start()

    def texts(self) -> set[str]:
        """What runs, and what is on the disks."""
        return {text for each in self.of.values() for text in (each.running, each.accepted)}

    def wait_for(self, text: str) -> None:
        """Until all have it, and nothing waits."""

        def there() -> bool:
            waits = [each.status["configuration"]["confirm_until"] for each in self.of.values()]
            return self.texts() == {text} and waits == [None] * len(waits)

        wait_until(there, WITHIN, f"{digest_of(text.encode())[:12]} everywhere")

    def wait_until_alike(self) -> str:
        """Until all have the same and nothing is left to be done; the text."""

        def alike() -> str:
            waits = [each.status["configuration"]["confirm_until"] for each in self.of.values()]
            left = [each.problems for each in self.of.values()]
            texts = self.texts()
            return texts.pop() if len(texts) == 1 and not any(waits) and not any(left) else ""

        return wait_until(alike, WITHIN, "the same on all balancers")


@contextmanager
def balancers(directory: Path, text: str = BASE) -> Iterator[Balancers]:
    """Three of them that run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.live_balancer"])
    number = os.getpid()
    made: dict[str, Balancer] = {}
    peers = []
    for at, name in enumerate(NAMES):
        # Their own addresses: nobody else on this machine has the port there.
        address = f"127.{84 + at}.{number >> 8 & 255}.{number & 255}"
        folder = directory / name
        (folder / "state").mkdir(parents=True)
        certificate = make_certificate(folder, address)
        life = Life(str(folder), name, address, str(certificate.pem), text)
        made[name] = Balancer(context, life)
        peers.append(
            Peer(
                name, f"https://{address}:8420", certificate.fingerprint.removeprefix("sha256:"), ""
            )
        )
    for name, balancer in made.items():
        for peer in peers:
            if peer.name != name:
                state = Path(made[peer.name].life.directory) / "state"
                grant = parse_grant("peer")
                token, _ = TokenStore(state).create(f"peer-{name}", grant, None, "test")
                PeerStore(balancer.store.directory).put(replace(peer, token=token))
    try:
        for balancer in made.values():
            balancer.start()
        yield Balancers(made)
    finally:
        for balancer in made.values():
            balancer.client.close()
            if balancer.alive:
                balancer.kill()


def wait_until_dead(balancer: Balancer) -> None:
    """Its process has ended."""
    end = time.monotonic() + WITHIN
    while balancer.alive:
        assert time.monotonic() < end, "it was to die"
        time.sleep(0.01)
