"""A change on all balancers reaches all or none, whoever refuses, is away, or dies in between.

Three daemons with their gateways, in processes of their own, on fake kernels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

import support
from support.killed_balancers import Balancers, balancers, changed, wait_until_dead
from tula.cli.main import app
from tula.engine.history import digest_of
from tula.lab.wait import wait_until

SOAK = bool(os.environ.get("TULA_SOAK"))
YAML = {"Content-Type": "application/yaml"}
WEB = "/everywhere/services/web/backends"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancers]:
    before = os.environ.get("PYTHONPATH")
    # Without it the server that forks cannot import what each life would import otherwise.
    os.environ["PYTHONPATH"] = str(Path(support.__file__).parents[1])
    try:
        with balancers(tmp_path_factory.mktemp("b")) as made:
            yield made
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


@pytest.fixture(autouse=True)
def all_alive(three: Balancers) -> Iterator[None]:
    yield
    three.revive()
    three.wait_until_alike()


def results(answer: httpx2.Response) -> dict[str, str]:
    return {each["machine"]: each["result"] for each in answer.json()["machines"]}


def messages(answer: httpx2.Response) -> str:
    return "\n".join(each["message"] for each in answer.json()["errors"])


def test_all_have_it(three: Balancers) -> None:
    before, text = three["lb1"].running, changed("all")
    dry = three["lb1"].apply(text, "?dry_run=true")
    assert results(dry) == {"lb1": "would", "lb2": "would", "lb3": "would"}
    assert three.texts() == {before}
    done = three["lb1"].apply(text)
    assert done.is_success, done.text
    assert done.json()["done"]
    assert results(done) == {"lb1": "done", "lb2": "done", "lb3": "done"}
    three.wait_for(text)
    assert "everywhere-done" in three["lb1"].kinds()
    for name, by in (("lb1", "root"), ("lb2", "root@lb1")):
        entry = three[name].client.get("/history").json()["entries"][-1]
        assert (entry["by"], entry["how"]) == (by, "apply everywhere")
        entries = three[name].client.get("/audit").json()["entries"]
        who = {(each["who"], each["action"], each["result"]) for each in entries}
        told = ("root", "apply_everywhere") if name == "lb1" else ("token:peer-lb1", "prepare")
        assert (*told, "done") in who


def test_one_that_refuses(three: Balancers) -> None:
    """Nothing changes anywhere; then all at once, when it is asked for again."""
    before, text = three["lb1"].running, changed("refused")
    three["lb2"].client.post("/apply?confirm=600", content=changed("x").encode(), headers=YAML)
    refused = three["lb1"].apply(text)
    assert refused.status_code == 422, refused.text
    assert "lb2: a configuration waits for confirmation here" in messages(refused)
    assert {three[name].running for name in ("lb1", "lb3")} == {before}
    three["lb2"].client.post("/rollback")
    wrong = three["lb3"].apply(text.replace('protocol: ["tcp"]', 'protocol: ["icmp"]'))
    assert wrong.status_code == 422, wrong.text
    assert wrong.json()["type"].endswith("configuration"), "with its place"
    assert wrong.json()["errors"][0]["line"]
    assert three.texts() == {before}


def test_one_that_is_away(three: Balancers) -> None:
    before, text = three["lb1"].running, changed("away")
    three["lb3"].kill()
    refused = three["lb1"].apply(text)
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("unreachable")
    assert "lb3: " in messages(refused)
    assert three["lb1"].running == three["lb2"].running == before
    drained = three["lb1"].client.post(f"{WEB}/b0/drain")
    assert drained.status_code == 409
    assert "lb3: " in messages(drained)
    done = three["lb1"].apply(text, "?reachable=true")
    assert results(done) == {"lb1": "done", "lb2": "done", "lb3": "left-out"}
    three["lb3"].start()
    again = three["lb3"].apply(text)
    assert again.is_success, again.text


def test_confirmed_on_all_by_another_one(three: Balancers) -> None:
    before, text = three["lb1"].running, changed("confirm")
    waits = three["lb1"].apply(text, "?confirm=600")
    assert results(waits) == {"lb1": "waits", "lb2": "waits", "lb3": "waits"}
    assert [three[name].running for name in three.of] == [text] * 3
    assert [three[name].accepted for name in three.of] == [before] * 3
    assert [each.status["configuration"]["confirm_everywhere"] for each in three.of.values()] == [
        True
    ] * 3
    alone = three["lb2"].client.post("/confirm")
    assert alone.status_code == 422
    assert "tula confirm --everywhere" in messages(alone)
    done = three["lb2"].client.post("/everywhere/confirm")
    assert done.is_success, done.text
    three.wait_for(text)
    nothing = three["lb2"].client.post("/everywhere/confirm")
    assert nothing.status_code == 409


def test_not_confirmed_in_time(three: Balancers) -> None:
    before = three["lb1"].running
    assert three["lb1"].apply(changed("late"), "?confirm=2").is_success
    three.wait_for(before)
    assert three["lb1"].apply(changed("later"), "?confirm=600").is_success
    back = three["lb3"].client.post("/everywhere/rollback")
    assert back.is_success, back.text
    assert set(results(back).values()) == {"taken-back"}
    three.wait_for(before)


def test_back_by_its_digest(three: Balancers) -> None:
    first, second = changed("first"), changed("second")
    assert three["lb1"].apply(first).is_success
    assert three["lb1"].apply(second).is_success
    digest = digest_of(first.encode())
    back = three["lb2"].client.post(f"/everywhere/rollback?digest={digest[:12]}")
    assert back.is_success, back.text
    three.wait_for(first)
    assert three["lb2"].client.post("/everywhere/rollback").is_success
    three.wait_for(second)
    local = three["lb3"].client.post(f"/rollback?digest={digest[:12]}&dry_run=true").json()
    assert local["digest"] == digest
    unknown = three["lb2"].client.post("/everywhere/rollback?digest=0123456789")
    assert unknown.status_code == 422


def test_overrides(three: Balancers) -> None:
    """What takes the last one is asked about before any changes."""
    one = three["lb1"].client
    done = one.post(f"{WEB}/b0/drain", json={"deadline": 600})
    assert done.is_success, done.text
    assert [each["backend"]["after"]["state"] for each in done.json()["machines"]] == [
        "draining"
    ] * 3
    loss = one.post(f"{WEB}/b1/disable")
    assert (loss.status_code, loss.json()["type"][-4:]) == (409, "loss")
    assert "lb2: " in messages(loss)
    backend = "/services/web/backends/b1"
    assert {three[n].client.get(backend).json()["state"] for n in three.of} != {"disabled"}
    assert one.post(f"{WEB}/none/drain").status_code == 404
    assert one.put(f"{WEB}/b0/weight", json={"weight": 7}).is_success
    assert one.post(f"{WEB}/b0/undrain").is_success
    found = [three[n].client.get("/services/web/backends/b0").json() for n in three.of]
    assert {each["effective_weight"] for each in found} == {7}
    assert one.put(f"{WEB}/b0/weight", json={"weight": None}).is_success


def test_the_commands(three: Balancers, tmp_path: Path) -> None:
    before, digest = three["lb1"].running, ""
    file, text = tmp_path / "new.yaml", changed("commands")
    file.write_text(text)

    def tula(*words: str, status: int = 0) -> str:
        folder = three["lb1"].life.directory
        env = {"TULA_RUN_DIR": folder, "TULA_STATE_DIR": f"{folder}/state"}
        done = CliRunner().invoke(app, list(words), env=env)
        assert done.exit_code == status, done.output
        return str(done.stdout if status == 0 else done.output)

    apply = ("apply", "-f", str(file), "--everywhere")
    digest = digest_of(text.encode())[:12]
    told = tula(*apply)
    assert told == "".join(f"lb{n}: configuration {digest} runs\n" for n in (1, 2, 3))
    assert json.loads(tula(*apply, "--json"))["done"] is True
    previous = digest_of(before.encode())[:12]
    told = tula("rollback", previous, "--everywhere")
    assert told.splitlines()[2] == f"lb3: configuration {previous} runs"
    assert "lb2: configuration" in tula(*apply, "--confirm", "600s")
    assert "tula confirm --everywhere" in tula("confirm", status=2)
    assert len(tula("confirm", "--everywhere").splitlines()) == 3
    told = tula("drain", "web/b0", "--everywhere")
    line = "web/b0: draining: no new connections, existing ones continue"
    assert told.splitlines() == [f"lb{n}: {line}" for n in (1, 2, 3)]
    assert "lb2: this leaves service web" in tula("disable", "web/b1", "--everywhere", status=1)
    assert "lb2: web/b0" in tula("undrain", "web/b0", "--everywhere")
    assert "weight 5" in tula("weight", "web/b0", "5", "--everywhere")
    assert tula("weight", "web/b0", "configured", "--everywhere", "--json")
    assert "no backend web/none" in tula("drain", "web/none", "--everywhere", status=2)
    tula("drain", "web/b0", "--reachable", status=2)
    tula("rollback", "nonsense", status=2)
    file.write_text(text.replace('protocol: ["tcp"]', 'protocol: ["icmp"]'))
    assert f"{file}:" in tula(*apply, status=2)
    three["lb2"].kill()
    assert "lb2: " in tula("drain", "web/b0", "--everywhere", status=1)
    told = tula("drain", "web/b0", "--everywhere", "--reachable")
    assert "lb2: left out: " in told
    three["lb2"].start()
    tula("undrain", "web/b0", "--everywhere")


def test_nobody_asks_on(three: Balancers) -> None:
    """A balancer that asks another for a change of all is refused."""
    peers = json.loads((Path(three["lb2"].life.directory) / "state/peers.json").read_text())
    peer = next(each for each in peers["peers"] if each["name"] == "lb1")
    with httpx2.Client(verify=False) as client:
        headers = {"Authorization": f"Bearer {peer['token']}", **YAML, "If-Match": "*"}
        url = f"{peer['url']}/api/v1/everywhere"
        for path in ("apply", "confirm", "rollback", "services/web/backends/b0/drain"):
            answer = client.post(f"{url}/{path}", headers=headers, content=b"")
            assert answer.status_code == 403, (path, answer.text)


COORDINATOR = ["after:begin", "after:take", "before:decide", "after:decide", "after:keep"]
PARTICIPANT = ["before:take", "after:take", "before:keep", "after:keep"]
ALL = [
    *(("lb1", step) for step in (*COORDINATOR, "before:begin", "before:settle", "after:settle")),
    *(("lb2", step) for step in (*PARTICIPANT, "before:abort", "after:abort")),
]
SOME = [
    ("lb1", "after:take"),
    ("lb1", "after:decide"),
    ("lb2", "after:take"),
    ("lb2", "before:keep"),
]


@pytest.mark.parametrize(("name", "step"), ALL if SOAK else SOME)
def test_one_is_killed(three: Balancers, name: str, step: str) -> None:
    """lb1 coordinates; whoever is killed comes back. All old or all new, and the answer is true."""
    before, text = three["lb1"].running, changed(f"{name} {step}")
    three[name].kill()
    three[name].start(dies=step)
    answer: httpx2.Response | None = None
    if step.endswith("abort"):
        three["lb3"].kill()
        three["lb3"].start(dies="before:take")
    with suppress(httpx2.TransportError):
        answer = three["lb1"].apply(text)
    wait_until_dead(three[name])
    survivors = [each for each in three.of.values() if each.alive]
    decided = step in ("after:decide", "after:keep", "before:settle", "after:settle")
    decided = (decided and name == "lb1") or step in ("before:keep", "after:keep")
    if name == "lb2" and step == "before:keep":
        assert answer is not None
        assert results(answer)["lb2"] == "pending"
        assert not answer.json()["done"]
        assert "lb2 has not confirmed configuration" in three["lb1"].problems
    if not decided:
        assert all(each.accepted == before for each in survivors)
    three.revive()
    assert three.wait_until_alike() == (text if decided else before)
    if answer is not None and not decided:
        assert not answer.is_success
        assert f"{name}: " in messages(answer) or step.endswith("abort")


def test_a_damaged_journal(three: Balancers) -> None:
    """Is an error, and never no decision."""
    before = three["lb1"].running
    path: Any = Path(three["lb1"].life.directory) / "state/everywhere.json"
    kept = path.read_bytes()
    three["lb1"].kill()
    path.write_bytes(kept[: len(kept) // 2])
    three["lb1"].start()
    assert "everywhere.json is damaged" in three["lb1"].problems
    assert three["lb1"].apply(changed("damaged")).status_code == 500
    path.unlink()
    assert three.texts() == {before}


if SOAK:  # the same as in tests/unit/daemon, with processes

    def test_in_doubt(three: Balancers) -> None:
        """Who hears nothing of its coordinator goes back, and is given it when that one is back."""
        before, text = three["lb1"].running, changed("doubt")
        three["lb1"].kill()
        three["lb1"].start(dies="after:decide", hold=1.5)
        for name in ("lb2", "lb3"):
            three[name].kill()
            three[name].start(hold=1.5)
        with suppress(httpx2.TransportError):
            three["lb1"].apply(text)
        wait_until_dead(three["lb1"])
        wait_until(lambda: "everywhere-in-doubt" in three["lb2"].kinds(), 60, "doubt")
        wait_until(lambda: three["lb2"].running == before, 60, "its going back")
        three["lb1"].start()
        assert three.wait_until_alike() == text
