"""How a backend counts by what its checks say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tula.model.advice import HEAVIEST, Admin, Advice, GivenWeight
from tula.plan.advice import READY, Standing, standing

HALF = Advice(0, weight=GivenWeight(50, percent=True))
THIRTY = Advice(1, "its agent", weight=GivenWeight(30))
NONE = Advice(0, weight=GivenWeight(0))
GONE = Advice(2, admin=Admin.DRAIN, cause="answered 404")
MAINT = Advice(3, "its agent", admin=Admin.MAINT, cause="says maint")


@pytest.mark.parametrize(
    ("advice", "configured", "overridden", "wanted"),
    [
        ((), 100, None, READY),
        ((HALF,), 200, None, Standing(weight=100, reason="its check says 50%")),
        ((HALF, THIRTY), 100, None, Standing(weight=30, reason="its agent says 30")),
        ((HALF, THIRTY), 40, None, Standing(weight=20, reason="its check says 50%")),
        ((HALF, NONE), 100, None, Standing(weight=0, reason="its check says 0")),
        ((HALF,), 100, 80, Standing(reason="its check says 50%, but the operator 80")),
        ((THIRTY,), 0, None, READY),
        ((GONE, THIRTY), 100, None, Standing(Admin.DRAIN, None, "drains: its check answered 404")),
        ((GONE,), 100, 80, Standing(Admin.DRAIN, None, "drains: its check answered 404")),
        ((GONE, MAINT), 100, None, Standing(Admin.MAINT, None, "its agent says maint")),
    ],
)
def test_the_strictest_counts(
    advice: tuple[Advice, ...], configured: int, overridden: int | None, wanted: Standing
) -> None:
    assert standing(advice, configured, overridden) == wanted


ADVICE = st.builds(
    Advice,
    st.integers(0, 9),
    weight=st.none() | st.builds(GivenWeight, st.integers(0, HEAVIEST), st.booleans()),
    admin=st.sampled_from(Admin),
)


@given(st.lists(ADVICE, max_size=4), st.integers(0, HEAVIEST))
def test_more_checks_never_give_more(advice: list[Advice], configured: int) -> None:
    whole = standing(advice, configured)
    for position in range(len(advice)):
        fewer = standing(advice[:position] + advice[position + 1 :], configured)
        assert whole.serves <= fewer.serves
        if whole.weight is not None and fewer.weight is not None:
            assert 0 <= whole.weight <= fewer.weight <= HEAVIEST
