"""What happened."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel

from tula.api.door import Door
from tula.model.event import EventKind

router = APIRouter(tags=["events"])

MOST = 1000


class EventBody(BaseModel):
    """One event; `time` is in seconds since the epoch."""

    number: int
    time: float
    kind: EventKind
    subject: str
    message: str
    evidence: str


class EventsBody(BaseModel):
    """Events, the oldest first."""

    events: list[EventBody]


@router.get("/events")
async def events(
    control: Door,
    after: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> EventsBody:
    """The events behind number `after`, or the last ones without it.

    A number that no event has yet is one of an earlier daemon: all of this one's are told.
    """
    found = await control.events(after, limit)
    return EventsBody(
        events=[
            EventBody(
                number=event.number,
                time=event.time,
                kind=event.kind,
                subject=event.subject,
                message=event.message,
                evidence=event.evidence,
            )
            for event in found
        ]
    )
