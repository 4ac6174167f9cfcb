"""The demo's screen: paced and animated on a terminal, plain lines without one."""

from __future__ import annotations

import codecs
import difflib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from tula.lab.demo.panel import ANSWERS, WRONG, Shown

_WORDS_A_SECOND = 5.5
_NARROW, _WIDE = 72, 100

_ASCII = str.maketrans("─═│║▶▲▼█…✓✗", "-=||>^v#.+x")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Replaces box characters that the encoding lacks."""
    assert isinstance(error, UnicodeEncodeError)
    part = error.object[error.start : error.end].translate(_ASCII)
    return "".join(c if c.isascii() else "+" for c in part), error.end


class Screen:
    """Prints the demo."""

    def __init__(self, plain: bool, fast: bool) -> None:
        """Options of the command; without a terminal both are implied."""
        if hasattr(sys.stdout, "reconfigure"):
            codecs.register_error("tula-ascii", _in_ascii)
            sys.stdout.reconfigure(errors="tula-ascii")
        terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        console = Console(highlight=False)
        self.animated = terminal and not plain and console.width >= _NARROW
        self.paced = terminal and not fast
        width = min(console.width, _WIDE) if self.animated else 80
        self.console = Console(
            highlight=False,
            width=width,
            no_color=None if self.animated else True,
            force_terminal=None if self.animated else False,
        )
        self._view: Callable[[], Shown] | None = None
        self._headed = False

    def chapter(self, number: int, of: int, title: str) -> None:
        """A heading."""
        self.console.print()
        self.console.print(
            Rule(f"[bold]{title}[/]  [dim]{number} of {of}[/]", align="left", style="dim")
        )

    def say(self, markup: str, seconds: float | None = None) -> None:
        """Print a paragraph, and give the time to read it."""
        self._set(Text.from_markup(markup), 1)
        self.pause(len(markup.split()) / _WORDS_A_SECOND if seconds is None else seconds)

    def draw(self, markup: str) -> None:
        """Print lines that must not be wrapped."""
        self.console.print(Text.from_markup(markup), no_wrap=True, overflow="ellipsis")

    def table(self, table: Table) -> None:
        """Print a table, indented."""
        with self.console.capture() as captured:
            self.console.print(table)
        self._set(Text.from_ansi(captured.get().rstrip()), 2)

    def code(self, text: str) -> None:
        """Print a configuration."""
        theme = "ansi_dark" if self.animated else "bw"
        syntax = Syntax("", "yaml", theme=theme, background_color="default")
        self._set(syntax.highlight(text), 3)

    def diff(self, before: str, after: str) -> None:
        """Print the lines that were changed in a configuration."""
        for changed in difflib.ndiff(before.splitlines(), after.splitlines()):
            if changed[0] in "+-":
                style = "green" if changed[0] == "+" else "red"
                self.console.print(Text(f"   {changed}", style), no_wrap=True)

    def verdict(self, text: str, held: bool) -> None:
        """Print a claim, and whether it held."""
        sign = Text("✓", ANSWERS) if held else Text("✗ did not hold:", WRONG)
        self.console.print(Text("  ").append(sign).append(f" {text}"), no_wrap=True)

    def command(self, text: str) -> None:
        """Print a command as it would be typed."""
        self.console.print(Text(f" $ {text}", "bold"))

    def output(self, text: str) -> None:
        """Print the output of a command."""
        self._set(Text(text.rstrip(), "dim"), 3)

    def pause(self, seconds: float) -> None:
        """Time to read; none if nobody watches."""
        if self.paced:
            time.sleep(seconds)

    def _set(self, text: Text, indent: int) -> None:
        """Print a text, wrapped and indented, without trailing spaces."""
        for shown in text.wrap(self.console, self.console.width - indent - 1):
            shown.rstrip()
            self.console.print(Text(" " * indent).append(shown) if shown else "", no_wrap=True)

    @contextmanager
    def live(self, view: Callable[[], Shown]) -> Iterator[None]:
        """Show the traffic below the text, for the duration of the block."""
        self._view = view
        self._headed = False
        if not self.animated:
            yield
            return
        width = self.console.width
        with Live(
            console=self.console,
            get_renderable=lambda: view().panel(width),
            refresh_per_second=6,
            vertical_overflow="crop",
        ):
            yield

    def watch(self, seconds: float) -> None:
        """Show the traffic for some seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(1.0, left))
            if not self.animated and self._view is not None:
                self._line(self._view())

    def _line(self, shown: Shown) -> None:
        if not self._headed:
            self.draw(shown.headings)
            self._headed = True
        self.draw(shown.line)
