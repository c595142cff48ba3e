"""When a position is left: stop, targets, deadline, and how far the leaving is. State of the position, judged on the timer.

Knows prices and the position alone: no book, no order, no model. How an exit trades is `quote`'s business.
"""

from __future__ import annotations

import msgspec

from llm_maker.core.params import ExitParams
from llm_maker.core.positions import Position
from llm_maker.core.values import Instrument

_SLACK = 1e-9
"""What a ratio of floats may miss a limit by and still be on it."""


class ExitPlan(msgspec.Struct):
    """When to leave a position, and how far the leaving is. Ratios are of the cost basis of the side held."""

    stop_ratio: float
    """Loss that ends it; 0: none."""
    targets: tuple[tuple[float, float], ...]
    """(gain, share of the full position) pairs; the shares add up to at most 1."""
    deadline_ns: int = 0
    """0: none."""
    full_net: int = 0
    """The position that the shares are of: the largest since arming, before the first target."""
    breached_ns: int = 0
    """Since when the stop holds without a break; 0: it does not."""
    taken: float = 0.0
    """Share of the full position that earlier targets have taken."""
    exiting: str = ""
    """'' | stop | target | deadline | signal | operator"""
    started_ns: int = 0
    goal_net: int = 0
    """The net position at which the exit is done."""
    take: bool = False
    """The operator allowed this exit to cross."""


def arm(
    position: Position,
    params: ExitParams,
    now: int,
    stop: float | None = None,
    targets: tuple[tuple[float, float], ...] | None = None,
) -> ExitPlan:
    """A plan for the position as it is: the default one, or a decision's own stop and targets.

    Needs only what a ledger row tells (average price, net, entry time), so a restart arms it again.
    """
    if targets is None:
        targets = ((params.target_ratio, 1.0),) if params.target_ratio > 0 else ()
    return ExitPlan(
        stop_ratio=params.stop_ratio if stop is None else stop,
        targets=targets,
        deadline_ns=(position.entry_ns or now) + params.deadline_ns if params.deadline_ns else 0,
        full_net=position.net,
    )


def begin(plan: ExitPlan, reason: str, now: int, goal_net: int = 0) -> None:
    """Start an exit; judged here or wanted by a signal or a person."""
    plan.exiting, plan.started_ns, plan.goal_net, plan.take = reason, now, goal_net, False


def gain_ratio(position: Position, instrument: Instrument, mid: float) -> float:
    """Gain of the side held over its cost basis (YES: its average, NO: payout minus that); 0 when flat or it cost 0."""
    net = position.net
    if net == 0:
        return 0.0
    avg = position.cost / net
    basis = avg if net > 0 or not instrument.is_binary else instrument.payout - avg
    if basis <= 0:
        return 0.0
    return (mid - avg) / basis if net > 0 else (avg - mid) / basis


def judge(plan: ExitPlan, position: Position, instrument: Instrument, mid: float, params: ExitParams, now: int) -> str:
    """Judge the plan at a mid (price units, 0: none); returns the reason of an exit that begins now, else ''.

    Updates the plan: the stop's clock, and `begin` on the exit it returns. To be called during an exit too: a partial
    target ends when its goal is reached, and a stop takes over from any other exit.
    """
    net = position.net
    if net == 0:
        return ""
    if net * plan.full_net < 0:
        # Flipped: the side that the plan was working on is gone.
        plan.full_net, plan.taken, plan.breached_ns, plan.exiting = net, 0.0, 0, ""
    if plan.exiting == "target" and abs(net) <= abs(plan.goal_net):
        plan.exiting = ""
    if plan.taken == 0 and not plan.exiting and abs(net) > abs(plan.full_net):
        plan.full_net = net
    gain = gain_ratio(position, instrument, mid) if mid > 0 else None
    if _stopped(plan, gain, params, now):
        # An exit that the operator lets cross is already faster than a stop.
        if plan.exiting == "stop" or plan.take:
            return ""
        begin(plan, "stop", now)
        return "stop"
    if plan.exiting not in ("", "target"):
        return ""
    if plan.deadline_ns and now >= plan.deadline_ns:
        begin(plan, "deadline", now)
        return "deadline"
    if plan.exiting or gain is None:
        return ""
    return _take(plan, instrument, gain, net, now)


def _stopped(plan: ExitPlan, gain: float | None, params: ExitParams, now: int) -> bool:
    if plan.stop_ratio <= 0 or gain is None:
        # Without a mid the stop can neither hold nor end: its clock stays.
        return False
    if gain > -plan.stop_ratio + _SLACK:
        plan.breached_ns = 0
        return False
    if plan.breached_ns == 0:
        plan.breached_ns = now
    return now - plan.breached_ns >= params.hold_ns


def _take(plan: ExitPlan, instrument: Instrument, gain: float, net: int, now: int) -> str:
    """Begin the farthest target that the gain has reached and that is not taken yet."""
    share = sum(s for distance, s in plan.targets if gain >= distance - _SLACK)
    if share <= plan.taken + _SLACK:
        return ""
    plan.taken = share
    left = round(abs(plan.full_net) * max(0.0, 1.0 - share))
    # What could not be sold afterwards is taken with it.
    goal = left if left >= instrument.min_qty else 0
    if abs(net) <= goal:
        return ""
    begin(plan, "target", now, goal if net > 0 else -goal)
    return "target"
