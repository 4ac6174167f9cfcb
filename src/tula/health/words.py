"""What answers say beside pass and fail: weights, and the lines of agents. Pure.

Nothing that a backend sends raises, or grows: what is not understood is named, shortened.
"""

from __future__ import annotations

import re

from tula.health.check import clean
from tula.model.advice import HEAVIEST, Admin, Advice, GivenWeight, Words

LONGEST_WEIGHT = 64
"""Bytes of a text that can still be a weight; white space around it counts."""
LONGEST_LINE = 4096
"""Bytes of an agent's line that are read at most."""
_FAILED, _FIRST_WEIGHT = 1, 2
_WEIGHT = re.compile(rb"([0-9]{1,5})(%?)")
_SPACE = b" \t\r\n"
_SEPARATORS = re.compile(rb"[ \t,]+")
_UP = {b"up": True, b"down": False, b"fail": False, b"failed": False, b"stopped": False}
_ADMIN = {str(admin).encode(): admin for admin in Admin}
_SHOWN = 40


def parse_weight(text: bytes) -> GivenWeight | None:
    """``75%`` or ``30``, 0 to 65535 either way; None for anything else."""
    if len(text) > LONGEST_WEIGHT:
        return None
    found = _WEIGHT.fullmatch(text.strip(_SPACE))
    if found is None or int(found[1]) > HEAVIEST:
        return None
    return GivenWeight(int(found[1]), bool(found[2]))


def not_a_weight(what: str, text: bytes) -> str:
    """What is said of a text that is none."""
    got = repr(clean(text.strip(_SPACE), _SHOWN)) if text.strip(_SPACE) else "nothing"
    return f"{what} is no weight: {got}; wanted 0 to {HEAVIEST}, or a percentage such as 75%"


def weight_of_status(status: int) -> GivenWeight | None:
    """The weight by an exit status that passes: None, as configured, for 0; else 2 less.

    As ``misc_dynamic`` of keepalived's MISC_CHECK (keepalived.conf(5)).
    """
    return GivenWeight(status - _FIRST_WEIGHT) if status >= _FIRST_WEIGHT else None


def weighs(status: int) -> bool:
    """Whether an exit status passes where it gives the weight. A signal's is negative."""
    return status == 0 or status >= _FIRST_WEIGHT


def parse_agent(line: bytes) -> tuple[Words, str]:
    """An agent's line without its end, and the first word in it that is not understood.

    By HAProxy's agent-check (configuration.txt, 5.2; tcpcheck_agent_expect_reply): words in any
    order and in any case, of several of a sort the last; what follows a ``#`` describes. Beside
    its words, ``failed`` stands for ``fail``. ``maxconn:`` has no meaning without a proxy.
    """
    said, _, _ = line.partition(b"#")
    weight: GivenWeight | None = None
    admin: Admin | None = None
    up: bool | None = None
    strange = b""
    for word in _SEPARATORS.split(said):
        lower = word.lower()
        given = lower.removeprefix(b"weight:")
        if lower in _UP:
            up = _UP[lower]
        elif lower in _ADMIN:
            admin = _ADMIN[lower]
        elif (found := parse_weight(given)) and (found.percent or given is not lower):
            weight = found
        elif lower and not lower.startswith(b"maxconn:"):
            strange = strange or word
    cause = f"says {admin}" if admin is not None else ""
    return Words(weight, admin, up, cause), clean(strange, _SHOWN)


def advised(before: Advice, words: Words, evidence: str, *, auxiliary: bool) -> Advice:
    """What a check has come to say, after one more answer.

    An answer of a check that decides stands for itself. What an agent does not mention stays as it
    is: only the agent takes back what it has said.
    """
    if not auxiliary:
        admin = words.admin or Admin.READY
        return Advice(before.check, before.who, words.weight, admin, words.cause)
    told = words.admin is not None
    return Advice(
        before.check,
        before.who,
        before.weight if words.weight is None else words.weight,
        before.admin if words.admin is None else words.admin,
        words.cause if told else before.cause,
        before.up if words.up is None else words.up,
        before.evidence if words.up is None else ("" if words.up else evidence),
    )
