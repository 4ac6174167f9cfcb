"""Tokens: made, listed, revoked; what counts, and what does not."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tula.engine.authenticator import Authenticator, Reason, Refused
from tula.engine.callers import Grant, Scope, parse_grant
from tula.engine.tokens import TOKENS, Token, TokenError, TokenStore, looks_like_token
from tula.model.errors import StateError

READ = Grant(Scope.READ)
NOW = 1_800_000_000.0


class Wall:
    """A clock that the test sets."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def bearer(secret: str) -> str:
    return f"Bearer {secret}"


def reason(found: Token | Refused) -> Reason:
    assert isinstance(found, Refused)
    assert found.status in (401, 503)
    return found.reason


def test_a_token_is_shown_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    store = TokenStore(tmp_path, Wall())
    secret, made = store.create("grafana", READ, 3600, "root")
    assert looks_like_token(secret)
    assert (made.name, made.expires, made.by) == ("grafana", NOW + 3600, "root")
    assert store.tokens() == (made,)
    assert secret not in (tmp_path / TOKENS).read_text()
    status = (tmp_path / TOKENS).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_uid == tmp_path.stat().st_uid


@pytest.mark.parametrize("name", ["", "Grafana", "a/b", "x" * 64, "a b", "é"])
def test_names_are_those_of_configurations(tmp_path: Path, name: str) -> None:
    with pytest.raises(TokenError, match="use 1 to 63 of a-z, 0-9 and -"):
        TokenStore(tmp_path).create(name, READ, None, "root")
    with pytest.raises(TokenError):
        TokenStore(tmp_path).create("fine", Grant(Scope.BACKEND, name or "?"), None, "root")
    assert not (tmp_path / TOKENS).exists()


def test_a_name_has_one_token(tmp_path: Path) -> None:
    store = TokenStore(tmp_path)
    secret, _ = store.create("ci", READ, None, "root")
    before = (tmp_path / TOKENS).read_bytes()
    with pytest.raises(TokenError, match="there is a token ci already; revoke it"):
        store.create("ci", Grant(Scope.CONFIGURE), None, "root")
    with pytest.raises(TokenError, match="no token 'cd'; there are ci"):
        store.revoke("cd")
    assert (tmp_path / TOKENS).read_bytes() == before
    assert isinstance(Authenticator(tmp_path).authenticate(bearer(secret)), Token)


def test_what_counts(tmp_path: Path) -> None:
    wall = Wall()
    store, gate = TokenStore(tmp_path, wall), Authenticator(tmp_path, wall)
    nobodys = "tula_" + "x" * 43
    assert reason(gate.authenticate(bearer(nobodys))) is Reason.UNKNOWN
    secret, made = store.create("ci", parse_grant("backend:b1"), 60, "root")
    assert gate.authenticate(bearer(secret)) == made
    assert gate.authenticate(f"bearer   {secret} ") == made
    for nothing in (None, "", "  "):
        assert reason(gate.authenticate(nothing)) is Reason.NO_TOKEN
    for wrong in (secret, f"Basic {secret}", "Bearer", bearer(secret[:-1]), bearer(made.digest)):
        assert reason(gate.authenticate(wrong)) is Reason.MALFORMED
    assert reason(gate.authenticate(bearer(secret[:-1] + "~"))) is Reason.MALFORMED
    assert reason(gate.authenticate(bearer(nobodys))) is Reason.UNKNOWN


def test_the_end_of_a_token_is_at_once(tmp_path: Path) -> None:
    wall = Wall()
    store, gate = TokenStore(tmp_path, wall), Authenticator(tmp_path, wall)
    short, first = store.create("short", READ, 60, "root")
    long, second = store.create("long", READ, None, "root")
    assert gate.still_valid(first)
    wall.now += 60
    assert reason(gate.authenticate(bearer(short))) is Reason.EXPIRED
    assert (gate.still_valid(first), gate.still_valid(second)) == (False, True)
    store.revoke("long")
    assert reason(gate.authenticate(bearer(long))) is Reason.UNKNOWN
    assert not gate.still_valid(second)
    # One of the same name is another token.
    again, third = store.create("long", Grant(Scope.PEER), None, "root")
    assert reason(gate.authenticate(bearer(long))) is Reason.UNKNOWN
    assert (gate.still_valid(second), gate.still_valid(third)) == (False, True)
    (tmp_path / TOKENS).unlink()
    assert reason(gate.authenticate(bearer(again))) is Reason.UNKNOWN


def damages(text: str) -> dict[str, str]:
    data = json.loads(text)
    return {
        "torn": text[: len(text) // 2],
        "empty": "",
        "another scope": text.replace('"read"', '"all"'),
        "a local scope": text.replace('"read"', '"local"'),
        "no scope": text.replace('"scope"', '"scop"'),
        "no expiry": text.replace('"expires"', '"until"'),
        "an expiry that never comes": text.replace('"expires": null', '"expires": NaN'),
        "a short digest": text.replace(data["tokens"][0]["sha256"], "abc"),
        "a later version": text.replace('"version": 1', '"version": 2'),
        "twice": json.dumps(data | {"tokens": data["tokens"] * 2}),
        "a list": "[]",
        "deep": "[" * 100_000,
        "not text": "\udcff",
    }


@pytest.mark.parametrize("damage", damages('{"version":1,"tokens":[{"sha256":"x"}]}'))
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, damage: str) -> None:
    store, told = TokenStore(tmp_path), list[str]()
    secret, made = store.create("ci", READ, None, "root")
    gate = Authenticator(tmp_path, on_unreadable=told.append)
    assert gate.authenticate(bearer(secret)) == made
    path = tmp_path / TOKENS
    whole = path.read_text()
    path.write_bytes(damages(whole)[damage].encode(errors="surrogateescape"))
    for _ in range(3):
        assert reason(gate.authenticate(bearer(secret))) is Reason.UNREADABLE
        assert not gate.still_valid(made)
    assert len(told) == 1
    assert "tokens.json is damaged" in told[0]
    changes = (store.tokens, lambda: store.create("b", READ, None, ""), lambda: store.revoke("ci"))
    for change in changes:
        with pytest.raises(StateError, match=r"tokens\.json is damaged: no token counts"):
            change()
    assert "tokens.json is damaged" in gate.problem()
    path.write_text(whole)
    assert gate.problem() == ""
    assert gate.authenticate(bearer(secret)) == made, "repaired"


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / TOKENS).symlink_to("/etc/passwd")
    gate = Authenticator(tmp_path)
    assert reason(gate.authenticate(bearer("tula_" + "x" * 43))) is Reason.UNREADABLE
    with pytest.raises(StateError, match="symbolic link"):
        TokenStore(tmp_path).tokens()


def test_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tula.engine.tokens import TokenStore\n"
        "from tula.engine.callers import Grant, Scope\n"
        "for n in range(5): TokenStore(Path(sys.argv[1])).create(\n"
        "    f'{sys.argv[2]}-{n}', Grant(Scope.READ), None, 'x')"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path, str(each)]) for each in range(4)
    ]
    assert [process.wait(60) for process in started] == [0] * 4
    assert len(TokenStore(tmp_path).tokens()) == 20


def test_the_gateway_needs_little_for_it() -> None:
    code = (
        "import tula.engine.authenticator, tula.engine.refusals, sys\n"
        "print(*[m for m in ('fastapi', 'pydantic', 'yaml', 'pyroute2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.split() == []
