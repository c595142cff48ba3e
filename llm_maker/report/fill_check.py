"""Simulated fills against live fills of the same time and markets: how wrong is the fill model (`quoting.md` 5.6 i)?

Two tracks (`report/track.py`) and the lives of their orders in, one record out; `lines` says it in words. Only the time and the
instruments that both have in common are looked at. Under `MIN_FILLS` fills on either side there are figures and no verdict. It
knows no exchange and no configuration; `read_orders` reads the lives from an `executions.jsonl`.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.report.metrics import Interval, wilson
from llm_maker.report.track import Fill, Quoted, Track

HORIZONS_S = (10, 60, 300)
MIN_FILLS = 30
MIN_ORDERS = 10
"""In a decile, on either side, before it is compared."""
RATIO = (0.8, 1.25)
"""Simulated fills per live fill that are good enough."""
MARKOUT_TICKS = 0.2
"""A smaller difference of mean markouts is good enough."""
_Z = 1.959963984540054
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_OF_TICK = 100
"""No binary market has a coarser tick than a hundredth of its price scale."""


class OrderLife(msgspec.Struct, frozen=True, kw_only=True):
    """One order that rested, from the decision to its end; price on the YES book, units and ns as in a track."""

    order_id: str
    instrument: str
    side: int
    """1 bids for YES, -1 asks."""
    price: int
    qty: int
    placed_ns: int
    first_fill_ns: int | None = None
    ended_ns: int | None = None
    """None: it still rested when the log ended."""
    filled: int = 0
    ahead: int | None = None
    """Shown at its price when it was decided, quantity units; None: the log does not say."""


class Decile(msgspec.Struct, frozen=True, kw_only=True):
    """Orders of one tenth of the queue (or of the sizes): how many, and which share filled at all."""

    low: float
    high: float
    live: int
    live_share: float
    paper: int
    paper_share: float
    agrees: bool | None
    """Whether the simulated share is within the live one's 95 % interval; None: too few orders."""


class Markout(msgspec.Struct, frozen=True, kw_only=True):
    """Mean move of the mid our way after a fill, in ticks; the difference is simulated less live."""

    live: float
    live_fills: int
    paper: float
    paper_fills: int
    difference: float
    interval: Interval
    good: bool | None


class FillCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; None: not known, or too few to say."""

    hours: float
    instruments: int
    live_fills: int
    paper_fills: int
    live_orders: int
    paper_orders: int
    verdictless: str
    """Why nothing is judged; "": it is."""
    ratio: float | None
    """Simulated fills per live fill."""
    ratio_interval: Interval | None
    ratio_good: bool | None
    by: str
    """What the deciles are of: `queue ahead`, or `order size` where a log does not tell the queue."""
    deciles: list[Decile]
    gap: float | None
    """Mean absolute difference of the deciles' shares, weighted by live orders."""
    ks: float | None
    """Kolmogorov and Smirnov's distance of the times to the first fill, filled orders only."""
    ks_p: float | None
    live_median_s: float | None
    paper_median_s: float | None
    markouts: dict[int, Markout]
    error: int | None
    """The simulator error: simulated less live P&L over the common time, cash units."""
    live_pnl: int | None
    paper_pnl: int | None


def check(live: Track, paper: Track, live_orders: list[OrderLife], paper_orders: list[OrderLife]) -> FillCheck:
    """Compare what the simulation filled with what the venue did, over the time and the instruments of both."""
    start, end = max(live.start_ns, paper.start_ns), min(live.end_ns, paper.end_ns)
    quoted = {**paper.instruments, **live.instruments}
    both = {o.instrument for o in live_orders} & {o.instrument for o in paper_orders} & quoted.keys()

    def common(orders: list[OrderLife]) -> list[OrderLife]:
        return [o for o in orders if o.instrument in both and start <= o.placed_ns <= end]

    real_orders, sim_orders = common(live_orders), common(paper_orders)
    real, sim = ([f for f in t.fills if f.instrument in both and start <= f.ts <= end] for t in (live, paper))
    enough = min(len(real), len(sim)) >= MIN_FILLS
    ratio, interval = _ratio(len(real), len(sim))
    known = all(o.ahead is not None for o in real_orders + sim_orders)
    deciles = _deciles(real_orders, sim_orders, known=known)
    compared = [d for d in deciles if d.agrees is not None]
    weight = sum(d.live for d in compared)
    times = [np.array(_waits(orders)) for orders in (real_orders, sim_orders)]
    distance, p = ks(times[0], times[1]) if all(t.size >= MIN_FILLS for t in times) else (None, None)
    ticks = _ticks(real_orders + sim_orders, quoted)
    pnls = [_pnl(track, start, end) for track in (live, paper)] if start < end else [None, None]
    return FillCheck(
        hours=max(end - start, 0) / NS_PER_S / 3_600,
        instruments=len(both),
        live_fills=len(real),
        paper_fills=len(sim),
        live_orders=len(real_orders),
        paper_orders=len(sim_orders),
        verdictless="" if enough else _why(len(real), len(sim), start < end, bool(both)),
        ratio=ratio,
        ratio_interval=interval,
        ratio_good=RATIO[0] <= ratio <= RATIO[1] if enough and ratio is not None else None,
        by="queue ahead" if known else "order size",
        deciles=deciles,
        gap=sum(d.live * abs(d.paper_share - d.live_share) for d in compared) / weight if weight else None,
        ks=distance,
        ks_p=p,
        live_median_s=float(np.median(times[0])) if times[0].size else None,
        paper_median_s=float(np.median(times[1])) if times[1].size else None,
        markouts={h: made for h in HORIZONS_S if (made := _markout(real, sim, h, ticks)) is not None},
        error=pnls[1] - pnls[0] if pnls[0] is not None and pnls[1] is not None else None,
        live_pnl=pnls[0],
        paper_pnl=pnls[1],
    )


def lines(found: FillCheck) -> list[str]:
    """The check in words, one line a finding; the simulated side is called simulated."""
    said = [
        f"Simulated against live fills: {found.hours:.1f} h and {found.instruments} markets in common, "
        f"{found.paper_fills} simulated and {found.live_fills} live fills of {found.paper_orders} and {found.live_orders} orders"
    ]
    if found.verdictless:
        said.append(f"no verdict: {found.verdictless}")
    if found.ratio is not None and found.ratio_interval is not None and found.hours > 0:
        limits = f"[{found.ratio_interval.low:.2f}, {found.ratio_interval.high:.2f}]"
        rates = f"{found.paper_fills / found.hours:.2f} simulated, {found.live_fills / found.hours:.2f} live"
        said.append(f"fills per hour: {rates}; ratio {found.ratio:.2f} {limits}{_verdict(found.ratio_good)}, good: 0.80 to 1.25")
    for number, d in enumerate(found.deciles, 1):
        note = {None: "too few", True: "agree", False: "differ"}[d.agrees]
        share = f"{d.paper_share:.0%} of {d.paper} simulated, {d.live_share:.0%} of {d.live} live"
        said.append(f"P(fill), {found.by} {d.low:g} to {d.high:g} ({number} of {len(found.deciles)}): {share}: {note}")
    if found.gap is not None:
        said.append(f"P(fill): mean difference over the deciles {found.gap:.1%}")
    if found.ks is not None and found.live_median_s is not None and found.paper_median_s is not None:
        medians = f"median {found.paper_median_s:.1f} s simulated, {found.live_median_s:.1f} s live"
        said.append(f"time to fill: {medians}; Kolmogorov-Smirnov {found.ks:.3f}, p {found.ks_p:.3f}")
    for horizon, m in found.markouts.items():
        limits = f"[{m.interval.low:+.2f}, {m.interval.high:+.2f}]"
        said.append(
            f"markout {horizon} s, ticks: {m.paper:+.2f} simulated, {m.live:+.2f} live; "
            f"difference {m.difference:+.2f} {limits}{_verdict(m.good)}, good: under {MARKOUT_TICKS}"
        )
    if found.error is not None and found.live_pnl is not None and found.paper_pnl is not None:
        simulated, live, error = (value / CASH_PER_USD for value in (found.paper_pnl, found.live_pnl, found.error))
        said.append(f"P&L: {simulated:+.2f} USD simulated, {live:+.2f} USD live; simulator error {error:+.2f} USD")
    return said


def ks(one: np.ndarray[tuple[int], np.dtype[np.float64]], two: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float]:
    """Kolmogorov and Smirnov's two-sample distance and its two-sided p-value, by Stephens' correction of the limit law."""
    one, two = np.sort(one), np.sort(two)
    every = np.concatenate([one, two])
    shares = [np.searchsorted(sample, every, side="right") / sample.size for sample in (one, two)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    root = math.sqrt(one.size * two.size / (one.size + two.size))
    reach = (root + 0.12 + 0.11 / root) * distance
    if reach < 0.2:
        return distance, 1.0  # the series needs hundreds of terms there, and its sum is 1
    terms = np.arange(1, 101)
    return distance, float(min(max(2 * np.sum((-1.0) ** (terms - 1) * np.exp(-2 * (terms * reach) ** 2)), 0.0), 1.0))


class _Line(msgspec.Struct):
    """What is read of a line of `executions.jsonl`."""

    timestamp: str
    event: str
    account: str = ""
    mode: str = ""
    order_id: str = ""
    market_id: str = ""
    side: str = ""
    token: str = ""
    yes_price: float = 0.0
    size: float = 0.0
    ahead: float | None = None
    found: str = ""


def read_orders(path: Path, account: str, instruments: Mapping[str, Quoted], *, mode: str = "") -> list[OrderLife]:
    """The lives of one account's orders in the order they were placed; the rotated file before `path` is read as well.

    Orders of instruments that are not in `instruments` (a track's), and orders that were refused, are left out: they never rested.
    `mode` keeps the lines of one mode. Raises OSError, and ValueError for a damaged line that is not the last, with its number.
    """
    lives: dict[str, OrderLife] = {}
    for line in _read(path, account, mode):
        at = _ns(line.timestamp)
        quoted = instruments.get(line.market_id)
        if line.event == "order" and quoted is not None:
            lives[line.order_id] = _placed(line, at, quoted)
            continue
        life = lives.get(line.order_id)
        if life is None:
            continue
        if line.event == "rejected":
            del lives[line.order_id]
        elif line.event == "fill":
            filled = life.filled + round(line.size * instruments[life.instrument].qty_scale)
            first = at if life.first_fill_ns is None else life.first_fill_ns
            ended = at if filled >= life.qty else life.ended_ns
            lives[line.order_id] = msgspec.structs.replace(life, filled=filled, first_fill_ns=first, ended_ns=ended)
        elif line.event in ("canceled", "expired") or (line.event == "looked_up" and line.found not in ("", "open")):
            lives[line.order_id] = msgspec.structs.replace(life, ended_ns=at)
    return list(lives.values())


_DECODE = msgspec.json.Decoder(_Line).decode


def _read(path: Path, account: str, mode: str) -> Iterator[_Line]:
    older = path.with_name(path.name + ".1")
    for file in (older, path) if older.exists() else (path,):
        damaged = 0
        with file.open("rb") as texts:
            for number, text in enumerate(texts, 1):
                if damaged:
                    raise ValueError(f"{file}: line {damaged} is no line of an executions.jsonl")
                try:
                    line = _DECODE(text)
                except msgspec.DecodeError:
                    damaged = number  # the torn last line of a killed run, if nothing follows
                    continue
                if line.account == account and line.mode == (mode or line.mode):
                    yield line


def _placed(line: _Line, at: int, quoted: Quoted) -> OrderLife:
    """The order as decided; its side on the YES book from its own token's."""
    bids = (line.side == "buy") is not (line.token == "no")
    return OrderLife(
        order_id=line.order_id,
        instrument=line.market_id,
        side=1 if bids else -1,
        price=round(line.yes_price * quoted.price_scale),
        qty=round(line.size * quoted.qty_scale),
        placed_ns=at,
        ahead=None if line.ahead is None else round(line.ahead * quoted.qty_scale),
    )


def _ns(timestamp: str) -> int:
    """Milliseconds of ISO 8601 as ns, exactly."""
    since = datetime.fromisoformat(timestamp) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _why(live: int, paper: int, overlap: bool, markets: bool) -> str:
    if not overlap:
        return "no time in common"
    if not markets:
        return "no market in which both placed orders"
    return f"{live} live and {paper} simulated fills; {MIN_FILLS} of each are needed"


def _ratio(live: int, paper: int) -> tuple[float | None, Interval | None]:
    """Simulated fills per live one with Poisson limits; nothing where either side has none."""
    if not live or not paper:
        return (0.0, None) if live else (None, None)
    ratio, reach = paper / live, math.exp(_Z * math.sqrt(1 / live + 1 / paper))
    return ratio, Interval(ratio, ratio / reach, ratio * reach)


def _waits(orders: list[OrderLife]) -> list[float]:
    return [(o.first_fill_ns - o.placed_ns) / NS_PER_S for o in orders if o.first_fill_ns is not None]


def _deciles(live: list[OrderLife], paper: list[OrderLife], *, known: bool) -> list[Decile]:
    """Orders that ended or were filled, in tenths of what both sides' orders had ahead (or their sizes); ties stay together."""
    sides = [[o for o in orders if o.filled or o.ended_ns is not None] for orders in (live, paper)]
    values = [np.array([(o.ahead or 0) if known else o.qty for o in orders], dtype=float) for orders in sides]
    if not values[0].size or not values[1].size:
        return []
    pooled = np.concatenate(values)
    edges = np.unique(np.quantile(pooled, np.arange(1, 10) / 10, method="inverted_cdf"))
    bins = [np.searchsorted(edges, mine, side="left") for mine in (*values, pooled)]
    made = []
    for number in range(edges.size + 1):
        here = pooled[bins[2] == number]
        if not here.size:
            continue
        won, n = [], []
        for orders, places in zip(sides, bins, strict=False):
            inside = [o.filled > 0 for o, place in zip(orders, places, strict=True) if place == number]
            won.append(sum(inside))
            n.append(len(inside))
        shares = [won[i] / n[i] if n[i] else 0.0 for i in (0, 1)]
        limits = wilson(won[0], n[0]) if min(n) >= MIN_ORDERS else None
        agrees = None if limits is None else limits.low <= shares[1] <= limits.high
        made.append(
            Decile(
                low=float(here.min()),
                high=float(here.max()),
                live=n[0],
                live_share=shares[0],
                paper=n[1],
                paper_share=shares[1],
                agrees=agrees,
            )
        )
    return made


def _ticks(orders: list[OrderLife], instruments: Mapping[str, Quoted]) -> dict[str, int]:
    """Instrument -> tick in price units: the coarsest power of ten that all our prices there lie on."""
    ticks: dict[str, int] = {}
    for order in orders:
        tick = ticks.get(order.instrument)
        if tick is None:
            tick = max(instruments[order.instrument].price_scale // _UNITS_OF_TICK, 1)
        while order.price % tick:
            tick //= 10
        ticks[order.instrument] = tick
    return ticks


def _markout(live: list[Fill], paper: list[Fill], horizon: int, ticks: Mapping[str, int]) -> Markout | None:
    moves = [
        np.array([f.side * (f.marks[horizon] - f.mid2) / 2 / ticks[f.instrument] for f in fills if f.mid2 and horizon in f.marks])
        for fills in (live, paper)
    ]
    if min(m.size for m in moves) < 2:
        return None
    means, errors = [float(m.mean()) for m in moves], [float(m.var(ddof=1)) / m.size for m in moves]
    difference, reach = means[1] - means[0], _Z * math.sqrt(sum(errors))
    enough = min(m.size for m in moves) >= MIN_FILLS
    return Markout(
        live=means[0],
        live_fills=moves[0].size,
        paper=means[1],
        paper_fills=moves[1].size,
        difference=difference,
        interval=Interval(difference, difference - reach, difference + reach),
        good=abs(difference) < MARKOUT_TICKS if enough else None,
    )


def _pnl(track: Track, start: int, end: int) -> int:
    """What equity gained between two moments, transfers apart; from the start cash before the first point."""

    def worth(at: int) -> int:
        points = track.points
        before = bisect.bisect_right(points, at, key=lambda point: point.ts)
        level = points[before - 1].equity if before else track.start_cash
        if at >= track.end_ns:
            level = track.equity
        return level - sum(m.amount for m in track.money if m.kind == "transfer" and m.ts <= at)

    return worth(end) - worth(start)


def _verdict(good: bool | None) -> str:
    return {None: "", True: ": good", False: ": NOT good"}[good]
