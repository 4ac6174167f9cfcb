"""How commands scale: time and memory of each, for many services and for many backends.

Runs the real commands in a namespace of the lab and prints a table in Markdown. Backends need
not exist: their addresses are on-link, which is all that apply asks for.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from subjects import tula_of

from tula.lab import Host, Lab


def many_services(changed: bool = False) -> str:
    """5,000 services of one port each, all with the same 4 backends; one changed: one differs."""
    lines = ["interfaces: [eth0]", "services:"]
    for number in range(5000):
        vip = f"10.1.{number // 250}.{number % 250 + 1}"
        lines += [f"  s{number}: &s{number}", f"    vip: {vip}", "    ports: [80]"]
        lines += ["    forwarding: l2", "    announce: false", "    backends:"]
        last = 9 if changed and number == 2500 else 4
        lines += [f"      b{n}: {{address: 10.0.0.{n + 10}}}" for n in (1, 2, 3, last)]
    return "\n".join(lines) + "\n"


def many_backends(changed: bool = False) -> str:
    """10 services with the same 500 backends; changed: one backend of one service is gone."""
    lines = ["interfaces: [eth0]", "services:"]
    for number in range(10):
        lines += [f"  s{number}:", f"    vip: 10.1.0.{number + 1}", "    ports: [80]"]
        lines += ["    forwarding: l2", "    announce: false", "    backends:"]
        count = 499 if changed and number == 5 else 500
        lines += [
            f"      b{n}: {{address: 10.0.{n // 250 + 1}.{n % 250 + 1}}}" for n in range(count)
        ]
    return "\n".join(lines) + "\n"


def distinct_backends(changed: bool = False) -> str:
    """10 services with 500 backends each, all different: 10 tables of 65,537 slots."""
    lines = ["interfaces: [eth0]", "services:"]
    for number in range(10):
        lines += [f"  s{number}:", f"    vip: 10.1.0.{number + 1}", "    ports: [80]"]
        lines += ["    forwarding: l2", "    announce: false", "    backends:"]
        count = 499 if changed and number == 5 else 500
        lines += [
            f"      b{n}: {{address: 10.0.{number * 2 + n // 250 + 1}.{n % 250 + 1}}}"
            for n in range(count)
        ]
    return "\n".join(lines) + "\n"


def measured(host: Host, environment: dict[str, str], *arguments: str) -> tuple[float, int]:
    """Runs a command; its wall time in seconds, and the peak memory of it and what it started."""
    program = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\n"
        "sys.exit(done.returncode)\n"
    )
    start = time.perf_counter()
    done = host.run(
        [sys.executable, "-c", program, sys.executable, "-m", "tula", *arguments],
        env=environment,
        timeout=600,
    )
    return time.perf_counter() - start, int(done.stdout)


def measure(first: Path, second: Path, checkout: Path | None) -> list[tuple[float, int]]:
    """Every command once, in a namespace of its own."""
    with Lab() as lab:
        host = lab.host("lb", lab.switch("switch"), "10.0.0.2/8")
        environment = tula_of(checkout, host.environment())
        return [
            measured(host, environment, "check", "-f", str(first)),
            measured(host, environment, "plan", "-f", str(first)),
            measured(host, environment, "apply", "-f", str(first)),
            measured(host, environment, "apply", "-f", str(first)),
            measured(host, environment, "apply", "-f", str(second)),
            measured(host, environment, "status"),
            measured(host, environment, "clear"),
        ]


def cells(rounds: list[list[tuple[float, int]]]) -> list[str]:
    """The least time and memory of each command: what disturbs the machine only adds."""
    return [
        f"{min(seconds for seconds, _ in found):.1f} s, {min(size for _, size in found)} MiB"
        for found in zip(*rounds, strict=True)
    ]


def main() -> None:
    """Measures and prints. With ``--beside``, the commands of another checkout in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT")
    parsed = parser.parse_args()
    subjects = [None] + ([parsed.beside] if parsed.beside else [])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (
            ("5,000 services, the same 4 backends", many_services),
            ("10 services, the same 500 backends", many_backends),
            ("10 services, 500 backends each", distinct_backends),
        ):
            first, second = Path(folder, "first.yaml"), Path(folder, "second.yaml")
            first.write_text(make())
            second.write_text(make(changed=True))
            found: dict[Path | None, list[list[tuple[float, int]]]] = {s: [] for s in subjects}
            for _ in range(parsed.rounds):
                for subject in subjects:
                    found[subject].append(measure(first, second, subject))
            for subject, rounds in found.items():
                shown = name if subject is None else f"{name}, {subject.name}"
                rows.append(f"| {shown} | " + " | ".join(cells(rounds)) + " |")
    commands = ["check", "plan", "apply", "apply, no change", "apply, one backend", "status"]
    print("| | " + " | ".join([*commands, "clear"]) + " |")
    print("|---" * 8 + "|")
    print("\n".join(rows))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"\nWall time and peak memory of a command with what it starts (nft); lab: {own} MiB.")


if __name__ == "__main__":
    main()
