"""An engine by a generated file, as an owner of VIPs has it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from tula.dataplane.port import ChangeStep
from tula.kernel.engines import Engine
from tula.model.command import Command
from tula.model.errors import KernelError


@dataclass(frozen=True, slots=True)
class EngineChange:
    """Another file of an engine, or its start; false when there is nothing to do.

    ``text`` is what the file must be; None: the engine has to end.
    """

    verb: str = ""
    name: str = ""
    place: str = ""
    text: str | None = None

    def __bool__(self) -> bool:
        return bool(self.verb)

    def steps(self, *, before: bool) -> list[ChangeStep]:
        if before or not self.verb:
            return []
        return [ChangeStep(self.verb, "engine", self.name, self.place)]


class GeneratedEngine:
    """Keeps one engine at a file. ``take`` has it checked, ``settle`` puts it in place.

    Changes come from one thread; ``revive`` may come from another.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._held = False
        self._waiting: str | None = None
        self._turn = threading.RLock()

    def diff(self, text: str | None) -> EngineChange:
        """What turns the engine into one that runs by this text. Raises KernelError."""
        engine = self.engine
        have, runs = engine.read(), engine.runs()
        name, place = engine.program.name, str(engine.place)
        if text is None:
            there = have is not None or runs or self._waiting is not None
            return EngineChange("remove", name, place) if there else EngineChange()
        if self._held and not runs:
            have = self._waiting
        elif have == text and not runs and not engine.kept:
            return EngineChange("add", name, place, text)
        if have == text:
            return EngineChange()
        return EngineChange("add" if have is None else "change", name, place, text)

    def take(self, change: EngineChange) -> list[str]:
        """Has the engine's own checker look at a new file; what it says against it."""
        if change.text is None or not change:
            return []
        try:
            refused = self.engine.check(change.text)
        except KernelError as error:
            return [str(error)]
        return [f"{change.name} refuses its generated file: {refused}"] if refused else []

    def settle(self, change: EngineChange) -> list[str]:
        """Puts the file in place and has the engine run by it, or ends it; what failed."""
        if not change:
            return []
        with self._turn:
            try:
                if change.text is None:
                    self._waiting = None
                    self.engine.stop()
                elif self._held and not self.engine.runs():
                    self._waiting = change.text
                else:
                    self._put(change.text)
            except KernelError as error:
                return [str(error)]
        return []

    def _put(self, text: str) -> None:
        if self.engine.read() != text:
            self.engine.put(text)
        if self.engine.runs():
            self.engine.reload()
        else:
            self.engine.start()

    def hold(self) -> None:
        """An engine that does not run is not started before ``let_go``."""
        self._held = True

    def let_go(self) -> list[str]:
        """Starts what waited for it; what failed."""
        with self._turn:
            self._held = False
            text, self._waiting = self._waiting, None
            if text is None:
                return []
            try:
                self._put(text)
            except KernelError as error:
                return [str(error)]
        return []

    def removal(self) -> list[Command]:
        """Its file first, or systemd would start it again. Raises KernelError."""
        engine = self.engine
        if engine.read() is None:
            return []
        commands = [Command(("rm", "-f", str(engine.place)))]
        pid = engine.pid()
        return [*commands, Command(("kill", str(pid)))] if pid is not None else commands

    def revive(self) -> list[str]:
        """Starts the engine that has died, where systemd does not; why it could not be."""
        engine = self.engine
        with self._turn:
            try:
                if self._held or engine.kept or engine.read() is None or engine.runs():
                    return []
                engine.start()
            except KernelError as error:
                return [str(error)]
        return [f"{engine.program.name} had ended, and was started again"]
