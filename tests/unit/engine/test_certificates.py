"""The API's self-signed certificate is made once, and kept."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tula.engine.certificates import KEY, ensure_own, fingerprint_of, own_pair
from tula.model.errors import StateError


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    made = ensure_own(tmp_path, ["lb1", "10.0.0.2", "2001:db8::2"])
    assert made == own_pair(tmp_path)
    assert made.key.stat().st_mode & 0o777 == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    before = fingerprint_of(made.certificate)
    ensure_own(tmp_path, ["another"])
    assert fingerprint_of(made.certificate) == before
    der = ssl.PEM_cert_to_DER_cert(made.certificate.read_text())
    assert before == hashlib.sha256(der).hexdigest()


def test_half_a_pair_is_made_anew(tmp_path: Path) -> None:
    made = ensure_own(tmp_path)
    (tmp_path / KEY).unlink()
    ensure_own(tmp_path)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate, made.key)


def test_a_file_without_a_certificate_has_no_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "some.pem"
    with pytest.raises(StateError, match="No such file"):
        fingerprint_of(path)
    path.write_text("-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n")
    with pytest.raises(StateError, match="holds no certificate"):
        fingerprint_of(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StateError, match="not a regular file"):
        fingerprint_of(path)


def test_it_cannot_be_made_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="File exists"):
        ensure_own(tmp_path / "file")


def test_only_the_process_that_makes_it_imports_cryptography() -> None:
    code = (
        "import sys, tula.engine.certificates; print({'cryptography', 'pydantic'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
