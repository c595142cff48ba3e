"""The scores of a file of forecasts, for people: two tables, a reliability curve for each of the best models, what to beware of.

It computes no score; every number stands in `Scores`, and in `--json`.
"""

from __future__ import annotations

import math

from llm_maker.report.forecast import BestTwo, ModelScores, Scores
from llm_maker.report.forecast_gain import MIN_UNITS, Gain
from llm_maker.report.forecast_scores import BINS, CLIP, Bin

_CURVES = 4
"""Models whose curve is drawn."""
_WIDE, _HIGH = 43, 19
_EDGE = 0.005
"""The curve's axes run from here to 1 - here in log-odds, for prices crowd at the ends; what lies beyond is drawn on the edge."""
_TICKS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
_NAME = 24
_LOG = f"{'       in log score':<39}"


def page(found: Scores, file: str) -> list[str]:
    """The whole page, some 125 columns wide."""
    lines = [f"{file}: {_plural(found.rows, 'forecast')}, {found.resolved} resolved, {found.pending} pending (left out)", ""]
    lines += [*_table(found), ""]
    if any(m.market for m in found.models):
        lines += [*_against_market(found), ""]
    if found.best_two:
        lines += [*_best_two(found.best_two), ""]
    for model in found.models[:_CURVES]:
        lines += [*_curve(model), ""]
    return lines + [note if note.startswith("  ") else f"- {note}" for note in _notes(found)]


def nothing_yet(found: Scores, file: str) -> str:
    """The one line for a file in which nothing has resolved."""
    return f"{file}: {_plural(found.rows, 'forecast')}, none with an outcome yet: nothing to score"


def _plural(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _short(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _table(found: Scores) -> list[str]:
    head = f"{'by Brier score (lower is better)':<34}{'n':>7}{'yes':>8}{'Brier':>8}{'log':>8}"
    head += f"{'MCB':>8}{'DSC':>8}{'UNC':>8}{'ECE':>8}{'chance':>8}{'slope':>7}"
    lines = [head]
    for rank, m in enumerate(found.models, 1):
        parts, curve, slope = m.brier_parts, m.reliability, m.calibration.slope
        lines.append(
            f"{rank:>3}  {_short(m.model):<29}{m.n:>7}{m.base_rate:>8.1%}{m.brier:>8.4f}{m.log_score:>8.4f}"
            f"{parts.miscalibration:>8.4f}{parts.discrimination:>8.4f}{parts.uncertainty:>8.4f}{curve.ece:>8.4f}"
            f"{curve.ece_if_calibrated:>8.4f}" + (f"{slope:>7.2f}" if slope is not None else f"{'-':>7}")
        )
    return lines


def _against_market(found: Scores) -> list[str]:
    compared = [m for m in found.models if m.market and m.market.brier_gain.p_value is not None]
    p_head = "Holm p" if len(compared) > 1 else "p"
    lines = [
        "against the market on the same rows (gain above 0: nearer to the outcome than the price)",
        f"     {'':<25}{'n':>7}  {'market':>7}  {'Brier gain, 95 % interval':<30}{p_head:>7}{'rms':>8}{'needed':>9}  verdict",
    ]
    for m in found.models:
        name = f"     {_short(m.model):<25}"
        if m.market is None:
            lines.append(f"{name}{0:>7}  no market price in any row")
            continue
        beside, gain, log = m.market, m.market.brier_gain, m.market.log_gain
        start = f"{name}{beside.n:>7}  {beside.market_brier:>7.4f}  "
        if beside.rms_difference == 0:
            lines.append(f"{start}says what the market says: nothing to compare")
            continue
        needed = "-" if beside.needed is None else f"{beside.needed:,}"
        lines += [
            f"{start}{_interval(gain):<30}{_p(gain):>7}{beside.rms_difference:>8.3f}{needed:>9}  {_verdict(gain)}",
            f"{_LOG}{beside.market_log_score:>7.4f}  {_interval(log):<30}{_p(log):>7}{' ' * 19}{_verdict(log)}",
        ]
    return lines


def _best_two(pair: BestTwo) -> list[str]:
    gain, log = pair.brier_gain, pair.log_gain
    name = f"{_short(pair.first)} over {_short(pair.second)}"
    told = {"better": f"{_short(pair.first)} is better", "worse": f"{_short(pair.second)} is better"}
    return [
        f"the best two where both answered ({_plural(gain.n, 'row')}): {name}",
        f"     Brier gain {_interval(gain):<30} p {_p(gain)}  {told.get(gain.verdict, _verdict(gain))}",
        f"     log gain   {_interval(log):<30} p {_p(log)}  {told.get(log.verdict, _verdict(log))}",
    ]


def _interval(gain: Gain) -> str:
    if gain.low is None or gain.high is None:
        return f"{gain.mean:+.4f} (no interval)"
    return f"{gain.mean:+.4f}  [{gain.low:+.4f}, {gain.high:+.4f}]"


def _p(gain: Gain) -> str:
    value = gain.p_value if gain.p_holm is None else gain.p_holm
    return "-" if value is None else "<.001" if value < 0.001 else f"{value:.3f}"


def _verdict(gain: Gain) -> str:
    return f"no verdict: {gain.why}" if gain.verdict == "none" else gain.verdict


def _at(value: float, cells: int) -> int:
    """The cell of a probability on an axis of log-odds."""
    held = min(max(value, _EDGE), 1 - _EDGE)
    whole = 2 * math.log((1 - _EDGE) / _EDGE)
    return round((math.log(held / (1 - held)) / whole + 0.5) * (cells - 1))


def _outside(point: Bin) -> bool:
    return not point.low - 1e-12 <= point.observed <= point.high + 1e-12


def _curve(model: ModelScores) -> list[str]:
    """Observed frequency over mean forecast, beside the same points as numbers."""
    points = model.reliability.bins
    grid = [[" "] * _WIDE for _ in range(_HIGH)]
    for x in range(_WIDE):
        grid[round(x * (_HIGH - 1) / (_WIDE - 1))][x] = "·"
    for point in points:
        for y in range(_at(point.low, _HIGH), _at(point.high, _HIGH) + 1):
            grid[y][_at(point.forecast, _WIDE)] = "│"
    for point in sorted(points, key=_outside):
        grid[_at(point.observed, _HIGH)][_at(point.forecast, _WIDE)] = "○" if _outside(point) else "●"
    labels = {_at(tick, _HIGH): f"{tick:.0%}" for tick in _TICKS}
    numbers = ["forecast   happened   95 % were it right      n"]
    numbers += [
        f"{p.forecast:8.1%}   {p.observed:8.1%}   {p.low:7.1%} to {p.high:6.1%}{p.n:>7}{'  ○' if _outside(p) else ''}"
        for p in points
    ]
    limit = model.reliability.ece_if_calibrated_95
    slope = model.calibration
    fit = f"no slope: {slope.why}"
    if slope.slope is not None:
        fit = f"slope {slope.slope:.2f} (standard error {slope.slope_error:.2f}), intercept {slope.intercept:+.2f}"
    beyond = "beyond chance" if model.reliability.ece > limit else "within chance"
    numbers += [
        "",
        f"ECE {model.reliability.ece:.4f}, by chance up to {limit:.4f}: {beyond}",
        fit,
        f"sharpness (standard deviation of p) {model.sharpness:.3f}",
    ]
    lines = [f"{_short(model.model)}: what happened over what was forecast ({_plural(model.questions, 'question')})"]
    for row in range(_HIGH):
        y = _HIGH - 1 - row
        beside = numbers[row - 2] if 0 <= row - 2 < len(numbers) else ""
        lines.append(f"{labels.get(y, ''):>5} ┤{''.join(grid[y])}   {beside}".rstrip())
    axis = [" "] * (_WIDE + 4)
    for tick in _TICKS:
        text = f"{tick:.0%}"
        start = max(0, _at(tick, _WIDE) - 1)
        if all(cell == " " for cell in axis[max(0, start - 1) : start + len(text)]):
            axis[start : start + len(text)] = text
    return [*lines, f"{'':>5} └{'─' * _WIDE}", f"{'':>5}  {''.join(axis).rstrip()}"]


def _notes(found: Scores) -> list[str]:
    models = found.models
    notes = [
        "curve: ● what happened, ○ outside the band; │ where 95 % would fall were every forecast exactly right; · the diagonal;",
        f"  axes in log-odds, what is beyond {_EDGE:.1%} and {1 - _EDGE:.1%} on the edge",
        "Brier = MCB - DSC + UNC: miscalibration, discrimination, and what always saying the base rate would score;",
        "  MCB and DSC come from a recalibration fitted on these very rows: optimistic, on new questions it gains less",
        f"ECE: {BINS} bins of equal count; chance: what it would be on the mean were every forecast exactly right",
        f"log score and slope hold p to [{CLIP}, {1 - CLIP}]; slope below 1: overconfident, above 1: not bold enough",
        *_notes_of_gains(found),
    ]
    if len(models) > 1 and not found.same_rows:
        notes.append("the models did not forecast the same rows: compare their gains over the market, not their Brier scores")
    if len(models) > _CURVES:
        notes.append(f"curves of the best {_CURVES} of {len(models)}; all of them: --json")
    if found.pending:
        notes.append("pending questions are left out: what resolves early may differ from what resolves late")
    if found.unpaired:
        notes.append(f"{_plural(found.unpaired, 'resolved row')} without market_p: scored, not compared")
    if split := sum(m.split for m in models):
        notes.append(
            f"{_plural(split, 'row')} with an outcome between 0 and 1: taken as it stands, its log score is the expected one"
        )
    if found.silent:
        notes.append(f"no outcome yet for {', '.join(_short(name) for name in found.silent[:8])}")
    return [*notes, f"{found.resamples} resamples, seed {found.seed}"]


def _notes_of_gains(found: Scores) -> list[str]:
    beside = [m.market for m in found.models if m.market]
    gains = [each.brier_gain for each in beside] + ([found.best_two.brier_gain] if found.best_two else [])
    gains = [gain for gain in gains if gain.p_value is not None]
    notes = []
    if any(each.needed for each in beside):
        notes.append(
            "rms: distance from the price; needed: questions until a model that is right shows by 2 sigma at that distance"
        )
    if any(g.unit == "question" for g in gains):
        few = any(g.days is not None for g in gains)
        why = f"fewer than {MIN_UNITS} days" if few else "not every row tells its time"
        notes.append(f"intervals draw question by question ({why}): what questions of a day share is not seen")
    if any(g.unit == "day" for g in gains):
        notes.append("intervals draw blocks of days, all forecasts of one question with the day it was first asked")
    return notes
