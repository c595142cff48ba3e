"""Everything between a market and its quotes: gates, what is wanted, what the limits leave of it, what rests, what would help.

Pure: judged as of now by the same functions that trade; changes nothing, sends nothing.
"""

from __future__ import annotations

from typing import Any

from llm_maker.console.changes import Case, Change, change_for, distance, lack_change
from llm_maker.console.obstacles import whole
from llm_maker.console.wishes import Wishes, wishes
from llm_maker.core import risk
from llm_maker.core.orders import Status
from llm_maker.core.params import sizes
from llm_maker.core.places import best_without, shown
from llm_maker.core.quote import effective
from llm_maker.core.signals import market_x, remaining
from llm_maker.core.skill import skill_of
from llm_maker.core.state import Market, State, foreign_resting, weight_of, worst_loss
from llm_maker.core.strategy import QuoteTarget, Strategy
from llm_maker.core.values import NS_PER_S, Mode, Side, usd

IN_SHARES = ("taper", "unwind")
"""Terms of a strategy that take off shares; every other one moves a price."""
_FOLLOWS = {"venue": ("silence", "lag", "book"), "silence": ("lag",), "account": ()}
"""A closed gate and those that open with it."""


def closed(gate: risk.Gate) -> bool:
    """Whether a gate keeps quotes away, or some of them."""
    return gate.pull or gate.mode is not Mode.ACTIVE


def chain(state: State, market: Market, strategy: Strategy | None) -> dict[str, Any]:
    """The facts of `why` beyond a market's row. Without a strategy nothing is said of what it wants."""
    instrument = market.instrument
    base, limit = sizes(state.params, instrument, market.mark)
    allowed, gates = risk.allowance(state, market), risk.chain(state, market)
    wanted = wishes(state, market, strategy, allowed)
    # A closed gate refuses both sides; what each would be refused besides is not known while it is.
    sides = {side: _side(state, market, strategy, side, wanted, allowed) for side in (Side.BUY, Side.SELL)}
    changes = _gate_changes(state, market, gates, allowed) + _book_changes(state, market, wanted, gates)
    if not allowed.pull and allowed.mode is not Mode.HALTED:
        told = {change.text for change in changes}
        changes += [change for change in _side_changes(state, sides) if change.text not in told]
    return {
        "gates": [{"gate": g.name, "mode": g.mode.value, "open": not closed(g), "numbers": g.text} for g in gates],
        "caps": caps(state, market),
        "base_size": instrument.usd_qty(base),
        "max_position": instrument.usd_qty(limit),
        "opinion": _opinion(state, market),
        "strategy_note": market.own.note,
        "strategy": _strategy(state, market, wanted),
        "sides": {side.name.lower(): facts for side, (facts, _) in sides.items()},
        "first_closed": allowed.text if closed(allowed) else "",
        "changes": [{"do": c.do, "text": c.text, "seconds": c.seconds, "values": c.values, "verb": c.verb} for c in changes],
        "nearest_change": _nearest(changes, gates),
    }


# What would help.


def _gate_changes(state: State, market: Market, gates: list[risk.Gate], allowed: risk.Gate) -> list[Change]:
    """One for each closed gate, the deciding one first; those that open with another are left out."""
    shut = [gate for gate in gates if closed(gate)]
    implied = {name for gate in shut for name in _FOLLOWS.get(gate.name, ())}
    first = sorted(shut, key=lambda gate: gate.name != allowed.name)
    changes = [change_for(g.name, Case(state, market, closed=g.text)) for g in first if g.name not in implied]
    never = [change for change in changes if change.do == "never"]
    return never[:1] or changes


def _book_changes(state: State, market: Market, wanted: Wishes, gates: list[risk.Gate]) -> list[Change]:
    """What the strategy would say of this book behind a closed gate too, where it would quote neither side."""
    if not any(closed(gate) for gate in gates) or wanted.targets or not wanted.note:
        return []
    return [lack_change(state, market, lack, wanted.factor) for lack in list(wanted.lacks.values())[:1]]


def _side_changes(state: State, sides: dict[Side, tuple[dict[str, Any], list[Change]]]) -> list[Change]:
    """Of sides that do not quote all they should; either of them would do."""
    found: list[Change] = []
    for _, changes in sides.values():
        for change in changes:
            same = next((i for i, other in enumerate(found) if change.values and other.values.keys() == change.values.keys()), None)
            if same is None:
                found += [change] if change not in found else []
            elif distance(state, change) < distance(state, found[same]):
                found[same] = change
    return found


def _nearest(changes: list[Change], gates: list[risk.Gate]) -> str:
    """Gates must all open; of two sides either one is a quote."""
    between = "; then " if any(closed(gate) for gate in gates) else "; or "
    return between.join(dict.fromkeys(change.text for change in changes))


# One side.


def _side(
    state: State, market: Market, strategy: Strategy | None, side: Side, wanted: Wishes, allowed: risk.Gate
) -> tuple[dict[str, Any], list[Change]]:
    instrument, name = market.instrument, side.name.lower()
    price, size = instrument.usd_price, instrument.usd_qty
    target = wanted.targets.get(side)
    wish = target or _unasked(market, side, wanted)
    refused = {k.partition(" ")[2]: since for k, since in market.refusals.items() if k.startswith((name, "both"))}
    changes = [_refusal_change(state, market, side, wish, wanted, reason) for reason in refused]
    lack = wanted.lacks.get(side) if target is None else None
    if lack is not None and not refused:
        changes.append(lack_change(state, market, lack, wanted.factor))
    doubtful = _doubtful(state, market, side)
    if doubtful and wish is not None and (not refused or Status.UNKNOWN in doubtful):
        # Whatever else is refused there: no number would make it quote before that.
        changes = [Change("outside", f"the venue must say what became of {doubtful}: no second order is sent beside it")]
    if not closed(allowed):
        changes = [whole(state, market, strategy, side, wish, change) for change in changes]
    fits = None if target is None else sum(t.qty for t in risk.shape(state, market, [target], allowed).targets)
    return {
        "wanted": price(market.wanted[name]) if name in market.wanted else None,
        "wish": None if target is None else _wish(state, market, target),
        "lack": lack[0] if lack is not None else "",
        "reduces": size(max(0, -side * market.position.net)),
        "caps": [] if target is None else _rooms(state, market, target),
        "fits": None if fits is None else size(fits),
        "resting": [_order(state, market, i) for i in market.live if state.orders[i].side is side],
        "refused": list(refused),
        "refused_for_s": {reason: (state.now - since) / NS_PER_S for reason, since in refused.items()},
        "change": "; ".join(dict.fromkeys(change.text for change in changes)),
    }, changes


def _doubtful(state: State, market: Market, side: Side) -> str:
    """Orders that keep a side from being quoted though nothing is refused; empty where one of ours rests, or none."""
    orders = [order for order in state.live_orders(market) if order.side is side]
    if any(order.status in (Status.OPEN, Status.PENDING_NEW) and not order.sent_cancel for order in orders):
        return ""
    return ", ".join(f"{order.order_id} ({order.status.value.replace('_', ' ')})" for order in orders)


def _refusal_change(state: State, market: Market, side: Side, wish: QuoteTarget | None, wanted: Wishes, reason: str) -> Change:
    lack = wanted.lacks.get(side)
    if lack is not None and reason == wanted.note:
        return lack_change(state, market, lack, wanted.factor)
    gate = next((g for g in risk.chain(state, market) if g.name == reason), None)
    return change_for(reason, Case(state, market, side, wish, gate.text if gate is not None else ""))


def _unasked(market: Market, side: Side, wanted: Wishes) -> QuoteTarget | None:
    """What an exit or an intent works towards on a side, at the touch; None where nothing is."""
    plan, net = market.exit_plan, market.position.net
    goal = market.intent.target_net if market.intent is not None else None
    if plan is not None and plan.exiting:
        goal = plan.goal_net
    if wanted.asked or goal is None or side * (goal - net) <= 0:
        return None
    at = market.wanted.get(side.name.lower()) or (market.book.best_bid if side is Side.BUY else market.book.best_ask)
    return QuoteTarget(side, at, abs(goal - net), "") if at else None


def _wish(state: State, market: Market, target: QuoteTarget) -> dict[str, Any]:
    """What the strategy wants now; `ticks_behind` the best price of the others, minus where it improves on them."""
    best, _ = best_without(market, target.side, shown(state, market, target.side))
    tick = market.instrument.tick_at(target.price)
    return {
        "price": market.instrument.usd_price(target.price),
        "shares": market.instrument.usd_qty(target.qty),
        "reason": target.reason,
        "ticks_behind": int(target.side) * (best - target.price) // tick if best else None,
    }


def _rooms(state: State, market: Market, target: QuoteTarget) -> list[dict[str, Any]]:
    """What every cap leaves for this order beyond what it reduces, shares, the tightest first."""
    _, limit = sizes(state.params, market.instrument, market.mark)
    unit = risk.unit_loss(state, market, target.side, target.price)
    rooms = [("position cap", max(0, limit - max(0, target.side * market.position.net)))]
    rooms += [(name, risk.qty_for(market, cash, unit)) for name, cash in risk.cash_rooms(state, market)]
    return [{"cap": name, "leaves": market.instrument.usd_qty(room)} for name, room in sorted(rooms, key=lambda room: room[1])]


def _order(state: State, market: Market, order_id: str) -> dict[str, Any]:
    order, instrument = state.orders[order_id], market.instrument
    return {
        "order_id": order_id,
        "status": order.status.value,
        "price": instrument.usd_price(order.price),
        "remaining": instrument.usd_qty(order.remaining),
        "token": order.leg.value,
        "age_s": (state.now - order.placed_ns) / NS_PER_S,
        "reason": order.reason,
    }


# Beside the gates.


def _strategy(state: State, market: Market, wanted: Wishes) -> dict[str, Any]:
    """What made its prices, USD; what it took off its sizes, shares; as of now where it could be asked."""
    note = wanted.note if wanted.asked else market.own.note
    terms = wanted.terms if wanted.asked else getattr(market.own, "terms", {})
    busy = f"exit: {market.exit_plan.exiting}" if market.exit_plan is not None and market.exit_plan.exiting else ""
    if not busy and market.intent is not None:
        busy = f"intent {market.intent.intent_id} of {market.intent.who}"
    return {
        "note": note,
        "instead": busy,
        "table": bool(getattr(getattr(state.strategy_params, "terms", None), "table", False)),
        "terms": {name: market.instrument.usd_price(value) for name, value in terms.items() if name not in IN_SHARES},
        "taken_shares": {name: terms[name] for name in IN_SHARES if name in terms},
    }


def _opinion(state: State, market: Market) -> dict[str, Any]:
    """Whose opinion it is, what is left of it, and why it counts for what it does."""
    instrument, view = market.instrument, effective(state, market, state.now)
    facts = {
        "shift_log_odds": round(view.shift, 5),
        "weight": round(view.weight, 5),
        "size_ratio": view.size_ratio,
        "widen": view.widen,
        "target": None if view.target_net is None else instrument.usd_qty(view.target_net),
        "exit": view.exit,
        "half_life_s": state.params.signals.half_life_ns / NS_PER_S,
    }
    opinion = market.opinion
    if opinion is None:
        return facts | {"model": "", "why_weight": "", "disagreement": 0.0, "age_s": None, "expires_in_s": None, "idle": ""}
    skill = skill_of(state.skills, opinion.model, instrument.category)
    prior = f"prior {state.params.signals.prior_weight:g}, nothing measured yet"
    return facts | {
        "model": opinion.model,
        "why_weight": prior if skill is None else f"W {skill.weight:.3f}, {skill.why}",
        "disagreement": opinion.signal.disagreement,
        "age_s": (state.now - opinion.received_ns) / NS_PER_S,
        "expires_in_s": (opinion.expires_ns - state.now) / NS_PER_S,
        "faded_to": 0.5 ** ((state.now - opinion.received_ns) / state.params.signals.half_life_ns),
        "apart_log_odds": round(opinion.d0, 5),
        "left_log_odds": round(remaining(opinion, market_x(instrument, market.mark)), 5) if market.mark > 0 else 0.0,
        "idle": _idle(state, market),
    }


def _idle(state: State, market: Market) -> str:
    """Why an opinion counts for nothing at all; empty while it counts."""
    opinion = market.opinion
    if opinion is None:
        return ""
    if state.now >= opinion.expires_ns:
        return "it has expired"
    if state.slow.fallback:
        return "FALLBACK: rules quote alone"
    return "weight 0: it is shown and scored, and moves nothing" if weight_of(state, market) <= 0 else ""


def caps(state: State, market: Market) -> dict[str, str]:
    """The money caps with their numbers."""
    limits, instrument = state.params.risk, market.instrument
    _, limit = sizes(state.params, instrument, market.mark)
    alone = worst_loss(state.params, market, *foreign_resting(state, market))
    bank = limits.bankroll
    return {
        "position": f"{instrument.usd_qty(market.position.net):g} of {instrument.usd_qty(limit):g}",
        "market": f"worst case {_usd(market.worst)} (position alone {_usd(alone)}) of {_usd(limits.market_ratio * bank)}",
        "gross": f"{_usd(state.gross)} of {_usd(limits.gross_ratio * bank)}",
        "free cash": f"{_usd(state.cash - state.reserved)}, at least {_usd(limits.free_cash_ratio * bank)}",
    }


def _usd(cash: float) -> str:
    return f"${usd(round(cash)):.2f}"
