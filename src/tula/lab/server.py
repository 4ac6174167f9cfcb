"""The lab's servers as a program, which can outlive the lab that started it::

    python -m tula.lab.server backend-1 --http 80 --udp 80 10.9.0.100 fd09::100

It prints ``ready`` once clients can connect, and serves until it is killed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tula.lab.guard import LabError
from tula.lab.http import HttpServer
from tula.lab.place import Here
from tula.lab.servers import TcpServer, UdpServer


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m tula.lab.server")
    parser.add_argument("name")
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--http", type=int, action="append", default=[], metavar="PORT")
    parser.add_argument("--tcp", type=int, action="append", default=[], metavar="PORT")
    parser.add_argument("--udp", type=int, action="append", default=[], metavar="PORT")
    given = parser.parse_args()
    here = Here(given.name, tuple(given.addresses))
    try:
        HttpServer(here, given.http, None).start()
        TcpServer(here, given.tcp, None).start()
        UdpServer(here, given.udp, None).start()
    except LabError as error:
        sys.exit(str(error))
    print("ready", flush=True)
    # Whoever reads our output may be gone long before us.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
