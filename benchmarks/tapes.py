"""A tape to measure on: the recorded one where it lies beside the checkout, else one made here from the simulated market.

The made tape tells simulated events in the venue's own words, both legs of every change, so that the parser has its real work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from benchmarks.rows import SHARED, Size
from llm_maker.core.events import BookDelta, BookSnapshot, Event, InstrumentListed, Levels, TopReported, TradePrinted
from llm_maker.core.values import NS_PER_MS, Instrument, Side
from llm_maker.runtime.tape import TapeWriter
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.venues.polymarket.listing.tape_header import header_from_instruments
from llm_maker.venues.polymarket.numbers import PRICE_DECIMALS, QTY_DECIMALS, text_of

MARKETS = 6
"""As many as the recorded tape has."""


def find(size: Size, folder: Path) -> tuple[Path, str]:
    """(tape, what it is): the recorded one, or a simulated one made in `folder`."""
    recorded = sorted((SHARED / "tapes").glob("*.jsonl.zst")) if size.recorded else []
    if recorded:
        return recorded[0], "recorded tape"
    return make(folder / "simulated.jsonl.zst", size.tape_frames), "SIMULATED tape: no recorded one was found"


def make(path: Path, frames: int) -> Path:
    """Write a tape of about this many frames of simulated markets."""
    market = SimulatedMarket(MarketParams(seed=7, markets=MARKETS, activity=60.0, step_ns=20 * NS_PER_MS))
    instruments: dict[str, Instrument] = {}
    writer: TapeWriter | None = None
    while writer is None or writer.frames < frames:
        at = market.next_ns()
        assert at is not None, "simulated markets follow one another"
        for event in market.advance(at):
            if isinstance(event, InstrumentListed):
                instruments[event.instrument.id] = _told(event.instrument, len(instruments))
            elif writer is None and len(instruments) == MARKETS and isinstance(event, BookSnapshot):
                writer = TapeWriter(path, header_from_instruments(instruments.values(), "simulated"))
            if writer is not None:
                for frame in _frames(instruments, event, at):
                    writer.write(at, msgspec.json.encode(frame))
    writer.close()
    return path


def _told(instrument: Instrument, number: int) -> Instrument:
    """The same market with the two tokens that the venue's words need."""
    tokens = (str(10**76 + 2 * number), str(10**76 + 2 * number + 1))
    return msgspec.structs.replace(instrument, venue="polymarket", token_ids=tokens, end_ns=None, start_ns=None)


def _frames(instruments: dict[str, Instrument], event: Event, at: int) -> list[dict[str, Any]]:
    instrument = instruments.get(getattr(event, "instrument", "")) if not isinstance(event, InstrumentListed) else None
    if instrument is None:
        return []
    common = {"market": instrument.id, "timestamp": str(at // NS_PER_MS)}
    match event:
        case BookSnapshot():
            return [{"event_type": "book", **common, **book} for book in _books(instrument, event)]
        case BookDelta():
            return [{"event_type": "price_change", **common, "price_changes": _changes(instrument, event)}]
        case TradePrinted():
            side = "BUY" if event.side is Side.BUY else "SELL"
            trade = {"asset_id": instrument.token_ids[0], "price": _price(event.price), "size": _size(event.qty), "side": side}
            return [{"event_type": "last_trade_price", **common, **trade}]
        case TopReported():
            best = {"best_bid": _price(event.best_bid or 0), "best_ask": _price(event.best_ask or 0)}
            return [{"event_type": "best_bid_ask", **common, "asset_id": instrument.token_ids[0], **best}]
        case _:
            return []


def _books(instrument: Instrument, event: BookSnapshot) -> list[dict[str, Any]]:
    yes, no = instrument.token_ids
    return [
        {"asset_id": yes, "bids": _ladder(event.bids, 0), "asks": _ladder(event.asks, 0)},
        {"asset_id": no, "bids": _ladder(event.asks, instrument.payout), "asks": _ladder(event.bids, instrument.payout)},
    ]


def _ladder(levels: Levels, payout: int) -> list[dict[str, str]]:
    return [{"price": _price(abs(payout - price)), "size": _size(qty)} for price, qty in levels]


def _changes(instrument: Instrument, event: BookDelta) -> list[dict[str, str]]:
    yes, no = instrument.token_ids
    bid, ask, payout = event.best_bid or 0, event.best_ask or 0, instrument.payout
    changes: list[dict[str, str]] = []
    for side, other, levels in (("BUY", "SELL", event.bids), ("SELL", "BUY", event.asks)):
        for price, qty in levels:
            shared = {"size": _size(qty), "hash": ""}
            best = {"best_bid": _price(bid), "best_ask": _price(ask)}
            mirror = {"best_bid": _price(payout - ask), "best_ask": _price(payout - bid)}
            changes.append({"asset_id": yes, "price": _price(price), "side": side, **shared, **best})
            changes.append({"asset_id": no, "price": _price(payout - price), "side": other, **shared, **mirror})
    return changes


def _price(price: int) -> str:
    return text_of(price, PRICE_DECIMALS)


def _size(qty: int) -> str:
    return text_of(qty, QTY_DECIMALS)
