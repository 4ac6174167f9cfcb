"""Do notifications delay a failover? From a verdict to the kernel, with receivers and without.

::

    lb ═══ four hosts, each with all VIPs on lo and every fourth backend

Services of four backends; five are checked every 100 ms, and their first backend refuses and serves
again in turn. Rounds without ``notify`` alternate with rounds in which one receiver is dead, one
answers nothing, one never ends, and one takes what it gets. The times are the daemon's own
(tula_reaction_seconds). At the end, what was told is compared with what happened.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from failover import _FAST, _HOSTS, _reactions, _row, configuration, vip
from health import _prepare
from probes import Daemon, answering

from tula.lab import Host, Lab, wait_until


def receivers(folder: Path, told: Path) -> list[dict[str, Any]]:
    """A dead one, a mute one, one that never ends, and a good one; often, to make it worse."""
    program = folder / "append"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nopen({str(told)!r}, 'a').write(sys.stdin.read())\n"
    )
    program.chmod(0o755)
    often = {"group_wait": "500ms", "group_interval": "1s"}
    return [
        {"webhook": "http://127.0.0.1:9/", **often},
        {"webhook": "http://127.0.0.1:8099/", **often},
        {"exec": ["/bin/sleep", "1000"], **often},
        {"exec": [str(program)], "events": ["backends"], **often},
    ]


def measure(services: int, rounds: int, events: int) -> tuple[list[float], list[float], str]:
    """Seconds from a verdict to the kernel, without receivers and with them; and what was told."""
    found: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as name, Lab() as lab:
        folder = Path(name)
        told = folder / "told"
        told.touch()
        switch = lab.switch("switch")
        lb = lab.host("lb", switch, "10.0.0.2/8")
        hosts = [lab.host(f"h{n}", switch, f"10.0.0.{n + 3}/8") for n in range(_HOSTS)]
        for number, host in enumerate(hosts):
            _prepare(lb, host, [f"10.0.1.{number + 1}"], [vip(n) for n in range(services)])
            answering(host)
        hosts[0].run(
            ["nft", "-f", "-"],
            input="table ip no {\nset down { type ipv4_addr; }\nchain in {\n"
            "type filter hook input priority 0;\n"
            "ip daddr @down tcp flags syn reject with tcp reset\n}\n}\n",
        )
        mute = lb.socket(socket.AF_INET, socket.SOCK_STREAM)
        mute.bind(("127.0.0.1", 8099))
        mute.listen(64)
        happened = 0
        for number in range(2 * rounds):
            made = configuration(services, "10.0.1.", _FAST)
            if number % 2:
                made["notify"] = receivers(folder, told)
            happened += _round(lb, hosts, made, folder, events, found[number % 2])
        mute.close()
        return *found, _compare(told, happened)


def _round(
    lb: Host,
    hosts: list[Host],
    made: dict[str, Any],
    folder: Path,
    events: int,
    found: list[float],
) -> int:
    """One daemon's life; how many changes it told of, if it told."""
    daemon = Daemon(lb, made, folder)
    try:
        # What was accepted before runs, not the file.
        daemon.client.apply(yaml.safe_dump(made).encode(), force=True, yes=True)
        up = len(made["services"]) * _HOSTS
        wait_until(lambda: daemon.figures().up == up, 120.0, "all up")
        found.extend(_reactions(daemon, hosts[0], events))
        wait_until(lambda: daemon.figures().up == up, 120.0, "all up again")
        if "notify" not in made:
            return 0
        good = _last(daemon)
        wait_until(lambda: not _last(daemon)["waiting"] + _last(daemon)["held"], 60.0, "all told")
        good = _last(daemon)
        print(f"messages {good['sent']}, events {good['events']}", flush=True)
        flips = ("backend-up", "backend-down")
        told = daemon.client.get("/events", limit=1000)["events"]
        started = [e["number"] for e in told if e["kind"] == "daemon-started"][-1]
        return sum(
            e["kind"] in flips and e["number"] > started and "was unknown" not in e["message"]
            for e in told
        )
    finally:
        daemon.stop()


def _last(daemon: Daemon) -> dict[str, Any]:
    return dict(daemon.client.get("/status")["notify"][-1])


def _compare(told: Path, happened: int) -> str:
    messages = [json.loads(line) for line in told.read_text().splitlines()]
    counted = sum(c["began"] + c["ended"] for m in messages for c in m["changes"])
    return f"{happened} changes happened, {counted} were told in {len(messages)} messages"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=4, help="of each half")
    parser.add_argument("--events", type=int, default=126, help="in each round")
    parser.add_argument("--services", type=int, default=100)
    given = parser.parse_args()
    without, beside, told = measure(given.services, given.rounds, given.events)
    print("| from a verdict to the kernel | events | median | 90 % | 99 % | worst |")
    print("|---" * 6 + "|")
    print(_row("without `notify`", without))
    print(_row("four receivers, three of them bad", beside))
    ratio = statistics.median(beside) / statistics.median(without)
    print(f"\nmedian × {ratio:.2f}; {told}")


if __name__ == "__main__":
    main()
