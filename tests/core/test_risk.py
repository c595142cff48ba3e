"""Limits: every gate at its boundary, every cap in `shape`, every refusal of `gate`, the message budget, steadiness."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.console import view
from llm_maker.core import events as ev
from llm_maker.core import risk
from llm_maker.core.advice import Grade
from llm_maker.core.commands import CancelOrder, PlaceOrder, TimeInForce
from llm_maker.core.orders import Status, new
from llm_maker.core.state import Halt, refresh_exposure
from llm_maker.core.strategy import QuoteTarget
from llm_maker.core.values import NS_PER_S, FixedGrid, Leg, Mode, Regime, Side
from tests.core.builders import SHARE, USD, Rig, advice, binary, linear, places

BUY, SELL = Side.BUY, Side.SELL
HOUR = 3_600 * NS_PER_S
NAMES = ("mode", "account", "venue", "silence", "lag", "book", "resolution", "schedule", "pull", "market", "cooldown", "positions")


def venue(rig):
    return rig.state.venues["v"]


def instrument(rig, **changes):
    market = rig.market()
    market.instrument = msgspec.structs.replace(market.instrument, **changes)


def stormy(rig, ratio):
    estimators = rig.market().estimators
    estimators.steps, estimators.sig_5m, estimators.sig_5m_median, estimators.sig_calm = 100, ratio, 1.0, 0.0


def gone(rig, seconds):
    """So long ago, in ns of market time."""
    return rig.now - int(seconds * NS_PER_S)


def later(rig, seconds, *, trade=False):
    """The clock moves on; a trade prints, and the book says nothing."""
    rig.wait(seconds)
    rig.state.now = venue(rig).heard_ns = rig.now
    if trade:
        rig.market().last_trade_ns = rig.now


# What is done to an open market -> (gate, its mode, whether it pulls, words its text must hold).
A, R, H = Mode.ACTIVE, Mode.REDUCE_ONLY, Mode.HALTED
TABLE = [
    (lambda r: None, "mode", A, False, "active"),
    (lambda r: setattr(r.state, "operator_mode", R), "mode", R, False, "by the operator"),
    (lambda r: setattr(r.state, "operator_mode", H), "mode", H, True, "paused"),
    (lambda r: r.state.halts.update(drawdown=Halt(0, 0, "drawdown $61")), "mode", H, True, "drawdown $61"),
    (lambda r: setattr(r.state, "stopping", "ctrl-c"), "mode", H, True, "stopping: ctrl-c"),
    (lambda r: setattr(r.state, "account_known", False), "account", H, True, "not yet said"),
    (lambda r: None, "account", A, False, "known"),
    (lambda r: setattr(venue(r), "up", False), "venue", H, True, "v is down"),
    (lambda r: setattr(venue(r), "regime", Regime.CANCEL_ONLY), "venue", H, True, "cancel_only"),
    (lambda r: setattr(venue(r), "regime", Regime.RESTART), "venue", H, True, "restart"),
    (lambda r: setattr(venue(r), "regime", Regime.CLOSED), "venue", H, True, "closed"),
    (lambda r: setattr(venue(r), "regime", Regime.POST_ONLY), "venue", A, False, "post_only"),
    (lambda r: setattr(venue(r), "heard_ns", gone(r, 10)), "silence", A, False, "10.0s ago, limit 10.0s"),
    (lambda r: setattr(venue(r), "heard_ns", gone(r, 10) - 1), "silence", H, True, "limit 10.0s"),
    (lambda r: setattr(venue(r), "lagging", True), "lag", H, True, "limit 1.0s"),
    (lambda r: setattr(venue(r).lag, "lag_ns", 900_000_000), "lag", A, False, "feed lag 0.9s"),
    (lambda r: setattr(venue(r), "delayed", True), "lag", H, True, "our loop was late"),
    (lambda r: setattr(venue(r), "delayed", False), "lag", A, False, ""),
    (lambda r: r.market().book.lose(r.now, "best_missing"), "book", H, True, "best_missing"),
    (lambda r: setattr(r.market().book, "best_bid", r.market().book.best_ask), "book", H, True, "crossed: bid 0.52 ask 0.52"),
    (lambda r: r.book(bids=(), asks=()), "book", H, True, "empty on both sides"),
    (lambda r: r.book(asks=()), "book", A, False, "bid 0.5 ask 0"),
    (lambda r: later(r, 61, trade=True), "book", H, True, "book is 61.0s old"),
    (lambda r: later(r, 60, trade=True), "book", A, False, "60.0s old"),
    (lambda r: later(r, 600), "book", A, False, "600.0s old"),
    (lambda r: setattr(r.market(), "resolved", 10_000), "resolution", H, True, "resolved at 1"),
    (lambda r: instrument(r, guard_end=True, end_ns=r.now + 2 * HOUR - 1), "resolution", H, True, "2.0h to the end"),
    (lambda r: instrument(r, guard_end=True, end_ns=r.now + 2 * HOUR), "resolution", R, False, "2.0h to the end"),
    (lambda r: instrument(r, guard_end=True, end_ns=r.now + 24 * HOUR - 1), "resolution", R, False, "24.0h"),
    (lambda r: instrument(r, guard_end=True, end_ns=r.now + 24 * HOUR), "resolution", A, False, "24.0h"),
    (lambda r: instrument(r, guard_end=True), "resolution", A, False, "end time unknown"),
    (lambda r: instrument(r, end_ns=r.now), "resolution", A, False, "guard off"),
    (lambda r: instrument(r, start_ns=r.now + 600 * NS_PER_S - 1), "schedule", H, True, "starts in 600.0s"),
    (lambda r: instrument(r, start_ns=r.now + 600 * NS_PER_S), "schedule", A, False, "600.0s"),
    (lambda r: instrument(r, start_ns=r.now - 599 * NS_PER_S), "schedule", H, True, "-599.0s"),
    (lambda r: instrument(r, start_ns=r.now - 600 * NS_PER_S), "schedule", A, False, "-600.0s"),
    (lambda r: None, "schedule", A, False, "no scheduled start"),
    (lambda r: setattr(r.market(), "pulled_until", r.now + 1), "pull", H, True, "out for"),
    (lambda r: setattr(r.market(), "pulled_until", r.now), "pull", A, False, "usual"),
    (lambda r: stormy(r, 8.1), "pull", H, True, "8.1x its usual, widen at 4x, pull at 8x"),
    (lambda r: stormy(r, 8.0), "pull", A, False, "8.0x"),
    (lambda r: None, "market", A, False, "in the universe"),
    (lambda r: setattr(r.market(), "operator_mode", R), "market", R, False, "by the operator"),
    (lambda r: setattr(r.market(), "operator_mode", H), "market", H, True, "halted"),
    (lambda r: r.send(ev.InstrumentDropped("m", "delisted")), "market", R, False, "left the universe: delisted"),
    (lambda r: setattr(r.market(), "cooldown_until", r.now + 5 * NS_PER_S), "cooldown", R, False, "5.0s"),
    (lambda r: setattr(r.market(), "cooldown_until", r.now), "cooldown", A, False, ""),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(TABLE)))
def test_every_gate_at_its_boundary(case):
    change, name, mode, pull, text = TABLE[case]
    rig = Rig().start()
    change(rig)
    gate = next(g for g in risk.chain(rig.state, rig.market()) if g.name == name)
    assert (gate.mode, gate.pull) == (mode, pull), gate.text
    assert text in gate.text
    allowed = risk.allowance(rig.state, rig.market())
    assert allowed.pull or allowed.mode is H or not pull, "a gate that pulls decides"


def test_the_table_tests_every_gate_open_and_shut_and_the_chain_names_each_once():
    rig = Rig().start()
    assert tuple(g.name for g in risk.chain(rig.state, rig.market())) == NAMES
    for name in NAMES[:-1]:
        assert {mode is A for _, gate, mode, _, _ in TABLE if gate == name} == {True, False}, name


def test_an_open_market_is_active():
    rig = Rig().start()
    assert risk.allowance(rig.state, rig.market()) == risk.Gate("open", A, "every gate is open")


def test_the_strictest_gate_speaks_and_of_equals_the_first():
    rig = Rig().start()
    rig.market().cooldown_until = rig.now + 1
    rig.send(ev.InstrumentDropped("m", "x"))
    assert risk.allowance(rig.state, rig.market()).name == "market"
    rig.market().pulled_until = rig.now + 1
    assert risk.allowance(rig.state, rig.market()).name == "pull"


@pytest.mark.parametrize(("field", "gate"), [({"end_ns": 1 << 62}, "schedule"), ({"start_ns": 1 << 62}, "resolution")])
def test_live_takes_no_new_risk_where_start_or_end_is_unknown(field, gate):
    rig = Rig(live=True).start(binary(guard_end=True, guard_start=True, **field))
    allowed = risk.allowance(rig.state, rig.market())
    assert (allowed.name, allowed.mode) == (gate, R)


def test_a_new_market_is_not_opened_beyond_the_limit_and_what_is_quoted_or_held_goes_on():
    rig = Rig(wants=((BUY, 5000, 10 * SHARE),), max_open_positions=2).start(*(binary(n) for n in "abc"))
    rig.run(2)
    quoted = [n for n in "abc" if rig.market(n).live]
    assert len(quoted) == 2, "what rests may fill everywhere at once"
    (out,) = set("abc") - set(quoted)
    assert risk.allowance(rig.state, rig.market(out)).mode is R
    assert "2 markets held or quoted, limit 2" in risk.allowance(rig.state, rig.market(out)).text
    rig.hold(BUY, 5000, 10 * SHARE, quoted[0])
    for name in quoted:
        assert risk.gate_positions(rig.state, rig.market(name), venue(rig)).mode is A


def test_a_storm_doubles_the_width_and_halves_the_size_and_a_pull_doubles_the_width():
    rig = Rig().start()
    market = rig.market()
    assert (risk.widen(rig.state, market), risk.slim(rig.state, market)) == (1.0, 1.0)
    stormy(rig, 4.1)
    assert (risk.widen(rig.state, market), risk.slim(rig.state, market)) == (2.0, 0.5)
    market.cautious_until = rig.now + 1
    assert (risk.widen(rig.state, market), risk.slim(rig.state, market)) == (4.0, 0.5)
    stormy(rig, 4.0)
    assert (risk.widen(rig.state, market), risk.slim(rig.state, market)) == (2.0, 1.0)


# Shape.


def fit(rig, side, price, shares, name="m"):
    """(shares that pass, reasons) of one target under the present allowance."""
    market = rig.market(name)
    unit = 10**market.instrument.qty_decimals
    target = QuoteTarget(side, price, round(shares * unit), "test")
    shaped = risk.shape(rig.state, market, [target], risk.allowance(rig.state, market))
    return (shaped.targets[0].qty / unit if shaped.targets else 0), shaped.refusals


WIDE = {"market_ratio": 10.0, "event_ratio": 10.0, "cluster_ratio": 10.0, "gross_ratio": 10.0, "max_order_cost": 10**6 * USD}
"""No cap but the one that a test sets (bankroll 10,000 USD; a share at 0.50 costs 0.50)."""


def capped(**changes):
    return Rig(**WIDE | {"max_position_milli": 10**9} | changes)


@pytest.mark.parametrize(
    ("reason", "limits", "shares"),
    [
        ("order cap", {"max_order_cost": 30 * USD}, 60),
        ("market cap", {"market_ratio": 0.003}, 60),
        ("event cap", {"event_ratio": 0.003}, 60),
        ("cluster cap", {"cluster_ratio": 0.003}, 60),
        ("gross cap", {"gross_ratio": 0.003}, 60),
        ("free cash", {"free_cash_ratio": 0.997}, 60),
        ("position cap", {"max_position_milli": 60_000}, 60),
    ],
)
@pytest.mark.parametrize("side", [BUY, SELL])
def test_each_cap_cuts_both_sides_to_its_number(side, reason, limits, shares):
    rig = capped(**limits).start()
    assert fit(rig, side, 5000, shares + 10) == (shares, [f"{side.name.lower()} {reason}"])
    assert fit(rig, side, 5000, shares) == (shares, [])


def test_a_cap_counts_what_a_token_costs_on_its_own_side():
    rig = capped(market_ratio=0.003).start()
    assert fit(rig, BUY, 2000, 1000)[0] == 150
    assert fit(rig, SELL, 2000, 1000)[0] == 37.5
    assert fit(rig, SELL, 8000, 1000)[0] == 150


def test_what_is_left_below_the_smallest_order_is_dropped_with_its_reason():
    rig = capped(market_ratio=0.0002).start()
    assert fit(rig, BUY, 5000, 50) == (0, ["buy market cap"])


def test_the_position_cap_counts_the_position_of_that_side_only():
    rig = capped(max_position_milli=100_000).start()
    rig.hold(BUY, 5000, 80 * SHARE)
    assert fit(rig, BUY, 5000, 50) == (20, ["buy position cap"])
    assert fit(rig, SELL, 5200, 300) == (180, ["sell position cap"])


@pytest.mark.parametrize("limits", [dict.fromkeys(("market_ratio", "event_ratio", "gross_ratio"), 0.0), {"max_order_cost": 0},
                                    {"max_position_milli": 0}, {"free_cash_ratio": 1.0}])  # fmt: skip
def test_what_reduces_is_blocked_by_no_cap(limits):
    rig = capped(**limits).start()
    rig.hold(BUY, 5000, 80 * SHARE)
    assert fit(rig, SELL, 5200, 80) == (80, [])
    size, refusals = fit(rig, SELL, 5200, 90)
    assert size == 80 and refusals, "and what is beyond flat is new risk"
    command = order(SELL, 5200, 80)
    assert refusal(rig, command) == ""


def test_in_reduce_only_an_order_takes_no_more_than_the_position():
    rig = capped().start()
    rig.hold(SELL, 5000, 30 * SHARE)
    rig.market().operator_mode = R
    assert fit(rig, BUY, 5000, 50) == (30, ["buy market"])
    assert fit(rig, BUY, 5000, 30) == (30, [])
    assert fit(rig, SELL, 5200, 50) == (0, ["sell market"])


def test_halted_wants_nothing_at_all():
    rig = capped().start()
    rig.market().pulled_until = rig.now + 1
    assert fit(rig, BUY, 5000, 50) == (0, ["both pull"])


def test_the_sum_over_an_event_counts_unless_one_outcome_excludes_the_others():
    for exclusive in (False, True):
        rig = capped(event_ratio=0.01).start(*(binary(n, event_id="e", exclusive=exclusive) for n in "abc"))
        # NO of b and of c at 0.40 each: both lose only where both outcomes can come true.
        rig.hold(SELL, 6000, 50 * SHARE, "b")
        rig.hold(SELL, 2000, 50 * SHARE, "c")
        lost = {False: 20 + 40, True: max(20 - 10, 40 - 30)}[exclusive]
        assert fit(rig, BUY, 5000, 1000, "a")[0] == (100 - lost) / 0.5, exclusive


def test_in_an_exclusive_event_the_worst_outcome_of_the_others_counts():
    rig = capped(event_ratio=0.01).start(*(binary(n, event_id="e", exclusive=True) for n in "abc"))
    rig.hold(BUY, 3000, 100 * SHARE, "b")
    rig.hold(BUY, 3000, 100 * SHARE, "c")
    # Neither may win: 60 of the 100 USD are gone.
    assert fit(rig, BUY, 5000, 1000, "a") == (80, ["buy event cap"])


def test_a_cluster_sums_over_events():
    rig = capped(cluster_ratio=0.01).start(*(binary(n, event_id=n, cluster="k") for n in "ab"), binary("z"))
    rig.hold(BUY, 3000, 200 * SHARE, "b")
    assert fit(rig, BUY, 5000, 1000, "a") == (80, ["buy cluster cap"])
    assert fit(rig, BUY, 5000, 1000, "z")[0] == 200


@pytest.mark.parametrize(("grade", "shares"), [(Grade.HIGH, 200), (Grade.MEDIUM, 180), (Grade.LOW, 160)])
def test_lower_priority_leaves_part_of_the_gross_cap_to_others(grade, shares):
    rig = capped(gross_ratio=0.01).start()
    rig.advise(advice(priority=grade))
    assert fit(rig, BUY, 5000, 1000) == (shares, ["buy gross cap"])
    rig.wait(30 * 3_600)
    rig.send(ev.VenueUp("v", True))
    assert fit(rig, BUY, 5000, 1000)[0] == 200, "past its expiry a signal is nothing"


def test_gross_counts_what_rests_elsewhere():
    rig = capped(gross_ratio=0.01, wants=((BUY, 5000, 100 * SHARE),)).start(binary("a"))
    assert len(rig.live(BUY, "a")) == 1
    rig.send(ev.InstrumentListed(binary("b")))
    rig.state.markets["b"].book.apply_snapshot(ev.BookSnapshot("b", ((5000, 1),), ((5200, 1),), 0), rig.now)
    assert fit(rig, BUY, 5000, 1000, "b") == (100, ["buy gross cap"])


def test_foreign_shares_count_in_the_worst_case_of_their_market():
    rig = capped(market_ratio=0.01).start()
    rig.market().position.set_foreign(Leg.YES, 100 * SHARE)
    # 100 shares at the mark of 0.51.
    assert fit(rig, BUY, 5000, 1000)[0] == 98


def test_a_linear_instrument_is_capped_by_the_stress_of_its_price():
    rig = Rig(**WIDE | {"market_ratio": 0.01}, base_cash=10_000 * USD, max_position_cash=10**6 * USD).start(linear())
    rig.book("l", ((6_800_012, 5_000),), ((6_800_112, 5_000),))
    rig.market("l").pulled_until = 0
    size, refusals = fit(rig, BUY, 6_800_000, 1.0, "l")
    # 100 USD / (20 % of 68,000) = 0.00735 contracts.
    assert (size, refusals) == (0.007, ["buy market cap"])
    assert refusal(rig, order(BUY, 6_800_000, 0.007, "l", Leg.NONE), "l") == ""
    assert refusal(rig, order(BUY, 6_800_000, 0.008, "l", Leg.NONE), "l") == "market cap"


# Gate.

_numbers = itertools.count(1)


def order(side, price, shares, name="m", leg=None, *, post_only=True, reduce_only=False):
    unit = 1000 if leg is Leg.NONE else SHARE
    leg = leg or (Leg.YES if side is BUY else Leg.NO)
    tif = TimeInForce.GTC if post_only else TimeInForce.IOC
    return PlaceOrder(f"t-{next(_numbers)}", name, side, leg, price, round(shares * unit), tif, post_only, reduce_only, "test")


def refusal(rig, command, name="m"):
    market = rig.market(name)
    return risk.gate(rig.state, market, command, risk.allowance(rig.state, market))


def rest(rig, side, price, shares, *, status=Status.OPEN, name="m"):
    """An order of ours that rests, whatever the strategy wants."""
    made = new(order(side, price, shares, name), rig.now)
    made.status = status
    rig.state.orders[made.order_id] = made
    rig.market(name).live.append(made.order_id)
    refresh_exposure(rig.state, rig.market(name))
    return made


ODD = {"grid": FixedGrid(200), "qty_step": SHARE}
REFUSALS = [
    ("pull", {}, lambda r: setattr(r.market(), "pulled_until", r.now + 1), order(BUY, 5000, 50)),
    ("mode", {}, lambda r: setattr(r.state, "operator_mode", H), order(BUY, 5000, 50)),
    ("size", {}, lambda r: None, order(BUY, 5000, 4.99)),
    ("size", ODD, lambda r: None, order(BUY, 5000, 50.5)),
    ("off grid", {}, lambda r: None, order(BUY, 4950, 50)),
    ("off grid", {}, lambda r: None, order(BUY, 0, 50)),
    ("off grid", {}, lambda r: None, order(SELL, 10_000, 50)),
    ("would cross", {}, lambda r: None, order(BUY, 5200, 50)),
    ("would cross", {}, lambda r: None, order(SELL, 5000, 50)),
    ("fat finger", {}, lambda r: None, order(BUY, 5700, 50, post_only=False)),
    ("fat finger", {}, lambda r: None, order(SELL, 4500, 50, post_only=False)),
    ("fat finger", {}, lambda r: setattr(r.market().estimators, "fair", 0.0), order(BUY, 5000, 50)),
    ("own cross", {}, lambda r: rest(r, SELL, 5100, 50), order(BUY, 5100, 50)),
    ("own cross", {}, lambda r: rest(r, BUY, 5100, 50, status=Status.UNKNOWN), order(SELL, 5100, 50)),
    ("own cross", {}, lambda r: rest(r, BUY, 5100, 50, status=Status.PENDING_CANCEL), order(SELL, 5100, 50)),
    ("not reducing", {}, lambda r: r.hold(BUY, 5000, 40 * SHARE), order(SELL, 5200, 50, reduce_only=True)),
    ("not reducing", {}, lambda r: setattr(r.state, "operator_mode", R), order(BUY, 5000, 50)),
    ("position cap", {}, lambda r: r.hold(BUY, 5000, 180 * SHARE), order(BUY, 5000, 50)),
    ("position cap", {}, lambda r: rest(r, BUY, 5000, 180), order(BUY, 5000, 50)),
]


@pytest.mark.parametrize("case", range(len(REFUSALS)))
def test_every_refusal_that_is_no_money(case):
    reason, rules, change, command = REFUSALS[case]
    rig = Rig().start(binary(**rules))
    rig.wait(1)
    change(rig)
    assert refusal(rig, command) == reason


@pytest.mark.parametrize("case", ["order cap", "free cash", "market cap", "gross cap", "event cap", "cluster cap"])
def test_every_money_refusal_counts_what_is_live_in_flight_or_unknown(case):
    limits = {
        "order cap": {"max_order_cost": 25 * USD - 1}, "free cash": {"free_cash_ratio": 0.995},
        "market cap": {"market_ratio": 0.005}, "gross cap": {"gross_ratio": 0.005},
        "event cap": {"event_ratio": 0.005}, "cluster cap": {"cluster_ratio": 0.005},
    }[case]  # fmt: skip
    other = "m" if case == "market cap" else "b"
    for status in (Status.PENDING_NEW, Status.OPEN, Status.PENDING_CANCEL, Status.UNKNOWN):
        rig = capped(**limits).start(*(binary(n, event_id="e", cluster="k") for n in "mb"))
        command = order(BUY, 5000, 50)
        if case != "order cap":
            assert refusal(rig, command) == ""
            rest(rig, BUY, 5000, 50, status=status, name=other)
            assert refusal(rig, command) == "", "exactly at the limit"
            rest(rig, BUY, 5000, 5, status=status, name=other)
        assert refusal(rig, command) == case


def test_what_another_order_already_reduces_is_not_reduced_twice():
    rig = capped(market_ratio=0.0).start()
    rig.hold(BUY, 5000, 80 * SHARE)
    for status in (Status.OPEN, Status.PENDING_CANCEL, Status.UNKNOWN):
        other = rest(rig, SELL, 5300, 50, status=status)
        assert refusal(rig, order(SELL, 5200, 30)) == ""
        assert refusal(rig, order(SELL, 5200, 31)) == "market cap", "the rest is new risk"
        assert refusal(rig, order(SELL, 5200, 31, reduce_only=True)) == "not reducing"
        rig.market().live.remove(other.order_id)


def test_the_order_cap_counts_the_part_that_adds():
    """An order through flat is new risk only beyond flat, whichever token it trades."""
    rig = capped(max_order_cost=10 * USD).start()
    rig.hold(BUY, 5000, 80 * SHARE)
    assert refusal(rig, order(SELL, 5200, 100)) == ""
    assert refusal(rig, order(SELL, 5200, 101)) == "order cap"
    assert refusal(rig, order(SELL, 5200, 101, leg=Leg.YES)) == "order cap", "selling a token that frees cash is risk as well"


@pytest.mark.parametrize("mid", [300, 5_100, 9_700])
def test_the_fat_finger_band_of_a_mirrored_market_is_the_mirrored_band(mid):
    def reach(middle, side):
        rig = Rig().start()
        rig.move(middle)
        rig.market().pulled_until, rig.market().estimators.fair = 0, float(middle)
        prices = range(100, 10_000, 100)
        return [p for p in prices if refusal(rig, order(side, p, 10, post_only=False)) != "fat finger"]

    assert reach(mid, BUY) == sorted(10_000 - p for p in reach(10_000 - mid, SELL))


def test_gate_only_refuses():
    rig = capped().start()
    before = rig.saved()
    refusal(rig, order(BUY, 5000, 50))
    assert rig.saved() == before


@settings(max_examples=60, deadline=None)
@given(
    st.integers(-200, 200), st.integers(2, 98), st.integers(1, 4), st.integers(5, 300), st.sampled_from([BUY, SELL]),
    st.fixed_dictionaries({}, optional={
        "market_ratio": st.floats(0.0, 0.02), "event_ratio": st.floats(0.0, 0.02), "gross_ratio": st.floats(0.0, 0.02),
        "cluster_ratio": st.floats(0.0, 0.02), "free_cash_ratio": st.floats(0.9, 1.0),
        "max_position_milli": st.integers(0, 300_000), "max_order_cost": st.integers(0, 100 * USD),
    }),
    st.booleans(),
)  # fmt: skip
def test_a_shaped_target_always_passes_the_gate(net, bid, width, shares, side, limits, elsewhere):
    """With nothing of ours resting in the market: shape and gate measure by one yardstick, to the unit."""
    width = min(width, 99 - bid)
    rig = Rig(**limits).start(*(binary(n, event_id="e", cluster="k") for n in "mb"))
    rig.book(bids=((bid * 100, 500 * SHARE),), asks=(((bid + width) * 100, 500 * SHARE),))
    if net:
        rig.hold(Side(1 if net > 0 else -1), 5000, abs(net) * SHARE)
    if elsewhere:
        rig.hold(SELL, 3000, 7 * SHARE, "b")
    market = rig.market()
    allowed = risk.allowance(rig.state, market)
    price = (bid if side is BUY else bid + width) * 100
    for target in risk.shape(rig.state, market, [QuoteTarget(side, price, shares * SHARE, "")], allowed).targets:
        assert refusal(rig, order(side, price, target.qty / SHARE)) == ""


# Messages.


def test_places_leave_a_fifth_of_the_budget_to_cancels_and_it_refills_with_time():
    rig = Rig(messages_per_10s=20).start()
    params, where = rig.state.params, venue(rig)
    where.budget_ns = 0
    sent = sum(risk.spend_message(where, params, rig.now, cancel=False) for _ in range(50))
    assert sent == 16
    assert sum(risk.spend_message(where, params, rig.now, cancel=True) for _ in range(50)) == 4
    later = rig.now + 5 * NS_PER_S
    assert sum(risk.spend_message(where, params, later, cancel=True) for _ in range(50)) == 10
    assert not risk.spend_message(where, params, later, cancel=False)
    full = later + 60 * NS_PER_S
    assert sum(risk.spend_message(where, params, full, cancel=False) for _ in range(50)) == 16


def test_cancels_are_sent_even_beyond_the_budget_and_places_are_refused_by_name():
    rig = Rig(wants=((BUY, 5000, 10 * SHARE), (SELL, 5200, 10 * SHARE)), messages_per_10s=2).start()
    assert len(rig.live()) == 1, "one place, then a fifth is kept"
    assert rig.state.refused["message budget"].count == 1
    rig.ack()
    venue(rig).budget = 0.0
    out = rig.send(ev.OperatorActed(ev.Verb.PAUSE, "test"))
    assert [type(c) for c in out if isinstance(c, PlaceOrder | CancelOrder)] == [CancelOrder]


@pytest.mark.parametrize("holds", [BUY, SELL])
def test_where_messages_suffice_for_one_side_the_reducing_one_goes(holds):
    rig = Rig(wants=((BUY, 5000, 10 * SHARE), (SELL, 5200, 10 * SHARE)), messages_per_10s=2)
    rig.listed()
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    rig.hold(holds, 5000, 30 * SHARE)
    rig.book()
    assert [o.side for o in rig.live()] == [holds.other]


# Steadiness and episodes.


@pytest.mark.parametrize(
    ("reason", "limits"),
    [
        ("order cap", {"max_order_cost": 12 * USD}),
        ("market cap", {"market_ratio": 0.0012}),
        ("event cap", {"event_ratio": 0.0012}),
        ("cluster cap", {"cluster_ratio": 0.0012}),
        ("gross cap", {"gross_ratio": 0.0012}),
        ("free cash", {"free_cash_ratio": 0.9988}),
        ("position cap", {"max_position_milli": 23_000}),
        ("message budget", {"messages_per_10s": 2}),
        ("market", {}),
    ],
)
def test_steady_input_under_a_binding_cap_sends_nothing_after_the_first_pass(reason, limits):
    rig = capped(wants=((BUY, 5000, 50 * SHARE), (SELL, 5200, 50 * SHARE)), **limits)
    rig.listed(*(binary(n, event_id="e", cluster="k") for n in "mb"))
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    if reason == "market":
        rig.hold(BUY, 5000, 23 * SHARE)
        rig.market().operator_mode = R
    rig.book()
    rig.book("b")
    rig.ack()
    rig.run(12 if reason == "message budget" else 2)
    rig.ack()
    assert reason in rig.state.refused
    assert rig.live(), "something rests"
    counted = {k: t.count for k, t in rig.state.refused.items()}
    out = rig.run(20)
    if reason != "message budget":
        assert not [c for c in out if isinstance(c, PlaceOrder | CancelOrder)]
        assert {k: t.count for k, t in rig.state.refused.items()} == counted, "one episode, however often it is looked at"


def test_an_episode_counts_once_and_with_its_duration():
    rig = Rig(wants=((BUY, 5000, 50 * SHARE),), market_ratio=0.0).start()
    tally = rig.state.refused["market cap"]
    rig.run(10)
    assert (tally.count, tally.ns) == (1, 0), "its time is added when it ends"
    rig.market().pulled_until = rig.now + 3 * NS_PER_S
    rig.run(2)
    assert tally.count == 1 and 10 <= tally.ns / NS_PER_S <= 11
    rig.run(4)
    assert tally.count == 2, "a new episode after a break"
    assert 2 <= rig.state.refused["pull"].ns / NS_PER_S <= 4


def test_an_episode_ends_though_two_quotes_of_a_side_are_now_refused_for_one_other_reason():
    rig = Rig(wants=((BUY, 5000, 50 * SHARE),), market_ratio=0.0).start()
    assert list(rig.market().refusals) == ["buy market cap"]
    rig.state.strategy_params = type(rig.state.strategy_params)(((BUY, 5000, 50 * SHARE), (BUY, 4900, 50 * SHARE)))
    rig.state.params = msgspec.structs.replace(
        rig.state.params, risk=msgspec.structs.replace(rig.state.params.risk, market_ratio=1.0, max_order_cost=0)
    )
    rig.book()
    assert list(rig.market().refusals) == ["buy order cap"]


def test_a_refused_place_leaves_no_trace_but_its_reason():
    rig = Rig(wants=((BUY, 5200, 50 * SHARE),)).start()
    assert not places(rig.log) and not rig.live() and rig.state.reserved == 0
    assert list(rig.market().refusals) == ["buy would cross"]


def test_the_caps_that_why_prints_carry_their_numbers():
    rig = Rig(wants=((BUY, 5000, 50 * SHARE),)).start()
    assert view.caps(rig.state, rig.market()) == {
        "position": "0 of 200",
        "market": "worst case $25.00 (position alone $0.00) of $200.00",
        "gross": "$25.00 of $5000.00",
        "free cash": "$9975.00, at least $2000.00",
    }
