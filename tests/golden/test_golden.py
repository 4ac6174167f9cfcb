"""Golden rulesets, as text. That the real nft takes them: tests/contract/test_golden_by_nft.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.golden import golden_folders, render_golden


@pytest.mark.parametrize("folder", golden_folders(), ids=lambda folder: folder.name)
def test_the_text_is_the_expected_one(folder: Path, update: bool) -> None:
    _, text = render_golden(folder)
    expected = folder / "expected.nft"
    if update:
        expected.write_text(text)
    assert text == expected.read_text()
