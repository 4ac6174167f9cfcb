"""What happened."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from tula.api.callers import Reader
from tula.api.dependencies import Daemon
from tula.model.event import EventKind

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
            )
            for event in page.events
        ],
    )
