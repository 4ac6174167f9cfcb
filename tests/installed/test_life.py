"""The unit's life: reload, restart, crash, hang and reboot; traffic goes on.

See ``support.site`` for the network.
"""

from __future__ import annotations

import signal

import pytest

from support.site import FILE, Site, configuration
from tula.lab import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def serving(site: Site) -> Site:
    site.serve()
    return site


def kill(site: Site, number: signal.Signals) -> None:
    site.lb.run("kill", f"-{number.name.removeprefix('SIG')}", str(site.pid()))


def test_a_reload_takes_the_file_or_fails_with_the_reason(serving: Site) -> None:
    lb, site = serving.lb, serving
    site.configure(configuration().replace("cache-2", "cache-two"))
    lb.run("systemctl", "reload", "tula")
    assert set(site.states("web")) == {"cache-1", "cache-two"}
    lb.path(FILE).write_text("interfaces: [eth0]\nservices: {web: {vip: nonsense}}\n")
    failed = lb.run("systemctl", "reload", "tula", check=False)
    assert failed.returncode != 0
    journal = lb.run("journalctl", "--unit=tula", "--no-pager", "--output=cat").stdout
    assert f"{FILE}:2:" in journal
    assert lb.show("tula", "ActiveState") == "active"
    assert set(site.answers()) == {"cache-1", "cache-2"}


def test_killed_restarted_and_hung(serving: Site) -> None:
    """``kill -9``, ``systemctl restart``, and SIGSTOP until the watchdog has had enough."""
    site = serving
    with site.load() as load:
        first = site.pid()
        kill(site, signal.SIGKILL)
        wait_until(lambda: site.pid() not in (0, first), 60, "a daemon after kill -9")
        site.wait_until_up()
        load.wait()

        second = site.pid()
        site.lb.run("systemctl", "restart", "tula")
        assert site.pid() not in (0, second)
        site.wait_until_up()
        load.wait()

        third = site.pid()
        kill(site, signal.SIGSTOP)
        wait_until(lambda: site.pid() not in (0, third), 120, "a daemon after a hang")
        site.wait_until_up()
        load.wait()
    journal = site.lb.run("journalctl", "--unit=tula", "--no-pager", "--output=cat").stdout
    assert "Watchdog timeout (limit 30s)" in journal


@pytest.mark.parametrize("cut", [False, True], ids=["shut-down", "power-cut"])
def test_after_a_reboot_traffic_is_back(serving: Site, cut: bool) -> None:
    site = serving
    site.lb.run("tula", "drain", "web/cache-2")
    site.lb.run("sync")
    site.lb.reboot(cut=cut)
    site.lab.ready()
    assert site.lb.show("tula", "ActiveState") == "active"
    wait_until(lambda: site.states("web")["cache-1"] == "up", 60)
    assert set(site.answers()) == {"cache-1"}, "cache-2 is still being drained"
    site.lb.run("tula", "undrain", "web/cache-2")
    site.wait_until_up()
    assert set(site.answers()) == {"cache-1", "cache-2"}
