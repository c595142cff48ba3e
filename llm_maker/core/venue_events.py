"""What a venue tells beside books and prints: its markets, its connection, its regime; and what a book in doubt means.

Nothing of ours may rest where the data cannot be trusted: that is decided in the step that learns of it.
"""

from __future__ import annotations

from typing import Any

from llm_maker.core.bars import Bars
from llm_maker.core.book import Book
from llm_maker.core.commands import Level, RequestSnapshot
from llm_maker.core.estimators import Estimators
from llm_maker.core.events import (
    BarsLoaded,
    FeedLost,
    FundingReported,
    InstrumentDropped,
    InstrumentListed,
    LiquidationReported,
    MarketResolved,
    OpenInterestReported,
    PriceReported,
    RegimeChanged,
    VenueDown,
    VenueUp,
)
from llm_maker.core.indicators import INTERVAL_NS, INTERVAL_S
from llm_maker.core.markouts import Markouts
from llm_maker.core.positions import Position
from llm_maker.core.quote import requote
from llm_maker.core.state import Market, Venue, index, unindex
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S, Instrument, Regime

SNAPSHOT_RETRY_NS = 5 * NS_PER_S


def gapped(step: Step, market: Market) -> None:
    """The book cannot be trusted: nothing of ours may rest on it, and a fresh one is asked for."""
    step.state.counts.gaps += 1
    step.withdraw(market, f"gap: {market.book.gap_reason}")
    step.notice(Level.WARNING, "gap", f"book emptied: {market.book.gap_reason}", market.instrument.id)
    market.dirty = True
    ask_snapshot(step, market, market.book.gap_reason)


def ask_snapshot(step: Step, market: Market, reason: str) -> None:
    venue = step.state.venues[market.instrument.venue]
    recently = market.snapshot_asked_ns and step.now - market.snapshot_asked_ns < SNAPSHOT_RETRY_NS
    if venue.up and venue.snapshots and not recently and market.resolved is None:
        market.snapshot_asked_ns = step.now
        step.out.append(RequestSnapshot(market.instrument.id, reason))


def watch_silence(step: Step, venue: Venue) -> None:
    silent = step.now - venue.heard_ns > step.state.params.risk.max_silence_ns
    if silent != venue.silent:
        venue.silent = silent
        venue_dirty(step, venue)
        if silent and venue.up:
            step.notice(Level.WARNING, "silence", f"no word from {venue.name}: quotes pulled")


def venue_dirty(step: Step, venue: Venue) -> None:
    for market in step.state.markets.values():
        if market.instrument.venue == venue.name:
            market.dirty = True


def requote_venue(step: Step, venue: Venue) -> None:
    """Judge every market of a venue now and not at the next Tick: used where quotes must go."""
    for market in step.state.markets.values():
        if market.instrument.venue == venue.name and market.live:
            requote(step, market)


def on_listed(step: Step, event: InstrumentListed) -> None:
    """A market came, or its rules changed; on another grid nothing of ours may stay."""
    state, instrument = step.state, event.instrument
    known = state.markets.get(instrument.id)
    if known is None:
        state.venues.setdefault(instrument.venue, Venue(instrument.venue))
        state.markets[instrument.id] = new_market(instrument, step.strategy.state_type())
        state.markets[instrument.id].book.heals_by_top = not state.venues[instrument.venue].snapshots
        index(state, instrument)
        return
    regrid = known.instrument.grid != instrument.grid
    unindex(state, known.instrument)
    index(state, instrument)
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


def on_dropped(step: Step, event: InstrumentDropped) -> None:
    market = step.state.markets.get(event.instrument)
    if market is not None:
        market.in_universe, market.drop_reason = False, event.reason
        requote(step, market)


def on_resolved(step: Step, event: MarketResolved) -> None:
    market = step.state.markets.get(event.instrument)
    if market is not None:
        market.resolved = event.price
        market.mark, market.mark_ns = float(event.price), step.now
        market.exit_plan = None
        market.intent = None
        requote(step, market)


def on_venue_up(step: Step, event: VenueUp) -> None:
    venue = step.state.venues.setdefault(event.venue, Venue(event.venue))
    was_down = not venue.up
    venue.up, venue.down_reason, venue.snapshots, venue.heard_ns = True, "", event.snapshots, step.now
    venue.shows_own = event.shows_own
    for market in step.state.markets.values():
        if market.instrument.venue == venue.name:
            market.book.heals_by_top = not event.snapshots
            market.dirty = market.dirty or was_down


def on_venue_down(step: Step, event: VenueDown) -> None:
    """No data can be trusted: every book of the venue is a gap, every quote there goes."""
    venue = step.state.venues.setdefault(event.venue, Venue(event.venue))
    venue.up, venue.down_reason = False, event.reason
    step.notice(Level.WARNING, "venue_down", f"{event.venue}: {event.reason}")
    for market in step.state.markets.values():
        if market.instrument.venue == event.venue:
            market.book.lose(step.now, event.reason)
            requote(step, market)


def on_regime(step: Step, event: RegimeChanged) -> None:
    venue = step.state.venues.setdefault(event.venue, Venue(event.venue))
    restarted = venue.regime is Regime.RESTART
    venue.regime = event.regime
    if restarted and step.state.params.risk.live:
        step.ask_account("the venue has restarted")
    step.notice(Level.WARNING, "regime", f"{event.venue} is now {event.regime.value}")
    venue_dirty(step, venue)
    requote_venue(step, venue)


def on_feed_lost(step: Step, event: FeedLost) -> None:
    for instrument in event.instruments:
        market = step.state.markets.get(instrument)
        if market is not None:
            market.book.lose(step.now, event.reason)
            gapped(step, market)


def on_bars(step: Step, event: BarsLoaded) -> None:
    market = step.state.markets.get(event.instrument)
    if market is None:
        return
    bars, indicators = market.bars, market.indicators
    if event.interval_s != INTERVAL_S or not event.bars:
        bars.load(event)
        return
    indicators.on_time(market.instrument, bars.price, step.now)
    if bars.price:
        bars.on_price(bars.price, step.now)
    bars.load(event)
    closed = bars.closed(INTERVAL_S)
    indicators.load(market.instrument, [bar.close for bar in closed], closed[-1].start_ns + INTERVAL_NS)


def on_no_book(step: Step, event: PriceReported | FundingReported | OpenInterestReported | LiquidationReported) -> None:
    """Facts beside the book: they say that the venue is alive; strategies that use them come with their venues."""
    market = step.state.markets.get(event.instrument)
    if market is not None:
        step.state.venues[market.instrument.venue].heard_ns = step.now
