"""The lab's servers as a program, which can outlive the lab that started it::

    python -m tula.lab.server backend-1 --http 80 --udp 80 10.9.0.100 fd09::100

It prints ``ready`` once clients can connect, and serves until it is killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from typing import NamedTuple

from tula.lab.guard import LabError
from tula.lab.http import HttpServer
from tula.lab.servers import TcpServer, UdpServer


class CurrentNamespace(NamedTuple):
    """The namespace that this process was started in, as a ``ServerHost``."""

    name: str
    listen: tuple[str, ...]

    def addresses(self) -> list[str]:
        """Those given on the command line."""
        return list(self.listen)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """An ordinary socket."""
        return socket.socket(family, kind, protocol)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tula.lab.server")
    parser.add_argument("name")
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--http", type=int, action="append", default=[], metavar="PORT")
    parser.add_argument("--tcp", type=int, action="append", default=[], metavar="PORT")
    parser.add_argument("--udp", type=int, action="append", default=[], metavar="PORT")
    given = parser.parse_args()
    host = CurrentNamespace(given.name, tuple(given.addresses))
    try:
        HttpServer(host, given.http, None).start()
        TcpServer(host, given.tcp, None).start()
        UdpServer(host, given.udp, None).start()
    except LabError as error:
        sys.exit(str(error))
    print("ready", flush=True)
    # The reader of our output may end long before us.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
