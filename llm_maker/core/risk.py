"""Limits. `allowance` says what a market may do now and why; `shape` makes targets fit; `gate` may only refuse.

Every rule of `quoting.md` 4 is one small function returning a `Gate` with its numbers, so that `why MARKET` prints exactly what
decides. A reducing order is never blocked by a cap; what other live orders of that side already reduce is not reducing twice.
Knows no strategy and sends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from llm_maker.core.commands import PlaceOrder
from llm_maker.core.params import Params, sizes
from llm_maker.core.state import Market, State, Venue, acting, foreign_resting, order_cash, worst_loss
from llm_maker.core.strategy import QuoteTarget
from llm_maker.core.values import NS_PER_S, Mode, Regime, Side, to_cash_up

_RANK = {Mode.ACTIVE: 0, Mode.REDUCE_ONLY: 1, Mode.HALTED: 2}
PRIORITY_SHARE = {"high": 1.0, "medium": 0.9, "low": 0.8}
"""Share of the gross cap that a market of this priority may use: the rest is kept for higher ones."""
MESSAGE_WINDOW_NS = 10 * NS_PER_S
ACCOUNT_STALE_NS = 300 * NS_PER_S
"""Live, what the venue says that we hold must be younger than this: it is asked every minute."""


class Gate(msgspec.Struct, frozen=True):
    """One rule's word on one market: the mode it allows, and the numbers it looked at."""

    name: str
    mode: Mode
    words: str
    numbers: tuple[str | float, ...] = ()
    """What belongs into the braces of `words`; put there only when somebody reads."""
    pull: bool = False
    """The market's data cannot be trusted or an event is on: nothing may rest, whatever the mode."""

    @property
    def text(self) -> str:
        return self.words.format(*self.numbers) if self.numbers else self.words


GateRule = Callable[[State, Market, Venue], Gate]


def _ok(name: str, words: str = "", *numbers: str | float) -> Gate:
    return Gate(name, Mode.ACTIVE, words, numbers)


def _seconds(ns: int) -> str:
    return f"{ns / NS_PER_S:.1f}s"


def gate_account(state: State, market: Market, venue: Venue) -> Gate:
    if state.stream_down and not state.stopping:
        return Gate("account", Mode.HALTED, f"we would not hear of a fill: {state.stream_down}", pull=True)
    if not state.account_known and not state.stopping:
        return Gate("account", Mode.HALTED, "the venue has not yet said what we hold", pull=True)
    age = state.now - state.account_seen_ns
    if state.params.risk.live and not state.stopping and age > ACCOUNT_STALE_NS:
        return Gate("account", Mode.HALTED, f"the account could not be read for {_seconds(age)}", pull=True)
    return _ok("account", "known")


def gate_mode(state: State, market: Market, venue: Venue) -> Gate:
    mode = state.mode
    if mode is Mode.ACTIVE:
        return _ok("mode", "active")
    return Gate("mode", mode, state.mode_text(), pull=mode is Mode.HALTED)


def gate_venue(state: State, market: Market, venue: Venue) -> Gate:
    if not venue.up:
        return Gate("venue", Mode.HALTED, f"{venue.name} is down: {venue.down_reason}", pull=True)
    if venue.regime in (Regime.CANCEL_ONLY, Regime.RESTART, Regime.CLOSED):
        return Gate("venue", Mode.HALTED, f"{venue.name} is in {venue.regime.value}", pull=True)
    return _ok("venue", "{} up, {}", venue.name, venue.regime)


def gate_silence(state: State, market: Market, venue: Venue) -> Gate:
    silence, limit = state.now - venue.heard_ns, state.params.risk.max_silence_ns
    words, numbers = "last word of {} {:.1f}s ago, limit {:.1f}s", (venue.name, silence / NS_PER_S, limit / NS_PER_S)
    stale = silence > limit
    return Gate("silence", Mode.HALTED if stale else Mode.ACTIVE, words, numbers, pull=stale)


def gate_lag(state: State, market: Market, venue: Venue) -> Gate:
    if venue.delayed:
        return Gate("lag", Mode.HALTED, "our loop was late and nothing fresh has come since", pull=True)
    numbers = venue.lag.lag_ns / NS_PER_S, state.params.risk.max_feed_lag_ns / NS_PER_S
    mode = Mode.HALTED if venue.lagging else Mode.ACTIVE
    return Gate("lag", mode, "feed lag {:.1f}s, limit {:.1f}s", numbers, pull=venue.lagging)


def gate_book(state: State, market: Market, venue: Venue) -> Gate:
    book, price = market.book, market.instrument.usd_price
    if not book.trusted:
        return Gate("book", Mode.HALTED, f"no trusted book: {book.gap_reason or 'no snapshot yet'}", pull=True)
    age = state.now - book.changed_ns
    if age > state.params.risk.max_book_age_ns and market.last_trade_ns > book.changed_ns:
        return Gate("book", Mode.HALTED, f"trades print but the book is {_seconds(age)} old", pull=True)
    if book.best_bid and book.best_ask and book.best_bid >= book.best_ask:
        return Gate("book", Mode.HALTED, "crossed: bid {:g} ask {:g}", (price(book.best_bid), price(book.best_ask)), pull=True)
    if book.best_bid == 0 and book.best_ask == 0:
        return Gate("book", Mode.HALTED, "empty on both sides", pull=True)
    return _ok("book", "bid {:g} ask {:g}, {:.1f}s old", price(book.best_bid), price(book.best_ask), age / NS_PER_S)


def gate_resolution(state: State, market: Market, venue: Venue) -> Gate:
    instrument, risk = market.instrument, state.params.risk
    if market.resolved is not None:
        return Gate("resolution", Mode.HALTED, f"resolved at {instrument.usd_price(market.resolved):g}", pull=True)
    if not instrument.is_binary or not instrument.guard_end:
        return _ok("resolution", "guard off: no end time is told" if instrument.is_binary else "does not end")
    if instrument.end_ns is None:
        mode = Mode.REDUCE_ONLY if risk.live else Mode.ACTIVE
        return Gate("resolution", mode, "end time unknown")
    left = instrument.end_ns - state.now
    words, numbers = "{:.1f}h to the end", (left / NS_PER_S / 3600,)
    if left < risk.resolution_pull_ns:
        return Gate("resolution", Mode.HALTED, words, numbers, pull=True)
    return Gate("resolution", Mode.REDUCE_ONLY if left < risk.resolution_reduce_ns else Mode.ACTIVE, words, numbers)


def gate_schedule(state: State, market: Market, venue: Venue) -> Gate:
    start = market.instrument.start_ns
    if start is None:
        guarded = state.params.risk.live and market.instrument.is_binary and market.instrument.guard_start
        return Gate("schedule", Mode.REDUCE_ONLY if guarded else Mode.ACTIVE, "no scheduled start told")
    away = start - state.now
    if abs(away) < state.params.risk.event_window_ns:
        return Gate("schedule", Mode.HALTED, f"the event starts in {_seconds(away)}", pull=True)
    return _ok("schedule", "starts in {:.1f}s", away / NS_PER_S)


def gate_pull(state: State, market: Market, venue: Venue) -> Gate:
    left = market.pulled_until - state.now
    if left > 0:
        return Gate("pull", Mode.HALTED, f"{market.pull_reason}: out for {_seconds(left)} more", pull=True)
    ratio, risk = market.estimators.volatility_ratio, state.params.risk
    stormy = ratio > risk.volatility_pull_ratio
    words = "volatility {:.1f}x its usual, widen at {:g}x, pull at {:g}x"
    numbers = (ratio, risk.volatility_widen_ratio, risk.volatility_pull_ratio)
    return Gate("pull", Mode.HALTED if stormy else Mode.ACTIVE, words, numbers, pull=stormy)


def gate_market(state: State, market: Market, venue: Venue) -> Gate:
    if market.operator_mode is not Mode.ACTIVE:
        mode = market.operator_mode
        return Gate("market", mode, f"{mode.value}, by the operator", pull=mode is Mode.HALTED)
    if not market.in_universe:
        return Gate("market", Mode.REDUCE_ONLY, f"left the universe: {market.drop_reason}")
    return _ok("market", "in the universe")


def gate_cooldown(state: State, market: Market, venue: Venue) -> Gate:
    left = market.cooldown_until - state.now
    if left > 0:
        return Gate("cooldown", Mode.REDUCE_ONLY, f"stopped out: no new risk for {_seconds(left)}")
    return _ok("cooldown")


def gate_positions(state: State, market: Market, venue: Venue) -> Gate:
    limit = state.params.risk.max_open_positions
    # What rests may fill everywhere at once, so a quoted market counts like a held one.
    full = len(state.exposed) >= limit and market.instrument.id not in state.exposed
    text, numbers = "{} markets held or quoted, limit {}", (len(state.exposed), limit)
    return Gate("positions", Mode.REDUCE_ONLY if full else Mode.ACTIVE, text, numbers)


GATES: tuple[GateRule, ...] = (
    gate_mode,
    gate_account,
    gate_venue,
    gate_silence,
    gate_lag,
    gate_book,
    gate_resolution,
    gate_schedule,
    gate_pull,
    gate_market,
    gate_cooldown,
    gate_positions,
)
"""In the order they are judged: kill and halt, stale, event, the market's own, caps."""


def chain(state: State, market: Market) -> list[Gate]:
    """Every gate's word, for `why`."""
    venue = state.venues[market.instrument.venue]
    return [rule(state, market, venue) for rule in GATES]


def allowance(state: State, market: Market) -> Gate:
    """The strictest gate; the first of equals."""
    venue = state.venues[market.instrument.venue]
    worst = _ok("open", "every gate is open")
    for rule in GATES:
        gate = rule(state, market, venue)
        if gate.pull:
            return gate
        if gate.mode is not Mode.ACTIVE and _RANK[gate.mode] > _RANK[worst.mode]:
            worst = gate
    return worst


def open_positions(state: State) -> int:
    return sum(1 for i in state.held if state.markets[i].position.net != 0)


def widen(state: State, market: Market) -> float:
    """The factor on the half-spread that risk asks for: after a pull, or while volatility is high."""
    factor = 2.0 if state.now < market.cautious_until else 1.0
    return factor * 2.0 if _stormy(state, market) else factor


def slim(state: State, market: Market) -> float:
    """The factor on every quantity that risk asks for: half while volatility is high (`quoting.md` 4)."""
    return 0.5 if _stormy(state, market) else 1.0


def _stormy(state: State, market: Market) -> bool:
    return market.estimators.volatility_ratio > state.params.risk.volatility_widen_ratio


class Shaped(msgspec.Struct):
    """Targets that fit the limits, and what was refused on the way (`side reason`)."""

    targets: list[QuoteTarget]
    refusals: list[str]


def shape(state: State, market: Market, targets: list[QuoteTarget], allowed: Gate) -> Shaped:
    """Mode, taper, caps and size rules on every target. Only shrinks or drops; the reasons are kept."""
    shaped = Shaped([], [])
    if allowed.mode is Mode.HALTED or allowed.pull:
        shaped.refusals.append(f"both {allowed.name}")
        return shaped
    rooms = cash_rooms(state, market) if targets and allowed.mode is Mode.ACTIVE else []
    for target in targets:
        size, reason = _fit(state, market, target, allowed, rooms)
        if size >= market.instrument.min_qty:
            shaped.targets.append(target if size == target.qty else QuoteTarget(target.side, target.price, size, target.reason))
        if reason:
            shaped.refusals.append(f"{target.side.name.lower()} {reason}")
    return shaped


def _fit(state: State, market: Market, target: QuoteTarget, allowed: Gate, rooms: list[tuple[str, int]]) -> tuple[int, str]:
    """(quantity that may rest, why it is less than wanted)."""
    reducing = _reducible(market, target.side)
    if allowed.mode is Mode.REDUCE_ONLY:
        floor = market.instrument.floor_qty(min(target.qty, reducing))
        return floor, allowed.name if floor < target.qty else ""
    adding = target.qty - min(target.qty, reducing)
    if adding <= 0:
        return market.instrument.floor_qty(target.qty), ""
    room, reason = _room(state, market, target, rooms)
    fitted = min(target.qty, reducing) + min(adding, room)
    return market.instrument.floor_qty(fitted), reason if room < adding else ""


def _reducible(market: Market, side: Side) -> int:
    """How much an order of this side can bring the position towards flat."""
    return max(0, -side * market.position.net)


def reducible(state: State, market: Market, side: Side) -> int:
    """The same beside our other live orders: what they already reduce is not reduced twice."""
    return max(0, _reducible(market, side) - _resting(state, market, side))


def _resting(state: State, market: Market, side: Side) -> int:
    return sum(o.remaining for o in state.live_orders(market) if o.side is side)


def _room(state: State, market: Market, target: QuoteTarget, rooms: list[tuple[str, int]]) -> tuple[int, str]:
    """How much quantity beyond flat this side may add, by the tightest cap, with nothing else of this market resting on it."""
    _, limit = sizes(state.params, market.instrument, market.mark)
    beyond = max(0, target.side * market.position.net)
    room, reason = max(0, limit - beyond), "position cap"
    unit = unit_loss(state, market, target.side, target.price)
    for name, cash in rooms:
        fits = qty_for(market, cash, unit)
        if fits < room:
            room, reason = fits, name
    return room, reason


def unit_loss(state: State, market: Market, side: Side, price: int) -> int:
    """Price units that one unit of new exposure loses at worst: the token's own price, or the stress move of a linear one."""
    if market.instrument.is_binary:
        return price if side is Side.BUY else market.instrument.payout - price
    return math.ceil(max(price, market.mark) * state.params.risk.linear_stress_ratio)


def cash_rooms(state: State, market: Market) -> list[tuple[str, int]]:
    """What every money cap leaves for either side of this market, its own resting orders left out."""
    risk = state.params.risk
    base = worst_loss(state.params, market, *foreign_resting(state, market))
    others = state.gross - market.worst
    opinion = acting(state, market)
    share = PRIORITY_SHARE[opinion.signal.priority.value] if opinion else 1.0
    group, cluster = _event_loss(state, market), _cluster_loss(state, market)
    free = state.cash - (state.reserved - market.reserved) - int(risk.free_cash_ratio * risk.bankroll)
    rooms = [
        ("order cap", risk.max_order_cost),
        ("market cap", int(risk.market_ratio * risk.bankroll) - base),
        ("event cap", int(risk.event_ratio * risk.bankroll) - group - base),
        ("cluster cap", int(risk.cluster_ratio * risk.bankroll) - cluster - base),
        ("gross cap", int(risk.gross_ratio * risk.bankroll * share) - others - base),
    ]
    if market.instrument.is_binary:
        rooms.append(("free cash", free))
    return rooms


def _cluster_loss(state: State, market: Market) -> int:
    """Sum of the worst cases of the other markets that move together with this one."""
    members = state.clusters.get(market.instrument.cluster, []) if market.instrument.cluster else []
    return sum(state.markets[m].worst for m in members if m != market.instrument.id)


def _event_loss(state: State, market: Market) -> int:
    """Worst case of the other markets of this event: the largest over outcomes where exactly one pays, else the sum."""
    instrument = market.instrument
    members = [state.markets[m] for m in state.events.get(instrument.event_id, []) if m != instrument.id]
    if not members:
        return 0
    if not instrument.exclusive:
        return sum(m.worst for m in members)
    none_wins = sum(m.loss_no for m in members)
    worst = min([none_wins] + [none_wins - m.loss_no + m.loss_yes for m in members])
    return to_cash_up(instrument, max(0, -worst))


def qty_for(market: Market, cash: int, unit: int) -> int:
    """Quantity whose loss at `unit` price units a piece is `cash`."""
    if cash <= 0:
        return 0
    instrument = market.instrument
    exponent = instrument.price_decimals + instrument.qty_decimals - 6
    notional: int = cash * 10**exponent if exponent >= 0 else cash // 10**-exponent
    return notional // max(unit, 1)


def gate(state: State, market: Market, command: PlaceOrder, allowed: Gate) -> str:
    """Why this order may not be sent, or an empty string. Judged against everything that is live, in flight or UNKNOWN."""
    if allowed.pull or (allowed.mode is Mode.HALTED):
        return allowed.name
    instrument, book = market.instrument, market.book
    if command.qty < instrument.min_qty or command.qty % instrument.qty_step:
        return "size"
    if not instrument.on_grid(command.price) or not instrument.min_price <= command.price <= instrument.max_price:
        return "off grid"
    if command.post_only and _crosses(market, command.side, command.price):
        return "would cross"
    if _fat_finger(state, market, command):
        return "fat finger"
    for order in state.live_orders(market):
        if order.side is not command.side and command.side * (command.price - order.price) >= 0:
            return "own cross"
    if not book.trusted:
        return "book"
    return _limits(state, market, command, allowed)


def _crosses(market: Market, side: Side, price: int) -> bool:
    book = market.book
    if side is Side.BUY:
        return 0 < book.best_ask <= price
    return book.best_bid > 0 and price <= book.best_bid


def _fat_finger(state: State, market: Market, command: PlaceOrder) -> bool:
    """A price through fair by more than ticks or a share of the cheaper token; an exit's, through the mark as its limit is."""
    risk, instrument, fair = state.params.risk, market.instrument, market.estimators.fair
    if fair <= 0:
        return True
    worth = min(fair, instrument.payout - fair) if instrument.is_binary else fair
    band = max(risk.fat_finger_ticks * instrument.tick_at(command.price), risk.fat_finger_ratio * worth)
    if command.reduce_only:
        slip = risk.exit_max_slippage_ratio * (instrument.payout or market.mark)
        return command.side * (command.price - market.mark) > max(band, slip)
    return command.side * (command.price - fair) > band


def _limits(state: State, market: Market, command: PlaceOrder, allowed: Gate) -> str:
    """Caps with this order resting beside all the others; what truly reduces passes."""
    instrument, risk = market.instrument, state.params.risk
    same = _resting(state, market, command.side)
    reducing = reducible(state, market, command.side)
    if command.qty <= reducing:
        return ""
    if command.reduce_only or allowed.mode is Mode.REDUCE_ONLY:
        return "not reducing"
    _, limit = sizes(state.params, instrument, market.mark)
    if max(0, command.side * market.position.net + same + command.qty) > limit:
        return "position cap"
    adding = command.qty - reducing
    if to_cash_up(instrument, unit_loss(state, market, command.side, command.price) * adding) > risk.max_order_cost:
        return "order cap"
    cost = order_cash(instrument, command, adding)
    if cost and state.cash - state.reserved - cost < int(risk.free_cash_ratio * risk.bankroll):
        return "free cash"
    added = worst_with(state, market, command) - market.worst
    if market.worst + added > int(risk.market_ratio * risk.bankroll):
        return "market cap"
    if state.gross + added > int(risk.gross_ratio * risk.bankroll):
        return "gross cap"
    if _event_loss(state, market) + market.worst + added > int(risk.event_ratio * risk.bankroll):
        return "event cap"
    if _cluster_loss(state, market) + market.worst + added > int(risk.cluster_ratio * risk.bankroll):
        return "cluster cap"
    return ""


def worst_with(state: State, market: Market, command: PlaceOrder | QuoteTarget) -> int:
    """The market's worst case with one order more."""
    bids, bid_cost, asks, ask_cost = foreign_resting(state, market)
    payout = market.instrument.payout
    entries = [(o.side, o.remaining, o.price) for o in state.live_orders(market)]
    for side, size, price in [*entries, (command.side, command.qty, command.price)]:
        if side is Side.BUY:
            bids, bid_cost = bids + size, bid_cost + size * price
        else:
            asks, ask_cost = asks + size, ask_cost + size * (payout - price)
    return worst_loss(state.params, market, bids, bid_cost, asks, ask_cost)


def spend_message(venue: Venue, params: Params, now: int, *, cancel: bool) -> bool:
    """Take one message of the venue's budget; places stop while a fifth is left, so cancels always have some."""
    limit = float(params.risk.messages_per_10s)
    if venue.budget_ns == 0:
        venue.budget = limit
    else:
        venue.budget = min(limit, venue.budget + limit * (now - venue.budget_ns) / MESSAGE_WINDOW_NS)
    venue.budget_ns = now
    if venue.budget < (1.0 if cancel else 0.2 * limit + 1.0):
        return False
    venue.budget -= 1.0
    return True
