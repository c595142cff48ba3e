"""What several models said of the same markets, made into one opinion on each.

Probabilities are calibrated by what each model's record says of it, then averaged in log-odds by measured weight; what cannot be
averaged is voted on by the same weights, a tie going to the careful side. The order of the models never matters. Pure; knows no
provider, no price and no call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from llm_maker.core.advice import Action, Bias, Grade, Signal
from llm_maker.core.skill import Skill, skill_of
from llm_maker.core.values import expit, logit
from llm_maker.llm.answer import MAX_PROSE
from llm_maker.llm.snapshot import clean

MEASURED_SIGNALS = 50
"""From so many on, a measured slope counts in the pool."""
MOST_SLOPE = 0.5
"""A slope beyond this is luck as likely as skill."""
_EDGE = 0.005
"""Probabilities nearer than this to 0 or 1 are pooled as this near."""
_SAME = 1e-9
"""Two sums of weights nearer than this are a tie."""
_GRADES = (Grade.LOW, Grade.MEDIUM, Grade.HIGH)

Mode = Literal["pool", "vote"]
T = TypeVar("T")


class Voice(msgspec.Struct, frozen=True):
    """One model's answer: its name in all measurements, and at most one signal for a market."""

    key: str
    signals: tuple[Signal, ...]


class _Said(msgspec.Struct, frozen=True):
    """One model on one market: its signal, calibrated (log-odds; None: it gave no probability), and its part in this pool."""

    key: str
    signal: Signal
    x: float | None
    half: float | None
    """Half the width of its interval in log-odds."""
    weight: float


def pool(answers: Sequence[Voice], skills: Mapping[str, Skill], categories: Mapping[str, str], mode: Mode) -> tuple[Signal, ...]:
    """One signal for each market that somebody spoke of, in the order of `categories` (market id -> category).

    The shares of capital together are at most 1. `vote`: the probabilities are left out, and a bias alone speaks.
    """
    pooled: list[Signal] = []
    for market_id, category in categories.items():
        said = _on(market_id, category, answers, skills)
        if said:
            pooled.append(_alone(said[0], skills, category, mode) if len(said) == 1 else _together(market_id, said, mode))
    asked = math.fsum(signal.share for signal in pooled if signal.share is not None)
    if asked > 1.0:
        return tuple(s if s.share is None else msgspec.structs.replace(s, share=s.share / asked) for s in pooled)
    return tuple(pooled)


def parts(answers: Sequence[Voice], skills: Mapping[str, Skill], categories: Mapping[str, str]) -> tuple[float, ...]:
    """Each answer's part in the whole pool, in the order of `answers`: the mean over the markets anybody spoke of; sums to 1."""
    totals: list[list[float]] = [[] for _ in answers]
    for market_id, category in categories.items():
        speaking = [i for i, voice in enumerate(answers) if _signal_on(voice, market_id) is not None]
        for i, weight in zip(speaking, weights([answers[i].key for i in speaking], skills, category), strict=True):
            totals[i].append(weight)
    whole = math.fsum(weight for own in totals for weight in own)
    return tuple(math.fsum(own) / whole if whole > 0 else 0.0 for own in totals)


def weights(keys: Sequence[str], skills: Mapping[str, Skill], category: str) -> tuple[float, ...]:
    """Each model's part, summing to 1: its measured slope, whether or not a gate lets it act.

    One without a record has the mean of the measured; all are equal if nothing speaks for any.
    """
    measured: list[float | None] = []
    for key in keys:
        skill = skill_of(skills, key, category)
        told = skill is not None and skill.signals >= MEASURED_SIGNALS
        measured.append(min(max(0.0, skill.slope), MOST_SLOPE) if skill is not None and told else None)
    known = [weight for weight in measured if weight is not None]
    mean = math.fsum(known) / len(known) if known else 0.0
    raw = [mean if weight is None else weight for weight in measured]
    whole = math.fsum(raw)
    return tuple(weight / whole if whole > 0 else 1.0 / len(raw) for weight in raw)


def _signal_on(voice: Voice, market_id: str) -> Signal | None:
    return next((signal for signal in voice.signals if signal.market_id == market_id), None)


def _on(market_id: str, category: str, answers: Sequence[Voice], skills: Mapping[str, Skill]) -> list[_Said]:
    speaking = [(voice.key, signal) for voice in answers if (signal := _signal_on(voice, market_id)) is not None]
    shares = weights([key for key, _ in speaking], skills, category)
    said: list[_Said] = []
    for (key, signal), weight in zip(speaking, shares, strict=True):
        skill = skill_of(skills, key, category)
        x = None if signal.p_yes is None else _x(signal.p_yes, skill)
        said.append(_Said(key, signal, x, None if x is None else _half(signal, x, skill), weight))
    return said


def _x(p: float, skill: Skill | None) -> float:
    calibrated = p if skill is None else skill.calibrated(p)
    return logit(min(max(calibrated, _EDGE), 1.0 - _EDGE))


def _half(signal: Signal, x: float, skill: Skill | None) -> float | None:
    """Of the ends that were given; one end alone stands for both."""
    ends = [_x(p, skill) for p in (signal.p_low, signal.p_high) if p is not None]
    if not ends:
        return None
    return abs(ends[0] - ends[1]) / 2.0 if len(ends) == 2 else abs(ends[0] - x)


def _alone(said: _Said, skills: Mapping[str, Skill], category: str, mode: Mode) -> Signal:
    """A model alone keeps its words; only its probabilities are put on the scale of what happened."""
    signal, skill = said.signal, skill_of(skills, said.key, category)
    if mode == "vote":
        return msgspec.structs.replace(signal, p_yes=None, p_low=None, p_high=None)
    if skill is None or signal.p_yes is None:
        return signal
    low = None if signal.p_low is None else skill.calibrated(signal.p_low)
    high = None if signal.p_high is None else skill.calibrated(signal.p_high)
    if skill.platt[1] < 0:
        low, high = high, low
    return msgspec.structs.replace(signal, p_yes=skill.calibrated(signal.p_yes), p_low=low, p_high=high)


def _together(market_id: str, said: Sequence[_Said], mode: Mode) -> Signal:
    x, disagreement = _middle([(s.x, s.weight) for s in said if s.x is not None])
    half = _width([(s.half, s.weight) for s in said if s.half is not None], disagreement)
    actions = _leading(said, lambda s: s.action)
    biases = _leading(said, lambda s: s.directional_bias)
    action = actions[0] if len(actions) == 1 else Action.HOLD
    # After a tie nobody has won, and both sides are heard.
    heard = [s for s in said if s.signal.action in actions]
    low, p, high = (None, None, None) if x is None or mode == "vote" else _probabilities(x, half)
    return Signal(
        market_id=market_id,
        action=action,
        confidence=min(1.0, math.fsum(s.weight * s.signal.confidence for s in said if s.signal.action is action)),
        directional_bias=biases[0] if len(biases) == 1 else Bias.NEUTRAL,
        risk_level=max(_leading(said, lambda s: s.risk_level), key=_GRADES.index),
        priority=max(_leading(said, lambda s: s.priority), key=_GRADES.index),
        p_yes=p,
        p_low=low,
        p_high=high,
        reasoning=_words(heard, lambda s: s.reasoning),
        evidence=_words(heard, lambda s: s.evidence),
        # What an outvoted model would have put on the other side is nobody's wish.
        share=_mean([(s.signal.share, s.weight) for s in said if s.signal.share is not None and s.signal.action is action]),
        disagreement=disagreement,
    )


def _probabilities(x: float, half: float | None) -> tuple[float | None, float, float | None]:
    return (None, expit(x), None) if half is None else (expit(x - half), expit(x), expit(x + half))


def _mean(weighted: Sequence[tuple[float, float]]) -> float | None:
    """None of nothing; the plain mean where those who spoke have no weight."""
    if not weighted:
        return None
    whole = math.fsum(weight for _, weight in weighted)
    if whole <= 0:
        return math.fsum(value for value, _ in weighted) / len(weighted)
    return math.fsum(value * weight for value, weight in weighted) / whole


def _middle(weighted: Sequence[tuple[float, float]]) -> tuple[float | None, float]:
    """Weighted mean and standard deviation of log-odds."""
    mean = _mean(weighted)
    if mean is None:
        return None, 0.0
    variance = _mean([((x - mean) ** 2, weight) for x, weight in weighted])
    return mean, math.sqrt(variance or 0.0)


def _width(weighted: Sequence[tuple[float, float]], disagreement: float) -> float | None:
    """Half the pool's interval: what each doubts, and what they doubt of one another; None where nobody gave an interval."""
    mean = _mean([(half**2, weight) for half, weight in weighted])
    return None if mean is None else math.sqrt(mean + disagreement**2)


def _leading(said: Sequence[_Said], choice: Callable[[Signal], T]) -> list[T]:
    """The choice with most weight, or all that tie for it."""
    cast: dict[T, list[float]] = {}
    for one in said:
        cast.setdefault(choice(one.signal), []).append(one.weight)
    sums = {chosen: math.fsum(votes) for chosen, votes in cast.items()}
    most = max(sums.values())
    return [chosen for chosen, total in sums.items() if total >= most - _SAME]


def _words(said: Sequence[_Said], text: Callable[[Signal], str]) -> str:
    """The heaviest first, each with an equal part of the room."""
    ordered = sorted((-s.weight, s.key, text(s.signal)) for s in said if text(s.signal))
    room = MAX_PROSE // max(1, len(ordered))
    return " ".join(clean(f"[{short_name(key)}] {words}", room) for _, key, words in ordered)[:MAX_PROSE]


def short_name(key: str) -> str:
    """The model's own name, without whose it is."""
    return key.rsplit("/", 1)[-1]
