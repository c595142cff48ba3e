"""What was measured of each model's opinions, as lines for people. Pure; computes nothing."""

from __future__ import annotations

from collections.abc import Mapping

from llm_maker.core.skill import Knots, Skill
from llm_maker.report.slope import UNBOUNDED

ALL = "all"
"""Shown where the category is empty."""


def lines(skills: Mapping[str, Skill]) -> list[str]:
    """A table by model and category (key `model|category`), the model's whole record first, then what is behind it."""
    if not skills:
        return ["  opinions: nothing measured yet"]
    told = ["  opinions, and what they count for (W) by later prices and by outcomes:"]
    head = ("model", "category", "W", "slope", "95 %", "signals", "days", "resolved", "Brier", "market")
    rows = [head]
    notes = []
    for key, skill in sorted(skills.items(), key=lambda item: item[0].rpartition("|")):
        model, _, category = key.rpartition("|")
        rows.append(
            (
                _short(model),
                category or ALL,
                f"{skill.weight:.3f}" if skill.measured else "prior",
                f"{skill.slope:+.3f}",
                f"{skill.slope_low:+.2f}..{skill.slope_high:+.2f}" if skill.slope_high < UNBOUNDED else "-",
                str(skill.signals),
                str(skill.event_days),
                str(skill.outcomes),
                _score(skill.brier),
                _score(skill.brier_market),
            )
        )
        notes.append(f"    {_short(model)}, {category or ALL}: {_behind(skill)}")
    widths = [max(len(row[n]) for row in rows) for n in range(len(head))]
    for row in rows:
        cells = [cell.ljust(width) if n < 2 else cell.rjust(width) for n, (cell, width) in enumerate(zip(row, widths, strict=True))]
        told.append("    " + "  ".join(cells).rstrip())
    return told + notes


def _behind(skill: Skill) -> str:
    """Why the weight is what it is, and what else is applied."""
    parts = [skill.why or "no reason kept"]
    alpha, beta = skill.platt
    if (alpha, beta) != (0.0, 1.0):
        parts.append(f"calibrated: log-odds {alpha:+.3f} {beta:+.3f} x its own")
    if skill.trust:
        parts.append(f"trust by confidence {_knots(skill.trust)}")
    if skill.betas:
        parts.append(f"a bare bias is worth {_knots(skill.betas)}")
    return "; ".join(parts)


def _knots(knots: Knots) -> str:
    return ", ".join(f"to {up_to:.2f}: {value:.2f}" for up_to, value in knots)


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(model: str, limit: int = 48) -> str:
    return model if len(model) <= limit else model[: limit - 1] + "…"
