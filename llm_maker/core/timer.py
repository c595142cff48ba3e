"""What only time brings about, once a second of market time: deadlines of orders, merges, markets that are over."""

from __future__ import annotations

from llm_maker.core.order_events import look_up, on_order
from llm_maker.core.orders import Status, What
from llm_maker.core.state import Market, refresh_exposure, unindex
from llm_maker.core.step import ACCOUNT_RETRY_NS, Step
from llm_maker.core.values import NS_PER_S
from llm_maker.core.works import merge_sets, redeem_shares

ACCOUNT_CHECK_NS = 60 * NS_PER_S
"""How often the account is read again though nothing seems wrong: a lost message leaves no other trace."""
FORGET_NS = 3_600 * NS_PER_S
"""A market that is over, or left the universe, with nothing of ours left in it is dropped after this long."""


def on_timer(step: Step) -> None:
    """Deadlines of orders, merges and the account: once a second of market time."""
    state = step.state
    timeout = state.params.risk.ack_timeout_ns
    for market in state.markets.values():
        for order in state.live_orders(market):
            late = step.now - order.changed_ns > timeout
            # An order that takes ends at once: one that is still open has lost its last word.
            waiting = order.status in (Status.PENDING_NEW, Status.PENDING_CANCEL) or not order.post_only
            if late and waiting and order.status is not Status.UNKNOWN:
                on_order(step, order.order_id, What.UNCERTAIN)
                state.counts.unknown += 1
            if order.status is Status.UNKNOWN:
                look_up(step, order, "no answer")
                if order.cancel_ns and step.now - order.cancel_ns > timeout:
                    # The cancel may be what was lost, and look-ups may fail for long: to ask twice to be rid of it harms nothing.
                    step.cancel(order, "its cancel was not answered")
        if market.instrument.is_binary and market.position.no.settled and market.position.yes.settled:
            merge_sets(step, market)
        if market.position.yes.foreign or market.position.no.foreign:
            # What is not ours is worth its mark, and the mark moves without us.
            refresh_exposure(state, market)
    for market in [m for m in state.markets.values() if m.resolved is not None or not m.in_universe]:
        if market.resolved is not None:
            redeem_shares(step, market)
        _forget(step, market)
    unsure = not state.account_known or state.account_doubted
    if not state.stopping and step.now - state.account_asked_ns >= (ACCOUNT_RETRY_NS if unsure else ACCOUNT_CHECK_NS):
        step.ask_account("start" if not state.account_known else "doubt" if unsure else "cross-check")


def _forget(step: Step, market: Market) -> None:
    """Drop a market that is over and holds nothing, so that months of markets do not pile up."""
    state, held = step.state, market.position
    shares = any(h.settled or h.pending or h.foreign or h.merging for h in (held.yes, held.no))
    anything = market.live or held.pending or shares
    if anything or step.now - market.mark_ns < FORGET_NS:
        return
    instrument = market.instrument
    unindex(state, instrument)
    for name, since in market.refusals.items():
        state.refused[name.partition(" ")[2]].ns += step.now - since
    state.gross -= market.worst
    state.reserved -= market.reserved
    for order_id in [i for i, o in state.orders.items() if o.instrument == instrument.id]:
        del state.orders[order_id]
    state.recent = [i for i in state.recent if i in state.orders]
    for intent_id in [i for i, intent in state.intents.items() if intent.instrument == instrument.id]:
        del state.intents[intent_id]
    del state.markets[instrument.id]
