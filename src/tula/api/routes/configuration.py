"""The running configuration."""

from __future__ import annotations

import json
from dataclasses import asdict

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from tula.api.dependencies import Daemon
from tula.api.errors import ErrorsBody, answer_problems
from tula.engine.control import ApplyOutcome

router = APIRouter(tags=["configuration"], responses={422: {"model": ErrorsBody}})

MOST = 16 * 1024 * 1024
"""Bytes of a configuration, as ``tula.config`` has it."""
YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


@router.post("/plan")
async def plan(request: Request, control: Daemon, force: bool = False) -> Response:
    """What the configuration in the body (application/yaml) would change; without a body, the
    differences between the kernel and the running configuration. Changes nothing.
    """
    body = await _body(request)
    if body:
        _require_yaml(request)
    return _answer(await control.plan(body or None, force))


@router.post("/apply")
async def apply(request: Request, control: Daemon, force: bool = False) -> Response:
    """Brings the kernel to the configuration in the body (application/yaml).

    It must be what the daemon's own file holds: the daemon runs that file and no other. `force`
    allows a service to take this machine's SSH port.
    """
    _require_yaml(request)
    return _answer(await control.apply(await _body(request), force))


@router.post("/reload")
async def reload(control: Daemon, force: bool = False) -> Response:
    """Reads the daemon's file again and brings the kernel to it, as `systemctl reload` does."""
    return _answer(await control.apply(None, force))


def _require_yaml(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in YAML:
        # A browser sends this kind only after it asked, so no other site's form can.
        raise HTTPException(415, "send the configuration's text as application/yaml")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST:
            raise HTTPException(
                413, f"larger than {MOST // 1024 // 1024} MiB; this is not a configuration"
            )
    return bytes(body)


def _answer(outcome: ApplyOutcome) -> Response:
    if outcome.problems:
        return answer_problems(outcome.problems)
    warnings = json.dumps([asdict(warning) for warning in outcome.warnings]).encode()
    changed = json.dumps(outcome.changed).encode()
    body = b'{"changed": %b, "steps": %b, "warnings": %b}' % (changed, outcome.steps, warnings)
    return Response(body, media_type="application/json")
