"""What happened."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from tula.api.callers import Reader
from tula.api.dependencies import Daemon
from tula.api.streams import Streams
from tula.model.event import EventKind
from tula.model.severity import Severity, severity_of

router = APIRouter(tags=["events"])

MOST = 1000


class EventBody(BaseModel):
    """One event; `time` is in seconds since the epoch; `by` is who asked for it, if anybody did."""

    number: int
    time: float
    kind: EventKind
    subject: str
    message: str
    evidence: str
    by: str
    severity: Severity


class EventsBody(BaseModel):
    """Events, the oldest first; numbers belong to the `epoch`, the daemon's run."""

    epoch: str
    events: list[EventBody]


@router.get("/events")
async def events(
    control: Daemon,
    _: Reader,
    after: Annotated[int | None, Query(ge=0)] = None,
    epoch: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> EventsBody:
    """The events after number `after` of this `epoch`, or the last ones without a number.

    With another daemon's epoch, or a number that no event has yet, all events are new.
    """
    page = await control.events(after, limit, epoch)
    return EventsBody(
        epoch=page.epoch,
        events=[
            EventBody(
                number=event.number,
                time=event.time,
                kind=event.kind,
                subject=event.subject,
                message=event.message,
                evidence=event.evidence,
                by=event.by,
                severity=severity_of(event.kind),
            )
            for event in page.events
        ],
    )


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `id` is EPOCH:NUMBER, `data` an event as JSON. An "
            "event `gap` says that some before it are missing. A comment each 15 s when nothing "
            "happens.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream(
    request: Request,
    control: Daemon,
    _: Reader,
    last_event_id: Annotated[
        str | None,
        Header(
            pattern=r"^[0-9A-Za-z_-]{1,64}:[0-9]{1,15}$",
            description="The `id` of the last event that the client has; without it, what happens "
            "from now on is sent.",
        ),
    ] = None,
) -> StreamingResponse:
    """Events as they happen, until the client goes."""
    last = None
    if last_event_id is not None:
        epoch, _colon, number = last_event_id.rpartition(":")
        last = epoch, int(number)
    streams: Streams = request.app.state.streams
    return StreamingResponse(
        streams.open(control, last),
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        media_type="text/event-stream",
    )
