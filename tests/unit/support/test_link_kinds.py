"""Tests whose link kinds the kernel lacks fail or are left for the VM; none is skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import link_kinds

pytest_plugins = ["pytester"]

SUITE = """
import pytest

@pytest.mark.link_kinds("veth")
def test_has(): pass

@pytest.mark.link_kinds("veth", "gre")
def test_lacks(): pass

@pytest.mark.link_kinds("fou", "gre")
def test_lacks_two(): pass

def test_plain(): pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Four tests, on a kernel that has veth and no more."""
    monkeypatch.setattr(link_kinds, "has_link_kind", lambda kind: kind == "veth")
    pytester.makeini("[pytest]\nmarkers = link_kinds(*kinds): x\naddopts = -p no:cacheprovider")
    pytester.makepyfile(SUITE)
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.HookRecorder:
    return suite.inline_run(*arguments, plugins=[link_kinds])


def test_without_the_option_a_missing_kind_is_a_failure(suite: pytest.Pytester) -> None:
    result = run(suite)
    result.assertoutcome(passed=2, failed=2)
    said = str(result.getfailures()[0].longrepr)
    assert "lacks gre" in said
    assert "make test-vm T='" in said


def test_with_it_the_others_run_and_the_file_names_what_is_left(
    suite: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    run(suite, "--left-for-vm", "new/left").assertoutcome(passed=2)
    named = (suite.path / "new/left").read_text().splitlines()
    assert [line.partition("::")[2] for line in named] == ["test_lacks", "test_lacks_two"]
    said = capsys.readouterr().out
    assert "1 need fou, gre, which this kernel lacks" in said
    assert "2 did not run here" in said


def test_what_was_deselected_is_not_left(suite: pytest.Pytester) -> None:
    run(suite, "--left-for-vm", "left", "-k", "lacks_two or plain")
    assert Path("left").read_text().count("\n") == 1


def test_when_nothing_is_missing_the_file_is_empty(suite: pytest.Pytester) -> None:
    run(suite, "--left-for-vm", "left", "-k", "has or plain").assertoutcome(passed=2)
    assert Path("left").read_text() == ""
