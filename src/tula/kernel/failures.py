"""What fails of the calls of fakes: one object for all the fakes of a machine.

A call is named by the adapter's field in ``engine.reader.Adapters`` and its method, such as
``network.add_address``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from tula.model.errors import KernelError

_P = ParamSpec("_P")
_R = TypeVar("_R")

ANY = ""
"""Stands for any call."""


@dataclass(slots=True)
class Failure:
    """A refusal of every call of that name, or of the ``nth`` from now on, once.

    With ``done`` what was asked for is done before it fails: the caller cannot know. That is so
    of nft that is killed; what promises to leave all as it was must not be failed like that.
    """

    call: str
    reason: str
    nth: int = 0
    done: bool = False


@dataclass
class Failures:
    """``calls`` counts those of each name, those that failed among them."""

    waiting: list[Failure] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)

    def refuse(
        self, call: str = ANY, reason: str = "Device or resource busy", *, done: bool = False
    ) -> None:
        """Every call fails, until ``allow``."""
        self.allow(call)
        self.waiting.append(Failure(call, reason, done=done))

    def refuse_once(
        self,
        call: str = ANY,
        nth: int = 1,
        reason: str = "Device or resource busy",
        *,
        done: bool = False,
    ) -> None:
        """The ``nth`` call from now on fails, and none after it."""
        self.waiting.append(Failure(call, reason, nth, done))

    def allow(self, call: str = ANY) -> None:
        """Ends the refusals of this call, those to come among them; ``ANY`` ends all."""
        self.waiting = [each for each in self.waiting if call not in (ANY, each.call)]

    def reason(self, call: str) -> str:
        """Why every call of this name fails; empty if not every one does."""
        found = (each.reason for each in self.waiting if each.call == call and not each.nth)
        return next(found, "")

    def due(self, call: str) -> Failure | None:
        """The failure of the call that begins now, if it is to fail."""
        self.calls[call] += 1
        found: Failure | None = None
        for each in [each for each in self.waiting if each.call in (ANY, call)]:
            if each.nth > 1:
                each.nth -= 1
                continue
            if each.nth == 1:
                self.waiting.remove(each)
            found = found or each
        return found


class _Fallible(Protocol):
    failures: Failures


_S = TypeVar("_S", bound=_Fallible)


def fallible(
    call: str,
) -> Callable[[Callable[Concatenate[_S, _P], _R]], Callable[Concatenate[_S, _P], _R]]:
    """Makes a fake's method one that ``self.failures`` can have fail, by a KernelError."""

    def decorate(
        method: Callable[Concatenate[_S, _P], _R],
    ) -> Callable[Concatenate[_S, _P], _R]:
        @wraps(method)
        def called(self: _S, /, *arguments: _P.args, **named: _P.kwargs) -> _R:
            failure = self.failures.due(call)
            if failure is not None and not failure.done:
                raise KernelError(failure.reason)
            result = method(self, *arguments, **named)
            if failure is not None:
                raise KernelError(failure.reason)
            return result

        return called

    return decorate
