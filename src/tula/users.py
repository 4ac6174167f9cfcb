"""Names of this machine's users."""

from __future__ import annotations

import pwd


def user_name(uid: int) -> str:
    """``root``, or ``uid 1234`` where nobody is called so."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
