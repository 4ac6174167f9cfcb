"""The gateway's own answers: problem details (RFC 9457), as the daemon's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil

Headers = list[tuple[bytes, bytes]]
PROBLEM = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. ``reason`` is the log's word for why it is no success of the gateway's."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    reason: str = ""
    close: bool = False
    """whether the connection ends with it, such as when a body was not read"""


class RefusalError(Exception):
    """A request is answered so, and not handed on."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def refusal(
    status: int, message: str, reason: str = "", *, wait: float | None = None, close: bool = False
) -> RefusalError:
    """``wait``: seconds until it is worth to ask again."""
    headers: Headers = [(b"content-type", PROBLEM), (b"cache-control", b"no-store")]
    if wait is not None:
        headers.append((b"retry-after", str(max(1, ceil(wait))).encode()))
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b'Bearer realm="tula"'))
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "errors": [{"message": message}],
    }
    return RefusalError(Answer(status, headers, json.dumps(problem).encode(), reason, close))
