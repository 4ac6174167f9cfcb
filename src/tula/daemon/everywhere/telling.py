"""What machines have answered, put together and told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from tula.engine.everywhere import MemberError, Members, Prepared, Result, Told, Trouble

T = TypeVar("T")
_WORST = (
    Trouble.UNREACHABLE,
    Trouble.FAILED,
    Trouble.CONFIGURATION,
    Trouble.NO_SUCH_BACKEND,
    Trouble.REFUSED,
    Trouble.SOURCE,
    Trouble.ANOTHER,
    Trouble.LOST,
    Trouble.LOSS,
)
"""Only what all of them would do when it is insisted on is told as such."""


async def gather(asked: Mapping[str, Awaitable[T]]) -> tuple[dict[str, T], dict[str, MemberError]]:
    """All answers, and all errors, by machine."""
    found, wrong = dict[str, T](), dict[str, MemberError]()

    async def one(name: str, answer: Awaitable[T]) -> None:
        try:
            found[name] = await answer
        except MemberError as error:
            wrong[name] = error

    await asyncio.gather(*(one(name, answer) for name, answer in asked.items()))
    return found, wrong


def without_unreachable(wrong: dict[str, MemberError], reachable: bool, own: str) -> list[Told]:
    """Takes those out of what is wrong that cannot be reached, if that is meant."""
    if not reachable:
        return []
    names = [
        name
        for name, error in wrong.items()
        if error.trouble is Trouble.UNREACHABLE and name != own
    ]
    return [Told(name, Result.LEFT_OUT, wrong.pop(name).errors) for name in names]


def worst(wrong: Mapping[str, MemberError]) -> Trouble:
    """Of what they said, what is told of the whole."""
    found = {error.trouble for error in wrong.values()}
    return next((each for each in _WORST if each in found), Trouble.FAILED)


def told_error(name: str, error: MemberError) -> Told:
    """A machine that has not done it."""
    result = Result.UNREACHABLE if error.trouble is Trouble.UNREACHABLE else Result.REFUSED
    if error.trouble is Trouble.FAILED:
        result = Result.FAILED
    return Told(name, result, error.errors)


def told_prepared(name: str, result: Result, prepared: Prepared) -> Told:
    """A machine that has taken a configuration, or would."""
    return Told(name, result, (), prepared.summary, prepared.warnings)


def ordered(members: Members, told: list[Told]) -> tuple[Told, ...]:
    """In the order of load_balancers."""
    order = {name: at for at, name in enumerate(members.of)}
    return tuple(sorted(told, key=lambda each: order.get(each.machine, len(order))))
