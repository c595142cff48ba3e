"""One run in a few numbers, as a row of a table: what it made, what it traded, how far it fell. From a `Track` alone.

Money in USD. A markout is the mean move of the mid after a fill, for us, in cents a share, over the fills whose horizon the data
reach; None where they reach none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from llm_maker.core.values import usd
from llm_maker.report.metrics import max_drawdown
from llm_maker.report.track import MARKOUTS_S, Quoted, Track


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one run came to, or several runs of one config together."""

    pnl: float
    """At mid, fees and everything paid."""
    pnl_exit: float
    """At the touch, with the fees of leaving."""
    fees: float
    rebates: float
    rewards: float
    orders: int
    fills: int
    shares: float
    capture: float
    """Against the mid at each fill."""
    moves: dict[int, tuple[float, float]]
    """Horizon in seconds -> (what the mid moved for us after the fills, USD; the shares of those fills)."""
    inventory: float
    """What is held at the end, at mid: the worth of its shares, NO shares at what they are worth, and the size of linear ones."""
    drawdown: float
    """The deepest fall of equity; of several runs the deepest of one."""

    def move(self, horizon_s: int) -> tuple[float, float]:
        """Of `moves`; nothing over no shares where the data reach no fill's horizon."""
        return self.moves.get(horizon_s, (0.0, 0.0))

    def markout(self, horizon_s: int) -> float | None:
        """Cents a share."""
        moved, shares = self.move(horizon_s)
        return 100.0 * moved / shares if shares else None


def figures(track: Track) -> Figures:
    """The row of one run."""
    capture = shares = 0.0
    moves: dict[int, tuple[float, float]] = {}
    for fill in track.fills:
        quoted = track.instruments[fill.instrument]
        size = fill.qty / quoted.qty_scale
        shares += size
        if not fill.mid2:
            continue
        capture += fill.side * (fill.mid2 / 2 - fill.price) / quoted.price_scale * size
        for horizon, mid2 in fill.marks.items():
            moved, marked = moves.get(horizon, (0.0, 0.0))
            moves[horizon] = (moved + fill.side * (mid2 - fill.mid2) / 2 / quoted.price_scale * size, marked + size)
    put_in = track.start_cash + track.flows.get("transfers", 0)
    levels = [track.start_cash, *(point.equity for point in track.points), track.equity]
    fallen = max_drawdown(levels)
    return Figures(
        pnl=usd(track.equity - put_in),
        pnl_exit=usd(track.exit_equity - put_in),
        fees=usd(track.flows.get("fees", 0)),
        rebates=usd(track.flows.get("rebates", 0)),
        rewards=usd(track.flows.get("rewards", 0)),
        orders=track.counts.get("placed", 0),
        fills=len(track.fills),
        shares=shares,
        capture=capture,
        moves=moves,
        inventory=sum(map(_held, track.instruments.values())),
        drawdown=usd(round(fallen.amount)) if fallen else 0.0,
    )


def _held(quoted: Quoted) -> float:
    mid2 = 2 * quoted.payout - quoted.mid2 if quoted.net < 0 and quoted.payout else quoted.mid2
    return abs(quoted.net) * mid2 / 2 / quoted.price_scale / quoted.qty_scale if quoted.mid2 else 0.0


def together(found: Sequence[Figures]) -> Figures:
    """Several runs of one config as one row: sums, and the deepest of the drawdowns."""
    return Figures(
        pnl=_sum(f.pnl for f in found),
        pnl_exit=_sum(f.pnl_exit for f in found),
        fees=_sum(f.fees for f in found),
        rebates=_sum(f.rebates for f in found),
        rewards=_sum(f.rewards for f in found),
        orders=sum(f.orders for f in found),
        fills=sum(f.fills for f in found),
        shares=sum(f.shares for f in found),
        capture=sum(f.capture for f in found),
        moves={h: (sum(f.move(h)[0] for f in found), sum(f.move(h)[1] for f in found)) for h in MARKOUTS_S},
        inventory=sum(f.inventory for f in found),
        drawdown=max((f.drawdown for f in found), default=0.0),
    )


def _sum(amounts: Iterable[float]) -> float:
    """Money: cash units lie under it, so the sum has six decimals again."""
    return round(sum(amounts), 6)
