"""``debian/copyright``: Tula's licence, and those of the libraries in the package (DEP 5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from email.parser import HeaderParser
from pathlib import Path

_COMMON = {"Apache-2.0": "Apache-2.0", "GPL-2.0": "GPL-2"}
"""The licences whose texts every Debian machine has, by their names there."""

_NAMES = {
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "bsd": "BSD-3-Clause",
    "mit license": "MIT",
    "isc license (iscl)": "ISC",
    "isc": "ISC",
    "mit": "MIT",
}
_LICENCE_FILE = re.compile(r"(^|/)(licen[cs]e|copying|notice|authors)[^/]*$", re.IGNORECASE)
_COPYRIGHT = re.compile(
    r"(?mi)^\s*copyright (?:\(c\) |© )?(.*\d{4}.*?)(?:\s*all rights reserved)?\.?$"
)
_AUTHORS = "The Tula authors"


@dataclass(frozen=True, slots=True)
class Library:
    """A Python package: ``licence`` is SPDX's expression, ``tops`` what it has in site-packages,
    ``texts`` its licence files there."""

    name: str
    version: str
    licence: str
    holders: tuple[str, ...]
    tops: tuple[str, ...]
    texts: tuple[str, ...]


def read_library(metadata: str, record: str, texts: Mapping[str, str]) -> Library:
    """From a wheel's METADATA and RECORD, and its licence files by path."""
    fields = HeaderParser().parsestr(metadata)
    holders = [each.strip() for text in texts.values() for each in _COPYRIGHT.findall(text)]
    found = [each for each in dict.fromkeys(holders) if "{" not in each and "[" not in each]
    author = fields["Author"] or fields["Author-email"] or f"the authors of {fields['Name']}"
    tops = {line.partition(",")[0].partition("/")[0].strip('"') for line in record.splitlines()}
    return Library(
        fields["Name"],
        fields["Version"],
        _licence(fields["License-Expression"], fields["License"], fields.get_all("Classifier", [])),
        tuple(found or [author.replace("\n", " ")]),
        tuple(sorted(tops - {"", ".."})),
        tuple(texts),
    )


def _licence(expression: str | None, field: str | None, classifiers: Iterable[str]) -> str:
    """Raises ValueError when a package does not say it in a known way."""
    if expression:
        return expression
    told = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    for text in (*told, field or ""):
        for word, name in _NAMES.items():
            if word in text.lower():
                return name
    raise ValueError(f"no licence is known for {told or field}")


def libraries_in(folder: Path, paths: Collection[str]) -> list[Library]:
    """Those that are unpacked in the folder and have any of the paths there, by name; not Tula."""
    found = []
    for information in folder.glob("*.dist-info"):
        texts = {
            path.relative_to(folder).as_posix(): path.read_text(errors="replace")
            for path in sorted(information.rglob("*"))
            if path.is_file() and _LICENCE_FILE.search(path.name)
        }
        if information.name.startswith("tula-"):
            continue
        metadata, record = information / "METADATA", information / "RECORD"
        library = read_library(metadata.read_text(), record.read_text(), texts)
        here = {top for top in library.tops if any(f"{p}/".startswith(f"{top}/") for p in paths)}
        if here:
            found.append(replace(library, tops=tuple(sorted(here))))
    return sorted(found, key=lambda each: each.name.lower())


def render_copyright(libraries: Iterable[Library], site_packages: str) -> str:
    """The file. A licence's own text is where the library has it, below site-packages."""
    blocks = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        "Upstream-Name: Tula\n"
        "Comment: The libraries below are unmodified, but for files that running does not need,\n"
        " which were left out. Each has its licence's text where its paragraph says.\n",
        f"Files: *\nCopyright: {_AUTHORS}\nLicense: Apache-2.0\n",
    ]
    known = {"Apache-2.0"}
    for library in libraries:
        files = "\n ".join(f"{site_packages}/{top}*" for top in library.tops)
        holders = "\n ".join(library.holders)
        where = "".join(f"\n /{site_packages}/{path}" for path in library.texts)
        blocks.append(
            f"Files:\n {files}\nCopyright:\n {holders}\nLicense: {library.licence}\n"
            f"Comment: {library.name} {library.version}; the text is in{where}\n"
        )
        known.update(re.split(r" (?:AND|OR) ", library.licence))
    for licence in sorted(known):
        common = [name for word, name in _COMMON.items() if licence.startswith(word)]
        where = f"/usr/share/common-licenses/{common[0]}" if common else "the files named above"
        blocks.append(f"License: {licence}\n The text is in {where}.\n")
    return "\n".join(blocks)
