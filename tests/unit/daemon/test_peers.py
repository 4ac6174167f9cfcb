"""Other balancers are asked, each on its own; who comes back is told our flows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from types import SimpleNamespace

import pytest

from support.builders import make_backend, make_config, make_service
from support.configurations import render_config
from support.other_balancer import TOKEN, OtherBalancer
from tula.config.load import parse_config
from tula.daemon.own_peer_view import OwnRole
from tula.daemon.peers import PeerWatch
from tula.daemon.snapshot import Snapshot
from tula.engine.event_log import EventLog
from tula.engine.peer_client import PeerClient, PeerError
from tula.engine.peers import Peer, PeerStore
from tula.model.event import EventKind
from tula.model.high_availability import HighAvailability, Vrrp
from tula.model.host import HostAddress, HostView

NAMES = {"lb1": "10.0.0.2", "lb2": "10.0.0.3", "lb3": "10.0.0.4"}
CONFIG = parse_config(
    render_config(
        replace(
            make_config(make_service(backends=[make_backend(1)])),
            load_balancers=tuple((name, ip_address(text)) for name, text in NAMES.items()),
        )
    )
)
HOST = HostView(addresses=(HostAddress("eth0", ip_interface("10.0.0.2/24"), False),))
READY = Snapshot(configuration=CONFIG, applied=SimpleNamespace(host=HOST))  # type: ignore[arg-type]


class Scene:
    """lb1, which asks the others."""

    def __init__(
        self, folder: Path, patience: float = 60.0, role: Callable[[], OwnRole] = OwnRole
    ) -> None:
        self.folder, self.snapshot, self.shared = folder, READY, 0
        self.store, self.events = PeerStore(folder), EventLog()
        self.watch = PeerWatch(
            folder,
            lambda: self.snapshot,
            self.events,
            self._share,
            role,
            every=0.05,
            patience=patience,
        )

    async def _share(self) -> None:
        self.shared += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watch.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def kinds(self) -> list[str]:
        return [f"{each.kind} {each.subject}" for each in self.events.events]

    def peer(self, name: str) -> tuple[bool, str]:
        """Whether it is alive, and why not."""
        found = {peer.name: peer for peer in self.watch.facts.peers}[name]
        return found.alive, found.why


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        await asyncio.sleep(0.02)


def test_each_is_asked_on_its_own_whatever_version_it_is(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    newer = OtherBalancer(name="lb2", version="9.9", mood="fine", details_digest="d")
    newer.view["details"] = {"services": 1, "states": {"web/b1": "down"}, "colours": [1]}
    slow = OtherBalancer(name="lb3")
    slow.hangs = 30.0

    async def main() -> None:
        async with scene.running():
            await until(lambda: len(scene.watch.facts.peers) == 2)
            assert scene.peer("lb2") == (False, "not added here: tula peer add lb2")
            await until(scene.watch.flows_learned.is_set)  # there is nobody to wait for
            scene.store.put(one)
            scene.store.put(other)
            await until(lambda: scene.peer("lb2")[0])
            asked = len(newer.seen)
            await until(lambda: len(newer.seen) > asked + 5)
            assert scene.peer("lb3")[0] is False, "it delays nobody"
            assert newer.connections < len(newer.seen) / 3, "they stay"
            assert "GET /peer?known=&notified=" in newer.seen
            assert newer.seen[-1] == "GET /peer?known=d&notified="
            found = scene.watch.facts
            assert (found.name, found.peers[0].version) == ("lb1", "9.9")
            assert found.peers[0].configuration_equal is None, "it does not say"
            scene.store.remove("lb2")
            await until(lambda: not scene.peer("lb2")[0])

    with newer.served(tmp_path) as one, slow.served(tmp_path, "lb3") as other:
        asyncio.run(main())


def test_flows_are_told_to_who_comes_back_and_asked_for_at_the_start(tmp_path: Path) -> None:
    scene, peer = Scene(tmp_path), OtherBalancer(name="lb2")
    scene.snapshot = replace(READY, applied=None)

    async def main() -> None:
        async with scene.running():
            with peer.served(tmp_path) as found:
                scene.store.put(found)
                await asyncio.sleep(0.3)
                assert peer.seen == [], "which of them this is shows only with its tables"
                scene.snapshot = READY
                await until(lambda: scene.watch.flows_learned.is_set() and scene.shared >= 1)
                assert "POST /peer/flows" in peer.seen
                peer.view |= {"start": "two", "ready": False}
                await until(lambda: "peer-back lb2" in scene.kinds())
                before = scene.shared
                await asyncio.sleep(0.3)
                assert scene.shared == before, "it cannot learn yet"
                peer.view |= {"ready": True}
                await until(lambda: scene.shared > before)
            await until(lambda: scene.kinds()[-1] == "peer-lost lb2")
            assert "nobody listens on https://127.0.0.1" in scene.peer("lb2")[1]
            before = scene.shared
            with peer.served(tmp_path):
                await until(lambda: scene.peer("lb2")[0] and scene.shared > before)
            assert scene.kinds()[-1] == "peer-back lb2"

    asyncio.run(main())


def test_nobody_waits_for_flows_of_a_dead_peer_for_ever(tmp_path: Path) -> None:
    scene = Scene(tmp_path, patience=1.0)
    scene.store.put(Peer("lb2", "https://127.0.0.1:9", "0" * 64, TOKEN))

    async def main() -> None:
        async with scene.running():
            await until(scene.watch.flows_learned.is_set)

    began = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - began >= 1


def test_several_orders_to_tell_flows_are_one(tmp_path: Path) -> None:
    scene = Scene(tmp_path)

    async def main() -> None:
        await asyncio.gather(*(scene.watch.share_again() for _ in range(20)))

    asyncio.run(main())
    assert scene.shared <= 2


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"fingerprint": "0" * 64}, "its certificate is another one than was pinned"),
        ({"status": 401}, "it does not know our token; tula peer add makes a new one"),
        ({"view": {"start": "s", "name": "lb7"}}, "it is lb7, and not lb2"),
        ({"view": {"no": "start"}}, "its answer is none of a balancer"),
    ],
)
def test_who_is_no_peer_is_said_to_be_none(
    tmp_path: Path, wrong: dict[str, object], told: str
) -> None:
    scene, other = Scene(tmp_path), OtherBalancer(name="lb2")
    fingerprint = wrong.pop("fingerprint", None)
    vars(other).update(wrong)

    async def main() -> None:
        async with scene.running():
            await until(lambda: scene.watch.facts.peers and told in scene.peer("lb2")[1])

    with other.served(tmp_path) as peer:
        scene.store.put(replace(peer, fingerprint=str(fingerprint or peer.fingerprint)))
        asyncio.run(main())
    if fingerprint is not None:
        assert other.seen == [], "the token was not sent"


def test_two_that_hold_the_vips_are_told_of_and_so_is_none(tmp_path: Path) -> None:
    one, other = OtherBalancer(role="active"), OtherBalancer(role="standby")
    vrrp = HighAvailability(vrrp=Vrrp(84))
    snapshot = replace(
        READY, configuration=replace(CONFIG, config=replace(CONFIG.config, high_availability=vrrp))
    )
    roles = ["standby"]
    scene = Scene(tmp_path, role=lambda: OwnRole(roles[0]))
    scene.snapshot = snapshot
    scene.watch._roles.after = 0.1

    def told() -> list[str]:
        wanted = (EventKind.ROLES_WRONG, EventKind.ROLES_RIGHT)
        return [each.message for each in scene.events.events if each.kind in wanted]

    async def main() -> None:
        async with scene.running():
            scene.store.put(first)
            await until(lambda: scene.watch.facts.peers and scene.peer("lb2")[0])
            roles[0] = "active"
            asked = len(one.seen)
            await until(lambda: len(one.seen) > asked + 5)
            assert told() == [], "lb3 is not heard: who knows"
            scene.store.put(second)
            await until(lambda: told() == ["2 balancers hold the VIPs of VRRP"])
            one.view["role"] = "standby"
            await until(lambda: told()[1:] == ["one balancer holds the VIPs of VRRP"])
            roles[0] = "standby"
            await until(lambda: told()[2:] == ["no balancers hold the VIPs of VRRP"])

    with one.served(tmp_path) as first, other.served(tmp_path, "lb3") as second:
        asyncio.run(main())


def test_a_damaged_file_is_a_problem(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (tmp_path / "peers.json").write_text("x")

    async def main() -> None:
        async with scene.running():
            await until(lambda: scene.watch.facts.problems)

    asyncio.run(main())
    assert "is damaged: no peer is asked until it is repaired" in scene.watch.facts.problems[0]


def test_a_connection_that_was_closed_is_made_anew(tmp_path: Path) -> None:
    other = OtherBalancer()
    with other.served(tmp_path) as peer:
        client = PeerClient(peer, 5.0)
        for _ in range(3):
            assert client.ask("GET", "/peer").json() == {"start": "one"}
        assert other.connections == 1
        client.close()
        assert client.ask("GET", "/peer").status == 200
        assert other.connections == 2
        other.hangs = 1.0
        with pytest.raises(PeerError, match=r"no answer within 0\.1 s"):
            client.ask("GET", "/peer", timeout=0.1)
        client.close()
