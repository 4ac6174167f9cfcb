"""Who is told when something changes."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tula.api.callers import Operator
from tula.api.dependencies import Daemon
from tula.engine.control import BusyError

router = APIRouter(prefix="/notify", tags=["notifications"])


class TestedBody(BaseModel):
    """What became of a test message to one receiver; `seconds` is how long it took."""

    receiver: str
    kind: str = Field(description="webhook, exec or email.")
    sent: bool
    error: str | None
    seconds: float


class TestsBody(BaseModel):
    """All receivers of `notify`, in their order."""

    results: list[TestedBody]


@router.post("/test")
async def test(control: Daemon, _: Operator) -> TestsBody:
    """Sends each receiver of `notify` a message that says that it is a test, whatever its filters
    are, and tells what became of it. Takes half a minute at most."""
    notifications = control.notifications
    if notifications is None:
        return TestsBody(results=[])
    try:
        found = await notifications.test()
    except TimeoutError:
        raise BusyError("the test did not end in time; try again") from None
    return TestsBody(results=[TestedBody(**each.describe()) for each in found])
