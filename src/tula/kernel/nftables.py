"""Tula's table in the kernel: read over netlink, changed in one transaction.

A transaction of elements or removals alone goes over netlink, any other through nft.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import IO, Protocol, TypeVar

from tula.dataplane.nft.codec import RawElement
from tula.dataplane.nft.ruleset import (
    TABLE,
    Key,
    MapName,
    Ruleset,
)
from tula.dataplane.nft.schema import is_schema
from tula.dataplane.nft.transaction import Transaction, render_transaction
from tula.kernel.netlink import InterruptedDumpError
from tula.kernel.nft_counts import HeldConnections, read_connections
from tula.kernel.nft_reader import NETDEV, NftReader
from tula.kernel.nft_socket import RefusedError
from tula.kernel.nft_table import (
    read_admitted,
    read_counts,
    read_entries,
    read_entries_of,
    read_refusals,
    read_ruleset,
)
from tula.kernel.nft_writer import NftWriter, fits_batch
from tula.model.errors import KernelError, StaleError
from tula.model.stats import Count

_T = TypeVar("_T")
_TRIES = 5
_INET = 1
"""NFPROTO_INET."""

NFT_TIMEOUT = 120.0
"""Seconds: the first apply of 10,000 services takes more than ten, on a busy machine a minute."""
_KILLED = 5.0
"""Seconds in which a program that was killed is gone, unless the kernel holds it."""


def next_generation(generation: int) -> int:
    """The number after it: 32 bits, and never 0 (nf_tables_commit)."""
    return (generation + 1) & 0xFFFFFFFF or 1


class Nftables(Protocol):
    """Tula's table; the fake and the kernel pass the same contract suite."""

    def exists(self) -> bool:
        """Whether the table is there. Raises KernelError."""

    def observe(self) -> Ruleset | None:
        """What the table holds, and what its elements counted; None when there is no table.

        Raises KernelError, and NewerTableError before anything else of it is read.
        """

    def counts(self) -> dict[str, dict[Key, Count]]:
        """The counts of all counting maps' elements, by the map's name.

        Raises KernelError, and NewerTableError as ``observe``.
        """

    def counts_of(self, name: MapName, marks: Sequence[int]) -> dict[int, Count]:
        """The counts of some elements of a counting map. Raises KernelError.

        At the first that is not there the kernel stops: no further one is in the result.
        """

    def admitted(self) -> tuple[str, ...] | None:
        """The digests of the rules of the table ADMISSION, none for a chain that is not Tula's;
        None where that table is not there. Raises KernelError.
        """

    def refusals(self) -> tuple[str, ...] | None:
        """The same for the table REFUSALS. Raises KernelError."""

    def named_counts(self) -> dict[str, Count]:
        """The named counters, without the one that names the schema.

        Raises KernelError.
        """

    def entries(self) -> dict[str, int | None]:
        """How many elements each map of Tula's holds; None where the kernel does not report it.

        Raises KernelError.
        """

    def connections(
        self, limit_seconds: float, empty: Collection[int] = ()
    ) -> HeldConnections | None:
        """How many connections each backend id has; None when counting takes longer. See
        ``DataPath.connections`` for ``empty``, which are backend ids.

        TCP connections whose client has sent neither FIN nor RST, half-open ones included, and UDP
        flows: what a drain waits for. Not those that are closing, which end by themselves within
        a minute of their last packet. Raises KernelError.
        """

    def mark_of(self, name: MapName, key: bytes) -> int | None:
        """The backend id that a map filled by packets has for a key. Raises KernelError."""

    def entry_of(self, name: MapName, key: bytes) -> RawElement | None:
        """What a map filled by packets has for a key. Raises KernelError."""

    def entries_of(self, name: MapName, limit: int) -> list[RawElement]:
        """At most so many entries of a map filled by packets, which may be there or not. The kernel
        is not asked for more: to read all of a large one takes it minutes. Raises KernelError.
        """

    def generation(self) -> int:
        """The number that every change of nftables in this namespace, by anyone, increases.

        Packets that fill maps do not change it. Raises KernelError.
        """

    def run(self, transaction: Transaction, generation: int | None = None) -> int | None:
        """Makes all of the steps, or none of them and raises KernelError.

        With a ``generation``, raises StaleError and changes nothing if it is another by now. One
        change makes it greater by one; an empty transaction is none. Returns the one that it led
        to; None when somebody else made a change meanwhile, which may be before or after it.
        """


class KernelNftables:
    """The table of the network namespace that the calling thread is in."""

    def __init__(self, timeout: float = NFT_TIMEOUT) -> None:
        """``timeout`` is in seconds, for each run of nft."""
        self._timeout = timeout
        # Debian keeps nft in /usr/sbin, which is not on everyone's path.
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        self._nft = shutil.which("nft", path=path) or "nft"
        self._writer = NftWriter()

    def exists(self) -> bool:
        return self._read(lambda reader: reader.has_table(TABLE))

    def observe(self) -> Ruleset | None:
        return self._read(read_ruleset)

    def counts(self) -> dict[str, dict[Key, Count]]:
        return self._read(read_counts)

    def counts_of(self, name: MapName, marks: Sequence[int]) -> dict[int, Count]:
        keys = [mark.to_bytes(4, sys.byteorder) for mark in marks]
        return self._read(
            lambda reader: {
                int.from_bytes(raw.key, sys.byteorder): raw.count or Count()
                for raw in reader.elements_of(TABLE, str(name), keys)
            }
        )

    def admitted(self) -> tuple[str, ...] | None:
        return self._read(read_admitted, _INET)

    def refusals(self) -> tuple[str, ...] | None:
        return self._read(read_refusals, _INET)

    def named_counts(self) -> dict[str, Count]:
        found = self._read(lambda reader: reader.counters(TABLE))
        return {name: count for name, count in found.items() if not is_schema(name)}

    def entries(self) -> dict[str, int | None]:
        return self._read(read_entries)

    def connections(
        self, limit_seconds: float, empty: Collection[int] = ()
    ) -> HeldConnections | None:
        deadline = time.monotonic() + limit_seconds
        return self._read(lambda reader: read_connections(reader, deadline, frozenset(empty)))

    def mark_of(self, name: MapName, key: bytes) -> int | None:
        raw = self._read(lambda reader: reader.element(TABLE, str(name), key))
        return (
            int.from_bytes(raw.data, sys.byteorder) if raw and isinstance(raw.data, bytes) else None
        )

    def entry_of(self, name: MapName, key: bytes) -> RawElement | None:
        return self._read(lambda reader: reader.element(TABLE, str(name), key))

    def entries_of(self, name: MapName, limit: int) -> list[RawElement]:
        return self._read(lambda reader: read_entries_of(reader, str(name), limit))

    def generation(self) -> int:
        try:
            return self._writer.generation()
        except OSError as error:
            raise KernelError(f"cannot read nftables: {error.strerror}") from error

    def run(self, transaction: Transaction, generation: int | None = None) -> int | None:
        if fits_batch(transaction):
            if generation is not None:
                # The kernel itself compares: what it led to need not be asked for.
                self._run_batch(transaction, generation)
                return next_generation(generation) if transaction else generation
            before = self.generation()
            self._run_batch(transaction, 0)
        else:
            # nft takes no generation: who changes something between this and nft's commit shows
            # by the number afterwards.
            before = self.generation()
            if generation is not None and generation != before:
                raise StaleError
            self._run_nft(transaction)
        after = self.generation()
        return after if after == next_generation(before) else None

    def _run_batch(self, transaction: Transaction, generation: int) -> None:
        try:
            self._writer.send(transaction, generation)
        except RefusedError as refused:
            if refused.stale:
                raise StaleError from refused
            raise KernelError(f"the kernel refused the change: {refused}") from refused
        except OSError as error:
            raise KernelError(f"cannot change nftables: {error.strerror}") from error

    def _run_nft(self, transaction: Transaction) -> None:
        # nft in a process of its own: a crash of its library is an error here, not the end.
        try:
            # A file in memory, not a pipe: if this process is killed while it writes, nft would
            # take the part that it has read for the whole.
            with os.fdopen(os.memfd_create("tula.nft"), "w") as text:
                text.write(render_transaction(transaction))
                text.flush()
                text.seek(0)
                status, stderr = self._call_nft(text)
        except OSError as error:
            raise KernelError(
                f"cannot run {self._nft} ({error.strerror}); install nftables"
            ) from error
        if status < 0:
            raise KernelError(f"nft was ended by signal {-status}")
        if status:
            raise KernelError(f"nft refused the change: {_first_error(stderr)}")

    def _call_nft(self, text: IO[str]) -> tuple[int, str]:
        """nft's exit status and its standard error. Raises OSError, and KernelError when it takes
        too long."""
        process = subprocess.Popen(
            [self._nft, "-f", "-"],
            stdin=text,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            # The lock of the state directory goes along: while nft still works, nobody else may
            # compare and change, even when this process is gone.
            close_fds=False,
            # A group of its own, to be killed with whatever it has started.
            start_new_session=True,
        )
        try:
            _, stderr = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            _kill_group(process)
            raise KernelError(
                f"nft took longer than {self._timeout:g} s and was killed; whether its change "
                "was made is not known, so the table must be compared again"
            ) from None
        except BaseException:
            _kill_group(process)
            raise
        return process.returncode, stderr

    def _read(self, read: Callable[[NftReader], _T], family: int = NETDEV) -> _T:
        for _ in range(_TRIES):
            try:
                with NftReader(family) as reader:
                    return read(reader)
            except InterruptedDumpError:
                continue
            except FileNotFoundError:
                continue  # a set went between its name and its elements
            except OSError as error:
                raise KernelError(f"cannot read nftables: {error.strerror}") from error
        raise KernelError("the nftables table changes too fast to be read; try again")


def _kill_group(process: subprocess.Popen[str]) -> None:
    """Kills it with all that it started; one that the kernel does not let go is not waited for."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILLED)
    if process.stderr is not None:
        process.stderr.close()


def _first_error(stderr: str, limit: int = 300) -> str:
    """nft's first error; it quotes whole lines, which may be megabytes of elements."""
    lines = stderr.strip().splitlines() or ["no reason given"]
    line = next((line for line in lines if "Error:" in line), lines[0])
    text = line.partition("Error:")[2].strip() or line
    return text if len(text) <= limit else text[:limit] + " ..."
