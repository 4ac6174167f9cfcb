"""The API's TLS certificate: the self-signed one that is made and kept, and fingerprints.

A client that pins the fingerprint needs no authority. So what was made stays: names in it are for
people, and it is not made anew when addresses change. Few imports: the gateway's process has this
too, and whoever makes a certificate does it in a process of its own.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import ssl
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tula.kernel.directory import Directory, describe_error
from tula.model.errors import StateError

CERTIFICATE, KEY = "tls-certificate.pem", "tls-key.pem"
"""Their names in the state directory."""
_LOCK = "tls.lock"
_WAIT = 30.0
_DAYS = 3650
_LARGEST = 1 << 20
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pair:
    """The files of a certificate and of its private key."""

    certificate: Path
    key: Path


def own_pair(state_dir: Path) -> Pair:
    """Where the self-signed certificate is, or will be."""
    return Pair(state_dir / CERTIFICATE, state_dir / KEY)


def ensure_own(state_dir: Path, names: Sequence[str] = ()) -> Pair:
    """The self-signed pair, made with these host names and addresses if there is none yet.

    Takes half a second the first time. Raises StateError.
    """
    pair, directory = own_pair(state_dir), Directory(state_dir)
    try:
        with directory.lock(_LOCK, _WAIT):
            if not (pair.certificate.exists() and pair.key.exists()):
                key, certificate = _make_apart(names)
                # The certificate last: with it the pair is whole.
                directory.remove(CERTIFICATE)
                directory.write(KEY, key, 0o600)
                directory.write(CERTIFICATE, certificate)
    except OSError as error:
        raise StateError(f"{state_dir}: {describe_error(error)}") from error
    return pair


def fingerprint_of(certificate: Path) -> str:
    """SHA-256 of the first certificate of a PEM file (its DER), in hexadecimal: what clients pin.

    Raises StateError.
    """
    try:
        # The daemon's user may put a FIFO in its place, for which root would wait for ever.
        descriptor = os.open(certificate, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StateError(f"{certificate} is not a regular file")
            text = file.read(_LARGEST).decode("ascii", "replace")
    except OSError as error:
        raise StateError(f"{certificate}: {error.strerror or error}") from error
    found = _PEM.search(text)
    try:
        if found is None:
            raise ValueError
        der = ssl.PEM_cert_to_DER_cert(found[0])
        if not der.startswith(b"\x30"):  # a SEQUENCE, as every certificate is
            raise ValueError
        return hashlib.sha256(der).hexdigest()
    except ValueError:
        raise StateError(f"{certificate} holds no certificate (PEM)") from None


def _make_apart(names: Sequence[str]) -> tuple[bytes, bytes]:
    """Key and certificate, by a process: cryptography would stay in the memory of this one."""
    command = [sys.executable, "-I", "-m", "tula.engine.certificates", *names]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_WAIT, check=False
    )
    key, found, certificate = done.stdout.partition(b"-----BEGIN CERTIFICATE-----")
    if done.returncode or not found:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise StateError(f"no certificate could be made: {lines[-1] if lines else 'it was ended'}")
    return key, found + certificate


def make_pair(names: Sequence[str]) -> bytes:
    """A new ECDSA P-256 key and its self-signed certificate for ten years, as PEM."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tula API")])
    now = datetime.now(UTC)
    alternatives: list[x509.GeneralName] = []
    for each in dict.fromkeys(names):
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(each)))
        except ValueError:
            alternatives.append(x509.DNSName(each))
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of clients may be behind.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return private + builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


if __name__ == "__main__":
    sys.stdout.buffer.write(make_pair(sys.argv[1:]))
