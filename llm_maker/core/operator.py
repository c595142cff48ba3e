"""What a person, or something impure with a wish, does to an account: actions, adoption, intents, new parameters."""

from __future__ import annotations

import msgspec

from llm_maker.core import losses, money, stopping, works, worth
from llm_maker.core.commands import Level
from llm_maker.core.events import (
    IntentReceived,
    OperatorActed,
    ParamsChanged,
    Verb,
)
from llm_maker.core.params import Params
from llm_maker.core.quote import requote
from llm_maker.core.state import Intent, Market, refresh_exposure
from llm_maker.core.step import Step
from llm_maker.core.values import Mode, to_cash_up

MAX_WAITING = 100
"""Intents that may wait for `approve`."""


def on_operator(step: Step, event: OperatorActed) -> None:
    """A person acted on one market or on the whole account; every action is told with the channel it came by."""
    state = step.state
    step.notice(Level.WARNING, f"operator_{event.verb.value}", f"{event.verb.value} by {event.who}", event.instrument)
    if event.verb is Verb.KILL:
        step.halt("kill", f"killed by {event.who}", 0)
        _take_back(step)
        stopping.begin_stop(step, "kill")
    elif event.verb is Verb.APPROVE:
        _start_intent(step, state.intents.pop(event.intent_id, None))
    elif event.instrument:
        market = state.markets.get(event.instrument)
        if market is None:
            step.notice(Level.WARNING, "no_such_market", f"there is no market {event.instrument}")
        else:
            _operate_market(step, market, event)
    else:
        _operate_all(step, event)


def _operate_market(step: Step, market: Market, event: OperatorActed) -> None:
    match event.verb:
        case Verb.PAUSE:
            market.operator_mode = Mode.HALTED
        case Verb.REDUCE:
            market.operator_mode = Mode.REDUCE_ONLY
        case Verb.RESUME:
            market.operator_mode = Mode.ACTIVE
        case Verb.FLATTEN:
            market.operator_mode = Mode.REDUCE_ONLY
            losses.flatten(step, market, take=event.take)
        case Verb.CANCEL_ALL:
            market.operator_mode = Mode.HALTED
        case Verb.ADOPT:
            _adopt(step, market)
        case Verb.SPLIT:
            works.split_cash(step, market, event.qty)
    requote(step, market)


def _operate_all(step: Step, event: OperatorActed) -> None:
    state = step.state
    match event.verb:
        case Verb.PAUSE | Verb.CANCEL_ALL:
            # Canceling and quoting on at once would undo it: both stand until `resume`.
            state.operator_mode = Mode.HALTED
        case Verb.REDUCE:
            state.operator_mode = Mode.REDUCE_ONLY
        case Verb.RESUME:
            state.operator_mode = Mode.ACTIVE
            losses.lift_halts(step)
        case Verb.FLATTEN:
            state.operator_mode = Mode.REDUCE_ONLY
            for market in state.markets.values():
                losses.flatten(step, market, take=event.take)
    requote_all(step)


def _adopt(step: Step, market: Market) -> None:
    """Foreign holdings become ours at the present mark, because a person said so."""
    if market.mark <= 0 or step.state.account_doubted:
        what = "no price to adopt at yet" if market.mark <= 0 else "the account is being read again: try in a few seconds"
        step.notice(Level.WARNING, "adopt", what, market.instrument.id)
        return
    mark = worth.mark_price(market)
    before = market.position.value(market.instrument, mark)
    for leg in market.position.legs(market.instrument):
        market.position.adopt(leg, mark, step.now)
    money.adopted(step, market, market.position.value(market.instrument, mark) - before)


def on_intent(step: Step, event: IntentReceived) -> None:
    """A wish from outside: held for `approve` above the configured worth, worked as maker otherwise.

    A wish for what is held already takes back every other one of its market, the waiting ones too.
    """
    state = step.state
    market = state.markets.get(event.instrument)
    if market is None:
        step.notice(Level.WARNING, "no_such_market", f"intent {event.intent_id}: no market {event.instrument}")
        return
    if "kill" in state.halts:
        # It would begin by itself when a person resumes.
        text = f"intent {event.intent_id} of {event.who} dropped: killed, and not resumed"
        step.notice(Level.WARNING, "intent_done", text, event.instrument)
        return
    intent = Intent(event.intent_id, event.instrument, event.target_net, event.who, event.reason)
    size = abs(event.target_net - market.position.net)
    if size < market.instrument.min_qty:
        _nothing_to_do(step, market, intent)
        return
    price = market.instrument.payout or round(market.mark)
    worth = to_cash_up(market.instrument, size * price)
    # Without a price nobody knows what it is worth: it waits as the largest would.
    if state.params.risk.approve_above and (worth > state.params.risk.approve_above or not price):
        if len(state.intents) >= MAX_WAITING and event.intent_id not in state.intents:
            step.notice(Level.WARNING, "approve", f"intent {event.intent_id} dropped: {MAX_WAITING} wait already", event.instrument)
            return
        state.intents[event.intent_id] = intent
        text = f"intent {event.intent_id} of {event.who} waits for `approve {event.intent_id}`"
        step.notice(Level.WARNING, "approve", text, event.instrument)
    else:
        _start_intent(step, intent)


def _nothing_to_do(step: Step, market: Market, intent: Intent) -> None:
    """The position is as wished, or nearer than the smallest order: what else was wished of it is over."""
    waiting, running = step.state.intents, market.intent
    gone = [one.intent_id for one in waiting.values() if one.instrument == market.instrument.id]
    for intent_id in gone:
        del waiting[intent_id]
    if running is not None:
        gone.insert(0, running.intent_id)
        market.intent = None
    least = market.instrument.usd_qty(market.instrument.min_qty)
    text = f"intent {intent.intent_id} of {intent.who}: the position is as wished, or nearer than an order of {least:g}"
    step.notice(Level.INFO, "intent_done", text + (f"; taken back: {', '.join(gone)}" if gone else ""), market.instrument.id)
    requote(step, market)


def _take_back(step: Step) -> None:
    """Nothing that was wished before a kill may go on when trading does, days later perhaps."""
    state = step.state
    gone = list(state.intents)
    state.intents.clear()
    for market in state.markets.values():
        if market.intent is not None:
            gone.append(market.intent.intent_id)
            market.intent = None
    if gone:
        step.notice(Level.WARNING, "intent_done", f"taken back by the kill: {', '.join(gone)}")


def _start_intent(step: Step, intent: Intent | None) -> None:
    market = step.state.markets.get(intent.instrument) if intent is not None else None
    if intent is None or market is None:
        step.notice(Level.WARNING, "approve", "there is no such intent waiting, or its market is gone")
        return
    market.intent = intent
    money.judge_intent(step, market)
    requote(step, market)


def on_params(step: Step, event: ParamsChanged) -> None:
    """New numbers from a reload; nothing else changes, and every market is looked at again."""
    state = step.state
    if event.who:
        step.notice(Level.WARNING, "operator_reload", f"reload by {event.who}: new numbers are in force")
    state.params = msgspec.json.decode(event.params, type=Params)
    state.strategy_params = msgspec.json.decode(event.strategy_params, type=step.strategy.params_type)
    for market in state.markets.values():
        refresh_exposure(state, market)
    requote_all(step)


def requote_all(step: Step) -> None:
    for market in step.state.markets.values():
        requote(step, market)
