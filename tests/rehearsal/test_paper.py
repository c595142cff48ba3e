"""Paper money on live data of the fake venue: fills from real prints, answers, every frame, restarts, homes, months of memory."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_maker.console.control import ControlClient
from llm_maker.core.commands import PlaceOrder
from llm_maker.core.events import BookSnapshot, FillFailed, FillSettled, LoopDelayed, OrderFilled, Tick, TradePrinted
from llm_maker.core.step import RECENT_ORDERS
from llm_maker.core.values import NS_PER_S, Side
from llm_maker.runtime.journal import Entry
from llm_maker.runtime.timeline import TICK_NS
from tests.rehearsal.paper import ended, nothing_rests_on_doubt, paper, pass_time, push, quoted, sessions
from tests.rehearsal.stage import Rehearsal

# Paper on live data.


def first(entries: list[Entry], wanted: Any) -> int:
    return next(place for place, entry in enumerate(entries) if wanted(entry))


def fills_come_from_prints(entries: list[Entry]) -> int:
    """Each of our fills follows prints at its price or beyond that had room for it; their number."""
    room: dict[tuple[str, Side], list[tuple[int, int]]] = {}
    fills = 0
    for entry in entries:
        event = entry.event
        if isinstance(event, TradePrinted):
            # Whoever sells hits bids: a bid of ours at that price or above it was in the way.
            room.setdefault((event.instrument, Side(-event.side)), []).append((event.price, event.qty))
        elif isinstance(event, OrderFilled):
            fills += 1
            prints = room.get((event.instrument, event.side), [])
            through = [qty for price, qty in prints if (event.price - price) * event.side >= 0]
            assert sum(through) >= event.qty, f"{event} after {prints[-5:]}"
    return fills


def test_paper_trades_on_live_data_and_answers_for_it(tmp_path):
    with paper(tmp_path, 1, 10.0) as rehearsal:
        rehearsal.start()
        status = rehearsal.until(lambda s: s["counts"]["fills"] >= 4 and quoted(s))
        assert (status["mode"], status["real_money"], status["simulated"]) == ("active", False, False)
        assert status["feed"]["connected"] == status["feed"]["sockets"] == 1 and status["feed"]["frames"] > 0
        assert (status["feed"]["trouble"], status["discovery"]["trouble"], status["heartbeat"]) == ("", "", None)
        text = rehearsal.verb("status").stdout
        assert "PAPER money" in text and "3 markets, 1 of 1 socket connected" in text
        markets = ControlClient.call(tmp_path, "markets")
        assert len(markets["markets"]) == 3 and markets["not_chosen"] == []
        why = ControlClient.call(tmp_path, "why", {"market": "ferry"})
        assert why["ok"] and len(why["gates"]) == 12 and why["question"] == "Will the ferry leave on time?"
        assert "gates, in the order they are judged" in rehearsal.verb("why", "ferry").stdout
        result = ended(rehearsal)
        entries = rehearsal.entries()
    done = rehearsal.verb("replay", str(rehearsal.journal), "--json")
    assert done.returncode == 0, done.stderr
    proved = [file for file in json.loads(done.stdout)["files"] if file["file"].startswith("journal-main-")]
    assert sum(file["entries"] for file in proved) == len(entries)
    assert fills_come_from_prints(entries) == result["fills"] >= 4
    split = result["pnl_split_usd"]
    assert result["pnl_usd"] == pytest.approx(sum(value for name, value in split.items() if name != "pnl"), abs=1e-5) != 0
    report = json.loads(rehearsal.verb("report", "--json").stdout)["accounts"]
    told = [(each["account"], each["venue"], each["mode"], each["fills"]) for each in report]
    assert told == [("main", "polymarket", "paper", result["fills"])]


def test_quotes_stand_within_a_second_of_the_books(tmp_path):
    with paper(tmp_path, 2, 4.0) as rehearsal:
        rehearsal.start()
        rehearsal.until(quoted)
        ended(rehearsal)
        entries = rehearsal.entries()
    book = first(entries, lambda e: isinstance(e.event, BookSnapshot))
    order = first(entries, lambda e: any(isinstance(c, PlaceOrder) for c in e.commands))
    ticks = sum(isinstance(entry.event, Tick) for entry in entries[book:order])
    assert book <= order and ticks <= 4, "a Tick is a quarter of a second of the market"


def test_every_kind_of_frame_is_survived(tmp_path):
    with paper(tmp_path, 3, 10.0) as rehearsal:
        rehearsal.start()
        before = rehearsal.until(quoted)
        venue, market = rehearsal.venue, rehearsal.venue.markets[0]
        cid, yes = market.condition_id, market.yes
        about = f'"market":"{cid}","asset_id":"{yes}","timestamp":"{venue.now_ms()}"'
        others = '"market":"0x99","assets_ids":["1","2"],"timestamp":"1"'
        push(
            rehearsal,
            "PONG",
            "[]",
            "INVALID OPERATION",
            "{}",
            "null",
            f'{{"event_type":"something_new",{about}}}',
            f'{{"event_type":"best_bid_ask",{about},"best_bid":"0.01","best_ask":"0.99","spread":"0.98"}}',
            f'{{"event_type":"market_resolved","id":"9",{others},"winning_asset_id":"1"}}',
            f'{{"event_type":"new_market","id":"9",{others}}}',
            f'{{"event_type":"price_change","market":"{cid}","timestamp":"1","changes":[]}}',
            f'[{{"event_type":"book",{about},"bids":[{{"price":"nought","size":"1"}}],"asks":[]}}]',
            f'{{"event_type":"last_trade_price",{about},"price":"7","size":"1","side":"BUY"}}',
            '{"event_type":"price_cha',
        )
        rehearsal.background.call(venue.house.change_tick, cid, venue.tick_of(yes) / 10, venue.now_ms())
        status = rehearsal.until(lambda s: s["feed"]["malformed"] >= 4 and s["feed"]["unknown"] >= 1 and quoted(s))
        assert status["counts"]["gaps"] > before["counts"]["gaps"], "a frame that was lost is a book that cannot be trusted"
        ended(rehearsal)
        nothing_rests_on_doubt(rehearsal)
        seen = {type(entry.event).__name__ for entry in rehearsal.entries()}
    assert {"BookSnapshot", "BookDelta", "TopReported", "TradePrinted", "InstrumentListed", "FeedLost", "VenueUp"} <= seen


# Restarts.


def one_life(entries: list[Entry]) -> None:
    """Each session begins blind, lives no time twice and none that it slept through; every fill of an earlier one is settled."""
    every = sessions(entries)
    settled = {e.event.fill_id for e in entries if isinstance(e.event, FillSettled | FillFailed)}
    filled = Counter(e.event.fill_id for e in entries if isinstance(e.event, OrderFilled))
    assert max(filled.values(), default=1) == 1, "no fill is told twice"
    assert [e.ts for e in entries] == sorted(e.ts for e in entries)
    for number, session in enumerate(every):
        slept = sum(e.event.delay_ns for e in session if isinstance(e.event, LoopDelayed))
        ticks = sum(isinstance(entry.event, Tick) for entry in session)
        assert ticks <= (session[-1].ts - session[0].ts) // TICK_NS + 1, f"{ticks} Ticks in session {number}, {slept} slept"
        heard = set()
        for entry in session:
            if isinstance(entry.event, BookSnapshot):
                heard.add(entry.event.instrument)
            placed = {command.instrument for command in entry.commands if isinstance(command, PlaceOrder)}
            assert placed <= heard, f"session {number}: an order on a book that nobody has told"
        if number < len(every) - 1:
            assert {e.event.fill_id for e in session if isinstance(e.event, OrderFilled)} <= settled


def positions(status: dict[str, Any]) -> dict[str, float]:
    return {line["market_id"]: line["position"] for line in status["markets"]}


def traded(rehearsal: Rehearsal, fills: int = 1) -> None:
    """So many more fills than at the first look, and quoting again."""
    before = rehearsal.until(lambda s: True)["counts"]["fills"]
    rehearsal.until(lambda s: s["counts"]["fills"] >= before + fills and quoted(s), 600)


def back(rehearsal: Rehearsal) -> dict[str, Any]:
    """Started again, and quoting anew; the first that it said."""
    rehearsal.start()
    status = rehearsal.until(lambda s: True)
    rehearsal.until(lambda s: s["counts"]["placed"] > status["counts"]["placed"] and quoted(s))
    return status


@pytest.mark.prove
def test_it_goes_on_after_every_kind_of_end(tmp_path):
    dice = random.Random(5)
    with paper(tmp_path, 5, 20.0) as rehearsal:
        rehearsal.start()
        traded(rehearsal, 2)
        result, state = ended(rehearsal), rehearsal.state()
        held = {name: market.instrument.usd_qty(market.position.net) for name, market in state.markets.items()}
        status = back(rehearsal)
        assert (positions(status), status["counts"]["fills"]) == (held, result["fills"]) and any(held.values())
        for pause_hours in (0.0, 200.0):
            rehearsal.wait(dice.uniform(1.0, 20.0))
            rehearsal.kill()
            pass_time(rehearsal, pause_hours)
            back(rehearsal)
        rehearsal.wait(30)
        assert ended(rehearsal)["session"] == 4
        one_life(rehearsal.entries())
        nothing_rests_on_doubt(rehearsal)


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [61, 62])
def test_it_goes_on_after_fifty_ends(tmp_path, seed):
    dice = random.Random(seed)
    print(f"seed {seed}")
    with paper(tmp_path, seed, 10.0) as rehearsal:
        for _ in range(50):
            rehearsal.start()
            if dice.random() < 0.2:
                time.sleep(dice.uniform(0.1, 0.6))  # while it starts
            else:
                rehearsal.until(lambda s: True)
                rehearsal.wait(dice.uniform(1.0, 40.0))
            if dice.random() < 0.2:
                stand_still(rehearsal, dice.uniform(1.0, 100.0))
            rehearsal.kill()
            pass_time(rehearsal, dice.choice((0, 0, 0, 0.1, 30)))
        back(rehearsal)
        rehearsal.wait(30)
        ended(rehearsal)
        one_life(rehearsal.entries())
        nothing_rests_on_doubt(rehearsal)


def stand_still(rehearsal: Rehearsal, venue_seconds: float) -> None:
    assert rehearsal.process is not None
    rehearsal.process.send_signal(signal.SIGSTOP)
    rehearsal.wait(venue_seconds)
    rehearsal.process.send_signal(signal.SIGCONT)


@pytest.mark.prove
def test_a_daemon_that_stood_still_goes_on_from_now(tmp_path):
    with paper(tmp_path, 6, 20.0) as rehearsal:
        rehearsal.start()
        before = rehearsal.until(quoted)
        stand_still(rehearsal, 90)
        rehearsal.until(lambda s: s["counts"]["placed"] > before["counts"]["placed"] and quoted(s))
        ended(rehearsal)
        entries = rehearsal.entries()
        assert any(isinstance(e.event, LoopDelayed) and e.event.delay_ns > 60 * NS_PER_S for e in entries)
        one_life(entries)
        nothing_rests_on_doubt(rehearsal)


# Homes.


def refused(rehearsal: Rehearsal, *args: str) -> None:
    before = {path: path.read_bytes() for path in (rehearsal.home / "logs" / "journal").rglob("*.jsonl*")}
    done = rehearsal.verb("run", "--yes", "--speed", str(rehearsal.speed), *args)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: ") and last.endswith("give another --home"), done.stderr
    assert {path: path.read_bytes() for path in (rehearsal.home / "logs" / "journal").rglob("*.jsonl*")} == before


@pytest.mark.prove
def test_a_home_of_paper_is_no_home_of_real_money_nor_of_another_venue(tmp_path):
    with paper(tmp_path, 7, 10.0) as rehearsal:
        rehearsal.start()
        rehearsal.until(quoted)
        ended(rehearsal)
        refused(rehearsal, "--venue", "simulated")
        rehearsal.mode = "live"  # now with a key
        refused(rehearsal, "--mode", "live")
        rehearsal.mode = "paper"
        back(rehearsal)
        ended(rehearsal)


def test_a_home_of_real_money_is_no_home_of_paper(tmp_path):
    with Rehearsal(tmp_path, 8, 10.0) as rehearsal:
        rehearsal.start()
        assert rehearsal.until(lambda s: quoted(s) and s["heartbeat"] == "beating")["real_money"] is True
        assert "REAL MONEY" in rehearsal.verb("status").stdout
        assert rehearsal.stop()["clean_stop"]
        refused(rehearsal, "--mode", "paper")


# Time and memory.


def resident_mb(rehearsal: Rehearsal) -> float:
    assert rehearsal.process is not None
    told = Path(f"/proc/{rehearsal.process.pid}/status").read_text()
    return int(next(line for line in told.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


@pytest.mark.prove
def test_the_journal_begins_new_files_while_it_runs_and_keeps_to_its_share_of_the_disk(tmp_path):
    with paper(tmp_path, 71, 20.0, logging={"journal_max_mb": 0.1, "journal_total_mb": 0.2}) as rehearsal:
        rehearsal.start()
        rehearsal.until(lambda s: s["counts"]["fills"] >= 8 and len(list(rehearsal.journal.iterdir())) > 1, 600)
        rehearsal.wait(40)
        ended(rehearsal)
        finished = list(rehearsal.journal.glob("*.zst"))
        assert finished and sum(path.stat().st_size for path in finished) <= 300_000


@pytest.mark.prove
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_ten_minutes_grow_nothing_without_bound(tmp_path):
    logging = {"journal_max_mb": 0.5, "journal_total_mb": 1.0}
    with paper(tmp_path, 72, 20.0, markets=10, logging=logging, polymarket={"reconnect_minutes": 1}) as rehearsal:
        rehearsal.start()
        rehearsal.wait(240)
        early = resident_mb(rehearsal)
        rehearsal.wait(360)
        late = resident_mb(rehearsal)
        status = rehearsal.until(quoted)
        assert status["counts"]["placed"] > 500 and status["feed"]["exchanges"] >= 5
        ended(rehearsal)
        kept = sum(path.stat().st_size for path in rehearsal.journal.glob("*.zst"))
        state = rehearsal.state()
    print(f"{early:.1f} MB after four minutes, {late:.1f} MB after ten; {status['counts']['placed']} orders")
    assert late - early < 15
    assert kept <= 1_500_000
    assert len(state.orders) <= RECENT_ORDERS + 2 * len(state.markets) and len(state.recent) <= RECENT_ORDERS
    assert all(len(market.position.seen) <= 1_000 for market in state.markets.values())
