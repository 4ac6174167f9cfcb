"""Who is told when something changes: the key ``notify``."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from tula.model.event import EventKind
from tula.model.setting import Duration, Form, OneOf, Setting
from tula.model.severity import GROUPS, Severity

WORDS = {**{group: group for group in GROUPS}, **{str(kind): str(kind) for kind in EventKind}}
"""What ``events`` may name."""


class BodyFormat(StrEnum):
    """What a webhook is sent."""

    TULA = "tula"
    ALERTMANAGER = "alertmanager"
    """version 4 of what Prometheus's Alertmanager sends"""


class StartTls(StrEnum):
    """When mail is encrypted."""

    AUTO = "auto"
    """where the smarthost offers it; required with a user"""
    REQUIRED = "required"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Email:
    """A mail, by a smarthost (RFC 5321)."""

    to: Annotated[
        tuple[str, ...],
        Setting("Who gets it.", Form.MAILBOXES, example="such as ops@example.org"),
    ]
    sender: Annotated[
        str,
        Setting("Its sender.", Form.MAILBOX, key="from", example="such as tula@lb1.example.org"),
    ]
    smarthost: Annotated[
        str,
        Setting(
            "The server that takes it, with its port; 465 is TLS from the first byte.",
            Form.HOST_PORT,
            example="such as 'mail.example.org:25'",
        ),
    ]
    starttls: Annotated[
        StartTls,
        Setting(
            "auto: encrypted where the server offers it, and always with a user; required; never."
        ),
    ] = StartTls.AUTO
    verify: Annotated[bool, Setting("Whether the server's certificate must be valid.")] = True
    user: Annotated[str, Setting("Who sends, to the server.")] = ""
    password_file: Annotated[
        str, Setting("The file with the user's password, on its first line.", Form.FILE)
    ] = ""

    @property
    def host(self) -> str:
        """The smarthost's name or address."""
        return self.smarthost.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The smarthost's port."""
        return int(self.smarthost.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Receiver:
    """One that is told; by webhook, exec or email. Times in seconds."""

    webhook: Annotated[str, Setting("Where JSON is posted.", Form.URL)] = ""
    exec: Annotated[
        tuple[str, ...],
        Setting(
            "A program and its arguments; JSON on its standard input.",
            expected="a program or [program, argument]",
        ),
    ] = ()
    email: Annotated[Email | None, Setting("A mail.")] = None
    format: Annotated[
        BodyFormat, Setting("webhook: what is posted: tula's JSON, or alertmanager's.")
    ] = BodyFormat.TULA
    headers: Annotated[
        tuple[tuple[str, str], ...], Setting("webhook: more headers, by name.", Form.HTTP_HEADERS)
    ] = ()
    token_file: Annotated[
        str, Setting("webhook: the file of a bearer token, which is sent too.", Form.FILE)
    ] = ""
    verify: Annotated[bool, Setting("webhook: whether the server's certificate must be valid.")] = (
        True
    )
    events: Annotated[
        tuple[str, ...],
        Setting(
            "The only kinds of events, or groups of them.",
            OneOf(WORDS, called="event or group of events"),
            expected="an event such as backend-down, a group such as backends, or a list",
            distinct=True,
        ),
    ] = ()
    severity: Annotated[Severity, Setting("The least severity that is told.")] = Severity.INFO
    services: Annotated[
        tuple[str, ...],
        Setting("The only services whose events are told.", expected="a service or a list of them"),
    ] = ()
    group_wait: Annotated[
        float,
        Setting("How long after a first event others are waited for.", Duration(zero=True)),
    ] = 2.0
    group_interval: Annotated[
        float, Setting("The least time between two messages.", Duration(zero=True))
    ] = 30.0

    @property
    def kind(self) -> str:
        """webhook, exec or email."""
        return "webhook" if self.webhook else "email" if self.email is not None else "exec"

    @property
    def label(self) -> str:
        """What it is called, without anything secret: the path of a URL may be."""
        if self.webhook:
            return f"webhook {urlsplit(self.webhook).netloc}"
        if self.email is not None:
            return f"email {self.email.to[0]}"
        return f"exec {self.exec[0].rpartition('/')[2]}"

    @property
    def identity(self) -> str:
        """The same on all balancers that tell the same to the same; no secret can be read from
        it. A mail's sender makes no difference, nor does how a server is trusted."""
        email = self.email
        parts = (
            self.webhook,
            self.exec,
            () if email is None else (sorted(email.to), email.smarthost),
            str(self.format),
            sorted(self.events),
            str(self.severity),
            sorted(self.services),
        )
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Notifications:
    """All who are told."""

    receivers: tuple[Receiver, ...] = ()

    @property
    def named(self) -> tuple[tuple[str, Receiver], ...]:
        """Each with a name of its own."""
        seen: Counter[str] = Counter()
        found = []
        for receiver in self.receivers:
            label = receiver.label
            seen[label] += 1
            count = seen[label]
            found.append((label if count == 1 else f"{label} #{count}", receiver))
        return tuple(found)
