"""What a daemon is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tula.daemon.checks import Checks
from tula.daemon.clients_full import ClientsFull
from tula.daemon.loop import ControlLoop
from tula.daemon.notify.service import Notifier
from tula.daemon.peers import PeerWatch
from tula.daemon.supervisor import Supervisor
from tula.daemon.watch import FileWatch
from tula.engine.control import NetworkFacts
from tula.engine.event_log import EventLog
from tula.health.checker import Checker
from tula.model.stats import Count


@dataclass(frozen=True, slots=True)
class Components:
    """What a daemon is made of, as far as ``LocalControl`` asks it."""

    loop: ControlLoop
    checker: Checker
    checks: Checks
    events: EventLog
    watch: FileWatch
    supervisor: Supervisor
    counters: Callable[[], Mapping[str, Count]] = dict
    """What the daemon counts beside the data path, by name."""
    network: Callable[[], NetworkFacts] = NetworkFacts
    problems: Callable[[], tuple[str, ...]] = tuple
    """What does not work now beside the data path, a line each."""
    peers: PeerWatch | None = None
    full: ClientsFull | None = None
    """Whether clients are not remembered; None: nobody looks."""
    notifier: Notifier | None = None
