"""What is made from the commands and the documents of the source: the same for every target."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from tula_package.man_commands import command_pages
from tula_package.man_config import config_page
from tula_package.tree import Tree

SHELLS = {
    "bash": "usr/share/bash-completion/completions/tula",
    "zsh": "usr/share/zsh/vendor-completions/_tula",
    "fish": "usr/share/fish/vendor_completions.d/tula.fish",
}
_DOCUMENTS = ("README.md", "CHANGELOG.md", "docs")
_NOT_FOR_USERS = ("docs/contributing/",)


def generate(source: Path, version: str, epoch: int) -> Tree:
    """Manual pages, completion, documents and changelog. Imports Tula from the source."""
    sys.path.insert(0, str(source / "src"))
    tree = Tree()
    date = datetime.fromtimestamp(epoch, UTC)
    for name, text in manual_pages(version, f"{date:%Y-%m-%d}").items():
        tree.add_gzipped(f"usr/share/man/man{name[-1]}/{name}.gz", text)
    for shell, place in SHELLS.items():
        tree.add(place, completion(shell))
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        wanted = name.startswith(_DOCUMENTS) and not name.startswith(_NOT_FOR_USERS)
        if path.is_file() and wanted:
            tree.add(f"usr/share/doc/tula/{name}", path.read_bytes())
    return tree


def manual_pages(version: str, date: str) -> dict[str, str]:
    """All pages by file name."""
    from typer.main import get_command

    from tula.cli.main import app
    from tula.config.schema import json_schema

    root: Any = get_command(app)
    pages = command_pages(root, date, version)
    pages["tula.yaml.5"] = config_page(json_schema(), date, version)
    return pages


def completion(shell: str) -> str:
    """As ``tula --show-completion`` prints it: the script asks the command for what fits."""
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="tula", complete_var="_TULA_COMPLETE", shell=shell)
    if shell == "zsh":
        # Loaded as a function when it is first needed: it must also complete that time.
        script += '\n_tula_completion "$@"'
    return script.strip() + "\n"


def debian_changelog(package: str, version: str, maintainer: str, epoch: int) -> str:
    """The one entry of a package that is built from any commit (deb-changelog(5))."""
    date = format_datetime(datetime.fromtimestamp(epoch, UTC))
    return (
        f"{package} ({version}) unstable; urgency=medium\n\n"
        f"  * Version {re.sub('~deb.*', '', version)}; its changes are in CHANGELOG.md.\n\n"
        f" -- {maintainer}  {date}\n"
    )
