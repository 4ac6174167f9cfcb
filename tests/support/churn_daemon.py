"""What happens to a daemon's backends, configurations and to itself, and who was there when."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from support import churn_load
from support.lab_configurations import backends_of, service_of, write_config
from support.running import Running
from tula.cli.client import DaemonError, NoDaemonError, backend_path
from tula.lab import Network, wait_until
from tula.lab.process import Process

PORT = 8000
STAYING = ("backend-1", "backend-2")
"""Never die, and are never out of service; drained and reweighed as the others."""
HEALTH = {
    # Slow to time out: a busy machine must not look like a dead backend.
    "tcp": {"type": "tcp", "interval": "300ms", "timeout": "2s", "rise": 2, "fall": 2},
    "http": {"type": "http", "interval": "500ms", "timeout": "2s", "rise": 2, "fall": 2},
}
FOREVER = float("inf")
_UNDER_WAY = 0.5
"""Seconds: what was asked so long before a backend's death may die with it, unanswered."""


class Away:
    """A while in which a backend was not to be counted on."""

    def __init__(self, why: str, start: float) -> None:
        self.why = why
        self.start = start
        self.out = FOREVER
        """Since then nothing may go to it."""
        self.returning = FOREVER
        """Since then something may."""
        self.end = FOREVER


class DaemonChurn:
    """One change after the other; ``away`` tells who was out of service when (monotonic)."""

    def __init__(self, network: Network, directory: Path, seed: int = 5) -> None:
        self.network = network
        self._path = directory / "tula.yaml"
        self._drawn = random.Random(seed)
        self._servers: dict[str, Process] = {}
        self.away: dict[str, list[Away]] = {host.name: [] for host in network.backends}
        self._mortal = [name for name in self.away if name not in STAYING]
        self._listed = dict(backends_of(*network.backends))
        self._unlisted: dict[str, Any] = {}
        self._second = False
        self._drained: set[str] = set()
        self.done: dict[str, int] = {}
        self.kills = 0
        self.began = time.monotonic()
        for name in self.away:
            self._serve(name)
        self.write()
        self.daemon = Running(network.lb, self._path, "--watch", "--interval", "1h")

    # What is there

    def _serve(self, name: str) -> None:
        program = [sys.executable, churn_load.__file__, "serve", name, str(PORT)]
        host = self.network.backend(name)
        server = host.popen([*program, *self.network.vips], stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        self._servers[name] = server

    def write(self) -> None:
        """The configuration as it is now, in place of the old one at once."""
        web = service_of(
            self.network,
            protocol=["tcp", "udp"],
            ports=[PORT],
            backends=self._listed,
            health=HEALTH["tcp"],
        )
        services = {"web": web}
        if self._second:
            services["second"] = {**web, "ports": [PORT + 1]}
            del services["second"]["health"]
        aside = write_config(self._path.with_suffix(".new"), services, maglev={"slots": 2039})
        aside.replace(self._path)

    def _open(self, name: str) -> Away | None:
        found = self.away[name]
        return found[-1] if found and found[-1].end == FOREVER else None

    def stayed(self, name: str, start: float, end: float) -> bool:
        """Whether the backend was in service all the time between."""
        return all(a.end < start or a.start > end for a in self.away[name])

    def gone(self, name: str, at: float) -> bool:
        """Whether nothing may have been sent to it then."""
        return any(a.out < at < a.returning for a in self.away[name])

    def failing(self, start: float, end: float) -> bool:
        """Whether some backend was dead, or going or coming, and not known as such, between."""
        everyone = [a for each in self.away.values() for a in each]
        return any(
            (a.start <= end and start <= a.out) or (a.returning <= end and start <= a.end)
            for a in everyone
        )

    # What happens

    def step(self) -> None:
        """One change, and those whose time has come."""
        self._see_returned()
        kinds = {
            "die": self._die,
            "revive": self._revive,
            "drain": self._drain,
            "undrain": self._undrain,
            "disable": self._disable,
            "enable": self._enable,
            "weight": self._weigh,
            "unlist": self._unlist,
            "list": self._list,
            "service": self._other_service,
        }
        kind = self._drawn.choice(list(kinds))
        if kinds[kind]():
            self.done[kind] = self.done.get(kind, 0) + 1

    def kill_and_restart(self) -> None:
        """SIGKILL, half of the time in the middle of a change."""
        if self._drawn.random() < 0.5:
            name = self._drawn.choice(STAYING)
            weight = self._drawn.choice([50, 100, 200])
            asking = threading.Thread(target=self._try_weight, args=(name, weight))
            asking.start()
            time.sleep(self._drawn.random() * 0.03)
            self.daemon.kill()
            asking.join()
        else:
            self._second = not self._second
            self.write()
            time.sleep(self._drawn.random() * 1.2)
            self.daemon.kill()
        self.kills += 1
        time.sleep(self._drawn.random())
        self.daemon.start()

    def _try_weight(self, name: str, weight: int) -> None:
        with suppress(DaemonError, NoDaemonError, AssertionError):
            self._say(name, "weight", {"weight": weight}, "PUT")

    def _say(self, name: str, verb: str, body: Any = None, method: str = "POST") -> None:
        self.daemon.client().send(
            method,
            backend_path("web", name, verb)
            + ("?force=true" if verb in ("drain", "disable", "weight") else ""),
            body,
        )

    def _pick(self, names: list[str]) -> str:
        return self._drawn.choice(names) if names else ""

    def _die(self) -> bool:
        dead = [n for n in self._mortal if self._open(n)]
        name = self._pick([n for n in self._mortal if n not in dead and n in self._listed])
        if not name or len(dead) >= 2:
            return False
        host = self.network.backend(name)
        how = self._drawn.choice(["server", "vip", "cable"])
        self.away[name].append(Away(how, time.monotonic() - _UNDER_WAY))
        if how == "server":
            self._servers[name].kill()
            self._servers[name].wait(60)
        elif how == "vip":
            host.remove_address("lo", *(f"{v}/{_length(v)}" for v in self.network.vips))
        else:
            host.set_cable("eth0", plugged=False)
        return True

    def _revive(self) -> bool:
        name = self._pick([n for n in self._mortal if self._is(n, "server", "vip", "cable")])
        away = self._open(name) if name else None
        if away is None or away.returning != FOREVER:
            return False
        host = self.network.backend(name)
        away.returning = time.monotonic()
        if away.why == "server":
            self._serve(name)
        elif away.why == "vip":
            host.add_address("lo", *(f"{v}/{_length(v)}" for v in self.network.vips))
        else:
            host.set_cable("eth0", plugged=True)
        return True

    def _see_returned(self) -> None:
        """Those that came back to life are in service once the daemon has seen it."""
        states = self.daemon.states()
        now = time.monotonic()
        for name in self._mortal:
            away = self._open(name)
            state = states.get(f"web/{name}")
            if (
                away is not None
                and away.why in ("server", "vip", "cable")
                and now > away.returning + 3.0  # whatever is under way then was asked after it
                and state in ("up", "draining")
            ):
                away.end = now

    def _is(self, name: str, *whys: str) -> bool:
        away = self._open(name)
        return away is not None and away.why in whys

    def _drain(self) -> bool:
        name = self._pick([n for n in self._listed if n not in self._drained])
        if not name or len(self._drained) >= 2:
            return False
        self._say(name, "drain")
        self._drained.add(name)
        return True

    def _undrain(self) -> bool:
        name = self._pick(sorted(n for n in self._drained if n in self._listed))
        if not name:
            return False
        self._say(name, "undrain")
        self._drained.discard(name)
        return True

    def _disable(self) -> bool:
        return self._take(self._listed, "disabled", lambda name: self._say(name, "disable"))

    def _enable(self) -> bool:
        return self._give("disabled", lambda name: self._say(name, "enable"))

    def _take(self, names: Any, why: str, act: Callable[[str], None]) -> bool:
        away = [n for n in self._mortal if self._open(n)]
        name = self._pick([n for n in self._mortal if n not in away and n in names])
        if not name or len(away) >= 3:
            return False
        self.away[name].append(Away(why, time.monotonic()))
        act(name)
        self.away[name][-1].out = time.monotonic()
        return True

    def _give(self, why: str, act: Callable[[str], None]) -> bool:
        name = self._pick([n for n in self._mortal if self._is(n, why)])
        if not name:
            return False
        away = self.away[name][-1]
        away.returning = time.monotonic()
        act(name)
        away.end = time.monotonic()
        return True

    def _weigh(self) -> bool:
        name = self._pick(list(self._listed))
        weight = self._drawn.choice([None, 1, 50, 200])
        self._say(name, "weight", {"weight": weight}, "PUT")
        return True

    def _unlist(self) -> bool:
        def remove(name: str) -> None:
            self._unlisted[name] = self._listed.pop(name)
            self._drained.discard(name)  # what was said of it is forgotten
            self._reload()

        return self._take(self._listed, "unlisted", remove)

    def _list(self) -> bool:
        def add(name: str) -> None:
            self._listed[name] = self._unlisted.pop(name)
            self._reload()

        return self._give("unlisted", add)

    def _other_service(self) -> bool:
        self._second = not self._second
        self._reload()
        return True

    def _reload(self) -> None:
        """By the file alone half of the time: this daemon follows it."""
        self.write()
        if self._drawn.random() < 0.5:
            self.daemon.client().send("POST", "/reload?yes=true")
            return
        wanted = set(self._listed)

        def taken() -> bool:
            services = {s["name"]: s["backends"] for s in self.daemon.status()["services"]}
            listed = {b["name"] for b in services["web"]}
            return listed == wanted and ("second" in services) == self._second

        wait_until(taken, 30.0, "the configuration")

    # What came of it

    def tell(self, name: str) -> list[str]:
        """When a backend was away, in seconds since the start."""
        times = ((a.start, a.out, a.returning, a.end) for a in self.away[name])
        whys = [a.why for a in self.away[name]]
        shown = [" ".join(f"{t - self.began:.2f}" for t in each) for each in times]
        return [f"{why}: {text}" for why, text in zip(whys, shown, strict=True)]

    def read_log(self) -> list[str]:
        """Has the log say when the dead were out; returns who was said to be dead and lived."""
        shift = time.monotonic() - time.time()
        wrong = []
        for when, name in re.findall(
            r"timestamp=(\S+)Z .*event=backend-down subject=web/(\S+)", self.daemon.log
        ):
            at = datetime.fromisoformat(when + "+00:00").timestamp() + shift
            inside = [a for a in self.away[name] if a.start <= at <= a.end]
            for away in inside:
                if away.why in ("server", "vip", "cable"):
                    away.out = min(away.out, at)
            if not inside:
                wrong.append(f"{name} at {at - self.began:.1f} s")
        return wrong


def _length(address: str) -> int:
    return 128 if ":" in address else 32
