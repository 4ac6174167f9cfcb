"""One boot of the VM: a command runs in it, its output comes through, nothing stays behind.

What the command says goes through a file that host and guest share, not the console: there the
kernel's messages would break its lines, and how vng wires the console depends on the machine.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vm.debian import Kernel
from vm.watch import Watch

_OPTIONS = (
    *("-v", "--disable-kvm", "--force-9p", "--user", "root"),
    *("--cpus", "2", "--memory", "2G"),
)
_SHARED = "/run/tula-vm"


class Machine(NamedTuple):
    """What the VM is made of."""

    kernel: Kernel
    busybox: Path
    disk: Path
    folder: Path
    """Empty; vng works in it, and shows the guest its folder ``shared``."""

    def run(self, command: Sequence[str], cwd: Path, limit: float) -> int:
        """Boot, run the command there and end; returns its exit status."""
        shared = self.folder / "shared"
        shared.mkdir()
        shutil.copy(Path(__file__).with_name("guest.sh"), shared)
        (shared / "words").write_text("".join(f"{word}\0" for word in (str(cwd), *command)))
        (shared / "output").touch()
        with (self.folder / "console").open("wb") as console:
            # A pipe, by way of cat: qemu opens its standard output anew, and truncates a file.
            vng = subprocess.Popen(
                ["/bin/sh", "-c", f"{shlex.join(self._vng(limit))} 2>&1 </dev/null | cat"],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PATH": f"{sys.prefix}/bin:{_path()}:/usr/sbin:/sbin",
                    "TMPDIR": str(self.folder),  # where vng leaves files when it is killed
                },
                stdout=console,
                start_new_session=True,
            )
        return Watch(vng, shared, self.folder / "console").until_the_end(limit)

    def _vng(self, limit: float) -> list[str]:
        # vng hands paths to a shell as they are: relative ones have no blanks in them.
        kernel, busybox, disk = (
            os.path.relpath(path, self.folder)
            for path in (self.kernel.image, self.busybox, self.disk)
        )
        drive = f"-drive file={disk},format=raw,if=virtio,snapshot=on"
        return [
            *("vng", *_OPTIONS, "--run", kernel, "--busybox", busybox),
            *("--rwdir", f"{_SHARED}=shared", f"--qemu-opts={drive}"),
            *("--exec", f"bash {_SHARED}/guest.sh {limit:.0f}"),
        ]


def _path() -> str:
    return os.environ.get("PATH", os.defpath)
