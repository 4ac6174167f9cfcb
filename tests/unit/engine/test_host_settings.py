"""Rule, route and sysctls: brought, remembered, taken back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tula.engine.host_settings import HostSettings, settings_changed
from tula.engine.store import SYSCTLS, ChangedSysctl, Store
from tula.kernel.fake import FakeProbeRoute, FakeSysctls
from tula.model.errors import StateError
from tula.plan.probe_sysctls import InterfaceRequirement, setting, settings_to_read
from tula.plan.probes import ProbePlan

LINKS = ["eth0", "eth1"]
FILTER, LOCAL = setting("eth0", "rp_filter"), setting("eth0", "accept_local")
ALL = setting("all", "rp_filter")
HERE = ProbePlan(versions=(4, 6), needs={"eth0": InterfaceRequirement(True, frozenset({0, 2}))})
AWAY = ProbePlan(versions=(4,), needs={"eth0": InterfaceRequirement(False, frozenset({0}))})
NOTHING = ProbePlan()


class Machine:
    def __init__(self, directory: Path) -> None:
        self.sysctls = FakeSysctls(dict.fromkeys(settings_to_read(LINKS), "0"))
        self.sysctls.values |= {FILTER: "1", ALL: "1"}
        self.route = FakeProbeRoute()
        self.store = Store(directory)
        self.settings = HostSettings(self.route, self.sysctls, self.store)

    def ensure(self, plan: ProbePlan) -> list[str]:
        settled = self.settings.ensure(plan, LINKS)
        assert settled.routed == (not self.route.refuse)
        return list(settled.problems)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_what_is_needed_is_set_once_and_taken_back(machine: Machine) -> None:
    before = dict(machine.sysctls.values)
    assert machine.ensure(HERE) == []
    assert machine.route.versions == {4, 6}
    assert (machine.sysctls.values[FILTER], machine.sysctls.values[LOCAL]) == ("2", "1")
    writes = len(machine.sysctls.writes)
    assert machine.ensure(HERE) == []
    assert len(machine.sysctls.writes) == writes
    assert machine.settings.remove() == []
    assert machine.sysctls.values == before
    assert machine.route.versions == set()
    assert not (machine.store.directory / SYSCTLS).exists()


def test_what_somebody_undoes_is_noticed_and_made_again(machine: Machine) -> None:
    settings = machine.settings
    assert settings.ensure(HERE, LINKS).changed
    assert not settings_changed(settings.made, machine.sysctls)
    assert not settings.ensure(HERE, LINKS).changed
    name, made = machine.sysctls.writes[-1]
    machine.sysctls.values[name] = "1" if made != "1" else "0"
    assert settings_changed(settings.made, machine.sysctls)
    assert settings.ensure(HERE, LINKS).changed
    assert not settings_changed(settings.made, machine.sysctls)
    machine.route.versions.clear()
    assert settings.ensure(HERE, LINKS).changed, "rule and route too"


def test_no_longer_needed_goes_back_through_any_change(machine: Machine) -> None:
    before = dict(machine.sysctls.values)
    for plan in (HERE, AWAY, HERE, AWAY, NOTHING):
        assert machine.ensure(plan) == []
    assert machine.sysctls.values == before
    assert machine.store.sysctls() == {}


def test_all_is_back_before_the_others_lose_what_stood_for_it(machine: Machine) -> None:
    machine.ensure(AWAY)
    machine.sysctls.writes.clear()
    machine.settings.remove()
    names = [name for name, _ in machine.sysctls.writes]
    assert names.index(ALL) < names.index(setting("eth1", "rp_filter"))


def test_what_somebody_changed_since_stays(machine: Machine) -> None:
    machine.ensure(HERE)
    machine.sysctls.values[FILTER] = "0"
    assert machine.settings.remove() == []
    assert machine.sysctls.values[FILTER] == "0"
    assert machine.sysctls.values[LOCAL] == "0"


def test_a_setting_that_cannot_be_written_is_named_and_the_rest_goes_on(machine: Machine) -> None:
    machine.sysctls.refuse.add(FILTER)
    assert machine.ensure(HERE) == [
        f"cannot set sysctl {FILTER} to 2: Read-only file system",
        "answers from IPv4 VIPs do not come in by eth0: backends there are not checked through "
        "them, and stay in service",
    ]
    assert machine.settings.ensure(HERE, LINKS).closed == {"eth0"}
    assert machine.sysctls.values[LOCAL] == "1"
    assert machine.route.versions == {4, 6}
    assert set(machine.store.sysctls()) == {LOCAL}
    machine.sysctls.refuse = {LOCAL}
    assert machine.settings.remove() == [f"cannot set sysctl {LOCAL} to 0: Read-only file system"]
    machine.sysctls.refuse.clear()
    assert machine.settings.remove() == []
    assert machine.sysctls.values[LOCAL] == "0"


def test_a_route_that_cannot_be_made_is_told_and_the_rest_goes_on(machine: Machine) -> None:
    machine.route.refuse = "cannot route IPv4 probes over lo: no"
    assert machine.ensure(HERE) == ["cannot route IPv4 probes over lo: no"]
    assert machine.sysctls.values[FILTER] == "2"


def test_a_crash_between_record_and_write_is_repaired(machine: Machine) -> None:
    machine.store.save_sysctls({FILTER: ChangedSysctl("1", "2")})
    assert machine.settings.remove() == []
    assert machine.sysctls.values[FILTER] == "1"
    machine.store.save_sysctls({FILTER: ChangedSysctl("1", "2")})
    assert machine.ensure(HERE) == []
    assert machine.sysctls.values[FILTER] == "2"
    machine.settings.remove()
    assert machine.sysctls.values[FILTER] == "1"


def test_an_interface_that_went_is_forgotten(machine: Machine) -> None:
    machine.ensure(HERE)
    for name in (FILTER, LOCAL):
        del machine.sysctls.values[name]
    assert machine.settings.ensure(NOTHING, ["eth1"]).problems == ()
    assert machine.store.sysctls() == {}


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"found": "1"}}', "\xff"])
def test_a_damaged_file_is_as_none(machine: Machine, text: str) -> None:
    (machine.store.directory / SYSCTLS).write_text(text)
    assert machine.store.sysctls() == {}


def test_a_full_disk_is_told_and_nothing_is_set_that_could_not_be_taken_back(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(name: str, _: bytes) -> None:
        raise StateError(f"{name}: No space left on device")

    before = dict(machine.sysctls.values)
    monkeypatch.setattr(machine.store, "_write", full)
    first, second, last = machine.ensure(HERE)
    assert first == f"cannot set sysctl {FILTER}: sysctls.json: No space left on device"
    assert second.startswith(f"cannot set sysctl {LOCAL}: ")
    assert last.startswith("answers from IPv4 VIPs do not come in by eth0")
    assert machine.sysctls.values == before
    monkeypatch.undo()
    assert machine.ensure(HERE) == []
    monkeypatch.setattr(machine.store, "_write", full)
    machine.sysctls.values |= before  # started anew, on a disk that knows what is to be done
    assert machine.ensure(HERE) == []
    assert machine.sysctls.values[FILTER] == "2"
