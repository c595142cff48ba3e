"""One account in numbers: its P&L split, its ratios, and who made it: by market, side, opinion and term of the strategy.

Money in USD, times in seconds. Steps are days of UTC, or hours where less than 20 days were seen: then there are intervals and no
verdict (`quoting.md` 6.5). Time in which nothing was recorded, between two runs, is no time. What is not known is None, never 0.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import msgspec

from llm_maker.core.values import CASH_PER_USD, NS_PER_S, usd
from llm_maker.report import metrics, pnl
from llm_maker.report.groups import Columns, Group
from llm_maker.report.metrics import Interval
from llm_maker.report.paired import DAY_NS, HOUR_NS, MIN_DAYS, Level, daily
from llm_maker.report.pnl import Identity
from llm_maker.report.track import Fill, Track

HORIZONS = {1: "1 s", 10: "10 s", 60: "60 s", 300: "300 s", 3_600: "1 h", 86_400: "1 d", pnl.SETTLEMENT: "settlement"}
"""Seconds after a fill -> what it is called."""
MOST_INTERVALS = 40
"""Rows of one heading that get an interval, those of most fills first: a thousand markets would take minutes."""
_RESAMPLES = 500
"""For the interval of a row; that of the account takes the usual number."""
LEANINGS = ("with", "against", "none")


class Ratios(msgspec.Struct, frozen=True, kw_only=True):
    """How the account fared over time, in steps of `step_s`."""

    days: float
    """Seen: days (or hours) in which nothing was recorded are not in it."""
    step_s: int
    steps: int
    per_day_usd: Interval | None
    """P&L a day: the total over the days, with 95 % limits; None where the steps are too few."""
    sharpe: float | None
    """Of the P&L per step; None of fewer than five steps."""
    sortino: float | None
    sharpe_year: float | None
    """None for a record of under 30 days."""
    sortino_year: float | None
    drawdown_usd: float
    """Deepest fall of the equity less transfers, from its highest point until then."""
    drawdown_share: float | None
    """The same over that highest point."""
    trips: int
    """Positions from flat to flat."""
    wins: Interval | None
    """Part of them that gained, before fees, with Wilson's limits."""
    average_win_usd: float | None
    average_loss_usd: float | None
    hold_s: float | None
    """Mean time from flat to flat."""
    shares: float
    """What changed hands; of a linear instrument, its own unit."""
    turnover_usd: float
    """Its price: that of the token that was bought or sold; price times size of a linear instrument. Merges are no trades."""
    equity_usd: float | None
    """Mean over time."""
    turnover_share: float | None
    """Turnover over the mean equity; a part of one, of the whole record."""
    per_share_cents: float | None
    """P&L over shares."""
    return_on_capital: float | None
    """P&L over the mean equity; a part of one, of the whole record."""
    quoted_share: float | None
    """Of the time seen, with at least one resting quote: mean over the markets that were traded or quoted."""
    rewards_per_day_usd: float | None
    """None before the first midnight (UTC), when a day's rewards are paid."""
    reward_share: float | None
    """Rewards over what the pools of these markets paid all makers while they were quoted; None: no pool, or none paid yet."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of fill, before what is not a fill's own: rebates, rewards, funding."""

    name: str
    fills: int
    shares: float
    capture_usd: float | None
    markouts_usd: dict[str, float | None]
    """By horizon; None: the data reach none of these fills."""
    known: dict[str, int]
    """Of how many fills that markout is."""
    pnl_usd: float
    """From their prices to the mark at the end, less fees."""
    per_day_usd: Interval | None
    """None for fills in fewer than five steps, and beyond the largest `MOST_INTERVALS` rows."""
    instrument: str = ""
    """Of a market's row."""


class After(msgspec.Struct, frozen=True):
    """What followed the fills up to one horizon, and from then on."""

    markout_usd: float | None
    inventory_usd: float
    known: int
    """Fills that have a price then, of all."""
    fills: int


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """The P&L at mid of an account, USD. At each horizon `capture + unknown + markout + inventory` and the rest are `pnl`."""

    pnl: float
    pnl_exit: float
    """At the touch, after the taker fee: what leaving now would make of it."""
    capture: float
    unknown: float
    """Whole move of the fills whose own mid is not known."""
    unknown_fills: int
    fees: float
    rebates: float
    rewards: float
    funding: float
    rounding: float
    unexplained: float
    llm_cost: float
    """Minus; paid elsewhere, not in the P&L."""
    horizons: dict[str, After]
    closes: bool | None
    """In integers, to the rounding of cash."""
    why: str = ""
    """Why it does not."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    label: dict[str, object]
    start_ns: int
    end_ns: int
    fills: int
    failed_fills: int
    counts: dict[str, int]
    split: Split
    ratios: Ratios
    by: dict[str, list[Row]]
    """Heading -> rows, which are all fills once."""
    terms: dict[str, list[Row]]
    """Term of the strategy -> the fills that went its way, against it, and of which it said nothing (`LEANINGS`)."""
    refusals: dict[str, tuple[int, float]]
    """Reason -> (episodes, seconds), the longest first."""


KEYS: Mapping[str, Callable[[Fill], str]] = {
    "market": pnl.market,
    "side": pnl.side,
    "liquidity": pnl.liquidity,
    "reason": pnl.reason,
    "model": pnl.model,
    "action": pnl.action,
    "confidence": pnl.confidence,
    "largest term": pnl.largest_term,
}


def account(track: Track, seed: int = 0) -> Account:
    """Everything of one account. `seed` is that of the intervals' dice."""
    steps = _Steps(track)
    columns = Columns(track, steps.of(track.fills), max(len(steps.ends), 1))

    def rows(key: Callable[[Fill], str]) -> list[Row]:
        groups = columns.by(key)
        largest = sorted(groups, key=lambda name: -groups[name].fills)[:MOST_INTERVALS]
        return [_row(name, group, columns.scale, steps, seed if name in largest else None) for name, group in groups.items()]

    names = Counter(quoted.name for quoted in track.instruments.values())

    def market(row: Row) -> Row:
        name = track.instruments[row.name].name
        told = name if names[name] == 1 else f"{name} [{row.name[-8:]}]"
        return msgspec.structs.replace(row, name=told, instrument=row.name)

    by = {heading: rows(key) for heading, key in KEYS.items()}
    terms = {term for fill in track.fills for term, value in fill.terms.items() if value} - pnl.NOT_LEANING - {"opinion"}
    leanings = {term: pnl.leaning(term) for term in sorted(terms)}
    if any(fill.shift for fill in track.fills):
        leanings = {"opinion": pnl.agreement} | leanings
    ranked = sorted(track.refusals.items(), key=lambda item: (-item[1][1], item[0]))
    return Account(
        label=track.label,
        start_ns=track.start_ns,
        end_ns=track.end_ns,
        fills=len(track.fills),
        failed_fills=track.failed_fills,
        counts=track.counts,
        split=_split(track, pnl.identity(track)),
        ratios=_ratios(track, steps, seed),
        by=by | {"market": [market(row) for row in by["market"]]},
        terms={term: rows(key) for term, key in leanings.items()},
        refusals={reason: (count, ns / NS_PER_S) for reason, (count, ns) in ranked},
    )


class _Steps:
    """The days or hours in which something was recorded, and what was earned in each."""

    def __init__(self, track: Track) -> None:
        self._take(track, DAY_NS)
        if self.days < MIN_DAYS:
            self._take(track, HOUR_NS)

    def _take(self, track: Track, ns: int) -> None:
        earned = daily(track, step_ns=ns)
        self.ns = ns
        self.ends = [min(start + ns, track.end_ns) for start in earned]
        self.days = sum(end - max(start, track.start_ns) for start, end in zip(earned, self.ends, strict=True)) / DAY_NS
        self.earned = [usd(made) for made in earned.values()]

    def of(self, fills: Sequence[Fill]) -> list[int]:
        """The number of the step in which each was made; of one past the last point, the last."""
        last = max(len(self.ends) - 1, 0)
        return [min(bisect.bisect_left(self.ends, fill.ts), last) for fill in fills]

    def per_day(self, values: Sequence[float], seed: int, resamples: int = 2_000) -> Interval | None:
        """Their sum over the days."""
        if sum(1 for value in values if value) < metrics.MIN_BOOTSTRAP:
            return None
        found = metrics.bootstrap(values, seed=seed, resamples=resamples)
        a_day = len(values) / self.days
        return found and Interval(found.value * a_day, found.low * a_day, found.high * a_day)


def _split(track: Track, whole: Identity) -> Split:
    def after(horizon: int) -> After:
        split = whole.horizons[horizon]
        markout = None if split.markout is None else whole.usd(split.markout)
        return After(markout, whole.usd(split.inventory), split.known, split.of)

    return Split(
        pnl=whole.usd(whole.pnl),
        pnl_exit=usd(track.exit_equity - track.start_cash - track.flows["transfers"]),
        capture=whole.usd(whole.capture),
        unknown=whole.usd(whole.unknown),
        unknown_fills=whole.unknown_fills,
        fees=whole.usd(whole.fees),
        rebates=whole.usd(whole.rebates),
        rewards=whole.usd(whole.rewards),
        funding=whole.usd(whole.funding),
        rounding=whole.usd(whole.rounding),
        unexplained=whole.usd(whole.unexplained),
        llm_cost=whole.usd(whole.llm_cost),
        horizons={name: after(horizon) for horizon, name in HORIZONS.items()},
        closes=whole.closes,
        why=whole.why,
    )


def _row(name: str, group: Group, scale: int, steps: _Steps, seed: int | None) -> Row:
    """Without a seed, without an interval."""

    def money(amount: int) -> float:
        return amount / scale / CASH_PER_USD

    return Row(
        name=name,
        fills=group.fills,
        shares=group.shares,
        capture_usd=None if group.capture is None else money(group.capture),
        markouts_usd={told: None if (m := group.markouts[h]) is None else money(m) for h, told in HORIZONS.items()},
        known={told: group.known[h] for h, told in HORIZONS.items()},
        pnl_usd=money(group.pnl),
        per_day_usd=None if seed is None else steps.per_day([money(made) for made in group.by_step], seed, _RESAMPLES),
    )


def _ratios(track: Track, steps: _Steps, seed: int) -> Ratios:
    equity = Level(track)
    gained = usd(equity.levels[-1] - equity.levels[0])
    capital = _mean_level(equity)
    fallen = metrics.max_drawdown(equity.levels)
    won = [usd(trip.pnl) for trip in track.trips if trip.pnl > 0]
    lost = [usd(trip.pnl) for trip in track.trips if trip.pnl < 0]
    shares = sum(fill.qty / track.instruments[fill.instrument].qty_scale for fill in track.fills)
    turnover = sum(_price_paid(track, fill) for fill in track.fills)
    few = len(steps.earned) < metrics.MIN_BOOTSTRAP
    sharpe, sortino = (None, None) if few else (metrics.sharpe(steps.earned), metrics.sortino(steps.earned))
    yearly = metrics.DAYS_A_YEAR * DAY_NS / steps.ns
    quoted = [min(one.quoted_ns / DAY_NS / steps.days, 1.0) for one in track.instruments.values() if steps.days]
    rewards = _Rewards(track, steps)
    return Ratios(
        days=steps.days,
        step_s=steps.ns // NS_PER_S,
        steps=len(steps.earned),
        per_day_usd=steps.per_day(steps.earned, seed),
        sharpe=sharpe,
        sortino=sortino,
        sharpe_year=metrics.annualised(sharpe, steps.days, yearly),
        sortino_year=metrics.annualised(sortino, steps.days, yearly),
        drawdown_usd=usd(round(fallen.amount)) if fallen else 0.0,
        drawdown_share=fallen.share if fallen else None,
        trips=len(track.trips),
        wins=metrics.wilson(len(won), len(track.trips)),
        average_win_usd=_mean(won),
        average_loss_usd=_mean(lost),
        hold_s=_mean([(trip.closed_ns - trip.opened_ns) / NS_PER_S for trip in track.trips]),
        shares=shares,
        turnover_usd=turnover,
        equity_usd=capital,
        turnover_share=turnover / capital if capital and capital > 0 else None,
        per_share_cents=100 * gained / shares if shares else None,
        return_on_capital=gained / capital if capital and capital > 0 else None,
        quoted_share=_mean(quoted),
        rewards_per_day_usd=rewards.per_day,
        reward_share=rewards.share,
    )


def _mean_level(equity: Level) -> float | None:
    """USD; each level until the next one. None of no time."""
    span = equity.times[-1] - equity.times[0]
    held = sum(level * (then - ts) for level, (ts, then) in zip(equity.levels, pairwise(equity.times), strict=False))
    return held / span / CASH_PER_USD if span > 0 else None


def _price_paid(track: Track, fill: Fill) -> float:
    """USD. The cash of a binary fill is its price; that of a linear one is only what the fill realised."""
    quoted = track.instruments[fill.instrument]
    return usd(abs(fill.cash)) if quoted.payout else fill.price * fill.qty / quoted.price_scale / quoted.qty_scale


class _Rewards:
    """What resting orders earned, up to the last midnight, which is when it is paid."""

    def __init__(self, track: Track, steps: _Steps) -> None:
        self.per_day: float | None = None
        self.share: float | None = None
        span = track.end_ns - track.start_ns
        paid_for = (track.end_ns // DAY_NS * DAY_NS - track.start_ns) / span if span > 0 else 0.0
        if paid_for <= 0 or not steps.days:
            return
        earned = usd(track.flows["rewards"])
        pools = sum(usd(one.pool_per_day) * one.quoted_ns / DAY_NS for one in track.instruments.values()) * paid_for
        self.per_day = earned / (steps.days * paid_for)
        self.share = earned / pools if pools > 0 else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
