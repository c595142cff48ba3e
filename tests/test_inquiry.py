"""`why ORDER`, `why FILL`: what is told is what the journal holds, whoever writes it and however much of it is left."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llm_maker import app, cli, inquiry, traces
from llm_maker.app import STRATEGIES
from llm_maker.config import load
from llm_maker.console.inquiry_lines import inquiry_lines
from llm_maker.console.view import why
from llm_maker.core.commands import PlaceOrder
from llm_maker.core.engine import Engine
from llm_maker.core.events import FillSettled, OrderFilled
from llm_maker.core.values import Side, leg_price, leg_side
from llm_maker.inquiry import NotFound, inquire, plain
from llm_maker.keys import Secrets
from llm_maker.runtime.journal import files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.replay import engine_from

SEED = 23
BUSY = {"seed": SEED, "paper.markets": 3, "paper.activity": 150.0, "strategy.decision_interval": 15.0, "llm.min_gap_seconds": 5.0}


def lived(home: Path, until: float, **settings: Any) -> Path:
    config = load(None, {}, {**BUSY, **{key.replace("__", "."): value for key, value in settings.items()}})
    daemon = app.Daemon(config, Secrets({}), home, app.Options(speed=0.0, until=until), lambda line: None)
    try:
        assert asyncio.run(daemon.run()), "a clean stop"
    finally:
        daemon.close()
    return home


def journal_of(home: Path, account: str = "main") -> list[Path]:
    return files(next((home / "logs" / "journal").iterdir()), account)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    print("seed", SEED)
    return lived(tmp_path_factory.mktemp("told"), 90.0, logging__journal_max_mb=0.08)


class Truth:
    """What one order was decided on, found by a plain pass over its journal."""

    def __init__(self, home: Path, account: str) -> None:
        self.placed: dict[str, dict[str, Any]] = {}
        self.fills: list[tuple[str, OrderFilled]] = []
        self.settled: set[str] = set()
        engine: Engine | None = None
        for path in journal_of(home, account):
            reader = read_journal(path)
            engine = engine or engine_from(reader.header, STRATEGIES)
            for entry in reader:
                mine = [c for c in entry.commands if isinstance(c, PlaceOrder)]
                markets = engine.state.markets
                before = {c.order_id: _top(markets[c.instrument]) for c in mine}
                made = engine.on_event(entry.ts, entry.event)
                assert tuple(made) == entry.commands
                for command in mine:
                    market = markets[command.instrument]
                    self.placed[command.order_id] = {
                        "command": command,
                        "entry": entry,
                        "file": path,
                        "before": before[command.order_id],
                        "at": _top(market),
                        "gates": why(engine.state, market)["gates"],
                        "terms": dict(market.own.terms),
                        "opinion": market.opinion.decision_id if market.opinion else "",
                        "market": market.instrument,
                    }
                if isinstance(entry.event, FillSettled):
                    self.settled.add(entry.event.fill_id)
                if isinstance(entry.event, OrderFilled):
                    self.fills.append((entry.event.order_id, entry.event))


def _top(market: Any) -> dict[str, list[tuple[float, float]]]:
    unit = market.instrument
    return {
        name: [(unit.usd_price(p), unit.usd_qty(q)) for p, q in market.book.top(side, 5)]
        for name, side in (("bids", Side.BUY), ("asks", Side.SELL))
    }


@pytest.fixture(scope="module")
def truth(home: Path) -> Truth:
    return Truth(home, "main")


def chosen(truth: Truth) -> list[str]:
    """Some of every kind: the first, the last, of each file, shaped by a decision, filled, an exit."""
    ids = list(truth.placed)
    picked = {ids[0], ids[-1], ids[len(ids) // 2], *(order for order, _ in truth.fills[:2])}
    for of in ("file", "opinion"):
        last = {str(told[of]): order for order, told in truth.placed.items()}
        picked |= set(list(last.values())[:2])
    picked |= {order for order, told in truth.placed.items() if told["command"].decision_id and len(picked) < 10}
    return sorted(picked, key=ids.index)


def test_the_told_moment_is_the_recorded_one(home: Path, truth: Truth):
    ids = chosen(truth)
    files_used = {truth.placed[order]["file"] for order in ids}
    assert len(files_used) > 1 and any(path.suffix == ".zst" for path in files_used), "compressed ones too"
    decided = 0
    for order in ids:
        true, told = truth.placed[order], plain(inquire(home, order))
        command: PlaceOrder = true["command"]
        unit = true["market"]
        shown = {name: told["order"][name] for name in ("order_id", "market_id", "side", "token", "price", "yes_price", "shares")}
        assert shown == {
            "order_id": order,
            "market_id": command.instrument,
            "side": leg_side(command.side, command.leg).name.lower(),
            "token": command.leg.value,
            "price": unit.usd_price(leg_price(unit, command.price, command.leg)),
            "yes_price": unit.usd_price(command.price),
            "shares": unit.usd_qty(command.qty),
        }
        assert (told["order"]["reason"], told["order"]["decision_id"]) == (command.reason, command.decision_id)
        assert (told["seq"], told["event"]["type"]) == (true["entry"].seq, type(true["entry"].event).__name__)
        for picture, book in (("before", "book_before"), ("at", "book")):
            for side in ("bids", "asks"):
                assert [(level["price"], level["shares"]) for level in told[book][side]] == true[picture][side], (
                    order,
                    picture,
                    side,
                )
        assert told["gates"] == true["gates"] and told["source"] == "journal" and told["cannot"] == []
        assert (told["signal"] or {}).get("decision_id", "") == true["opinion"]
        for name, value in (told["fair"]["terms"] or {}).items():
            assert value == pytest.approx(true["terms"][name] / 10**unit.price_decimals), name
        if told["signal"]:
            decided += 1
            assert told["decision"]["decision_id"] == true["opinion"]
            assert told["signal"]["reasoning"] in json.dumps(told["decision"]["signals"])
        assert told["life"][0]["what"] in ("accepted", "rejected", "filled", "cancel asked")
        assert told["status"] in ("filled", "canceled", "rejected"), "the daemon has ended: nothing rests"
    assert decided > 0


def test_a_fill_is_told_with_what_it_earned(home: Path, truth: Truth):
    assert len(truth.fills) > 1
    for order, event in truth.fills[:4]:
        told = inquire(home, event.fill_id)
        assert (told["kind"], told["of"], told["order"]["order_id"]) == ("fill", event.fill_id, order)
        fill = next(one for one in told["fills"] if one["fill_id"] == event.fill_id)
        unit = truth.placed[order]["market"]
        assert fill["shares"] == unit.usd_qty(event.qty) and fill["yes_price"] == unit.usd_price(event.price)
        assert fill["status"] == ("settled" if event.fill_id in truth.settled else "provisional") and fill["mid"] is not None
        assert [mark["after_s"] for mark in fill["markouts"]] == sorted(m["after_s"] for m in fill["markouts"])
        for mark in fill["markouts"]:
            gain = int(event.side) * fill["shares"] * (mark["mid"] - fill["yes_price"]) - fill["fee_usd"]
            assert mark["earned_usd"] == pytest.approx(gain, abs=1e-6)
        assert fill["earned_usd"] is not None and fill["earned_by"]
    assert any(fill["markouts"] for _, event in truth.fills[:4] for fill in inquire(home, event.fill_id)["fills"])


def test_the_order_is_found_by_the_venues_id_and_by_its_account(home: Path, truth: Truth):
    order = next(iter(truth.placed))
    assert inquire(home, f"paper-{order}")["order"]["order_id"] == order
    twin = Truth(home, "twin")
    mine = next(iter(twin.placed))
    told = inquire(home, mine, "twin")
    assert (told["account"], told["signal"], told["real_money"]) == ("twin", None, False)
    assert told["event"]["type"] == type(twin.placed[mine]["entry"].event).__name__
    with pytest.raises(NotFound, match=r"no account 'ghost' in .*; there is main, twin"):
        inquire(home, order, "ghost")


def test_what_nobody_knows_is_one_line_with_the_newest_ids(home: Path, truth: Truth, tmp_path: Path):
    newest = list(truth.placed)[-1]
    for text in ("9-9", "1-999999", "1-1/99", "0xabc123", "no such thing"):
        with pytest.raises(NotFound) as found:
            inquire(home, text)
        assert newest in str(found.value) and "\n" not in str(found.value)
    with pytest.raises(NotFound, match="nothing was ever ordered there"):
        inquire(tmp_path, "1-1")


def copied(home: Path, to: Path) -> Path:
    return Path(shutil.copytree(home, to / "copy"))


def test_a_journal_that_is_being_written_is_read_to_its_last_whole_line(home: Path, truth: Truth, tmp_path: Path):
    order = next(
        order for order, told in truth.placed.items() if told["file"].suffix == ".jsonl" or told["file"] == journal_of(home)[0]
    )
    true, copy = truth.placed[order], copied(home, tmp_path)
    folder = copy / "logs" / "journal" / true["file"].parent.name
    raw = true["file"].read_bytes()
    if true["file"].suffix == ".zst":
        import zstandard

        raw = zstandard.ZstdDecompressor().decompress(raw)
    lines = raw.splitlines(keepends=True)
    first = json.loads(lines[0])["first_seq"]
    at = 1 + true["entry"].seq - first
    for path in folder.glob("journal-main-*"):
        path.unlink()
    name = true["file"].name.removesuffix(".zst")
    (folder / name).write_bytes(b"".join(lines[: at + 1]) + lines[at + 1][:20])
    told = inquire(copy, order)
    assert (told["source"], told["seq"], told["status"]) == ("journal", true["entry"].seq, "pending_new")
    assert told["life"] == [], "the rest is not written yet"

    (folder / name).write_bytes(b"".join(lines[:at]))
    without = inquire(copy, order)
    assert without["source"] == "logs and ledger" and without["event"] is None and without["life"]
    assert any("no journal here holds it" in why for why in without["cannot"])
    assert any("journal alone" in why for why in without["cannot"])
    assert without["order"]["price"] == told["order"]["price"]
    assert "cannot be told" in inquiry_lines(plain(without))


def test_a_damaged_and_a_lost_journal_leave_what_the_logs_and_the_ledger_tell(home: Path, truth: Truth, tmp_path: Path):
    event = truth.fills[0][1]
    copy = copied(home, tmp_path)
    folder = copy / "logs" / "journal" / journal_of(home)[0].parent.name
    for path in folder.glob("journal-main-*"):
        spoilt = bytearray(path.read_bytes())
        spoilt[len(spoilt) // 3] ^= 0x55
        path.write_bytes(bytes(spoilt))
    damaged = inquire(copy, event.fill_id)
    assert any("journal-main-" in why for why in damaged["cannot"])
    for path in folder.glob("journal-main-*"):
        path.unlink()
    lost = inquire(copy, event.fill_id)
    assert lost["source"] == "logs and ledger" and [fill["fill_id"] for fill in lost["fills"]].count(event.fill_id) == 1
    whole = inquire(home, event.fill_id)
    for mine, true in zip(lost["fills"], whole["fills"], strict=True):
        for name in ("side", "token", "price", "shares", "fee_usd", "markouts", "earned_usd"):
            assert mine[name] == true[name], name
    assert inquiry_lines(plain(lost))


def test_another_build_is_named(home: Path, truth: Truth, monkeypatch: pytest.MonkeyPatch):
    order = next(iter(truth.placed))
    monkeypatch.setattr(inquiry, "__version__", "0.0.1")
    told = inquire(home, order)
    assert told["source"] == "journal" and any("this is 0.0.1" in why for why in told["cannot"])

    def stumbles(self: Engine, now: int, event: object) -> list[object]:
        raise KeyError("a field of another build")

    monkeypatch.setattr(Engine, "on_event", stumbles)
    told = inquire(home, order)
    assert told["source"] == "logs and ledger" and any("cannot be lived through" in why for why in told["cannot"])
    assert told["order"]["order_id"] == order and told["life"]


def test_a_rotated_journal_is_told_as_such(home: Path, truth: Truth, tmp_path: Path):
    order = next(iter(truth.placed))
    copy = copied(home, tmp_path)
    folder = copy / "logs" / "journal" / journal_of(home)[0].parent.name
    journal_of(copy)[0].unlink()
    assert any("by rotation" in why for why in inquire(copy, order)["cannot"]), sorted(folder.iterdir())


def test_the_words_fit_and_cannot_move_a_cursor(home: Path, truth: Truth):
    shaped = next(order for order, told in truth.placed.items() if told["opinion"])
    told = plain(inquire(home, shaped))
    told["signal"]["reasoning"] = told["order"]["question"] = told["order"]["reason"] = "\x1b[2J\u202eevil\r\nline"
    told["life"].append({"time": "t", "after_ms": 1.0, "what": "filled", "text": "\x9b31m"})
    lines = inquiry_lines(told)
    assert all(line.isprintable() for line in lines) and max(map(len, lines)) <= 92
    text = "\n".join(lines)
    for word in (
        "PAPER money, SIMULATED market",
        "the event that made us decide",
        "just before",
        "micro-price",
        "gates, at that moment",
    ):
        assert word in text, word


def test_the_verb_tells_and_its_json_is_json(home: Path, truth: Truth):
    order = next(iter(truth.placed))
    runner = CliRunner()
    told = runner.invoke(cli.app, ["why", order, "--home", str(home)])
    assert told.exit_code == 0 and f"order {order} of main on simulated" in told.stdout
    as_json = runner.invoke(cli.app, ["why", truth.fills[0][1].fill_id, "--home", str(home), "--json"])
    assert as_json.exit_code == 0 and json.loads(as_json.stdout)["kind"] == "fill"
    nothing = runner.invoke(cli.app, ["why", "7-7", "--home", str(home)])
    assert nothing.exit_code == 1 and "newest orders" in nothing.stderr
    assert len(nothing.stderr.splitlines()) == 1
    market = runner.invoke(cli.app, ["why", "no such market", "--home", str(home)])
    assert market.exit_code == 1 and "no daemon runs" in market.stderr


def test_a_home_is_not_touched_by_being_asked(home: Path, truth: Truth):
    def prints() -> dict[str, tuple[int, int]]:
        return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in home.rglob("*") if p.is_file() and "-shm" not in p.name}

    before = prints()
    inquire(home, truth.fills[0][1].fill_id)
    assert prints() == before
    assert traces.accounts(home) == ["main", "twin"]
