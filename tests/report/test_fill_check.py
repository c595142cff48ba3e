"""Simulated against live fills: every figure by hand or against an oracle, and that a wrong fill model is found out."""

import json
import math
import random

import numpy as np
import pytest

from llm_maker.core.values import CASH_PER_USD, NS_PER_MS, NS_PER_S
from llm_maker.report.fill_check import MIN_FILLS, OrderLife, check, ks, lines, read_orders
from llm_maker.report.track import Fill, Money, Point, Quoted, Track
from llm_maker.runtime.line_log import iso
from llm_maker.runtime.logs import Recorder
from llm_maker.runtime.rows import Scope
from tests.runtime.world import World

T0 = 1_790_000_000 * NS_PER_S
HOUR = 3_600 * NS_PER_S
QUOTED = {"M": Quoted(name="M", price_scale=10_000, qty_scale=100, payout=10_000)}


def track(fills=(), hours=10, gain=0, start=T0, **more):
    end = start + hours * HOUR
    fields = {
        "label": {}, "start_ns": start, "end_ns": end, "start_cash": 1_000 * CASH_PER_USD, "exit_equity": 0, "flows": {},
        "equity": 1_000 * CASH_PER_USD + gain, "counts": {}, "fills": list(fills), "instruments": QUOTED,
    }  # fmt: skip
    return Track(**fields | more)


def lived(seed, n=400, wait_s=60.0, chance=0.6, markout=0.0, every_s=60, first=0):
    """Orders and fills of one side: whether one fills falls with the queue; (orders, fills)."""
    dice, orders, fills = random.Random(seed), [], []
    for number in range(n):
        placed, side, ahead = T0 + (first + number * every_s) * NS_PER_S, dice.choice((1, -1)), dice.randint(0, 100) * 100
        wins = dice.random() < chance * math.exp(-ahead / 6_000)
        at = placed + int(dice.expovariate(1 / wait_s) * NS_PER_S)
        price = 5_000 - 100 * side
        orders.append(
            OrderLife(
                order_id=f"1-{number}", instrument="M", side=side, price=price, qty=500, placed_ns=placed, ahead=ahead,
                first_fill_ns=at if wins else None, ended_ns=at, filled=500 * wins,
            )
        )  # fmt: skip
        if wins:
            moved = round(2 * (side * markout + dice.gauss(0, 0.3)) * 100)
            fills.append(
                Fill(
                    ts=at, fill_id=f"{number}", order_id=f"1-{number}", instrument="M", side=side, price=price, qty=500, fee=0,
                    maker=True, cash=0, position_after=0, mid2=10_000, marks={10: 10_000 + moved, 60: 10_000 + 2 * moved},
                )
            )  # fmt: skip
    return orders, fills


def compared(sim, real, **tracks):
    return check(track(real[1], **tracks.get("live", {})), track(sim[1], **tracks.get("paper", {})), real[0], sim[0])


def test_two_sides_of_one_law_are_found_alike():
    found = compared(lived(1), lived(2))
    print(*lines(found), sep="\n")
    assert found.verdictless == "" and found.by == "queue ahead" and len(found.deciles) == 10
    assert found.ratio == pytest.approx(found.paper_fills / found.live_fills) and found.ratio_good is True
    reach = math.exp(1.96 * math.sqrt(1 / found.paper_fills + 1 / found.live_fills))
    assert found.ratio_interval.high == pytest.approx(found.ratio * reach, rel=1e-3)
    assert sum(d.agrees is True for d in found.deciles) >= 8 and found.gap < 0.15
    assert found.ks_p > 0.05
    assert found.markouts[10].good is True and set(found.markouts) == {10, 60}, "no fill has a 300 s mark: nothing, and never 0"
    assert [d.live_share for d in found.deciles[:2]] > [d.live_share for d in found.deciles[-2:]]


def test_too_many_simulated_fills_are_found_out_in_rate_and_in_every_decile():
    found = compared(lived(1, chance=1.0), lived(2, chance=0.4))
    assert found.ratio > 1.7 and found.ratio_good is False and found.ratio_interval.low > 1.25
    assert sum(d.agrees is False for d in found.deciles) >= 4 and found.gap > 0.15
    assert any("NOT good" in line for line in lines(found))


def test_fills_that_come_too_soon_are_found_out():
    found = compared(lived(1, wait_s=20), lived(2, wait_s=60))
    assert found.ks > 0.25 and found.ks_p < 1e-3
    assert found.paper_median_s < found.live_median_s
    assert found.ratio_good is True, "time to fill is a finding of its own"


def test_fills_that_are_too_kind_are_found_out_in_ticks():
    found = compared(lived(1, markout=0.0), lived(2, markout=-0.6))
    assert found.markouts[10].difference == pytest.approx(0.6, abs=0.15) and found.markouts[10].good is False
    assert found.markouts[60].difference == pytest.approx(1.2, abs=0.3)
    inside = found.markouts[10].interval
    assert inside.low < 0.6 < inside.high and inside.low > 0.2


def test_a_finer_grid_has_finer_ticks():
    orders, fills = lived(1, markout=0.02)
    fine = [OrderLife(**{n: getattr(o, n) for n in o.__struct_fields__} | {"price": o.price + 10}) for o in orders]
    found = check(track(fills), track(fills), fine, fine)
    assert found.markouts[10].live == pytest.approx(10 * check(track(fills), track(fills), orders, orders).markouts[10].live)


def test_few_fills_give_figures_and_no_verdict():
    found = compared(lived(1, n=40), lived(2, n=40))
    assert 0 < min(found.live_fills, found.paper_fills) < MIN_FILLS
    assert found.ratio is not None and found.ratio_good is None and found.ks is None
    assert all(m.good is None for m in found.markouts.values())
    said = lines(found)
    assert said[1] == f"no verdict: {found.live_fills} live and {found.paper_fills} simulated fills; 30 of each are needed"
    assert not any("good," in line for line in said)


def test_nothing_in_common_is_said():
    orders, fills = lived(1)
    apart = check(track(fills), track(fills, start=T0 + 100 * HOUR), orders, orders)
    assert apart.verdictless == "no time in common" and apart.ratio is None and apart.error is None
    alien = check(track(fills), track(fills), orders, [])
    assert alien.verdictless == "no market in which both placed orders" and lines(alien)
    none = check(track(fills), track(), orders, orders)
    assert none.ratio == 0.0 and none.ratio_good is None


def test_only_the_common_time_counts():
    found = compared(lived(1), lived(2), paper={"hours": 2})
    assert found.hours == 2 and found.live_orders == 121
    assert found.live_fills < check(track(lived(2)[1]), track(lived(1)[1]), lived(2)[0], lived(1)[0]).live_fills


def test_deciles_go_by_size_where_a_log_does_not_tell_the_queue():
    orders, fills = lived(1)
    blind = [OrderLife(**{n: getattr(o, n) for n in o.__struct_fields__} | {"ahead": None}) for o in orders]
    found = check(track(fills), track(fills), orders, blind)
    assert found.by == "order size" and len(found.deciles) == 1 and found.deciles[0].live == 400


def test_orders_that_still_rest_say_nothing_about_filling():
    orders, fills = lived(1)
    open_ = [
        OrderLife(**{n: getattr(o, n) for n in o.__struct_fields__} | ({} if o.filled else {"ended_ns": None})) for o in orders
    ]
    found = check(track(fills), track(fills), open_, orders)
    assert {d.live_share for d in found.deciles} == {1.0} and all(d.paper_share < 1 for d in found.deciles)


def test_the_simulator_error_is_the_difference_of_pnl_without_transfers():
    points = [Point(T0 + HOUR, 1_003 * CASH_PER_USD, 0), Point(T0 + 5 * HOUR, 1_010 * CASH_PER_USD, 0)]
    live = track(lived(2)[1], gain=520 * CASH_PER_USD, money=[Money(ts=T0 + 2 * HOUR, kind="transfer", amount=500 * CASH_PER_USD)])
    paper = track(lived(1)[1], hours=8, points=points, gain=12 * CASH_PER_USD)
    found = check(live, paper, lived(2)[0], lived(1)[0])
    assert found.paper_pnl == 12 * CASH_PER_USD
    assert found.live_pnl == -500 * CASH_PER_USD, "the equity of 8 h is not known; the start cash stands, less the transfer"
    paper = track(lived(1)[1], points=points, gain=12 * CASH_PER_USD)
    found = check(live, paper, lived(2)[0], lived(1)[0])
    assert (found.live_pnl, found.error) == (20 * CASH_PER_USD, -8 * CASH_PER_USD)
    assert lines(found)[-1] == "P&L: +12.00 USD simulated, +20.00 USD live; simulator error -8.00 USD"


@pytest.mark.parametrize("seed", range(6))
def test_the_two_sample_test_agrees_with_scipy(seed):
    stats = pytest.importorskip("scipy.stats")
    dice = np.random.default_rng(seed)
    one, two = dice.exponential(1.0, 40 + 30 * seed), dice.exponential(1.0 + 0.2 * seed, 200)
    if seed == 0:
        one, two = np.round(one, 1), np.round(two, 1)
    distance, p = ks(one, two)
    oracle = stats.ks_2samp(one, two, method="asymp")
    assert distance == pytest.approx(oracle.statistic, abs=1e-12)
    assert p == pytest.approx(oracle.pvalue, abs=0.02)
    assert ks(one, one) == (0.0, 1.0)


# Logs.


def line(at_ms, event, order_id="1-1", account="main", **more):
    told = {"timestamp": iso(T0 + at_ms * NS_PER_MS), "event": event, "market_id": "M", "order_id": order_id}
    return json.dumps({**told, "account": account, "mode": "live", **more})


def test_lives_are_read_from_the_log_and_the_rotated_one_before_it(tmp_path):
    path = tmp_path / "executions.jsonl"
    order = {"side": "buy", "token": "no", "yes_price": 0.53, "price": 0.47, "size": 12.5}
    older = [line(0, "order", ahead=31.0, **order), line(250, "accepted"), line(900, "fill", size=5.0)]
    newer = [
        line(1_000, "order", "1-2", **order | {"token": "yes", "side": "buy", "yes_price": 0.47}),
        line(1_000, "order", "2-1", account="twin", **order),
        line(1_000, "order", "1-3", **order), line(1_200, "rejected", "1-3"),
        line(1_500, "fill", size=7.5), line(2_000, "cancel", "1-2"), line(2_100, "canceled", "1-2"),
        line(2_200, "fill", "elsewhere", size=7.5), line(2_300, "order", "1-4", **order | {"market_id": "other"}),
        line(2_500, "order", "1-5", **order), '{"timestamp": "2026',
    ]  # fmt: skip
    path.with_name("executions.jsonl.1").write_text("\n".join(older) + "\n")
    path.write_text("\n".join(newer))
    first, second, last = read_orders(path, "main", QUOTED)
    assert first == OrderLife(
        order_id="1-1", instrument="M", side=-1, price=5_300, qty=1_250, placed_ns=T0, first_fill_ns=T0 + 900 * NS_PER_MS,
        ended_ns=T0 + 1_500 * NS_PER_MS, filled=1_250, ahead=3_100,
    )  # fmt: skip
    assert (second.side, second.price, second.ended_ns, second.filled, second.ahead) == (1, 4_700, T0 + 2_100 * NS_PER_MS, 0, None)
    assert last.order_id == "1-5" and last.ended_ns is None
    assert [o.order_id for o in read_orders(path, "twin", QUOTED)] == ["2-1"] and read_orders(
        path, "main", QUOTED, mode="paper"
    ) == []
    path.write_text("\n".join([newer[0], "damage", newer[0]]) + "\n")
    with pytest.raises(ValueError, match="line 2 is no line"):
        read_orders(path, "main", QUOTED)


def test_a_run_of_ours_is_read_whole(tmp_path):
    """A simulated run: the lives of its log are the orders and fills that the core counted."""
    world = World(seed=3, activity=400.0)
    recorder = Recorder(world.engine.state, Scope("simulated", "paper", "paper", "main"), None, tmp_path / "logs", simulated=True)
    world.run(tmp_path / "journal", 200, recorder=recorder)
    recorder.close()
    state = world.engine.state
    instruments = {
        m.instrument.id: Quoted(name="", price_scale=10_000, qty_scale=10**6, payout=10_000) for m in state.markets.values()
    }
    lives = read_orders(tmp_path / "logs" / "executions.jsonl", "main", instruments)
    assert len(lives) > 10 and sum(o.filled > 0 for o in lives) > 5
    assert len({o.order_id for o in lives}) == len(lives) <= state.counts.placed
    assert sum(o.filled for o in lives) == sum(m.position.volume for m in state.markets.values())
    assert all(o.ended_ns is not None and o.filled <= o.qty for o in lives) and len({o.ahead for o in lives}) > 3
    mine = track(start=lives[0].placed_ns, instruments=instruments)
    own = check(mine, mine, lives, lives)
    assert own.by == "queue ahead" and own.gap == 0.0 and all(d.paper_share == d.live_share for d in own.deciles)
