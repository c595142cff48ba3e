"""The engine of one account: `on_event(now, event)` advances the state and says what to do. Nothing else knows the whole.

Deterministic: no I/O, no clock, no dice, no log. Time and order are stamped outside; the same events give the same commands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llm_maker.core import account, agenda, losses
from llm_maker.core.bars import Bars
from llm_maker.core.book import Applied, Book
from llm_maker.core.commands import AnyCommand, Level, RequestSnapshot
from llm_maker.core.estimators import Estimators
from llm_maker.core.events import (
    AccountSnapshot,
    AccountUnknown,
    BarsLoaded,
    BookDelta,
    BookSnapshot,
    CancelRejected,
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
    RegimeChanged,
    SetsMerged,
    SignalsFailed,
    SignalsReceived,
    SignalsSkipped,
    Started,
    StopRequested,
    StorageFailed,
    Tick,
    TopReported,
    TradePrinted,
    VenueDown,
    VenueUp,
    Verb,
    WeightUpdated,
)
from llm_maker.core.markouts import Markouts
from llm_maker.core.orders import What
from llm_maker.core.params import Params
from llm_maker.core.positions import Position
from llm_maker.core.quote import requote
from llm_maker.core.signals import weight_key
from llm_maker.core.state import Intent, Market, State, Venue, refresh_exposure
from llm_maker.core.step import Step
from llm_maker.core.strategy import Strategy
from llm_maker.core.values import NS_PER_S, Instrument, Mode, Side, to_cash_up

SNAPSHOT_RETRY_NS = 5 * NS_PER_S
MAX_CLOCK_STEP_NS = NS_PER_S
SLOW_TIMER_NS = NS_PER_S
MAX_WAITING = 100
"""Intents that may wait for `approve`."""
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
            _gapped(step, market)
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
            _gapped(step, market)
        elif market.book.trusted:
            _top_moved(step, market)

    def _on_top(self, step: Step, event: TopReported) -> None:
        market = step.state.markets.get(event.instrument)
        if market is None:
            return
        _hear(step, market, event.venue_ts)
        version, trusted = market.book.top_version, market.book.trusted
        if market.book.check_top(event, step.now) is Applied.GAP:
            _gapped(step, market)
        elif market.book.top_version != version or market.book.trusted != trusted:
            _top_moved(step, market)

    def _on_trade(self, step: Step, event: TradePrinted) -> None:
        market = step.state.markets.get(event.instrument)
        if market is None:
            return
        _hear(step, market, event.venue_ts)
        market.last_trade_ns = step.now
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
            _watch_silence(step, venue)
        if step.now - state.risk.judged_ns >= SLOW_TIMER_NS:
            account.on_timer(step)
            losses.judge_losses(step)
        if state.stopping:
            account.drive_stop(step)
            return
        for market in state.markets.values():
            market.estimators.on_clock(market.instrument, market.book, step.now)
            if market.position.net:
                losses.judge_exit(step, market)
            if market.mark > 0:
                market.markouts.on_clock(market.mark, step.now)
            if not market.book.trusted:
                _ask_snapshot(step, market, "still no trusted book")
            if market.dirty or step.now >= market.requote_ns:
                requote(step, market)
        agenda.drive(step)


def _hear(step: Step, market: Market, venue_ts: int) -> None:
    """Note that the venue spoke, and how late it was."""
    venue = step.state.venues[market.instrument.venue]
    venue.heard_ns = step.now
    limit = step.state.params.risk.max_feed_lag_ns
    lag = venue.lag.on_message(step.now, venue_ts)
    if venue.lagging != (lag > (limit // 2 if venue.lagging else limit)):
        venue.lagging = not venue.lagging
        _venue_dirty(step, venue)
        if venue.lagging:
            step.notice(Level.WARNING, "feed_lag", f"{venue.name} is {lag / NS_PER_S:.1f}s late: quotes pulled")
            _requote_venue(step, venue)


def _top_moved(step: Step, market: Market) -> None:
    """The top changed: measure, mark, and look at our quotes."""
    book, estimators, now = market.book, market.estimators, step.now
    jumped = estimators.jumped_ns
    estimators.on_top(market.instrument, book, now, step.state.params.risk.jump_ticks)
    market.bid_depth, market.ask_depth = book.depth(Side.BUY, _DEPTH_LEVELS), book.depth(Side.SELL, _DEPTH_LEVELS)
    mid = book.mid
    if mid is not None and book.trusted:
        market.mark, market.mark_ns = mid, now
        market.bars.on_price(account.mark_price(market), now)
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


def _gapped(step: Step, market: Market) -> None:
    """The book cannot be trusted: nothing of ours may rest on it, and a fresh one is asked for."""
    step.state.counts.gaps += 1
    step.withdraw(market, f"gap: {market.book.gap_reason}")
    step.notice(Level.WARNING, "gap", f"book emptied: {market.book.gap_reason}", market.instrument.id)
    market.dirty = True
    _ask_snapshot(step, market, market.book.gap_reason)


def _ask_snapshot(step: Step, market: Market, reason: str) -> None:
    venue = step.state.venues[market.instrument.venue]
    recently = market.snapshot_asked_ns and step.now - market.snapshot_asked_ns < SNAPSHOT_RETRY_NS
    if venue.up and venue.snapshots and not recently and market.resolved is None:
        market.snapshot_asked_ns = step.now
        step.out.append(RequestSnapshot(market.instrument.id, reason))


def _watch_silence(step: Step, venue: Venue) -> None:
    silent = step.now - venue.heard_ns > step.state.params.risk.max_silence_ns
    if silent != venue.silent:
        venue.silent = silent
        _venue_dirty(step, venue)
        if silent and venue.up:
            step.notice(Level.WARNING, "silence", f"no word from {venue.name}: quotes pulled")


def _venue_dirty(step: Step, venue: Venue) -> None:
    for market in step.state.markets.values():
        if market.instrument.venue == venue.name:
            market.dirty = True


def _requote_venue(step: Step, venue: Venue) -> None:
    """Judge every market of a venue now and not at the next Tick: used where quotes must go."""
    for market in step.state.markets.values():
        if market.instrument.venue == venue.name and market.live:
            requote(step, market)


def _on_listed(step: Step, event: InstrumentListed) -> None:
    state, instrument = step.state, event.instrument
    known = state.markets.get(instrument.id)
    if known is None:
        state.venues.setdefault(instrument.venue, Venue(instrument.venue))
        state.markets[instrument.id] = new_market(instrument, step.strategy.state_type())
        state.markets[instrument.id].book.heals_by_top = not state.venues[instrument.venue].snapshots
        _index(state, instrument)
        return
    regrid = known.instrument.grid != instrument.grid
    known.instrument = instrument
    known.in_universe, known.drop_reason = True, ""
    if regrid:
        step.withdraw(known, "tick change")
    known.dirty = True


def new_market(instrument: Instrument, own: Any) -> Market:
    """A market about which nothing is known yet."""
    return Market(
        instrument=instrument,
        book=Book(payout=instrument.payout),
        estimators=Estimators(),
        markouts=Markouts(),
        bars=Bars(),
        position=Position(),
        own=own,
    )


def _index(state: State, instrument: Instrument) -> None:
    if instrument.event_id:
        state.events.setdefault(instrument.event_id, []).append(instrument.id)
    if instrument.cluster:
        state.clusters.setdefault(instrument.cluster, []).append(instrument.id)


def _on_dropped(step: Step, event: InstrumentDropped) -> None:
    market = step.state.markets.get(event.instrument)
    if market is not None:
        market.in_universe, market.drop_reason = False, event.reason
        requote(step, market)


def _on_resolved(step: Step, event: MarketResolved) -> None:
    market = step.state.markets.get(event.instrument)
    if market is not None:
        market.resolved = event.price
        market.mark, market.mark_ns = float(event.price), step.now
        market.exit_plan = None
        market.intent = None
        requote(step, market)


def _on_venue_up(step: Step, event: VenueUp) -> None:
    venue = step.state.venues.setdefault(event.venue, Venue(event.venue))
    was_down = not venue.up
    venue.up, venue.down_reason, venue.snapshots, venue.heard_ns = True, "", event.snapshots, step.now
    for market in step.state.markets.values():
        if market.instrument.venue == venue.name:
            market.book.heals_by_top = not event.snapshots
            market.dirty = market.dirty or was_down


def _on_venue_down(step: Step, event: VenueDown) -> None:
    """No data can be trusted: every book of the venue is a gap, every quote there goes."""
    venue = step.state.venues.setdefault(event.venue, Venue(event.venue))
    venue.up, venue.down_reason = False, event.reason
    step.notice(Level.WARNING, "venue_down", f"{event.venue}: {event.reason}")
    for market in step.state.markets.values():
        if market.instrument.venue == event.venue:
            market.book.lose(step.now, event.reason)
            requote(step, market)


def _on_regime(step: Step, event: RegimeChanged) -> None:
    venue = step.state.venues.setdefault(event.venue, Venue(event.venue))
    venue.regime = event.regime
    step.notice(Level.WARNING, "regime", f"{event.venue} is now {event.regime.value}")
    _venue_dirty(step, venue)
    _requote_venue(step, venue)


def _on_feed_lost(step: Step, event: FeedLost) -> None:
    for instrument in event.instruments:
        market = step.state.markets.get(instrument)
        if market is not None:
            market.book.lose(step.now, event.reason)
            _gapped(step, market)


def _on_bars(step: Step, event: BarsLoaded) -> None:
    market = step.state.markets.get(event.instrument)
    if market is not None:
        market.bars.load(event)


def _on_no_book(step: Step, event: PriceReported | FundingReported | OpenInterestReported | LiquidationReported) -> None:
    """Facts beside the book: they say that the venue is alive; strategies that use them come with their venues."""
    market = step.state.markets.get(event.instrument)
    if market is not None:
        step.state.venues[market.instrument.venue].heard_ns = step.now


def _on_clock_stepped(step: Step, event: ClockStepped) -> None:
    if abs(event.step_ns) > MAX_CLOCK_STEP_NS:
        text = f"the clock stepped by {event.step_ns / NS_PER_S:.1f}s; `resume` when it is right"
        account.halt(step, "clock", text, 0)
        _requote_all(step)


def _on_loop_delayed(step: Step, event: LoopDelayed) -> None:
    """What waited in the queue while we slept is old: nothing is quoted until each venue speaks again."""
    if event.delay_ns > step.state.params.risk.max_loop_delay_ns:
        step.state.delayed_ns = step.now
        step.notice(Level.WARNING, "loop_delay", f"our loop stood still for {event.delay_ns / NS_PER_S:.2f}s: quotes pulled")
        _requote_all(step)


def _requote_all(step: Step) -> None:
    for market in step.state.markets.values():
        requote(step, market)


def _on_started(step: Step, event: Started) -> None:
    state = step.state
    state.session = event.session
    state.next_order = state.next_request = 1
    state.account_known = False
    state.stopping, state.stopped = "", False
    state.slow.pending, state.slow.markets = "", []
    state.counts.started_ns = step.now
    for venue in state.venues.values():
        venue.heard_ns = step.now
    for market in state.markets.values():
        # What the venue said while we were away is missing: a book of the last session may be hours old.
        market.book.lose(step.now, "restart")
    for order in [o for o in state.orders.values() if o.is_live]:
        account.on_order(step, order.order_id, What.UNCERTAIN)
    account.ask_account(step, "start")


def _on_stop(step: Step, event: StopRequested) -> None:
    account.begin_stop(step, event.reason)


def _on_operator(step: Step, event: OperatorActed) -> None:
    state = step.state
    step.notice(Level.WARNING, f"operator_{event.verb.value}", f"{event.verb.value} by {event.who}", event.instrument)
    if event.verb is Verb.KILL:
        account.halt(step, "kill", f"killed by {event.who}", 0)
        account.begin_stop(step, "kill")
    elif event.verb is Verb.APPROVE:
        _start_intent(step, state.intents.pop(event.intent_id, None))
    elif event.instrument:
        market = state.markets.get(event.instrument)
        if market is None:
            step.notice(Level.WARNING, "no_such_market", f"there is no market {event.instrument}")
        else:
            _operate_market(step, market, event)
    else:
        _operate_all(step, event)


def _operate_market(step: Step, market: Market, event: OperatorActed) -> None:
    match event.verb:
        case Verb.PAUSE:
            market.operator_mode = Mode.HALTED
        case Verb.REDUCE:
            market.operator_mode = Mode.REDUCE_ONLY
        case Verb.RESUME:
            market.operator_mode = Mode.ACTIVE
        case Verb.FLATTEN:
            market.operator_mode = Mode.REDUCE_ONLY
            losses.flatten(step, market, take=event.take)
        case Verb.CANCEL_ALL:
            market.operator_mode = Mode.HALTED
        case Verb.ADOPT:
            _adopt(step, market)
    requote(step, market)


def _operate_all(step: Step, event: OperatorActed) -> None:
    state = step.state
    match event.verb:
        case Verb.PAUSE | Verb.CANCEL_ALL:
            # Canceling and quoting on at once would undo it: both stand until `resume`.
            state.operator_mode = Mode.HALTED
        case Verb.REDUCE:
            state.operator_mode = Mode.REDUCE_ONLY
        case Verb.RESUME:
            state.operator_mode = Mode.ACTIVE
            losses.lift_halts(step)
        case Verb.FLATTEN:
            state.operator_mode = Mode.REDUCE_ONLY
            for market in state.markets.values():
                losses.flatten(step, market, take=event.take)
    _requote_all(step)


def _adopt(step: Step, market: Market) -> None:
    """Foreign holdings become ours at the present mark, because a person said so."""
    if market.mark <= 0:
        step.notice(Level.WARNING, "adopt", "no price to adopt at yet", market.instrument.id)
        return
    mark = account.mark_price(market)
    before = market.position.value(market.instrument, mark)
    for leg in market.position.legs(market.instrument):
        market.position.adopt(leg, mark, step.now)
    account.adopted(step, market, market.position.value(market.instrument, mark) - before)


def _on_intent(step: Step, event: IntentReceived) -> None:
    """A wish from outside: held for `approve` above the configured worth, worked as maker otherwise."""
    state = step.state
    market = state.markets.get(event.instrument)
    if market is None:
        step.notice(Level.WARNING, "no_such_market", f"intent {event.intent_id}: no market {event.instrument}")
        return
    intent = Intent(event.intent_id, event.instrument, event.target_net, event.who, event.reason)
    size = abs(event.target_net - market.position.net)
    worth = to_cash_up(market.instrument, size * (market.instrument.payout or round(market.mark)))
    if 0 < state.params.risk.approve_above < worth:
        if len(state.intents) >= MAX_WAITING and event.intent_id not in state.intents:
            step.notice(Level.WARNING, "approve", f"intent {event.intent_id} dropped: {MAX_WAITING} wait already", event.instrument)
            return
        state.intents[event.intent_id] = intent
        text = f"intent {event.intent_id} of {event.who} waits for `approve {event.intent_id}`"
        step.notice(Level.WARNING, "approve", text, event.instrument)
    else:
        _start_intent(step, intent)


def _start_intent(step: Step, intent: Intent | None) -> None:
    market = step.state.markets.get(intent.instrument) if intent is not None else None
    if intent is None or market is None:
        step.notice(Level.WARNING, "approve", "there is no such intent waiting, or its market is gone")
        return
    market.intent = intent
    account.judge_intent(step, market)
    requote(step, market)


def _on_params(step: Step, event: ParamsChanged) -> None:
    """New numbers from a reload; nothing else changes, and every market is looked at again."""
    state = step.state
    state.params = msgspec.json.decode(event.params, type=Params)
    state.strategy_params = msgspec.json.decode(event.strategy_params, type=step.strategy.params_type)
    for market in state.markets.values():
        refresh_exposure(state, market)
    _requote_all(step)


def _on_storage(step: Step, event: StorageFailed) -> None:
    account.halt(step, "storage", f"{event.what} could not be written: {event.reason}", 0)
    _requote_all(step)


def _on_weight(step: Step, event: WeightUpdated) -> None:
    step.state.weights[weight_key(event.model, event.category)] = event.weight


def _on_filled(step: Step, event: OrderFilled) -> None:
    if event.instrument not in step.state.markets:
        account.halt(step, "unknown_fill", f"a fill of {event.instrument}, which is not loaded", 0)
    elif account.on_filled(step, event) is not None and not step.state.stopping:
        requote(step, step.state.markets[event.instrument])


_HANDLERS: dict[type[Event], Callable[[Step, Any], None]] = {
    InstrumentListed: _on_listed,
    InstrumentDropped: _on_dropped,
    MarketResolved: _on_resolved,
    VenueUp: _on_venue_up,
    VenueDown: _on_venue_down,
    RegimeChanged: _on_regime,
    FeedLost: _on_feed_lost,
    BarsLoaded: _on_bars,
    PriceReported: _on_no_book,
    FundingReported: _on_no_book,
    OpenInterestReported: _on_no_book,
    LiquidationReported: _on_no_book,
    ClockStepped: _on_clock_stepped,
    LoopDelayed: _on_loop_delayed,
    OrderAccepted: account.on_accepted,
    OrderRejected: account.on_rejected,
    OrderFilled: _on_filled,
    FillSettled: account.on_settled,
    FillFailed: account.on_failed,
    OrderCanceled: account.on_canceled,
    OrderExpired: account.on_expired,
    CancelRejected: account.on_cancel_rejected,
    OrderUncertain: account.on_uncertain,
    OrderLookedUp: account.on_looked_up,
    AccountSnapshot: account.on_account,
    AccountUnknown: account.on_account_unknown,
    SetsMerged: account.on_merged,
    MergeFailed: account.on_merge_failed,
    CashMoved: account.on_cash,
    SignalsReceived: agenda.on_received,
    SignalsFailed: agenda.on_failed,
    SignalsSkipped: agenda.on_skipped,
    WeightUpdated: _on_weight,
    OperatorActed: _on_operator,
    IntentReceived: _on_intent,
    ParamsChanged: _on_params,
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
