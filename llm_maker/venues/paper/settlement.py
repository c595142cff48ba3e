"""When what was matched is final: fills confirmed or failed after a while, sets merged into cash.

It knows the delay and the chance of failure; what moves is the `purse`'s. It refuses to know who traded with whom, and why.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from llm_maker.core.commands import MergeSets, RedeemShares, SplitCash
from llm_maker.core.events import FillFailed, FillSettled, MergeFailed, RedeemFailed, SetsMerged, SetsSplit, SplitFailed
from llm_maker.core.values import NS_PER_S, Leg
from llm_maker.venues.paper import admission, matching, payments
from llm_maker.venues.paper.records import CompleteMerge, CompleteSplit, ExchangeParams, Settle, State

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
        state.tell(now + params.response_ns, MergeFailed(command.instrument, command.qty, "closed", work_id=command.work_id))
        return
    reserved = (admission.reserved_shares(market, Leg.YES), admission.reserved_shares(market, Leg.NO))
    if not state.purse.lock_sets(command.instrument, command.qty, reserved):
        state.tell(now + params.response_ns, MergeFailed(command.instrument, command.qty, "balance", work_id=command.work_id))
        return
    key = f"{command.instrument}:{now}:{command.qty}"
    state.later(now + confirm_ns(params, key), CompleteMerge(command))


def split(state: State, params: ExchangeParams, now: int, command: SplitCash) -> None:
    """Set out to turn cash into sets, or refuse."""
    market = state.markets.get(command.instrument)
    if market is None or market.instrument is None or not market.instrument.is_binary or market.closed:
        state.tell(now + params.response_ns, SplitFailed(command.instrument, command.qty, "closed", work_id=command.work_id))
        return
    key = f"split:{command.instrument}:{now}:{command.qty}"
    state.later(now + confirm_ns(params, key), CompleteSplit(command))


def complete_split(state: State, params: ExchangeParams, now: int, timer: CompleteSplit) -> None:
    """The cash is sets, if there is still enough of it."""
    command = timer.command
    market = state.markets[command.instrument]
    if market.closed or market.instrument is None or not state.purse.split(market.instrument, command.qty):
        state.tell(now + params.response_ns, SplitFailed(command.instrument, command.qty, "balance", work_id=command.work_id))
        return
    state.tell(now + params.response_ns, SetsSplit(command.instrument, command.qty, work_id=command.work_id))


def redeem(state: State, params: ExchangeParams, now: int, command: RedeemShares) -> None:
    """Resolved shares are paid out here without being asked."""
    reason = "paid out by itself at the resolution"
    state.tell(now + params.response_ns, RedeemFailed(command.instrument, reason, work_id=command.work_id))


def complete_merge(state: State, params: ExchangeParams, now: int, timer: CompleteMerge) -> None:
    """The sets are cash, unless the market ended on the way."""
    command = timer.command
    market = state.markets[command.instrument]
    if market.closed or market.instrument is None:
        state.tell(now + params.response_ns, MergeFailed(command.instrument, command.qty, "closed", work_id=command.work_id))
        return
    state.purse.merge(market.instrument, command.qty)
    state.tell(now + params.response_ns, SetsMerged(command.instrument, command.qty, work_id=command.work_id))


def confirm_ns(params: ExchangeParams, key: str) -> int:
    """Lognormal around the median; one value per key (a fill, a merge)."""
    share = (matching.draw(params.seed, "confirm", key) + 0.5) / 2**64
    spread = math.exp(params.confirm_sigma * _UNIT.inv_cdf(min(max(share, 1e-9), 1 - 1e-9)))
    return min(int(params.confirm_median_ns * spread), _MAX_CONFIRM_NS)
