"""The contexts file: balancers by name, for people who work with several.

``$XDG_CONFIG_HOME/tula/contexts.yaml``::

    contexts:
      lb1: {server: "https://lb1:8420", token_file: lb1.token}
    default: lb1
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from tula.cli.token_file import WrongError

HERE = "local"
"""The name of no context: this machine's own daemon."""
_KEYS = {"server", "token_file", "certificate", "fingerprint"}
_DEFAULT = re.compile(r"^default[ \t]*:.*\n?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Context:
    """``certificate`` is a file of authorities; ``where`` names the context for messages."""

    where: str
    server: str
    token_file: Path | None = None
    certificate: Path | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class Contexts:
    """What the file holds; ``default`` is used where nothing else is said."""

    path: Path
    of: Mapping[str, Context] = field(default_factory=dict)
    default: str | None = None

    def find(self, name: str, asked_by: str) -> Context:
        """The context of that name. Raises WrongError."""
        found = self.of.get(name)
        if found is not None:
            return found
        if not self.of:
            raise WrongError(f"{asked_by}: no context {name!r}: {self.path} holds none")
        near = get_close_matches(name, self.of, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.of)}"
        raise WrongError(f"{asked_by}: no context {name!r} in {self.path}; {hint}")


def contexts_path() -> Path:
    """Where the file is; as the XDG base directory specification has it."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        base = Path(given) if given.startswith("/") else Path("~/.config").expanduser()
    except RuntimeError:  # neither HOME nor an entry in passwd, as of a unit's dynamic user
        base = Path("/nonexistent")
    return base / "tula" / "contexts.yaml"


def read_contexts(path: Path) -> Contexts:
    """Empty where there is no file. Raises WrongError."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return Contexts(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise WrongError(f"{path}: {reason}") from None
    return _parse(path, text)


def with_default(text: str, name: str) -> str:
    """The file's text with another default; everything else stays, comments too."""
    line = f"default: {name}\n"
    if _DEFAULT.search(text):
        return _DEFAULT.sub(line, text, count=1)
    return f"{text}\n{line}" if text and not text.endswith("\n") else text + line


def _parse(path: Path, text: str) -> Contexts:
    import yaml

    try:
        found = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark is not None else str(path)
        what = getattr(error, "problem", None) or "not valid YAML"
        raise WrongError(f"{place}: {what}") from None
    if found is None:
        return Contexts(path)
    if not isinstance(found, dict):
        raise WrongError(f"{path}: write contexts: with a server under each name")
    _require_known(found, {"contexts", "default"}, str(path))
    named = found.get("contexts") or {}
    if not isinstance(named, dict):
        raise WrongError(f"{path}: contexts: write a name, and under it server and token_file")
    contexts = {str(name): _context(path, str(name), given) for name, given in named.items()}
    default = found.get("default")
    if default is not None and not (isinstance(default, str) and default in {*contexts, HERE}):
        known = ", ".join(contexts) or "none"
        raise WrongError(f"{path}: default: {default!r} is no context; there are: {known}")
    return Contexts(path, contexts, default)


def _context(path: Path, name: str, given: Any) -> Context:
    where = f"{path}: contexts.{name}"
    if name == HERE:
        raise WrongError(f"{where}: the name stands for this machine's own daemon; choose another")
    if not isinstance(given, dict):
        raise WrongError(f"{where}: write server and token_file under it")
    _require_known(given, _KEYS, where)
    for key, value in given.items():
        if not isinstance(value, str) or not value:
            raise WrongError(f"{where}.{key}: write text, in quotes")
    if "server" not in given:
        raise WrongError(f"{where}: server is missing, such as https://lb1:8420")
    files = {
        key: path.parent / Path(given[key]).expanduser()
        for key in ("token_file", "certificate")
        if key in given
    }
    return Context(
        where,
        given["server"],
        files.get("token_file"),
        files.get("certificate"),
        given.get("fingerprint"),
    )


def _require_known(given: Mapping[Any, Any], known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            near = get_close_matches(str(key), sorted(known), 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise WrongError(f"{where}: unknown key {key!r}; {hint}")
