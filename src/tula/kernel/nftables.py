"""Tula's table in the kernel: read over netlink, changed by nft in one transaction."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

from tula.dataplane.nft.codec import decode_element
from tula.dataplane.nft.ruleset import (
    TABLE,
    Chain,
    Count,
    Elements,
    Key,
    MapName,
    Rule,
    Ruleset,
)
from tula.dataplane.nft.transaction import Transaction, render_transaction
from tula.kernel.nfnetlink import InterruptedDumpError, NfReader

_T = TypeVar("_T")
_TRIES = 5


class KernelError(Exception):
    """The kernel, or a tool that speaks to it, refused; nothing of the step was done."""


class Nftables(Protocol):
    """Tula's table; the fake and the kernel pass the same contract suite."""

    def exists(self) -> bool:
        """Whether the table is there. Raises KernelError."""

    def observe(self) -> Ruleset | None:
        """What the table holds; None when there is no table. Raises KernelError."""

    def counts(self) -> dict[str, dict[Key, Count]]:
        """What each counting map's elements counted, by the map's name. Raises KernelError."""

    def named_counts(self) -> dict[str, Count]:
        """What the named counters counted. Raises KernelError."""

    def entries(self) -> dict[str, int | None]:
        """How many elements each map holds; None where the kernel does not tell."""

    def mark_of(self, name: MapName, key: bytes) -> int | None:
        """The backend id that a map filled by packets holds for a key. Raises KernelError."""

    def run(self, transaction: Transaction) -> None:
        """Makes all of the steps, or none of them and raises KernelError."""


class KernelNftables:
    """The table of the network namespace that the calling thread is in."""

    def __init__(self) -> None:
        # Debian keeps nft in /usr/sbin, which is not on everyone's path.
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        self._nft = shutil.which("nft", path=path) or "nft"

    def exists(self) -> bool:
        return self._read(lambda reader: reader.has_table(TABLE))

    def observe(self) -> Ruleset | None:
        return self._read(_observe)

    def counts(self) -> dict[str, dict[Key, Count]]:
        return self._read(_counts)

    def named_counts(self) -> dict[str, Count]:
        return self._read(lambda reader: reader.counters(TABLE))

    def entries(self) -> dict[str, int | None]:
        return self._read(lambda reader: reader.entries(TABLE))

    def mark_of(self, name: MapName, key: bytes) -> int | None:
        raw = self._read(lambda reader: reader.element(TABLE, str(name), key))
        return (
            int.from_bytes(raw.data, sys.byteorder) if raw and isinstance(raw.data, bytes) else None
        )

    def run(self, transaction: Transaction) -> None:
        if not transaction:
            return
        # nft in a process of its own: a crash of its library is an error here, not the end.
        try:
            # A file in memory, not a pipe: were this process killed while it writes, nft would
            # take the part that it got for the whole.
            with os.fdopen(os.memfd_create("tula.nft"), "w") as text:
                text.write(render_transaction(transaction))
                text.flush()
                text.seek(0)
                done = subprocess.run(
                    [self._nft, "-f", "-"],
                    stdin=text,
                    capture_output=True,
                    text=True,
                    check=False,
                    # The lock of the state directory goes along: while nft still works, nobody
                    # else may compare and change, even when this process is gone.
                    close_fds=False,
                )
        except OSError as error:
            raise KernelError(
                f"cannot run {self._nft} ({error.strerror}); install nftables"
            ) from error
        if done.returncode < 0:
            raise KernelError(f"nft was ended by signal {-done.returncode}")
        if done.returncode:
            raise KernelError(f"nft refused the change: {_first_error(done.stderr)}")

    def _read(self, read: Callable[[NfReader], _T]) -> _T:
        for _ in range(_TRIES):
            try:
                with NfReader() as reader:
                    return read(reader)
            except InterruptedDumpError:
                continue
            except FileNotFoundError:
                continue  # a set went between its name and its elements
            except OSError as error:
                raise KernelError(f"cannot read nftables: {error.strerror}") from error
        raise KernelError("the nftables table changes too fast to be read; try again")


def _observe(reader: NfReader) -> Ruleset | None:
    if not reader.has_table(TABLE):
        return None
    devices = reader.chains(TABLE)
    comments = reader.rule_comments(TABLE)
    maps: dict[str, Elements] = {name: _elements(reader, name) for name in reader.sets(TABLE)}
    return Ruleset(
        maps=maps,
        chains={
            name: Chain(tuple(Rule(comment) for comment in comments.get(name, [])), device)
            for name, device in devices.items()
        },
        counters=frozenset(reader.counters(TABLE)),
    )


def _elements(reader: NfReader, name: str) -> Elements:
    parsed = MapName.parse(name)
    if parsed is None:
        return {}  # none of Tula's: it will go, whatever it holds
    if parsed.kind.dynamic:
        return {}  # filled by packets; a large one takes the kernel minutes to tell
    if parsed.kind.numbered:
        return cast(Elements, reader.number_pairs(TABLE, name))
    return dict(decode_element(parsed.kind, raw) for raw in reader.elements(TABLE, name))


def _counts(reader: NfReader) -> dict[str, dict[Key, Count]]:
    found: dict[str, dict[Key, Count]] = {}
    if not reader.has_table(TABLE):
        return found
    for name in reader.sets(TABLE):
        parsed = MapName.parse(name)
        if parsed is None or not parsed.kind.counts:
            continue
        found[name] = {
            decode_element(parsed.kind, raw)[0]: raw.count or Count()
            for raw in reader.elements(TABLE, name)
        }
    return found


def _first_error(stderr: str, limit: int = 300) -> str:
    """nft's first error; it quotes whole lines, which may be megabytes of elements."""
    lines = stderr.strip().splitlines() or ["no reason given"]
    line = next((line for line in lines if "Error:" in line), lines[0])
    text = line.partition("Error:")[2].strip() or line
    return text if len(text) <= limit else text[:limit] + " ..."
