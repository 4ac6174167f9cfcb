"""``python -m tula.api.gateway FD PARENT``: started by the daemon, whose process id is PARENT.

FD is the gateway's end of a socket pair: orders with listening sockets come by it, and its end
is the gateway's.
"""

from __future__ import annotations

import sys

from tula.api.gateway.confine import ConfineError, confine


def main() -> int:
    """The process's exit status."""
    descriptor, parent = map(int, sys.argv[1:3])
    try:
        # Before anything else is imported, and long before anything is read.
        confine(parent)
    except ConfineError as error:
        print(f"tula: the gateway cannot start: {error}", file=sys.stderr)
        return 1
    import asyncio
    import gc
    import signal
    import socket

    from tula.api.gateway.service import Gateway
    from tula.daemon.journal import mark_errors

    mark_errors()
    # The terminal's Ctrl-C is for the daemon, which ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    with socket.socket(fileno=descriptor) as channel:
        asyncio.run(Gateway(channel).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
