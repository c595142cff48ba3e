"""The way out: cancel everything of ours, then prove it by an account list taken after our last order ended.

A stop that cannot prove it says so, with the ids that may rest.
"""

from __future__ import annotations

from llm_maker.core.commands import (
    Stop,
)
from llm_maker.core.orders import Status
from llm_maker.core.step import ACCOUNT_RETRY_NS, Step
from llm_maker.core.values import NS_PER_S

STOP_PATIENCE_NS = 60 * NS_PER_S
"""Market time to prove that nothing rests; after it the stop says what it could not prove."""

SETTLE_PATIENCE_NS = 25 * NS_PER_S
"""Of that, how long a stop of real money waits for fills to settle and for cash to be explained."""


def begin_stop(step: Step, reason: str) -> None:
    """Cancel everything of ours; `drive_stop` proves it."""
    state = step.state
    if state.stopping:
        return
    state.stopping = reason
    state.stop_ns = step.now
    for order in [o for o in state.orders.values() if o.is_live]:
        # In doubt a cancel may have been lost: this is the last chance to send it.
        if order.status is Status.UNKNOWN or not order.sent_cancel:
            step.cancel(order, f"stop: {reason}")


def drive_stop(step: Step) -> None:
    """While stopping: cancel what became open again, ask for the account once all is final, give up at the deadline."""
    state = step.state
    if state.stopped:
        return
    live = [o for o in state.orders.values() if o.is_live]
    for order in live:
        if order.status is Status.OPEN and not order.sent_cancel:
            step.cancel(order, f"stop: {state.stopping}")
    if step.now - state.stop_ns > STOP_PATIENCE_NS:
        resting = tuple(o.order_id for o in live)
        _stop(step, clean=False, resting=resting)
    elif not live and step.now - state.account_asked_ns >= ACCOUNT_RETRY_NS:
        step.ask_account("stop")


def prove_stop(step: Step, resting: set[str], asked: int) -> None:
    """An account list asked for after our last order ended, with nothing of ours in it, is the proof."""
    live = [o for o in step.state.orders.values() if o.is_live]
    if not live and not resting and asked >= step.state.stop_ns and not _settling(step):
        _stop(step, clean=True, resting=())


def _settling(step: Step) -> bool:
    """Real money ends with its books in agreement where a moment suffices for that: fills settled, cash explained."""
    state = step.state
    if not state.params.risk.live or step.now - state.stop_ns > SETTLE_PATIENCE_NS:
        return False
    return state.cash_told is not None or any(m.position.pending for m in state.markets.values())


def _stop(step: Step, *, clean: bool, resting: tuple[str, ...]) -> None:
    step.state.stopped = True
    step.out.append(Stop(clean, step.state.stopping, resting))
