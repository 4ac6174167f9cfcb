"""Tells the owners of VIPs what this balancer serves, and whether it stands by."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tula.kernel.directory import Directory, describe_error
from tula.model.desired import DesiredVip
from tula.model.errors import StateError
from tula.model.problem import Problem
from tula.plan.desired import Plan
from tula.plan.high_availability import served
from tula.vip.owner import VipOwners

STANDBY = "standby.json"


@dataclass(frozen=True, slots=True)
class Standby:
    """The operator wants other balancers to have the VIPs: since when (seconds since the epoch),
    and who said so."""

    since: float
    by: str = ""


class StandbyFile:
    """In the state directory, so that it lasts over a restart. Methods raise StateError."""

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        self._files = Directory(directory)
        self._wall = wall

    def read(self) -> Standby | None:
        """None: this balancer may have the VIPs. A damaged file says that it may not: whoever
        wrote it wanted that."""
        try:
            found = json.loads(self._files.read(STANDBY))
            return Standby(float(found["since"]), str(found["by"]))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StateError(f"{self._files.path}: {describe_error(error)}") from error
        except (ValueError, TypeError, LookupError, RecursionError):
            return Standby(0.0)

    def set(self, by: str) -> None:
        """From now on; one that stands by already keeps its time."""
        if self.read() is None:
            text = json.dumps({"since": self._wall(), "by": by})
            try:
                self._files.write(STANDBY, text.encode())
            except OSError as error:
                raise StateError(f"{self._files.path}: {describe_error(error)}") from error

    def remove(self) -> None:
        """No longer."""
        try:
            self._files.remove(STANDBY)
        except OSError as error:
            raise StateError(f"{self._files.path}: {describe_error(error)}") from error


_Told = tuple[tuple[DesiredVip, ...], Mapping[str, bool], bool]


class Served:
    """What was told, so that only news is told again."""

    def __init__(self, vips: VipOwners, state_dir: Path) -> None:
        self._vips = vips
        self._file = StandbyFile(state_dir)
        self._told: _Told | None = None
        self.standby: Standby | None = None
        """as it was read last"""

    def problems(self, plan: Plan) -> list[Problem]:
        """What this machine lacks for the engines that the plan needs."""
        lacking = self._vips.unsupported(plan.state.vips, plan.state.announcing)
        return [Problem(("high_availability",), line) for line in lacking]

    def tell(self, plan: Plan, *, again: bool = False) -> list[str]:
        """Tells what is served by a plan that was carried out; what failed, a line each.

        ``again``: though nothing may have changed, and by the operator's file as it is now.
        """
        if plan.state.announcing is None:
            self._told = None
            return []
        failures: list[str] = []
        if again:
            try:
                self.read()
            except StateError as error:
                failures.append(str(error))
        now = plan.state.vips, served(plan.config, plan.statuses), self.standby is not None
        if again or now != self._told:
            failures += self._vips.serve(*now)
            self._told = None if failures else now
        return failures

    def read(self) -> Standby | None:
        """What the operator said last. Raises StateError."""
        self.standby = self._file.read()
        return self.standby

    def set_standby(self, standby: bool, by: str) -> bool:
        """Remembers what the operator says, and whether that is news; ``tell`` tells it. Raises
        StateError."""
        before = self._file.read()
        if standby:
            self._file.set(by)
        else:
            self._file.remove()
        return (before is None) != (self.read() is None)
