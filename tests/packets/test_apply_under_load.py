"""Applies that change other services, under load: no packet lost, no flow broken.

::

    client-1 (a UDP stream), -2 (50 downloads)      lb          backend-1 … 5
         │                                         │  │               │   (VIPs on lo)
    ═════╧═════════════════════════════════════════╧══╪═══════════════╧═════  lan
                                                      │ eth1
    ══════════════════════════════════════════════════╧═══  far  10.50.0.0/16, fd50::/64

    backend-1 … 3 serve what is measured; all five, and addresses on ``far`` where nobody is,
    are backends of the services that come and go.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import udp_load
from support.changing_services import ChangingServices
from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.queues import queue_drops
from tula.lab import Lab, Network, flat, wait_until
from tula.lab.process import Process
from tula.lab.servers import StreamServer

pytestmark = pytest.mark.kernel

APPLIES = 100 if os.environ.get("TULA_SOAK") else 45
"""By the 40th all kinds of changes have come; maps were outgrown, and shrank again."""
DOWNLOADS, RATE, FLOWS = 50, 3000, 24
QUICK = {"maglev": {"slots": 2039}}
"""Half of the smallest table: what takes most of an apply's time."""
BY_COMMAND = 25
"""One apply in so many is by the command, the others are in this process."""


class Downloads(StreamServer):
    """Answers a request with chunks at a steady pace until told to end, then in good order."""

    finish = False

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not self.finish:
            writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0.1)
        writer.write(b"0\r\n\r\n")
        await writer.drain()


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, backends=5)
    lab.connect(made.lb, lab.switch("far"), "10.50.0.1/16", "fd50::1/64", ifname="eth1")
    lab.ready()
    return made


def measured(network: Network) -> dict[str, Any]:
    """The services that must not notice: by an exact port, by a range, and TCP."""
    three = {"backends": backends_of(*network.backends[:3])}
    return {
        "exact": service_of(network, protocol="udp", ports=[9000], **three),
        "range": service_of(network, protocol="udp", ports=["9100-9110"], **three),
        "web": service_of(network, **three),
    }


Outcome = tuple[dict[str, Any], list[list[str]]]
"""What the stream counted, and curl's words on each download."""


def start_load(network: Network) -> Callable[[], Outcome]:
    """The stream and the downloads, under way; calling the result ends both."""
    program = [sys.executable, udp_load.__file__]
    for backend in network.backends[:3]:
        echo = backend.popen(
            [*program, "echo", backend.name, "9000,9105", *network.vips], stdout=subprocess.PIPE
        )
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
    servers = [
        backend.owns(Downloads(backend, [80], list(network.vips)).start())
        for backend in network.backends[:3]
    ]
    targets = [f"{vip},{port}" for vip in network.vips for port in (9000, 9105)]
    stream = network.clients[0].popen(
        [*program, "stream", str(RATE), str(FLOWS), *targets], stdout=subprocess.PIPE
    )
    urls = [f"http://{vip}/" for vip in (network.vip4, f"[{network.vip6}]")] * (DOWNLOADS // 2)
    told = "%{http_code} %{exitcode} %{local_ip},%{local_port} %{size_download}\n"
    at_once = ["--parallel", "--parallel-immediate", "--parallel-max", str(DOWNLOADS)]
    outputs = [word for url in urls for word in ("-o", "/dev/null", url)]
    curl = network.clients[1].popen(
        ["curl", "--no-progress-meter", "-w", told, *at_once, *outputs], stdout=subprocess.PIPE
    )
    assert stream.stdout is not None
    assert stream.stdout.readline() == "ready\n"
    wait_until(lambda: sum(s.connections for s in servers) == DOWNLOADS, what="50 downloads")

    def end() -> Outcome:
        for server in servers:
            server.finish = True
        stream.send_signal(signal.SIGTERM)
        return json.loads(_output(stream)), [line.split() for line in _output(curl).splitlines()]

    return end


def _output(process: Process) -> str:
    return process.communicate(timeout=60)[0]


def test_other_services_change_and_nothing_is_lost(network: Network, tmp_path: Path) -> None:
    configuration = tmp_path / "tula.yaml"
    constant = measured(network)
    write_config(configuration, constant, **QUICK)
    network.lb.tula("apply", "-f", configuration)
    here, changed = InProcess(network.lb), 0
    dropped = queue_drops()
    end = start_load(network)
    for step, (services, interfaces) in enumerate(
        ChangingServices(network).configurations(APPLIES)
    ):
        everything = list({**services, **constant}.items())
        random.Random(step).shuffle(everything)
        write_config(configuration, dict(everything), interfaces, **QUICK)
        if step % BY_COMMAND:
            changed += bool(here.apply(configuration))
        else:
            answer = network.lb.tula("apply", "-f", configuration, "--yes", "--json")
            changed += json.loads(answer.stdout)["changed"]
    stream, downloads = end()
    dropped = queue_drops() - dropped
    with network.lb.enter():
        nowhere = here.balancer.stats().counters["no_backend"].packets
    broken = [line for line in downloads if line[:2] != ["200", "0"]]
    summary = (
        f"{changed} applies in {stream['seconds']:.1f} s; UDP: {stream['sent']} sent over "
        f"{FLOWS} flows, {stream['lost']} lost, {stream['twice']} answered twice, "
        f"{stream['moved']} by another backend; dropped by a busy machine: {dropped}, "
        f"by the rules: {nowhere}; "
        f"TCP: {len(downloads)} downloads, "
        f"{sum(int(line[3]) for line in downloads) / 1e6:.0f} MB, {len(broken)} broken"
    )
    print(summary)
    assert changed == APPLIES, summary
    assert stream["sent"] > 1000 * stream["seconds"], f"thousands a second: {summary}"
    assert nowhere == 0, f"TCP's too, which it sends again: {summary}"
    assert stream["lost"] <= dropped, summary
    assert (stream["twice"], stream["moved"]) == (0, 0), summary
    assert len(stream["backends"]) == 3, summary
    assert len({line[2] for line in downloads}) == DOWNLOADS, f"each its own flow: {summary}"
    assert not broken, summary
