"""Readers of what ``notify`` names: URLs, mail addresses, servers."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tula.config.errors import shown
from tula.config.scalars import invalid, read_text

MAILBOX = r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*"
"""What HTML takes for a mail address: RFC 5322's without quotes and comments."""
HOST_PORT = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253}):[0-9]{1,5}"
URL = r"https?://[^\s/?#]+([/?][^\s#]*)?"


def read_url(value: object) -> str:
    """A URL of http or https; its errors do not repeat it, as its path may be a secret."""
    text = read_text(value)
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise invalid("this is no URL; give one such as https://hooks.example.org/tula") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise invalid("expected a URL that begins with https:// or http:// and a host")
    if not text.isascii() or " " in text:
        raise invalid("must be percent-encoded; write %20 for a space")
    if parts.username is not None or parts.password is not None:
        raise invalid("has a user in it; give headers: {Authorization: …} or token_file")
    if parts.fragment or text.endswith("#"):
        raise invalid("has a fragment, which is never sent; leave out what begins with #")
    return text


def read_mailbox(value: object) -> str:
    """user@domain, without a name beside it."""
    text = read_text(value)
    if not re.fullmatch(MAILBOX, text) or len(text) > 254:
        raise invalid(f"{shown(value)} is no mail address; give one such as ops@example.org")
    return text


def read_host_port(value: object) -> str:
    """A name or an address, and a port."""
    text = read_text(value)
    if not re.fullmatch(HOST_PORT, text) or not 1 <= int(text.rpartition(":")[2]) <= 65535:
        raise invalid(
            f"{shown(value)} is no server with a port; give one such as 'mail.example.org:25'"
        )
    return text
