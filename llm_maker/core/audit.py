"""What the venue says we have, held against what we believe. Differences are named, never silently adopted.

"The call failed" is never "nothing there". Only what our own fills made is ours; the rest is foreign: shown, counted, left alone.
"""

from __future__ import annotations

from llm_maker.core.commands import (
    CancelOrder,
    Level,
)
from llm_maker.core.events import (
    AccountSnapshot,
    AccountStreamDown,
    AccountStreamUp,
    AccountUnknown,
    RestingOrder,
)
from llm_maker.core.money import transfer
from llm_maker.core.order_events import ABSENT_PROOF_LOOKUPS, look_up, on_order
from llm_maker.core.orders import Order, Status, What
from llm_maker.core.positions import Position
from llm_maker.core.state import Market, refresh_exposure
from llm_maker.core.step import ACCOUNT_RETRY_NS, Step
from llm_maker.core.stopping import prove_stop
from llm_maker.core.values import CASH_PER_USD, NS_PER_S, Leg, Side, leg_side
from llm_maker.core.works import judge_works, redeemed_elsewhere

UNLISTED_PROOF = 2
"""Account lists without an order that look-ups do not find either."""
FOREIGN_MEMORY_NS = 600 * NS_PER_S
"""So long after orders that are not ours were last seen, cash may still have gone by their fills."""
DUST_CASH = CASH_PER_USD // 100
"""A cent: what the venue's own rounding may come to; told, but nobody is woken for it."""
MAX_CASH_LOSS = CASH_PER_USD
"""Less cash than the ledger explains, by more than this, halts: a dollar."""


def on_account(step: Step, event: AccountSnapshot) -> None:
    """Compare what the venue says with what we believe; differences are named, never silently adopted."""
    state = step.state
    asked = event.asked_ns or state.account_asked_ns
    listed = {o.order_id for o in event.orders if o.order_id}
    here = {o.venue_id for o in event.orders if not o.order_id}
    for gone in [i for i in state.foreign_orders if i not in here]:
        del state.foreign_orders[gone]
    for resting in event.orders:
        _compare_resting(step, resting, asked)
    _halt_on_foreign(step)
    if state.foreign_orders:
        state.foreign_ns = step.now
    for order in [o for o in state.orders.values() if o.is_live]:
        if order.order_id in listed:
            order.unlisted = 0
        elif order.changed_ns < asked:
            _not_listed(step, order, asked)
    state.account_doubted = False
    told = {(h.instrument, h.leg): h.qty for h in event.holdings}
    judge_works(step, told)
    _judge_drift(step, _compare_holdings(step, told))
    if event.cash is not None:
        watch_cash(step, event.cash)
    first = not state.account_known
    state.account_known, state.account_seen_ns = True, max(asked, state.account_seen_ns)
    if first:
        for market in state.markets.values():
            market.dirty = True
    if state.stopping:
        prove_stop(step, listed, asked)


def _not_listed(step: Step, order: Order, asked: int) -> None:
    """An order that the list lacks is looked up; one that look-ups do not find either, though it did exist, has ended."""
    if order.status in (Status.OPEN, Status.PENDING_CANCEL):
        look_up(step, order, "not in the account's list")
    elif order.status is Status.UNKNOWN and order.absents >= ABSENT_PROOF_LOOKUPS and order.absent_ns < asked:
        order.unlisted += 1
        if order.unlisted >= UNLISTED_PROOF and order.filled:
            text = (
                f"{order.order_id} traded in part, and neither look-ups nor {UNLISTED_PROOF} lists find the rest: taken as canceled"
            )
            step.notice(Level.WARNING, "order_lost", text, order.instrument)
            on_order(step, order.order_id, What.FOUND_CANCELED)


def _halt_on_foreign(step: Step) -> None:
    """A live start beside orders that are not ours stands still until a person has seen them."""
    state = step.state
    if state.account_halts and state.foreign_orders:
        names = ", ".join(list(state.foreign_orders)[:3])
        text = f"{len(state.foreign_orders)} orders that are not ours rest on the account ({names}); `resume` trades beside them"
        step.halt("foreign_orders", text, 0)
    state.account_halts = False


def watch_cash(step: Step, told: int) -> None:
    """The venue's cash against the ledger's, live: what stays unexplained is booked as a transfer, and a loss of it halts.

    A loss too small for that is a cost, and counts in the P&L: as transfers many small ones would move the loss limits away.
    Of fills that are not settled the venue may or may not have moved the cash yet: anything between is explained.
    """
    state = step.state
    if not state.params.risk.live or state.works:
        return
    moves = [fill.cash for m in state.markets.values() for fill in m.position.pending.values()]
    settled = state.cash - sum(moves)
    low, high = settled + sum(c for c in moves if c < 0), settled + sum(c for c in moves if c > 0)
    if moves:
        # Nothing exact can be said while fills settle: neither is a gap booked, nor one forgotten that was seen before.
        state.account_doubted = state.account_doubted or state.cash_told is not None or not low <= told <= high
        return
    gap = told - state.cash
    if gap == 0:
        state.cash_told, state.cash_seen = None, True
        return
    seen_twice = state.cash_told == gap and step.now - state.cash_told_ns >= ACCOUNT_RETRY_NS
    if state.cash_told != gap:
        state.cash_told, state.cash_told_ns = gap, step.now
    if state.cash_seen and not seen_twice:
        state.account_doubted = True
        return
    state.cash_told = None
    state.cash += gap
    beside_others = step.now - state.foreign_ns < FOREIGN_MEMORY_NS and state.foreign_ns > 0
    cost = state.cash_seen and -MAX_CASH_LOSS <= gap < 0 and not beside_others
    if cost:
        state.flows.fees += gap
    else:
        transfer(state, gap)
    level = Level.WARNING if state.cash_seen and abs(gap) >= DUST_CASH else Level.INFO
    hint = " (a deposit, a reward, a rebate?)" if gap > 0 and state.cash_seen else ""
    step.notice(
        level,
        "transfer",
        f"{gap / CASH_PER_USD:+.6f} USD came without a trade of ours{hint}: booked as a {'cost' if cost else 'transfer'}",
    )
    if state.cash_seen and gap < -MAX_CASH_LOSS and not beside_others:
        step.halt(
            "cash", f"the venue holds {-gap / CASH_PER_USD:.2f} USD less than our fills explain; `resume` if you took them", 0
        )
    state.cash_seen = True


def _judge_drift(step: Step, drift: str) -> None:
    """Shares that are missing twice, some seconds apart, halt: one list alone may have been overtaken by a message."""
    state = step.state
    if not drift:
        state.drift_ns = 0
    elif not state.drift_ns:
        state.drift_ns, state.account_doubted = step.now, True
        step.notice(Level.WARNING, "drift", f"{drift}; asked again")
    elif step.now - state.drift_ns >= ACCOUNT_RETRY_NS:
        step.halt("drift", drift, 0)
    else:
        state.account_doubted = True


def _compare_resting(step: Step, resting: RestingOrder, asked: int) -> None:
    state = step.state
    if not resting.order_id:
        known = resting.venue_id in state.foreign_orders
        state.foreign_orders[resting.venue_id] = resting
        if not known:
            text = f"order {resting.venue_id} rests on the account and is not ours; it is left alone"
            step.notice(Level.WARNING, "foreign_order", text, resting.instrument)
        return
    order = state.orders.get(resting.order_id)
    if order is not None and order.is_final and order.changed_ns >= asked:
        return  # it has ended since the list was made
    if order is None or order.is_final:
        step.notice(Level.WARNING, "forgotten_order", f"{resting.order_id} of an earlier session rests: canceled")
        if order is not None:
            # It had ended before this list was asked for, so the list is no old news: what rests is exposure again.
            on_order(step, order.order_id, What.FOUND_OPEN)
        if order is not None and order.is_live:
            step.cancel(order, "had ended, but rests")
        else:
            step.out.append(CancelOrder(resting.order_id, resting.instrument, "of an earlier session"))
    elif order.status is Status.UNKNOWN:
        order.sent_cancel = False
        on_order(step, order.order_id, What.FOUND_OPEN)


def _compare_holdings(step: Step, told: dict[tuple[str, Leg], int]) -> str:
    """More than ours is foreign; less than ours settled is drift, unless fills are still under way. The first drift's words."""
    drift = ""
    for market in step.state.markets.values():
        for leg in market.position.legs(market.instrument):
            split = sum(w.qty for w in step.state.works.values() if w.what == "split" and w.instrument == market.instrument.id)
            found = _compare_leg(market, leg, told.get((market.instrument.id, leg), 0), split)
            if market.resolved is None:
                drift = drift or found
            elif found and step.state.params.risk.live and market.resolved_seen_ns:
                # Twice gone, and nobody asked: the venue has paid by itself.
                redeemed_elsewhere(step, market, leg)
            elif found:
                market.resolved_seen_ns = step.now
        refresh_exposure(step.state, market)
    return drift


def _compare_leg(market: Market, leg: Leg, have: int, split: int) -> str:
    """`split`: shares that a split under way may have made already."""
    position, held, name = market.position, market.position.held(leg), market.instrument.id
    if not market.instrument.is_binary:
        differs = have != held.settled + held.pending and not position.pending
        return f"{name}: venue says {have}, our fills make {held.settled + held.pending}" if differs else ""
    position.set_foreign(leg, _foreign(position, leg, have, split))
    lacks = have < held.settled - held.merging and not position.pending and not market.live
    return f"{name} {leg.value}: venue says {have}, our fills make {held.settled}" if lacks else ""


def _foreign(position: Position, leg: Leg, have: int, split: int) -> int:
    """What our fills do not explain of a told holding; while some settle it is known within bounds, and moves no further.

    Until then the venue may show shares that we have sold, or that a split has made, and not show those that we have bought, or
    that a merge under way has burned.
    """
    held = position.held(leg)
    unexplained = have - held.settled - held.pending
    fills = [(f.qty, leg_side(f.side, f.leg)) for f in position.pending.values() if f.leg is leg]
    sold = sum(size for size, side in fills if side is Side.SELL)
    bought = sum(size for size, side in fills if side is Side.BUY)
    return max(0, min(max(held.foreign, unexplained - sold - split), unexplained + bought + held.merging))


def on_account_unknown(step: Step, event: AccountUnknown) -> None:
    step.notice(Level.WARNING, "account_unknown", f"the account could not be read: {event.reason}; asked again")


def on_stream_up(step: Step, event: AccountStreamUp) -> None:
    """We hear of our own orders again; what happened meanwhile is asked for before anything is quoted."""
    state = step.state
    state.stream_down, state.account_known = "", False
    step.ask_account("the account's stream is up")


def on_stream_down(step: Step, event: AccountStreamDown) -> None:
    """A fill now would not be heard of: everything of ours is pulled."""
    state = step.state
    state.stream_down, state.account_known = event.reason, False
    step.notice(Level.WARNING, "account_stream", f"the account's stream is down: {event.reason}; quotes pulled")
    for market in state.markets.values():
        step.withdraw(market, "account stream down")
        market.dirty = True
