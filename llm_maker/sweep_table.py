"""What came of a sweep: rows for a table file, the walk-forward result, the luck of the winner, and the page for people.

Rows are one for each cell over all tapes, then one for each cell and tape. Money in USD; a markout in cents a share, empty where
the tape ends before the horizon of every fill. All of it is paper money.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config_text import ConfigError
from llm_maker.core.values import NS_PER_S
from llm_maker.report.figures import Figures, together
from llm_maker.report.metrics import sharpe
from llm_maker.report.summary import gain
from llm_maker.report.text_table import table
from llm_maker.report.track import MARKOUTS_S
from llm_maker.report.walk_forward import CONVINCED, Choose, Fold, Luck, luck, steps_of, walk
from llm_maker.runtime.line_log import iso
from llm_maker.sweep import Plan
from llm_maker.sweep_runs import Outcome, module_of

_MINUTE_NS, _HOUR_NS = 60 * NS_PER_S, 3_600 * NS_PER_S
_HOURLY_FROM_NS = 24 * _HOUR_NS
"""A single tape of a day or more is split in hours, a shorter one in minutes."""
_FOLDS = 3
_SHOWN = 20
"""Cells on the page; the file has all."""


class Steps(msgspec.Struct, frozen=True):
    """The P&L of every cell, step by step; what a step is, and where each begins."""

    unit: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    gains: tuple[tuple[float, ...], ...]
    words: tuple[str, ...] = ()
    """What must be said of them."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """A finished sweep."""

    plan: Plan
    cells: tuple[Figures, ...]
    outcomes: tuple[tuple[Outcome, ...], ...]
    """By cell, then by tape."""
    steps: Steps
    folds: tuple[Fold, ...]
    luck: Luck


def judge(plan: Plan, found: Sequence[Outcome], *, folds: int | None, choose: Choose, tried: int) -> Result:
    """Sum up, walk forward and deflate. `tried`: variants ever run on these tapes, those at hand among them.

    `folds` None: as many as there is room for, at most three, and one (two halves) for a single tape. `ConfigError` for more folds
    than the steps allow.
    """
    width = len(plan.tapes)
    outcomes = tuple(tuple(found[i : i + width]) for i in range(0, len(found), width))
    steps = _steps(plan, outcomes)
    most = len(steps.starts) - 1
    if folds is not None and folds > most:
        raise ConfigError(f"--folds is {folds}; {len(steps.starts)} {steps.unit} leave room for {most} at most")
    wanted = folds or (1 if width == 1 else min(_FOLDS, most))
    walked = walk(steps.gains, plan.base, wanted, choose) if most >= 1 else []
    return Result(
        plan=plan,
        cells=tuple(together([one.figures for one in row]) for row in outcomes),
        outcomes=outcomes,
        steps=steps,
        folds=tuple(walked),
        luck=luck(steps.gains, plan.base, tried, choose),
    )


def _steps(plan: Plan, outcomes: Sequence[Sequence[Outcome]]) -> Steps:
    """Tapes are the steps where there are two or more; a single tape is split by time."""
    starts, ends = (tuple(getattr(one, name) for one in outcomes[0]) for name in ("start_ns", "end_ns"))
    if len(plan.tapes) > 1:
        gains = tuple(tuple(one.figures.pnl for one in row) for row in outcomes)
        return Steps("tapes", starts, ends, gains, _overlaps(plan, starts, ends))
    start, end = starts[0], max(row[0].end_ns for row in outcomes)
    step, unit = (_HOUR_NS, "hours") if end - start >= _HOURLY_FROM_NS else (_MINUTE_NS, "minutes")
    gains = tuple(tuple(steps_of(row[0].points, start, end, step)) for row in outcomes)
    starts = tuple(start + step * i for i in range(len(gains[0])))
    words = (f"one tape only: it is split by time, into {len(starts)} {unit}; more tapes would say more",)
    return Steps(unit, starts, (*starts[1:], end), gains, words)


def _overlaps(plan: Plan, starts: Sequence[int], ends: Sequence[int]) -> tuple[str, ...]:
    """Said of tapes side by side in time: what is chosen on the one has seen some of the other."""
    return tuple(
        f"{plan.tapes[b].path.name} begins before {plan.tapes[a].path.name} ends: folds between them share market time"
        for a, b in pairwise(range(len(starts)))
        if starts[b] < ends[a]
    )


# The table.


def rows(result: Result) -> list[dict[str, Any]]:
    """The table file's rows; every row has every column."""
    plan = result.plan
    found = []
    for n, (cell, figures, row) in enumerate(zip(plan.cells, result.cells, result.outcomes, strict=True)):
        common = {"cell": n, "name": cell.name, "base": n == plan.base}
        common |= {key: _value(cell.config.model_dump(mode="json"), key) for key in plan.keys}
        ends = row[0].start_ns, row[-1].end_ns
        found.append({"row": "cell", **common, "tape": "", **_times(*ends), **_numbers(figures)})
        for tape, one in zip(plan.tapes, row, strict=True):
            tells = {"row": "tape", **common, "tape": tape.path.name, **_times(one.start_ns, one.end_ns)}
            found.append({**tells, **_numbers(one.figures)})
    return sorted(found, key=lambda row: row["row"])


def _value(tree: Any, key: str) -> Any:
    """What the cell's config says there, the base's too; a list as text."""
    for part in key.split("."):
        tree = tree[part]
    return tree if isinstance(tree, str | int | float | bool) or tree is None else str(tree)


def _times(start: int, end: int) -> dict[str, str]:
    return {"start": iso(start), "end": iso(end)}


def _numbers(one: Figures) -> dict[str, Any]:
    return {
        "pnl_usd": one.pnl,
        "pnl_exit_usd": one.pnl_exit,
        "capture_usd": round(one.capture, 6),
        **{f"markout_{h}s_cents": _rounded(one.markout(h)) for h in MARKOUTS_S},
        "fees_usd": one.fees,
        "rebates_usd": one.rebates,
        "rewards_usd": one.rewards,
        "orders": one.orders,
        "fills": one.fills,
        "shares": round(one.shares, 6),
        "inventory_usd": round(one.inventory, 6),
        "drawdown_usd": one.drawdown,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def check_out(out: Path) -> None:
    """Refuse a table file that could not be written, before anything is run."""
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {out}: the name must end in .csv or .parquet")
    if out.suffix == ".parquet":
        module_of("pyarrow.parquet", "parquet", f"--out {out}")


def check_folds(plan: Plan, folds: int | None) -> None:
    """Refuse more folds than there are tapes for, before anything is run; how far a single tape goes is seen afterwards."""
    width = len(plan.tapes)
    if folds is not None and width > 1 and folds >= width:
        raise ConfigError(f"--folds is {folds}; {width} tapes leave room for {width - 1} at most")


def write(result: Result, out: Path) -> list[Path]:
    """The CSV, always, and a parquet file of the same rows where `out` asks for one; the files written."""
    found = rows(result)
    text = io.StringIO()
    table = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(found)
    files = [out.with_suffix(".csv")]
    _replace(files[0], text.getvalue().encode())
    if out.suffix == ".parquet":
        arrow = module_of("pyarrow", "parquet", f"--out {out}")
        parquet = module_of("pyarrow.parquet", "parquet", f"--out {out}")
        sink = arrow.BufferOutputStream()
        made = arrow.Table.from_pylist(found)
        # A column in which nothing is known yet still holds numbers: of no kind, it could not be joined with another sweep's.
        kinds = [arrow.field(f.name, arrow.float64() if arrow.types.is_null(f.type) else f.type) for f in made.schema]
        parquet.write_table(made.cast(arrow.schema(kinds)), sink)
        _replace(out, sink.getvalue().to_pybytes())
        files.append(out)
    return files


def _replace(path: Path, data: bytes) -> None:
    """Whole, or as it was before."""
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(data)
    draft.replace(path)


# The page.


def as_json(result: Result) -> dict[str, Any]:
    """For `--json`."""
    plan, told = result.plan, result.luck
    return {
        "keys": list(plan.keys),
        "tapes": [str(tape.path) for tape in plan.tapes],
        "paper_money": True,
        "base": plan.cells[plan.base].name,
        "rows": rows(result),
        "words": words(result),
        "steps": result.steps.unit,
        "folds": [
            {
                "from": iso(result.steps.starts[fold.start]),
                "to": iso(result.steps.ends[fold.end - 1]),
                "winner": plan.cells[fold.winner].name,
                "trained_usd": round(fold.trained, 6),
                "tested_usd": round(fold.tested, 6),
                "base_usd": round(fold.base, 6),
            }
            for fold in result.folds
        ],
        "winner": plan.cells[told.winner].name,
        "winner_sharpe_per_step": told.sharpe,
        "null_best_sharpe_per_step": told.null_best,
        "variants_tried": told.trials,
        "deflated_sharpe": told.deflated,
        "convincing": told.convincing,
    }


def words(result: Result) -> list[str]:
    """What must be said beside the numbers."""
    cut = {tape.path.name: one.truncated for tape, one in zip(result.plan.tapes, result.outcomes[0], strict=True) if one.truncated}
    return [*result.steps.words, *(f"the tape is cut short: {text}" for text in cut.values())]


def lines(result: Result) -> list[str]:
    """For people: the cells, best first where they are many, then folds and luck."""
    plan = result.plan
    ranked = (
        sorted(range(len(plan.cells)), key=lambda n: -result.cells[n].pnl) if len(plan.cells) > _SHOWN else range(len(plan.cells))
    )
    shown = list(ranked)[:_SHOWN]
    titles = ("", "P&L at mid", "at the touch", "fills", "capture", "markout 60 s", "drawdown", "Sharpe/step")
    body = [titles, *(_row(result, n) for n in shown)]
    told = [f"{len(plan.cells)} cells x {len(plan.tapes)} tape{'' if len(plan.tapes) == 1 else 's'}, paper money", "", *table(body)]
    if len(plan.cells) > len(shown):
        told.append(f"... and {len(plan.cells) - len(shown)} cells that made less; the file has all")
    return [*told, "", *words(result), *_fold_lines(result), *_luck_lines(result)]


def _row(result: Result, n: int) -> tuple[str, ...]:
    one, markout, ratio = result.cells[n], result.cells[n].markout(60), sharpe(result.steps.gains[n])
    return (
        result.plan.cells[n].name + (" (base)" if n == result.plan.base and result.plan.cells[n].values else ""),
        gain(one.pnl),
        gain(one.pnl_exit),
        str(one.fills),
        gain(one.capture),
        "n/a" if markout is None else f"{markout:+.2f}c",
        f"${one.drawdown:,.2f}",
        "n/a" if ratio is None else f"{ratio:+.3f}",
    )


def _fold_lines(result: Result) -> list[str]:
    if not result.folds:
        return ["no walk-forward: a single step leaves nothing to choose on"]
    told = ["walk-forward: chosen on what came before, reported on what it had not seen"]
    for fold in result.folds:
        winner = result.plan.cells[fold.winner].name
        told.append(
            f"  {iso(result.steps.starts[fold.start])} on, {fold.end - fold.start} {result.steps.unit}: '{winner}' (chosen on "
            f"{gain(fold.trained)}) made {gain(fold.tested)}, the base {gain(fold.base)}"
        )
    tested, base = sum(f.tested for f in result.folds), sum(f.base for f in result.folds)
    return [*told, f"  out of sample {gain(tested)}, the base {gain(base)}: difference {gain(tested - base)}"]


def _luck_lines(result: Result) -> list[str]:
    told = result.luck
    name = result.plan.cells[told.winner].name
    tries = f"{told.trials} variant{'' if told.trials == 1 else 's'} tried on these tapes"
    if told.sharpe is None or told.deflated is None:
        return [
            f"the best over everything is '{name}'; {len(result.steps.starts)} {result.steps.unit} are too few to tell it from luck"
        ]
    numbers = f"Sharpe {told.sharpe:+.3f} a step; the best of {tries} would show {told.null_best:.3f} by luck"
    found = [f"the best over everything is '{name}': {numbers}; deflated Sharpe {told.deflated:.3f}"]
    if not told.convincing:
        found.append(
            f"WARNING: '{name}' is no better than luck would give (deflated Sharpe under {CONVINCED:g}): change nothing for it"
        )
    return found
