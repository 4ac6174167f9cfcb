"""What ``drain``, ``disable``, ``weight`` and their ends say: what was done, and what holds still.

A backend may be drained, disabled and down at the same time: to end one of these is not to bring it
back, and whoever expects that must be told what is still in force and how to end it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

View = Mapping[str, Any]
"""A backend as the API describes it, see ``tula.engine.backend_view``."""


class Over(Enum):
    """Whether a drain is over: DONE when nothing is left to wait for, ENDED when somebody has
    taken it back."""

    NO = auto()
    DONE = auto()
    ENDED = auto()


_ENDED = {
    "undrain": ("drain", "no longer draining", "was not drained"),
    "enable": ("disable", "enabled", "was not disabled"),
}


def describe_override(
    verb: str,
    before: View | None,
    after: View | None,
    *,
    deadline: str | None = None,
    weight: int | None = None,
) -> str:
    """What a command did, in a line; the views are None where they cannot be had."""
    if verb == "drain":
        rest = f"those left after {deadline} are reset" if deadline else "existing ones continue"
        if after is not None and after.get("keeps_clients"):  # an older daemon does not say
            release = f"tula drain {after['service']}/{after['backend']} --release"
            return (
                "draining: no new connections but those of the persistent clients that it has, "
                f"{rest}; to release them: {release}"
            )
        if after is None or after["state"] == "draining":
            return f"draining: no new connections, {rest}"
        return f"drained{_why_not(after, besides='drain')}"
    if verb == "disable":
        again = before is not None and _holds(before, "disable")
        return "was disabled already" if again else "disabled; its connections are reset"
    if verb == "weight":
        if after is None:
            return "weight as configured" if weight is None else f"weight {weight}"
        wanted = after["weight"] if weight is None else weight
        done = f"weight {wanted}" + (", as configured" if weight is None else "")
        if after["effective_weight"] or not wanted:
            return done
        return done + _why_not(after, besides="weight")
    what, ended, nothing = _ENDED[verb]
    done = nothing if before is not None and not _holds(before, what) else ended
    if after is None:
        return f"{done}; gets new connections again if it is up"
    if after["effective_weight"]:
        return f"{done}; gets new connections"
    return done + _why_not(after)


def drain_progress(backend: View | None) -> tuple[str, Over]:
    """What is left of a drain, in a line that is empty while that is not known."""
    if backend is None:
        return "is no longer in the configuration; its connections were reset", Over.DONE
    if not _holds(backend, "drain"):
        return "the drain was ended by somebody else; nothing is waited for", Over.ENDED
    state = backend["state"]
    if state == "disabled":
        disabled = _holds(backend, "disable")
        why = "it was disabled" if disabled else "the deadline has passed"
        return f"{why}: the connections that were left are reset", Over.DONE
    if state == "down" and not backend.get("keeps_connections"):  # an older daemon tells no more
        return f"it went down, and its connections with it: {backend['reason']}", Over.DONE
    held = backend["connections"]
    if held is None:
        return "", Over.NO
    if backend.get("connections_estimated"):  # an older daemon never estimates
        return f"about {held or 'no'} connection{'s' * (held != 1)} left", Over.NO
    return f"{held or 'no'} connection{'s' * (held != 1)} left", Over.NO if held else Over.DONE


def _holds(view: View, what: str) -> bool:
    return any(each["what"] == what for each in view["overrides"])


def _why_not(view: View, besides: str = "") -> str:
    """Why it gets no new connections, and how to end that if a command does."""
    held = [each for each in view["overrides"] if each["what"] not in ("weight", besides)]
    if held:
        texts = " and ".join(each["text"] for each in held)
        return f", but still {texts}; to end that: {'; '.join(each['end'] for each in held)}"
    if view["state"] == "down":
        return f", but down: {view['reason']}"
    weights = [each for each in view["overrides"] if each["what"] == "weight"]
    if weights and besides != "weight":
        return f", but {weights[0]['text']}; to end that: {weights[0]['end']}"
    return f", but gets no new connections: {view['reason'] or view['state']}"
