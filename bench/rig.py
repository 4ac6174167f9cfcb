"""The network that a subject is measured in, and the sending through it.

::

    wire  [wire0] ── veth ── [eth0]  lb
       XDP program sends               forwards on one arm, as a balancer of Layer 2 does
       XDP program counts by MAC, drops

All backends are MACs on the wire. What a frame costs in the source, at the balancer and in the
sink is spent on one CPU: the kernel runs the whole chain where the source program runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple, TypeVar

import bpf
from generator import (
    BACKEND_MAC,
    CLIENTS,
    ELSEWHERE,
    VIPS,
    Traffic,
    frame_of,
    sink_program,
    source_program,
)

from tula.lab import Host, Lab, set_offload

WIRE, INTERFACE = "wire0", "eth0"
_WIRE_MAC, MAC = "02:6e:00:00:00:01", "02:10:00:00:00:01"
_OWN = {4: "10.9.0.2/16", 6: "2001:db8:9::2/64"}
_BACKENDS = {4: IPv4Address("10.9.1.0"), 6: IPv6Address("2001:db8:9::1:0")}

T = TypeVar("T")


def backend_address(number: int, version: int) -> IPv4Address | IPv6Address:
    """The address of backend 0, 1, ..."""
    return ip_address(int(_BACKENDS[version]) + number + 1)


class Core:
    """One CPU for the data path: a thread that stays on it; the rest goes to the other ones."""

    def __init__(self) -> None:
        self._cpus = sorted(os.sched_getaffinity(0))
        self._thread = ThreadPoolExecutor(1, "source")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """For the block: this thread elsewhere, the source's thread there and hard to displace."""
        *others, cpu = self._cpus
        os.sched_setaffinity(0, others or [cpu])
        self._thread.submit(os.sched_setaffinity, 0, [cpu]).result()
        # Nice values count only within a session (autogroup); a real-time priority does not.
        with suppress(PermissionError):
            first = os.sched_param(1)
            self._thread.submit(os.sched_setscheduler, 0, os.SCHED_FIFO, first).result()
        try:
            yield
        finally:
            self._thread.shutdown()
            os.sched_setaffinity(0, self._cpus)

    def run(self, work: Callable[[], T]) -> T:
        """Runs it there."""
        return self._thread.submit(work).result()


class Sent(NamedTuple):
    """A run of frames: nanoseconds of one, and where they arrived, by backend."""

    nanoseconds: int
    arrived: list[int]


@dataclass(frozen=True, slots=True)
class Rig:
    """A network ready for a subject."""

    traffic: Traffic
    backends: int
    lb: Host
    wire: Host
    program: int
    frames: bpf.Frames
    counters: bpf.PerCpuCounters

    def addresses(self) -> list[str]:
        """The backends' addresses."""
        return [str(backend_address(n, self.traffic.version)) for n in range(self.backends)]

    def send(self, count: int) -> Sent:
        """Sends frames; to be called on the core of the data path."""
        before = self.counters.read()
        with self.wire.enter():
            nanoseconds = bpf.run_frames(self.program, self.frames, count)
        after = self.counters.read()
        return Sent(nanoseconds, [now - then for now, then in zip(after, before, strict=True)])


@contextmanager
def rig(traffic: Traffic, backends: int, *, alone: bool = False) -> Iterator[Rig]:
    """Makes one; it is gone after the block. ``alone``: the sink is where the balancer was."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab())
        wire, lb = lab.host("wire"), lab.host("lb")
        _cable(wire, lb)
        counters = bpf.PerCpuCounters.create(ELSEWHERE + 1)
        stack.callback(counters.close)
        end, name = (lb, INTERFACE) if alone else (wire, WIRE)
        with end.enter():
            link = bpf.attach_xdp(bpf.load_xdp(sink_program(counters)), end.index(name))
        stack.callback(os.close, link)
        if not alone:
            _prepare(lb, traffic.version, backends)
        frame = frame_of(traffic, _WIRE_MAC, BACKEND_MAC.format(0) if alone else MAC)
        program = bpf.load_xdp(source_program(traffic, frame, wire.index(WIRE)))
        stack.callback(os.close, program)
        yield Rig(traffic, backends, lb, wire, program, bpf.Frames(frame), counters)


def _cable(wire: Host, lb: Host) -> None:
    """A veth pair; both ends receive as a network card does (NAPI, GRO)."""
    with wire.netlink() as socket:
        socket.link(
            "add",
            ifname=WIRE,
            kind="veth",
            # Unlike indexes at the two ends: the kernel takes equal ones for a stacked device.
            index=10,
            address=_WIRE_MAC,
            peer={
                "ifname": INTERFACE,
                "address": MAC,
                "net_ns_fd": lb.namespace.fileno(),
                "index": 20,
            },
        )
    for host, name in ((wire, WIRE), (lb, INTERFACE)):
        host.set_link(name, True)
        set_offload(host, name, gro=True)


def _prepare(lb: Host, version: int, backends: int) -> None:
    """A router on one arm whose neighbours are known: the backends, and the way to the VIPs."""
    lb.set_link("lo", True)
    lb.add_address(INTERFACE, _OWN[version])
    lb.forwarding(True)
    for scope in ("all", INTERFACE):
        lb.write_sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
        lb.write_sysctl(f"net/ipv4/conf/{scope}/send_redirects", 0)
    with lb.netlink() as socket:
        for number in range(backends):
            socket.neigh(
                "replace",
                dst=str(backend_address(number, version)),
                lladdr=BACKEND_MAC.format(number),
                ifindex=lb.index(INTERFACE),
                state="permanent",
            )
    length = {4: 16, 6: 112}[version]
    for network in (CLIENTS, VIPS):
        via = str(backend_address(0, version))
        lb.add_route(f"{network[version]}/{length}", via=via)
