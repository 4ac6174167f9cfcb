"""docs/doctor.md lists every finding that the doctor can report."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_finding_has_a_line() -> None:
    plan = ROOT / "src/tula/plan"
    files = [
        *(ROOT / "src/tula/doctor").glob("*.py"),
        *(plan / "cautions.py", plan / "balancer_cautions.py"),
    ]
    source = "".join(path.read_text() for path in files)
    made = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', source))
    made.discard("tula-sync")  # a device
    text = (ROOT / "docs/doctor.md").read_text().partition("## Findings")[2]
    listed = {name for row in re.findall(r"^\| (`.*?) \|", text, re.M) for name in row.split(", ")}
    names = {name.strip("`") for name in listed}
    assert made | {"drift", "firewall"} <= names
