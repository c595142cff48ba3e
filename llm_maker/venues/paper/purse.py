"""The money side of one simulated account: cash, tokens, perpetual positions, fills that are not final yet.

Integers; rounding as `values` does it, against us. It knows no book, no queue, no latency and emits nothing: the
exchange says when, this says how much.
"""

from __future__ import annotations

import msgspec

from llm_maker.core import values
from llm_maker.core.events import OrderFilled
from llm_maker.core.values import Instrument, Leg, Liquidity, Side


class Lot(msgspec.Struct):
    """Shares of one token: `settled` may be sold unless `locked` in a merge; `pending` waits for settlement."""

    settled: int = 0
    pending: int = 0
    locked: int = 0


class Perp(msgspec.Struct):
    """A linear position: signed quantity and signed entry notional (price units x quantity units)."""

    net: int = 0
    basis: int = 0
    remainder: int = 0
    """Realised but below one cash unit; carried to the next trade, as the account at the other end does."""


class Provisional(msgspec.Struct):
    """A matched fill before settlement: what it moved, so that a failure can move it back."""

    instrument: str
    leg: Leg
    bought: bool
    qty: int
    cash: int
    """Signed, after the fee."""
    rebate: int


class Purse(msgspec.Struct):
    """`cash` counts matched fills at once; `incoming` of it waits for settlement, `reserved` backs resting orders."""

    cash: int
    incoming: int = 0
    reserved: int = 0
    lots: dict[str, dict[str, Lot]] = {}
    """instrument -> leg -> shares."""
    perps: dict[str, Perp] = {}
    provisional: dict[str, Provisional] = {}
    """By fill id."""
    rebates: dict[str, int] = {}
    rewards: dict[str, int] = {}
    """Accrued today, by instrument."""

    @property
    def free(self) -> int:
        """Cash a new order may use; may be below zero after a failed settlement."""
        return self.cash - self.incoming - self.reserved

    def lot(self, instrument: str, leg: Leg) -> Lot:
        return self.lots.setdefault(instrument, {}).setdefault(leg.value, Lot())

    def perp(self, instrument: str) -> Perp:
        return self.perps.setdefault(instrument, Perp())

    def book(self, instrument: Instrument, fill: OrderFilled) -> None:
        """A match: cash and shares move now, provisionally unless `fill.settled`."""
        if not instrument.is_binary:
            self._trade_perp(instrument, fill)
            return
        flow = values.cash_flow(instrument, fill.side, fill.leg, fill.price, fill.qty) - fill.fee
        bought = values.leg_side(fill.side, fill.leg) is Side.BUY
        lot = self.lot(instrument.id, fill.leg)
        if bought:
            lot.pending += fill.qty
        else:
            lot.settled -= fill.qty
            self.incoming += flow
        self.cash += flow
        maker = fill.liquidity is Liquidity.MAKER
        rebate = values.rebate(instrument, fill.price, fill.qty) if maker else 0
        self.provisional[fill.fill_id] = Provisional(instrument.id, fill.leg, bought, fill.qty, flow, rebate)

    def settle(self, fill_id: str) -> Provisional | None:
        """The fill is final; None if it was finished before."""
        fill = self.provisional.pop(fill_id, None)
        if fill is None:
            return None
        if fill.bought:
            lot = self.lot(fill.instrument, fill.leg)
            lot.pending -= fill.qty
            lot.settled += fill.qty
        else:
            self.incoming -= fill.cash
        if fill.rebate:
            self.rebates[fill.instrument] = self.rebates.get(fill.instrument, 0) + fill.rebate
        return fill

    def fail(self, fill_id: str) -> Provisional | None:
        """The fill never was: shares and cash, fee included, go back; None if it was finished before."""
        fill = self.provisional.pop(fill_id, None)
        if fill is None:
            return None
        lot = self.lot(fill.instrument, fill.leg)
        if fill.bought:
            lot.pending -= fill.qty
        else:
            lot.settled += fill.qty
            self.incoming -= fill.cash
        self.cash -= fill.cash
        return fill

    def unfinished(self, instrument: str) -> list[str]:
        """Fill ids of one market that still wait, sorted."""
        return sorted(fill_id for fill_id, fill in self.provisional.items() if fill.instrument == instrument)

    def lock_sets(self, instrument: str, qty: int, reserved: tuple[int, int]) -> bool:
        """Set pairs aside for a merge; False if the settled shares that `reserved` (YES, NO) leaves do not suffice."""
        yes, no = self.lot(instrument, Leg.YES), self.lot(instrument, Leg.NO)
        spare = min(yes.settled - yes.locked - reserved[0], no.settled - no.locked - reserved[1])
        if qty <= 0 or spare < qty:
            return False
        yes.locked += qty
        no.locked += qty
        return True

    def split(self, instrument: Instrument, qty: int) -> bool:
        """Cash becomes sets; False where it does not suffice."""
        cost = values.to_cash_up(instrument, instrument.payout * qty)
        if cost > self.cash:
            return False
        self.cash -= cost
        for leg in (Leg.YES, Leg.NO):
            self.lot(instrument.id, leg).settled += qty
        return True

    def merge(self, instrument: Instrument, qty: int) -> None:
        """Locked pairs become cash."""
        for leg in (Leg.YES, Leg.NO):
            lot = self.lot(instrument.id, leg)
            assert lot.locked >= qty, "a merge was locked before"
            lot.locked -= qty
            lot.settled -= qty
        self.cash += values.to_cash_down(instrument, instrument.payout * qty)

    def redeem(self, instrument: Instrument, price: int) -> list[tuple[Leg, int, int]]:
        """Burn everything of a resolved market; (leg, quantity, cash) of each holding, losers at 0; a linear one signed."""
        if not instrument.is_binary:
            return self._close_perp(instrument, price)
        paid = []
        for leg in (Leg.YES, Leg.NO):
            lot = self.lot(instrument.id, leg)
            qty = lot.settled + lot.pending
            if qty:
                amount = values.to_cash_down(instrument, values.leg_price(instrument, price, leg) * qty)
                paid.append((leg, qty, int(amount)))
                self.cash += amount
        self.lots.pop(instrument.id, None)
        return paid

    def fund(self, instrument: Instrument, price2: int, rate_ppm: int) -> int:
        """Longs pay `rate_ppm` of the notional at `price2` / 2; the signed cash, rounded against us."""
        scaled = -self.perp(instrument.id).net * price2 * rate_ppm
        amount = values.to_cash_down(instrument, scaled) // (2 * values.PPM)
        self.cash += amount
        return amount

    def totals(self) -> dict[tuple[str, Leg], int]:
        """Everything held, provisional included; a linear position is signed."""
        held = {
            (instrument, Leg(leg)): lot.settled + lot.pending
            for instrument, legs in sorted(self.lots.items())
            for leg, lot in sorted(legs.items(), reverse=True)
        }
        held |= {(instrument, Leg.NONE): perp.net for instrument, perp in sorted(self.perps.items())}
        return {key: qty for key, qty in held.items() if qty}

    def _trade_perp(self, instrument: Instrument, fill: OrderFilled) -> None:
        self.cash += _perp_trade(instrument, self.perp(instrument.id), int(fill.side) * fill.qty, fill.price) - fill.fee

    def _close_perp(self, instrument: Instrument, price: int) -> list[tuple[Leg, int, int]]:
        perp = self.perp(instrument.id)
        qty = perp.net
        if qty == 0:
            return []
        amount = _perp_trade(instrument, perp, -qty, price)
        self.cash += amount
        return [(Leg.NONE, qty, amount)]


def _perp_trade(instrument: Instrument, perp: Perp, signed: int, price: int) -> int:
    """Average-cost accounting through zero, the released cost rounded down; the realised cash, its remainder carried."""
    closing = min(abs(signed), abs(perp.net)) if signed * perp.net < 0 else 0
    realised = perp.remainder
    if closing:
        removed = perp.basis * closing // abs(perp.net)
        sign = 1 if perp.net > 0 else -1
        realised += sign * closing * price - removed
        perp.basis -= removed
        perp.net -= sign * closing
        signed += sign * closing
    perp.net += signed
    perp.basis += signed * price
    cash = int(values.to_cash_down(instrument, realised))
    exponent = instrument.price_decimals + instrument.qty_decimals - 6
    perp.remainder = realised - cash * 10**exponent if exponent > 0 else 0
    return cash
