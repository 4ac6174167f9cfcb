"""Packets a second of Tula, of its peer and of kernel routing, on one CPU.

    .venv/bin/python bench/packets.py [--rounds N] [--quick] [--shape FILE.nft ...]

Needs root, nftables, curl and nftlb (``get-nftlb``). Everything happens in namespaces of the lab.
Subjects are measured in turn, slice of 50 ms by slice, there and back, so that what disturbs the
machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from generator import Traffic
from report import Case, Found, Results, as_json, markdown, svg
from rig import Core, Rig, rig
from subjects import Alone, FullTula, Nftlb, Routing, Shape, Subject, Tula

_SLICE = 0.05
"""Seconds of one run of frames."""
_PROBE = 20_000


def measure_case(
    core: Core, case: Case, subjects: Sequence[Subject], rounds: int, slices: int
) -> dict[str, Found]:
    """All subjects of one case, in turn."""
    found = {subject.name: Found(subject.name) for subject in subjects}
    with ExitStack() as stack:
        rigs: dict[str, Rig] = {}
        counts: dict[str, int] = {}
        for subject in subjects:
            start = time.monotonic()
            made = stack.enter_context(rig(case.traffic, case.backends, alone=subject.alone))
            subject.prepare(made)
            rigs[subject.name] = made
            # Every flow some ten times: caches, and tables that learn, are warm.
            warm = max(_PROBE, 10 * case.traffic.flows)
            sent = core.run(lambda made=made, warm=warm: made.send(warm))  # type: ignore[misc]
            counts[subject.name] = int(_SLICE * 1e9 / max(sent.nanoseconds, 1))
            taken = time.monotonic() - start
            _say(f"  {subject.name}: ready in {taken:.1f} s, {sent.nanoseconds} ns a packet")
        for number in range(rounds):
            for slice_number in range(slices):
                # There and back: a drift within a pass then favours no subject.
                back = slice_number % 2 == 1
                _measure_pass(core, rigs, counts, found, max(_PROBE, case.traffic.flows), back=back)
            last = ", ".join(
                f"{one.subject} {median(one.slices[-slices:]):.0f}" for one in found.values()
            )
            _say(f"  round {number + 1}: {last}")
    return found


def _measure_pass(
    core: Core,
    rigs: dict[str, Rig],
    counts: dict[str, int],
    found: dict[str, Found],
    warm: int,
    *,
    back: bool,
) -> None:
    """One slice of each subject, the last one first on the way back; each first sends ``warm``."""
    for name in reversed(rigs) if back else rigs:
        send, one = rigs[name].send, found[name]
        # The subject before has filled the CPU's caches with its own.
        core.run(lambda send=send: send(warm))  # type: ignore[misc]
        sent = core.run(lambda send=send, name=name: send(counts[name]))  # type: ignore[misc]
        one.slices.append(sent.nanoseconds)
        one.sent += counts[name]
        by_backend = sent.arrived[: rigs[name].backends]
        one.arrived += sum(by_backend)
        one.backends = max(one.backends, sum(1 for frames in by_backend if frames))


def _subjects(
    shapes: Sequence[Shape], only: Sequence[str], beside: Sequence[Path]
) -> list[Subject]:
    # What is compared stands side by side: their slices then follow each other.
    commits = (None, *beside)
    tula: list[Subject] = [
        *(Tula("Tula, table off", {"enabled": False}, one) for one in commits),
        *(Tula("Tula, table warm", {}, one) for one in commits),
        *(FullTula("Tula, table full", one) for one in commits),
    ]
    listed: list[Subject] = [Alone(), Routing(), Nftlb(), *tula, *shapes]
    each = {"scheduler": "rr", "udp_scheduling": "packet"}
    named: list[Subject] = [Tula("Tula, each packet", {}, one, each) for one in commits]
    if only:
        listed += named
    return [s for s in listed if not only or isinstance(s, Shape) or s.name in only]


def _cases(arguments: argparse.Namespace) -> list[Case]:
    sizes = [(1000, 1, 10)]
    if not arguments.quick:
        sizes += [(1, 1, 10), (100_000, 1, 10), (1000, 1, 100)]
        sizes += [(1000, 10_000, 10), (100_000, 10_000, 10)]
    if arguments.case:
        sizes = arguments.case
    return [
        Case(Traffic(flows, services, arguments.ip, arguments.protocol), backends)
        for flows, services, backends in sizes
    ]


def _size(text: str) -> tuple[int, int, int]:
    flows, services, backends = map(int, text.split(","))
    return flows, services, backends


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    add = parser.add_argument
    add("--rounds", type=int, default=7, help="rounds over all subjects (default 7)")
    add("--quick", action="store_true", help="one case, three rounds")
    add("--slices", type=int, default=10, help="runs of 50 ms in a measurement (default 10)")
    shape = {"type": Shape.parse, "action": "append", "default": [], "metavar": "FILE[@SLOTS]"}
    add("--shape", **shape, help="a ruleset too, in the notation of template.py")
    beside = {"type": Path, "action": "append", "default": [], "metavar": "CHECKOUT"}
    add("--beside", **beside, help="Tula of another commit too, in the same run")
    add("--only", action="append", default=[], metavar="SUBJECT", help="these (and shapes) only")
    add("--case", type=_size, action="append", metavar="FLOWS,SERVICES,BACKENDS")
    add("--ip", type=int, choices=(4, 6), default=4)
    add("--protocol", choices=("udp", "tcp"), default="udp")
    add("--json", type=Path, metavar="FILE", help="write every slice")
    add("--svg", type=Path, metavar="FILE", help="draw it")
    parsed = parser.parse_args(arguments)
    if parsed.quick:
        parsed.rounds = min(parsed.rounds, 3)
    return parsed


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parsed = _parse(arguments)
    results: Results = {}
    core = Core()
    with core.taken():
        for case in _cases(parsed):
            _say(f"{case}")
            subjects = _subjects(parsed.shape, parsed.only, parsed.beside)
            results[case] = measure_case(core, case, subjects, parsed.rounds, parsed.slices)
    print(markdown(results))
    if parsed.json:
        parsed.json.write_text(as_json(results) + "\n")
    if parsed.svg:
        parsed.svg.write_text(svg(results))


if __name__ == "__main__":
    main()
