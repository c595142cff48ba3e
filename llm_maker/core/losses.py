"""Loss limits and exits, judged on the timer: the day's, the week's, the month's, the drawdown; stops and targets of positions.

Halts are judged here and never on data, so a quiet feed cannot hide a loss. Bases survive a restart with the state.
"""

from __future__ import annotations

from llm_maker.core.commands import Level
from llm_maker.core.exits import judge
from llm_maker.core.quote import overrule_intent, start_exit
from llm_maker.core.state import Market
from llm_maker.core.step import Step
from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.core.worth import equity

DAY_NS = 86_400 * NS_PER_S
_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday; weeks begin on Monday."""
FOREVER = 0


def judge_losses(step: Step) -> None:
    """Roll the periods, compare equity with their bases, halt where a limit is passed; lift what has run out."""
    state, risk, limits = step.state, step.state.risk, step.state.params.risk
    now_equity = equity(state)
    risk.equity = now_equity
    risk.judged_ns = step.now
    for name in [n for n, h in state.halts.items() if h.until_ns and step.now >= h.until_ns]:
        del state.halts[name]
        step.notice(Level.WARNING, f"halt_{name}_over", f"the {name} halt has run out; trading goes on")
        for market in state.markets.values():
            market.dirty = True
    day = step.now // DAY_NS
    week, month = (day + _EPOCH_WEEKDAY) // 7, _month(day)
    if risk.day != day:
        risk.day, risk.day_base = day, now_equity
    if risk.week != week:
        risk.week, risk.week_base = week, now_equity
    if risk.month != month:
        risk.month, risk.month_base = month, now_equity
    risk.high_water = max(risk.high_water, now_equity)
    next_day = (day + 1) * DAY_NS
    next_week = ((week + 1) * 7 - _EPOCH_WEEKDAY) * DAY_NS
    bank = limits.bankroll
    daily = limits.daily_loss_ratio * bank
    _limit(step, "daily_loss", risk.day_base - now_equity, min(daily, limits.daily_loss or daily), next_day)
    _limit(step, "weekly_loss", risk.week_base - now_equity, limits.weekly_loss_ratio * bank, next_week)
    _limit(step, "monthly_loss", risk.month_base - now_equity, limits.monthly_loss_ratio * bank, FOREVER)
    _limit(step, "drawdown", risk.high_water - now_equity, limits.max_drawdown_ratio * bank, FOREVER)


def lift_halts(step: Step) -> None:
    """A person resumes: halts that waited for one end, and a limit that had been passed is counted from here."""
    state, risk = step.state, step.state.risk
    for name in [n for n, h in state.halts.items() if h.until_ns == FOREVER]:
        del state.halts[name]
        if name == "drawdown":
            risk.high_water = equity(state)
        elif name == "monthly_loss":
            risk.month_base = equity(state)


def _limit(step: Step, name: str, loss: int, limit: float, until_ns: int) -> None:
    if loss > limit > 0:
        text = f"{name.replace('_', ' ')} ${loss / CASH_PER_USD:.2f} is over ${limit / CASH_PER_USD:.2f}"
        step.halt(name, text, until_ns)


def _month(day: int) -> int:
    """Months since the year 0 of the civil calendar day `day` (days since 1970-01-01), by integer arithmetic."""
    shifted = day + 719_468
    era, of_era = divmod(shifted, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    day_of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    return (era * 400 + year_of_era) * 12 + shifted_month


def judge_exit(step: Step, market: Market) -> None:
    """Start an exit where the plan says so, also in place of a slower one; only a trusted book's mid is believed."""
    plan = market.exit_plan
    # Dust: no order may be as small, and an exit that cannot trade would keep the market from being quoted.
    dust = abs(market.position.net) < market.instrument.min_qty
    if plan is None or not market.book.trusted or market.mark <= 0 or dust:
        return
    reason = judge(plan, market.position, market.instrument, market.mark, step.state.params.exits, step.now)
    if not reason:
        return
    if abs(market.position.net - plan.goal_net) < market.instrument.min_qty:
        plan.exiting = ""  # dust cannot be sold: ordinary quoting absorbs it
        return
    market.dirty = True
    overrule_intent(step, market, reason)
    _overrule(market, reason)
    step.notice(
        Level.WARNING if reason == "stop" else Level.INFO,
        f"exit_{reason}",
        f"{reason}: leaving at mid {market.instrument.usd_price(market.mark):.4f}, entry {_entry(market)}",
        market.instrument.id,
    )


def _overrule(market: Market, reason: str) -> None:
    """What the market has shown outweighs the opinion that built the position: it must not be built again at once."""
    if reason == "stop":
        market.opinion = None
        market.trigger = "stop"
    elif market.opinion is not None:
        market.opinion.target_net = None


def _entry(market: Market) -> str:
    average = market.position.avg_price
    return "none" if average is None else f"{market.instrument.usd_price(average):.4f}"


def flatten(step: Step, market: Market, *, take: bool) -> None:
    """The operator, who has made it reduce-only, wants out of a market: cross at once where he said so."""
    market.dirty = True
    overrule_intent(step, market, "operator")  # also where nothing is held yet, or too little to be sold
    if market.position.net:
        start_exit(step, market, "operator", 0, take=take)
