"""``python -m tula_package``: all packages of the last commit, into ``dist``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tula_package import source
from tula_package.deb import write_package
from tula_package.elf import depends_of, read_elf, strip
from tula_package.generated import generate
from tula_package.packages import Shared, lab_package, main_package
from tula_package.targets import TARGETS, Target
from tula_package.wheels import build_distributions, install_wheels


def main() -> None:
    """Builds what is asked for; prints the files."""
    options = _options()
    root = Path(__file__).parents[2]
    if changed := source.uncommitted(root):
        print(f"Not in the packages, since not committed: {len(changed)} files", file=sys.stderr)
    commit = source.last_commit(root)
    options.output.mkdir(parents=True, exist_ok=True)
    for old in options.output.glob("tula[-_]*"):
        old.unlink()
    with tempfile.TemporaryDirectory(prefix="tula-package-") as scratch:
        copy = Path(scratch) / "source"
        copy.mkdir()
        version = source.check_out(root, commit, copy)
        wheel, sdist = build_distributions(copy, Path(scratch), commit.epoch)
        for built in (wheel, sdist):
            (options.output / built.name).write_bytes(built.read_bytes())
            print(options.output / built.name)
        generated = generate(copy, version, commit.epoch)
        shared = Shared(version, commit.epoch, copy / "packaging", generated)
        labs = set()
        for target in TARGETS:
            if not _wanted(target, options):
                continue
            unpacked = Path(scratch) / f"{target.release.number}-{target.architecture}"
            install_wheels(wheel, target, copy / "constraints.txt", unpacked)
            compiled = sorted(unpacked.rglob("*.so"))
            for path in compiled:
                strip(path, target.machine)
            needs = depends_of(map(read_elf, compiled))
            packages = [main_package(shared, target, unpacked, needs)]
            if target.release not in labs:
                labs.add(target.release)
                packages.append(lab_package(shared, target, unpacked))
            for package in packages:
                print(write_package(package, options.output, commit.epoch))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tula_package", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("dist"), metavar="FOLDER")
    parser.add_argument("--debian", type=int, action="append", choices=[12, 13])
    parser.add_argument("--architecture", action="append", choices=["amd64", "arm64"])
    return parser.parse_args()


def _wanted(target: Target, options: argparse.Namespace) -> bool:
    releases, architectures = options.debian, options.architecture
    return (not releases or target.release.number in releases) and (
        not architectures or target.architecture in architectures
    )


if __name__ == "__main__":
    main()
