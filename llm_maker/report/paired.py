"""Two accounts on the same market events, step by step: is the one better than the other, net of what its model cost?

`quoting.md` 6.5 and 6.7. Tracks in; money in cash units (10^-6 USD), times in ns of market time. Steps are days of UTC, or hours
where the accounts have less than 20 days in common: then there is an interval and no verdict. A step that neither account has a
point in is no step, so a gap between two tapes proves nothing. It knows neither strategies nor models.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.report import metrics, pnl
from llm_maker.report.metrics import Interval
from llm_maker.report.track import Track

HOUR_NS = 3_600 * NS_PER_S
DAY_NS = 24 * HOUR_NS
MIN_DAYS = 20
MAX_P = 0.05
TOO_FEW = "too few days"
_EARNED = frozenset(("fee", "rebate", "reward", "funding"))
"""Kinds of cash that are gain or loss; the others only move what is held."""


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of two accounts, first less second, cash units, net of model cost."""

    first: str
    second: str
    total: float = 0.0
    gross: int = 0
    """Before model cost."""
    days: float = 0.0
    """Common market time in which something was seen."""
    step_ns: int = DAY_NS
    steps: int = 0
    partial: int = 0
    """Of the steps, those (the first, the last) of which the accounts share only a part; they count as they are."""
    per_day: Interval | None = None
    """Mean difference a day with 95 % limits; None where the steps are too few for limits."""
    p: float | None = None
    """Two-sided, Diebold and Mariano's."""
    variants: int = 1
    """Tried together; `p` is corrected for them by Holm's rule."""
    verdict: str = ""
    """`better`, `worse`, `no difference seen`, or "": nothing can be said."""
    why: str = ""
    """Of an empty verdict."""


class Level:
    """Equity less transfers, as a step function of time. Before its first point it is the start cash."""

    def __init__(self, track: Track) -> None:
        marks = {track.start_ns: track.start_cash} | {p.ts: p.equity for p in track.points} | {track.end_ns: track.equity}
        moved = sorted((m.ts, m.amount) for m in track.money if m.kind == "transfer")
        self.times = sorted(marks)
        self.levels: list[int] = []
        out, at = 0, 0
        for ts in self.times:
            while at < len(moved) and moved[at][0] <= ts:
                out += moved[at][1]
                at += 1
            self.levels.append(marks[ts] - out)

    def at(self, ts: int) -> int:
        return self.levels[max(bisect.bisect_right(self.times, ts) - 1, 0)]

    def seen(self, low: int, high: int, step_ns: int) -> set[int]:
        """Steps with a point within (low, high]; a point on a boundary ends the step before it."""
        return {(ts - 1) // step_ns * step_ns for ts in self.times if low < ts <= high}


def daily(track: Track, *, step_ns: int = DAY_NS) -> dict[int, int]:
    """Start of step -> P&L: change of equity at mid less transfers, in time order; they add up to the whole record's.

    The first and the last step are the record's own part of them (`partial`). A step without a point is left out, and what
    happened in it is in the next.
    """
    level = Level(track)
    steps = sorted(level.seen(track.start_ns, track.end_ns, step_ns))
    edges = _edges(steps, track.start_ns, track.end_ns, step_ns)
    return {step: level.at(end) - level.at(start) for step, (start, end) in zip(steps, pairwise(edges), strict=True)}


def partial(track: Track, *, step_ns: int = DAY_NS) -> list[int]:
    """The steps of `daily` that the record has only a part of: the first, the last, both or none."""
    return _cut(list(daily(track, step_ns=step_ns)), track.start_ns, track.end_ns, step_ns)


def _edges(steps: Sequence[int], low: int, high: int, step_ns: int) -> list[int]:
    """Where each step's P&L begins and ends: at `low`, then at the end of every step, at most `high`."""
    return [low, *(min(step + step_ns, high) for step in steps)]


def _cut(steps: Sequence[int], low: int, high: int, step_ns: int) -> list[int]:
    return [step for step in steps if step < low or step + step_ns > high]


def paired(a: Track, b: Track, *, cost_usd: float = 0.0, seed: int = 0) -> Paired:
    """a less b, per day, net of the models' cost. `cost_usd`: what a's model cost besides `a.model_costs`, spread over the span.

    A verdict needs 20 days, an interval (stationary bootstrap, BCa) without 0 and p of Diebold and Mariano under 5 %.
    """
    return _judged(_compared(a, b, "", cost_usd, seed))


def against(a: Track, others: Mapping[str, Track], *, cost_usd: float = 0.0, seed: int = 0) -> list[Paired]:
    """`paired` of one account with each of several, in their order; p and verdict corrected for their number (Holm)."""
    found = [_compared(a, other, name, cost_usd, seed) for name, other in others.items()]
    corrected = metrics.holm([1.0 if one.p is None else one.p for one in found])
    return [
        _judged(msgspec.structs.replace(one, p=None if one.p is None else p, variants=len(found)))
        for one, p in zip(found, corrected, strict=True)
    ]


def _compared(a: Track, b: Track, name: str, cost_usd: float, seed: int) -> Paired:
    low, high = max(a.start_ns, b.start_ns), min(a.end_ns, b.end_ns)
    first, second = _name(a), name or _name(b)
    if low >= high:
        return Paired(first=first, second=second, why="no common time")
    ours, theirs = Level(a), Level(b)
    for step_ns in (DAY_NS, HOUR_NS):
        steps = sorted(ours.seen(low, high, step_ns) | theirs.seen(low, high, step_ns))
        edges = _edges(steps, low, high, step_ns)
        lengths = [end - max(step, low) for step, end in zip(steps, edges[1:], strict=True)]
        if sum(lengths) >= MIN_DAYS * DAY_NS:
            break
    common = sum(lengths)
    spread = [cost_usd * CASH_PER_USD * length / common for length in lengths]
    gross, differences = 0, []
    for (start, end), ours_paid, theirs_paid, extra in zip(pairwise(edges), _paid(a, edges), _paid(b, edges), spread, strict=True):
        gained = ours.at(end) - ours.at(start) - theirs.at(end) + theirs.at(start)
        gross += gained
        differences.append(gained - ours_paid + theirs_paid - extra)
    days, per_day = common / DAY_NS, len(differences) * DAY_NS / common
    interval = metrics.bootstrap(differences, seed=seed)
    tested = metrics.diebold_mariano(differences)
    # A difference that is the same at every step, such as a model that costs and changes nothing, leaves no doubt and no statistic.
    sure = 0.0 if interval and interval.value != 0.0 else None
    return Paired(
        first=first,
        second=second,
        total=math.fsum(differences),
        gross=gross,
        days=days,
        step_ns=step_ns,
        steps=len(steps),
        partial=len(_cut(steps, low, high, step_ns)),
        per_day=interval and Interval(interval.value * per_day, interval.low * per_day, interval.high * per_day),
        p=tested[1] if tested else sure,
    )


def _judged(p: Paired) -> Paired:
    if p.days < MIN_DAYS:
        return msgspec.structs.replace(p, verdict="", why=p.why or TOO_FEW)
    if p.per_day is None or p.p is None or p.p >= MAX_P or p.per_day.low <= 0.0 <= p.per_day.high:
        return msgspec.structs.replace(p, verdict="no difference seen")
    return msgspec.structs.replace(p, verdict="better" if p.per_day.value > 0.0 else "worse")


def _name(track: Track) -> str:
    return str(track.label.get("account") or "account")


def _paid(track: Track, edges: Sequence[int]) -> list[int]:
    """Model cost between each two edges, in (start, end]; one at the very first edge counts too."""
    paid = [0] * (len(edges) - 1)
    for ts, cost in track.model_costs:
        if edges[0] <= ts <= edges[-1]:
            paid[max(bisect.bisect_left(edges, ts) - 1, 0)] += cost
    return paid


def by_market(a: Track, b: Track) -> dict[str, float]:
    """Instrument -> what a made there less what b made, cash units, at mid; over the whole of both records, before model cost.

    Cash that names no instrument (a daily sum of rewards, say) is in none of them.
    """
    ours, theirs = _made(a), _made(b)
    return {name: ours.get(name, 0.0) - theirs.get(name, 0.0) for name in sorted(ours.keys() | theirs.keys())}


def _made(track: Track) -> dict[str, float]:
    made = {name: (part.pnl + part.fees) / part.scale for name, part in pnl.by(track, pnl.market).items()}
    for move in track.money:
        if move.instrument and move.kind in _EARNED:
            made[move.instrument] = made.get(move.instrument, 0.0) + move.amount
    return made


def lines(p: Paired) -> list[str]:
    """One comparison for people; dollars."""
    title = f"{p.first} less {p.second}"
    if not p.steps:
        return [f"{title}: {p.why}"]
    unit = "days" if p.step_ns == DAY_NS else "hours"
    cut = f", {p.partial} of them cut short" if p.partial else ""
    cost = p.gross - p.total
    found = [
        f"{title}: {_usd(p.total)} in {p.days:.1f} days ({p.steps} {unit}{cut})",
        f"  before model cost {_usd(p.gross)}, model cost {_usd(cost)}",
    ]
    if p.per_day is None:
        found.append("  a day: too few steps for an interval")
    else:
        mean, low, high = (_usd(v) for v in (p.per_day.value, p.per_day.low, p.per_day.high))
        chance = "" if p.p is None else f", p {p.p:.3f}" + (f" (Holm, {p.variants} variants)" if p.variants > 1 else "")
        found.append(f"  a day {mean}, 95 % {low} to {high}{chance}")
    found.append(f"  {p.verdict}" if p.verdict else f"  no verdict: {p.why} ({p.days:.1f}, {MIN_DAYS} needed)")
    return found


def _usd(cash: float) -> str:
    return f"{cash / CASH_PER_USD:+.2f} USD"
