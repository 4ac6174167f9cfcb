"""``scripts/vm``: pytest in a VM with Debian's stock kernel, in one boot."""

from __future__ import annotations

import argparse
import fcntl
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vm.debian import Cache
from vm.disk import build_disk
from vm.errors import VmError
from vm.machine import Machine

_CHECKOUT = Path(__file__).resolve().parents[2]
_CACHE = _CHECKOUT / ".vm"
_SCRIPTS = _CHECKOUT / "scripts"
_PROGRAMS = ("qemu-system-x86_64:qemu-system-x86", "depmod:kmod", "mke2fs:e2fsprogs", "file")
_IN_THE_VM = ("keepalived", "bird:bird2", "ipvsadm")
"""What its tests start, beside what they start here: its kernel has IPVS."""


def main() -> int:
    """The exit status: pytest's own, or 1 when the VM itself failed."""
    options, tests = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all ends as on Ctrl-C
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(1))
    if options.left is not None:
        left = options.left.read_text().splitlines()
        if not left:
            print("No test was left for the VM.")
            return 0
        tests += left
    began = time.monotonic()
    try:
        status = _run(tests, options.timeout)
        print(f"In the VM, with its disk and its boot: {time.monotonic() - began:.0f} s")
        return status
    except VmError as error:
        print(f"scripts/vm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="scripts/vm", description=__doc__, epilog="Everything else is passed to pytest."
    )
    parser.add_argument("--left", metavar="FILE", type=Path, help="node ids, one a line, to run")
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=1800.0,
        help="for the tests; %(default)g",
    )
    return parser.parse_known_args()


def _run(tests: list[str], limit: float) -> int:
    if platform.machine() != "x86_64":
        raise VmError(f"the VM is for amd64; on {platform.machine()} its tests do not run")
    subprocess.run([_SCRIPTS / "system-packages", *_PROGRAMS, *_IN_THE_VM], check=True)
    _CACHE.mkdir(exist_ok=True)
    with _alone(), tempfile.TemporaryDirectory(dir=_CACHE, prefix="run-") as made:
        packages = Cache(_CACHE, _SCRIPTS)
        kernel, busybox = packages.kernel(), packages.busybox()
        folder = Path(made)
        disk = build_disk(_CHECKOUT, folder)
        print(f"Booting Linux {kernel.release}, emulated …", flush=True)
        return Machine(kernel, busybox, disk, folder).run(_pytest(tests), _CHECKOUT, limit)


def _pytest(tests: list[str]) -> list[str]:
    # Whatever checkout this Python has Tula from, what is tested is this one's.
    told = [f"PYTHONPATH={_CHECKOUT / 'src'}"]
    # The soak's word goes along; nothing else of this environment does.
    told += [f"TULA_SOAK={os.environ['TULA_SOAK']}"] if "TULA_SOAK" in os.environ else []
    command = ["/usr/bin/env", *told, sys.executable, "-m", "pytest", "-vv"]
    command.append("--override-ini=console_output_style=times")
    # Not all plugins: hypothesis' loads all of it, which takes 15 s there.
    command += ["--disable-plugin-autoload", "-p", "pytest_timeout"]
    if sys.stdout.isatty():
        command.append("--color=yes")
    return [*command, *tests]


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time in a checkout; whatever a killed one has left is removed."""
    with (_CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another run has the VM; waiting for it …", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for rest in (*_CACHE.glob("run-*"), *_CACHE.glob("unpacking-*")):
            shutil.rmtree(rest)
        yield


if __name__ == "__main__":
    sys.exit(main())
