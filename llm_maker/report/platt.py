"""Platt scaling: calibrated log-odds alpha + beta times a model's own, against outcomes; shrunk, and per category shrunk again.

Newton's method on the logistic likelihood. Knows no market.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

IDENTITY = (0.0, 1.0)
MIN_BETA = 0.05
"""A calibration never turns a model around, nor makes it all but mute."""
_ROUNDS = 50


class Answer(msgspec.Struct, frozen=True):
    """One stated log-odds with what became of it: outcome in 0 to 1, weight 1 over the answers to the same question."""

    x: float
    outcome: float
    weight: float


def fit(answers: Sequence[Answer], prior: tuple[float, float] = IDENTITY, questions: float = 50.0) -> tuple[float, float]:
    """(alpha, beta) by maximum likelihood with a prior that weighs `questions` questions; the prior where there are none.

    The prior is as many pseudo-questions, asked where the model's own were and answered as `prior` expects. It is on the
    scale of the data whatever that is, it cannot be separated, and any logistic regression with weights finds the same.
    Beta is at least `MIN_BETA`.
    """
    import numpy as np

    total = math.fsum(a.weight for a in answers)
    if total <= 0.0:
        return prior
    own = np.array([(a.x, a.outcome, a.weight) for a in answers], dtype=np.float64)
    x, outcome, weight = own.T
    share = questions / total
    expected = _expit(prior[0] + prior[1] * x)
    target, weight = (outcome + share * expected) / (1.0 + share), weight * (1.0 + share)
    design = np.column_stack((np.ones_like(x), x))
    alpha, beta = _newton(design, np.zeros_like(x), target, weight, np.array(prior))
    if beta < MIN_BETA:
        (alpha,) = _newton(design[:, :1], MIN_BETA * x, target, weight, np.array(prior[:1]))
        beta = MIN_BETA
    return float(alpha), float(beta)


def _newton(design: Array, offset: Array, target: Array, weight: Array, start: Array) -> Array:
    """Damped Newton from `start`; where the data cannot tell two parameters apart, the point nearest to the start."""
    import numpy as np

    def loss(at: Array) -> float:
        z = offset + design @ at
        return float(weight @ (np.logaddexp(0.0, z) - target * z))

    found, value = start, loss(start)
    for _ in range(_ROUNDS):
        p = _expit(offset + design @ found)
        slope = design.T @ (weight * (p - target))
        curve = (design.T * (weight * p * (1.0 - p))) @ design
        step = np.linalg.lstsq(curve, slope, rcond=1e-12)[0]
        if not np.any(np.abs(step) > 1e-12 * (1.0 + np.abs(found))):
            break
        while loss(found - step) > value and np.any(np.abs(step) > 1e-14):
            step = step / 2.0
        found = found - step
        value = loss(found)
    return found


def _expit(z: Array) -> Array:
    import numpy as np

    p: Array = np.exp(-np.logaddexp(0.0, -z))
    return p
