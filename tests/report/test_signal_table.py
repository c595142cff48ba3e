"""What following signals would have brought, by hand: cost of the moment, hits of what moved, one voice an event and day."""

import msgspec
import pytest

from llm_maker.core.skill import Forecast
from llm_maker.core.values import NS_PER_S, expit, logit
from llm_maker.report import metrics
from llm_maker.report.paired import DAY_NS
from llm_maker.report.signal_table import HORIZONS, Cost, costs, gain, lines, side_of, signal_table
from llm_maker.report.track import Quoted, Sample, Track

T0 = 20_000 * DAY_NS
FREE = Cost(0.0, 0.0)


def said(p=0.5, *, then=None, n=0, **changes):
    """An opinion at a price of `p`; `then`: seconds -> the price later."""
    base = {
        "ts": T0 + n * NS_PER_S, "decision_id": f"D-{n}", "model": "gpt", "category": "c", "instrument": "m", "event_id": "e",
        "role": "used", "p_yes": 0.6, "confidence": 0.7, "bias": 1, "x_market": logit(p),
        "later": {horizon: logit(price) for horizon, price in (then or {}).items()},
    }  # fmt: skip
    return Forecast(**base | changes)


def cell(groups, heading="all", name="all", horizon="5 min"):
    return next(g for g in groups if (g.heading, g.name) == (heading, name)).cells[horizon]


def test_a_share_costs_half_the_spread_and_the_fee_and_is_marked_at_the_mid():
    """Bought at 0.50 + 0.01 + 0.05 x 0.25 and worth 0.54: 4 - 1 - 1.25 cents. NO bought at the same price: -4 - 1 - 1.25."""
    up = said(then={300: 0.54})
    down = msgspec.structs.replace(up, bias=-1)
    told = Cost(0.01, 0.05)
    assert cell(signal_table([up], lambda f: told)).cents == pytest.approx(1.75)
    assert cell(signal_table([down], lambda f: told)).cents == pytest.approx(-6.25)


def test_at_the_outcome_a_share_is_what_it_paid():
    won, lost, half = (said(0.8, outcome=paid) for paid in (1.0, 0.0, 0.5))
    assert [gain(f, 1, 0) for f in (won, lost, half)] == pytest.approx([0.2, -0.8, -0.3])
    assert gain(said(0.8), 1, 0) is None and gain(said(0.8), -1, 300) is None, "not known is not 0"


def test_the_way_is_the_actions_then_the_bias_then_the_disagreement():
    acted = {"buy_yes": 1, "sell_no": 1, "buy_no": -1, "sell_yes": -1}
    assert {action: side_of(said(bias=-side), action) for action, side in acted.items()} == acted
    assert side_of(said(bias=-1), "hold") == -1 and side_of(said(bias=0, d=-0.2), "hold") == -1
    assert side_of(said(0.7, bias=0, d=None)) == -1, "p_yes 0.6 is below the market"
    assert side_of(said(bias=0, d=0.0)) == 0 and side_of(said(bias=0, d=None, p_yes=None)) == 0


def test_what_did_not_move_is_neither_hit_nor_miss():
    group = [said(then={300: price}, n=n) for n, price in enumerate((0.55, 0.45, 0.5, 0.6))] + [said(n=9)]
    found = cell(signal_table(group, lambda f: FREE))
    assert (found.known, found.moved) == (4, 3) and found.hits == metrics.wilson(2, 3)


def test_signals_on_one_event_on_one_day_are_one_voice():
    """Three on event e gained 1, 1 and 4 cents, one on f lost 2, one on e a day later gained 6: the mean is of 2, -2 and 6."""
    group = [said(then={300: 0.5 + cents / 100}, n=n) for n, cents in enumerate((1, 1, 4))]
    group += [said(then={300: 0.48}, n=5, event_id="f"), said(then={300: 0.56}, n=86_400)]
    found = cell(signal_table(group, lambda f: FREE))
    assert found.event_days == 3 and found.cents == pytest.approx(2.0) and found.limits is None
    many = [said(then={300: 0.5 + n / 1_000}, event_id=f"e{n}") for n in range(12)]
    found = cell(signal_table(many, lambda f: FREE))
    assert found.limits.value == pytest.approx(found.cents) == pytest.approx(0.55)
    assert found.limits.low < 0.55 < found.limits.high


def test_without_a_cost_there_are_hits_and_no_return():
    found = cell(signal_table([said(then={300: 0.54})], lambda f: None))
    assert (found.known, found.cents, found.event_days) == (1, None, 0) and found.hits.value == 1.0
    text = lines(signal_table([said(then={300: 0.54})], lambda f: None))
    assert next(line for line in text if line.startswith("  all")).split()[-2:] == ["n/a", "0"]


def record(samples):
    quoted = Quoted(name="m?", price_scale=10_000, qty_scale=1, payout=10_000, taker_ppm=50_000)
    return Track(
        label={}, start_ns=0, end_ns=0, start_cash=0, equity=0, exit_equity=0, flows={}, counts={}, instruments={"m": quoted},
        samples={"m": [Sample(T0 + s * NS_PER_S, bid, ask, 0, 0, 0, 0.0) for s, bid, ask in samples]},
    )  # fmt: skip


def test_the_cost_is_that_of_the_sample_nearest_in_time():
    cost = costs(record([(0, 4_900, 5_100), (60, 4_800, 5_200), (90, 0, 5_000), (10_000, 4_000, 6_000)]))
    assert cost(said(n=20)) == Cost(0.01, 0.05) and cost(said(n=50)) == Cost(0.02, 0.05)
    assert cost(said(n=88)) == Cost(0.02, 0.05), "a one-sided book has no spread"
    assert cost(said(n=3_660)) == Cost(0.02, 0.05) and cost(said(n=6_000)) is None, "an hour away is another market"
    assert cost(said(n=13_600)) == Cost(0.1, 0.05) and cost(said(n=0, instrument="n")) is None
    assert costs(record([]))(said()) is None


def test_groups_count_a_used_signal_once_and_members_by_model_alone():
    members = [said(model=name, role="member", d=None) for name in ("gpt", "claude")]
    pooled = [said(model="pool", n=n, confidence=c) for n, c in enumerate((0.55, 0.95))]
    found = signal_table([*pooled, *members], lambda f: FREE, {("D-0", "m"): "buy_yes"})
    counts = {(g.heading, g.name): g.signals for g in found}
    assert counts == {
        ("all", "all"): 2, ("action", "buy_yes"): 1, ("action", "not on record"): 1, ("confidence", "0.5-0.6"): 1,
        ("confidence", "0.9-1.0"): 1, ("model", "claude"): 1, ("model", "gpt"): 1, ("model", "pool"): 2,
    }  # fmt: skip


def test_the_lines_say_every_horizon_once_and_only_what_is_known_of_a_group():
    text = lines(signal_table([said(then={300: 0.54, 3_600: expit(0.0)})], lambda f: FREE, {("D-0", "m"): "buy_yes"}))
    shown = [line for line in text if any(f" {name} " in line for name in HORIZONS.values())]
    assert len(shown) == 4 + 3 * 2 and sum("n/a" in line for line in shown) >= 2
    assert "+4.00" in "\n".join(text) and max(map(len, text)) <= 140
    nothing = lines(signal_table([said()], lambda f: FREE))
    assert next(line for line in nothing if line.startswith("  gpt")).split() == ["gpt", "1", "any", "0", "n/a", "n/a", "0"]
