"""PyYAML's errors as one line of ours, with the mend where it is known."""

from __future__ import annotations

import yaml

from tula.config.errors import BrokenError
from tula.config.tree import WHOLE, Mark

_QUOTE = "quote text that contains a colon followed by a space or ends in one"


def yaml_fault(error: yaml.YAMLError, text: str) -> BrokenError:
    """The syntax error as a BrokenError at its line and column."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        reason = getattr(error, "reason", None) or str(error)
        return BrokenError(f"not valid YAML: {_line(reason)}", WHOLE)
    mark = (error.problem_mark.line + 1, error.problem_mark.column + 1)
    began = error.context_mark.line + 1 if error.context_mark else mark[0]
    problem, context = error.problem or "syntax error", error.context or ""
    message = f"not valid YAML: {_line(problem)}"
    if context:
        message += f" ({_line(context)}"
        message += f" that began on line {began})" if began != mark[0] else ")"
    hint = _hint(problem, _rest(text, mark)) or _unclosed(context, began)
    return BrokenError(f"{message}; {hint}" if hint else message, mark)


def _unclosed(context: str, line: int) -> str | None:
    """The mend, from what the parser was in when it stopped."""
    if "flow sequence" in context:
        return f"close the [ of line {line} with ]"
    if "flow mapping" in context:
        return f"close the {{ of line {line} with }}"
    if "quoted scalar" in context:
        return f"close the quote of line {line}"
    if "alias" in context or "anchor" in context:
        return "quote text that begins with * or &; for all ports write any"
    return None


def _hint(problem: str, rest: str) -> str | None:
    """The mend, from what stands where the parser stopped."""
    if rest.startswith("\t"):
        return "indent with spaces, not with tabs"
    if rest.startswith("::"):
        return 'quote an IPv6 address that begins with a colon, such as "::1"'
    if rest.startswith(("@", "`", "%")):
        return f"quote text that begins with {rest[0]}"
    if problem.startswith("mapping values are not allowed"):
        return _QUOTE
    if "could not find expected ':'" in problem:
        return "give every key a colon and a value"
    if "expected <block end>" in problem or "expected key" in problem:
        return "check the indentation"
    return None


def _rest(text: str, mark: Mark) -> str:
    """The line from the mark on."""
    lines = text.splitlines()
    return lines[mark[0] - 1][mark[1] - 1 :] if mark[0] <= len(lines) else ""


def _line(text: str) -> str:
    """On one line, printable, not long."""
    words = " ".join(text.split())
    return "".join(char if char.isprintable() else "?" for char in words)[:100]
