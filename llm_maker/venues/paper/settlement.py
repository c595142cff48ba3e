"""When what was matched is final: fills confirmed or failed after a while, sets merged into cash.

It knows the delay and the chance of failure; what moves is the `purse`'s. It refuses to know who traded with whom, and why.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from llm_maker.core.commands import MergeSets
from llm_maker.core.events import FillFailed, FillSettled, MergeFailed, SetsMerged
from llm_maker.core.values import NS_PER_S, Leg
from llm_maker.venues.paper import admission, matching, payments
from llm_maker.venues.paper.records import CompleteMerge, ExchangeParams, Settle, State

_MAX_CONFIRM_NS = 3_600 * NS_PER_S
_UNIT = NormalDist()


def settle(state: State, params: ExchangeParams, now: int, timer: Settle) -> None:
    """The end of a provisional fill: final, or taken back."""
    purse = state.purse
    if matching.chance(params.seed, "settle", timer.fill_id, params.settle_fail_ppm):
        failed = purse.fail(timer.fill_id)
        if failed is not None:
            state.tell(now + params.response_ns, FillFailed(timer.fill_id, failed.instrument))
        return
    settled = purse.settle(timer.fill_id)
    if settled is None:
        return
    state.tell(now + params.response_ns, FillSettled(timer.fill_id, settled.instrument))
    if settled.rebate:
        payments.expect_payday(state, now)


def merge(state: State, params: ExchangeParams, now: int, command: MergeSets) -> None:
    """Lock the sets and set out to turn them into cash, or refuse."""
    market = state.markets.get(command.instrument)
    if market is None or market.instrument is None or not market.instrument.is_binary or market.closed:
        state.tell(now + params.response_ns, MergeFailed(command.instrument, command.qty, "closed"))
        return
    reserved = (admission.reserved_shares(market, Leg.YES), admission.reserved_shares(market, Leg.NO))
    if not state.purse.lock_sets(command.instrument, command.qty, reserved):
        state.tell(now + params.response_ns, MergeFailed(command.instrument, command.qty, "balance"))
        return
    key = f"{command.instrument}:{now}:{command.qty}"
    state.later(now + confirm_ns(params, key), CompleteMerge(command))


def complete_merge(state: State, params: ExchangeParams, now: int, timer: CompleteMerge) -> None:
    """The sets are cash, unless the market ended on the way."""
    command = timer.command
    market = state.markets[command.instrument]
    if market.closed or market.instrument is None:
        state.tell(now + params.response_ns, MergeFailed(command.instrument, command.qty, "closed"))
        return
    state.purse.merge(market.instrument, command.qty)
    state.tell(now + params.response_ns, SetsMerged(command.instrument, command.qty))


def confirm_ns(params: ExchangeParams, key: str) -> int:
    """Lognormal around the median; one value per key (a fill, a merge)."""
    share = (matching.draw(params.seed, "confirm", key) + 0.5) / 2**64
    spread = math.exp(params.confirm_sigma * _UNIT.inv_cdf(min(max(share, 1e-9), 1 - 1e-9)))
    return min(int(params.confirm_median_ns * spread), _MAX_CONFIRM_NS)
