"""What the commands share that speak to the daemon: finding it, and how its errors end them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tula.cli.common import FAILED, WRONG, fail, open_store, require_yes
from tula.cli.remote import chosen_server

if TYPE_CHECKING:
    from tula.cli.client import Client, DaemonError
    from tula.model.problem import PlacedProblem


T = TypeVar("T")


def daemon_of(run_dir: Path, state_dir: Path | None = None) -> Client | None:
    """The daemon that is to be asked, if any; one that may not be asked ends the command.

    That is the server that the user chose, or the one that runs here. So does one that has
    ``state_dir``, for a command that would change things there, and is not to be found: it starts,
    ends, or listens elsewhere.
    """
    from tula.cli.client import SOCKET, Client, find_daemon

    server = chosen_server()
    if server is not None:
        return Client(server)
    with daemon_errors():
        found = find_daemon(run_dir)
    if found is None and state_dir is not None and open_store(state_dir).has_daemon():
        fail(
            FAILED,
            f"tula: {state_dir}: a daemon runs here, and does not listen on {run_dir / SOCKET}; "
            "try again, or give its --run-dir",
        )
    return found


def require_daemon(run_dir: Path) -> Client:
    """The daemon, without which the command has nothing to do."""
    return daemon_of(run_dir) or no_daemon(run_dir)


def no_daemon(run_dir: Path) -> NoReturn:
    """Says that there is none."""
    from tula.cli.client import SOCKET

    fail(
        FAILED,
        f"tula: no daemon runs here: nobody listens on {run_dir / SOCKET}; "
        "start it: systemctl start tula, or tula run -f tula.yaml",
    )


@contextmanager
def daemon_errors(file: Callable[[], str] | None = None) -> Iterator[None]:
    """Turns the daemon's errors into lines; wrong input is exit status 2, what failed is 1.

    ``file`` tells the name of the configuration that errors with a place are about.
    """
    from tula.cli.client import DaemonError, NoDaemonError

    try:
        yield
    except NoDaemonError as error:
        no_daemon(Path(str(error)).parent)
    except DaemonError as error:
        fail(WRONG if error.wrong_input else FAILED, *_lines(error, file))


def replaced_meanwhile(daemon: Client, runs: str | None) -> NoReturn:
    """Ends a command whose change was for another configuration than the one that ``runs``, by its
    digest: tells who had that accepted."""
    import time

    last = next(iter(daemon.get("/history")["entries"][-1:]), {"digest": None})
    if last["digest"] == runs:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(last["time"]))
        by = f" by {last['by']}" if last["by"] else ""
        told = f"number {last['number']}, {last['how'] or 'accepted'}{by} at {when}"
    else:
        told = "one that waits for tula confirm"
    fail(
        FAILED,
        f"tula: another configuration runs than when you asked: {told}; nothing was changed; "
        "look at it (tula diff), and ask again",
    )


def insist(ask: Callable[[bool], T], yes: bool) -> T:
    """Asks the daemon for a change; when that would take much out of service, asks the user.

    ``ask`` is called with whether that is accepted. Without a terminal, the command fails.
    """
    from tula.cli.client import DaemonError

    try:
        return ask(yes)
    except DaemonError as error:
        if not error.may_insist:
            raise
        require_yes([each["message"] for each in error.errors])
        return ask(True)


def _lines(error: DaemonError, file: Callable[[], str] | None) -> Iterator[str]:
    with_place = file is not None and any("path" in one for one in error.errors)
    name = file() if file is not None and with_place else ""
    for one in error.errors:
        yield placed(one).describe(name) if name and "path" in one else f"tula: {one['message']}"


def placed(problem: dict[str, Any]) -> PlacedProblem:
    """A problem of a configuration as the daemon tells it."""
    from tula.model.problem import PlacedProblem

    return PlacedProblem(
        problem["message"],
        problem.get("path") or "",
        problem.get("line"),
        problem.get("column"),
        problem.get("file") or "",
    )
