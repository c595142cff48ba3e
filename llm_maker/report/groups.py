"""The fills of a track grouped by one key after another, in exact sums: `pnl.by` for a hundred thousand fills and many keys.

Amounts are integers, `1 / scale` cash units, in 64 bits where all of them together fit, else in Python's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from llm_maker.report import pnl
from llm_maker.report.track import Fill, Track

_FITS = 1 << 62


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The fills of one kind, added up."""

    fills: int
    shares: float
    capture: int | None
    """None: of none of them is the mid known."""
    markouts: dict[int, int | None]
    """By horizon; None: the data reach none of them."""
    known: dict[int, int]
    """Of how many fills that markout is."""
    pnl: int
    """From their prices to the end, less fees."""
    by_step: list[int]
    """The same by the step in which they were made."""


class Columns:
    """The fills as arrays. `step_of` is the number of each fill's step, `steps` how many steps there are."""

    def __init__(self, track: Track, step_of: Sequence[int], steps: int) -> None:
        split = pnl.moves(track)
        self.scale, self.fills = pnl.scale_of(track), track.fills
        self._steps = steps
        self._step_of = np.array(step_of, dtype=np.int64)
        self._shares = np.array([fill.qty / track.instruments[fill.instrument].qty_scale for fill in track.fills])
        self._made = _column([move.pnl - move.fee for move in split])
        self._captured = np.array([move.capture is not None for move in split], dtype=np.int64)
        self._capture = _column([move.capture or 0 for move in split])
        self._marked = {h: np.array([h in move.markouts for move in split], dtype=np.int64) for h in pnl.HORIZONS}
        self._markout = {h: _column([move.markouts.get(h, 0) for move in split]) for h in pnl.HORIZONS}

    def by(self, key: Callable[[Fill], str]) -> dict[str, Group]:
        """By name of group, in order."""
        told = [key(fill) for fill in self.fills]
        names = sorted(set(told))
        if not names:
            return {}
        place = {name: n for n, name in enumerate(names)}
        of = np.array([place[name] for name in told])
        order = np.argsort(of, kind="stable")
        first = np.searchsorted(of[order], np.arange(len(names)))

        def sums(column: NDArray[np.generic]) -> list[int]:
            return [int(each) for each in np.add.reduceat(column[order], first)]

        by_step = np.zeros(len(names) * self._steps, dtype=self._made.dtype)
        np.add.at(by_step, of * self._steps + self._step_of, self._made)
        rows = [[int(each) for each in row] for row in by_step.reshape(len(names), self._steps)]
        count, captured, capture, made = (sums(column) for column in (np.ones_like(of), self._captured, self._capture, self._made))
        shares = np.add.reduceat(self._shares[order], first)
        known, markout = ({h: sums(column) for h, column in columns.items()} for columns in (self._marked, self._markout))
        return {
            name: Group(
                fills=count[n],
                shares=float(shares[n]),
                capture=capture[n] if captured[n] else None,
                markouts={h: markout[h][n] if known[h][n] else None for h in pnl.HORIZONS},
                known={h: known[h][n] for h in pnl.HORIZONS},
                pnl=made[n],
                by_step=rows[n],
            )
            for n, name in enumerate(names)
        }


def _column(amounts: Sequence[int]) -> NDArray[np.generic]:
    fits = sum(abs(amount) for amount in amounts) < _FITS
    return np.array(amounts, dtype=np.int64 if fits else object)
