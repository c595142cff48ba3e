"""The fill model against its own promises (`quoting.md` 5.6 ii-iv): nothing of nothing, ordered bands, nobody earns blindly.

Everything here is simulated. A small slice by default; `prove` runs the same at full size.
"""

import random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from llm_maker.core.commands import CancelOrder
from llm_maker.core.events import MarketResolved, TradePrinted
from llm_maker.core.values import NS_PER_MS, NS_PER_S, FeeRule, Leg
from llm_maker.venues.paper.latency import Scatter
from llm_maker.venues.paper.matching import BANDS
from llm_maker.venues.paper.queue import Model
from tests.paper.quoters import RandomQuoter, Stage, TouchQuoter, interval, place
from tests.paper.test_exchange import BUY, PAYOUT, SELL, STRICT, Rig, binary, fills, mirrored, play, rebuilt, script

MODELS = get_args(Model)
EVERY_BAND = {band: {"band": band} for band in BANDS}
DRAWN = Scatter(sigma=0.8, tail_ppm=50_000)
CHOICES = st.tuples(st.integers(0, 10**6), st.sampled_from(MODELS), st.sampled_from(BANDS))


def with_transactions(steps, seed):
    """The same tape where some takers print several times, with or without telling who they are, and some prints are told twice."""
    dice, made = random.Random(f"takers {seed}"), []
    for gap, step in steps:
        made.append((gap, step))
        if not isinstance(step, TradePrinted):
            continue
        source = dice.choice(("", f"0x{len(made)}"))
        made[-1] = (gap, TradePrinted("M", step.price, step.qty, step.side, 1 + len(made), source))
        for _ in range(dice.choice((0, 0, 1, 2))):
            price = min(max(step.price + step.side * dice.choice((0, 0, 100)), 100), 9_900)
            made.append((0, TradePrinted("M", price, dice.randint(1, 3_000), step.side, made[-1][1].venue_ts, source)))
        if source and dice.random() < 0.2:
            made.append((100 * NS_PER_MS, made[-1][1]))
    return made


def by_order(rig):
    return {key: [value[band]["qty"] for band in BANDS] for key, value in rig.exchange.band_fills()["orders"].items()}


@settings(max_examples=30, deadline=None)
@given(CHOICES)
def test_no_band_uses_a_print_twice_and_bands_are_monotone_per_order(choice):
    seed, model, band = choice
    rig = Rig(**STRICT, queue_model=model, band=band, scatter=DRAWN)
    before, heard = {}, set()
    for gap, step in with_transactions(script(seed, 150), seed):
        rig.until(rig.now + gap)
        before = by_order(rig)
        if isinstance(step, TradePrinted):
            rig.see(step)
            got = [
                [now - was for now, was in zip(qty, before.get(key, [0, 0, 0]), strict=True)] for key, qty in by_order(rig).items()
            ]
            repeated = step.transaction and (step.transaction, step.price, step.qty, step.side) in heard
            heard.add((step.transaction, step.price, step.qty, step.side))
            for name, used in zip(BANDS, map(sum, zip(*got, strict=True)), strict=False):
                assert used <= (0 if repeated else step.qty), (name, model)
        elif hasattr(step, "reason") and hasattr(step, "instrument"):
            rig.send(step)
        else:
            rig.see(step)
        for key, (low, real, high) in by_order(rig).items():
            assert 0 <= low <= real <= high, (key, model)


@pytest.mark.parametrize(
    ("model", "filled"),
    [
        ("risk_adverse", 1_000), ("power_prob_3", 1_666), ("log_prob_2", 2_273), ("power_prob", 3_000), ("log_prob", 9_375),
        ("power_prob_2", 11_000),
    ],
)  # fmt: skip
def test_every_model_reaches_the_exchange_and_moves_the_realistic_band_alone(model, filled):
    """100 shares ahead, 200 more behind, 180 of the 300 leave unprinted, then 110 trade: by hand, in hundredths of a share."""
    rig = Rig(queue_model=model, volume_cap_ratio=10.0, improve_share=1.0, settle_fail_ppm=0)
    rig.book({5000: 10_000}, {5200: 10_000})
    rig.place(BUY, 5000, 20_000)
    rig.delta(bids=[(5000, 30_000)])
    rig.wait(1)
    rig.delta(bids=[(5000, 12_000)])
    rig.wait(1)
    rig.print(5000, 11_000)
    assert by_order(rig) == {"1-1": [1_000, filled, 11_000]}


def test_room_left_under_the_cap_never_lifts_the_pessimistic_band_over_the_realistic_one():
    """The realistic band has used up the minute; the pessimistic one has not, and still gets no more of the next order."""
    rig = Rig(queue_model="power_prob_2", volume_cap_ratio=0.1, improve_share=1.0, settle_fail_ppm=0)
    rig.book({5000: 10_000}, {5200: 10_000})
    rig.place(BUY, 5000, 20_000)
    rig.place(SELL, 5100, 20_000)
    rig.delta(bids=[(5000, 30_000)])
    rig.wait(1)
    rig.delta(bids=[(5000, 12_000)])
    rig.wait(1)
    rig.print(5000, 5_000)
    rig.print(5200, 1_000, SELL.other)
    assert by_order(rig) == {"1-1": [0, 500, 500], "1-2": [100, 100, 100]}


@settings(max_examples=12, deadline=None)
@given(CHOICES)
def test_cash_and_shares_are_conserved_under_every_model_with_drawn_latency(choice):
    seed, model, band = choice

    def check(rig):
        assert rebuilt(rig) == (rig.exchange.cash, rig.exchange.holdings())

    play(with_transactions(script(seed, 100), seed), check=check, queue_model=model, band=band, scatter=DRAWN)


@settings(max_examples=12, deadline=None)
@given(CHOICES, st.sampled_from((0, PAYOUT, PAYOUT // 2)))
def test_the_mirrored_tape_gives_the_same_pnl_to_the_unit(choice, paid):
    seed, model, band = choice
    steps = [*with_transactions(script(seed, 120), seed)[:-1], (0, MarketResolved("M", paid))]
    other = [(gap, mirrored_with_taker(step)) for gap, step in steps]
    straight, mirror = (play(each, queue_model=model, band=band, scatter=DRAWN) for each in (steps, other))
    assert mirror.exchange.cash == straight.exchange.cash
    assert len(fills(mirror.heard)) == len(fills(straight.heard))


def mirrored_with_taker(step):
    if isinstance(step, TradePrinted):
        return TradePrinted("M", PAYOUT - step.price, step.qty, step.side.other, step.venue_ts, step.transaction)
    return mirrored(step)


def test_the_mirror_test_sees_trades():
    assert sum(len(fills(play(script(seed, 120)).heard)) for seed in range(5)) > 20


# Nobody earns blindly.


def blind(seeds, regime, hours):
    """A random quoter in the three bands on the same market and the same orders; USD per run, printed with 95 % intervals."""
    runs = [Stage(seed, EVERY_BAND, RandomQuoter, regime=regime).run(hours) for seed in seeds]
    print(f"\nrandom quoter, simulated market {regime}, seeds {seeds[0]}-{seeds[-1]}, {hours} h, USD per run (95 %):")
    found = {}
    for band in BANDS:
        rows = [run[band] for run in runs]
        row = {key: interval([each[key] for each in rows]) for key in rows[0]}
        row["blind"] = interval([each["pnl"] - each["capture"] for each in rows])
        row["left"] = interval([each["pnl"] - each["capture"] + each["adverse"] + each["fees"] for each in rows])
        found[band] = row
        print(f"  {band:12}" + ", ".join(f"{key} {mean:+.1f} +-{half:.1f}" for key, (mean, half) in row.items()))
    return found


def judge(found):
    """Without the spread it loses, for sure; and what it loses is what the takers knew and the fees, no more and no less."""
    for band, row in found.items():
        assert row["shares"][0] > 500, band
        mean, half = row["blind"]
        assert mean + half < 0, f"{band}: a blind quoter must lose without the spread, not {mean:.1f} +-{half:.1f}"
        mean, half = row["left"]
        assert abs(mean) <= 1.5 * half, f"{band}: {mean:.1f} +-{half:.1f} came from nowhere"
    assert found["pessimistic"]["shares"][0] <= found["optimistic"]["shares"][0]


def test_a_random_quoter_loses_its_spread_free_cost_in_every_band():
    found = blind(range(1, 7), "toxic", 0.75)
    judge(found)
    assert all(row["pnl"][0] < 0 for row in found.values())


@pytest.mark.prove
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("regime", ["benign", "mixed", "toxic", "neglected"])
def test_a_random_quoter_loses_in_every_regime(regime):
    found = blind(range(200_001, 200_061), regime, 3)
    judge(found)
    assert all(row["pnl"][0] - row["pnl"][1] <= 0 for row in found.values()), "it may come out even, never ahead for sure"


# Latency.


def picked_off(seed, steps=120, **latency):
    """Both sides a tick off a mid that jumps; after a jump a taker follows it and meets what is stale. USD at the last mid."""
    dice = random.Random(seed)
    rig = Rig(binary(fee=FeeRule()), seed=seed, volume_cap_ratio=1.0, confirm_sigma=0.0, **latency)
    mid, ids = 5_000, []

    def show():
        levels = range(2, 5)
        rig.book({mid - 100 * n: 20_000 for n in levels}, {mid + 100 * n: 20_000 for n in levels})

    def requote():
        for order_id in ids:
            rig.send(CancelOrder(order_id, "M", "test"))
        ids.clear()
        for side in (BUY, SELL):
            rig.placed += 1
            ids.append(f"1-{rig.placed}")
            rig.send(quote(ids[-1], side, mid - side * 100))

    show()
    requote()
    for _ in range(steps):
        rig.wait(dice.uniform(1.5, 6))
        if dice.random() < 0.5:
            side = dice.choice((BUY, SELL))
            rig.print(mid + side * 200, 2_000, side)
        else:
            side = dice.choice((BUY, SELL))
            if not 1_500 < mid + side * 200 < 8_500:
                continue
            mid += side * 200
            show()
            requote()
            rig.wait(dice.uniform(0.02, 0.4))
            rig.print(mid + side * 200, 2_000, side)
        requote()
    held = rig.exchange.holdings()
    worth = held.get(("M", Leg.YES), 0) * mid + held.get(("M", Leg.NO), 0) * (PAYOUT - mid)
    return (rig.exchange.cash + worth - rig.exchange.params.start_cash) / 1e6


def quote(order_id, side, price):
    return structs.replace(place(order_id, "M", side, price), qty=1_000)


def paired(seeds, slow):
    found = [picked_off(seed, entry_ns=0, cancel_ns=0) - picked_off(seed, **slow) for seed in seeds]
    mean, half = interval(found)
    print(f"\nzero latency less {slow}: {mean:+.2f} +-{half:.2f} USD a run, {len(found)} paired seeds")
    return mean, half


SLOW = {"entry_ns": 250 * NS_PER_MS, "cancel_ns": 250 * NS_PER_MS}


@pytest.mark.parametrize("slow", [SLOW, SLOW | {"scatter": Scatter(sigma=0.5, tail_ppm=10_000)}], ids=["constant", "sampled"])
def test_zero_latency_is_worth_something_where_quotes_get_stale(slow):
    mean, half = paired(range(8), slow)
    assert mean - half > 0, "whoever is late is picked off"


def touch_latency(seeds, hours):
    """The touch quoter on the simulated market, zero against 250 ms; USD a run."""
    late = {"zero": {"entry_ns": 0, "cancel_ns": 0}, "late": SLOW}
    runs = [Stage(seed, late, TouchQuoter, step_s=5).run(hours, every_s=5) for seed in seeds]
    mean, half = interval([run["zero"]["pnl"] - run["late"]["pnl"] for run in runs])
    print(f"\ntouch quoter, simulated market mixed, zero less 250 ms: {mean:+.2f} +-{half:.2f} USD a run, {len(runs)} paired seeds")
    return mean, half


@pytest.mark.prove
@pytest.mark.timeout(1_200)
def test_zero_latency_at_full_size():
    for slow in (SLOW, {"entry_ns": NS_PER_S, "cancel_ns": NS_PER_S}):
        mean, half = paired(range(200_001, 200_101), slow)
        assert mean - half > 0
    mean, half = touch_latency(range(200_001, 200_041), 2)
    assert mean + half >= 0


@pytest.mark.prove
@pytest.mark.timeout(1_200)
def test_the_promises_at_full_size():
    for seed in range(200_001, 200_401):
        model, band = MODELS[seed % len(MODELS)], BANDS[seed % len(BANDS)]
        test_no_band_uses_a_print_twice_and_bands_are_monotone_per_order.hypothesis.inner_test((seed, model, band))
        test_cash_and_shares_are_conserved_under_every_model_with_drawn_latency.hypothesis.inner_test((seed, model, band))
        test_the_mirrored_tape_gives_the_same_pnl_to_the_unit.hypothesis.inner_test((seed, model, band), PAYOUT)
