"""A market's two tokens as tables of translation: any text either of them tells, in terms of the one YES book.

It knows the mirror (NO at price q is YES at 1 - q, side flipped) and remembers texts it has seen. It refuses to know messages, and
what a book holds.
"""

from __future__ import annotations

from llm_maker.core.events import BookSnapshot
from llm_maker.core.values import Instrument
from llm_maker.venues.polymarket.numbers import WireError, units

_MAX_CACHED = 1 << 15
Best = tuple[int | None, int | None]


class Units(dict[str, int]):
    """Text -> units with a bounded memory, so that a text seen before costs one lookup."""

    def __init__(self, field: str, decimals: int) -> None:
        self.field, self.decimals = field, decimals

    def __missing__(self, text: str) -> int:
        return self.keep(text, units(text, self.decimals, self.field))

    def keep(self, text: str, value: int) -> int:
        if len(self) >= _MAX_CACHED:
            self.clear()
        self[text] = value
        return value


class _Prices(Units):
    """A token's price text -> the price of YES."""

    def __init__(self, instrument: Instrument, *, no: bool) -> None:
        super().__init__("price", instrument.price_decimals)
        self.payout, self.no = instrument.payout, no

    def __missing__(self, text: str) -> int:
        price = units(text, self.decimals, self.field)
        if not 0 < price < self.payout:
            raise WireError(self.field, "out of range", text)
        return self.keep(text, self.payout - price if self.no else price)


class _Bests(dict[str | None, int | None]):
    """A token's best_bid or best_ask text -> YES's best price on the side it tells; None where not told.

    Not told: missing or empty text. "0" or "1" on either side: that side is empty (`polymarket.md` 3.3).
    """

    def __init__(self, field: str, instrument: Instrument, *, no: bool) -> None:
        self.field, self.decimals, self.payout, self.no = field, instrument.price_decimals, instrument.payout, no
        self.empty = 0 if field == "best_bid" else instrument.payout

    def __missing__(self, text: str | None) -> int | None:
        best = self._told(text) if text else None
        if best is not None and self.no:
            best = self.payout - best
        if len(self) >= _MAX_CACHED:
            self.clear()
        self[text] = best
        return best

    def _told(self, text: str) -> int:
        price = units(text, self.decimals, self.field)
        if price > self.payout:
            raise WireError(self.field, "out of range", text)
        return price if 0 < price < self.payout else self.empty


class Token:
    """One outcome's token as a table of translations into the YES book."""

    __slots__ = ("best_asks", "best_bids", "buys", "id", "market", "no", "prices", "sizes")

    def __init__(self, market: Market, token_id: str, *, no: bool, sizes: Units) -> None:
        self.id, self.market, self.no, self.sizes = token_id, market, no, sizes
        self.buys = "SELL" if no else "BUY"
        """The side, in this token's words, of a YES bid."""
        self.prices = _Prices(market.instrument, no=no)
        self.best_bids = _Bests("best_bid", market.instrument, no=no)
        self.best_asks = _Bests("best_ask", market.instrument, no=no)

    def bests(self, best_bid: str | None, best_ask: str | None) -> Best:
        """This token's best prices, told as those of YES."""
        bid, ask = self.best_bids[best_bid], self.best_asks[best_ask]
        return (ask, bid) if self.no else (bid, ask)


class Market:
    """One binary market: its instrument as last told, its two tokens, and the book that waits for its mirror."""

    __slots__ = ("instrument", "no", "unpaired", "yes")

    def __init__(self, instrument: Instrument, sizes: Units) -> None:
        self.instrument = instrument
        self.yes = Token(self, instrument.token_ids[0], no=False, sizes=sizes)
        self.no = Token(self, instrument.token_ids[1], no=True, sizes=sizes)
        self.unpaired: tuple[Token, BookSnapshot] | None = None
