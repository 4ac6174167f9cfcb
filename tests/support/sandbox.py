"""Commands as the shipped unit would run them, on a machine without systemd."""

from __future__ import annotations

import json
import os
import pwd
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml

import tula
from support import enter_sandbox
from support.unit_file import UnitFile
from tula.lab import Host
from tula.lab.process import Completed, Process

STATE, RUN, PROGRAMS = "/var/lib", "/run", "/opt"
CONFIGURATION = f"{PROGRAMS}/etc/tula.yaml"


@dataclass(frozen=True, slots=True)
class Plan:
    """What ``enter_sandbox`` does; ``binds`` are targets and sources, ``writable`` are targets."""

    uid: int
    gid: int
    ambient: list[str]
    bounding: list[str]
    no_new_privileges: bool
    protect_system: bool
    protect_home: bool
    private_tmp: bool
    private_devices: bool
    protect_tunables: bool
    deny_write_execute: bool
    umask: int
    binds: dict[str, str]
    writable: list[str]
    environment: dict[str, str]
    command: list[str]


class Sandbox:
    """The unit's set-up in one host of a lab; state and run directory last as long as it."""

    def __init__(
        self, host: Host, unit: UnitFile, directory: Path, *, sysctls: bool = True
    ) -> None:
        """``directory`` is the test's own; the configuration is its ``etc/tula.yaml``.

        Without ``sysctls`` /proc/sys is read-only, as in many containers.
        """
        self._sysctls = sysctls
        self._host = host
        self._unit = unit
        self._uid = free_uid()
        (state,) = unit.words("StateDirectory")
        (run,) = unit.words("RuntimeDirectory")
        self._writable = {
            f"{STATE}/{state}": directory / "state",
            f"{RUN}/{run}": directory / "run",
        }
        self.configuration = directory / "etc" / "tula.yaml"
        self.configuration.parent.mkdir()
        for path in self._writable.values():
            path.mkdir()
            os.chown(path, self._uid, self._uid)

    @property
    def run_dir(self) -> Path:
        """The unit's run directory, by its name outside."""
        (run,) = self._unit.words("RuntimeDirectory")
        return self._writable[f"{RUN}/{run}"]

    @property
    def command(self) -> list[str]:
        """What the unit starts, with the places that its files have here."""
        first, *arguments = self._unit.command
        assert first.endswith("/bin/tula")
        return [
            "tula",
            *(CONFIGURATION if word == "/etc/tula/tula.yaml" else word for word in arguments),
        ]

    def run(self, *command: str, check: bool = True) -> Completed:
        """Runs ``tula …`` or ``python …`` to its end."""
        return self._host.run(self._start(command), check=check)

    def run_as_operator(self, *command: str, member: bool) -> Completed:
        """Runs it by another user without any rights, who is a member of the unit's group or not.

        In the unit's mounts, where its directories have their names.
        """
        uid = self._uid + 1
        plan = self._plan(command)
        plan = replace(plan, uid=uid, gid=self._uid if member else uid, ambient=[], bounding=[])
        return self._host.run(self._enter(plan), check=False)

    def popen(self, *command: str, stdout: int | None = None, stderr: int | None = None) -> Process:
        """Starts it; the lab ends it."""
        return self._host.popen(self._start(command), stdout=stdout, stderr=stderr)

    def _start(self, command: tuple[str, ...]) -> list[str | Path]:
        return self._enter(self._plan(command))

    def _enter(self, wanted: Plan) -> list[str | Path]:
        plan = json.dumps(asdict(wanted))
        return [sys.executable, str(enter_sandbox.__file__), plan]

    def _plan(self, command: tuple[str, ...]) -> Plan:
        unit = self._unit
        # Bound to where the unit's user can see them: the checkout, or Python, may be at home.
        programs = {
            "python": sys.base_prefix,
            "src": str(Path(tula.__file__).parents[1]),
            "site": str(Path(yaml.__file__).parents[1]),
            "etc": str(self.configuration.parent),
        }
        python = f"{PROGRAMS}/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        start = [python, "-m", "tula"] if command[0] == "tula" else [python]
        return Plan(
            uid=self._uid,
            gid=self._uid,
            ambient=_names(unit.words("AmbientCapabilities")),
            bounding=_names(unit.words("CapabilityBoundingSet")),
            no_new_privileges=unit.on("NoNewPrivileges"),
            protect_system=unit.on("ProtectSystem"),
            protect_home=unit.on("ProtectHome"),
            private_tmp=unit.on("PrivateTmp"),
            private_devices=unit.on("PrivateDevices"),
            protect_tunables=unit.on("ProtectKernelTunables") or not self._sysctls,
            deny_write_execute=unit.on("MemoryDenyWriteExecute"),
            umask=int(unit.words("UMask")[0], 8),
            binds={
                **{target: str(source) for target, source in self._writable.items()},
                **{f"{PROGRAMS}/{name}": source for name, source in programs.items()},
            },
            writable=list(self._writable),
            environment={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "PYTHONPATH": f"{PROGRAMS}/src:{PROGRAMS}/site",
                # A Python that is not the system's names its library by where it was built.
                "LD_LIBRARY_PATH": f"{PROGRAMS}/python/lib",
                "LANG": "C.UTF-8",
            },
            command=[*start, *command[1:]],
        )


def free_uid() -> int:
    """A number that no user has, of those that systemd gives to dynamic users."""
    taken = {user.pw_uid for user in pwd.getpwall()}
    return next(uid for uid in range(61184, 65520) if uid not in taken)


def _names(capabilities: list[str]) -> list[str]:
    return [name.removeprefix("CAP_").lower() for name in capabilities]
