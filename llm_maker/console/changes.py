"""What would have to change for a market to be quoted: for every gate and every reason to refuse, in numbers where there are any.

A change is a wait, new values of config keys, a verb, something only the world can do, or nothing at all. Every rule looks at what
the core looked at; nothing is changed here, and nothing is promised beyond the reason it was asked about.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import msgspec

from llm_maker.console.keys_in_force import LIVE_CAPS, RAISED_WITH, in_force
from llm_maker.core import risk
from llm_maker.core.losses import FOREVER
from llm_maker.core.params import sizes
from llm_maker.core.state import Market, State, acting, foreign_resting, worst_loss
from llm_maker.core.strategy import QuoteTarget
from llm_maker.core.values import NS_PER_S, Leg, Mode, Side, leg_side, to_cash_up, usd


class Change(msgspec.Struct, frozen=True):
    """One change and its words. `seconds` to wait, `values` of config keys, a `verb`; `outside`: not ours to do; `never`."""

    do: Literal["wait", "set", "verb", "outside", "never"]
    text: str
    seconds: float = 0.0
    values: dict[str, float] = {}
    verb: str = ""
    otherwise: str = ""
    """What would do instead of new values."""


class Case(msgspec.Struct):
    """What a rule is asked about: a market, and where it is about a side what was wanted there."""

    state: State
    market: Market
    side: Side | None = None
    wish: QuoteTarget | None = None
    closed: str = ""
    """The words of the closed gate."""


def change_for(reason: str, case: Case) -> Change:
    """The nearest change of one reason; a reason of a strategy that nobody here knows is told as it is."""
    rule = RULES.get(reason)
    return rule(case) if rule is not None else Change("outside", f"the strategy says: {reason}")


def wait(ns: float, until: str) -> Change:
    """A moment that comes by itself."""
    seconds = math.ceil(max(ns, 0.0) / NS_PER_S * 10) / 10
    told = f"{seconds:.1f}s" if seconds < 600 else f"{seconds / 3_600:.1f}h"
    return Change("wait", f"wait {told} {until}", seconds=seconds)


def assign(state: State, values: dict[str, float], otherwise: str = "") -> Change:
    """New values of keys, with what they are now; keys that must not be passed by them move along."""
    for key in list(values):
        for above in RAISED_WITH.get(key, ()):
            if values[key] > in_force(state, above) and not isinstance(values[key], bool):
                values[above] = max(values[key], values.get(above, 0.0))
    if state.params.risk.live:
        values |= {LIVE_CAPS[key]: value for key, value in values.items() if key in LIVE_CAPS}
    told = []
    for key, value in values.items():
        now = in_force(state, key)
        if isinstance(now, bool):
            told.append(f"set {key}: {'true' if value else 'false'}")
        else:
            told.append(f"{'raise' if value > now else 'lower'} {key} to {value:g} (it is {now:g})")
    text = " and ".join(told) + (f", or {otherwise}" if otherwise else "")
    return Change("set", text, values=values, otherwise=otherwise)


def distance(state: State, change: Change) -> float:
    """How far the new values of a change lie from those in force."""
    return sum(abs(value - in_force(state, key)) for key, value in change.values.items())


def up(value: float, decimals: int = 3) -> float:
    """The next number of so many decimals that is no less."""
    return float(math.ceil(round(value * 10**decimals, 6)) / 10**decimals)


def down(value: float, decimals: int = 3) -> float:
    """The next number of so many decimals that is no more."""
    return float(math.floor(round(value * 10**decimals, 6)) / 10**decimals)


# Gates.


def _mode(case: Case) -> Change:
    state = case.state
    if state.stopping:
        return Change("never", "nothing: the daemon is stopping")
    if "kill" in state.halts:
        return Change("never", "nothing: it was killed")
    timed = [halt.until_ns for halt in state.halts.values() if halt.until_ns != FOREVER]
    person = len(timed) < len(state.halts) or state.operator_mode is not Mode.ACTIVE
    if not timed:
        once = ", once the reason is dealt with" if state.halts else ""
        return Change("verb", f"`llm-maker resume`{once}", verb="resume")
    waited = wait(max(timed) - state.now, "until the halt runs out")
    if not person:
        return waited
    return Change("wait", f"{waited.text}, and `llm-maker resume`", seconds=waited.seconds, verb="resume")


def _market(case: Case) -> Change:
    market = case.market
    if market.operator_mode is not Mode.ACTIVE:
        return Change("verb", f"`llm-maker resume {market.instrument.id}`", verb="resume")
    return Change("outside", f"market_selection must choose it again: {market.drop_reason}")


def _account(case: Case) -> Change:
    return Change("outside", f"the venue must answer about the account: {case.closed}")


def _venue(case: Case) -> Change:
    venue = case.state.venues[case.market.instrument.venue]
    if not venue.up:
        return Change("outside", f"the connection must come back ({venue.down_reason}); it is tried again by itself")
    return Change("outside", f"the venue must open: it says {venue.regime.value}")


def _silence(case: Case) -> Change:
    return Change("outside", f"the feed must speak again: {case.closed} (risk.max_silence_seconds)")


def _lag(case: Case) -> Change:
    venue = case.state.venues[case.market.instrument.venue]
    if venue.delayed:
        return Change("outside", "one message that is in time must come: our own loop was late")
    limit = case.state.params.risk.max_feed_lag_ns / 1e6
    told = f"under {limit / 2:g} ms for 1s; it is {venue.lag.lag_ns / 1e6:.0f} ms late, limit risk.max_feed_lag_ms {limit:g}"
    return Change("outside", f"the feed must catch up: {told}")


def _book(case: Case) -> Change:
    return Change("outside", f"a fresh, sound book must arrive: {case.closed or 'it is not trusted'}")


def _resolution(case: Case) -> Change:
    market, state = case.market, case.state
    end = market.instrument.end_ns
    if market.resolved is not None:
        return Change("never", "nothing: it is resolved")
    if end is None:
        return Change("outside", "the venue's listing must tell when it ends: real money takes no new risk without")
    # A guard at what is left would close again with the next second: half of it is a change worth making.
    hours = down((end - state.now) / NS_PER_S / 3_600 / 2)
    if hours <= 0:
        return Change("never", "nothing: its end has come")
    keys = ("risk.resolution_pull_hours", "risk.resolution_reduce_hours")
    change = assign(state, {key: hours for key in keys if in_force(state, key) > hours})
    return msgspec.structs.replace(change, text=f"{change.text}, and hold what is bought until {hours:g}h before its end")


def _schedule(case: Case) -> Change:
    start, state = case.market.instrument.start_ns, case.state
    if start is None:
        return Change("outside", "the venue's listing must tell when the event starts: real money takes no new risk without")
    window = state.params.risk.event_window_ns
    return wait(start + window - state.now, f"until {window / NS_PER_S:g}s after the event's start")


def _pull(case: Case) -> Change:
    market, state = case.market, case.state
    left = market.pulled_until - state.now
    if left > 0:
        return wait(left, "until the market is calm again")
    return assign(
        state, {"risk.volatility_pull_ratio": up(market.estimators.volatility_ratio, 1)}, "wait until its volatility has fallen"
    )


def _cooldown(case: Case) -> Change:
    return wait(case.market.cooldown_until - case.state.now, "until the pause after the stop is over")


def _positions(case: Case) -> Change:
    return assign(case.state, {"risk.max_open_positions": len(case.state.exposed) + 1}, "let a position go flat")


# What a strategy wanted nothing for.


def _one_sided(case: Case) -> Change:
    missing = "a bid" if not case.market.book.best_bid else "an ask"
    return Change("outside", f"wait for {missing}: the book has none")


def _low_confidence(case: Case) -> Change:
    opinion = case.market.opinion
    if opinion is None:
        return Change("outside", "wait for the model's next word")
    return assign(
        case.state, {"strategy.min_confidence_to_trade": down(opinion.signal.confidence)}, "set strategy.signal_rule: pooled"
    )


def lack_change(state: State, market: Market, lack: tuple[str, str, float], factor: float) -> Change:
    """Of what a strategy says it lacks; `factor` is how much of the base size its view shows."""
    words, name, needed = lack
    instrument = market.instrument
    match name:
        case "max_spread_usd":
            return assign(state, {"execution.max_spread_threshold": up(needed, 6)}, "wait for a tighter book")
        case "min_liquidity_usd":
            return assign(state, {"execution.min_liquidity_threshold": down(needed - 1e-6, 2)}, "wait for depth")
        case "base_qty" | "max_position":
            return _size_change(state, market, needed, factor if name == "base_qty" else 1.0, name)
        case "":
            rule = RULES.get(words)
            return rule(Case(state, market)) if rule is not None else Change("outside", f"wait: {words}")
        case _ if name.startswith("terms."):
            return assign(state, {f"strategy.{name}": False}, "wait for a better book")
        case _:
            return Change("outside", f"wait: {words} ({name} would have to be {needed:g}, for {instrument.id})")


def _size_change(state: State, market: Market, needed: float, factor: float, name: str) -> Change:
    instrument = market.instrument
    if factor <= 0:
        return Change("outside", "wait: nothing is left of the base size")
    shares = instrument.usd_qty(needed / factor)
    if instrument.is_binary:
        return assign(state, {"strategy.base_position_size" if name == "base_qty" else "strategy.max_position_size": up(shares)})
    worth = up(shares * instrument.usd_price(market.mark) * 1.01, 2)
    return assign(state, {"strategy.base_usd" if name == "base_qty" else "strategy.max_usd": worth})


# What was wanted, and refused.


def _cap(name: str, key: str) -> Callable[[Case], Change]:
    """Of a cap in money: what it must be for the smallest order, or for all that was wanted where that fits already."""

    def rule(case: Case) -> Change:
        state, market, limits = case.state, case.market, case.state.params.risk
        found = _short(case, name)
        if found is None:
            return Change("outside", f"wait: the {name} leaves no room")
        short, share = found
        if name == "order cap":
            return assign(state, {key: up(usd(limits.max_order_cost + short), 2)})
        wanted = in_force(state, key) + 100.0 * short / (limits.bankroll * share)
        less = "let positions of the same event go" if name == "event cap" else "let positions go"
        if name == "cluster cap":
            less = "let positions of the same cluster go"
        if wanted > 100.0:
            return Change("outside", f"raise risk.bankroll_usd, or {less}: the {name} is short of ${usd(short):.2f}")
        return assign(state, {key: up(wanted)}, less if market.instrument.is_binary or name != "market cap" else "")

    return rule


_OF_WORST = ("market cap", "event cap", "cluster cap", "gross cap")
"""Caps of what is lost at worst; the others are of cash and of one order."""


def _short(case: Case, name: str) -> tuple[int, float] | None:
    """(cash that a cap is short of for the order that is needed, the share of the cap that this market may use)."""
    state, market, wish = case.state, case.market, case.wish
    if wish is None:
        return None
    room = dict(risk.cash_rooms(state, market)).get(name)
    if room is None:
        return None
    unit = risk.unit_loss(state, market, wish.side, wish.price)
    reduces = max(0, -wish.side * market.position.net)
    least = market.instrument.min_qty
    fits = reduces + risk.qty_for(market, room, unit)
    adding = (least if fits < least else wish.qty) - min(reduces, least if fits < least else wish.qty)
    more: int = to_cash_up(market.instrument, unit * adding)
    share = 1.0
    if name == "gross cap":
        opinion = acting(state, market)
        share = risk.PRIORITY_SHARE[opinion.signal.priority.value] if opinion is not None else 1.0
    if name in _OF_WORST:
        # What rests on the other side counts in them as well.
        order = QuoteTarget(wish.side, wish.price, adding + min(reduces, wish.qty), wish.reason)
        with_it = risk.worst_with(state, alone(state, market, wish.side), order)
        more = max(more, with_it - worst_loss(state.params, market, *foreign_resting(state, market)))
    return max(1, more - room + 1), share


def alone(state: State, market: Market, side: Side) -> Market:
    """The market without our orders of a side, in whose place another would come; its cached sums are as they were."""
    return msgspec.structs.replace(market, live=[i for i in market.live if state.orders[i].side is not side])


def _free_cash(case: Case) -> Change:
    state, market = case.state, case.market
    found = _short(case, "free cash")
    if found is None:
        return Change("outside", "wait until cash is free")
    # The other side's order is paid from the same cash; it is served first.
    other = sum(_claims(state, market, case.side)) if case.side is not None else 0
    short = max(1, found[0] + other)
    ratio = 100.0 * (state.params.risk.free_cash_ratio - short / state.params.risk.bankroll)
    if ratio < 0:
        return Change("outside", f"${usd(short):.2f} more of cash is needed: let positions be merged or sold")
    return assign(state, {"risk.min_free_cash_pct": down(ratio)}, "let positions be merged or sold")


def _claims(state: State, market: Market, side: Side) -> list[int]:
    """Cash that our orders of the other side have set aside."""
    orders = [o for o in state.live_orders(market) if o.side is not side]
    payout = market.instrument.payout
    buying = [
        (o.price if o.leg is not Leg.NO else payout - o.price, o.remaining) for o in orders if leg_side(o.side, o.leg) is Side.BUY
    ]
    return [to_cash_up(market.instrument, price * qty) for price, qty in buying]


def _position_cap(case: Case) -> Change:
    state, market, wish = case.state, case.market, case.wish
    if wish is None:
        return Change("outside", "wait: let the position shrink")
    _, limit = sizes(state.params, market.instrument, market.mark)
    beyond = max(0, wish.side * market.position.net)
    least = market.instrument.min_qty
    needed = beyond + (least if limit - beyond < least else wish.qty)
    return _size_change(state, market, needed, 1.0, "max_position")


def _venue_refused(case: Case) -> Change:
    side = "" if case.side is None else case.side.name.lower()
    until = max((ns for key, ns in case.market.held_off.items() if key.startswith(side)), default=case.state.now)
    return wait(until - case.state.now, "after the venue's refusal")


def _message_budget(case: Case) -> Change:
    state = case.state
    venue, limit = state.venues[case.market.instrument.venue], float(state.params.risk.messages_per_10s)
    missing = 0.2 * limit + 1.0 - venue.budget
    left = missing / limit * risk.MESSAGE_WINDOW_NS - (state.now - venue.budget_ns)
    return wait(left, "until messages may be sent again (risk.messages_per_10s)")


def _fat_finger(case: Case) -> Change:
    state, market, wish = case.state, case.market, case.wish
    fair = market.estimators.fair
    if fair <= 0 or wish is None:
        return Change("outside", "wait until a fair value is known")
    ticks = math.ceil(wish.side * (wish.price - fair) / market.instrument.tick_at(wish.price))
    return assign(state, {"risk.fat_finger_ticks": max(ticks, 1)}, "wait for the fair value to follow")


def _slippage(case: Case) -> Change:
    """How deep an exit would have to reach to find the smallest order."""
    market, state = case.market, case.state
    selling = market.position.net > 0
    mark, payout = market.mark, market.instrument.payout
    basis = payout - mark if not selling and market.instrument.is_binary else mark
    seen = 0
    for price, qty in market.book.top(Side.BUY if selling else Side.SELL, len(market.book.bids) + len(market.book.asks)):
        seen += qty
        if seen >= market.instrument.min_qty and basis > 0:
            slip = up(abs(price - mark) / basis, 4)
            return assign(state, {"risk.exit_max_slippage": slip}, "wait for depth") if slip <= 1.0 else _no_depth()
    return _no_depth()


def _no_depth() -> Change:
    return Change("outside", "wait for depth: the book holds less than the smallest order")


def _own_cross(case: Case) -> Change:
    other = [o for o in case.state.live_orders(case.market) if o.side is not case.side]
    told = ", ".join(f"{o.order_id} at {case.market.instrument.usd_price(o.price):g}, {o.status.value}" for o in other)
    return Change("outside", f"wait until our own order of the other side is gone: {told or 'it is on its way out'}")


def _would_cross(case: Case) -> Change:
    return Change("outside", "wait: the book moved while the quote was made; the next look prices it again")


def _not_reducing(case: Case) -> Change:
    return Change("outside", "wait: what rests already reduces the whole position, and nothing else is allowed here")


def _size_rule(case: Case) -> Change:
    instrument = case.market.instrument
    told = f"at least {instrument.usd_qty(instrument.min_qty):g}, in steps of {instrument.usd_qty(instrument.qty_step):g}"
    return Change("outside", f"the size must fit the venue's rules: {told}")


def _off_grid(case: Case) -> Change:
    instrument = case.market.instrument
    bounds = f"{instrument.usd_price(instrument.min_price):g} to {instrument.usd_price(instrument.max_price):g}"
    tick = instrument.usd_price(instrument.tick_at(int(case.market.mark) or 1))
    return Change("outside", f"wait: the price must lie on the venue's grid, {bounds} in steps of {tick:g}")


def _of_strategy(name: str, words: str) -> Callable[[Case], Change]:
    """A note whose numbers only its strategy knows (`lack_change`); without it, which keys it is about."""
    return lambda case: Change("outside", f"{words} ({name})")


RULES: dict[str, Callable[[Case], Change]] = {
    "mode": _mode,
    "account": _account,
    "venue": _venue,
    "silence": _silence,
    "lag": _lag,
    "book": _book,
    "resolution": _resolution,
    "schedule": _schedule,
    "pull": _pull,
    "market": _market,
    "cooldown": _cooldown,
    "positions": _positions,
    "one-sided book": _one_sided,
    "wide spread": _of_strategy("execution.max_spread_threshold", "wait for a tighter book, or raise the limit"),
    "thin book": _of_strategy("execution.min_liquidity_threshold", "wait for depth, or lower the limit"),
    "no size configured": _of_strategy("strategy.base_position_size, strategy.base_usd where sizes are in money", "set a size"),
    "no expected gain": _of_strategy("strategy.terms.table", "wait for a better book, or switch the table off"),
    "low confidence": _low_confidence,
    "order cap": _cap("order cap", "risk.max_order_usd"),
    "market cap": _cap("market cap", "risk.max_market_pct"),
    "event cap": _cap("event cap", "risk.max_event_pct"),
    "cluster cap": _cap("cluster cap", "risk.max_cluster_pct"),
    "gross cap": _cap("gross cap", "risk.max_gross_pct"),
    "free cash": _free_cash,
    "position cap": _position_cap,
    "message budget": _message_budget,
    "venue refused": _venue_refused,
    "size": _size_rule,
    "off grid": _off_grid,
    "fat finger": _fat_finger,
    "own cross": _own_cross,
    "would cross": _would_cross,
    "not reducing": _not_reducing,
    "no depth within the slippage limit": _slippage,
}
"""Every gate, every note and every reason to refuse that the core has."""
