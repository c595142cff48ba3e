"""The simulated feed: books that add up, a model that keeps its own statistics, and streams that repeat to the byte."""

import hashlib
import math
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from itertools import pairwise
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.commands import RequestAccount, RequestSnapshot
from llm_maker.core.events import (
    BookDelta,
    BookSnapshot,
    InstrumentListed,
    MarketResolved,
    TopReported,
    TradePrinted,
    VenueUp,
)
from llm_maker.core.values import NS_PER_S, Kind, Side, expit
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket, _look, _take
from llm_maker.venues.paper.regimes import REGIMES, Latent, Motion, decode_dice, encode_dice, jump

START = MarketParams(seed=0).start_ns
DAY = 86_400 * NS_PER_S
TABLE_RMS = {"benign": 0.0145, "mixed": 0.0169, "toxic": 0.0215, "neglected": 0.0740}


def params(**changes):
    return MarketParams(**{"seed": 1, "markets": 3, "activity": 20.0, **changes})


def drain(sim, until):
    """Every event with its market time, one instant at a time."""
    stream = []
    while (at := sim.next_ns()) is not None and at <= until:
        stream += [(at, event) for event in sim.advance(at)]
    return stream


def encoded(stream):
    return [msgspec.json.encode(pair) for pair in stream]


def of_market(stream, name):
    return encoded((at, e) for at, e in stream if not isinstance(e, VenueUp) and name == id_of(e))


def id_of(event):
    return event.instrument.id if isinstance(event, InstrumentListed) else event.instrument


class Fold:
    """What a careful reader keeps of one market; every event is checked against it."""

    def __init__(self):
        self.sides = None
        self.eaten = {}
        self.over = False

    def feed(self, at, event):
        assert not self.over, "nothing comes after the resolution"
        if isinstance(event, MarketResolved):
            assert event.price in (0, 10_000)
            self.over = True
            return
        assert event.venue_ts == at
        if isinstance(event, BookSnapshot):
            self.snapshot(event)
        elif isinstance(event, BookDelta):
            self.delta(event)
        elif isinstance(event, TradePrinted):
            self.printed(event)
        self.check()
        if isinstance(event, BookDelta | TopReported):
            assert (event.best_bid, event.best_ask) == (max(self.sides[1]), min(self.sides[-1]))

    def snapshot(self, event):
        assert not self.eaten
        assert list(event.bids) == sorted(event.bids, reverse=True)
        assert list(event.asks) == sorted(event.asks)
        told = {1: dict(event.bids), -1: dict(event.asks)}
        assert self.sides in (None, told), "a fresh snapshot is the book that the deltas made"
        self.sides = told

    def printed(self, event):
        resting = self.sides[-event.side]
        best = min(resting) if event.side is Side.BUY else max(resting)
        left = {p for p in resting if (event.side, p) not in self.eaten}
        assert event.price == (min(left) if event.side is Side.BUY else max(left)) or event.price == best
        assert 0 < event.qty <= resting[event.price]
        assert event.qty % 10_000 == 0
        self.eaten[event.side, event.price] = event.qty

    def delta(self, event):
        for sign, levels in ((1, event.bids), (-1, event.asks)):
            assert len(dict(levels)) == len(levels)
            for price, qty in levels:
                eaten = self.eaten.pop((-sign, price), 0)
                if eaten:
                    assert qty == self.sides[sign][price] - eaten, "a print shows in the next delta"
                assert self.sides[sign].get(price) != qty or qty, "a removed level was there"
                self.sides[sign][price] = qty
                if not qty:
                    del self.sides[sign][price]
        assert not self.eaten, "a delta shows every print before it"

    def check(self):
        bids, asks = self.sides[1], self.sides[-1]
        assert bids and asks and max(bids) < min(asks)
        for price, qty in (*bids.items(), *asks.items()):
            assert 100 <= price <= 9_900 and price % 100 == 0
            assert qty > 0 and qty % 10_000 == 0


def fold(stream):
    books = {}
    for at, event in stream:
        if isinstance(event, InstrumentListed):
            assert event.instrument.id not in books
            books[event.instrument.id] = Fold()
        elif not isinstance(event, VenueUp):
            books[event.instrument].feed(at, event)
    return books


def test_the_opening_is_a_venues_opening():
    sim = SimulatedMarket(params(markets=5))
    first = sim.advance(START)
    assert [type(e) for e in first] == [InstrumentListed] * 5 + [VenueUp]
    assert first[-1] == VenueUp(venue="simulated", snapshots=True)
    stream = drain(sim, START + 2 * NS_PER_S)
    for listed in first[:-1]:
        assert isinstance(next(e for _, e in stream if id_of(e) == listed.instrument.id), BookSnapshot)
    one = first[0].instrument
    assert (one.id, one.venue, one.kind, one.payout) == ("SIM-0001", "simulated", Kind.BINARY, 10_000)
    assert (one.price_decimals, one.qty_decimals, one.qty_step, one.min_qty) == (4, 6, 10_000, 5_000_000)
    assert all(e.instrument.question.startswith("Simulated: ") for e in first[:-1])
    assert all(e.instrument.end_ns >= START + DAY for e in first[:-1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("regime", list(REGIMES))
def test_all_events_fold_into_the_told_books(seed, regime):
    stream = drain(SimulatedMarket(params(seed=seed, regime=regime, activity=300.0)), START + 900 * NS_PER_S)
    assert all(not book.eaten for book in fold(stream).values())
    kinds = Counter(type(e) for _, e in stream)
    assert kinds[TradePrinted] > 50 and kinds[TopReported] > 10 and kinds[BookDelta] > 500
    sweeps = sum(isinstance(a, TradePrinted) and isinstance(b, TradePrinted) for (_, a), (_, b) in pairwise(stream))
    assert sweeps > 0, "some takers walk the book"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), x=st.floats(-9, 9), step=st.sampled_from([NS_PER_S // 4, NS_PER_S, 10 * NS_PER_S]))
def test_no_side_is_ever_empty_or_crossed_however_sure_the_world_is(seed, x, step):
    sim = SimulatedMarket(params(seed=seed, markets=1, step_ns=step, activity=2_000.0))
    (market,) = sim._markets
    market.latent = Latent(x=x, slow=0.3 if x < 0 else -0.3, fast=0.0)
    fold(drain(sim, START + 120 * NS_PER_S))


def test_a_market_does_not_know_its_neighbours_or_its_caller():
    until = START + 120 * NS_PER_S
    few, many, coarse = (SimulatedMarket(params(markets=n)) for n in (2, 7, 2))
    stream = drain(few, until)
    assert of_market(stream, "SIM-0002") == of_market(drain(many, until), "SIM-0002")
    chunks = [e for t in range(START, until + 1, 7 * NS_PER_S) for e in coarse.advance(t)] + coarse.advance(until)
    assert [msgspec.json.encode(e) for e in chunks] == [msgspec.json.encode(e) for _, e in stream]
    assert few.checkpoint() == coarse.checkpoint()
    times = [at for at, _ in stream]
    assert times == sorted(times) and len(set(times)) > 0.8 * len(times), "events come one at a time"


def test_a_requested_snapshot_comes_soon_and_changes_nothing_else():
    asked, plain = SimulatedMarket(params()), SimulatedMarket(params())
    now = START + 60 * NS_PER_S
    before = drain(asked, now)
    asked.execute(now, RequestSnapshot(instrument="SIM-0002", reason="gap"))
    asked.execute(now, RequestSnapshot(instrument="SIM-0002", reason="gap"))
    asked.execute(now, RequestSnapshot(instrument="SIM-9999", reason="gap"))
    asked.execute(now, RequestAccount(reason="start"))
    asked.observe(now, VenueUp(venue="simulated", snapshots=True))
    after = drain(asked, now + 60 * NS_PER_S)
    fresh = [(at, e) for at, e in after if isinstance(e, BookSnapshot)]
    assert [(e.instrument, at) for at, e in fresh] == [("SIM-0002", now + NS_PER_S // 10)]
    fold(before + after)
    rest = [pair for pair in before + after if pair not in fresh]
    assert encoded(rest) == encoded(drain(plain, now + 60 * NS_PER_S))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), seconds=st.integers(0, 2_000), ask=st.booleans())
def test_a_checkpoint_continues_to_the_byte(seed, seconds, ask):
    # Lives of some minutes: resolved, coming and pending markets are all caught by some second.
    config = params(seed=seed, step_ns=5 * NS_PER_S, days_to_end=0.01)
    sim, twin = SimulatedMarket(config), SimulatedMarket(config)
    now = START + seconds * NS_PER_S
    drain(sim, now)
    if ask:
        sim.execute(now, RequestSnapshot(instrument="SIM-0001", reason="gap"))
    saved = sim.checkpoint()
    twin.restore(saved)
    assert twin.checkpoint() == saved
    until = now + 1_500 * NS_PER_S
    stream = drain(sim, until)
    assert encoded(drain(twin, until)) == encoded(stream)
    assert twin.next_ns() == sim.next_ns()
    assert twin.checkpoint() == sim.checkpoint() != saved


def test_dice_keep_the_spare_half_of_a_pair():
    dice = Random("any")
    dice.gauss(0.0, 1.0)
    assert dice.getstate()[2] is not None
    again = decode_dice(Random, msgspec.json.decode(msgspec.json.encode(encode_dice(dice))))
    assert again.getstate() == dice.getstate()


def test_a_snapshot_asked_for_too_late_is_forgotten_with_its_market():
    config = params(markets=1, days_to_end=0.005)
    sim, twin = SimulatedMarket(config), SimulatedMarket(config)
    end = sim.advance(START)[0].instrument.end_ns
    drain(sim, end - NS_PER_S // 20)
    sim.execute(end - NS_PER_S // 20, RequestSnapshot(instrument="SIM-0001", reason="gap"))
    assert not any(isinstance(e, BookSnapshot) for _, e in drain(sim, end))
    twin.restore(sim.checkpoint())
    assert sim.next_ns() == twin.next_ns() > end + NS_PER_S


def test_a_sweep_is_refilled_at_the_next_look():
    (market,) = SimulatedMarket(params(markets=1, seed=4))._markets
    full = set(market.asks)
    *prints, swept = _take(market, Side.BUY, 0.99, 500.0, START)
    assert [p.price for p in prints] == sorted(full)[: len(prints)]
    assert sum(p.qty for p in prints) == 500_000_000 and swept.best_ask > min(full)
    refilled = _look(market, START + NS_PER_S)
    assert set(market.asks) == full and refilled.best_ask == min(full)


def test_informed_takers_hurry_while_there_is_news():
    counts = []
    for news in (0.0, 0.4):
        sim = SimulatedMarket(params(markets=40, regime="neglected", step_ns=5 * NS_PER_S))
        for market in sim._markets:
            # The same edge for who knows, old or new.
            market.latent = Latent(x=0.5, slow=0.4 - news, fast=news)
        counts.append(sum(isinstance(e, TradePrinted) for e in sim.advance(START + 300 * NS_PER_S)))
    assert counts[1] > 3 * counts[0]


def test_a_checkpoint_of_another_configuration_or_none_is_refused():
    saved = SimulatedMarket(params(seed=1)).checkpoint()
    with pytest.raises(ValueError, match="saved with"):
        SimulatedMarket(params(seed=2)).restore(saved)
    with pytest.raises(msgspec.DecodeError):
        SimulatedMarket(params(seed=1)).restore(saved[:-20])
    short = msgspec.json.decode(saved)
    short["markets"][0]["dice"][0] = "AAAA"
    with pytest.raises(msgspec.DecodeError):
        SimulatedMarket(params(seed=1)).restore(msgspec.json.encode(short))


PRINT_DIGEST = """
import hashlib, sys
sys.path[:0] = sys.argv[1:]
from test_market import START, SimulatedMarket, drain, encoded, params
from llm_maker.core.values import NS_PER_S
sim = SimulatedMarket(params(seed=5, days_to_end=0.005))
stream = encoded(drain(sim, START + 900 * NS_PER_S))
sys.stdout.write(hashlib.sha256(b"".join(stream) + sim.checkpoint()).hexdigest())
"""


def test_the_stream_does_not_depend_on_the_hash_seed():
    def digest(hash_seed):
        here = os.path.dirname(__file__)  # noqa: PTH120
        code = [sys.executable, "-c", PRINT_DIGEST, here, *filter(None, sys.path)]
        env = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(code, env=env, capture_output=True, text=True, check=True).stdout

    sim = SimulatedMarket(params(seed=5, days_to_end=0.005))
    ours = hashlib.sha256(b"".join(encoded(drain(sim, START + 900 * NS_PER_S))) + sim.checkpoint()).hexdigest()
    assert digest("1") == digest("2") == ours


def test_resolved_markets_pay_as_often_as_the_truth_said_and_are_replaced():
    config = params(seed=11, markets=500, activity=1.0, step_ns=120 * NS_PER_S, days_to_end=0.02)
    sim = SimulatedMarket(config)
    opening = [(START, event) for event in sim.advance(START)]
    said = {f"SIM-{i:04d}": expit(sim.truth(f"SIM-{i:04d}")) for i in range(1, 501)}
    stream = drain(sim, START + int(0.035 * DAY))
    books = fold(opening + stream)
    paid = {e.instrument: e.price / 10_000 for _, e in stream if isinstance(e, MarketResolved)}
    assert said.keys() <= paid.keys()
    spread = math.sqrt(sum(p * (1 - p) for p in said.values()))
    assert abs(sum(paid[m] - p for m, p in said.items())) < 3.5 * spread
    sure = [paid[m] for m, p in said.items() if p > 0.75]
    unsure = [paid[m] for m, p in said.items() if p < 0.25]
    assert sum(sure) / len(sure) > 0.7 and sum(unsure) / len(unsure) < 0.3
    assert "SIM-0001-2" in books
    again = [m for m in said if f"{m}-2" not in paid]
    assert again and all(math.isfinite(sim.truth(m)) for m in again), "who asks late still finds the truth"
    with pytest.raises(KeyError):
        sim.truth(next(m for m in said if f"{m}-2" in paid))


def test_without_replacement_the_feed_runs_dry():
    sim = SimulatedMarket(params(days_to_end=0.005, replace=False))
    stream = drain(sim, START + DAY)
    assert sum(isinstance(e, MarketResolved) for _, e in stream) == 3
    assert sim.next_ns() is None
    with pytest.raises(KeyError):
        sim.truth("SIM-0004")


def test_a_switch_about_money_leaves_the_path_alone():
    streams = [drain(SimulatedMarket(params(markets=9, rewards=on)), START + 60 * NS_PER_S) for on in (True, False)]
    rules = [[e.instrument.reward for _, e in s if isinstance(e, InstrumentListed)] for s in streams]
    assert any(rules[0]) and not all(rules[0]) and not any(rules[1])
    assert encoded(streams[0][10:]) == encoded(streams[1][10:])


def test_a_market_is_small():
    tracemalloc.start()
    sim = SimulatedMarket(params(markets=200))
    sim.advance(START + 5 * NS_PER_S)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / 200 < 20_000


def test_time_passes_the_same_in_one_gap_or_many():
    """Moments of the latent path over ten minutes, by small and by large steps, against the closed form."""
    regime = REGIMES["mixed"]
    motion = Motion(regime)
    dice = SimulatedMarket(params())._markets[0].dice
    for step, runs in ((5, 800), (30, 2_000)):
        ends = []
        for _ in range(runs):
            latent = Latent(x=1.0, slow=0.0, fast=0.5)
            for _ in range(600 // step):
                motion.pass_time(latent, step, dice)
            ends.append((latent.x - 1.0, latent.fast))
        sigma = regime.sigma * math.sqrt(600 / 86_400)
        assert math.sqrt(sum(x * x for x, _ in ends) / runs) == pytest.approx(sigma, rel=0.12)
        assert sum(f for _, f in ends) / runs == pytest.approx(0.25, abs=0.005), "half of the news spreads in ten minutes"


def test_the_true_probability_is_a_martingale_with_its_jumps():
    """A hundred days of diffusion and jumps from p = 0.88: without the drift the mean would sink by a tenth."""
    motion, dice = Motion(REGIMES["mixed"]), SimulatedMarket(params())._markets[0].dice
    ends = []
    for _ in range(1_500):
        latent = Latent(x=2.0, slow=0.0, fast=0.0)
        for _ in range(60):
            motion.pass_time(latent, 43_200.0, dice)
            if dice.random() < 0.35:
                jump(latent, dice)
        ends.append(expit(latent.x))
    mean = sum(ends) / len(ends)
    deviation = math.sqrt(sum((p - mean) ** 2 for p in ends)) / len(ends)
    assert abs(mean - expit(2.0)) < 3.5 * deviation


class Day:
    """One simulated day of many markets, sampled every five minutes from outside; edges in USD a share."""

    def __init__(self, regime, markets=30):
        config = params(seed=2026, markets=markets, regime=regime, activity=1.0, step_ns=45 * NS_PER_S, days_to_end=30.0)
        sim, tops = SimulatedMarket(config), {}
        self.rows, self.nets, self.edges = {}, Counter(), []
        for k in range(1, 289):
            for event in sim.advance(START + k * 300 * NS_PER_S):
                if isinstance(event, BookSnapshot):
                    tops[event.instrument] = (event.bids[0][0], event.asks[0][0])
                elif isinstance(event, BookDelta):
                    tops[event.instrument] = (event.best_bid, event.best_ask)
                elif isinstance(event, TradePrinted):
                    self.nets[event.instrument] += event.side
                    edge = event.side * (expit(sim.truth(event.instrument)) - event.price / 1e4)
                    self.edges.append(edge)
            for name, (bid, ask) in tops.items():
                public = sim._markets[sim._slots[name]].latent.public
                self.rows.setdefault(name, []).append(((bid + ask) / 2e4, sim.truth(name), public))

    def rms_error(self):
        errors = [mid - expit(x) for rows in self.rows.values() for mid, x, _ in rows]
        return math.sqrt(sum(e * e for e in errors) / len(errors))

    def volatility(self, column):
        """Per square root of a day, from five-minute moves: what 68 % of them stay under, so jumps do not count."""
        moves = sorted(abs(b[column] - a[column]) for rows in self.rows.values() for a, b in pairwise(rows))
        return math.sqrt(288) * moves[int(0.6827 * len(moves))]


@pytest.fixture(scope="module")
def days():
    return {regime: Day(regime) for regime in REGIMES}


@pytest.mark.prove
def test_the_mid_is_wrong_by_as_much_as_the_table_says(days):
    for regime, rms in TABLE_RMS.items():
        assert 0.6 < days[regime].rms_error() / rms < 1.6, (regime, days[regime].rms_error())


def test_five_minute_volatility_is_sigma_of_the_truth_and_within_twice_of_it_in_public(days):
    for regime, day in days.items():
        sigma = REGIMES[regime].sigma
        assert day.volatility(1) == pytest.approx(sigma, rel=0.08), regime
        # What the table asks: half of the news at once, and the errors' own noise, which alone is 0.39 a day.
        public = math.sqrt(sigma**2 / 2 + 2 * 288 * 0.03**2 * (1 - math.sqrt(0.5)))
        assert day.volatility(2) == pytest.approx(public, rel=0.15), regime
        # Twice sigma is what a reader may expect; the calmest regime is over it by its noise alone.
        assert regime == "benign" or day.volatility(2) < 2.0 * sigma, regime


def test_jumps_are_of_the_size_and_number_of_the_table():
    dice = SimulatedMarket(params())._markets[0].dice
    sizes = []
    for _ in range(4_000):
        latent = Latent(x=0.5, slow=0.1, fast=0.0)
        before = latent.public
        jump(latent, dice)
        assert latent.public == pytest.approx(before), "the public knows nothing of it yet"
        sizes.append(latent.x - 0.5)
    assert math.sqrt(sum(s * s for s in sizes) / 4_000) == pytest.approx(0.25, rel=0.05)
    sim = SimulatedMarket(params(markets=150, regime="toxic", activity=0.0, step_ns=300 * NS_PER_S))
    far, last = 0, {}
    for k in range(96):
        sim.advance(START + k * DAY // 96)
        for market in sim._markets:
            name = market.instrument.id
            # A quarter of an hour diffuses 0.03; what moves by 0.2 has jumped, as 42 % of jumps do.
            far += abs(market.latent.x - last.get(name, market.latent.x)) > 0.2
            last[name] = market.latent.x
    assert 0.6 < far / (150 * 1.0 * 0.42) < 1.5


def test_the_mid_is_close_to_a_martingale(days):
    hourly, lagged, drifts = 0.0, 0.0, []
    for day in days.values():
        for rows in day.rows.values():
            moves = [b[0] - a[0] for a, b in pairwise(rows[::12])]
            hourly += sum(m * m for m in moves)
            lagged += sum(a * b for a, b in pairwise(moves))
            drifts.append(rows[-1][0] - rows[0][0])
    deviation = math.sqrt(sum(d * d for d in drifts)) / len(drifts)
    assert abs(sum(drifts)) / len(drifts) < 3.5 * deviation
    assert abs(lagged / hourly) < 0.25


def test_takers_come_from_both_sides_and_hurt_where_they_know(days):
    edges = {}
    for regime, day in days.items():
        nets = list(day.nets.values())
        assert abs(sum(nets)) < 3.5 * math.sqrt(sum(n * n for n in nets)), (regime, nets)
        edges[regime] = sum(day.edges) / len(day.edges)
    assert edges["benign"] < edges["mixed"] < edges["toxic"]
    assert edges["benign"] < 0 < edges["toxic"]


def test_activity_multiplies_the_prints_and_not_the_errors():
    prints = {}
    for activity in (1.0, 20.0):
        sim = SimulatedMarket(params(seed=3, markets=20, activity=activity, step_ns=20 * NS_PER_S))
        prints[activity] = sum(isinstance(e, TradePrinted) for e in sim.advance(START + DAY // 8))
    assert 10 < prints[20.0] / prints[1.0] < 35
    demo = drain(SimulatedMarket(params(markets=8)), START + 1_800 * NS_PER_S)
    assert sum(isinstance(e, TradePrinted) for _, e in demo) > 48
