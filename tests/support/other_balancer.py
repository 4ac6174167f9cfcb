"""Another balancer as its peers see it: an HTTPS server that tells what it is told to tell."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.certificates import make_certificate
from tula.engine.peers import Peer

TOKEN = "tula_" + "p" * 43


class OtherBalancer:
    """``view`` is what it tells of itself; ``seen`` what it was asked; ``connections`` how many
    were made; ``hangs``: seconds until it answers; ``status`` that of its answers."""

    def __init__(self, **view: Any) -> None:
        self.view: dict[str, Any] = {"start": "one", **view}
        self.seen: list[str] = []
        self.connections = 0
        self.hangs = 0.0
        self.status = 200
        self.port = 0

    def peer(self, folder: Path, name: str = "lb2") -> Peer:
        """As peers.json has it."""
        fingerprint = (folder / f"{name}.sha256").read_text().removeprefix("sha256:")
        return Peer(name, f"https://127.0.0.1:{self.port}", fingerprint, TOKEN)

    @contextmanager
    def served(self, folder: Path, name: str = "lb2") -> Iterator[Peer]:
        """Answers on a port of loopback, the same one each time."""
        if not (folder / f"{name}.sha256").exists():
            made = make_certificate(folder, "127.0.0.1", name=name)
            (folder / f"{name}.sha256").write_text(made.fingerprint)
            self._context = made.context()
        other, open_now = self, list[Any]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def setup(self) -> None:
                other.connections += 1
                super().setup()

            def _answer(self) -> None:
                assert self.headers["Authorization"] == f"Bearer {TOKEN}"
                other.seen.append(f"{self.command} {self.path.removeprefix('/api/v1')}")
                time.sleep(other.hangs)
                body = json.dumps(other.view if self.command == "GET" else {}).encode()
                self.send_response(other.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def finish_request(self, request: Any, client_address: Any) -> None:
                secured = other._context.wrap_socket(request, server_side=True)
                open_now.append(secured)
                try:
                    super().finish_request(secured, client_address)
                finally:
                    secured.close()

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Whoever asked went away."""

        server = Server(("127.0.0.1", self.port), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield self.peer(folder, name)
        finally:
            server.shutdown()
            thread.join(30)
            for each in open_now:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            server.server_close()
