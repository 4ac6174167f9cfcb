"""The commands that speak to a daemon, and those that need none where one runs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from support.fake_control import NOW, STEP, FakeControl, make_events
from tula.engine.control import (
    ApplyOutcome,
    BusyError,
    Cycle,
    NothingToConfirmError,
    Order,
    Refusal,
)
from tula.engine.history import Entry
from tula.engine.kernel_state import KernelState
from tula.engine.statistics import CycleOutcome
from tula.engine.store import Store
from tula.model.errors import KernelError
from tula.model.health import BackendStatus, Health, State
from tula.model.problem import PlacedProblem
from tula.model.stats import Counted

Call = Callable[..., Result]
B1 = ("web", "b1")
CONFIGURED = "weight 100, as configured"

NEEDS_DAEMON = [["reload"], ["events"]]
SAYS = [
    ["drain", "web/b1"],
    ["undrain", "web/b1"],
    ["disable", "web/b1"],
    ["enable", "web/b1"],
    ["weight", "web/b1", "5"],
]


@pytest.mark.parametrize("arguments", NEEDS_DAEMON, ids=lambda words: words[0])
def test_without_a_daemon(tula: Call, tmp_path: Path, arguments: list[str]) -> None:
    result = tula(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"tula: no daemon runs here: nobody listens on {tmp_path}/run/tula.sock; "
        "start it: systemctl start tula, or tula run -f tula.yaml\n"
    )


@pytest.mark.parametrize("arguments", [*SAYS, ["apply"]], ids=lambda words: words[0])
def test_without_a_daemon_there_must_be_a_document(tula: Call, arguments: list[str]) -> None:
    result = tula(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert (
        result.stderr
        == "tula: no configuration has been applied here; name one with -f tula.yaml\n"
    )


@pytest.mark.parametrize("option", [["--wait"], ["--deadline", "10m"]], ids=" ".join)
def test_what_only_a_daemon_can_see_to(tula: Call, option: list[str]) -> None:
    result = tula("drain", "web/b1", *option)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"tula: {option[0]} needs the daemon, which watches the drain, and none is running; "
        f"draining without {option[0]} works\n"
    )


@pytest.mark.parametrize(
    "arguments", [*SAYS, ["apply"], ["clear"]], ids=lambda words: str(words[0])
)
def test_a_daemon_that_does_not_listen_here(
    tula: Call, tmp_path: Path, arguments: list[str]
) -> None:
    """It starts, or listens elsewhere: what would change its state directory keeps off."""
    with Store(tmp_path / "state").owned():
        result = tula(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"tula: {tmp_path}/state: a daemon runs here, and does not listen on "
        f"{tmp_path}/run/tula.sock; try again, or give its --run-dir\n"
    )


@pytest.mark.parametrize(
    ("arguments", "done", "says"),
    [
        (
            ["drain", "web/b1"],
            ("drain", B1, None),
            "draining: no new connections, existing ones continue",
        ),
        (
            ["drain", "web/b1", "--deadline", "1h30m"],
            ("drain", B1, 5400.0),
            "draining: no new connections, those left after 1h30m are reset",
        ),
        (
            ["drain", "web/b1", "--deadline", "5"],
            ("drain", B1, 5.0),
            "draining: no new connections, those left after 5s are reset",
        ),
        (
            ["undrain", "web/b1"],
            ("undrain", B1),
            "was not drained; gets new connections",
        ),
        (["disable", "web/b1"], ("disable", B1), "disabled; its connections are reset"),
        (["enable", "web/b1"], ("enable", B1), "was not disabled; gets new connections"),
        (["weight", "web/b1", "0"], ("weight", B1, 0), "weight 0"),
        (["weight", "web/b1", "007"], ("weight", B1, 7), "weight 7"),
        (["weight", "web/b1", "configured"], ("weight", B1, None), CONFIGURED),
        (["weight", "web/b1", "document"], ("weight", B1, None), CONFIGURED),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_operator_says(
    tula: Call, daemon: FakeControl, arguments: list[str], done: tuple[object, ...], says: str
) -> None:
    result = tula(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"web/b1: {says}\n"
    assert daemon.done == [done]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["drain", "web"], "'web': give SERVICE/BACKEND, such as web/cache-1"),
        (["drain", "/b1"], "give SERVICE/BACKEND"),
        (["enable", "web/b1/x"], "give SERVICE/BACKEND"),
        (["drain", "web/b1", "--deadline", "soon"], "--deadline: invalid time 'soon'; give one"),
        (["drain", "web/b1", "--deadline", "0"], "--deadline: 0 is out of range"),
        (["weight", "web/b1", "65536"], "invalid weight '65536'; give 0 to 65535, or configured"),
        (["weight", "web/b1", "٣"], "invalid weight"),
        (
            ["drain", "web/b11"],
            "no backend web/b11 in the running configuration; did you mean web/b1",
        ),
        (
            ["drain", "w b/b1"],
            "no backend w b/b1 in the running configuration; did you mean web/b1?",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant(
    tula: Call, daemon: FakeControl, arguments: list[str], words: str
) -> None:
    result = tula(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("tula: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert daemon.done == []


@pytest.mark.parametrize(
    "error", [BusyError("the daemon ends"), KernelError("nft: no")], ids=lambda e: type(e).__name__
)
@pytest.mark.parametrize("arguments", [*NEEDS_DAEMON, *SAYS, ["status"], ["apply"]], ids=" ".join)
def test_a_daemon_that_cannot(
    tula: Call, daemon: FakeControl, arguments: list[str], error: Exception
) -> None:
    daemon.error = error
    result = tula(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"tula: {error}\n"


def test_drain_waits_until_no_connection_is_left(
    tula: Call, daemon: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.connections = {B1: 2}

    def one_less(_: float) -> None:
        assert daemon.connections is not None
        daemon.connections[B1] -= 1

    monkeypatch.setattr("tula.cli.operate.time.sleep", one_less)
    result = tula("drain", "web/b1", "--wait")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:] == [
        "web/b1: 2 connections left",
        "web/b1: 1 connection left",
        "web/b1: no connections left",
    ]


def test_drain_waits_until_it_is_certain(
    tula: Call, daemon: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An estimate of none is not the end."""
    counts = iter([Counted({B1: 64}, True), Counted({}, True), Counted({}, True, [B1])])
    daemon.connections = next(counts)

    def next_count(_: float) -> None:
        daemon.connections = next(counts)

    monkeypatch.setattr("tula.cli.operate.time.sleep", next_count)
    result = tula("drain", "web/b1", "--wait")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[1:] == [
        "web/b1: about 64 connections left",
        "web/b1: about no connections left",
        "web/b1: no connections left",
    ]


def test_a_drain_that_ends_otherwise(
    tula: Call, daemon: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.connections = {B1: 2}

    def deadline(_: float) -> None:
        daemon.statuses.clear()
        daemon.now += 2

    monkeypatch.setattr("tula.cli.operate.time.sleep", deadline)
    result = tula("drain", "web/b1", "--wait", "--deadline", "1s")
    assert result.exit_code == 0
    ended = "the deadline has passed: the connections that were left are reset"
    assert result.stdout.endswith(f"web/b1: {ended}\n")
    # Who enables it then has not undone the drain, and is told how.
    passed = "drained, and the drain's deadline has passed"
    told = f"was not disabled, but still {passed}; to end that: tula undrain web/b1"
    assert tula("enable", "web/b1").stdout == f"web/b1: {told}\n"
    assert tula("undrain", "web/b1").stdout == "web/b1: no longer draining; gets new connections\n"


def test_a_drain_that_somebody_takes_back_while_it_is_waited_for(
    tula: Call, daemon: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.connections = {B1: 2}

    def undrain(_: float) -> None:
        daemon.overrides.clear()
        daemon.statuses.clear()

    monkeypatch.setattr("tula.cli.operate.time.sleep", undrain)
    result = tula("drain", "web/b1", "--wait")
    assert result.exit_code == 1
    assert result.stderr.startswith("tula: web/b1: the drain was ended by somebody else")


def test_what_is_still_in_force_is_told_with_its_end(tula: Call, daemon: FakeControl) -> None:
    def says(*arguments: str) -> str:
        result = tula(*arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.removeprefix("web/b1: ").removesuffix("\n")

    enable, undrain = "to end that: tula enable web/b1", "to end that: tula undrain web/b1"
    says("disable", "web/b1")
    assert says("disable", "web/b1") == "was disabled already"
    assert says("weight", "web/b1", "50") == f"weight 50, but still disabled; {enable}"
    assert says("undrain", "web/b1") == f"was not drained, but still disabled; {enable}"
    assert says("drain", "web/b1") == f"drained, but still disabled; {enable}"
    assert says("enable", "web/b1") == f"enabled, but still drained; {undrain}"
    assert says("weight", "web/b1", "0") == "weight 0"
    weight = "at weight 0 in place of the configured 100"
    assert says("undrain", "web/b1") == (
        f"no longer draining, but {weight}; to end that: tula weight web/b1 configured"
    )
    assert says("weight", "web/b1", "configured") == CONFIGURED
    daemon.findings[B1] = Health(up=False, since=NOW, evidence="tcp: connection refused")
    says("disable", "web/b1")
    assert says("enable", "web/b1") == "enabled, but down: tcp: connection refused"


@pytest.mark.usefixtures("daemon")
def test_a_drain_whose_connections_nobody_counts(
    tula: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tula.cli.operate.time.sleep", lambda _: None)
    result = tula("drain", "web/b1", "--wait")
    assert result.exit_code == 1
    assert result.stderr == (
        "tula: the number of remaining connections is not known; the drain continues\n"
    )


def test_events(tula: Call, daemon: FakeControl) -> None:
    daemon.happened = make_events(3)
    line = "2027-01-15T08:00:03Z  backend-down web/b1: happening 3; refused"
    assert tula("events", "-n", "1").stdout == f"{line}\n"
    assert len(tula("events").stdout.splitlines()) == 3
    found = json.loads(tula("events", "--json").stdout)["events"]
    assert [event["number"] for event in found] == [1, 2, 3]
    what = {"kind", "severity", "subject", "message", "evidence", "by"}
    assert set(found[0]) == {"number", "time", *what}


def test_events_are_followed(
    tula: Call, daemon: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.happened = make_events(2)
    steps = iter(["more", "fails", "again", "end"])

    def next_look(_: float) -> None:
        step = next(steps)
        daemon.error = BusyError("the daemon starts") if step == "fails" else None
        if step == "more":
            daemon.happened = make_events(3)
        elif step == "again":  # a new daemon, whose numbers begin again, and are beyond the last
            daemon.happened, daemon.epoch = make_events(5), "second"
        elif step == "end":
            raise KeyboardInterrupt

    monkeypatch.setattr("tula.cli.events.time.sleep", next_look)
    result = tula("events", "--follow", "--json")
    numbers = [json.loads(line)["number"] for line in result.stdout.splitlines()]
    assert numbers == [1, 2, 3, 1, 2, 3, 4, 5]
    assert result.stderr == "tula: the daemon starts; waiting for it\n"
    assert result.exit_code == 130


def test_the_daemon_accepts_what_it_is_given(
    tula: Call, daemon: FakeControl, tmp_path: Path
) -> None:
    for arguments in (["apply"], ["apply", "-f", "DOC/tula.yaml"], ["reload"]):
        result = tula(*arguments)
        assert (result.exit_code, result.stderr) == (0, "")
        assert result.stdout == "~ map slots_1_4093  (elements: 7 changed)\n"
    shown = json.loads(tula("apply", "--force", "--json").stdout)
    assert shown == {"changed": True, "summary": [], "steps": [STEP]}
    text = (tmp_path / "tula.yaml").read_bytes()
    assert daemon.done == [
        ("apply", None, Order(how="reload")),
        ("apply", text, Order(how="apply", match=frozenset({daemon.digest}))),
        ("apply", None, Order(how="reload")),
        ("apply", None, Order(how="reload", force=True)),
    ]
    daemon.outcome = ApplyOutcome()
    assert tula("apply").stdout == "nothing changed\n"


def test_a_loss_needs_yes_or_an_answer(
    tula: Call, daemon: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.loss = ("this takes away 40 of 50 services: a, b, c, d, e and 35 more",)
    for arguments in (
        ["apply", "-f", "DOC/tula.yaml"],
        ["apply", "--force"],
        ["reload"],
        ["drain", "web/b1"],
        ["disable", "web/b1"],
        ["weight", "web/b1", "0"],
    ):
        result = tula(*arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"tula: {daemon.loss[0]}\ntula: repeat it with --yes to do it\n"
        assert daemon.done == []
    for answer, status in (("n\n", 1), ("", 1), ("yes\n", 0)):
        monkeypatch.setattr("tula.cli.common.is_terminal", lambda: True)
        result = tula("apply", given=answer)
        assert result.exit_code == status
        assert f"{daemon.loss[0]}\nIs that meant? [y/N] " in result.stderr
    assert len(daemon.done) == 1
    assert tula("disable", "web/b1", "--yes").exit_code == 0


def test_a_configuration_that_waits(tula: Call, daemon: FakeControl) -> None:
    result = tula("apply", "--confirm", "1m")
    assert result.stderr == "goes back in 60s unless you run tula confirm\n"
    assert daemon.done == [("apply", None, Order(how="reload", confirm=60))]
    assert tula("confirm").stdout == "confirmed\n"
    daemon.error = NothingToConfirmError()
    result = tula("confirm")
    assert result.exit_code == 1
    assert result.stderr.startswith("tula: no configuration waits for confirmation")
    for wrong in ("0.5s", "25h", "soon"):
        assert tula("apply", "--confirm", wrong).exit_code == 2


def test_confirm_needs_the_daemon(tula: Call) -> None:
    result = tula("apply", "-f", "DOC/tula.yaml", "--confirm", "60s")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--confirm needs the daemon" in result.stderr


def test_history_diff_and_rollback(tula: Call, daemon: FakeControl) -> None:
    assert tula("history").stdout == "no configuration has been accepted here\n"
    daemon.accepted = (
        Entry(7, 0.0, "abc", "", "at start", ("+ service web: 2 backends",)),
        Entry(8, 60.0, "def", "alice", "apply", ("~ service web: + backend b3",)),
    )
    assert tula("history").stdout == (
        "    7  1970-01-01T00:00:00Z  at start\n"
        "       + service web: 2 backends\n"
        "    8  1970-01-01T00:01:00Z  apply by alice  (in force)\n"
        "       ~ service web: + backend b3\n"
    )
    assert len(json.loads(tula("history", "--json").stdout)["entries"]) == 2
    assert tula("diff", "7").stdout == "--- configuration 7\n+++ running\n"
    result = tula("rollback", "7")
    assert result.stdout == "configuration 7 runs\n"
    assert result.stderr == (
        "/etc/tula/tula.yaml now differs from what runs; tula rollback 7 --write writes it\n"
    )


def test_a_configuration_is_parsed_by_the_daemon_alone(
    tula: Call, daemon: FakeControl, tmp_path: Path
) -> None:
    """The command only reads it: parsing ten thousand services takes seconds, once is enough."""
    text = "services: {}\nfrobs: 1\n"
    (tmp_path / "bad.yaml").write_text(text)
    for command in ("apply", "plan"):
        result = tula(command, "-f", "DOC/bad.yaml")
        assert (result.exit_code, result.stderr) == (0, "")
    daemon.outcome = ApplyOutcome(problems=(PlacedProblem("unknown key", "frobs", 2, 1),))
    result = tula("apply", "-f", "DOC/bad.yaml")
    assert result.exit_code == 2
    assert result.stderr == f"{tmp_path}/bad.yaml:2:1: frobs: unknown key\n"


def test_a_file_that_cannot_be_read(tula: Call, daemon: FakeControl, tmp_path: Path) -> None:
    for command in ("apply", "plan"):
        result = tula(command, "-f", "DOC/none.yaml")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"{tmp_path}/none.yaml: ")
    assert daemon.done == []


def test_a_document_that_the_daemon_refuses(
    tula: Call, daemon: FakeControl, tmp_path: Path
) -> None:
    daemon.outcome = ApplyOutcome(
        problems=(
            PlacedProblem("no interface 'eth9' here", "interfaces[0]", 1, 14),
            PlacedProblem("no such file"),
        )
    )
    result = tula("apply", "-f", "DOC/tula.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"{tmp_path}/tula.yaml:1:14: interfaces[0]: no interface 'eth9' here\n"
        f"{tmp_path}/tula.yaml: no such file\n"
    )
    assert tula("reload").stderr.startswith("/etc/tula/tula.yaml:1:14: interfaces[0]: ")


def test_warnings_of_the_daemons_document(tula: Call, daemon: FakeControl) -> None:
    daemon.outcome = ApplyOutcome(warnings=(PlacedProblem("odd", "services.web", 3, 3),))
    result = tula("reload")
    assert (result.exit_code, result.stdout) == (0, "nothing changed\n")
    assert result.stderr == "warning: /etc/tula/tula.yaml:3:3: services.web: odd\n"


@pytest.mark.usefixtures("daemon")
def test_clear_leaves_it_to_who_stops_the_daemon(tula: Call) -> None:
    result = tula("clear")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "would restore it all; stop it first: systemctl stop tula\n" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("daemon")
def test_trace_asks_the_daemon(tula: Call) -> None:
    flow = ["10.0.0.100:80", "--client", "10.0.0.9:1234"]
    assert tula("trace", *flow).stdout.startswith("web/b")
    later = tula("trace", *flow, "--fragment", "0x1f", "--json")
    assert "first fragment" in json.loads(later.stdout)["reason"]
    asked = tula("trace", *flow, "-f", "DOC/tula.yaml")
    assert asked.stdout.startswith("web/one: "), "with -f the configuration is meant"


def test_status_of_a_daemon_in_good_order(tula: Call, daemon: FakeControl) -> None:
    daemon.statuses = {
        name: BackendStatus(State.UP, 100, present=True, reason="all checks pass")
        for name in (B1, ("web", "b2"))
    }
    result = tula("status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "REASON" not in result.stdout
    head, *table = result.stdout.splitlines()
    assert head.startswith("OK: daemon up since ")
    assert head.endswith("; kernel in sync; 1 service up; 2 backends up; not checked: web")
    assert len(table) == 4
    assert tula("status", "--check").exit_code == 0


def test_status_begins_with_what_is_wrong(tula: Call, daemon: FakeControl) -> None:
    daemon.statuses = {
        B1: BackendStatus(State.DOWN, 0, present=False, reason="refused"),
        ("web", "b2"): BackendStatus(State.UP, 100, present=True),
    }
    daemon.kernel = KernelState(
        ("VIP 10.0.0.100 is missing on eth0", "map x differs"), interfaces={"eth1": "down"}
    )
    result = tula("status", "--check")
    assert result.exit_code == 1
    head = result.stdout.splitlines()[0]
    assert head.startswith("PROBLEM: daemon up since ")
    assert head.endswith(
        "; kernel out of sync: VIP 10.0.0.100 is missing on eth0 (and 1 more); interface eth1 is "
        "down; 1 service up; 1 of 2 backends up, 1 down; not checked: web"
    )
    assert tula("status").exit_code == 0
    found = json.loads(tula("status", "--json", "--check").stdout)
    assert found["kernel"]["in_sync"] is False
    assert found["summary"] == {"fine": False, "text": head}


def test_status_tells_why(tula: Call, daemon: FakeControl) -> None:
    daemon.statuses = {
        B1: BackendStatus(State.DOWN, 0, present=False, reason="tcp to 10.0.0.100: refused"),
        ("web", "b2"): BackendStatus(State.UP, 25, present=True, reason="slow start"),
    }
    daemon.findings = {("web", "b2"): Health(True, NOW, warning="certificate expires in 3 days")}
    _, head, _, one, two = tula("status").stdout.splitlines()
    assert head.split()[-1] == "REASON"
    assert one.split()[4:7] == ["100", "down", "0"]
    assert one.endswith("tcp to 10.0.0.100: refused")
    assert two.split()[4:7] == ["25/100", "up", "0"]
    assert two.endswith("  slow start; warning: certificate expires in 3 days")
    found = json.loads(tula("status", "--json").stdout)["services"][0]["backends"]
    assert found[1] == {
        "name": "b2",
        "address": ["10.0.0.12", "2001:db8::c"],
        "weight": 100,
        "backup": 0,
        "forwarding": "l2",
        "packets": 0,
        "bytes": 0,
        "state": "up",
        "reason": "slow start",
        "since": NOW,
        "effective_weight": 25,
        "serving": True,
        "rates": None,
        "connections": None,
        "connections_estimated": False,
        "warning": "certificate expires in 3 days",
        "tunnel": None,
    }


def test_status_is_loud_first(
    tula: Call, daemon: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tula.engine.summary.time.localtime", time.gmtime)
    problems = (PlacedProblem("unknown key", "frobs", 2, 1), PlacedProblem("more"))
    daemon.facts = replace(
        daemon.facts,
        refused=Refusal(NOW, problems),
        problems=("probes: no socket",),
        last_cycle=Cycle(NOW, 0.1, CycleOutcome.FAILED, "nft: no room"),
    )
    daemon.panics = ["web"]
    result = tula("status")
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [
        "WARNING: /etc/tula/tula.yaml has been refused since 2027-01-15 08:00:00: 2:1: frobs: "
        "unknown key (and 1 more); the previous configuration still runs",
        "WARNING: probes: no socket",
        "WARNING: updating the kernel failed at 2027-01-15 08:00:00: nft: no room",
        "WARNING: web: too few backends are up, so all of them serve (panic)",
    ]
    answer = json.loads(tula("status", "--json").stdout)
    assert answer["services"][0]["panic"] is True
    assert answer["daemon"]["configuration"]["refused"]["problems"][0]["line"] == 2
    assert answer["daemon"]["last_cycle"]["outcome"] == "failed"
