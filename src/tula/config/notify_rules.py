"""Rules of ``notify``: what a receiver may have together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tula.config.errors import meant, quoted
from tula.config.tree import MapNode, Value
from tula.model.config import Config
from tula.model.notifying import Receiver, StartTls
from tula.model.problem import Path, Problem

_WAYS = ("webhook", "exec", "email")
_OF_WEBHOOKS = ("format", "headers", "token_file", "verify")


def notify_problems(root: Value, config: Config, services: Mapping[str, Any]) -> Iterator[Problem]:
    """Receivers that are told in no way or in several, or that hear nothing."""
    raw = root.get("notify") if isinstance(root, MapNode) else None
    if not isinstance(raw, list):
        return
    for index, each in enumerate(raw):
        if isinstance(each, MapNode):
            yield from _ways(each, ("notify", index))
    receivers = config.notify.receivers
    if len(receivers) != len(raw):
        return  # positions would shift; what could not be read has its problems
    seen: dict[str, int] = {}
    for index, receiver in enumerate(receivers):
        path: Path = ("notify", index)
        yield from _receiver(receiver, path, services)
        if not (receiver.webhook or receiver.exec or receiver.email):
            continue
        first = seen.setdefault(receiver.identity, index)
        if first != index:
            message = f"is told the same as notify[{first}], in the same way; keep one"
            yield Problem(path, message)


def _ways(raw: MapNode, path: Path) -> Iterator[Problem]:
    given = [way for way in _WAYS if way in raw]
    if not given:
        yield Problem(path, "needs one of webhook, exec and email, such as webhook: https://…")
    elif len(given) > 1:
        message = f"has {' and '.join(given)}; give each a receiver of its own"
        yield Problem((*path, given[1]), message, on_key=True)
    elif given != ["webhook"]:
        for key in _OF_WEBHOOKS:
            if key in raw:
                fix = "; write it below email" if (given, key) == (["email"], "verify") else ""
                message = f"is a key of webhook, and this is {given[0]}{fix or '; remove it'}"
                yield Problem((*path, key), message, on_key=True)


def _receiver(receiver: Receiver, path: Path, services: Mapping[str, Any]) -> Iterator[Problem]:
    for index, name in enumerate(receiver.services):
        if name not in services:
            near = meant(name, list(services))
            fix = f"did you mean {near}?" if near else "give one of services"
            place = (*path, "services", index)
            yield Problem(place, f"there is no service {quoted(name)}; {fix}")
    authorized = any(name.lower() == "authorization" for name, _ in receiver.headers)
    if receiver.token_file and authorized:
        yield Problem(
            (*path, "token_file"), "an Authorization header is given too; keep one of them"
        )
    email = receiver.email
    if email is None:
        return
    for key, other in (("user", "password_file"), ("password_file", "user")):
        if getattr(email, key) and not getattr(email, other):
            message = f"needs {other!r} beside it; give both, or neither"
            yield Problem((*path, "email", key), message)
    if email.user and email.starttls is StartTls.NEVER and email.port != 465:
        message = "would send the password in the clear; give auto or required, or no user"
        yield Problem((*path, "email", "starttls"), message)
