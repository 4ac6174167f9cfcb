"""Each document of ``tests/bad_documents`` is refused with exactly the lines beside it.

``NNN_a_sentence.expect`` holds a line a problem, ``LINE:COL: path: message``. After a change of
messages, write all of them anew and read the difference as a user would, asking whether the place
is right and the fix is named::

    make golden
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from support.documents import BAD
from tula.config.load import DocumentError, describe, load_document

DOCUMENTS = sorted(BAD.glob("*.yaml"))


@pytest.mark.skipif(not yaml.__with_libyaml__, reason="the words are those of libyaml")
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_refused_with_these_lines(path: Path, update: bool) -> None:
    with pytest.raises(DocumentError) as caught:
        load_document(path)
    error = caught.value
    lines = [describe("", problem, error.positions)[1:] for problem in error.problems]
    expect = path.with_suffix(".expect")
    if update:
        expect.write_text("".join(f"{line}\n" for line in lines))
    assert lines == expect.read_text().splitlines()
    assert all(line.isprintable() for line in lines)
    assert all(len(problem.message) <= 300 for problem in error.problems)
    places = [error.positions.of(p.path, p.on_key) for p in error.problems]
    assert places == sorted(places)


def test_every_expectation_has_its_document() -> None:
    assert len(DOCUMENTS) >= 65
    assert [p.stem for p in DOCUMENTS] == [p.stem for p in sorted(BAD.glob("*.expect"))]
