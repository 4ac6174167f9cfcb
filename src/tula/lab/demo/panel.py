"""The live panel, and the same as lines of text without a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from tula.lab.demo.load import DOWNLOADS, SIZE
from tula.lab.demo.view import BackendView, View

REQUESTS, ANSWERS, CHANGED, WRONG = "cyan", "green", "yellow", "bold red"
"""Colours, the same everywhere."""

_EIGHTHS = " ▏▎▍▌▋▊▉█"


class Shown(NamedTuple):
    """A moment of the traffic: for a terminal, by its width, and as a line under headings."""

    panel: Callable[[int], RenderableType]
    headings: str
    line: str


def show(view: View) -> Shown:
    """What the screen shows of it."""
    return Shown(lambda width: panel(view, width), headings(view), line(view))


def megabytes(count: float) -> str:
    """Such as ``12.3 MB``; always the same unit, for comparison."""
    return f"{count / 1e6:.1f} MB" if count < 1e8 else f"{count / 1e6:,.0f} MB"


def percent(share: float) -> str:
    """Such as ``0.9 %``."""
    return f"{share * 100:.1f} %"


def bar(part: float, width: int) -> str:
    """A bar of ``part`` (0 to 1) of the width, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, part)) * width * 8)
    full, rest = divmod(eighths, 8)
    if not eighths and part > 0:
        rest = 1  # a little is still visible
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def panel(view: View, width: int) -> RenderableType:
    """The drawing with rates on its arrows, the two totals, and the backends."""
    inner = width - 4
    top = max((b.rate for b in view.backends), default=0.0)
    most = max(top, view.past_rate / 3, 1.0)
    rows = [
        *_picture(view, inner),
        Text(),
        _sum("through the balancer", view.through.out, view.share, REQUESTS, inner),
        _sum("past the balancer", view.past, 1 - view.share, ANSWERS, inner),
        Text(),
        *(_backend(backend, most, inner) for backend in view.backends),
    ]
    title = f"{DOWNLOADS} downloads of {megabytes(SIZE)} at a time, and UDP"
    cut = f", [{CHANGED}]{view.cut} broken and retried[/]" if view.cut else ""
    subtitle = (
        f"{view.downloads:,} downloads ({view.by_ipv6:,} by IPv6), {view.datagrams:,} UDP{cut}"
    )
    return Panel(
        Group(*rows), title=title, subtitle=subtitle, box=ROUNDED, width=width, border_style="dim"
    )


def _picture(view: View, width: int) -> list[Text]:
    requests = f" requests {view.through_rate / 1e6:.2f} MB/s "
    answers = f" answers {view.past_rate / 1e6:.1f} MB/s "
    tail = "▶ balancer ────▶ backends"
    first = Text("clients ").append(requests.center(width - 8 - len(tail), "─"), REQUESTS)
    first.append("▶ ", REQUESTS).append("balancer ").append("────▶ ", REQUESTS).append("backends")
    turn = width - 8  # from below the arrow's head to below "backends"
    second = Text(f"   ▲{'║':>{turn}}", ANSWERS)
    third = Text(f"   ╚{answers.center(turn - 1, '═')}╝", ANSWERS)
    return [first, second, third]


def _sum(label: str, count: int, share: float, style: str, width: int) -> Text:
    figures = f"{megabytes(count):>10}{percent(share):>9}"
    room = width - 22 - len(figures)
    return Text(f"{label:<22}").append(bar(share, room), style).append(figures, f"bold {style}")


def _backend(backend: BackendView, most: float, width: int) -> Text:
    state = {None: "not in tula.yaml", 0: "weight 0"}.get(backend.weight, "")
    figures = f"{megabytes(backend.rate)}/s".rjust(11) + f"{backend.requests:>6,} requests"
    room = width - 11 - 18 - len(figures)
    line = Text(f"{backend.name:<11}", "" if backend.weight else CHANGED)
    line.append(bar(backend.rate / most, room), ANSWERS)
    return line.append(f" {state:<17}", CHANGED).append(figures)


def headings(view: View) -> str:
    """The header of the plain lines."""
    names = "".join(f" {backend.name}" for backend in view.backends)
    return (
        f"{'':6}{'through the':>12}{'past the':>10}  requests answered so far by\n"
        f"{'':6}{'balancer':>12}{'balancer':>10}{names}"
    )


def line(view: View) -> str:
    """One line: bytes so far, and requests answered by each backend."""
    counts = "".join(f" {b.requests:>{len(b.name)}}" for b in view.backends)
    through = f"{megabytes(view.through.out):>12}{megabytes(view.past):>10}"
    return f"{view.seconds:>4.0f} s{through}{counts}"
