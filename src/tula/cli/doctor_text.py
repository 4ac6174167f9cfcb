"""The doctor's report as text: findings, what was tested, and how many problems there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tula.cli.terminal import Screen, screen_of
from tula.doctor.run import Report
from tula.engine.summary import names
from tula.model.finding import Finding, Severity
from tula.model.wording import counted

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_ALIKE = 3
"""Findings of one kind that a terminal shows in full; of the rest it shows where they are."""


def print_report(report: Report, *, whole: bool = False, on: Screen | None = None) -> None:
    """Prints it. ``whole``: all findings in full, as in a pipe."""
    screen = on or screen_of()
    for line in report_lines(report, screen, whole=whole or screen.width is None):
        print(line)


def report_lines(report: Report, screen: Screen, *, whole: bool) -> Iterator[str]:
    """The lines; the last one counts."""
    for alike in _groups(report.findings):
        shown = len(alike) if whole or len(alike) <= _ALIKE + 1 else _ALIKE
        for finding in alike[:shown]:
            yield from _finding_lines(finding, screen)
        rest = alike[shown:]
        if rest:
            first, where = rest[0], names([finding.where for finding in rest])
            head = f"{len(rest)} more of {first.id}:"
            line, *more = screen.wrap(f"{head} {where} (tula doctor --all shows each)", 2)
            yield line.replace(head, screen.paint(head, _COLOURS[first.severity]), 1)
            yield from more
            yield ""
    roles = [*(["a balancer"] if report.roles.balancer else []), *report.roles.backends]
    yield f"Tested, as {' and '.join(roles) or 'a machine that is not configured'}:"
    for what in report.tested or ("nothing",):
        yield from screen.wrap(what, 4, "  ")
    yield ""
    yield _count(report.findings, screen)


def _groups(findings: Sequence[Finding]) -> list[list[Finding]]:
    """By id and severity, in the order of the first of each."""
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.id, finding.severity), []).append(finding)
    return list(groups.values())


def _finding_lines(finding: Finding, screen: Screen) -> Iterator[str]:
    guess = "" if finding.certain else ", a guess"
    severity = screen.paint(str(finding.severity), _COLOURS[finding.severity], bold=True)
    yield f"{severity} {finding.where}: {finding.id}{guess}"
    yield from screen.wrap(finding.evidence, 2, "  ")
    yield from screen.wrap(f"fix: {finding.fix}", 7, "  ")
    if finding.commands:
        yield f"  {'here' if finding.on == 'here' else f'on {finding.on}'}:"
        yield from (f"    {command}" for command in finding.commands)  # to be copied: never cut
    yield ""


def _count(findings: Sequence[Finding], screen: Screen) -> str:
    """Such as ``2 errors, 1 note``."""
    counts = {each: sum(f.severity is each for f in findings) for each in Severity}
    told = [
        screen.paint(counted(count, str(severity)), _COLOURS[severity])
        for severity, count in counts.items()
        if count
    ]
    if not any(f.severity.is_problem for f in findings):
        told.insert(0, screen.paint("No problems found.", "green"))
        return " ".join([told[0], *(f"{note}." for note in told[1:])])
    return ", ".join(told) + "."
