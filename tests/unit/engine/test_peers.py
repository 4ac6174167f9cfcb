"""The file of peers, the lines that are pasted, and what balancers tell each other."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from http.client import HTTPMessage
from pathlib import Path

import pytest

from support.builders import make_backend, make_config, make_service
from tula.engine.peer_client import PeerAnswer, PeerError
from tula.engine.peer_view import (
    Details,
    NoViewError,
    Otherwise,
    View,
    describe_details,
    digest_of_details,
    parse_view,
    same_configuration,
    same_overrides,
    seen_otherwise,
)
from tula.engine.peers import Line, LineError, Peer, PeerStore, parse_line
from tula.engine.shared_digest import overrides_digest, shared_digest
from tula.model.errors import StateError
from tula.model.health import BackendStatus, Override, State
from tula.model.listening import ApiSettings, Source

TOKEN = "tula_" + "a" * 43
PEER = Peer("lb2", "https://[2001:db8::2]:8420", "ab" * 32, TOKEN)


def test_the_file_keeps_peers_for_its_owner_alone(tmp_path: Path) -> None:
    store = PeerStore(tmp_path)
    assert store.peers() == ()
    store.put(PEER)
    store.put(replace(PEER, name="lb3"))
    again = replace(PEER, token="tula_" + "b" * 43)
    store.put(again)
    assert store.peers() == (again, replace(PEER, name="lb3"))
    assert stat.S_IMODE((tmp_path / "peers.json").stat().st_mode) == 0o600
    assert (PEER.host, PEER.port) == ("2001:db8::2", 8420)
    assert TOKEN not in repr(PEER)
    assert (store.remove("lb3"), store.remove("lb3")) == (True, False)
    text = (tmp_path / "peers.json").read_text()
    for damage in ("", "{}", text.replace("https", "http"), text.replace("tula_b", "x")):
        (tmp_path / "peers.json").write_text(damage)
        with pytest.raises(StateError, match="is damaged: no peer is asked until it is repaired"):
            store.peers()


def test_a_line_is_pasted_as_it_was_printed() -> None:
    for answer in (False, True):
        line = Line(PEER, "lb1", answer)
        assert parse_line(f"  {line}\r\n") == line
    words = str(line).split()
    for wrong in ("", "tula-peer-answer", TOKEN, " ".join(words[:-1]), " ".join([*words, "x"])):
        with pytest.raises(LineError) as error:
            parse_line(wrong)
        assert TOKEN not in str(error.value)
    for at, word in ((0, "tula-peer-other"), (1, "LB"), (2, "_"), (3, "http://lb2:8420"), (4, "x")):
        with pytest.raises(LineError):
            parse_line(" ".join([*words[:at], word, *words[at + 1 :]]))


def test_what_belongs_to_one_machine_makes_no_difference() -> None:
    config = make_config(make_service(backends=[make_backend(1)]))
    own = replace(config, api=ApiSettings(certificate="/c.pem", source=Source.API))
    assert shared_digest(own) == shared_digest(config)
    other = make_config(make_service(backends=[make_backend(2)]))
    assert shared_digest(other) != shared_digest(config)
    name = ("web", "b1")
    # When somebody drained makes no difference either; whether does.
    assert overrides_digest({name: Override(drain=True, since=1.0)}) == overrides_digest(
        {name: Override(drain=True, since=2.0, deadline=9.0)}
    )
    assert overrides_digest({name: Override(drain=True)}) != overrides_digest({})


def own_details(*down: str, drained: tuple[str, ...] = ()) -> Details:
    config = make_config(make_service(backends=[make_backend(1), make_backend(2)]))
    service = config.services[0].name
    statuses = {
        (service, backend.name): BackendStatus(
            State.DOWN if backend.name in down else State.UP, 0, present=True
        )
        for backend in config.services[0].backends
    }
    overrides = {(service, name): Override(drain=True, since=3.0) for name in drained}
    return describe_details(config, statuses, overrides)


def make_view(details: Details, **values: object) -> View:
    digest = digest_of_details(details.describe())
    made = View(
        name="lb2",
        start="s1",
        time=5.0,
        digest="d1",
        shared_digest="e1",
        overrides_digest=details.overrides_digest,
        details_digest=digest,
        details=details,
    )
    return replace(made, **values)  # type: ignore[arg-type]


def test_details_are_sent_to_who_has_not_got_them() -> None:
    view = make_view(own_details("b1", drained=("b2",)))
    whole = parse_view(view.describe())
    assert whole.details == replace(view.details or Details(), overrides_digest="")
    assert view.describe(view.details_digest)["details"] is None
    assert parse_view(view.describe(view.details_digest), whole).details is whole.details
    assert parse_view(view.describe(view.details_digest)).details is None
    other = parse_view(replace(view, details_digest="x").describe("x"), whole)
    assert other.details is None


def test_another_version_is_understood() -> None:
    view = make_view(own_details())
    newer = view.describe() | {"mood": "fine", "configuration": {"digest": "d1", "flavour": 7}}
    newer["details"] |= {"overrides": {"web/b1": {"drain": True, "speed": 9}}}
    found = parse_view(newer)
    assert (found.digest, found.shared_digest, found.version) == (
        "d1",
        "",
        view.describe()["version"],
    )
    assert found.details is not None
    assert found.details.overrides == {"web/b1": {"drain": True, "disable": False, "weight": None}}
    older = parse_view({"start": "s"})
    assert (older.name, older.ready, older.time, older.details) == ("", True, None, None)
    for wrong in (None, [], {}, {"start": 1, "peers": [7]}, {"start": "s", "time": "noon"}):
        with pytest.raises(NoViewError):
            parse_view(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"time": float("nan")},
        {"time": float("inf")},
        {"time": 10**400},
        {"schema": float("inf")},
        {"schema": 10**400},
        {"flows": {"sent": -1}},
        {"details": {"services": float("nan")}},
    ],
)
def test_numbers_that_no_balancer_tells(wrong: dict[str, object]) -> None:
    """Status could not be JSON with them."""
    with pytest.raises(NoViewError):
        parse_view({"start": "s", **wrong})


def test_nothing_that_a_peer_says_is_obeyed_by_a_terminal() -> None:
    evil = "\x1b[2J\x1b]0;lb1\x07\ud800"
    details = {"states": {f"web/{evil}": evil}, "overrides": {f"web/{evil}": {}}}
    said = {"start": evil, "version": evil * 1000, "role": evil, "name": evil, "details": details}
    found = parse_view({**said, "configuration": {"digest": evil}})
    assert found.name == found.role == found.digest == "?[2J?]0;lb1??"
    assert len(found.version) == 200
    assert found.details is not None
    assert dict(found.details.states) == {f"web/{found.name}": found.name}
    headers = HTTPMessage()
    body = json.dumps({"errors": [{"message": f"no {evil}"}]}).encode()
    assert PeerAnswer(500, headers, body, 0.0, 0.0).refusal() == f"no {found.name}"
    with pytest.raises(PeerError):
        PeerAnswer(200, headers, b'{"time": NaN}', 0.0, 0.0).json()


def test_what_is_equal_and_what_cannot_be_told() -> None:
    own = make_view(own_details())
    assert same_configuration(own, replace(own, digest="d2"))
    assert same_configuration(own, replace(own, shared_digest="e2"))
    assert same_configuration(own, replace(own, digest="d2", shared_digest="e2")) is False
    # A version that tells no shared digest: the texts decide.
    assert same_configuration(own, replace(own, digest="d2", shared_digest="")) is False
    assert same_configuration(own, View(start="s")) is None
    assert same_overrides(own, replace(own, overrides_digest="of another version"))
    drained = make_view(own_details(drained=("b1",)))
    assert same_overrides(own, drained) is False
    assert same_overrides(own, View(start="s")) is None


def test_each_keeps_its_own_view_of_health() -> None:
    here, there = own_details("b1"), own_details("b2")
    known = frozenset({"web/b1", "web/b2"})
    assert seen_otherwise(here, there, known) == (
        Otherwise("web/b1", "down", "up"),
        Otherwise("web/b2", "up", "down"),
    )
    assert seen_otherwise(here, here, known) == ()
    assert seen_otherwise(here, there, {"web/b2"}) == (Otherwise("web/b2", "up", "down"),)
