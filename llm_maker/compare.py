"""Any configs against one another on the same tapes: what each made, and the difference to the first with what it is worth.

Each tape is read once for all of them. Differences are paired over the common time of all tapes (`report.paired`), and p is
corrected for every variant that the home's log says was ever tried on these tapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.core.values import CASH_PER_USD
from llm_maker.report import metrics
from llm_maker.report.figures import Figures, figures, together
from llm_maker.report.paired import MAX_P, MIN_DAYS, Paired, paired
from llm_maker.report.summary import gain
from llm_maker.report.text_table import table
from llm_maker.report.track import MARKOUTS_S, Point, Track
from llm_maker.trial import run_many
from llm_maker.variants import differences, file_id, heard, note, tried, variant_id
from llm_maker.world import Refused

Progress = Callable[[int, int], None] | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; names are the configs', the first is the base."""

    base: str
    tapes: dict[str, str]
    """Content id -> name."""
    changed: dict[str, dict[str, tuple[Any, Any]]]
    """Variant -> dotted key -> (the base's value, its own)."""
    made: dict[str, Figures]
    against_base: list[Paired]
    """Variant less base, each."""
    tried: int
    """Variants ever run on any of these tapes, the base left out; p is corrected for so many."""
    truncated: list[str]
    """Tapes that were cut short, and where."""


def compare(
    configs: Mapping[str, Config], tapes: Sequence[Path], home: Path, signals: Path | None = None, progress: Progress = None
) -> Comparison:
    """Run every config on every tape and pair each with the first; the variants are then noted in the home's log.

    Raises `Refused` for tapes that are one and the same, `TapeError` for damage.
    """
    assert len(configs) >= 2, "a base and something to compare with it"
    ids = _distinct(tapes)
    runs: dict[str, list[Track]] = {name: [] for name in configs}
    truncated = []
    for done, tape in enumerate(tapes):
        tracks = run_many(configs, tape, signals=signals)
        for name, one in tracks.items():
            runs[name].append(one)
        cut = next(iter(tracks.values())).label.get("truncated")
        truncated += [str(cut)] if cut else []
        if progress:
            progress(done + 1, len(tapes))
    base = next(iter(configs))
    spoken = "" if signals is None else heard(signals)
    note(home, "compare", {variant_id(config, spoken): name for name, config in configs.items()}, ids)
    count = len(tried(home, ids) - {variant_id(configs[base], spoken)})
    whole = {name: joined(name, found) for name, found in runs.items()}
    raw = [paired(whole[name], whole[base]) for name in configs if name != base]
    return Comparison(
        base=base,
        tapes=ids,
        changed={name: differences(configs[base], config) for name, config in configs.items() if name != base},
        made={name: together([figures(one) for one in found]) for name, found in runs.items()},
        against_base=corrected(raw, count),
        tried=count,
        truncated=truncated,
    )


def _distinct(tapes: Sequence[Path]) -> dict[str, str]:
    ids: dict[str, str] = {}
    for tape in tapes:
        one = file_id(tape)
        if one in ids:
            raise Refused(f"{tape} and {ids[one]} are the same tape; what it says would count twice")
        ids[one] = str(tape)
    return ids


def joined(name: str, tracks: Sequence[Track]) -> Track:
    """The runs of one config as one record of money over time: start cash, and what all of them had gained by each moment.

    Tapes may lie apart or side by side in time. Fills and samples stay with the runs.
    """
    start_cash = tracks[0].start_cash
    steps = sorted((ts, n, level) for n, one in enumerate(tracks) for ts, level in _levels(one))
    levels, points = [0] * len(tracks), []
    for ts, n, level in steps:
        levels[n] = level
        points.append(Point(ts, start_cash + sum(levels), start_cash + sum(levels)))
    return Track(
        label=tracks[0].label | {"account": name},
        start_ns=min(one.start_ns for one in tracks),
        end_ns=max(one.end_ns for one in tracks),
        start_cash=start_cash,
        equity=points[-1].equity,
        exit_equity=points[-1].equity,
        flows={},
        counts={},
        points=points,
        model_costs=sorted(cost for one in tracks for cost in one.model_costs),
    )


def _levels(one: Track) -> list[tuple[int, int]]:
    """(moment, what was gained by then), the end included."""
    gained = [(point.ts, point.equity - one.start_cash) for point in one.points]
    return [*gained, (one.end_ns, one.equity - one.start_cash)]


def corrected(found: Sequence[Paired], variants: int) -> list[Paired]:
    """p of each corrected for `variants` tries (Holm; those not at hand count as if they had shown nothing), verdicts after it."""
    known = [1.0 if one.p is None else one.p for one in found]
    variants = max(variants, len(found))
    adjusted = metrics.holm([*known, *[1.0] * (variants - len(found))])
    return [_judged(one, p, variants) for one, p in zip(found, adjusted, strict=False)]


def _judged(one: Paired, p: float, variants: int) -> Paired:
    lost = one.verdict in ("better", "worse") and p >= MAX_P
    verdict = "no difference seen" if lost else one.verdict
    return msgspec.structs.replace(one, p=None if one.p is None else p, variants=variants, verdict=verdict)


def as_json(found: Comparison) -> dict[str, Any]:
    """For `--json`: money in USD; a markout in cents a share, null where no fill's horizon is reached."""
    return {
        "base": found.base,
        "tapes": list(found.tapes.values()),
        "truncated": found.truncated,
        "paper_money": True,
        "changed": {name: {key: list(pair) for key, pair in keys.items()} for name, keys in found.changed.items()},
        "configs": {name: _figures_json(one) for name, one in found.made.items()},
        "variants_tried": found.tried,
        "against_base": [_paired_json(one) for one in found.against_base],
    }


def _figures_json(one: Figures) -> dict[str, Any]:
    return {
        "pnl_usd": one.pnl,
        "pnl_exit_usd": one.pnl_exit,
        "fees_usd": one.fees,
        "orders": one.orders,
        "fills": one.fills,
        "shares": round(one.shares, 6),
        "capture_usd": round(one.capture, 6),
        "markout_cents": {str(h): _rounded(one.markout(h)) for h in MARKOUTS_S},
        "inventory_usd": round(one.inventory, 6),
        "drawdown_usd": one.drawdown,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _paired_json(one: Paired) -> dict[str, Any]:
    return {
        "variant": one.first,
        "difference_usd": one.total / CASH_PER_USD,
        "days": round(one.days, 6),
        "steps": one.steps,
        "per_day_usd": one.per_day
        and {
            "mean": one.per_day.value / CASH_PER_USD,
            "low": one.per_day.low / CASH_PER_USD,
            "high": one.per_day.high / CASH_PER_USD,
        },
        "p": one.p,
        "variants": one.variants,
        "verdict": one.verdict,
        "why": one.why,
    }


COLUMNS = ("P&L at mid", "at the touch", "fees", "fills", "orders", "capture", "markout 60 s", "inventory", "drawdown")


def lines(found: Comparison) -> list[str]:
    """For people."""
    tapes = len(found.tapes)
    told = [f"{len(found.made)} configs on {tapes} tape{'' if tapes == 1 else 's'}, paper money; base: {found.base}"]
    told += [f"the tape is cut short: {cut}" for cut in found.truncated]
    for name, changed in found.changed.items():
        told.append(f"{name} differs in {len(changed)} key{'' if len(changed) == 1 else 's'}" + (":" if changed else ""))
        told += [f"  {key}: {_shown(before)} -> {_shown(after)}" for key, (before, after) in changed.items()]
    told += ["", *table([("", *COLUMNS), *((name, *_cells(one)) for name, one in found.made.items())]), ""]
    for one in found.against_base:
        told += _verdict(one, found)
    return told


def _cells(one: Figures) -> tuple[str, ...]:
    markout = one.markout(60)
    return (
        gain(one.pnl),
        gain(one.pnl_exit),
        gain(one.fees),
        str(one.fills),
        str(one.orders),
        gain(one.capture),
        "n/a" if markout is None else f"{markout:+.2f}c",
        f"${one.inventory:,.2f}",
        f"${one.drawdown:,.2f}",
    )


def _verdict(one: Paired, found: Comparison) -> list[str]:
    told = [f"{one.first} less {one.second}: {_usd(one.total)} over {_span(one.days)}"]
    if one.per_day is None:
        told.append("  no interval: too few steps")
    else:
        mean, low, high = (_usd(v) for v in (one.per_day.value, one.per_day.low, one.per_day.high))
        told.append(f"  a day {mean}, 95 % {low} to {high}")
    if one.p is not None:
        told.append(f"  p {one.p:.3f}, corrected for {one.variants} variant{'' if one.variants == 1 else 's'} tried on these tapes")
    told.append(f"  {one.verdict}" if one.verdict else f"  no verdict: {one.why} ({one.days:.2f}; {MIN_DAYS} needed)")
    return told


def _span(days: float) -> str:
    """The common time, as much of it as there was: a step that only begins is no hour."""
    if days >= 2:
        return f"{days:.1f} days"
    return f"{days * 24:.1f} hours" if days * 24 >= 2 else f"{days * 1_440:.0f} minutes"


def _usd(cash: float) -> str:
    return gain(cash / CASH_PER_USD)


def _shown(value: Any) -> str:
    return "empty" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
