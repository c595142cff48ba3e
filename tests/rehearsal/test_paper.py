"""The whole daemon without a key: paper money on live data of the fake venue, its tapes, its restarts, its faults and its absence."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_maker.console.control import ControlClient
from llm_maker.core.commands import PlaceOrder
from llm_maker.core.events import BookSnapshot, OrderFilled, Tick, TradePrinted
from llm_maker.core.values import Side
from llm_maker.runtime.journal import Entry
from tests.rehearsal.stage import Rehearsal


def paper(home: Path, seed: int, speed: float = 5.0, **settings: Any) -> Rehearsal:
    return Rehearsal(home, seed, speed, mode="paper", **settings)


def quoted(status: dict[str, Any]) -> bool:
    """Something of ours rests in every market."""
    return bool(status["markets"]) and all(line["our_bid"] or line["our_ask"] for line in status["markets"])


def proved(rehearsal: Rehearsal) -> None:
    """`replay` finds every command in the journal as recorded."""
    done = rehearsal.verb("replay", str(rehearsal.journal), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["proved"] is True


def ended(rehearsal: Rehearsal) -> dict[str, Any]:
    """Stopped in order, with nothing resting; the journal is proved."""
    result = rehearsal.stop()
    assert (result["exit_code"], result["clean_stop"], result["resting"]) == (0, True, []), rehearsal.errors()[-3000:]
    proved(rehearsal)
    return result


def push(rehearsal: Rehearsal, *frames: str) -> None:
    """Texts from the venue to everybody who listens to market data."""

    def send() -> None:
        for connection in rehearsal.venue.sockets.connections:
            for frame in frames:
                connection.put(frame)

    rehearsal.background.call(send)


# 1. Paper on live data.


def first(entries: list[Entry], wanted: Any) -> int:
    return next(place for place, entry in enumerate(entries) if wanted(entry))


def fills_come_from_prints(entries: list[Entry]) -> int:
    """Each of our fills follows a print at its price or beyond that had room for it; their number."""
    room: dict[tuple[str, Side], list[tuple[int, int]]] = {}
    fills = 0
    for entry in entries:
        event = entry.event
        if isinstance(event, TradePrinted):
            # Whoever sells hits bids: our bid at that price or above it was in the way.
            room.setdefault((event.instrument, Side(-event.side)), []).append((event.price, event.qty))
        elif isinstance(event, OrderFilled):
            fills += 1
            prints = room.get((event.instrument, event.side), [])
            through = [qty for price, qty in prints if (event.price - price) * event.side >= 0]
            assert sum(through) >= event.qty, f"{event} after {prints[-5:]}"
    return fills


def test_paper_trades_on_live_data_and_answers_for_it(tmp_path):
    with paper(tmp_path, 1) as rehearsal:
        rehearsal.start()
        status = rehearsal.until(lambda s: s["counts"]["fills"] >= 4 and quoted(s))
        assert (status["mode"], status["real_money"], status["simulated"]) == ("active", False, False)
        assert status["feed"]["connected"] == status["feed"]["sockets"] == 1 and status["feed"]["frames"] > 0
        assert (status["feed"]["trouble"], status["discovery"]["trouble"], status["heartbeat"]) == ("", "", None)
        text = rehearsal.verb("status").stdout
        assert "PAPER money" in text and "feed" in text and "3 markets, 1 of 1 socket connected" in text
        markets = ControlClient.call(tmp_path, "markets")
        assert len(markets["markets"]) == 3 and markets["not_chosen"] == []
        why = ControlClient.call(tmp_path, "why", {"market": "ferry"})
        assert all(gate["open"] for gate in why["gates"]) and why["sides"]["buy"]["wanted"]
        assert "every gate is open" in rehearsal.verb("why", "ferry").stdout
        result = ended(rehearsal)
        entries = rehearsal.entries()
    assert fills_come_from_prints(entries) == result["fills"] >= 4
    split = result["pnl_split_usd"]
    assert result["pnl_usd"] == pytest.approx(sum(value for name, value in split.items() if name != "pnl"), abs=1e-5) != 0
    report = json.loads(rehearsal.verb("report", "--json").stdout)["accounts"]
    assert [(each["venue"], each["mode"], each["fills"]) for each in report] == [("polymarket", "paper", result["fills"])]


def test_quotes_stand_within_a_second_of_the_books(tmp_path):
    with paper(tmp_path, 2, 1.0) as rehearsal:
        rehearsal.start()
        rehearsal.until(quoted)
        ended(rehearsal)
        entries = rehearsal.entries()
    book = first(entries, lambda e: isinstance(e.event, BookSnapshot))
    order = first(entries, lambda e: any(isinstance(c, PlaceOrder) for c in e.commands))
    ticks = sum(isinstance(entry.event, Tick) for entry in entries[book:order])
    assert book <= order and ticks <= 4, "a Tick is a quarter of a second of the market"


def test_every_kind_of_frame_is_survived(tmp_path):
    with paper(tmp_path, 3) as rehearsal:
        rehearsal.start()
        before = rehearsal.until(quoted)
        market = rehearsal.venue.markets[0]
        cid, yes = market.condition_id, market.yes
        about = f'"market":"{cid}","asset_id":"{yes}","timestamp":"{rehearsal.venue.now_ms()}"'
        push(
            rehearsal,
            "PONG",
            "[]",
            "INVALID OPERATION",
            "{}",
            "null",
            f'{{"event_type":"something_new",{about}}}',
            f'{{"event_type":"best_bid_ask",{about},"best_bid":"0.01","best_ask":"0.99","spread":"0.98"}}',
            '{"event_type":"market_resolved","id":"9","market":"0x99","assets_ids":["1","2"],"winning_asset_id":"1","timestamp":"1"}',
            '{"event_type":"new_market","id":"9","market":"0x99","assets_ids":["1","2"],"timestamp":"1"}',
            f'{{"event_type":"price_change","market":"{cid}","timestamp":"1","changes":[]}}',
            f'[{{"event_type":"book",{about},"bids":[{{"price":"nought","size":"1"}}],"asks":[]}}]',
            f'{{"event_type":"last_trade_price",{about},"price":"7","size":"1","side":"BUY"}}',
            '{"event_type":"price_cha',
        )
        rehearsal.background.call(
            rehearsal.venue.house.change_tick, cid, rehearsal.venue.tick_of(yes) / 10, rehearsal.venue.now_ms()
        )
        status = rehearsal.until(lambda s: s["feed"]["malformed"] >= 3 and s["feed"]["unknown"] >= 1 and quoted(s))
        assert status["counts"]["gaps"] > before["counts"]["gaps"], "a frame that was lost is a book that cannot be trusted"
        ended(rehearsal)
        seen = Counter(type(entry.event).__name__ for entry in rehearsal.entries())
    assert {"BookSnapshot", "BookDelta", "TradePrinted", "InstrumentListed", "FeedLost", "BarsLoaded"} <= set(seen) | {"BarsLoaded"}
