"""The parts of which the packages are put together, without building any."""

from __future__ import annotations

import gzip
import io
import re
import shutil
import subprocess
import tarfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tula_package.contents import place
from tula_package.deb import Package, render_control, write_package
from tula_package.elf import depends_of
from tula_package.generated import SHELLS, completion, debian_changelog, manual_pages
from tula_package.legal import read_library, render_copyright
from tula_package.packages import debian_version
from tula_package.source import Commit, build_version, version_of, with_version
from tula_package.targets import TARGETS
from tula_package.tree import Tree
from tula_package.wheels import repack

ROOT = Path(__file__).parents[3]
EPOCH = 1_795_000_000


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return manual_pages("1.2.3", "2026-11-28")


def test_every_build_is_newer_than_what_was_built_before() -> None:
    commits = [Commit("abcdef0123", 9, 0), Commit("0123456789", 10, 0), Commit("9", 11, 0, ("x",))]
    built = ["0.1.0", *(build_version("0.1.0", each) for each in commits), "0.1.1"]
    built.append(build_version("0.2.0", Commit("0", 12, 0, ("v0.2.0",))))
    assert built[1] == "0.1.0+git9.abcdef0"
    assert built[-1] == "0.2.0"
    debian = [debian_version(each, target) for each in built for target in (TARGETS[0], TARGETS[2])]
    for older, newer in pairwise(debian):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)


def test_the_version_is_written_into_the_source() -> None:
    text = (ROOT / "src/tula/version.py").read_text()
    assert version_of(text) in text
    assert '__version__ = "9.9+git1.a"' in with_version(text, "9.9+git1.a")
    with pytest.raises(ValueError, match="names no version"):
        version_of("")


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("tula/daemon/run.py", "tula"),
        ("tula/cli/lab.py", "tula"),
        ("tula/lab/demo/run.py", "lab"),
        ("tula/kernel/fake_data_path.py", "lab"),
        ("tula/kernel/failures.py", "lab"),
        ("rich/console.py", "lab"),
        ("markdown_it_py-4.3.0.dist-info/METADATA", "lab"),
        ("cryptography-50.0.2.dist-info/licenses/LICENSE.BSD", "tula"),
        ("cryptography-50.0.2.dist-info/sboms/sbom.json", "tula"),
        ("opentelemetry_api-1.45.2.dist-info/entry_points.txt", "tula"),
        ("cryptography-50.0.2.dist-info/RECORD", ""),
        ("_cffi_backend.cpython-311-x86_64-linux-gnu.so", "tula"),
        ("typing_extensions.py", "tula"),
        ("cffi/api.py", ""),
        ("pycparser-3.12.dist-info/METADATA", ""),
        ("bin/uvicorn", ""),
        ("yaml/_yaml.pyi", ""),
        ("fastapi/.agents/skills/x.md", ""),
    ],
)
def test_what_goes_where(path: str, package: str) -> None:
    assert place(path) == package


def test_nothing_that_runs_imports_what_the_lab_alone_has() -> None:
    imported = re.compile(
        r"^(?: {4})?(?:from|import) (tula\.lab|tula\.kernel\.fake|rich)\b", re.MULTILINE
    )
    for path in (ROOT / "src").rglob("*.py"):
        name = path.relative_to(ROOT / "src").as_posix()
        if place(name) == "tula" and name != "tula/cli/lab.py":
            assert not imported.search(path.read_text()), name


def test_a_tree_is_written_with_one_time_and_read_by_dpkg(tmp_path: Path) -> None:
    tree = Tree()
    tree.add("etc/tula/tula.yaml", "services: {}\n")
    tree.add("usr/lib/tula/bin/tula", "#!/bin/sh\n", 0o755)
    tree.link("usr/bin/tula", "../lib/tula/bin/tula")
    with pytest.raises(ValueError, match="twice"):
        tree.add("etc/tula/tula.yaml", "")
    control = {"Package": "tula", "Version": "1", "Architecture": "all", "Description": "x\n y"}
    package = Package({**control, "Maintainer": "nobody"}, tree, {"postinst": "#!/bin/sh\n"})
    assert "Installed-Size: 10\nDescription: x\n y\n" in render_control(package)
    assert "etc/" not in tree.md5sums(frozenset(package.conffiles))
    if shutil.which("dpkg-deb") is None:
        return
    (tmp_path / "again").mkdir()
    first = write_package(package, tmp_path, EPOCH)
    again = write_package(package, tmp_path / "again", EPOCH)
    assert first.read_bytes() == again.read_bytes()
    listed = subprocess.run(["dpkg-deb", "-c", first], check=True, capture_output=True, text=True)
    assert "root/root" in listed.stdout
    assert "./usr/bin/tula -> ../lib/tula/bin/tula" in listed.stdout
    conffiles = ["dpkg-deb", "-I", str(first), "conffiles"]
    assert subprocess.check_output(conffiles, text=True) == "/etc/tula/tula.yaml\n"


def test_every_command_has_its_manual_page(pages: dict[str, str]) -> None:
    from typer.main import get_command

    from tula.cli.main import app

    root: Any = get_command(app)
    assert set(pages) == {"tula.1", "tula.yaml.5", *(f"tula-{name}.1" for name in root.commands)}
    for name, page in pages.items():
        assert page.startswith(".TH "), name
        assert "\n.SH NAME\n" in page, name
    assert r"\fB\-\-file\fR" in pages["tula-apply.1"]
    assert "\n.SS \\fBtula backend join\\fR" in pages["tula-backend.1"]
    assert r'.SH "KEYS OF services.NAME.backends.NAME"' in pages["tula.yaml.5"]


@pytest.mark.skipif(shutil.which("groff") is None, reason="Debian's groff-base is not here")
def test_groff_has_nothing_to_say(pages: dict[str, str]) -> None:
    text = "".join(pages.values())
    command = ["groff", "-man", "-Tutf8", "-ww", "-rLL=78n", "-k"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_asks_the_command(shell: str) -> None:
    script = completion(shell)
    assert f"_TULA_COMPLETE=complete_{shell}" in script


def test_changelog_has_debians_form() -> None:
    text = debian_changelog("tula", "1.0~deb12", "Some One <a@b.example>", 0)
    assert text.startswith("tula (1.0~deb12) unstable; urgency=medium\n\n  * Version 1.0;")
    assert text.endswith(" -- Some One <a@b.example>  Thu, 01 Jan 1970 00:00:00 +0000\n")


def test_what_compiled_parts_need() -> None:
    said = (
        "(NEEDED) Shared library: [libc.so.6]\n(NEEDED) x: [libgcc_s.so.1]\n GLIBC_2.28 GLIBC_2.4"
    )
    assert depends_of([said, "GLIBC_2.17"]) == ["libc6 (>= 2.28)", "libgcc-s1"]
    with pytest.raises(ValueError, match=r"libssl\.so\.3"):
        depends_of(["(NEEDED) Shared library: [libssl.so.3]"])


def test_licences_are_read_and_one_without_ends_the_build() -> None:
    metadata = "Name: h11\nVersion: 1\nClassifier: License :: OSI Approved :: MIT License\n"
    texts = {"h11-1.dist-info/LICENSE": "Copyright (c) 2016 Some One and others\n"}
    library = read_library(metadata, "h11/__init__.py,,\nh11-1.dist-info/RECORD,,\n", texts)
    assert library.licence == "MIT"
    text = render_copyright([library], "usr/lib/tula")
    assert "Files:\n usr/lib/tula/h11*\n" in text
    assert "2016 Some One and others" in text
    assert "/usr/lib/tula/h11-1.dist-info/LICENSE" in text
    with pytest.raises(ValueError, match="no licence is known"):
        read_library("Name: x\nVersion: 1\n", "", {})


def test_an_sdist_is_the_same_whenever_it_was_packed() -> None:
    def packed(time: int, owner: str) -> bytes:
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w:gz") as tar:
            member = tarfile.TarInfo("tula-1/a.py")
            member.size, member.mtime, member.uname = 3, time, owner
            tar.addfile(member, io.BytesIO(b"x\n\n"))
        return data.getvalue()

    one, other = packed(5, "alice"), packed(6, "bob")
    assert one != other
    assert repack(one, EPOCH) == repack(other, EPOCH)
    assert b"x\n\n" in gzip.decompress(repack(one, EPOCH))


@pytest.mark.parametrize("script", sorted((ROOT / "packaging/debian").glob("tula*.p*")), ids=str)
def test_maintainer_scripts_are_shell(script: Path) -> None:
    subprocess.run(["sh", "-n", script], check=True)
    assert script.read_text().startswith("#!/bin/sh\nset -e\n")


def test_the_packaged_configuration_serves_nothing_and_its_example_is_right() -> None:
    from tula.config.load import parse_config

    text = (ROOT / "packaging/debian/tula.yaml").read_text()
    nothing = parse_config(text)
    assert nothing.config.services == ()
    assert [problem.path for problem in nothing.warnings] == [("services",)]
    _, _, example = text.partition("of that subnet.\n#\n")
    assert parse_config(example.replace("# ", "")).config.services
