"""Which requests are answered gives the finding."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

import pytest

from support.builders import make_backend, make_config, make_service
from tula.doctor.packets import ECHO, TCP, UDP
from tula.doctor.path_mtu import check_path_mtu, smaller_requests
from tula.doctor.replies import Reply, ReplyKind
from tula.doctor.requests import L2Path, Request, Responses, TunnelPath
from tula.doctor.serving import check_target
from tula.doctor.targets import Target
from tula.model.config import Tunnel
from tula.model.finding import Finding, Severity

OWN, LB, VIP = (ip_address(text) for text in ("10.0.0.10", "10.0.0.2", "10.0.0.100"))
BACKEND = make_backend(0, dual=False)
L2 = L2Path("eth0", bytes(6))
L3 = TunnelPath(Tunnel.VXLAN, LB, OWN, bytes(6))
CONFIG = make_config(make_service(backends=[BACKEND], tunnel=Tunnel.VXLAN))


def target(path: L2Path | TunnelPath = L2, **keys: tuple[int, ...]) -> Target:
    ports = keys or {"tcp": (80,)}
    return Target(BACKEND, VIP, path, LB, LB, "eth0", ("web",), **ports)


def responses(*replies: tuple[Request, Reply]) -> Responses:
    made = Responses()
    for request, reply in replies:
        made.replies.setdefault(request, []).append(reply)
    return made


def syn_ack(mss: int = 1460, source: object = VIP) -> Reply:
    return Reply(ReplyKind.OPEN, 1, source, mss=mss)  # type: ignore[arg-type]


RST = Reply(ReplyKind.CLOSED, 1, VIP)
OWN_ACCEPTS = Reply(ReplyKind.OPEN, 2, OWN)
OWN_RST = Reply(ReplyKind.CLOSED, 2, OWN)
VIP_ECHO, OWN_ECHO = Reply(ReplyKind.ECHO, 3, VIP), Reply(ReplyKind.ECHO, 4, OWN)


def icmp(kind: tuple[int, int], source: object = OWN, quoted: object = VIP) -> Reply:
    return Reply(ReplyKind.ERROR, 1, source, icmp=kind, quoted=quoted)  # type: ignore[arg-type]


def named(found: Iterable[Finding]) -> list[tuple[str, bool]]:
    return [(finding.id, finding.certain) for finding in found]


S, T = target(), target(L3)
VIP_SYN, OWN_SYN, VIP_PING, OWN_PING = (
    S.to_vip(TCP, 80),
    S.to_backend(TCP, 80),
    S.to_vip(ECHO),
    S.to_backend(ECHO),
)
IN_TUNNEL = T.to_vip(TCP, 80)
FORWARDED = T.over_path(OWN, LB)

L2_CASES = [
    ("serves", [(VIP_SYN, syn_ack())], []),
    ("closed here", [(VIP_SYN, RST), (OWN_SYN, OWN_ACCEPTS)], [("listens-elsewhere", True)]),
    ("closed", [(VIP_SYN, RST), (OWN_SYN, OWN_RST)], [("not-listening", True)]),
    ("port dropped", [(VIP_PING, VIP_ECHO), (OWN_SYN, OWN_ACCEPTS)], [("firewall", True)]),
    ("ports dropped", [(VIP_PING, VIP_ECHO), (OWN_PING, OWN_ECHO)], [("firewall", False)]),
    ("rejected", [(VIP_SYN, icmp((3, 13)))], [("firewall", True)]),
    ("port rejected", [(VIP_SYN, icmp((3, 3), VIP))], [("firewall", True)]),
    ("no vip", [(OWN_SYN, OWN_ACCEPTS)], [("vip-missing", False)]),
    ("no vip, by echo", [(OWN_PING, OWN_ECHO)], [("vip-missing", False)]),
    ("no vip, it says", [(VIP_SYN, icmp((3, 1)))], [("vip-missing", True)]),
    ("no vip, forwards", [(VIP_SYN, icmp((5, 1)))], [("vip-missing", True)]),
    ("nothing", [], [("backend-unreachable", False)]),
]  # fmt: skip

L3_CASES = [
    ("serves", [(IN_TUNNEL, syn_ack(1400))], []),
    ("no end", [(IN_TUNNEL, icmp((3, 3), OWN, OWN))], [("tunnel-missing", True)]),
    ("no protocol", [(IN_TUNNEL, icmp((3, 2), OWN, OWN))], [("tunnel-missing", True)]),
    ("silent", [(OWN_SYN, OWN_ACCEPTS)], [("tunnel-missing", False)]),
    ("end answers", [(OWN_SYN, OWN_ACCEPTS), (FORWARDED, OWN_ECHO)], [("vip-missing", False)]),
    ("filtered", [(IN_TUNNEL, icmp((3, 10), LB, OWN))], [("firewall", True)]),
    ("no way", [(IN_TUNNEL, icmp((3, 1), LB, OWN))], [("backend-unreachable", True)]),
    ("nothing", [], [("backend-unreachable", False)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("heard", "wanted"), [c[1:] for c in L2_CASES], ids=[c[0] for c in L2_CASES]
)
def test_by_layer_2(heard: list[tuple[Request, Reply]], wanted: list[tuple[str, bool]]) -> None:
    assert named(check_target(CONFIG, S, [S], responses(*heard))) == wanted


@pytest.mark.parametrize(
    ("heard", "wanted"), [c[1:] for c in L3_CASES], ids=[c[0] for c in L3_CASES]
)
def test_in_a_tunnel(heard: list[tuple[Request, Reply]], wanted: list[tuple[str, bool]]) -> None:
    assert named(check_target(CONFIG, T, [T], responses(*heard))) == wanted


def test_ipv6_comes_through_where_ipv4_is_filtered() -> None:
    six = Request(ECHO, ip_address("2001:db8::2"), ip_address("2001:db8::10"), L3)
    heard = responses((OWN_SYN, OWN_ACCEPTS), (six, OWN_ECHO))
    assert named(check_target(CONFIG, T, [T], heard)) == [("rp-filter", False)]


def test_what_does_not_leave_this_machine() -> None:
    heard = responses((OWN_SYN, OWN_ACCEPTS))
    heard.send_errors[IN_TUNNEL] = PermissionError()
    assert named(check_target(CONFIG, T, [T], heard)) == [("foreign-chain", True)]


def test_one_closed_port_of_several_is_only_told() -> None:
    made = target(tcp=(80, 443))
    heard = responses((made.to_vip(TCP, 80), syn_ack()), (made.to_vip(TCP, 443), RST))
    (found,) = check_target(CONFIG, made, [made], heard)
    assert (found.id, found.severity) == ("not-listening", Severity.NOTE)


def test_udp() -> None:
    made = target(udp=(53,))
    asked, direct, echo = made.to_vip(UDP, 53), made.to_backend(UDP, 53), (OWN_PING, OWN_ECHO)
    closed, closed_too = icmp((3, 3), VIP), icmp((3, 3), OWN, OWN)
    alive = (made.to_vip(ECHO), VIP_ECHO)
    for heard, wanted in [
        ([alive, echo], []),
        ([alive, (asked, Reply(ReplyKind.OPEN, 1, VIP))], []),
        ([alive, (asked, Reply(ReplyKind.OPEN, 1, OWN))], ["answers-by-own-address"]),
        ([(asked, closed), (direct, closed_too)], ["not-listening"]),
        ([(asked, closed), echo], ["listens-elsewhere"]),
        ([alive, (direct, Reply(ReplyKind.OPEN, 2, OWN))], ["firewall"]),
        ([echo], ["vip-missing"]),
    ]:
        found = check_target(CONFIG, made, [made], responses(*heard))
        assert [finding.id for finding in found] == wanted


def test_sizes() -> None:
    small, full = T.of_size(0), T.of_size(1500)
    passes = {size: (T.of_size(size), OWN_ECHO) for size in (1400, 1300)}
    told = Reply(ReplyKind.ERROR, 5, LB, icmp=(3, 4), mtu=1300, quoted=OWN)
    unclamped, clamped = (IN_TUNNEL, syn_ack(1460)), (IN_TUNNEL, syn_ack(1200))
    for heard, wanted in [
        ([(small, OWN_ECHO), (full, OWN_ECHO), clamped], []),
        ([(small, OWN_ECHO), (full, OWN_ECHO), unclamped], ["warning mss-not-clamped True"]),
        ([unclamped], ["warning mss-not-clamped True"]),
        ([(small, OWN_ECHO), (full, told), unclamped], ["warning path-mtu True"]),
        ([(small, OWN_ECHO), (full, told), clamped], ["note path-mtu True"]),
        ([(small, OWN_ECHO), *passes.values(), unclamped], ["warning path-mtu False"]),
        ([(small, OWN_ECHO)], []),
        ([], []),
    ]:
        found = check_path_mtu([T], responses(*heard))
        assert [f"{f.severity} {f.id} {f.certain}" for f in found] == wanted
    assert smaller_requests(T, responses((small, OWN_ECHO)))
    assert not smaller_requests(T, responses((small, OWN_ECHO), (full, told)))
    assert not smaller_requests(T, responses())
