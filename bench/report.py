"""What a run found, as Markdown, JSON and SVG."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from html import escape
from statistics import median

from generator import Traffic

ALONE, ROUTING, NFTLB = "source and sink alone", "kernel routing", "nftlb"


@dataclass(frozen=True, slots=True)
class Case:
    """One set of parameters."""

    traffic: Traffic
    backends: int

    def __str__(self) -> str:
        flows, services = self.traffic.flows, self.traffic.services
        return (
            f"{flows:,} flow{'s' * (flows > 1)}, {services:,} service{'s' * (services > 1)}, "
            f"{self.backends} backends"
        )


@dataclass(slots=True)
class Found:
    """What one subject did in one case: nanoseconds of a packet in each slice, and frames."""

    subject: str
    slices: list[int] = field(default_factory=list)
    sent: int = 0
    arrived: int = 0
    backends: int = 0
    """How many backends got frames."""

    @property
    def nanoseconds(self) -> float:
        return median(self.slices)

    @property
    def mpps(self) -> float:
        return 1000 / self.nanoseconds

    def ratio(self, other: Found | None) -> float | None:
        """Its speed to the other's: the median over pairs of slices of the same moment."""
        if other is None:
            return None
        pairs = zip(self.slices, other.slices, strict=True)
        return median(theirs / ours for ours, theirs in pairs)

    def remark(self) -> str:
        """What was lost, if anything."""
        lost = self.sent - self.arrived
        return f"lost {lost / self.sent:.2%}" if lost else ""


Results = dict[Case, dict[str, Found]]


def markdown(results: Results) -> str:
    """A table for each case."""
    lines: list[str] = []
    for case, found in results.items():
        lines += [f"**{case}**", "", "| | Mpps | ns a packet | net | to nftlb | to routing | |"]
        lines += ["|---|---|---|---|---|---|---|"]
        alone = found.get(ALONE)
        for one in found.values():
            net = f"{one.nanoseconds - alone.nanoseconds:.0f}" if alone and one is not alone else ""
            ratios = [_ratio(one, found.get(other)) for other in (NFTLB, ROUTING)]
            cells = [one.subject, f"{one.mpps:.2f}", f"{one.nanoseconds:.0f}", net, *ratios]
            lines.append(f"| {' | '.join([*cells, one.remark()])} |")
        lines.append("")
        lines += _beside(found)
    return "\n".join(lines)


def _beside(found: dict[str, Found]) -> list[str]:
    """Where another commit was measured beside: time of this one to that one's, for each name."""
    lines = [
        f"- {other.subject}: this commit takes {other.ratio(one):.3f} of its time"
        for one in found.values()
        for other in found.values()
        if other.subject.startswith(f"{one.subject}, ")
    ]
    return [*lines, ""] if lines else []


def _ratio(one: Found, other: Found | None) -> str:
    ratio = one.ratio(other) if one.subject != ALONE else None
    return "" if ratio is None else f"{ratio:.2f}"


def as_json(results: Results) -> str:
    """Everything, slice by slice."""
    return json.dumps(
        {
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cases": [
                {
                    "flows": case.traffic.flows,
                    "services": case.traffic.services,
                    "backends": case.backends,
                    "version": case.traffic.version,
                    "protocol": case.traffic.protocol,
                    "subjects": {
                        one.subject: {
                            "ns": one.nanoseconds,
                            "mpps": round(one.mpps, 4),
                            "to_nftlb": one.ratio(found.get(NFTLB)),
                            "to_routing": one.ratio(found.get(ROUTING)),
                            "slices": one.slices,
                            "sent": one.sent,
                            "arrived": one.arrived,
                            "backends": one.backends,
                        }
                        for one in found.values()
                    },
                }
                for case, found in results.items()
            ],
        },
        indent=2,
    )


_WIDTH, _LEFT, _BAR, _SPACE = 760, 240, 18, 6


def svg(results: Results) -> str:
    """Bars of millions of packets a second, case by case, the source alone left out."""
    shown = {
        case: [one for one in found.values() if one.subject != ALONE]
        for case, found in results.items()
    }
    most = max(one.mpps for found in shown.values() for one in found)
    parts: list[str] = []
    y = 0
    for case, found in shown.items():
        y += 24
        parts.append(f'<text x="0" y="{y}" font-weight="bold">{escape(str(case))}</text>')
        y += 8
        for one in found:
            width = one.mpps / most * (_WIDTH - _LEFT - 60)
            middle = y + _BAR - 5
            colour = "#2f6f9f" if one.subject.startswith("Tula") else "#a9b4bd"
            parts += [
                f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">'
                f"{escape(one.subject)}</text>",
                f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>',
                f'<text x="{_LEFT + width + 6:.1f}" y="{middle}">{one.mpps:.2f}</text>',
            ]
            y += _BAR + _SPACE
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 8}" '
        f'font-family="sans-serif" font-size="13">\n'
        f"<title>Millions of packets a second, one CPU</title>\n"
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
