"""Work on the account that takes minutes: sets merged and made, shares of resolved markets redeemed.

Each is asked once under an id, answered once, and what its answer would free stays reserved until then. An answer that never comes
is replaced by what the account shows after a while.
"""

from __future__ import annotations

from llm_maker.core.commands import Level, MergeSets, RedeemShares, SplitCash
from llm_maker.core.events import CashKind, CashMoved, MergeFailed, RedeemFailed, SetsMerged, SetsSplit, SplitFailed
from llm_maker.core.money import after_position, loaded, redeem
from llm_maker.core.params import qty
from llm_maker.core.state import Market, Work, reserved_shares
from llm_maker.core.step import Step
from llm_maker.core.values import NS_PER_S, Leg, to_cash_up

WORK_PATIENCE_NS = 600 * NS_PER_S
"""An answer that has not come after this is replaced by what the account shows."""
REDEEM_RETRY_NS = 600 * NS_PER_S
MERGE_RETRY_NS = 60 * NS_PER_S


def _begin(step: Step, what: str, instrument: str, size: int) -> str:
    state = step.state
    state.next_work += 1
    work_id = f"{state.session}-w{state.next_work}"
    state.works[work_id] = Work(work_id, what, instrument, size, step.now)
    return work_id


def _end(step: Step, work_id: str, told: str) -> Work | None:
    """The work that this answers, now over; an answer told twice, or to nothing, changes nothing."""
    work = step.state.works.pop(work_id, None)
    if work is None:
        step.notice(Level.WARNING, "unasked_work", f"{told} of {work_id or 'no id'}, which is not under way")
    return work


def _busy(step: Step, market: Market) -> bool:
    return any(work.instrument == market.instrument.id for work in step.state.works.values())


def merge_sets(step: Step, market: Market) -> None:
    """Turn complete sets back into cash when there are enough of them or cash is short (`quoting.md` 2.6)."""
    state, params = step.state, step.state.params.execution
    sets = min(market.position.free_to_sell(leg) - reserved_shares(state, market, leg) for leg in (Leg.YES, Leg.NO))
    if sets < market.instrument.min_qty or state.stopping or market.resolved is not None:
        return
    if market.merge_failed_ns and step.now - market.merge_failed_ns < MERGE_RETRY_NS:
        return
    if _busy(step, market):
        return  # of two at once whose answers are lost, the account could not show which was done
    short = state.cash - state.reserved < params.merge_cash_ratio * state.params.risk.bankroll
    if sets >= qty(market.instrument, params.merge_min_milli) or short:
        market.position.merge_started(sets)
        work_id = _begin(step, "merge", market.instrument.id, sets)
        step.out.append(MergeSets(market.instrument.id, sets, "cash is short" if short else "complete sets", work_id))


def split_cash(step: Step, market: Market, size: int) -> None:
    """A person asks for sets made of cash; refused in words where cash does not suffice."""
    state = step.state
    cost = to_cash_up(market.instrument, size * market.instrument.payout)
    if not market.instrument.is_binary or size <= 0 or size % market.instrument.qty_step:
        step.notice(Level.WARNING, "split", f"{size} units cannot be made into sets", market.instrument.id)
    elif market.resolved is not None or state.stopping or _busy(step, market):
        text = "the market is over, we are stopping, or other work is under way there"
        step.notice(Level.WARNING, "split", text, market.instrument.id)
    elif cost > state.cash - state.reserved:
        step.notice(
            Level.WARNING, "split", f"needs {cost} cash units, {state.cash - state.reserved} are free", market.instrument.id
        )
    else:
        work_id = _begin(step, "split", market.instrument.id, size)
        step.out.append(SplitCash(market.instrument.id, size, "by the operator", work_id))


def redeem_shares(step: Step, market: Market) -> None:
    """Ask for the payment of a resolved market; never while part of a balance is foreign or a fill may still fail."""
    state, held = step.state, market.position
    shares = (held.yes.settled, held.no.settled)
    foreign = held.yes.foreign or held.no.foreign
    if not state.params.risk.live or state.stopping or not any(shares) or foreign or held.pending or _busy(step, market):
        return
    if not state.account_known or (market.redeem_ns and step.now - market.redeem_ns < REDEEM_RETRY_NS):
        return
    market.redeem_ns = step.now
    work_id = _begin(step, "redeem", market.instrument.id, 0)
    step.out.append(RedeemShares(market.instrument.id, max(0, shares[0]), max(0, shares[1]), "resolved", work_id))


def on_merged(step: Step, event: SetsMerged) -> None:
    market = loaded(step, event.instrument, "merge")
    if market is not None and _end(step, event.work_id, "a merge") is not None:
        _merged(step, market, event.qty, event.cost)


def _merged(step: Step, market: Market, size: int, cost: int) -> None:
    step.state.counts.merges += 1
    _turned(step, market, market.position.merged(market.instrument, size), cost)


def _turned(step: Step, market: Market, cash: int, cost: int) -> None:
    """Sets have become cash, or cash sets (`cash` negative); `cost` is what the venue charged for it."""
    state = step.state
    state.cash += cash - cost
    state.flows.trading += cash
    state.flows.fees -= cost
    after_position(step, market)


def on_merge_failed(step: Step, event: MergeFailed) -> None:
    market = loaded(step, event.instrument, "merge")
    step.notice(Level.WARNING, "merge_failed", f"merge of {event.qty} units: {event.reason}", event.instrument)
    if market is not None and event.final and _end(step, event.work_id, "a failed merge") is not None:
        market.position.merge_failed(event.qty)
        market.merge_failed_ns = step.now


def on_split(step: Step, event: SetsSplit) -> None:
    market = loaded(step, event.instrument, "split")
    if market is not None and _end(step, event.work_id, "a split") is not None:
        _split(step, market, event.qty, event.cost)


def _split(step: Step, market: Market, size: int, cost: int) -> None:
    _turned(step, market, market.position.split(market.instrument, size), cost)


def on_split_failed(step: Step, event: SplitFailed) -> None:
    step.notice(Level.WARNING, "split_failed", f"split of {event.qty} units: {event.reason}", event.instrument)
    if event.final:
        _end(step, event.work_id, "a failed split")


def on_redeem_failed(step: Step, event: RedeemFailed) -> None:
    step.notice(Level.WARNING, "redeem_failed", event.reason, event.instrument)
    if event.final:
        _end(step, event.work_id, "a failed redemption")


def on_redeemed(step: Step, event: CashMoved) -> None:
    """One leg of a redemption that was asked for, or that the venue made by itself; the last leg ends the work."""
    market = loaded(step, event.instrument, "redemption")
    if market is None:
        return
    if event.work_id and event.work_id not in step.state.works:
        step.notice(Level.WARNING, "unasked_work", f"a redemption of {event.work_id}, which is not under way", event.instrument)
        return
    redeem(step, market, event)
    if event.work_id and not (market.position.yes.settled or market.position.no.settled):
        del step.state.works[event.work_id]


def judge_works(step: Step, told: dict[tuple[str, Leg], int]) -> None:
    """Works that nobody will answer any more end as the account shows (`told`: holdings).

    One of an earlier session has lost whoever was to answer it: that it was done is believed at once. That it was not done is
    believed of any only once it is overdue: a transaction may still be on its way.
    """
    state = step.state
    for work in list(state.works.values()):
        overdue = step.now - work.asked_ns > WORK_PATIENCE_NS
        orphaned = not work.work_id.startswith(f"{state.session}-")
        market = state.markets.get(work.instrument)
        if not (overdue or orphaned) or market is None or market.position.pending:
            continue
        done = _shows(market, work, told)
        if not (done or overdue):
            continue
        if done and work.what == "merge":
            _merged(step, market, work.qty, 0)
        elif done:
            _split(step, market, work.qty, 0)
        elif work.what == "merge":
            market.position.merge_failed(work.qty)
        del state.works[work.work_id]
        text = f"{work.what} {work.work_id} was never answered; by the account it was {'done' if done else 'not done'}"
        step.notice(Level.WARNING, "work_judged", text, work.instrument)


def _shows(market: Market, work: Work, told: dict[tuple[str, Leg], int]) -> bool:
    """Both legs of the account have moved by the work's quantity, what is not ours left aside."""
    sign = {"merge": -1, "split": 1}.get(work.what, 0)
    if not sign:
        return False  # a redemption is asked for again, or shows as paid by itself
    for leg in (Leg.YES, Leg.NO):
        held = market.position.held(leg)
        have = told.get((work.instrument, leg), 0) - held.foreign
        if sign * (have - held.settled) < work.qty:
            return False
    return True


def redeemed_elsewhere(step: Step, market: Market, leg: Leg) -> None:
    """Shares of a resolved market are gone from the account though we asked for nothing: the venue has paid them by itself."""
    held, price = market.position.held(leg), market.resolved
    assert price is not None
    size = held.settled
    if size <= 0 or market.position.pending or _busy(step, market):
        return
    worth = price if leg is Leg.YES else market.instrument.payout - price
    due = market.position.worth_of(market.instrument, size, worth)
    step.notice(Level.INFO, "redeemed", f"{size} units of {leg.value} were paid out by the venue itself", market.instrument.id)
    redeem(step, market, CashMoved(CashKind.REDEMPTION, due, market.instrument.id, leg, size))
