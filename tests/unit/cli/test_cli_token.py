"""``tula token`` and ``tula audit``."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tula.cli.token_file import read_token_file
from tula.engine.authenticator import Authenticator
from tula.engine.certificates import ensure_own, fingerprint_of
from tula.engine.store import Store
from tula.engine.tokens import Token
from tula.users import user_name

CONFIGURATION = """\
interfaces: [eth0]
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l2
    backends: {one: {address: 10.0.0.11}}
"""
Call = Callable[..., Result]
ME = user_name(os.geteuid())


def audited(tula: Call) -> list[tuple[str, str, str]]:
    found = json.loads(tula("audit", "--json").stdout)["entries"]
    return [(each["action"], each["subject"], each["result"]) for each in found]


def test_a_token_is_made_listed_and_revoked(tula: Call, tmp_path: Path) -> None:
    assert "there are no tokens" in tula("token", "list").stdout
    made = tula("token", "create", "grafana", "--scope", "read", "--expires", "90d")
    assert made.exit_code == 0
    assert made.stderr.startswith("the API has no certificate here yet; when it listens,")
    comment, secret = made.stdout.splitlines()
    assert comment.startswith("# Tula: token grafana, scope read, expires 20")
    found = Authenticator(tmp_path / "state").authenticate(f"Bearer {secret}")
    assert isinstance(found, Token)
    assert found.name == "grafana"
    mine = tula("token", "create", "cache-1", "--scope", "backend:cache-1", "--json")
    assert json.loads(mine.stdout) | {"created": 0, "token": "", "fingerprint": None} == {
        "name": "cache-1",
        "scope": "backend:cache-1",
        "created": 0,
        "expires": None,
        "expired": False,
        "by": ME,
        "token": "",
        "fingerprint": None,
    }
    for listed in (tula("token", "list").stdout, tula("token", "list", "--json").stdout):
        assert "grafana" in listed
        assert "backend:cache-1" in listed
        assert "tula_" not in listed
        assert found.digest[:8] not in listed
    assert tula("token", "revoke", "grafana").stdout == "token grafana is revoked\n"
    assert not isinstance(Authenticator(tmp_path / "state").authenticate(f"Bearer {secret}"), Token)
    assert [t["name"] for t in json.loads(tula("token", "list", "--json").stdout)["tokens"]] == [
        "cache-1"
    ]
    assert audited(tula) == [
        ("token-create", "grafana", "done"),
        ("token-create", "cache-1", "done"),
        ("token-revoke", "grafana", "done"),
    ]
    assert f"  {ME}  token-create cache-1 scope=backend:cache-1  done" in tula("audit").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["create", "Web", "--scope", "read"], "invalid name 'Web'; use 1 to 63 of a-z"),
        (["create", "a", "--scope", "all"], "--scope: no scope 'all'; give read, operate,"),
        (["create", "a", "--scope", "local"], "--scope: no scope 'local'"),
        (["create", "a", "--scope", "backend:"], "--scope: no scope 'backend:'"),
        (["create", "a", "--scope", "backend:A/b"], "no backend can be called 'A/b'"),
        (["create", "a", "--scope", "read", "--expires", "0s"], "--expires: 0s is out of range"),
        (["create", "a", "--scope", "read", "--expires", "soon"], "--expires: invalid time"),
        (["create", "known", "--scope", "peer"], "there is a token known already; revoke it"),
        (["revoke", "other"], "no token 'other'; there are known"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_changes_nothing(
    tula: Call, tmp_path: Path, arguments: list[str], message: str
) -> None:
    assert tula("token", "create", "known", "--scope", "read").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    result = tula("token", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"tula: {message}")
    assert result.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "state").iterdir()} == before


def test_a_damaged_file_is_an_error(tula: Call, tmp_path: Path) -> None:
    tula("token", "create", "known", "--scope", "read")
    (tmp_path / "state" / "tokens.json").write_text("{}")
    for arguments in (["list"], ["create", "a", "--scope", "read"], ["revoke", "known"]):
        result = tula("token", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "tokens.json is damaged: no token counts until it is repaired" in result.stderr
    assert audited(tula)[1:] == [
        ("token-create", "a", "failed"),
        ("token-revoke", "known", "failed"),
    ]


def test_root_leaves_the_files_to_the_daemons_user(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 4242, 4242)
    command = [sys.executable, "-m", "tula", "token", "create", "a", "--scope", "read"]
    subprocess.run([*command, "--state-dir", state], check=True, stdout=subprocess.DEVNULL)
    assert {path.name for path in state.iterdir()} >= {"tokens.json", "audit.jsonl"}
    for path in state.iterdir():
        assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (4242, 0o600), path


def test_a_file_that_others_can_read_is_told(tmp_path: Path) -> None:
    for mask, told in ((0o022, True), (0o077, False)):
        name = f"a{mask}"
        command = [sys.executable, "-m", "tula", "token", "create", name, "--scope", "read"]
        path = tmp_path / name
        path.touch(0o666 & ~mask)
        path.chmod(0o666 & ~mask)
        with path.open("wb") as file:
            done = subprocess.run(
                [*command, "--state-dir", tmp_path / "state"],
                check=True,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert ("chmod 600" in done.stderr) == told
        assert path.read_text().count("\n") == 2


def test_the_certificate_is_pinned_where_it_is_tulas_own(tula: Call, tmp_path: Path) -> None:
    state = tmp_path / "state"
    own = fingerprint_of(ensure_own(state).certificate)
    made = tula("token", "create", "ci", "--scope", "read")
    assert made.stderr == ""
    assert made.stdout.splitlines()[2] == f"sha256:{own}"
    path = tmp_path / "ci.token"
    path.write_text(made.stdout)
    path.chmod(0o600)
    assert read_token_file(path).fingerprints == {own}
    assert f"sha256:{own}" in tula("token", "list").stdout
    assert json.loads(tula("token", "list", "--json").stdout)["fingerprint"] == own
    # Another's may be renewed: who signed it is to be trusted, or whoever pins it does so himself.
    pair = ensure_own(tmp_path / "given")
    given = f"api: {{listen: '10.0.0.2:8420', certificate: {pair.certificate}, key: {pair.key}}}\n"
    Store(state).prepare_configuration((CONFIGURATION + given).encode())()
    made = tula("token", "create", "cd", "--scope", "read")
    path.write_text(made.stdout)
    assert read_token_file(path).fingerprints == set()
    shown = made.stdout.splitlines()[2]
    assert shown.startswith(f"# not pinned, for {pair.certificate} may be renewed: sha256:")
    assert own not in made.stdout
