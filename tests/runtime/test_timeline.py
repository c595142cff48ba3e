"""The timeline: many simulators, one order of time; ties, silence, checkpoints between two events of one moment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_maker.core.events import BookSnapshot, OrderAccepted, Tick
from llm_maker.core.values import NS_PER_MS
from llm_maker.runtime.timeline import TICK_NS, Ticker, Timeline


class Source:
    """Says one acceptance per moment given, named after itself."""

    def __init__(self, name, moments):
        self.name, self.moments = name, sorted(moments)

    def observe(self, now, event):
        pass

    def execute(self, now, command):
        pass

    def next_ns(self):
        return self.moments[0] if self.moments else None

    def advance(self, now):
        due = [m for m in self.moments if m <= now]
        self.moments = self.moments[len(due) :]
        return [OrderAccepted(self.name, str(m)) for m in due]

    def checkpoint(self):
        return f"[{','.join(map(str, self.moments))}]".encode()

    def restore(self, saved):
        self.moments = [int(m) for m in saved.decode().strip("[]").split(",") if m]


def drain(timeline):
    return list(iter(timeline.pop, None))


@given(st.lists(st.lists(st.integers(0, 20), max_size=8), min_size=1, max_size=4))
def test_everything_comes_once_in_order_and_the_first_named_first(moments):
    timeline = Timeline([(name, Source(name, times)) for name, times in zip("abcd", moments, strict=False)])
    told = [(ts, event.order_id) for ts, _, event in drain(timeline)]
    assert told == sorted((ts, name) for name, times in zip("abcd", moments, strict=False) for ts in times)
    assert timeline.next_ns() is None and timeline.idle


def test_the_account_of_a_source_goes_with_its_events():
    timeline = Timeline([("", Source("feed", [1])), ("main", Source("paper", [1])), ("second", Source("paper", [2]))])
    assert [account for _, account, _ in drain(timeline)] == ["", "main", "second"]


def test_peek_takes_nothing():
    timeline = Timeline([("", Source("a", [3, 4]))])
    assert timeline.peek() == timeline.peek() == (3, "", OrderAccepted("a", "3"))
    assert timeline.next_ns() == 3
    assert [ts for ts, _, _ in drain(timeline)] == [3, 4]


def test_no_source_is_asked_beyond_the_limit():
    late = Source("b", [9])
    timeline = Timeline([("", Source("a", [3])), ("", late)])
    assert timeline.pop(5)[0] == 3
    assert timeline.pop(5) is None and timeline.peek(8) is None and late.moments == [9]
    assert timeline.pop(9)[0] == 9


def test_ticks_come_every_quarter_second_and_go_on_after_a_checkpoint():
    ticker = Ticker(1_000)
    assert [ticker.next_ns(), ticker.advance(ticker.next_ns()), ticker.advance(1_000)] == [1_000 + TICK_NS, [Tick()], []]
    again = Ticker(0)
    again.restore(ticker.checkpoint())
    assert again.next_ns() == 1_000 + 2 * TICK_NS and TICK_NS == 250 * NS_PER_MS


class Mute(Source):
    """Always due, never a word: a broken simulator."""

    def next_ns(self):
        return 1

    def advance(self, now):
        return []


def test_a_source_that_is_due_for_ever_and_says_nothing_is_a_bug():
    with pytest.raises(AssertionError, match="again and again"):
        Timeline([("", Mute("mute", []))]).pop()


def test_feeds_have_ended_when_only_ticks_and_accounts_go_on():
    timeline = Timeline([("", Source("feed", [1])), ("main", Source("paper", [1, 5])), ("", Ticker(0))])
    assert not timeline.feeds_ended()
    timeline.pop()
    assert timeline.feeds_ended()
    timeline.peek()
    assert not timeline.feeds_ended(), "what was taken is still to be handed on"


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 12))
def test_a_checkpoint_between_any_two_events_loses_and_repeats_none(moments, taken):
    def build(times):
        return Timeline([("", Source("feed", times)), ("main", Source("paper", times[::2]))])

    whole, timeline = drain(build(moments)), build(moments)
    before = [item for item in (timeline.pop() for _ in range(taken)) if item is not None]
    timeline.peek()
    again = build([])
    assert again.restore(timeline.checkpoint()) == []
    assert before + drain(again) == whole


def test_events_wait_whole_in_a_checkpoint():
    snapshot = BookSnapshot("m", ((5000, 10),), ((5100, 10),), 7)

    class Feed(Source):
        def advance(self, now):
            return [snapshot, snapshot] if super().advance(now) else []

    timeline = Timeline([("", Feed("feed", [2]))])
    timeline.pop()
    again = Timeline([("", Feed("feed", []))])
    again.restore(timeline.checkpoint())
    assert again.pop() == (2, "", snapshot) and again.pop() is None


def test_only_what_may_change_may_change():
    def build(*names):
        return Timeline([("main", Source(name, [])) for name in names])

    saved = build("paper", "llm").checkpoint()
    assert build("paper").restore(saved, may_change=("llm",)) == []
    joined = build("paper", "llm").restore(build("paper").checkpoint(), may_change=("llm",))
    assert [source.name for source in joined] == ["llm"]
    for names in (("paper",), ("llm",), ("paper", "llm", "more")):
        with pytest.raises(ValueError, match="the checkpoint holds main/llm, main/paper; this configuration has"):
            build(*names).restore(saved, may_change=("more",) if "more" not in names else ())
