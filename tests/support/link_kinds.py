"""Tests that need kinds of interfaces which not every kernel has: they run in the VM instead.

``@pytest.mark.link_kinds("ipip", "fou")`` names what a test needs: kinds of ``ip link``, and
``fou`` for ports that receive FOU and GUE. The running kernel is asked by making one of each, in
a namespace of its own. A test whose kinds are missing fails and says so, unless
``--left-for-vm FILE`` leaves it to the VM: then FILE names it, and the summary counts it.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from support.fou import has_fou
from tula.lab.guard import require_private_namespace
from tula.lab.namespace import Namespace

_MISSING: pytest.StashKey[list[str]] = pytest.StashKey()
_LEFT: pytest.StashKey[Counter[str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--left-for-vm",
        metavar="FILE",
        type=Path,
        help="write the tests whose link kinds this kernel lacks to FILE and run the others",
    )


@pytest.hookimpl(trylast=True)  # after -k and -m have had their say
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.stash[_MISSING] = [kind for kind in _needs(item) if not has_link_kind(kind)]
    file: Path | None = config.getoption("--left-for-vm")
    if file is None:
        return
    left = [item for item in items if item.stash[_MISSING]]
    lacking: Iterable[list[str]] = (item.stash[_MISSING] for item in left)
    config.stash[_LEFT] = Counter(", ".join(kinds) for kinds in lacking)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{item.nodeid}\n" for item in left))
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.stash[_MISSING]]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if missing := item.stash[_MISSING]:
        pytest.fail(
            f"this kernel ({os.uname().release}) lacks {', '.join(missing)}; "
            f"a VM with Debian's has them: make test-vm T='{item.nodeid}'",
            pytrace=False,
        )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    left = config.stash.get(_LEFT, Counter())
    if left:
        terminalreporter.section("left for the VM", yellow=True, bold=True)
        for kinds, count in sorted(left.items()):
            terminalreporter.line(f"{count} need {kinds}, which this kernel lacks")
        file = config.getoption("--left-for-vm")
        terminalreporter.line(
            f"{left.total()} did not run here but run in the VM: scripts/vm --left {file}"
        )


def _needs(item: pytest.Item) -> list[str]:
    return sorted({kind for mark in item.iter_markers("link_kinds") for kind in mark.args})


@cache
def has_link_kind(kind: str) -> bool:
    """Whether the running kernel has it, perhaps in a module that is then loaded."""
    if os.geteuid() != 0:
        return True  # cannot ask; the test fails for want of root, as others do
    namespace = Namespace.create()
    try:
        with namespace.enter():
            require_private_namespace()
            return has_fou() if kind == "fou" else _has_link(kind)
    finally:
        namespace.close()


def _has_link(kind: str) -> bool:
    with IPRoute() as netlink:
        try:
            netlink.link("add", ifname="probe", kind=kind)
        except NetlinkError as error:
            # Any other word is from the kind itself: that it exists already, or wants an id.
            return bool(error.code != errno.EOPNOTSUPP)
    return True
