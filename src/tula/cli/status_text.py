"""``tula status`` as text: warnings, a table of services and backends, then totals."""

from __future__ import annotations

import sys
import time
from typing import Any

from tula.cli.common import print_table
from tula.engine.summary import summarize

_HEADINGS = ["SERVICE", "VIP", "PORTS", "BACKEND", "ADDRESS", "WEIGHT", "STATE", "PACKETS", "BYTES"]
_RIGHT = frozenset({5, 7, 8})


def print_status(answer: dict[str, Any]) -> None:
    """Print the object of ``tula status --json`` as text; warnings go to standard error."""
    print(summarize(answer).text, flush=True)
    for line in warning_lines(answer):
        print(line, file=sys.stderr)
    sys.stderr.flush()
    rows = [row for service in answer["services"] for row in _rows(service)]
    # Without a daemon no backend has a reason, and the column is left out.
    reasons = any(row[-1] for row in rows)
    headings = [*_HEADINGS, "REASON"] if reasons else _HEADINGS
    print_table(headings, rows if reasons else [row[:-1] for row in rows], _RIGHT)
    _print_rest(answer)


def warning_lines(answer: dict[str, Any]) -> list[str]:
    """What the operator must see first, one line each."""
    daemon = answer["daemon"]
    lines = []
    if daemon is not None:
        configuration, cycle = daemon["configuration"], daemon["last_cycle"]
        refused = configuration["refused"]
        if refused is not None:
            lines.append(
                f"{configuration['path']} has been refused since {_when(refused['since'])}: "
            )
            lines[-1] += f"{_problem(refused['problems'])}; the previous configuration still runs"
        lines += daemon["problems"]
        if cycle is not None and cycle["error"]:
            lines.append(f"updating the kernel failed at {_when(cycle['time'])}: ")
            lines[-1] += cycle["error"]
    lines += [
        f"{service['name']}: too few backends are up, so all of them serve (panic)"
        for service in answer["services"]
        if service["panic"]
    ]
    return [f"WARNING: {line}" for line in lines]


def _problem(problems: list[dict[str, Any]]) -> str:
    """The first problem, and how many more there are."""
    if not problems:
        return "it cannot be read"
    first, *rest = problems
    where = "" if first["line"] is None else f"{first['line']}:{first['column']}: "
    path = f"{first['path']}: " if first["path"] else ""
    more = f" (and {len(rest)} more)" if rest else ""
    return f"{where}{path}{first['message']}{more}"


def connections(count: int) -> str:
    """Such as ``no connections`` or ``1 connection``."""
    return f"{count or 'no'} connection{'s' * (count != 1)}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _rows(service: dict[str, Any]) -> list[list[str]]:
    protocols = "+".join(service["protocols"])
    counts = [str(service["packets"]), str(service["bytes"])]
    head = [service["name"], " ".join(service["vips"]), f"{protocols} {','.join(service['ports'])}"]
    rows = [[*head, "", "", "", "", *counts, ""]]
    for backend in service["backends"]:
        address, tunnel = backend["address"], backend["tunnel"]
        shown = address if isinstance(address, str) else " ".join(address)
        rows.append(
            [
                *("", "", ""),
                backend["name"],
                f"{shown} {tunnel['kind']}" if tunnel else shown,
                _weight(backend),
                backend["state"],
                str(backend["packets"]),
                str(backend["bytes"]),
                _reason(backend),
            ]
        )
    return rows


def _weight(backend: dict[str, Any]) -> str:
    """The configured one, preceded by the effective one if that differs: ``25/100``."""
    weight, now = backend["weight"], backend["effective_weight"]
    serves = backend["state"] in ("up", "unknown")
    return f"{now}/{weight}" if serves and now != weight else str(weight)


def _reason(backend: dict[str, Any]) -> str:
    parts = [backend["reason"]] if backend["state"] != "up" else []
    if backend["state"] == "draining" and backend["connections"] is not None:
        parts.append(f"{connections(backend['connections'])} left")
    if backend["warning"]:
        parts.append(f"warning: {backend['warning']}")
    return "; ".join(filter(None, parts))


def _print_rest(answer: dict[str, Any]) -> None:
    """What belongs to no single service: tracked connections, and packets handled specially."""
    held = [
        f"{name} {table['entries']} of {table['size']}"
        for name, table in answer["connections"].items()
        if table["entries"]
    ]
    if held:
        print("connections: " + ", ".join(held))
    for name, count in answer["counters"].items():
        if count["packets"]:
            print(f"{name.replace('_', ' ')}: {count['packets']} packets")
