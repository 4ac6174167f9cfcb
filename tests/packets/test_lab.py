"""The lab builds networks that work, and shows what passes in them."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

from support.snapshots import snapshot
from tula.lab import (
    Capture,
    Lab,
    LabError,
    prepare_backend,
    send_frame,
    serve_http,
    serve_tcp,
    serve_udp,
    set_offload,
    tcp_ask,
    tcp_flow,
    tcp_flows,
    udp_ask,
    wait_until,
)
from tula.lab.guard import current_namespace

pytestmark = pytest.mark.kernel

# ── Stepping in and out ──────────────────────────────────────────────────────────────────────


def test_a_thread_steps_in_and_out_also_by_an_exception(lab: Lab) -> None:
    home = current_namespace()
    outer, inner = lab.host("outer"), lab.host("inner")
    with outer.enter():
        assert current_namespace() == outer.namespace.id
        with pytest.raises(ZeroDivisionError), inner.enter():
            _ = 1 / int(current_namespace() != inner.namespace.id)
        assert current_namespace() == outer.namespace.id
    assert current_namespace() == home


def test_other_threads_stay_where_they_are(lab: Lab) -> None:
    seen = []
    with lab.host("a").enter():
        thread = threading.Thread(target=lambda: seen.append(current_namespace()))
        worker = lab.host("b")  # made from inside another host
        assert worker.interfaces() == ["lo"]
        thread.start()
        thread.join()
        # A new thread is born where its maker is: the lab's own threads therefore start outside.
        assert seen == [lab["a"].namespace.id]


def test_programs_run_inside_with_input_environment_and_status(lab: Lab) -> None:
    host = lab.host("a")
    seen = host.run(["stat", "-Lc", "%i", "/proc/self/ns/net"]).stdout
    assert int(seen) == host.namespace.id[1]
    assert host.run(["cat"], input="héllo").stdout == "héllo"
    assert host.run(["sh", "-c", "echo $X"], env={"X": "1", "PATH": os.defpath}).stdout == "1\n"
    assert host.run(["false"], check=False).returncode == 1
    with pytest.raises(LabError, match="exit status 3: alas"):
        host.run(["sh", "-c", "echo alas >&2; exit 3"])
    with pytest.raises(LabError, match=r"timed out after 0\.1 s"):
        host.run(["sleep", "10"], timeout=0.1)


def test_tula_runs_with_state_and_sockets_of_the_hosts_own(lab: Lab) -> None:
    one, two = (lab.host(name).environment() for name in ("a", "b"))
    assert Path(one["TULA_STATE_DIR"]).is_dir()
    assert Path(one["TULA_RUN_DIR"]).is_dir()
    assert one["TULA_STATE_DIR"] != two["TULA_STATE_DIR"]


def test_sysctls_are_the_hosts_own(lab: Lab) -> None:
    one, two = lab.host("a"), lab.host("b")
    one.forwarding()
    assert (one.read_sysctl("net.ipv4.ip_forward"), two.read_sysctl("net.ipv4.ip_forward")) == (
        "1",
        "0",
    )
    with pytest.raises(LabError, match=r"a: net\.ipv4\.ip_forward=nonsense"):
        one.write_sysctl("net.ipv4.ip_forward", "nonsense")


# ── Interfaces ───────────────────────────────────────────────────────────────────────────────
#
#        a             b             c
#   10.9.0.1      10.9.0.2      10.9.0.3     fd09::1, ::2, ::3
#        │             │             │
#    ════╧═════════════╧═════════════╧════  switch


def three(lab: Lab, hub: bool = False) -> None:
    switch = lab.switch(hub=hub)
    for number, name in enumerate("abc", start=1):
        lab.host(name, switch, f"10.9.0.{number}/24", f"fd09::{number}/64")
    lab.ready()


def test_hosts_reach_each_other_at_once_by_both_families(lab: Lab) -> None:
    three(lab)
    for name in "abc":
        shown = lab[name].run(["ip", "addr"]).stdout
        assert "tentative" not in shown
        assert "NO-CARRIER" not in shown
    serve_tcp(lab["b"], [7])
    serve_udp(lab["b"], [7])
    for address in ("10.9.0.2", "fd09::2"):
        assert tcp_ask(lab["a"], address, 7) == "b"
        assert udp_ask(lab["a"], address, 7) == "b"


def test_addresses_macs_and_routes(lab: Lab) -> None:
    three(lab)
    host = lab["a"]
    assert host.addresses() == ["10.9.0.1", "fd09::1"]
    host.add_address("lo", "10.9.0.100/32", "fd09::100/128")
    assert host.addresses("lo") == ["10.9.0.100", "fd09::100"]
    host.remove_address("lo", "10.9.0.100/32")
    assert host.addresses("lo") == ["fd09::100"]
    host.add_route("default", "10.9.0.2")
    host.add_route("default", "fd09::2")
    assert "via 10.9.0.2" in host.run(["ip", "route", "get", "192.0.2.1"]).stdout
    assert "via fd09::2" in host.run(["ip", "-6", "route", "get", "2001:db8::1"]).stdout
    with pytest.raises(LabError, match="a has no interface eth7"):
        host.mac("eth7")
    with pytest.raises(LabError, match="no host z; the lab has: a, b, c"):
        lab["z"]


def test_counters_tell_what_was_sent_and_received(lab: Lab) -> None:
    switch = lab.switch()
    hosts = [lab.host(name, switch, f"10.9.0.{at}/24") for at, name in enumerate("ab", start=1)]
    lab.ready()
    for host in hosts:  # IPv6 reports its groups when it likes (RFC 3810), and would be counted
        host.write_sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    before = [host.counters() for host in hosts]
    send_frame(hosts[0], "eth0", bytes(Ether(src=hosts[0].mac(), dst=hosts[1].mac())) + bytes(46))
    assert (hosts[0].counters() - before[0])[:4] == (0, 1, 0, 60)
    assert (hosts[1].counters() - before[1])[:4] == (1, 0, 60, 0)


AGEING = """
nft -f - <<'EOF'
table ip aging {
    set waiting { type ipv4_addr; flags timeout; elements = { 192.0.2.1 timeout 1h } }
    chain in { type filter hook input priority 0; counter; quota 25 mbytes; }
}
EOF
ip address add 10.55.0.1/24 dev eth0 valid_lft 3000 preferred_lft 2000
ip -6 route add fd66::/64 dev eth0 expires 1000
ip link add tunnel type vxlan id 7 dstport 4790
bridge fdb add 02:00:00:00:00:02 dev tunnel dst 10.9.0.99
"""


def test_a_snapshot_does_not_age(lab: Lab) -> None:
    switch = lab.switch()
    host, other = (lab.host(f"h{n}", switch, f"10.9.0.{n}/24", f"fd09::{n}/64") for n in (1, 2))
    at_once = snapshot(host)
    lab.ready()
    serve_udp(host, [80])
    assert snapshot(host) == at_once
    host.run(["sh", "-ec", AGEING])
    commands = ["nft list ruleset", "ip address", "ip -6 route"]
    younger, raw = snapshot(host), [host.run(["sh", "-c", c]).stdout for c in commands]
    learn = "bridge fdb add 02:00:00:00:00:03 dev tunnel dst 10.9.0.98 dynamic"
    host.run(learn.split())

    def aged() -> bool:
        assert udp_ask(other, "10.9.0.1", 80)
        return all(
            host.run(["sh", "-c", c]).stdout != r for c, r in zip(commands, raw, strict=True)
        )

    wait_until(aged, what="a second to pass")
    assert snapshot(host) == younger
    host.run(["bridge", "fdb", "del", "02:00:00:00:00:02", "dev", "tunnel"])
    assert snapshot(host) != younger


def test_a_backend_changes_its_mac(lab: Lab) -> None:
    three(lab)
    serve_tcp(lab["b"], [7])
    tcp_ask(lab["a"], "10.9.0.2", 7)
    lab["b"].set_mac("eth0", "02:00:00:00:00:99")
    assert lab["b"].mac() == "02:00:00:00:00:99"
    lab["a"].run(["ip", "neigh", "flush", "dev", "eth0"])
    with Capture(lab["a"]) as capture:
        assert tcp_ask(lab["a"], "10.9.0.2", 7) == "b"
    sent = [Ether(frame) for frame in capture.frames(outgoing=True)]
    assert {frame.dst for frame in sent if IP in frame} == {"02:00:00:00:00:99"}


def test_a_card_is_taken_out_and_replaced(lab: Lab) -> None:
    three(lab)
    host, old = lab["b"], lab["b"].mac()
    host.remove_interface("eth0")
    assert host.interfaces() == ["lo"]
    assert lab.switches["switch"].ports() == ["a.eth0", "c.eth0"]
    lab.connect(host, lab.switches["switch"], "10.9.0.2/24")
    assert host.mac() != old
    serve_tcp(host, [7], ["10.9.0.2"])
    assert tcp_ask(lab["a"], "10.9.0.2", 7) == "b"


def test_a_cable_is_pulled_and_put_back(lab: Lab) -> None:
    three(lab)

    def carrier() -> bool:
        return lab["b"].carrier("eth0")

    lab["b"].set_cable("eth0", False)
    wait_until(lambda: not carrier(), what="the loss of the carrier")
    lab["b"].set_cable("eth0", True)
    wait_until(carrier, what="the carrier")


@pytest.mark.parametrize("hub", [False, True])
def test_a_hub_floods_and_a_switch_does_not(lab: Lab, hub: bool) -> None:
    three(lab, hub=hub)
    serve_udp(lab["b"], [7])
    udp_ask(lab["a"], "10.9.0.2", 7)
    with Capture(lab["c"]) as bystander:
        udp_ask(lab["a"], "10.9.0.2", 7)
    seen = [frame for frame in map(Ether, bystander.frames()) if UDP in frame]
    assert len(seen) == (2 if hub else 0)


def test_a_switch_forgets_what_it_learned(lab: Lab) -> None:
    three(lab)
    serve_udp(lab["b"], [7])
    udp_ask(lab["a"], "10.9.0.2", 7)

    def flooded() -> bool:
        # A host that says something of its own accord (MLD, say) is known again at once.
        lab.switches["switch"].forget()
        with Capture(lab["c"]) as bystander:
            udp_ask(lab["a"], "10.9.0.2", 7)
        return any(UDP in frame for frame in map(Ether, bystander.frames()))

    wait_until(flooded, what="a frame to a host that the switch does not know")


def test_sixty_hosts_are_up(lab: Lab) -> None:
    start = time.monotonic()
    switch = lab.switch()
    for number in range(1, 61):
        lab.host(f"h{number}", switch, f"10.9.0.{number}/24", f"fd09::{number}/64")
    lab.ready()
    took = time.monotonic() - start
    serve_tcp(lab["h60"], [7])
    assert tcp_ask(lab["h1"], "10.9.0.60", 7) == "h60"
    print(f"sixty hosts: {took:.2f} s")


# ── Frames ───────────────────────────────────────────────────────────────────────────────────


def test_a_capture_knows_directions_and_vlan_tags(lab: Lab) -> None:
    three(lab)
    one, two = lab["a"], lab["b"]
    plain = Ether(src=one.mac(), dst=two.mac()) / IP(src="10.9.0.1", dst="10.9.0.2") / UDP()
    tagged = Ether(src=one.mac(), dst=two.mac()) / Dot1Q(vlan=7) / IP(dst="10.9.0.2") / UDP()
    with Capture(one) as sender, Capture(two) as receiver:
        send_frame(one, "eth0", bytes(plain), bytes(tagged))
        got = receiver.wait(lambda frame: UDP in Ether(frame), count=2, outgoing=False)
    assert got == [bytes(plain), bytes(tagged)]
    assert Ether(got[1])[Dot1Q].vlan == 7
    assert bytes(plain) in sender.frames(outgoing=True)
    assert bytes(plain) not in sender.frames(outgoing=False)


def test_an_idle_lab_is_quiet(lab: Lab) -> None:
    three(lab)
    for name in "abc":
        snapshot(lab[name])  # which waits until their links have their own addresses
    captures = [Capture(lab[name]).start() for name in "abc"]
    time.sleep(0.5)  # a fixed sleep: there is no condition to wait for when nothing is to happen
    for capture in captures:
        capture.stop()
        assert capture.frames() == []


def test_frames_of_wire_size_when_the_sender_does_not_aggregate(lab: Lab) -> None:
    three(lab)
    serve_http(lab["b"], 80)
    set_offload(lab["b"], tso=False, gso=False)
    with Capture(lab["a"]) as capture:
        lab["a"].run(["curl", "-so/dev/null", "http://10.9.0.2/bytes/100000"])
    assert max(map(len, capture.frames(outgoing=False))) <= 1514
    with pytest.raises(LabError, match="no offload warp"):
        set_offload(lab["b"], warp=True)


def test_a_backend_keeps_quiet_about_its_vips(lab: Lab) -> None:
    three(lab)
    prepare_backend(lab["b"], ["10.9.0.100", "fd09::100"])
    with Capture(lab["b"]) as capture:
        for vip in ("10.9.0.100", "fd09::100"):
            with pytest.raises(LabError):
                udp_ask(lab["a"], vip, 9, timeout=0.3)
        capture.wait(lambda frame: ARP in Ether(frame), outgoing=False)
        capture.wait(lambda frame: IPv6 in Ether(frame), outgoing=False)
    assert capture.frames(outgoing=True) == []


# ── Servers and clients ──────────────────────────────────────────────────────────────────────


def curl(lab: Lab, path: str, *options: str) -> str:
    return lab["a"].run(["curl", "-sS", *options, f"http://10.9.0.2{path}"]).stdout


def test_http_pages(lab: Lab) -> None:
    three(lab)
    server = serve_http(lab["b"], 80)
    assert curl(lab, "/") == "b 10.9.0.1\n"
    assert "X-Backend: b" in curl(lab, "/", "-i")
    assert curl(lab, "/bytes/3000000", "-o/dev/null", "-w%{size_download}") == "3000000"
    assert curl(lab, "/healthz", "-w%{http_code}") == "ok\n200"
    server.healthy = False
    assert curl(lab, "/healthz", "-w%{http_code}") == "unhealthy\n503"
    assert curl(lab, "/nowhere", "-o/dev/null", "-w%{http_code}") == "404"
    assert curl(lab, "/upload", "-d", "x" * 1000) == "1000\n"
    assert curl(lab, "/bytes/9", "-I").count("Content-Length: 9") == 1
    took = float(curl(lab, "/slow/30000?rate=100000", "-o/dev/null", "-w%{time_total}"))
    assert took > 0.25
    assert server.requests == 9
    assert server.received == 1000
    # Two pages over one connection.
    both = curl(lab, "/", "http://10.9.0.2/", "-w%{num_connects} ")
    assert both == "b 10.9.0.1\n1 b 10.9.0.1\n0 "


def test_a_closed_server_refuses_and_cuts_what_was_open(lab: Lab) -> None:
    three(lab)
    server = serve_tcp(lab["b"], range(7, 300))
    assert tcp_ask(lab["a"], "10.9.0.2", 299) == "b"
    flow = tcp_flow(lab["a"], "10.9.0.2", 7, source_port=30000)
    assert (flow.source_port, flow.ask()) == (30000, "b")
    server.close()
    with pytest.raises(LabError):
        flow.ask()
    flow.close()
    with pytest.raises(LabError, match="refused"):
        tcp_ask(lab["a"], "10.9.0.2", 7)
    with pytest.raises(LabError, match="b cannot listen on"):
        serve_tcp(lab["b"], [7], ["10.9.0.77"])


def test_what_was_lost_is_told(lab: Lab) -> None:
    three(lab)
    serve_tcp(lab["b"], [7])
    made = tcp_flows(lab["a"], "10.9.0.2", 7, range(30000, 30020))
    assert {flow.backend for flow in made} == {"b"}
    lab["b"].remove_interface("eth0")
    with pytest.raises(LabError, match="1 of 1 flows had no answer"):
        tcp_flows(lab["a"], "10.9.0.2", 7, [31000], timeout=0.3)
    for flow in made:
        flow.close(reset=True)


def test_a_socket_outlives_the_step_inside(lab: Lab) -> None:
    three(lab)
    with lab["b"].socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("10.9.0.2", 0))
        assert bound.getsockname()[0] == "10.9.0.2"
