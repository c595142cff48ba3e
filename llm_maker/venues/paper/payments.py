"""Money that comes with time: funding, the samples of liquidity rewards, and the day on which rewards and rebates are paid.

It knows when each is due and asks `rewards` and the `purse` how much. It refuses to know how an order came to rest or a fill to be.
"""

from __future__ import annotations

from heapq import heapify

from llm_maker.core.events import CashKind, CashMoved
from llm_maker.core.values import NS_PER_S
from llm_maker.venues.paper import matching, rewards
from llm_maker.venues.paper.matching import Market
from llm_maker.venues.paper.records import ExchangeParams, PayDay, PayFunding, SampleRewards, State

_MINUTE_NS = 60 * NS_PER_S
_DAY_NS = 86_400 * NS_PER_S


def pay_funding(state: State, params: ExchangeParams, now: int, timer: PayFunding) -> None:
    """Pay or take one due funding on what is held, at the mid, or at the last price where none is shown."""
    market = state.markets[timer.instrument]
    rate = market.funding.pop(timer.due_ns)
    if market.instrument is None or market.instrument.is_binary or not state.purse.perp(market.id).net:
        return
    shown = market.best_bid and market.best_ask != matching.NO_ASK
    price2 = market.best_bid + market.best_ask if shown else 2 * market.last_price
    amount = state.purse.fund(market.instrument, price2, rate)
    state.tell(now + params.response_ns, CashMoved(CashKind.FUNDING, amount, market.id))


def sample_rewards(state: State, params: ExchangeParams, now: int, _timer: SampleRewards) -> None:
    """Score every rewarded market where something of ours rests; go on while there is one."""
    state.sampling = False
    for _, market in sorted(state.markets.items()):
        if market.orders and market.instrument is not None and market.instrument.reward is not None:
            state.sampling = True
            quotes = [(order.side, order.price, order.remaining) for order in market.orders]
            earned = rewards.sample(market.instrument, market.bids, market.asks, quotes)
            accrued = state.purse.rewards
            if earned:
                accrued[market.id] = accrued.get(market.id, 0) + earned
                expect_payday(state, now)
    if state.sampling:
        state.later(_sample_ns(params.seed, now), SampleRewards())


def expect_sample(state: State, params: ExchangeParams, now: int, market: Market) -> None:
    """Samples are taken only while something of ours could score."""
    rewarded = market.instrument is not None and market.instrument.reward is not None
    if rewarded and market.orders and not state.sampling:
        state.sampling = True
        state.later(_sample_ns(params.seed, now), SampleRewards())


def skip_samples(state: State, params: ExchangeParams, now: int) -> None:
    """The next sample is after `now`: those of a time that nobody saw would be of books that stood still."""
    then = _sample_ns(params.seed, now)
    state.actions = [
        (then if due <= now and isinstance(action, SampleRewards) else due, number, action) for due, number, action in state.actions
    ]
    heapify(state.actions)


def expect_payday(state: State, now: int) -> None:
    """Something has accrued: there is a payday at the next midnight."""
    if not state.payday:
        state.payday = True
        state.later((now // _DAY_NS + 1) * _DAY_NS, PayDay())


def pay_day(state: State, params: ExchangeParams, now: int, _timer: PayDay) -> None:
    """UTC midnight: each kind is paid if all its markets together reach the minimum, else dropped."""
    purse = state.purse
    state.payday = False
    for kind, accrued in ((CashKind.REBATE, purse.rebates), (CashKind.REWARD, purse.rewards)):
        paid = sum(accrued.values()) >= params.min_payout
        for instrument, amount in sorted(accrued.items()) if paid else ():
            purse.cash += amount
            state.tell(now + params.response_ns, CashMoved(kind, amount, instrument))
    purse.rebates, purse.rewards = {}, {}


def _sample_ns(seed: int, now: int) -> int:
    """The next seeded moment of a minute after `now`."""
    minute = now // _MINUTE_NS
    moments = (at * _MINUTE_NS + matching.draw(seed, "sample", str(at)) % _MINUTE_NS for at in (minute, minute + 1))
    return next(moment for moment in moments if moment > now)
