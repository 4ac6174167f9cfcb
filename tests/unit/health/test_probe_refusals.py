"""What this machine refuses says nothing of a backend."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import sys
from ipaddress import ip_address
from subprocess import run

import pytest

from support.probe_servers import settings
from tula.health.probes import send_probe
from tula.kernel.probe_sockets import KernelProbeSockets, allow_many_sockets
from tula.model.errors import KernelError
from tula.model.health import ProbeTarget

TARGET = ProbeTarget(ip_address("127.0.0.1"), 9)


def test_too_many_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def probed() -> None:
        monkeypatch.setattr(socket, "socket", full)
        outcome = await send_probe(settings("tcp"), TARGET, KernelProbeSockets())
        assert outcome.passed is None
        assert outcome.evidence == (
            "tcp to 127.0.0.1 port 9: cannot open a socket for probes: Too many open files; "
            "raise the limit of open files"
        )

    asyncio.run(probed())


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EAGAIN, errno.ENOBUFS])
def test_ports_or_memory_that_ran_out(number: int) -> None:
    class Exhausted(socket.socket):
        def connect_ex(self, _: object) -> int:
            return number

    class Sockets:
        def open(self, _: ProbeTarget, kind: int, protocol: int = 0) -> socket.socket:
            return Exhausted(socket.AF_INET, kind, protocol)

    outcome = asyncio.run(send_probe(settings("tcp"), TARGET, Sockets()))
    assert (outcome.passed, outcome.failure) == (None, None)
    assert outcome.evidence.endswith(" on this machine")


def test_the_capability_is_named() -> None:
    # A process of its own: what is given up does not come back.
    code = """
import socket
from ipaddress import ip_address
from tula.model.errors import KernelError
from tula.kernel.probe_sockets import KernelProbeSockets
from tula.model.health import ProbeTarget
here = ip_address("127.0.0.1")
for kind, source in ((socket.SOCK_STREAM, here), (socket.SOCK_RAW, None)):
    try:
        KernelProbeSockets().open(ProbeTarget(here, 9, source, 1, 70000), kind, 6)
    except KernelError as error:
        print(error)
"""
    plain = ("setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all")
    prefix = plain if os.geteuid() == 0 else ()
    done = run([*prefix, sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message = (
        "cannot open a socket for probes: Operation not permitted; "
        "it needs CAP_NET_ADMIN, and CAP_NET_RAW for icmp"
    )
    assert done.stdout.splitlines() == [message] * 2


def test_the_limit_of_files_is_raised() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert allow_many_sockets() == before[1]
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_kernel_error_is_raised_with_its_cause() -> None:
    with pytest.raises(KernelError) as caught:
        KernelProbeSockets().open(TARGET, 99)
    assert isinstance(caught.value.__cause__, OSError)
