"""How long a command travels to the exchange: a constant, a draw around a median, or a draw from what a live run measured.

`quoting.md` 5.4. The feed's delay is the feed's own. A draw is named by the seed and the order alone, so that neither a restart nor
another order of calls changes it. It knows no order, no clock and no file: whoever has a log hands in its lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from statistics import NormalDist
from typing import Literal

import msgspec

from llm_maker.core.values import NS_PER_S
from llm_maker.venues.paper import matching

Trip = Literal["entry", "cancel"]
MIN_PAIRS = 30
"""A log with fewer orders (or cancels) and their answers tells no distribution."""
_POINTS = 200
"""A measured distribution is kept as this many equal steps of probability."""
_TAIL_RATIO = 10
_MAX_NS = 600 * NS_PER_S
_UNIT = NormalDist()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Scatter(msgspec.Struct, frozen=True, kw_only=True):
    """How travel times vary around the configured ones; as it stands they do not.

    Drawn: lognormal with `sigma` around the median, and `tail_ppm` of a million ten times as long. Measured: `entry` and `cancel`
    hold quantiles (ns) of equal steps of probability, the least and the greatest included; they replace median, spread and tail.
    """

    sigma: float = 0.0
    tail_ppm: int = 0
    entry: tuple[int, ...] = ()
    cancel: tuple[int, ...] = ()

    def travel_ns(self, seed: int, trip: Trip, order_id: str, median_ns: int) -> int:
        """How long this order, or its cancel, travels: one value for each name; a median of 0 stays 0."""
        measured = self.entry if trip == "entry" else self.cancel
        if measured:
            return _quantile(measured, _share(seed, trip, order_id))
        if not self.sigma and not self.tail_ppm:
            return median_ns
        slow = matching.chance(seed, f"slow {trip}", order_id, self.tail_ppm)
        spread = math.exp(self.sigma * _UNIT.inv_cdf(_share(seed, trip, order_id)))
        return min(int(median_ns * spread * (_TAIL_RATIO if slow else 1)), _MAX_NS)


class Unmeasured(ValueError):
    """A log from which no latency can be drawn; the text says what is wrong with it."""


class _Line(msgspec.Struct):
    """What is read of a line of `executions.jsonl`."""

    timestamp: str
    event: str
    order_id: str = ""
    mode: str = ""
    account: str = ""


def measured(lines: Iterable[bytes]) -> Scatter:
    """The distributions in a live run's `executions.jsonl`: `order` to `accepted`, and `cancel` to `canceled`, of one order id.

    Both ends are moments of our own loop, so the way back is in them: an effect comes as late as its answer did, which is later
    than it was. Their milliseconds are enough for what takes tens of them. Never answered: not counted (a timeout is not in the log
    as a time). Raises Unmeasured; a torn last line is left out.
    """
    found: dict[Trip, list[int]] = {trip: [] for trip in _PAIRS}
    sent: dict[tuple[str, Trip, str], int] = {}
    damaged = 0
    for number, text in enumerate(lines, 1):
        if damaged:
            raise Unmeasured(f"line {damaged} is no line of an executions.jsonl")
        try:
            line = _LINES.decode(text)
            at = _ns(line.timestamp)
        except ValueError:
            damaged = number
            continue
        for trip, (start, answer) in _PAIRS.items():
            key = (line.account, trip, line.order_id)
            if line.mode == "live" and line.event == start:
                sent.setdefault(key, at)  # a cancel sent twice is timed from the first
            elif line.event == answer and key in sent:
                found[trip].append(max(at - sent.pop(key), 0))
    for trip, (start, answer) in _PAIRS.items():
        if len(found[trip]) < MIN_PAIRS:
            told = f"{len(found[trip])} pairs of {start!r} and {answer!r} lines of a live run"
            raise Unmeasured(f"{told}; at least {MIN_PAIRS} are needed")
    return Scatter(entry=_quantiles(found["entry"]), cancel=_quantiles(found["cancel"]))


_PAIRS: dict[Trip, tuple[str, str]] = {"entry": ("order", "accepted"), "cancel": ("cancel", "canceled")}
_LINES = msgspec.json.Decoder(_Line)


def _share(seed: int, trip: Trip, order_id: str) -> float:
    """A number in (0, 1) that belongs to this order."""
    return min(max((matching.draw(seed, trip, order_id) + 0.5) / 2**64, 1e-9), 1 - 1e-9)


def _quantiles(values: list[int]) -> tuple[int, ...]:
    values = sorted(values)
    steps = min(_POINTS, len(values) - 1)
    return tuple(_quantile(tuple(values), step / steps) for step in range(steps + 1))


def _quantile(table: tuple[int, ...], share: float) -> int:
    """Between the two neighbours of a sorted table, linearly."""
    place = share * (len(table) - 1)
    below = min(int(place), len(table) - 2)
    return round(table[below] + (place - below) * (table[below + 1] - table[below]))


def _ns(timestamp: str) -> int:
    """Milliseconds of ISO 8601 as ns, exactly."""
    since = datetime.fromisoformat(timestamp) - _EPOCH
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
