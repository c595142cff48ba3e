"""What waits to be looked at: in the order of its moments, each once, as it was put in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_maker.runtime.due import DueList, Later

LATERS = st.builds(
    Later, st.integers(0, 2**62), st.integers(1, 86_400), st.sampled_from(["0xaa", "0xbb", "", "M"]), st.text(max_size=8)
)


@given(st.lists(LATERS, max_size=40), st.integers(0, 2**62))
def test_all_that_is_due_comes_out_once_and_in_order(laters, now):
    waiting = DueList()
    for later in (*laters, *laters):
        waiting.add(later)
    assert len(waiting) == len(set(laters))
    taken = []
    while (later := waiting.take(now)) is not None:
        taken.append(later)
    assert set(taken) == {later for later in laters if later.due <= now} and len(taken) == len(set(taken))
    assert [later.due for later in taken] == sorted(later.due for later in taken)
    assert len(waiting) == len(set(laters)) - len(taken)
    for later in taken:
        waiting.add(later)
    assert len(waiting) == len(set(laters)), "what was taken out may be put back"
