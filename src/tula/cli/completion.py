"""The names that the shell completes: of services, and of backends as SERVICE/BACKEND.

They come from the configuration that was accepted last; those of another machine's daemon it tells.
Completion never fails, and says nothing: where there is nothing to read, there is nothing to
complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from typer import Context

from tula.cli.remote import completing_server

if TYPE_CHECKING:
    from tula.cli.server import Server

_PATIENCE = 3.0
"""Seconds that somebody waits who pressed a key."""


def complete_services(ctx: Context, incomplete: str) -> list[str]:
    """The services whose names begin so."""
    return [name for name in _services(ctx) if name.startswith(incomplete)]


def complete_backends(ctx: Context, incomplete: str) -> list[str]:
    """Before the slash the services, behind it the backends of that one."""
    service, slash, _ = incomplete.partition("/")
    services = _services(ctx)
    if not slash:
        return [f"{name}/" for name in services if name.startswith(service)]
    backends = (services.get(service) or {}).get("backends") or {}
    targets = (f"{service}/{name}" for name in backends)
    return [target for target in targets if target.startswith(incomplete)]


def _services(ctx: Context) -> dict[str, Any]:
    try:
        server = completing_server(ctx)
        return dict(_read(ctx) if server is None else _ask(server))
    except Exception:  # an error message would end up in the command line
        return {}


def _ask(server: Server) -> Iterator[tuple[str, Any]]:
    from tula.cli.client import Client

    for service in Client(server, _PATIENCE).get("/status")["services"]:
        backends = {backend["name"]: backend for backend in service["backends"]}
        yield service["name"], {"backends": backends}


def _read(ctx: Context) -> Iterator[tuple[str, Any]]:
    import os
    from pathlib import Path

    import yaml

    from tula.cli.common import STATE_DIR, open_store

    given = ctx.params.get("state_dir") or os.environ.get("TULA_STATE_DIR") or STATE_DIR
    source = open_store(Path(given)).configuration()
    # Names alone: what the configuration means is no matter here.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = yaml.load(source or b"", loader)
    for name, service in found["services"].items():
        yield str(name), service if isinstance(service, dict) else {}
