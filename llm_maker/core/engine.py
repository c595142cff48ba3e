"""The engine of one account: `on_event(now, event)` advances the state and says what to do. Nothing else knows the whole.

Deterministic: no I/O, no clock, no dice, no log. Time and order are stamped outside; the same events give the same commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llm_maker.core import agenda, audit, losses, money, operator, order_events, places, stopping, timer, venue_events, works, worth
from llm_maker.core.book import Applied
from llm_maker.core.commands import AnyCommand, Level
from llm_maker.core.events import (
    AccountSnapshot,
    AccountStreamDown,
    AccountStreamUp,
    AccountUnknown,
    BarsLoaded,
    BookDelta,
    BookSnapshot,
    CancelRejected,
    CashKind,
    CashMoved,
    ClockStepped,
    Event,
    FeedLost,
    FillFailed,
    FillSettled,
    FundingReported,
    InstrumentDropped,
    InstrumentListed,
    IntentReceived,
    LiquidationReported,
    LoopDelayed,
    MarketResolved,
    MergeFailed,
    OpenInterestReported,
    OperatorActed,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderLookedUp,
    OrderRejected,
    OrderUncertain,
    ParamsChanged,
    PriceReported,
    RedeemFailed,
    RegimeChanged,
    SetsMerged,
    SetsSplit,
    SignalsFailed,
    SignalsReceived,
    SignalsSkipped,
    SplitFailed,
    Started,
    StopRequested,
    StorageFailed,
    Tick,
    TopReported,
    TradePrinted,
    VenueDown,
    VenueUp,
    WeightUpdated,
)
from llm_maker.core.orders import What
from llm_maker.core.params import Params
from llm_maker.core.quote import requote
from llm_maker.core.skill import skill_key
from llm_maker.core.state import Market, State
from llm_maker.core.step import Step
from llm_maker.core.strategy import Strategy
from llm_maker.core.values import NS_PER_S, Regime, Side

MAX_CLOCK_STEP_NS = NS_PER_S
SLOW_TIMER_NS = NS_PER_S
CALM_NS = NS_PER_S
"""A feed that lagged must have been well in time for this long."""
_DEPTH_LEVELS = 3


class Engine:
    """One account's state and the rule that moves it."""

    __slots__ = ("_handlers", "skip_deep", "state", "strategy")

    def __init__(self, state: State, strategy: Strategy, *, skip_deep: bool = True) -> None:
        """`skip_deep` False looks at a market on changes below its top as well.

        A test shows that such a change alters nothing that is wanted. What time alone moves (a tolerance that ends, an opinion
        that fades) is then merely seen between two Ticks, and not at the next look within a second.
        """
        self.state = state
        self.strategy = strategy
        self.skip_deep = skip_deep
        self._handlers: dict[type[Event], Callable[[Step, Any], None]] = {
            BookDelta: self._on_delta,
            BookSnapshot: self._on_snapshot,
            TopReported: self._on_top,
            TradePrinted: self._on_trade,
            Tick: self._on_tick,
            **_HANDLERS,
        }

    def on_event(self, now: int, event: Event) -> list[AnyCommand]:
        """Advance by one event at market time `now` (ns, never back); returns what to do about it, in order."""
        state = self.state
        assert now >= state.now, f"time ran back from {state.now} to {now}"
        state.now = now
        if state.closed:
            state.closed = []
        step = Step(state, self.strategy, now)
        self._handlers[type(event)](step, event)
        return step.out

    def _on_delta(self, step: Step, event: BookDelta) -> None:
        market = step.state.markets.get(event.instrument)
        if market is None:
            return
        _hear(step, market, event.venue_ts)
        book = market.book
        version, trusted = book.top_version, book.trusted
        applied = book.apply_delta(event, step.now)
        if applied is Applied.GAP:
            venue_events.gapped(step, market)
        elif book.top_version != version or book.trusted != trusted:
            _top_moved(step, market)
        elif not self.skip_deep and applied is Applied.APPLY:
            requote(step, market)

    def _on_snapshot(self, step: Step, event: BookSnapshot) -> None:
        market = step.state.markets.get(event.instrument)
        if market is None:
            return
        _hear(step, market, event.venue_ts)
        if market.book.apply_snapshot(event, step.now) is Applied.GAP:
            venue_events.gapped(step, market)
        elif market.book.trusted:
            _top_moved(step, market)

    def _on_top(self, step: Step, event: TopReported) -> None:
        market = step.state.markets.get(event.instrument)
        if market is None:
            return
        _hear(step, market, event.venue_ts)
        version, trusted = market.book.top_version, market.book.trusted
        if market.book.check_top(event, step.now) is Applied.GAP:
            venue_events.gapped(step, market)
        elif market.book.top_version != version or market.book.trusted != trusted:
            _top_moved(step, market)

    def _on_trade(self, step: Step, event: TradePrinted) -> None:
        market = step.state.markets.get(event.instrument)
        if market is None:
            return
        _hear(step, market, event.venue_ts)
        if market.resting:
            places.on_print(step.state, market, event)
        market.last_trade_ns = step.now
        market.indicators.on_trade(market.instrument, event, market.bars.price, step.now)
        market.bars.on_trade(event.price, event.qty, step.now)
        swept = market.estimators.swept_ns
        market.estimators.on_trade(market.instrument, market.book, event, step.now, step.state.params.risk.sweep_ratio)
        if market.estimators.swept_ns != swept:
            _pull(step, market, "sweep")
            requote(step, market)

    def _on_tick(self, step: Step, event: Tick) -> None:
        """Every deadline is judged here: silence, orders, losses, exits, the slow loop, and quotes that time alone changes."""
        state = step.state
        for venue in state.venues.values():
            venue_events.watch_silence(step, venue)
        if step.now - state.risk.judged_ns >= SLOW_TIMER_NS:
            timer.on_timer(step)
            losses.judge_losses(step)
            agenda.look_out(step)
        if state.stopping:
            stopping.drive_stop(step)
            return
        for market in state.markets.values():
            market.estimators.on_clock(market.instrument, market.book, step.now)
            if market.position.net:
                losses.judge_exit(step, market)
            if market.mark > 0:
                market.markouts.on_clock(market.mark, step.now)
            if not market.book.trusted:
                venue_events.ask_snapshot(step, market, "still no trusted book")
            if market.dirty or step.now >= market.requote_ns:
                requote(step, market)
        agenda.drive(step)


def _hear(step: Step, market: Market, venue_ts: int) -> None:
    """Note that the venue spoke, and how late it was."""
    venue = step.state.venues[market.instrument.venue]
    venue.heard_ns = step.now
    limit = step.state.params.risk.max_feed_lag_ns
    lag = venue.lag.on_message(step.now, venue_ts) if venue_ts else 0
    if venue.delayed and lag <= step.state.params.risk.max_loop_delay_ns:
        # Not one of those that waited while we slept.
        venue.delayed = False
        venue_events.venue_dirty(step, venue)
    if lag > limit // 2 or not venue.calm_ns:
        venue.calm_ns = 0 if lag > limit // 2 else step.now
    if lag > limit and not venue.lagging:
        venue.lagging = True
        step.notice(Level.WARNING, "feed_lag", f"{venue.name} is {lag / NS_PER_S:.1f}s late: quotes pulled")
        venue_events.venue_dirty(step, venue)
        venue_events.requote_venue(step, venue)
    elif venue.lagging and venue.calm_ns and step.now - venue.calm_ns >= CALM_NS:
        # One message in time among late ones is no proof: the way back takes a while without a late one.
        venue.lagging = False
        venue_events.venue_dirty(step, venue)


def _top_moved(step: Step, market: Market) -> None:
    """The top changed: measure, mark, and look at our quotes."""
    book, estimators, now = market.book, market.estimators, step.now
    jumped = estimators.jumped_ns
    estimators.on_top(market.instrument, book, now, step.state.params.risk.jump_ticks)
    market.bid_depth = places.others_depth(step.state, market, Side.BUY, _DEPTH_LEVELS)
    market.ask_depth = places.others_depth(step.state, market, Side.SELL, _DEPTH_LEVELS)
    mid = book.mid
    if mid is not None and book.trusted:
        market.mark, market.mark_ns = mid, now
        if now >= market.indicators.next_ns:
            market.indicators.on_time(market.instrument, market.bars.price, now)
        market.bars.on_price(worth.mark_price(market), now)
    if estimators.jumped_ns != jumped:
        _pull(step, market, "jump")
    if not step.state.stopping:
        requote(step, market)


def _pull(step: Step, market: Market, reason: str) -> None:
    """Out of the market at once for the cool-off, back at twice the width (`quoting.md` 2.3), and the model shall look."""
    cooldown = step.state.params.risk.jump_cooldown_ns
    market.pulled_until = step.now + cooldown
    market.pull_reason = reason
    market.cautious_until = step.now + 2 * cooldown
    market.trigger = reason


def _on_clock_stepped(step: Step, event: ClockStepped) -> None:
    if abs(event.step_ns) > MAX_CLOCK_STEP_NS:
        text = f"the clock stepped by {event.step_ns / NS_PER_S:.1f}s; `resume` when it is right"
        step.halt("clock", text, 0)
        operator.requote_all(step)


def _on_loop_delayed(step: Step, event: LoopDelayed) -> None:
    """What waited in the queue while we slept is old: nothing is quoted until each venue has said something fresh."""
    if event.delay_ns > step.state.params.risk.max_loop_delay_ns:
        for venue in step.state.venues.values():
            venue.delayed = True
        step.notice(Level.WARNING, "loop_delay", f"our loop stood still for {event.delay_ns / NS_PER_S:.2f}s: quotes pulled")
        operator.requote_all(step)


def _on_started(step: Step, event: Started) -> None:
    state = step.state
    state.session = event.session
    state.next_order = state.next_request = 1
    state.account_known, state.account_halts = False, state.params.risk.live
    state.stream_down = "not connected yet" if state.params.risk.live else ""
    state.stopping, state.stopped = "", False
    state.slow.pending, state.slow.markets = "", []
    state.counts.started_ns = step.now
    for venue in state.venues.values():
        venue.heard_ns, venue.delayed = step.now, False
        if state.params.risk.live:
            # Its port begins with an open venue and tells only changes: what was shut by a fault of ours would stay so for ever.
            venue.regime = Regime.OPEN
    for market in state.markets.values():
        # What the venue said while we were away is missing: a book of the last session may be hours old.
        market.book.lose(step.now, "restart")
    for order in [o for o in state.orders.values() if o.is_live]:
        order_events.on_order(step, order.order_id, What.UNCERTAIN)
    step.ask_account("start")


def _on_stop(step: Step, event: StopRequested) -> None:
    stopping.begin_stop(step, event.reason)


def _on_storage(step: Step, event: StorageFailed) -> None:
    step.halt("storage", f"{event.what} could not be written: {event.reason}", 0)
    operator.requote_all(step)


def _on_weight(step: Step, event: WeightUpdated) -> None:
    step.state.skills[skill_key(event.model, event.category)] = event.skill


def _on_cash(step: Step, event: CashMoved) -> None:
    if event.kind is CashKind.REDEMPTION:
        works.on_redeemed(step, event)
    else:
        money.on_cash(step, event)


def _on_canceled(step: Step, event: OrderCanceled) -> None:
    """A quote that we have taken away is replaced at once: nothing else was waited for.

    An exit's waits for the next Tick, because the answer to a cancel does not say what it had filled; so does what the venue has
    canceled by itself, which it may do again.
    """
    order_events.on_canceled(step, event)
    order = step.state.orders.get(event.order_id)
    if order is None or not order.is_final or step.state.stopping:
        return
    market = step.state.markets[order.instrument]
    if market.dirty and order.cancel_ns and order.post_only and not order.reduce_only:
        requote(step, market)


def _on_filled(step: Step, event: OrderFilled) -> None:
    if event.instrument not in step.state.markets:
        step.halt("unknown_fill", f"a fill of {event.instrument}, which is not loaded", 0)
    elif money.on_filled(step, event) is not None and not step.state.stopping:
        requote(step, step.state.markets[event.instrument])


_HANDLERS: dict[type[Event], Callable[[Step, Any], None]] = {
    InstrumentListed: venue_events.on_listed,
    InstrumentDropped: venue_events.on_dropped,
    MarketResolved: venue_events.on_resolved,
    VenueUp: venue_events.on_venue_up,
    VenueDown: venue_events.on_venue_down,
    RegimeChanged: venue_events.on_regime,
    FeedLost: venue_events.on_feed_lost,
    BarsLoaded: venue_events.on_bars,
    PriceReported: venue_events.on_no_book,
    FundingReported: venue_events.on_no_book,
    OpenInterestReported: venue_events.on_no_book,
    LiquidationReported: venue_events.on_no_book,
    ClockStepped: _on_clock_stepped,
    LoopDelayed: _on_loop_delayed,
    OrderAccepted: order_events.on_accepted,
    OrderRejected: order_events.on_rejected,
    OrderFilled: _on_filled,
    FillSettled: money.on_settled,
    FillFailed: money.on_failed,
    OrderCanceled: _on_canceled,
    OrderExpired: order_events.on_expired,
    CancelRejected: order_events.on_cancel_rejected,
    OrderUncertain: order_events.on_uncertain,
    OrderLookedUp: order_events.on_looked_up,
    AccountSnapshot: audit.on_account,
    AccountUnknown: audit.on_account_unknown,
    AccountStreamUp: audit.on_stream_up,
    AccountStreamDown: audit.on_stream_down,
    SetsMerged: works.on_merged,
    MergeFailed: works.on_merge_failed,
    SetsSplit: works.on_split,
    SplitFailed: works.on_split_failed,
    RedeemFailed: works.on_redeem_failed,
    CashMoved: _on_cash,
    SignalsReceived: agenda.on_received,
    SignalsFailed: agenda.on_failed,
    SignalsSkipped: agenda.on_skipped,
    WeightUpdated: _on_weight,
    OperatorActed: operator.on_operator,
    IntentReceived: operator.on_intent,
    ParamsChanged: operator.on_params,
    StorageFailed: _on_storage,
    Started: _on_started,
    StopRequested: _on_stop,
}


def new_state(account_name: str, params: Params, strategy: Strategy, strategy_params: Any, cash: int) -> State:
    """The state of an account that has never run, with its opening cash (cash units)."""
    state = State(account_name, params, strategy.name, strategy_params)
    state.cash = state.flows.start = cash
    return state


def checkpoint(state: State) -> bytes:
    """The whole state as JSON; equal states give equal bytes."""
    return msgspec.json.encode(state)


def restore(saved: bytes, strategy: Strategy) -> State:
    """A state from its checkpoint; the strategy gives the types of its own parts."""
    state = msgspec.json.decode(saved, type=State)
    assert state.strategy == strategy.name, f"the checkpoint was made by strategy {state.strategy}"
    state.strategy_params = msgspec.convert(state.strategy_params, strategy.params_type)
    for market in state.markets.values():
        market.own = msgspec.convert(market.own, strategy.state_type)
    return state
