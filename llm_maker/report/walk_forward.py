"""Which variant of many to take, and what taking it that way would have been worth: walk-forward folds and the luck of many tries.

A variant is its P&L step by step (tapes in order of time, or the minutes of one tape), all variants over the same steps. Choosing
sees only the steps before those that are reported. It knows no config, no tape and no money unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from llm_maker.report.metrics import null_best_sharpe, psr, sharpe

Choose = Literal["pnl", "sharpe"]
CONVINCED = 0.95
"""The deflated Sharpe ratio under which a winner is what luck would give."""


class Fold(msgspec.Struct, frozen=True):
    """Chosen on steps before `start`, reported on `start` to `end` (excluded)."""

    start: int
    end: int
    winner: int
    """Place of the variant."""
    trained: float
    """P&L of the winner where it was chosen."""
    tested: float
    """Its P&L on the steps it was not chosen on."""
    base: float
    """The base's P&L on the same steps."""


class Luck(msgspec.Struct, frozen=True):
    """The best variant of all steps against the best that as many worthless ones would show."""

    winner: int
    sharpe: float | None
    """Per step."""
    null_best: float
    """The best Sharpe ratio to expect of `trials` worthless variants."""
    trials: int
    deflated: float | None
    """Probability that the true ratio is above `null_best`; None: too few steps, or nothing moved."""

    @property
    def convincing(self) -> bool:
        return self.deflated is not None and self.deflated >= CONVINCED


def _score(choose: Choose) -> Callable[[Sequence[float]], float]:
    if choose == "pnl":
        return math.fsum
    # A variant that made the same in every step has no ratio: it neither wins for nothing nor loses to a loser.
    return lambda steps: sharpe(steps) or 0.0


def best(variants: Sequence[Sequence[float]], base: int, choose: Choose) -> int:
    """Place of the best variant; of equal ones the base (nothing speaks for a change), then the first."""
    score = _score(choose)
    scores = [score(steps) for steps in variants]
    most = max(scores)
    return base if scores[base] == most else scores.index(most)


def walk(variants: Sequence[Sequence[float]], base: int, folds: int, choose: Choose = "pnl") -> list[Fold]:
    """Expanding window: `folds` + 1 blocks of steps; each but the first is reported by the winner of all blocks before it.

    `base` is a place among the variants. All hold as many steps, more than `folds`.
    """
    n = len(variants[base])
    assert 1 <= folds < n and all(len(steps) == n for steps in variants), "more steps than folds, the same for all"
    edges = [round(block * n / (folds + 1)) for block in range(folds + 2)]
    found = []
    for start, end in pairwise(edges[1:]):
        winner = best([steps[:start] for steps in variants], base, choose)
        trained, tested = (math.fsum(variants[winner][a:b]) for a, b in ((0, start), (start, end)))
        found.append(Fold(start, end, winner, trained, tested, math.fsum(variants[base][start:end])))
    return found


def luck(variants: Sequence[Sequence[float]], base: int, trials: int, choose: Choose = "pnl") -> Luck:
    """The winner of all steps, deflated (`quoting.md` 6.6) by `trials`: every variant ever tried on these data, these among them.

    The spread of the Sharpe ratios is that of the variants at hand.
    """
    ratios = [ratio for ratio in map(sharpe, variants) if ratio is not None]
    middle = math.fsum(ratios) / len(ratios) if ratios else 0.0
    sd = math.sqrt(math.fsum((r - middle) ** 2 for r in ratios) / (len(ratios) - 1)) if len(ratios) > 1 else 0.0
    trials = max(trials, len(variants))
    bar = null_best_sharpe(sd, trials)
    winner = best(variants, base, choose)
    return Luck(winner, sharpe(variants[winner]), bar, trials, psr(variants[winner], bar))


def steps_of(points: Sequence[tuple[int, float]], start: int, end: int, step: int) -> list[float]:
    """What a level (moment, level), oldest first, gained in each whole step from `start` on; what is left belongs to the last.

    The level at a moment is the last one told by then; the first one at the start.
    """
    count = max(1, (end - start) // step)
    edges = [start + step * (i + 1) for i in range(count - 1)] + [end]
    gains, at, level = [], 0, points[0][1]
    for edge in edges:
        before = level
        while at < len(points) and points[at][0] <= edge:
            level = points[at][1]
            at += 1
        gains.append(level - before)
    return gains
