"""What is in the packages ``tula`` and ``tula-lab``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tula_package.contents import place
from tula_package.deb import Package
from tula_package.generated import debian_changelog
from tula_package.legal import libraries_in, render_copyright
from tula_package.targets import PREFIX, Target
from tula_package.tree import File, Tree

MAINTAINER = "The Tula authors <tula@localhost.localdomain>"
UNITS = (
    "tula.service",
    *("tula-keepalived.service", "tula-keepalived.path"),
    *("tula-bird.service", "tula-bird.path"),
)

_ENTRY = """\
#!/{prefix}/bin/python3 -I
import sys

from tula.cli.main import main

sys.exit(main())
"""
_PYVENV = """\
home = /usr/bin
include-system-site-packages = false
version = {version}
executable = /usr/bin/{python}
"""
_DESCRIPTION = """\
layer-4 load balancer with Direct Server Return
 Clients connect to one virtual address. The kernel of the balancer forwards
 each packet to a backend by nftables, and the backend answers the client
 directly. The daemon checks the backends' health; forwarding goes on without
 it.
 .
 The same package sets up a backend: its virtual addresses, ARP settings and
 tunnels."""
_LAB_DESCRIPTION = """\
layer-4 load balancer with Direct Server Return (demo)
 The command "tula lab": a network of namespaces on one machine, where real
 traffic shows what Tula does. Nothing of it is needed to balance."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What is the same for every target: the version, ``packaging`` of the source, and generated
    files by their paths on the machine."""

    version: str
    epoch: int
    packaging: Path
    generated: Tree

    def text(self, name: str) -> str:
        return (self.packaging / "debian" / name).read_text()


def debian_version(version: str, target: Target) -> str:
    """The version in Debian: 12's is less than 13's, and both are less than one that Debian itself
    would have."""
    return f"{version}~deb{target.release.number}"


def split(unpacked: Path, target: Target) -> dict[str, Tree]:
    """The unpacked wheels in the trees ``tula`` and ``lab``, as they are installed."""
    trees = {"tula": Tree(), "lab": Tree()}
    for path in sorted(unpacked.rglob("*")):
        name = path.relative_to(unpacked).as_posix()
        where = place(name) if path.is_file() else ""
        if where:
            trees[where].add(f"{target.release.site_packages}/{name}", path.read_bytes())
    return trees


def main_package(shared: Shared, target: Target, unpacked: Path, needs: list[str]) -> Package:
    """``needs``: the packages that the compiled parts need."""
    tree = split(unpacked, target)["tula"]
    release = target.release
    python = f"/usr/bin/{release.python_name}"
    tree.add(
        f"{PREFIX}/pyvenv.cfg",
        _PYVENV.format(
            version="{}.{}".format(*release.python),
            python=release.python_name,
        ),
    )
    tree.link(f"{PREFIX}/bin/python3", python)
    tree.add(f"{PREFIX}/bin/tula", _ENTRY.format(prefix=PREFIX), 0o755)
    tree.link("usr/bin/tula", "../lib/tula/bin/tula")
    for unit in UNITS:
        tree.add(f"usr/lib/systemd/system/{unit}", (shared.packaging / unit).read_text())
    tree.add("usr/lib/sysusers.d/tula.conf", (shared.packaging / "tula.conf").read_text())
    tree.add("etc/tula/tula.yaml", shared.text("tula.yaml"))
    _document(tree, shared, "tula", target, unpacked)
    for path, entry in shared.generated:
        tree.entries[path] = entry
    depends = [
        release.python_depends,
        *needs,
        "nftables (>= 1.0.6)",
        "iproute2",
        "procps",
        "kmod",
        "init-system-helpers (>= 1.54~)",
        release.sysusers_depends,
    ]
    control = {
        "Package": "tula",
        "Version": debian_version(shared.version, target),
        "Architecture": target.architecture,
        "Maintainer": MAINTAINER,
        "Depends": ", ".join(depends),
        "Suggests": "keepalived (>= 1:2.2.7), bird2 (>= 2.0.12), tula-lab",
        "Section": "net",
        "Priority": "optional",
        "Description": _DESCRIPTION,
    }
    scripts = {name: shared.text(f"tula.{name}") for name in ("postinst", "prerm", "postrm")}
    return Package(control, tree, _filled(scripts, target))


def lab_package(shared: Shared, target: Target, unpacked: Path) -> Package:
    """Python alone, so one for every architecture of a release."""
    tree = split(unpacked, target)["lab"]
    _document(tree, shared, "tula-lab", target, unpacked)
    version = debian_version(shared.version, target)
    control = {
        "Package": "tula-lab",
        "Version": version,
        "Architecture": "all",
        "Maintainer": MAINTAINER,
        "Depends": f"tula (= {version}), iproute2, procps",
        "Section": "net",
        "Priority": "optional",
        "Description": _LAB_DESCRIPTION,
    }
    scripts = {name: shared.text(f"tula-lab.{name}") for name in ("postinst", "prerm")}
    return Package(control, tree, _filled(scripts, target))


def _filled(scripts: Mapping[str, str], target: Target) -> dict[str, str]:
    return {
        name: text.replace("@PYTHON@", target.release.python_name) for name, text in scripts.items()
    }


def _document(tree: Tree, shared: Shared, name: str, target: Target, unpacked: Path) -> None:
    site_packages = target.release.site_packages
    prefix = f"{site_packages}/"
    paths = [path.removeprefix(prefix) for path, _ in tree if path.startswith(prefix)]
    copyright_file = render_copyright(libraries_in(unpacked, paths), site_packages)
    tree.add(f"usr/share/doc/{name}/copyright", copyright_file)
    changelog = debian_changelog(
        name, debian_version(shared.version, target), MAINTAINER, shared.epoch
    )
    tree.add_gzipped(f"usr/share/doc/{name}/changelog.gz", changelog)
    overrides = shared.text(f"{name}.lintian-overrides")
    tree.add(f"usr/share/lintian/overrides/{name}", overrides)


def sizes(tree: Tree, number: int) -> list[tuple[int, str]]:
    """The largest files, in bytes."""
    found = [(len(entry.content), path) for path, entry in tree if isinstance(entry, File)]
    return sorted(found, reverse=True)[:number]
