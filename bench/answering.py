"""A server for thousands of probes a second: takes connections, answers HTTP if it is asked.

``python bench/answering.py PORT``, in a namespace; it prints ``ready`` and serves until killed.
"""

from __future__ import annotations

import selectors
import socket
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"


def main() -> None:
    listening = socket.create_server(("", int(sys.argv[1])), backlog=4096)
    listening.setblocking(False)
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listening:
                try:
                    while True:
                        opened, _ = listening.accept()
                        opened.setblocking(False)
                        selector.register(opened, selectors.EVENT_READ)
                except BlockingIOError:
                    continue
            opened = key.fileobj
            assert isinstance(opened, socket.socket)
            try:
                asked = opened.recv(4096)
                if asked:
                    opened.send(_ANSWER)
                    continue
            except OSError:
                pass
            selector.unregister(opened)
            opened.close()


if __name__ == "__main__":
    main()
