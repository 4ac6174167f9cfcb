"""Debian's servers as its packages' scripts and units set them up and start them.

The scripts did not run when the packages were unpacked; what they do to files is done here. The
configuration is the package's own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.debian import Debian
from tula.lab.process import Process


class Program(NamedTuple):
    """One server: what its package's script does, and the command line of its unit."""

    set_up: Callable[[Debian], None]
    command: tuple[str, ...]

    def start(self, backend: Debian, folder: Path) -> Process:
        """Starts it; ``folder`` gets its log."""
        return backend.start(*self.command, log=folder / f"{backend.host.name}.log")


def _nginx(backend: Debian) -> None:
    backend.own("root", "/var/log/nginx", "/var/lib/nginx", "/var/www/html")
    site = backend.tree / "etc/nginx/sites-enabled/default"
    site.symlink_to("/etc/nginx/sites-available/default")


def _bind(backend: Debian) -> None:
    backend.own("bind", "/run/named", "/var/cache/bind", "/var/lib/bind")


def _knot(backend: Debian) -> None:
    backend.own("knot", "/run/knot", "/var/lib/knot")
    backend.run("chown", "-R", "knot:knot", "/etc/knot")


def _unbound(backend: Debian) -> None:
    backend.own("unbound", "/var/lib/unbound")
    for step in ("chroot_setup", "root_trust_anchor_update"):
        backend.run("/usr/libexec/unbound-helper", step, check=False)  # as its unit has it


def _vsftpd(backend: Debian) -> None:
    backend.own("root", "/run/vsftpd/empty")  # as tmpfiles.d has it
    passwd = backend.tree / "etc/passwd"
    passwd.write_text(
        re.sub(r"^(ftp:.*):/nonexistent:", r"\1:/srv/ftp:", passwd.read_text(), flags=re.MULTILINE)
    )


def _freeradius(backend: Debian) -> None:
    backend.own("freerad", "/run/freeradius", "/var/log/freeradius")
    # What the scripts of ssl-cert and ca-certificates make: these need bash.
    certificate = "/etc/ssl/certs/ssl-cert-snakeoil.pem"
    key = "/etc/ssl/private/ssl-cert-snakeoil.key"
    new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=aaa")
    backend.run(*new, "-keyout", key, "-out", certificate)
    backend.run("cp", certificate, "/etc/ssl/certs/ca-certificates.crt")
    base = backend.tree / "etc/freeradius/3.0"
    for kind, names in _RADIUS_ENABLED.items():
        for name in names:
            (base / f"{kind}-enabled" / name).symlink_to(f"../{kind}-available/{name}")
    backend.run("chown", "-R", "freerad:freerad", "/etc/freeradius", "/etc/ssl/private")


_RADIUS_ENABLED = {
    "mods": (
        *("always", "attr_filter", "chap", "date", "detail", "detail.log", "digest", "eap", "echo"),
        *("exec", "expiration", "expr", "files", "linelog", "logintime", "mschap", "ntlm_auth"),
        *("pap", "passwd", "preprocess", "radutmp", "realm", "replicate", "soh", "sradutmp"),
        *("unix", "unpack", "utf8", "dynamic_clients"),
    ),
    "sites": ("default", "inner-tunnel"),
}
"""What the package's script enables."""


def _rsyslog(backend: Debian) -> None:
    # The kernel's log is the machine's: who reads it there takes it away.
    config = backend.tree / "etc/rsyslog.conf"
    config.write_text(config.read_text().replace('module(load="imklog")', ""))


NGINX = Program(_nginx, ("nginx", "-g", "daemon off;"))
BIND = Program(_bind, ("named", "-f", "-u", "bind"))
# Its unit starts it as its user, with the right to low ports.
_LOW_PORTS = ("--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service")
_AS_KNOT = ("setpriv", "--reuid=knot", "--regid=knot", "--clear-groups", *_LOW_PORTS)
KNOT = Program(_knot, (*_AS_KNOT, "knotd"))
VSFTPD = Program(_vsftpd, ("vsftpd", "/etc/vsftpd.conf"))
FREERADIUS = Program(_freeradius, ("freeradius", "-f", "-l", "stdout"))
RSYSLOG = Program(_rsyslog, ("rsyslogd", "-n", "-iNONE"))
UNBOUND = Program(_unbound, ("unbound", "-d", "-p"))


class Postgres:
    """A cluster "main" on each backend, made once: it takes seconds."""

    def __init__(self, backends: list[Debian], folder: Path) -> None:
        self._backends = backends
        self._folder = folder
        self._running: list[Process] = []
        first, *others = backends
        for backend in backends:
            for place in ("/run/postgresql", "/var/log/postgresql"):
                backend.own("postgres", place)
        for place in ("/var/lib/postgresql", "/etc/postgresql"):
            first.own("postgres", place)
        (self.version,) = (path.name for path in self._versions(first))
        create = ["pg_createcluster", "--locale", "C.UTF-8", self.version, "main"]
        first.run(*create, "--", "--no-sync")
        for other in others:
            for place in ("var/lib/postgresql", "etc/postgresql"):
                into = (other.tree / place).parent
                subprocess.run(["cp", "-a", str(first.tree / place), str(into)], check=True)

    def start(self) -> None:
        """All of them."""
        for backend in self._backends:
            control = ("pg_ctlcluster", "--foreground", self.version, "main", "start")
            log = self._folder / f"{backend.host.name}.log"
            self._running.append(
                backend.start("runuser", "-u", "postgres", "--", *control, log=log)
            )

    def stop(self) -> None:
        """At once, as ``kill -9`` does; what they wrote is theirs to repair at the next start."""
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()
        for backend in self._backends:
            pids = (backend.tree / "var/lib/postgresql").glob("*/main/postmaster.pid")
            for file in pids:  # its number is another program's in the next number space
                file.unlink()

    def ask(self, backend: Debian, sql: str) -> str:
        """By the socket, as the operator."""
        command = ("runuser", "-u", "postgres", "--", "psql", "-AtXqc", sql)
        return backend.run(*command).stdout.strip()

    def answers(self) -> bool:
        """Whether all do."""
        ready = ("runuser", "-u", "postgres", "--", "pg_isready", "-q")
        return all(b.run(*ready, check=False).returncode == 0 for b in self._backends)

    @staticmethod
    def _versions(backend: Debian) -> list[Path]:
        listed = backend.run("ls", "/usr/lib/postgresql").stdout.split()
        return [Path(name) for name in listed]
