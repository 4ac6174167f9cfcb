"""VIPs by VRRP: two balancers, keepalived by files of Tula's, which needs no daemon once it runs.

::

    client-1 ── router ══ lan ══ lb1, lb2, backend-1, -2
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from support.datagrams import Datagrams, serve_datagrams
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import Capture, Cluster, Host, Lab, hold, many_vips, pair, wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", autouse=True)
def _keepalived() -> None:
    assert shutil.which("keepalived"), "apt install keepalived"


def configure(
    network: Cluster, path: Path, *, services: dict[str, object] | None = None, **vrrp: object
) -> Path:
    service = service_of(network, protocol="udp", ports=[53])
    return write_config(
        path,
        services or {"dns": service},
        load_balancers=network.balancers,
        high_availability={"vrrp": {"id": 84, **vrrp}},
    )


def holders(network: Cluster, vip: str = "") -> list[str]:
    return [lb.name for lb in network.lbs if (vip or network.vips[0]) in lb.addresses("eth0")]


def pid_of(host: Host) -> int:
    path = Path(host.environment()["TULA_RUN_DIR"], "keepalived/keepalived.pid")
    text = path.read_text().strip() if path.exists() else ""
    return int(text or 0)  # it may be just being written


def pair_of_servers(lab: Lab) -> Cluster:
    network = pair(lab)
    for backend in network.backends:
        serve_datagrams(backend, 53)
    return network


def test_engines_run_without_a_daemon(lab: Lab, tmp_path: Path) -> None:
    network = pair_of_servers(lab)
    file = configure(network, tmp_path / "tula.yaml")
    for lb in network.lbs:
        lb.tula("apply", "-f", file)
    active = lab.hosts[wait_until(lambda: holders(network))[0]]
    for lb in network.lbs:
        assert lb.tula("plan", "-f", file, "--exit-code").stdout == "nothing to change\n"
    # On one balancer alone: neither adverts nor neighbours may mind.
    with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
        active.tula("clear")
        wait_until(lambda: holders(network) not in ([], [active.name]))
    assert probe.heard.lost == 0, probe.heard
    assert active.processes("keepalived") == []
    assert active.tula("clear").stdout == "nothing to remove\n"


def test_daemons_and_engines_die(lab: Lab, tmp_path: Path) -> None:
    network = pair_of_servers(lab)
    files = {}
    for lb in network.lbs:
        (tmp_path / lb.name).mkdir()
        files[lb.name] = configure(network, tmp_path / lb.name / "tula.yaml")
    with ExitStack() as stack:
        daemons = {lb.name: stack.enter_context(Running(lb, files[lb.name])) for lb in network.lbs}
        active = lab.hosts[wait_until(lambda: holders(network))[0]]
        wait_until(lambda: all(each.processes("keepalived") for each in network.lbs))
        before = pid_of(active)
        with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
            daemons[active.name].kill()
            daemons[active.name].start()
        assert probe.heard.lost == 0, probe.heard
        assert pid_of(active) == before, "left alone"
        with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: pid_of(active) not in (0, before), what="started again")
            wait_until(lambda: holders(network))
        assert probe.heard.lost == 0, probe.heard
        for lb in network.lbs:
            wait_until(lambda lb=lb: lb.tula("plan").stdout == "nothing to change\n")


@pytest.fixture
def daemons(lab: Lab, tmp_path: Path) -> Iterator[tuple[Cluster, dict[str, Running]]]:
    """A pair that serves, with health checks."""
    network = pair_of_servers(lab)
    check = {"type": "icmp", "interval": "300ms", "timeout": "200ms"}
    service = service_of(network, protocol="udp", ports=[53], health=check)
    with ExitStack() as stack:
        made = {}
        for lb in network.lbs:
            (tmp_path / lb.name).mkdir()
            file = configure(network, tmp_path / lb.name / "tula.yaml", services={"dns": service})
            made[lb.name] = stack.enter_context(Running(lb, file))
        wait_until(lambda: holders(network))
        wait_until(lambda: all(each.processes("keepalived") for each in network.lbs))
        yield network, made


def roles(daemons: dict[str, Running]) -> dict[str, str]:
    return {name: each.status()["role"] for name, each in daemons.items()}


def test_standby_hands_over(daemons: tuple[Cluster, dict[str, Running]], lab: Lab) -> None:
    network, running = daemons
    first = holders(network)[0]
    (second,) = set(running) - {first}
    one, two = lab.hosts[first], lab.hosts[second]
    wait_until(lambda: roles(running) == {first: "active", second: "standby"})
    with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
        done = one.tula("standby")
        assert "another balancer has the VIPs" in done.stdout
        assert holders(network) == [second]
        running[first].stop()
        running[first].start()
        assert running[first].status()["standby"], "it lasts"
        # All stand by: one still has the VIPs.
        refused = two.tula("standby", "--no-wait", check=False)
        assert refused.returncode == 0
        time.sleep(1)
        assert holders(network) == [second]
        assert "takes them when another fails" in one.tula("active").stdout
        # Now the other one stands by, and this one does not.
        wait_until(lambda: holders(network) == [first])
        two.tula("active")
        time.sleep(2.5)  # the hold-down is over
        assert holders(network) == [first], "equal priorities move nothing"
        running[second].stop()
        assert two.tula("standby").stdout == "stands by\n"
        assert two.tula("active").stdout == "no longer stands by\n"
        running[second].start()
    assert probe.heard.lost == 0, probe.heard
    kinds = [event["kind"] for event in running[first].client().get("/events")["events"]]
    assert kinds.count("standby") == kinds.count("active") == 1


def test_who_serves_less_hands_over(daemons: tuple[Cluster, dict[str, Running]], lab: Lab) -> None:
    """One balancer alone sees all backends down; it is never FAULT, and comes back."""
    network, running = daemons
    first = holders(network)[0]
    (second,) = set(running) - {first}
    one = lab.hosts[first]
    wait_until(lambda: set(running[first].states().values()) == {"up"})
    wait_until(lambda: set(running[second].states().values()) == {"up"})
    one.run(
        ["nft", "-f", "-"],
        input="table inet blind { chain input { type filter hook input priority -10;"
        " icmp type echo-reply drop\n icmpv6 type echo-reply drop\n }\n}\n",
    )
    wait_until(lambda: set(running[first].states().values()) == {"down"}, 30)
    wait_until(lambda: holders(network) == [second], 30)
    one.run(["nft", "delete", "table", "inet", "blind"])
    wait_until(lambda: set(running[first].states().values()) == {"up"}, 30)
    # All backends of both: equal views, and nothing moves.
    assert holders(network) == [second]
    assert "FAULT" not in Path(running[first].run_dir, "keepalived/keepalived.log").read_text()


def test_from_tula_itself_to_keepalived_and_back(lab: Lab, tmp_path: Path) -> None:
    """The same VIPs, while datagrams come."""
    network = pair_of_servers(lab)
    lb = network.lb
    service = service_of(network, protocol="udp", ports=[53])
    alone = write_config(tmp_path / "alone.yaml", {"dns": service})
    many = configure(network, tmp_path / "tula.yaml")
    lb.tula("apply", "-f", alone)
    with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
        lb.tula("apply", "-f", many)
        wait_until(lambda: network.lb.name in holders(network))
        assert "~ engine keepalived" not in lb.tula("plan").stdout
        lb.tula("apply", "-f", alone)
        assert holders(network) == [lb.name]
    assert probe.heard.lost == 0, probe.heard
    shown = lb.run(["ip", "-json", "address", "show", "dev", "eth0"]).stdout
    assert shown.count(network.vips[0]) >= 1
    assert lb.tula("plan", "--exit-code").stdout == "nothing to change\n"
    assert lb.processes("keepalived") == []


def test_a_vip_more_is_a_reload(lab: Lab, tmp_path: Path) -> None:
    network = pair(lab, vips=())
    vips = many_vips(500 if os.environ.get("TULA_SOAK") else 60, 20)
    for backend in network.backends:
        hold(backend, "10.9.100.0/22", "fd09::a:0/112")
        serve_datagrams(backend, 53)
    keys = {"protocol": "udp", "ports": [53]}
    few = {"dns": service_of(network, **keys, vip=[vips[0], *vips[2:]])}
    more = {"dns": service_of(network, **keys, vip=vips)}
    before = configure(network, tmp_path / "few.yaml", services=few)
    after = configure(network, tmp_path / "more.yaml", services=more)
    for lb in network.lbs:
        lb.tula("apply", "-f", before)
    wait_until(lambda: holders(network, vips[-1]))
    active = lab.hosts[holders(network, vips[-1])[0]]
    (other,) = set(network.lbs) - {active}
    old = [vips[0], *vips[2:]]
    time.sleep(3)  # the second announcements are over
    with (
        Datagrams(network.client, old, 53, rate=2000) as probe,
        Capture(other, "eth0") as heard,
    ):
        active.tula("apply", "-f", after)
        wait_until(lambda: holders(network, vips[1]))
        # Adverts of one that has a VIP more are understood by the other: nobody takes over.
        time.sleep(1)
        assert holders(network, vips[0]) == [active.name]
        assert holders(network, vips[1]) == [active.name]
        other.tula("apply", "-f", after)
    assert probe.heard.lost == 0, probe.heard
    frames = heard.frames(outgoing=False)
    arp = [frame for frame in frames if frame[12:14] == b"\x08\x06"]
    told = Counter(frame[38:42] for frame in arp if frame[28:32] == frame[38:42])
    print(f"a VIP more, to {len(old)}: {probe.heard}; {sum(told.values())} gratuitous ARPs")
    assert ip_address(vips[1]).packed in told
    assert max(told.values()) <= 2, "those that were there are told again, once"


def test_a_virtual_mac_moves_with_the_vips(lab: Lab, tmp_path: Path) -> None:
    """Neighbours have nothing to learn. Both balancers take frames for it, and forward them."""
    network = pair_of_servers(lab)
    file = configure(network, tmp_path / "tula.yaml", mac="virtual")
    for lb in network.lbs:
        lb.tula("apply", "-f", file)

    def active() -> list[Host]:
        vip = network.vips[0]
        return [lb for lb in network.lbs if vip in lb.addresses()]

    (first,) = wait_until(active)
    other = next(lb for lb in network.lbs if lb is not first)
    time.sleep(1)
    with Datagrams(network.client, network.vips, 53, rate=1000) as probe:
        time.sleep(1)
        for version, vip in zip((4, 6), network.vips, strict=True):
            shown = network.gateway.run(["ip", f"-{version}", "neigh", "show", vip]).stdout
            assert re.search("00:00:5e:00:0[12]:54", shown), shown
        # The switch floods: the other balancer has them, too.
        first.set_cable("eth0", plugged=False)
        wait_until(lambda: active() == [first, other] or active() == [other])
        time.sleep(1)
    assert probe.heard.lost == 0, probe.heard
    for lb in network.lbs:
        fdb = lb.run(["bridge", "fdb", "show", "dev", "eth0"]).stdout
        assert "00:00:5e:00:01:54" in fdb
        assert lb.tula("plan", "-f", file, "--exit-code").stdout == "nothing to change\n"
        lb.tula("clear")
        assert "00:00:5e:00:01:54" not in lb.run(["bridge", "fdb", "show", "dev", "eth0"]).stdout
