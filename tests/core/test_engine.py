"""The engine on its feeds and its people: gaps, lag, silence, clocks, regimes, the universe, operators, intents."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core import events as ev
from llm_maker.core.commands import CancelOrder, Level, PlaceOrder, RequestSnapshot, Stop
from llm_maker.core.engine import new_state
from llm_maker.core.orders import Status
from llm_maker.core.risk import chain
from llm_maker.core.values import NS_PER_MS, NS_PER_S, FixedGrid, Leg, Mode, Regime, Side
from tests.core.builders import (
    BOOK,
    CASH,
    SHARE,
    USD,
    Rig,
    Scripted,
    Wants,
    acts,
    advice,
    binary,
    linear,
    notices,
    of,
    params,
    places,
)

BUY, SELL = Side.BUY, Side.SELL
BOTH = ((1, 5000, 20 * SHARE), (-1, 5200, 20 * SHARE))
NOW = 1_000


def resting(*instruments, wants=BOTH, **changes) -> Rig:
    rig = Rig(wants=wants, **changes).start(*instruments)
    rig.ack()
    assert all(o.status is Status.OPEN for o in rig.state.orders.values()) and len(rig.state.orders) >= 2
    return rig


def pulled(rig: Rig, commands, name="m") -> bool:
    """Every order of ours there was canceled by these commands and none was placed."""
    gone = {c.order_id for c in of(commands, CancelOrder)}
    return places(commands) == [] and {o.order_id for o in rig.live(name=name)} <= gone and bool(gone)


def back(rig: Rig, name="m") -> bool:
    """Both sides are quoted again once the venue has answered."""
    for _ in range(3):
        rig.ack()
        rig.run(1)
    return len(rig.live(name=name)) == 2


def closed_by(rig: Rig, name="m") -> list[str]:
    return [g.name for g in chain(rig.state, rig.market(name)) if g.pull]


def delta(rig: Rig, bids=(), asks=(), best=(5000, 5200), name="m", late=0.0, ts=None) -> list:
    stamp = rig.now - int(late * NS_PER_S) if ts is None else ts
    return rig.send(ev.BookDelta(name, tuple(bids), tuple(asks), *best, stamp))


# Gaps.


def test_a_best_that_our_book_lacks_is_a_gap_pulled_at_once():
    rig = resting()
    rig.wait(1)
    out = delta(rig, best=(5100, 5200))
    assert pulled(rig, out) and [c.instrument for c in of(out, RequestSnapshot)] == ["m"]
    assert rig.state.counts.gaps == 1 and notices(out, "gap") and closed_by(rig) == ["book"]


def test_a_gap_asks_again_every_five_seconds_and_never_quotes_meanwhile():
    rig = resting()
    rig.send(ev.FeedLost(("m",), "shard"))
    rig.ack()
    out = rig.run(21, alive=False)
    assert len(of(out, RequestSnapshot)) == 4 and places(out) == []


def test_a_newer_snapshot_ends_a_gap_an_older_one_does_not():
    rig = resting()
    rig.wait(5)
    delta(rig, best=(5100, 5200))
    rig.ack()
    rig.send(ev.BookSnapshot("m", *BOOK, rig.now - 3 * NS_PER_S))
    assert not rig.market().book.trusted and rig.live() == []
    rig.wait(1)
    rig.book()
    assert rig.market().book.trusted and rig.live() == [], "the old one was late, and the way back from that takes a second"
    rig.wait(1)
    assert len(places(rig.book(asks=((5300, 500 * SHARE),)))) == 2


def test_without_snapshots_a_gap_heals_by_its_top_and_asks_for_none():
    rig = resting()
    rig.send(ev.VenueUp("v", False), ev.FeedLost(("m",), "shard"))
    rig.ack()
    for _ in range(8):
        rig.wait(1)
        delta(rig, bids=((5000, 500 * SHARE),), asks=((5200, 500 * SHARE),))
        rig.send(ev.Tick())
    assert rig.market().book.trusted and len(rig.live()) == 2 and of(rig.log, RequestSnapshot) == []


def test_feed_lost_touches_the_markets_it_names_and_no_other():
    rig = resting(binary("a"), binary("b"))
    rig.send(ev.FeedLost(("a", "unknown"), "shard"))
    assert closed_by(rig, "a") == ["book"] and closed_by(rig, "b") == []
    assert {o.sent_cancel for o in rig.live(name="b")} == {False}


def test_a_crossed_snapshot_is_a_gap():
    rig = resting()
    rig.wait(1)
    assert pulled(rig, rig.book("m", bids=((5300, 100),), asks=((5200, 100),)))


def test_events_of_markets_we_do_not_hold_are_nothing():
    rig = resting()
    before = rig.saved()
    rig.send(
        ev.BookSnapshot("x", *BOOK, 1), ev.BookDelta("x", (), (), None, None, 1), ev.TopReported("x", 1, 2, 3),
        ev.TradePrinted("x", 1, 1, BUY, 1), ev.PriceReported("x", "mark", 1, 1), ev.FundingReported("x", 1, 1),
        ev.OpenInterestReported("x", 1), ev.LiquidationReported("x", BUY, 1, 1), ev.BarsLoaded("x", 60, ()),
        ev.InstrumentDropped("x", "?"), ev.MarketResolved("x", 0), ev.FeedLost(("x",), "?"),
    )  # fmt: skip
    assert rig.saved() == before


def test_a_restart_trusts_no_book_of_the_last_session():
    rig = resting().reborn()
    rig.send(ev.Started(2, True), ev.AccountSnapshot((), ()))
    for order in rig.live():
        rig.send(ev.OrderLookedUp(order.order_id, "canceled"))
    assert places(rig.run(3)) == [] and len(of(rig.log, RequestSnapshot)) == 1


def test_a_venue_that_was_shut_in_the_last_session_is_open_at_the_start_of_the_next():
    """Its live port tells only changes, and begins with an open one."""
    rig = Rig(wants=BOTH, live=True).start(account=ev.AccountSnapshot((), (), CASH))
    rig.send(ev.RegimeChanged("v", Regime.CLOSED))
    rig.ack()
    rig.send(ev.Started(2, True), ev.VenueUp("v", True), ev.AccountStreamUp("v"))
    rig.wait(1)
    rig.send(ev.AccountSnapshot((), (), CASH, rig.now))
    rig.book()
    rig.run(2)
    assert closed_by(rig) == [] and len(rig.live()) == 2


# Lag, loop delay, silence.


def test_lag_pulls_every_quote_of_the_venue_and_quotes_again_below_half_of_it():
    rig = resting(binary("a"), binary("b"))
    rig.wait(2)
    out = delta(rig, bids=((4800, 1),), late=1.2, name="a", ts=rig.now - 1_200 * NS_PER_MS)
    assert {c.instrument for c in of(out, CancelOrder)} == {"a", "b"} and notices(out, "feed_lag")
    assert closed_by(rig, "b") == ["lag"]
    rig.ack()
    rig.wait(1)
    delta(rig, bids=((4800, 2),), late=0.8, name="a")
    assert closed_by(rig, "a") == ["lag"], "below the limit, but not yet below half of it"
    rig.wait(1)
    delta(rig, bids=((4800, 3),), late=0.3, name="a")
    assert closed_by(rig, "a") == ["lag"], "one message in time is no proof"
    rig.wait(1)
    delta(rig, bids=((4800, 4),), late=0.3, name="a")
    assert closed_by(rig, "a") == [] and back(rig, "b")


def test_a_constant_distance_of_clocks_is_no_lag():
    rig = Rig(wants=BOTH)
    rig.listed()
    rig.send(ev.Started(1, False), ev.AccountSnapshot((), ()))
    for n in range(5):
        rig.wait(1)
        rig.send(ev.BookSnapshot("m", ((5000, 500 * SHARE + n),), ((5200, 500 * SHARE),), rig.now - 30 * NS_PER_S))
    assert closed_by(rig) == [] and len(rig.live()) == 2


def test_lag_within_the_limit_pulls_nothing():
    rig = resting()
    rig.wait(2)
    assert acts(delta(rig, bids=((4800, 1),), late=0.9)) == []


def test_a_loop_that_stood_still_pulls_until_the_venue_speaks_again():
    rig = resting()
    rig.wait(1)
    out = rig.send(ev.LoopDelayed(300 * NS_PER_MS))
    assert pulled(rig, out) and notices(out, "loop_delay") and closed_by(rig) == ["lag"]
    rig.ack()
    assert places(rig.run(2, alive=False)) == []
    assert back(rig)


def test_a_short_delay_is_nothing():
    rig = resting()
    assert acts(rig.send(ev.LoopDelayed(250 * NS_PER_MS))) == []


def test_silence_pulls_at_its_limit_and_a_word_of_any_market_ends_it():
    rig = resting(binary("a"), binary("b"))
    assert of(rig.run(10, alive=False), CancelOrder) == []
    out = rig.run(1, alive=False)
    assert {c.instrument for c in of(out, CancelOrder)} == {"a", "b"} and len(notices(out, "silence")) == 1
    rig.ack()
    rig.send(ev.PriceReported("a", "mark", 5000, rig.now))
    assert back(rig, "b")


def test_trades_over_a_book_that_does_not_move_are_a_stale_book():
    rig = resting(binary("a"), binary("b"))
    for _ in range(62):
        rig.run(1, alive=False)
        rig.send(rig.echo(rig.market("b")), ev.TradePrinted("a", 5000, 100, SELL, rig.now))
    assert closed_by(rig, "a") == ["book"] and closed_by(rig, "b") == [] and {o.sent_cancel for o in rig.live(name="a")} == {True}


def test_a_quiet_market_of_a_living_venue_is_not_stale():
    rig = resting(binary("a"), binary("b"))
    for _ in range(300):
        rig.run(1, alive=False)
        rig.send(rig.echo(rig.market("b")))
    assert closed_by(rig, "a") == [] and len(rig.live(name="a")) == 2


def test_venue_down_empties_its_books_and_up_asks_for_new_ones():
    rig = resting(binary("a"), binary("n", venue="w"))
    rig.send(ev.VenueUp("w", True))
    rig.book("n")
    rig.ack()
    out = rig.send(ev.VenueDown("v", "socket"))
    assert {c.instrument for c in of(out, CancelOrder)} == {"a"} and not rig.market("a").book.trusted
    rig.ack()
    rig.run(2, alive=False)
    assert of(rig.log, RequestSnapshot) == [], "nobody is there to ask"
    rig.send(ev.VenueUp("v", True))
    assert [c.instrument for c in of(rig.run(1), RequestSnapshot)] == ["a"]
    rig.book("a")
    assert back(rig, "a")


# Clocks.


@pytest.mark.parametrize("step", [1_001, -1_001])
def test_a_clock_that_steps_halts_until_resume(step):
    rig = resting()
    out = rig.send(ev.ClockStepped(step * NS_PER_MS))
    assert pulled(rig, out) and "clock" in rig.state.halts and notices(out, "halt_clock")[0].level is Level.ERROR
    rig.ack()
    assert places(rig.run(60)) == []
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    assert back(rig)


def test_a_small_step_is_nothing():
    assert resting().send(ev.ClockStepped(NS_PER_S)) == []


def test_time_never_runs_back():
    rig = resting()
    with pytest.raises(AssertionError, match="time ran back"):
        rig.engine.on_event(rig.now - 1, ev.Tick())


def test_storage_that_fails_halts():
    rig = resting()
    assert pulled(rig, rig.send(ev.StorageFailed("ledger", "disk full"))) and "storage" in rig.state.halts


# The venue's rules.


@pytest.mark.parametrize("regime", [Regime.CANCEL_ONLY, Regime.RESTART, Regime.CLOSED])
def test_a_regime_without_orders_pulls_and_open_brings_back(regime):
    rig = resting()
    assert pulled(rig, rig.send(ev.RegimeChanged("v", regime))) and closed_by(rig) == ["venue"]
    rig.ack()
    assert places(rig.run(5)) == []
    rig.send(ev.RegimeChanged("v", Regime.OPEN))
    assert back(rig)


def test_post_only_goes_on_quoting():
    rig = resting()
    assert acts(rig.send(ev.RegimeChanged("v", Regime.POST_ONLY)) + rig.run(3)) == []


def test_a_new_tick_withdraws_what_rests_and_quotes_on_the_new_grid():
    rig = resting()
    out = rig.send(ev.InstrumentListed(binary(grid=FixedGrid(10))))
    assert pulled(rig, out) and {c.reason for c in of(out, CancelOrder)} == {"tick change"}
    rig.state.strategy_params = Wants(((1, 5010, 20 * SHARE), (-1, 5190, 20 * SHARE)))
    assert back(rig) and {o.price for o in rig.live()} == {5010, 5190}


def test_new_rules_that_leave_the_tick_keep_the_queue():
    rig = resting()
    assert acts(rig.send(ev.InstrumentListed(binary(question="new words"))) + rig.run(2)) == []
    assert rig.market().instrument.question == "new words"


def test_an_order_off_the_grid_is_refused():
    rig = Rig(wants=((1, 5050, 20 * SHARE),)).start()
    assert places(rig.log) == [] and "off grid" in rig.state.refused


def test_dropped_from_the_universe_is_reduce_only_until_flat():
    rig = resting()
    rig.fill(rig.one(BUY))
    rig.ack()
    rig.send(ev.InstrumentDropped("m", "volume"))
    for _ in range(3):
        rig.ack()
        rig.run(1)
    (sell,) = rig.live()
    assert sell.side is SELL and sell.remaining == 20 * SHARE and rig.live(BUY) == []
    rig.fill(sell)
    assert places(rig.run(10)) == [] and rig.live() == [] and "market" in rig.state.refused
    rig.send(ev.InstrumentListed(binary()))
    assert back(rig)


def test_a_flat_dropped_market_is_left_at_once():
    rig = resting()
    assert pulled(rig, rig.send(ev.InstrumentDropped("m", "volume")))


def test_a_market_of_unknown_end_takes_no_new_risk_in_live():
    rig = Rig(wants=BOTH, live=True).start(binary(guard_end=True))
    assert places(rig.log) == [] and "resolution" in rig.state.refused
    paper = Rig(wants=BOTH).start(binary(guard_end=True))
    assert len(places(paper.log)) == 2


# People.


@pytest.mark.parametrize("verb", [ev.Verb.PAUSE, ev.Verb.CANCEL_ALL])
@pytest.mark.parametrize("where", ["", "m"])
def test_pause_and_cancel_all_stand_until_resume(verb, where):
    rig = resting()
    out = rig.send(ev.OperatorActed(verb, "cli", where))
    assert pulled(rig, out)
    rig.ack()
    assert acts(rig.run(20)) == []
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli", where))
    assert back(rig)


def test_one_market_is_paused_alone():
    rig = resting(binary("a"), binary("b"))
    out = rig.send(ev.OperatorActed(ev.Verb.PAUSE, "cli", "a"))
    assert {c.instrument for c in of(out, CancelOrder)} == {"a"}
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    rig.ack()
    rig.run(2)
    assert rig.live(name="a") == [], "what was paused by name is resumed by name"


@pytest.mark.parametrize("where", ["", "m"])
def test_reduce_keeps_only_what_reduces(where):
    rig = resting()
    rig.fill(rig.one(BUY))
    rig.send(ev.OperatorActed(ev.Verb.REDUCE, "cli", where))
    for _ in range(3):
        rig.ack()
        rig.run(1)
    assert [o.side for o in rig.live()] == [SELL] and rig.one(SELL).remaining == 20 * SHARE


def test_reduce_never_sells_more_than_is_held():
    rig = resting(wants=((1, 5000, 20 * SHARE), (-1, 5200, 60 * SHARE)))
    rig.fill(rig.one(BUY))
    rig.send(ev.OperatorActed(ev.Verb.REDUCE, "cli"))
    for _ in range(3):
        rig.ack()
        rig.run(1)
    assert rig.one(SELL).remaining == 20 * SHARE


def test_kill_cancels_all_proves_it_and_stays_down():
    rig = resting()
    out = rig.send(ev.OperatorActed(ev.Verb.KILL, "kill file"))
    assert pulled(rig, out) and rig.state.stopping == "kill" and "kill" in rig.state.halts
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    rig.ack()
    rig.wait(5)
    rig.run(1)
    assert of(rig.send(ev.AccountSnapshot((), ())), Stop) == [Stop(True, "kill", ())]
    assert places(rig.run(5)) == []


def test_a_killed_home_stays_down_in_the_next_session_until_resume():
    rig = resting()
    rig.send(ev.OperatorActed(ev.Verb.KILL, "cli"))
    rig.ack()
    other = rig.reborn()
    other.send(ev.Started(2, True), ev.AccountSnapshot((), ()))
    other.wait(1)
    other.book()
    assert places(other.run(30)) == [] and other.state.mode is Mode.HALTED
    other.send(ev.OperatorActed(ev.Verb.RESUME, "cli"))
    assert back(other)


def test_an_action_on_a_market_that_is_not_there_is_told():
    rig = resting()
    before = rig.saved()
    assert notices(rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "cli", "x")), "no_such_market")
    assert rig.saved() == before


def test_new_numbers_hold_at_once():
    rig = resting()
    new = params(max_position_milli=10_000)
    wants = Wants(BOTH)
    out = rig.send(ev.ParamsChanged(msgspec.Raw(msgspec.json.encode(new)), msgspec.Raw(msgspec.json.encode(wants))))
    assert len(of(out, CancelOrder)) == 2 and rig.state.params == new
    assert back(rig) and rig.one(BUY).qty == 10 * SHARE


# Intents.


def intent(net, name="m", key="i1") -> ev.IntentReceived:
    return ev.IntentReceived(key, name, net, "bot.py", "my model")


def test_an_intent_is_worked_as_maker_at_the_touch_and_then_done():
    rig = Rig(wants=()).start()
    (place,) = places(rig.send(intent(30 * SHARE)))
    assert (place.side, place.price, place.qty, place.post_only) == (BUY, 5000, 30 * SHARE, True) and "i1" in place.reason
    rig.ack()
    out = rig.fill(rig.one())
    assert rig.market().intent is None and notices(out, "intent_done")
    rig.state.strategy_params = Wants(BOTH)
    assert back(rig), "the strategy has the market again"


def test_an_intent_passes_the_same_gates():
    rig = Rig(wants=()).start()
    rig.send(ev.OperatorActed(ev.Verb.PAUSE, "cli"))
    assert places(rig.send(intent(30 * SHARE)) + rig.run(5)) == []
    other = Rig(wants=(), max_position_milli=10_000).start()
    (place,) = places(other.send(intent(30 * SHARE)))
    assert place.qty == 10 * SHARE


def test_a_stop_ends_an_intent_so_that_it_is_not_bought_back():
    rig = Rig(wants=()).start()
    rig.send(intent(60 * SHARE))
    rig.fill(rig.one(), 40 * SHARE)
    for _ in range(33):
        rig.move(4500)
        rig.run(1)
        rig.ack()
    assert rig.market().exit_plan.exiting == "stop" and rig.market().intent is None


def test_a_large_intent_waits_for_approval():
    rig = Rig(wants=(), approve_above=100 * 1_000_000).start()
    out = rig.send(intent(150 * SHARE))
    assert places(out) == [] and notices(out, "approve") and list(rig.state.intents) == ["i1"]
    assert places(rig.run(5)) == []
    assert notices(rig.send(ev.OperatorActed(ev.Verb.APPROVE, "cli", intent_id="i2")), "approve")
    assert len(places(rig.send(ev.OperatorActed(ev.Verb.APPROVE, "cli", intent_id="i1")))) == 1
    assert rig.state.intents == {}
    assert notices(rig.send(ev.OperatorActed(ev.Verb.APPROVE, "cli", intent_id="i1")), "approve"), "once"


def test_a_small_intent_needs_no_approval_and_judges_the_change():
    rig = Rig(wants=(), approve_above=100 * 1_000_000).start()
    rig.hold(BUY, 5000, 100 * SHARE)
    assert len(places(rig.send(intent(150 * SHARE)))) == 1


def test_no_more_intents_wait_than_the_limit():
    rig = Rig(wants=(), approve_above=1).start()
    for n in range(150):
        rig.send(intent(150 * SHARE, key=f"i{n}"))
    assert len(rig.state.intents) == 100


def test_a_kill_takes_every_wish_back_and_takes_no_new_one():
    """What was wished before a kill must not go on by itself when a person resumes, sessions later."""
    rig = Rig(approve_above=100 * USD).start(binary(), binary("n"))
    rig.send(intent(30 * SHARE), intent(150 * SHARE, "n", "i2"))
    assert rig.market().intent is not None and rig.state.intents
    out = rig.send(ev.OperatorActed(ev.Verb.KILL, "test"), intent(40 * SHARE, key="i3"))
    assert "i2, i1" in notices(out, "intent_done")[0].text
    rig.send(ev.OperatorActed(ev.Verb.APPROVE, "test", intent_id="i2"))
    assert not rig.state.intents and all(market.intent is None for market in rig.state.markets.values())
    rig.ack()
    rig.send(ev.Started(2, True), ev.AccountSnapshot((), ()), ev.OperatorActed(ev.Verb.RESUME, "test"))
    rig.book()
    assert places(rig.run(5)) == []


def test_no_decision_is_named_for_what_a_person_or_an_exit_wants():
    """The opinion in force shaped neither; what a signal's own exit sends is its doing."""
    for event, reason, decision in (
        (intent(60 * SHARE), "intent i1", ""),
        (ev.OperatorActed(ev.Verb.FLATTEN, "test", "m"), "exit: operator", ""),
        (None, "exit: signal", "d1"),
    ):
        rig = Rig(prior_weight=0.15).start()
        rig.hold(Side.BUY, 5000, 20 * SHARE)
        rig.advise(advice("exit" if event is None else "hold", 0.9))
        out = rig.run(1) + (rig.send(event) if event is not None else [])
        assert [place.decision_id for place in places(out) if place.reason == reason] == [decision]


def test_flatten_ends_a_wish_also_where_nothing_is_held_yet():
    rig = Rig().start()
    rig.send(intent(30 * SHARE))
    rig.send(ev.OperatorActed(ev.Verb.FLATTEN, "test", "m"))
    assert rig.market().intent is None
    rig.ack()
    rig.send(ev.OperatorActed(ev.Verb.RESUME, "test", "m"))
    assert places(rig.run(5)) == []


def test_a_wish_that_nobody_can_price_waits_for_approval():
    rig = Rig(approve_above=100 * USD).start()
    rig.listed(linear())
    out = rig.send(intent(30, "l"))
    assert notices(out, "approve") and rig.market("l").intent is None


def test_wishes_that_wait_go_with_their_market():
    """Else a hundred of them, of markets long gone, would keep every new one away."""
    rig = Rig(approve_above=100 * USD).start(binary(), binary("n"))
    rig.send(intent(150 * SHARE, "n", "i2"), ev.InstrumentDropped("n", "closed"))
    rig.wait(3_700)
    rig.run(2)
    assert "n" not in rig.state.markets and not rig.state.intents


def test_an_intent_for_a_market_that_is_not_there_is_told():
    assert notices(Rig().start().send(intent(30 * SHARE, "x")), "no_such_market")


# Of the whole.


def test_every_event_of_the_contract_has_a_handler():
    every = ev.AnyEvent.__args__
    rig = Rig()
    assert set(every) <= set(rig.engine._handlers) and len(every) == len(set(every))


def test_a_new_account_has_its_cash_and_nothing_else():
    state = new_state("a", params(), Scripted(), Wants(), CASH)
    assert state.cash == state.flows.start == CASH and state.markets == {} and state.mode is Mode.ACTIVE


def test_order_ids_carry_the_session_and_never_repeat():
    rig = resting()
    other = rig.reborn()
    other.send(ev.Started(2, True), ev.AccountSnapshot((), ()))
    other.wait(1)
    other.book()
    for order in other.live():
        other.send(ev.OrderLookedUp(order.order_id, "canceled"))
    other.run(1)
    assert [o.order_id for o in other.live()] == ["2-1", "2-2"]


def test_quoting_starts_each_side_once():
    rig = Rig(wants=BOTH).start()
    assert len(places(rig.log)) == 2 and acts(rig.book() + rig.run(5)) == []


def test_a_leg_is_sold_only_from_our_own_settled_shares():
    rig = resting()
    rig.hold(BUY, 5000, 20 * SHARE)
    rig.state.strategy_params = Wants()
    for _ in range(3):
        rig.run(1)
        rig.ack()
    rig.state.strategy_params = Wants(((-1, 5200, 20 * SHARE),))
    rig.run(1)
    assert rig.one(SELL).leg is Leg.YES and rig.one(SELL).reduce_only
    rig.state.strategy_params = Wants(((-1, 5200, 30 * SHARE),))
    for _ in range(3):
        rig.run(1)
        rig.ack()
    assert rig.one(SELL).leg is Leg.NO, "too few to sell: the other outcome is bought"


STORM = [
    lambda r: r.move(4900), lambda r: r.move(5000), lambda r: r.move(5100), lambda r: r.ack(), lambda r: r.run(1),
    lambda r: r.run(12, alive=False), lambda r: r.send(ev.FeedLost(("m",), "shard")), lambda r: r.send(ev.VenueDown("v", "x")),
    lambda r: r.send(ev.VenueUp("v", True)), lambda r: r.send(ev.LoopDelayed(NS_PER_S)), lambda r: delta(r, best=(1, 9_999)),
    lambda r: r.send(ev.TradePrinted("m", 5000, 600 * SHARE, SELL, r.now)), lambda r: r.send(ev.RegimeChanged("v", Regime.CLOSED)),
    lambda r: r.send(ev.RegimeChanged("v", Regime.OPEN)), lambda r: r.send(ev.OperatorActed(ev.Verb.PAUSE, "x")),
    lambda r: r.send(ev.OperatorActed(ev.Verb.RESUME, "x")), lambda r: r.send(ev.OperatorActed(ev.Verb.REDUCE, "x")),
    lambda r: r.send(ev.InstrumentDropped("m", "x")), lambda r: r.send(ev.InstrumentListed(binary())),
    lambda r: r.send(ev.ClockStepped(2 * NS_PER_S)), lambda r: [r.fill(o, min(o.remaining, 700)) for o in r.live()],
    lambda r: [r.send(ev.OrderUncertain(o.order_id, "t")) for o in r.live()],
    lambda r: [r.send(ev.OrderLookedUp(o.order_id, "open", o.filled)) for o in r.live()],
    lambda r: [r.send(ev.CancelRejected(o.order_id, "gone", True)) for o in r.live() if o.sent_cancel],
    lambda r: [r.send(ev.OrderRejected(o.order_id, "balance")) for o in r.live()],
    lambda r: r.send(ev.StopRequested("x")), lambda r: r.send(ev.Started(r.state.session + 1, True), ev.AccountSnapshot((), ())),
]  # fmt: skip


@given(st.lists(st.sampled_from(range(len(STORM))), min_size=1, max_size=40))
@settings(max_examples=120, deadline=None)
def test_in_any_weather_the_state_stays_whole(weather):
    rig = Rig(wants=BOTH).start()
    for n in weather:
        STORM[n](rig)
        rig.run(0.25, alive=False)
        state, market = rig.state, rig.market()
        live = rig.live()
        assert sorted(o.order_id for o in state.orders.values() if o.is_live) == sorted(market.live)
        assert state.gross == market.worst >= 0 and state.reserved == market.reserved >= 0
        buys, sells = [o.price for o in live if o.side is BUY], [o.price for o in live if o.side is SELL]
        assert not buys or not sells or max(buys) < min(sells), "we never stand across ourselves"
        assert market.reserved == sum(o.remaining * (o.price if o.leg is Leg.YES else 10_000 - o.price) for o in live if adds(o))
        if not market.book.trusted or state.mode is Mode.HALTED:
            assert all(o.sent_cancel or o.status is Status.UNKNOWN for o in live), "nothing rests where it may not"
    sent = [c for c in rig.log if isinstance(c, PlaceOrder)]
    assert len({c.order_id for c in sent}) == len(sent)
    assert rig.reborn().saved() == rig.saved()


def adds(order) -> bool:
    return (order.leg is Leg.YES) == (order.side is BUY)
