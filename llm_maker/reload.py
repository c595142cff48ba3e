"""`reload`: what reading config.yaml again would change, in dollars; what may change while running, and what may not.

A key may change where the numbers that the core and the strategy are given (`tuning`) are all that is made of it: the event that
carries them is then the whole change. Whatever else a daemon builds at its start is refused, each key with what to do. Pure but
for the reading that is handed in; it sends nothing and changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel

from llm_maker.config import Config
from llm_maker.console.wishes import Wishes, wishes
from llm_maker.core import reconcile, risk
from llm_maker.core.params import Params, sizes
from llm_maker.core.state import Market, State, foreign_resting, worst_loss
from llm_maker.core.strategy import QuoteTarget
from llm_maker.core.values import CASH_PER_USD, Mode
from llm_maker.core.worth import equity
from llm_maker.strategy.maker import Maker
from llm_maker.strategy.params import MakerParams
from llm_maker.tuning import maker_params, run_params

ALLOWED = (
    "strategy.", "execution.", "risk.", "live.max_order_shares", "live.max_position_shares", "live.daily_loss_usd",
    "llm.failures_to_fallback", "llm.probe_seconds", "llm.probe_max_seconds", "llm.min_gap_seconds", "llm.fill_gap_seconds",
)  # fmt: skip
"""Keys, or with a point at the end whole sections, that the core's and the strategy's numbers are made of, and nothing else is."""
_AGAIN = "stop and start again"
_HOME = "stop, and start with another --home"
REFUSED: tuple[tuple[str, str, str], ...] = (
    ("strategy.name", "the account was begun by this strategy", _HOME),
    ("strategy.decision_interval", "the deadline of a question to the model was made of it at the start", _AGAIN),
    ("strategy.signal_prior_weight", "what is learned of the model starts from it, and was told at the start", _AGAIN),
    ("mode", "a home is of paper or of real money", _HOME),
    ("venue", "a home is of one venue", _HOME),
    ("account", "the journal and the ledger bear its name", _HOME),
    ("seed", "the simulated market and the paper exchange of this home were made of it", _HOME),
    ("paper.", "the simulated market and the paper exchange of this home were made of it", _HOME),
    ("market_selection.", "the markets were chosen by it at the start", _AGAIN),
    ("live.", "it was applied to what was chosen at the start", _AGAIN),
    ("llm.", "the slow loop was built of it at the start", _AGAIN),
    ("twin.", "the accounts beside were made at the start", _AGAIN),
    ("polymarket.", "the connections were made with it at the start", _AGAIN),
    ("logging.", "the files were opened with it at the start", _AGAIN),
    ("console.", "the page and the screen were made with it at the start", _AGAIN),
    ("alerts.", "the alarms were set up with it at the start", _AGAIN),
)
"""(key or section, why it cannot change while running, what to do); the first that fits counts, and comes before `ALLOWED`."""


_MAKER = Maker()
_MOST_ASKED = 200
"""Markets of which the strategy is asked what it would want: some 0.2 ms of the trading loop each."""
_MOST_EFFECTS = 60
"""Lines: halts come first, then market by market."""


class Change(msgspec.Struct, frozen=True):
    """One key."""

    key: str
    before: str
    after: str
    allowed: bool
    why: str = ""
    """Where it is not allowed: why, and what to do."""


class Limit(msgspec.Struct, frozen=True):
    """One limit in people's units, as it is in force and as it would be."""

    name: str
    before: float
    after: float
    unit: str
    """`usd`, or a noun."""
    raises: bool
    """More may be lost."""


class FileReader(msgspec.Struct, frozen=True):
    """The configuration file, read again by each call; `stamp` says at the price of a stat whether it was written since."""

    file: Path
    read: Callable[[], Config]

    def __call__(self) -> Config:
        return self.read()

    def stamp(self) -> tuple[int, int, int] | None:
        """None: there is no file."""
        try:
            seen = self.file.stat()
        except OSError:
            return None
        return seen.st_mtime_ns, seen.st_size, seen.st_ino


class Plan(msgspec.Struct, frozen=True):
    """What a reload would do; `id` is made of the old and the new numbers, so that what was shown is what is done."""

    id: str
    changes: list[Change]
    limits: list[Limit]
    """Those that would change."""
    effects: list[str]
    """What happens to what rests and is held at once, in words."""
    config: Config
    """The new one."""
    params: Params
    maker: MakerParams
    real_money: bool

    @property
    def refused(self) -> list[Change]:
        """The keys for which the whole is refused."""
        return [change for change in self.changes if not change.allowed]

    @property
    def raises_risk(self) -> bool:
        """More may be lost than before."""
        return any(limit.raises for limit in self.limits)


def plan(running: Config, read: Callable[[], Config], state: State, provider: str, speed: float) -> Plan:
    """Compare the file with what is in force on `state`. Raises `ConfigError` where the file is wrong now."""
    config = read()
    params, maker = run_params(config, provider, speed), maker_params(config)
    changes = [_change(running, config, key, before, after) for key, before, after in _differences(running, config)]
    seen = hashlib.blake2b(f"{running.model_dump_json()}\n{config.model_dump_json()}".encode(), digest_size=6).hexdigest()
    limits = changed_limits(state.params, params)
    allowed = all(change.allowed for change in changes)
    told = effects(state, params, maker) if changes and allowed else []
    return Plan(seen, changes, limits if changes else [], told, config, params, maker, running.mode == "live")


def told(found: Plan) -> dict[str, Any]:
    """For `reload` and the page: plan, changes, limits, effects, allowed, and whether more may be lost."""
    return {
        "plan": found.id,
        "changes": msgspec.to_builtins(found.changes),
        "limits": msgspec.to_builtins(found.limits),
        "effects": found.effects,
        "allowed": not found.refused,
        "raises_risk": found.raises_risk,
        "real_money": found.real_money,
    }


def refusal(found: Plan) -> str:
    """One line with every key that cannot change while running; empty: the plan may be done."""
    return "; ".join(f"{change.key} cannot change while running: {change.why}" for change in found.refused)


def why_not(key: str) -> str:
    """Why a key cannot change while running, and what to do; empty: it can. A key that nobody has thought of cannot."""
    for prefix, why, cure in REFUSED:
        if key == prefix or (prefix.endswith(".") and key.startswith(prefix)):
            if key in ALLOWED:
                continue
            return f"{why}; {cure}"
    if any(key == one or (one.endswith(".") and key.startswith(one)) for one in ALLOWED):
        return ""
    return f"it is read at the start; {_AGAIN}"


def _change(running: Config, config: Config, key: str, before: Any, after: Any) -> Change:
    why = why_not(key)
    if key == "risk.bankroll_usd" and after is None and config.mode == "live":
        why = "live needs it; say what you are ready to put at work"
    return Change(key, _shown(before), _shown(after), not why, why)


def _differences(one: BaseModel, other: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, value here, value there) wherever they differ; below sections, never of one."""
    for name in type(one).model_fields:
        before, after = getattr(one, name), getattr(other, name)
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield prefix + name, before, after


def _shown(value: Any) -> str:
    """A value as config.yaml would have it."""
    if value is None:
        return "empty"
    if isinstance(value, tuple):
        return json.dumps([one.model_dump(mode="json") if isinstance(one, BaseModel) else one for one in value])
    return value if isinstance(value, str) else json.dumps(value)


# The limits, before and after.


def limits_of(params: Params) -> dict[str, tuple[float, str, bool]]:
    """Name -> (how much, unit, whether more of it lets more be lost)."""
    limits, bank = params.risk, params.risk.bankroll / CASH_PER_USD
    daily = limits.daily_loss_ratio * bank
    return {
        "the bankroll that limits are shares of": (bank, "usd", True),
        "one order": (limits.max_order_cost / CASH_PER_USD, "usd", True),
        "one market": (limits.market_ratio * bank, "usd", True),
        "one event": (limits.event_ratio * bank, "usd", True),
        "one cluster": (limits.cluster_ratio * bank, "usd", True),
        "everything": (limits.gross_ratio * bank, "usd", True),
        "cash never put at risk": (limits.free_cash_ratio * bank, "usd", False),
        "one UTC day": (min(daily, limits.daily_loss / CASH_PER_USD or daily), "usd", True),
        "one week": (limits.weekly_loss_ratio * bank, "usd", True),
        "one month": (limits.monthly_loss_ratio * bank, "usd", True),
        "from the highest equity": (limits.max_drawdown_ratio * bank, "usd", True),
        "one quote": (params.signals.base_milli / 1_000, "shares", True),
        "the surest model sizes up": (params.signals.size_up_max, "times", True),
        "one side of a market": (limits.max_position_milli / 1_000, "shares", True),
        "one quote of a linear market": (params.signals.base_cash / CASH_PER_USD, "usd", True),
        "one position of a linear market": (params.signals.max_position_cash / CASH_PER_USD, "usd", True),
        "markets held or quoted": (float(limits.max_open_positions), "markets", True),
        "a position's stop-loss": (100 * params.exits.stop_ratio, "% under its cost", True),
        "an exit that crosses gives away": (100 * limits.exit_max_slippage_ratio if limits.stop_exit_crosses else 0.0, "%", True),
        "orders and cancels in 10 s": (float(limits.messages_per_10s), "messages", True),
        # 0 lets every wish through, so it is the highest of all.
        "a wish waits for approval above": (limits.approve_above / CASH_PER_USD or float("inf"), "usd", True),
    }


def changed_limits(before: Params, after: Params) -> list[Limit]:
    """Those that differ, in the order in which they are told."""
    old, new = limits_of(before), limits_of(after)
    found = []
    for name, (value, unit, upwards) in new.items():
        was = old[name][0]
        if abs(value - was) > 1e-9 if value != float("inf") and was != float("inf") else value != was:
            found.append(Limit(name, _finite(was), _finite(value), unit, (value > was) is upwards))
    return found


def _finite(value: float) -> float:
    return 0.0 if value == float("inf") else value


# What happens at once.


def effects(state: State, params: Params, maker: MakerParams | None = None) -> list[str]:
    """What new numbers do at once to what rests and is held, by the same rules that will judge it, in dollars and shares.

    `maker` None: the strategy's own stay.
    """
    own = state.strategy_params if maker is None else maker
    tried = msgspec.structs.replace(state, params=params, strategy_params=own)
    found = [*_halts(state, params), *_plans(state, params)]
    repriced = own != state.strategy_params and state.strategy == _MAKER.name
    asked = 0
    for market in state.markets.values():
        asks = repriced and bool(market.live) and asked < _MOST_ASKED
        asked += asks
        found += _of_market(state, tried, market, repriced=asks)
    quoted = sum(bool(market.live) for market in state.markets.values())
    more = len(found) - _MOST_EFFECTS
    found = found if more <= 0 else [*found[:_MOST_EFFECTS], f"and {more} more of this kind"]
    if repriced and quoted > asked:
        found.append(f"and {quoted - asked} more markets are priced anew, which were not looked at here")
    return found


def _halts(state: State, params: Params) -> Iterator[str]:
    """Loss limits that are passed already: they halt within a second."""
    if not state.risk.judged_ns:
        return
    worth, limits, bases = equity(state), limits_of(params), state.risk
    for name, base, code in (
        ("one UTC day", bases.day_base, "daily_loss"),
        ("one week", bases.week_base, "weekly_loss"),
        ("one month", bases.month_base, "monthly_loss"),
        ("from the highest equity", bases.high_water, "drawdown"),
    ):
        lost, limit = (base - worth) / CASH_PER_USD, limits[name][0]
        if lost > limit and code not in state.halts:
            yield f"HALTS AT ONCE: {name}: ${lost:,.2f} is lost already, the new limit is ${limit:,.2f}"
        elif lost <= limit and code in state.halts:
            yield f"the {code} halt stays: a new limit lifts none; `llm-maker resume` does, or its time"


def _plans(state: State, params: Params) -> Iterator[str]:
    """Exits: which of them cross at once, and that a position keeps the stop and the target with which it was entered."""
    before, after = state.params, params
    held = [state.markets[name] for name in state.held]
    for market in held:
        plan, name = market.exit_plan, market.instrument.question or market.instrument.id
        if plan is None or plan.exiting != "stop" or plan.take:
            continue
        crosses = [
            one.risk.stop_exit_crosses and state.now - plan.started_ns >= one.risk.exit_patience_ns for one in (before, after)
        ]
        if crosses == [False, True]:
            size = market.instrument.usd_qty(abs(market.position.net - plan.goal_net))
            yield f"{name}: its stop-loss CROSSES THE SPREAD AT ONCE: {size:g} shares, within risk.exit_max_slippage"
    kept = sum(1 for market in held if market.exit_plan is not None)
    names = ("stop_ratio", "target_ratio", "deadline_ns")
    if kept and any(getattr(before.exits, name) != getattr(after.exits, name) for name in names):
        yield f"{kept} positions keep the stop, target and deadline with which they were entered: the new ones are for the next"


def _of_market(state: State, tried: State, market: Market, *, repriced: bool) -> Iterator[str]:
    """Of one market: what closes, what is above its cap, what rests and goes or shrinks."""
    instrument, name = market.instrument, market.instrument.question or market.instrument.id
    (base, cap), (new_base, new_cap) = (sizes(s.params, instrument, market.mark) for s in (state, tried))
    held = abs(market.position.net)
    if new_cap < held and new_cap != cap:
        over, most = instrument.usd_qty(held), instrument.usd_qty(new_cap)
        yield f"{name}: {over:g} shares are held, the new cap is {most:g}: nothing is sold for it, nothing is added"
    alone = worst_loss(tried.params, market, *foreign_resting(tried, market)) / CASH_PER_USD
    room = tried.params.risk.market_ratio * tried.params.risk.bankroll / CASH_PER_USD
    was = state.params.risk.market_ratio * state.params.risk.bankroll / CASH_PER_USD
    if alone > room and room < was:
        yield f"{name}: what is held may lose ${alone:,.2f}, the new cap of a market is ${room:,.2f}: nothing is added"
    before, after = risk.allowance(state, market), risk.allowance(tried, market)
    closed = after.pull or after.mode is not Mode.ACTIVE
    if closed != (before.pull or before.mode is not Mode.ACTIVE):
        yield f"{name}: " + (f"{after.mode.value}: {after.name}: {after.text}" if closed else "is quoted again")
    wanted = wishes(tried, market, _MAKER, after) if repriced and not closed else Wishes(False)
    if wanted.asked:
        yield from _of_quotes(state, tried, market, wanted, name)
    else:
        yield from _of_orders(tried, market, after, name)
    resting = [o for o in state.live_orders(market) if o.post_only]
    if new_base != base and resting:
        yield f"{name}: a quote is {instrument.usd_qty(new_base):g} shares in place of {instrument.usd_qty(base):g}"


def _of_orders(tried: State, market: Market, allowed: risk.Gate, name: str) -> Iterator[str]:
    """Quotes that the new limits do not leave as they are."""
    instrument = market.instrument
    for order in tried.live_orders(market):
        if not order.post_only or order.sent_cancel:
            continue
        shaped = risk.shape(tried, market, [QuoteTarget(order.side, order.price, order.remaining, order.reason)], allowed)
        fits = sum(target.qty for target in shaped.targets)
        if order.remaining - fits > tried.params.execution.resize_ratio * fits:  # nearer than this, it keeps its place
            what = f"{order.side.name.lower()} {instrument.usd_qty(order.remaining):g} at {instrument.usd_price(order.price):g}"
            end = f"makes way for {instrument.usd_qty(fits):g} at most" if fits else "goes"
            yield f"{name}: our {what} ({order.order_id}) {end}: {', '.join(r.partition(' ')[2] for r in shaped.refusals)}"


def _of_quotes(state: State, tried: State, market: Market, wanted: Wishes, name: str) -> Iterator[str]:
    """Quotes that the strategy wants otherwise with its new numbers, or that the new limits do not leave as they are."""
    old = wishes(state, market, _MAKER, risk.allowance(state, market))
    anyway = {order.order_id for order, _ in _compared(state, market, old)[0].cancel}
    (plan, shaped), instrument = _compared(tried, market, wanted), market.instrument
    for order, _ in plan.cancel:
        if order.order_id in anyway or not order.post_only:
            continue
        what = f"{order.side.name.lower()} {instrument.usd_qty(order.remaining):g} at {instrument.usd_price(order.price):g}"
        new = next((target for target in shaped.targets if target.side is order.side), None)
        if new is not None:
            end = f"makes way for {instrument.usd_qty(new.qty):g} at {instrument.usd_price(new.price):g}"
        else:
            lack = wanted.lacks.get(order.side)
            refused = [r.partition(" ")[2] for r in shaped.refusals if r.startswith(order.side.name.lower())]
            end = f"goes: {', '.join(refused) or (lack[0] if lack is not None else 'not wanted')}"
        yield f"{name}: our {what} ({order.order_id}) {end}"


def _compared(state: State, market: Market, wanted: Wishes) -> tuple[reconcile.Plan, risk.Shaped]:
    """What the engine would send of the strategy's wishes, on a copy of what it remembers of them."""
    shaped = risk.shape(state, market, list(wanted.targets.values()), risk.allowance(state, market))
    orders, params = state.live_orders(market), state.params.execution
    return reconcile.diff(market.instrument, shaped.targets, orders, dict(market.off_target), params, state.now), shaped
