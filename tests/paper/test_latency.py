"""How long orders and cancels travel: constants, draws that belong to an order, and what a live log measured."""

import json
import math
import statistics

import pytest

from llm_maker.config import Config
from llm_maker.core.commands import CancelOrder, LookUpOrder, PlaceOrder, TimeInForce
from llm_maker.core.events import OrderAccepted, OrderCanceled, OrderLookedUp
from llm_maker.core.values import NS_PER_MS, NS_PER_S, PPM
from llm_maker.runtime.line_log import iso
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.rows import Scope
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.latency import MIN_PAIRS, Scatter, Unmeasured, measured
from llm_maker.world import Refused, exchange_params
from tests.paper.test_exchange import BUY, YES, opened
from tests.runtime.world import World

MEDIAN = 250 * NS_PER_MS
DRAWN = Scatter(sigma=0.5, tail_ppm=10_000)


def travel(scatter, trip="entry", median=MEDIAN, seed=7, n=4_000):
    return [scatter.travel_ns(seed, trip, f"1-{number}", median) for number in range(n)]


def test_as_it_stands_nothing_varies_and_zero_stays_zero():
    assert set(travel(Scatter(), n=50)) == {MEDIAN}
    assert set(travel(DRAWN, median=0, n=50)) == {0}


def test_draws_are_lognormal_around_the_median_with_a_tail_of_ten_times():
    bare = [math.log(ns / MEDIAN) for ns in travel(Scatter(sigma=0.5), n=20_000)]
    assert abs(statistics.median(bare)) < 0.03 and abs(statistics.stdev(bare) - 0.5) < 0.02
    tailed = travel(Scatter(tail_ppm=10_000), n=20_000)
    assert set(tailed) == {MEDIAN, 10 * MEDIAN}
    assert 150 < tailed.count(10 * MEDIAN) < 250


def test_a_draw_belongs_to_seed_trip_and_order_and_to_nothing_else():
    there = travel(DRAWN, n=300)
    assert [DRAWN.travel_ns(7, "entry", f"1-{number}", MEDIAN) for number in reversed(range(300))] == there[::-1]
    assert there != travel(DRAWN, "cancel", n=300) and there != travel(DRAWN, seed=8, n=300)


def order(number):
    return PlaceOrder(f"1-{number}", "M", BUY, YES, 5000, 500, TimeInForce.GTC, True, False, "test")


def test_nothing_about_an_order_arrives_before_the_order():
    """Cancels that travel a tenth of the time: never refused as unknown, never leaving an order behind; restarts included."""
    rig = opened(scatter=Scatter(sigma=1.5, tail_ppm=100_000), cancel_ns=MEDIAN // 10)
    plain = {number: rig.exchange.params.scatter.travel_ns(1, "cancel", f"1-{number}", MEDIAN // 10) for number in range(150)}
    own = {number: rig.exchange.params.scatter.travel_ns(1, "entry", f"1-{number}", MEDIAN) for number in range(150)}
    assert sum(plain[n] < own[n] for n in own) > 100, "most cancels would overtake"
    for number in range(150):
        rig.exchange.execute(rig.now, order(number))
        rig.send(LookUpOrder(f"1-{number}", "M", "test"))
        rig.send(CancelOrder(f"1-{number}", "M", "test"))
        if number % 50 == 10:
            saved = rig.exchange.checkpoint()
            rig.exchange = Exchange(rig.exchange.params)
            rig.exchange.restore(saved)
        rig.wait(0.05)
    rig.wait(600)
    told = [type(event) for event in rig.heard]
    assert told.count(OrderAccepted) == told.count(OrderCanceled) == 150
    assert not [event for event in rig.heard if isinstance(event, OrderLookedUp) and event.found == "absent"]
    assert rig.exchange.resting() == [] and rig.exchange._state.coming == {}


def test_zero_latency_is_at_once():
    rig = opened(entry_ns=0, cancel_ns=0, scatter=DRAWN)
    rig.exchange.execute(rig.now, order(1))
    rig.send(CancelOrder("1-1", "M", "test"))
    assert [type(event) for event in rig.wait(0)] == [OrderAccepted, OrderCanceled]


# What a live run measured.


def line(at_ms, event, order_id, mode="live", **more):
    told = {"timestamp": iso(1_790_000_000 * NS_PER_S + at_ms * NS_PER_MS), "event": event, "order_id": order_id}
    return json.dumps({**told, "account": "main", "venue": "polymarket", "mode": mode, "simulated": False, **more}).encode() + b"\n"


def log(entries, cancels, **more):
    lines = []
    for number, ms in enumerate(entries):
        lines += [
            line(1_000 * number, "order", f"1-{number}", **more),
            line(1_000 * number + ms, "accepted", f"1-{number}", **more),
        ]
    for number, ms in enumerate(cancels):
        at = 1_000_000 + 1_000 * number
        lines += [line(at, "cancel", f"1-{number}", **more), line(at + ms, "canceled", f"1-{number}", **more)]
    return lines


def test_a_log_is_drawn_from_as_it_was_measured():
    scatter = measured(log(range(50, 150), [20] * 39 + [400]))
    assert (scatter.entry[0], scatter.entry[-1]) == (50 * NS_PER_MS, 149 * NS_PER_MS)
    assert abs(statistics.median(travel(scatter)) - 99.5 * NS_PER_MS) < 3 * NS_PER_MS
    cancels = travel(scatter, "cancel", median=12345)
    assert statistics.median(cancels) == 20 * NS_PER_MS and 300 * NS_PER_MS < max(cancels) <= 400 * NS_PER_MS
    assert 0.95 < sum(ns == 20 * NS_PER_MS for ns in cancels) / len(cancels) < 0.995


def test_unanswered_repeated_and_foreign_lines_measure_nothing():
    strays = [
        line(0, "accepted", "never-ordered"),
        line(0, "order", "never-answered"),
        line(0, "order", "refused"),
        line(9_000, "rejected", "refused"),
        line(1_000_000 - 5, "canceled", "1-3"),
        line(5, "order", "of-paper", mode="paper"),
        line(9_005, "accepted", "of-paper", mode="paper"),
        b'{"timestamp":"2026-11-21T00:00:00.000Z","event":"settled","fill_id":"f"}\n',
    ]
    assert measured(strays + log([70] * 40, [30] * 40)) == measured(log([70] * 40, [30] * 40))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (log([70] * (MIN_PAIRS - 1), [30] * 40), "29 pairs of 'order' and 'accepted' lines of a live run; at least 30 are needed"),
        (log([70] * 40, [30]), "1 pairs of 'cancel' and 'canceled'"),
        (log([70] * 40, [30] * 40, mode="paper"), "0 pairs of 'order'"),
        ([b"not json\n", *log([70] * 40, [30] * 40)], "line 1 is no line"),
        ([*log([70] * 40, [30] * 40)[:3], b'{"timestamp":"soon","event":"order"}\n', line(1, "order", "x")], "line 4 is no line"),
    ],
)
def test_a_log_that_tells_too_little_is_refused_in_one_line(lines, said, tmp_path):
    with pytest.raises(Unmeasured, match=said):
        measured(lines)
    path = tmp_path / "executions.jsonl"
    path.write_bytes(b"".join(lines))
    config = Config(paper={"latency": "sampled", "latency_log": str(path)})
    with pytest.raises(Refused, match=said) as refused:
        exchange_params(config)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_a_torn_last_line_is_left_out():
    whole = log([70] * 40, [30] * 40)
    assert measured([*whole, whole[0][:30]]) == measured(whole)


def test_our_own_log_has_what_is_needed(tmp_path):
    """A run whose exchange takes 130 ms to enter and 70 ms to cancel, logged as a live one, measures that."""
    world = World(seed=3, activity=400.0, entry_ns=130 * NS_PER_MS, cancel_ns=70 * NS_PER_MS)
    recorder = Recorder(world.engine.state, Scope("simulated", "live", "paper", "main"), None, tmp_path / "logs", simulated=True)
    world.run(tmp_path / "journal", 300, recorder=recorder)
    recorder.close()
    with (tmp_path / "logs" / "executions.jsonl").open("rb") as lines:
        scatter = measured(lines)
    middles = [values[len(values) // 2] / NS_PER_MS for values in (scatter.entry, scatter.cancel)]
    print(f"measured medians, ms: {middles}")
    assert all(abs(ns / NS_PER_MS - 130) <= 1 for ns in scatter.entry)
    assert abs(middles[1] - 70) <= 1


def test_the_config_reaches_the_exchange(tmp_path):
    made = exchange_params(Config())
    assert (made.queue_model, made.queue_power, made.scatter) == ("power_prob_3", 3, Scatter())
    made = exchange_params(Config(paper={"queue_model": "log_prob_2", "queue_power": 5, "latency": "sampled", "entry_ms": 0}))
    assert (made.queue_model, made.queue_power, made.entry_ns) == ("log_prob_2", 5, 0)
    assert made.scatter == Scatter(sigma=0.5, tail_ppm=PPM // 100)
    with pytest.raises(Refused, match=r"latency_log is set, but paper\.latency is constant"):
        exchange_params(Config(paper={"latency_log": "x"}))
    with pytest.raises(Refused, match="No such file"):
        exchange_params(Config(paper={"latency": "sampled", "latency_log": str(tmp_path / "none")}))
