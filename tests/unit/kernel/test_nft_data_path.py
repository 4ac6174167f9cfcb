"""Whose a revision is: a foreign change during Tula's own is not taken for a part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.builders import FakeMachine, make_backend, make_config, make_service
from tula.dataplane.nft.transaction import AddTable, Transaction
from tula.kernel.nftables import KernelNftables
from tula.model.errors import StaleError
from tula.model.health import Standing, State

WEB = make_config(make_service("web", backends=[make_backend(0), make_backend(1)]))


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path, WEB)


def test_nothing_goes_by_a_receipt_after_a_foreign_change_during_a_commit(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = machine.nftables.run

    def interrupted(transaction: Transaction, generation: int | None = None) -> int | None:
        run(transaction, generation)
        machine.nftables.meddle(None)  # "nft flush ruleset" between the commit and its reading
        return None

    monkeypatch.setattr(machine.nftables, "run", interrupted)
    standings = machine.balancer.without_monitors(WEB)
    machine.balancer.reconcile(WEB, standings)
    monkeypatch.undo()
    applied = machine.balancer.applied
    assert applied is not None
    assert applied.receipt.revision is None
    assert applied.receipt.own == frozenset(), "so the daemon takes what it hears for foreign"
    with pytest.raises(StaleError):
        machine.balancer.adjust({("web", "b0"): Standing(State.DOWN, 0, False)})
    assert machine.balancer.reconcile(WEB, standings).change
    assert machine.nftables.table is not None


class _Kernel(KernelNftables):
    """Generations as a test has them, and an nft that does nothing."""

    def __init__(self, generations: list[int]) -> None:
        super().__init__()
        self.generations = generations

    def generation(self) -> int:
        return self.generations.pop(0)

    def _run_nft(self, transaction: Transaction) -> None:
        pass


@pytest.mark.parametrize(
    ("generations", "led_to"),
    [([7, 8], 8), ([7, 9], None), ([7, 7], None), ([0xFFFFFFFF, 1], 1)],
)
def test_nft_made_the_generation_only_if_nobody_else_made_one(
    generations: list[int], led_to: int | None
) -> None:
    assert _Kernel(generations).run((AddTable(),)) == led_to
