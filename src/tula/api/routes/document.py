"""The document that runs."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import JSONResponse

from tula.api.door import Door
from tula.api.errors import ErrorsBody, answer_problems
from tula.engine.control import ApplyOutcome

router = APIRouter(tags=["document"], responses={422: {"model": ErrorsBody}})

MOST = 16 * 1024 * 1024
"""Bytes of a document, as ``tula.config`` has it."""
YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


@router.post("/plan")
async def plan(request: Request, control: Door, force: bool = False) -> JSONResponse:
    """What the document in the body (application/yaml) would change; without a body, what stands
    between the kernel and the document that runs. Changes nothing.
    """
    body = await _body(request)
    if body:
        _require_yaml(request)
    return _answer(await control.plan(body or None, force))


@router.post("/apply")
async def apply(request: Request, control: Door, force: bool = False) -> JSONResponse:
    """Brings the kernel to the document in the body (application/yaml).

    It must be what the daemon's own file holds: the daemon runs that file, and no other. `force`
    allows a service to take this machine's SSH port.
    """
    _require_yaml(request)
    return _answer(await control.apply(await _body(request), force))


@router.post("/reload")
async def reload(control: Door, force: bool = False) -> JSONResponse:
    """Reads the daemon's file again and brings the kernel to it, as `systemctl reload` does."""
    return _answer(await control.apply(None, force))


def _require_yaml(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in YAML:
        # A browser sends this kind only after it asked, so no other site's form can.
        raise HTTPException(415, "send the document's text as application/yaml")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST:
            raise HTTPException(413, f"larger than {MOST // 1024 // 1024} MiB; this is no document")
    return bytes(body)


def _answer(outcome: ApplyOutcome) -> JSONResponse:
    if outcome.problems:
        return answer_problems(outcome.problems)
    return JSONResponse(
        {
            "changed": outcome.changed,
            "steps": [dict(step) for step in outcome.steps],
            "warnings": [asdict(warning) for warning in outcome.warnings],
        }
    )
