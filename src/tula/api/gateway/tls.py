"""The TLS side of the listeners: a certificate that is read again when its files change."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from tula.engine.certificates import fingerprint_of
from tula.model.errors import StateError

_Signature = tuple[tuple[int, ...] | None, ...]


class Certificate:
    """The newest pair of certificate and key that could be used."""

    def __init__(self, certificate: str, key: str) -> None:
        self.files = certificate, key
        self.context: ssl.SSLContext | None = None
        """None: there was no pair yet that could be used"""
        self.fingerprint = ""
        self.problem = ""
        self._seen: _Signature | None = None

    def refresh(self) -> bool:
        """Reads the files again if they have changed; whether anything is new, be it good or bad.

        A pair that cannot be used leaves the one before in use, and is told by ``problem``.
        """
        seen = tuple(_signature(path) for path in self.files)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            for path in self.files:
                if not stat.S_ISREG(
                    Path(path).stat().st_mode
                ):  # OpenSSL would wait for a FIFO's end
                    raise StateError(f"{path} is not a regular file")
            context = make_context(*self.files)
            fingerprint = fingerprint_of(Path(self.files[0]))
        except (OSError, ssl.SSLError, StateError, ValueError) as error:
            kept = "; the one before is still in use" if self.context else ""
            self.problem = f"{self._explain(error)}{kept}"
            return True
        self.context, self.fingerprint, self.problem = context, fingerprint, ""
        return True

    def _explain(self, error: Exception) -> str:
        certificate, key = self.files
        if isinstance(error, StateError):
            return str(error)
        if isinstance(error, ssl.SSLError):
            if error.reason == "KEY_VALUES_MISMATCH":
                return f"{key} is not the key of {certificate}"
            reason = (error.reason or "no certificate and key").lower().replace("_", " ")
            return f"{certificate}, {key}: {reason}; give PEM files, the key without a passphrase"
        if isinstance(error, OSError):
            missing = [path for path in self.files if _signature(path) is None]
            return f"{', '.join(missing) or ' or '.join(self.files)}: {error.strerror}"
        return f"{certificate}, {key}: {error}"


def make_context(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 or newer, as ``ssl`` has it by default. Raises OSError and ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    # No sessions are kept for clients to resume: they would cost memory for each.
    context.num_tickets = 0
    # With a passphrase asked for, OpenSSL would wait at the terminal.
    context.load_cert_chain(certificate, key, password="")
    return context


def _signature(path: str) -> tuple[int, ...] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
