"""Token files: the token by which a balancer knows who asks, and whom to expect there.

A line with the token, and optionally lines ``sha256:…``, the fingerprints of the certificates that
are accepted: several while one replaces another. ``tula token create`` prints such a file.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(r"tula_[A-Za-z0-9_-]{43}")
_LARGEST = 65536
_PREFIX = "sha256:"


class WrongError(Exception):
    """What the user wrote is wrong; one line that says how to put it right."""


@dataclass(frozen=True, slots=True)
class TokenFile:
    """``fingerprints`` are in lower-case hexadecimal; none: whatever the authorities vouch for."""

    token: str = field(repr=False)
    fingerprints: frozenset[str] = frozenset()


def read_token_file(path: Path) -> TokenFile:
    """Raises WrongError, whose text never has a part of the token."""
    lines = _read(path).splitlines()
    tokens, fingerprints = [], set()
    for number, line in enumerate(lines, 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        if word.lower().startswith(_PREFIX):
            fingerprints.add(read_fingerprint(word, f"{path}:{number}"))
        elif _TOKEN.fullmatch(word):
            tokens.append(word)
        else:
            raise WrongError(
                f"{path}:{number}: neither a token (tula_ and 43 characters) nor a fingerprint "
                "(sha256:…); write the file with: tula token create NAME --scope S"
            )
    if not tokens:
        raise WrongError(
            f"{path}: no token in it; write it on the balancer with: "
            "tula token create NAME --scope S"
        )
    if len(tokens) > 1:
        raise WrongError(f"{path}: {len(tokens)} tokens; keep one in the file")
    return TokenFile(tokens[0], frozenset(fingerprints))


def read_fingerprint(text: str, where: str) -> str:
    """``sha256:`` and 64 hexadecimal digits, also in pairs with colons as openssl prints them."""
    digits = text.strip().lower().removeprefix(_PREFIX).replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise WrongError(
            f"{where}: not a fingerprint; give sha256: and the 64 hexadecimal digits that "
            "tula token shows on the balancer"
        )
    return digits


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            # As ssh does with a private key: what belongs to somebody else is theirs to protect.
            if found.st_uid == os.geteuid() and found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise WrongError(
                    f"{path}: others can read this token (mode {found.st_mode & 0o777:04o}); "
                    f"it may be known: chmod 600 {path}, or revoke it and create another"
                )
            text = file.read(_LARGEST + 1)
    except OSError as error:
        raise WrongError(f"{path}: {error.strerror or error}") from None
    if len(text) > _LARGEST:
        raise WrongError(f"{path}: too large for a token file")
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise WrongError(f"{path}: not a text file, so no token file") from None
