"""Brings one message to one receiver, in a bounded time, whatever that one does.

Webhooks by httpx2, mails by aiosmtplib, programs in a process group of their own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path

from tula.daemon.notify.alertmanager import describe_alerts
from tula.daemon.notify.message import Message
from tula.daemon.notify.pipeline import Outcome
from tula.health.probes.attempt import NotSentError
from tula.health.probes.process import run_group
from tula.health.probes.script import without_capabilities
from tula.model.notifying import BodyFormat, Email, Receiver, StartTls
from tula.model.wording import printable
from tula.version import __version__

WEBHOOK, EXEC, EMAIL = 10.0, 30.0, 30.0
"""Seconds that each may take, from the first look at a name to the last byte."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECRET = 64 << 10
_TOLD = 200
_LONGEST_WAIT = 300.0
_IMPLICIT = 465
_LATER = frozenset({408, 425, 429})
"""Answers of a server that may do it later (RFC 9110), below 500."""


class FailedError(Exception):
    """It was not taken; a line without secrets."""

    def __init__(self, why: str, *, refused: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.refused, self.wait = refused, wait


async def deliver(receiver: Receiver, message: Message) -> Outcome:
    """Tries once. Raises nothing but CancelledError."""
    limit = WEBHOOK if receiver.webhook else EMAIL if receiver.email else EXEC
    try:
        async with asyncio.timeout(limit):
            if receiver.webhook:
                await _post(receiver, message)
            elif receiver.email is not None:
                await _mail(receiver.email, message)
            else:
                await _run(receiver, message)
    except FailedError as error:
        return Outcome(printable(str(error), _TOLD) or "failed", error.refused, error.wait)
    except TimeoutError:
        return Outcome(f"did not end within {limit:g} s")
    except Exception as error:
        # What a library raises may have the address in it, and that a secret.
        return Outcome(printable(f"failed ({type(error).__name__})", _TOLD))
    return Outcome()


# Webhooks


async def _post(receiver: Receiver, message: Message) -> None:
    import httpx2

    alerts = receiver.format is BodyFormat.ALERTMANAGER
    body = json.dumps(describe_alerts(message) if alerts else message.describe())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"tula/{__version__}",
        **dict(receiver.headers),
    }
    if receiver.token_file:
        headers["Authorization"] = f"Bearer {_secret(receiver.token_file)}"
    try:
        async with (
            httpx2.AsyncClient(verify=_context(receiver.verify), timeout=WEBHOOK) as client,
            client.stream("POST", receiver.webhook, content=body, headers=headers) as answer,
        ):
            # The rest of the answer, however large, is not read.
            status, wait = answer.status_code, answer.headers.get("Retry-After", "")
            if not 200 <= status < 300:
                refused = status < 500 and status not in _LATER
                seconds = float(wait) if re.fullmatch("[0-9]{1,4}", wait) else 0.0
                raise FailedError(
                    f"answered {status}", refused=refused, wait=min(seconds, _LONGEST_WAIT)
                )
    except httpx2.TimeoutException:
        raise FailedError(f"no answer within {WEBHOOK:g} s") from None
    except httpx2.HTTPError as error:
        raise FailedError(_network(error)) from None


def _network(error: BaseException) -> str:
    """Why there is no connection, or it broke."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {seen.verify_message}"
        if isinstance(seen, ConnectionRefusedError):
            return "nobody listens there"
        if isinstance(seen, OSError) and seen.strerror and not isinstance(seen, ssl.SSLError):
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return str(error) or type(error).__name__


def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _secret(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_SECRET)
    except OSError as error:
        raise FailedError(f"{path}: {error.strerror}") from None
    lines = text.decode(errors="replace").split("\n")
    secret = lines[0].strip()
    if not secret or not secret.isprintable():
        raise FailedError(f"{path}: the first line has no secret")
    return secret


# Mails


def make_mail(email: Email, message: Message) -> EmailMessage:
    """The mail of a message (RFC 5322); one that is sent again has the same Message-ID."""
    mail = EmailMessage()
    severity = str(message.severity).upper()
    mail["Subject"] = printable(f"[tula {message.balancer}] {severity}: {message.subject}", 300)
    mail["From"] = email.sender
    mail["To"] = ", ".join(email.to)
    mail["Date"] = format_datetime(datetime.fromtimestamp(message.time, UTC))
    domain = email.sender.rpartition("@")[2]
    mail["Message-ID"] = f"<{message.id}.{re.sub('[^a-z0-9-]', '-', message.balancer)}@{domain}>"
    # RFC 3834: nobody's vacation answers it.
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Tula-Severity"] = str(message.severity)
    mail["X-Tula-Status"] = message.status
    mail.set_content(message.text)
    return mail


async def _mail(email: Email, message: Message) -> None:
    import aiosmtplib

    password = _secret(email.password_file) if email.password_file else None
    implicit = email.port == _IMPLICIT
    start: bool | None = None
    if implicit or email.starttls is StartTls.NEVER:
        start = False
    elif email.starttls is StartTls.REQUIRED or email.user:
        start = True
    client = aiosmtplib.SMTP(
        hostname=email.host,
        port=email.port,
        use_tls=implicit,
        start_tls=start,
        tls_context=_context(email.verify),
        timeout=EMAIL,
        username=email.user or None,
        password=password,
        local_hostname=email.sender.rpartition("@")[2],
    )
    try:
        async with client:
            await client.send_message(make_mail(email, message), recipients=list(email.to))
    except aiosmtplib.SMTPRecipientsRefused as error:
        first = error.recipients[0]
        raise FailedError(
            f"{first.recipient}: {first.code} {first.message}", refused=True
        ) from None
    except aiosmtplib.SMTPResponseException as error:
        raise FailedError(f"{error.code} {error.message}", refused=error.code >= 500) from None
    except aiosmtplib.SMTPTimeoutError:
        raise FailedError(f"no answer within {EMAIL:g} s") from None
    except (aiosmtplib.SMTPException, OSError) as error:
        raise FailedError(_network(error)) from None
    finally:
        client.close()


# Programs


def environment(message: Message) -> Mapping[str, str]:
    """What a program finds in its environment."""
    return {
        "PATH": _PATH,
        "TULA_BALANCER": message.balancer,
        "TULA_SUBJECT": message.subject,
        "TULA_STATUS": message.status,
        "TULA_SEVERITY": str(message.severity),
        "TULA_EVENTS": str(message.events),
        "TULA_TEST": "1" if message.test else "",
    }


async def _run(receiver: Receiver, message: Message) -> None:
    file = os.memfd_create("tula-notification", os.MFD_CLOEXEC)
    try:
        # A file, not a pipe: a program that reads nothing holds up nobody.
        text = json.dumps(message.describe()).encode() + b"\n"
        with os.fdopen(os.dup(file), "wb") as writing:
            writing.write(text)
        os.lseek(file, 0, os.SEEK_SET)
        try:
            ended = await run_group(
                (*without_capabilities(), *receiver.exec),
                environment(message),
                stdin=file,
            )
        except NotSentError as error:
            raise FailedError(str(error)) from None
        except OSError as error:
            raise FailedError(f"cannot start a program: {error.strerror}") from None
    finally:
        os.close(file)
    line = printable(ended.output.strip().split(b"\n")[0].decode(errors="replace"), 120)
    if ended.flooded:
        raise FailedError("wrote too much output")
    if ended.status < 0:
        raise FailedError(f"killed by {signal.Signals(-ended.status).name}")
    if ended.status:
        raise FailedError(f"exit status {ended.status}" + (f": {line}" if line else ""))
