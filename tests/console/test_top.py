"""`llm-maker top`: driven by keys against a real desk behind a real control socket, a real daemon, and a terminal in tmux."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from textual import events
from textual.geometry import Region
from textual.pilot import Pilot

from llm_maker.console import board, top_help, top_table, top_text
from llm_maker.console.control import ControlClient, ControlServer, NotRunning, Unanswered
from llm_maker.console.desk import Desk, Refused
from llm_maker.console.top import Top
from llm_maker.console.top_widgets import PALE, Lines
from llm_maker.core.events import Event, OperatorActed, Verb
from tests.test_console import World

ROOT = Path(__file__).parent.parent.parent
NOW = 1_780_000_000 * 10**9
SMALL = (80, 24)


def row(i: int, **more: Any) -> dict[str, Any]:
    """A market that is quoted and flat."""
    return {
        "market_id": f"0xm{i}",
        "question": f"Will river {i} flood?",
        "mode": "active",
        "why": "",
        "bid": 0.42,
        "ask": 0.45,
        "our_bid": 0.42,
        "our_ask": 0.44,
        "our_bid_shares": 20.0,
        "our_ask_shares": 20.0,
        "bid_ahead": 166.0,
        "ask_ahead": 0.0,
        "book_age_s": 1.5,
        "fair": 0.4312,
        "position": 0.0,
        "avg_price": None,
        "pnl_usd": 0.0,
        "worst_usd": 12.5,
        "signal": "buy_yes",
        "confidence": 0.72,
        "signal_age_s": 45.0,
        "weight": 0.15,
        "exit": "",
        "reward_usd_per_day": 17.0,
        "reward_share": 0.07,
    } | more


STILL = {"our_bid": 0.0, "our_ask": 0.0, "bid_ahead": None, "ask_ahead": None}


def entry(n: int, text: str, kind: str = "notice", **more: Any) -> dict[str, Any]:
    return {
        "n": n, "ts_ns": NOW, "kind": kind, "level": "info", "code": "", "market_id": "", "text": text, "cure": "", "facts": {},
    } | more  # fmt: skip


def picture(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A board of shapes.py, made by hand."""
    money = dict.fromkeys(
        ("pnl", "today", "drawdown", "exposure", "model_cost", "earned_spread", "fees", "rebates", "rewards"), 0.0
    )
    money |= {"equity": 1_002.31, "exit": 1_000.07, "cash": 900.0, "bankroll": 1_000.0, "daily_loss_limit": 20.0}
    money |= {"drawdown_limit": 60.0, "model_cost_today": None, "model_budget": 5.0, "today": 2.31, "pnl": -3.5}
    return {
        "ok": True, "version": "0", "account": "main", "real_money": False, "simulated": True, "venue": "simulated",
        "provider": "none",
        "mode": "active", "why": "", "now_ns": NOW, "started_ns": NOW - 10**9, "session": 1, "money": money,
        "slow_loop": {"mode": "LLM", "cause": "", "failures_in_a_row": 0, "waiting_for": ""},
        "counts": {"placed": 3, "canceled": 1, "fills": 2, "decisions": 1, "signals": 4},
        "venues": {"simulated": {"up": True, "regime": "open", "heard_s": 0.1, "lag_ms": 0.0}},
        "orders": 6, "unknown_orders": [], "foreign_orders": 0, "intents": [], "refused": {"book": 2}, "twin": None,
        "health": {"rss_mb": 57.0, "storage_failed": ""}, "rows": list(rows), "alarms": [], "tail": [], "last": 0,
    } | more  # fmt: skip


def detail_of(line: dict[str, Any], **more: Any) -> dict[str, Any]:
    gates = [
        {"gate": "mode", "mode": "active", "open": True, "numbers": "active"},
        {"gate": "book", "mode": "halted", "open": False, "numbers": "crossed for 5.0s, limit 2.0s"},
    ]
    why = line | {"gates": gates, "first_closed": "book: crossed for 5.0s", "nearest_change": "a fresh, sound book must arrive"}
    return {
        "ok": True, "row": line, "why": why, "reasoning": "the snow is deep", "model": "a model", "decision_id": "D-1", "past": [],
        "bids": [{"price": 0.42, "shares": 166.0, "ours": 20.0}, {"price": 0.40, "shares": 50.0, "ours": 0.0}],
        "asks": [{"price": 0.44, "shares": 0.0, "ours": 20.0}, {"price": 0.45, "shares": 200.0, "ours": 0.0}],
        "tail": [entry(1, "bought 4 at 0.42", "fill", market_id=line["market_id"])],
    } | more  # fmt: skip


class House:
    """A desk behind a socket, with a board that the test changes and the events that it emitted."""

    def __init__(self, home: Path, *rows: dict[str, Any], **more: Any) -> None:
        self.home = home
        self.board: dict[str, Any] = picture(*rows, **more)
        self.details: dict[str, Any] = {}
        self.emitted: list[Event] = []
        self.refusal = ""
        self.finds = True
        self._task: asyncio.Task[None] | None = None

    def _ask(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        if self.refusal:
            raise Refused(self.refusal)
        if verb == "board":
            return self.board | {"tail": [e for e in self.board["tail"] if e["n"] > args["since"]]}
        for line in self.board["rows"]:
            if line["market_id"] == args["market"]:
                return detail_of(line) | self.details
        raise Refused(f"no market {args['market']!r} here")

    def _find(self, text: str) -> str | None:
        return text if self.finds and text in [line["market_id"] for line in self.board["rows"]] else None

    def open(self) -> None:
        server = ControlServer(self.home, Desk(self._ask, self._find))
        server.open()
        self._task = asyncio.create_task(server.run(self.emitted.append))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None


@contextlib.asynccontextmanager
async def watched(house: House, size: tuple[int, int] = SMALL, *, opened: bool = True) -> AsyncIterator[tuple[Top, Pilot[None]]]:
    """A screen on that house, with its first picture."""
    if opened:
        house.open()
    app = Top(house.home, 0.1)
    try:
        async with app.run_test(size=size) as pilot:
            if opened:
                await until(app, lambda: "ALL" in text(app))
            yield app, pilot
    finally:
        await house.close()


async def until(app: Top, so: Callable[[], object], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < limit, text(app)
        await asyncio.sleep(0.04)


async def press(app: Top, *keys: str) -> None:
    """As a terminal sends them. (The pilot's own way waits until the process is idle, which one that looks on never is.)"""
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else None))
        await asyncio.sleep(0.02)


def strips(app: Any) -> list[Any]:
    return app.screen._compositor.render_strips()


def text(app: Any) -> str:
    """What is on the screen."""
    return "\n".join("".join(segment.text for segment in strip) for strip in strips(app))


def acted(house: House) -> list[tuple[str, str, bool]]:
    events = [event for event in house.emitted if isinstance(event, OperatorActed)]
    assert all(event.who == "top" for event in events) and len(events) == len(house.emitted)
    return [(event.verb.value, event.instrument, event.take) for event in events]


def four() -> list[dict[str, Any]]:
    """One of each kind, in the daemon's order: still, quoted, halted, held."""
    return [
        row(1, **STILL, mode="reduce_only", why="operator: only reduce"),
        row(2),
        row(3, **STILL, mode="halted", why="book: crossed for 5.0s"),
        row(4, position=-34.77, avg_price=0.5046, pnl_usd=1.25),
    ]


# What is seen.


async def test_a_small_terminal_shows_what_matters_and_every_line_fits(tmp_path):
    house = House(tmp_path, *four(), tail=[entry(1, "sold 4 at 0.44, mid 0.43", "fill", market_id="0xm4")], last=1)
    async with watched(house) as (app, _):
        await until(app, lambda: "sold 4" in text(app))
        seen = text(app).split("\n")
    assert len(seen) == 24 and all(cell_len(line) == 80 for line in seen)
    whole = "\n".join(seen)
    assert re.search(r"main +PAPER +SIMULATED +ACTIVE .*2026-\d\d-\d\d .*UTC.*live", seen[0])
    for words in ("equity $1,002.31", "today +$2.31 limit -$20", "P&L -$3.50", "drawdown $0.00 of $60", "exposure $0.00 of $1,000",
                  "LLM $0.00 of $5", "health well", "acts on ALL 4 markets"):  # fmt: skip
        assert words in whole, words
    names = [re.search(r"river (\d)", line).group(1) for line in seen if re.search(r"river \d.*(active|REDUCE|HALTED)", line)]
    assert names == ["4", "2", "1", "3"], "held, quoted, the rest in the daemon's order"
    held, quoted, reduced, halted = (line for line in seen if re.search(r"river \d.*(active|REDUCE|HALTED)", line))
    assert "-34.77@0.5046" in held and "+$1.25" in held and "0.42/0.45" in held and "0.42/0.44" in quoted and "YES+ 45s" in quoted
    assert "REDUCE" in reduced and "operator: o" in reduced and "HALTED" in halted and "book: cros" in halted


TITLES = ["bid/ask", "position", "mode", "P&L", "ours", "signal", "old", "fair", "ahead", "weight", "reward", "worst", "sure"]


@pytest.mark.prove
async def test_every_size_shows_its_columns_whole_and_absurd_ones_do_not_end_it(tmp_path):
    async with watched(House(tmp_path, *four(), *(row(i) for i in range(5, 12)))) as (app, pilot):
        await press(app, "down")
        for size, shown in (((40, 10), 2), ((80, 24), 6), ((120, 40), 11), ((160, 48), 13), ((200, 60), 13), ((300, 90), 13)):
            await pilot.resize_terminal(*size)
            await until(app, lambda size=size: len(text(app).split("\n")) == size[1] and "-34.77@0.5046" in text(app))
            await until(app, lambda size=size: size[1] < 30 or ("the snow is deep" in text(app) and "*20" in text(app)))
            seen = text(app).split("\n")
            assert all(cell_len(line) == size[0] for line in seen)
            heading = next(line for line in seen if line.lstrip().startswith("market "))
            assert [title for title in TITLES if f" {title}" in heading] == TITLES[:shown], size
            if size[0] >= 160:
                assert "why not" in heading and "operator: only reduce" in "\n".join(seen)
            if size[1] >= 30:
                assert all(f" {pane} ─" in "\n".join(seen) for pane in ("market", "stream", "alarms", "money"))
        for size in ((1, 1), (8, 3), (20, 5), (80, 24)):
            await pilot.resize_terminal(*size)
            await press(app, "down", "tab", "enter", "escape", "k", "escape")
        await until(app, lambda: "acts on Will river" in text(app))


async def test_the_panes_the_pages_and_the_words(tmp_path):
    alarm = {"code": "x", "level": "error", "text": "an order is unknown", "cure": "llm-maker why river", "market_id": "0xm2",
             "since_ns": NOW - 61 * 10**9, "count": 2, "standing": True}  # fmt: skip
    house = House(tmp_path, *four(), alarms=[alarm])
    async with watched(house) as (app, _):
        await until(app, lambda: "TROUBLE 1" in text(app) and "ERROR: an order is unknown; helps: llm-maker why" in text(app))
        await press(app, "tab")
        await until(app, lambda: "for 61s, 2x: an order is unknown" in text(app) and "helps: llm-maker why river" in text(app))
        await press(app, "tab")
        await until(app, lambda: "$1,000.07 by crossing, $2.24 below equity" in text(app) and "book 2x" in text(app))
        await press(app, "tab", "down")
        await until(app, lambda: "the snow is deep" in text(app) and "NO book" in text(app) and "*20" in text(app))
        assert "crossed for 5.0s" in text(app) and "a fresh, sound book must arrive" in text(app)
        await press(app, "enter")
        await until(app, lambda: "0xm4" in text(app) and "D-1" in text(app) and "bought 4 at 0.42" in text(app))
        await press(app, "q")
        world = World("Will river 4 flood?")
        house.details = {"why": board.detail(world.state, world.state.markets["m1"], [])["why"]}
        await press(app, "w")
        await until(app, lambda: "gates, in the order they are judged" in text(app))
        await press(app, "escape", "home", "w")
        await until(app, lambda: "not quoted, and why" in text(app) and "book: crossed for 5.0s" in text(app))
        await press(app, "escape", "question_mark")
        await until(app, lambda: "pause: cancel our quotes" in text(app))
        await press(app, "end")
        await until(app, lambda: "HOME/KILL" in text(app))
        await press(app, "escape")
        assert app.is_running


# What is pressed.


async def test_keys_act_on_all_or_on_the_chosen_one_and_say_so(tmp_path):
    house = House(tmp_path, *four())
    async with watched(house) as (app, _):
        assert "acts on ALL 4 markets" in text(app)
        await press(app, "p")
        await until(app, lambda: "done: pause ALL" in text(app))
        await press(app, "down")
        await until(app, lambda: "acts on Will river 4" in text(app))
        await press(app, "r")
        await until(app, lambda: "done: reduce Will river 4" in text(app))
        house.board["rows"] = house.board["rows"][:3]
        await until(app, lambda: "acts on nothing: the chosen market is gone" in text(app))
        await press(app, "p", "c", "u", "f")
        await until(app, lambda: "is gone" in text(app).split("\n")[-1])
        assert acted(house) == [("pause", "", False), ("reduce", "0xm4", False)]


async def test_what_the_daemon_refuses_is_shown(tmp_path):
    house = House(tmp_path, *four())
    async with watched(house) as (app, _):
        house.finds = False
        await press(app, "down", "p")
        await until(app, lambda: "pause Will river 4 flood? REFUSED: no market" in text(app))
        assert house.emitted == []


QUESTIONS = [
    (["c", "x"], "", []),
    (["c", "y"], "All 6 orders of ours there will be canceled", [("cancel_all", "", False)]),
    (["down", "c", "y"], "Every order of ours there", [("cancel_all", "0xm4", False)]),
    (["u", "y"], "Quoting goes on there with paper money", [("resume", "", False)]),
    (["f", "y"], "", []),
    (["f", "m"], "costs about $2.24 including", [("flatten", "", False)]),
    (["f", "t"], "1 positions will be left", [("flatten", "", True)]),
    (["k", *"yes", "enter"], "", []),
    (["k", *"kil", "escape"], "", []),
    (["down", "k", *"kill", "enter"], "ENDS THE DAEMON", [("kill", "", False)]),
]


async def test_what_destroys_asks_first_and_says_what_will_happen(tmp_path):
    house = House(tmp_path, *four())
    async with watched(house) as (app, _):
        for (*first, last), says, does in QUESTIONS:
            house.emitted.clear()
            await press(app, "home", *first)
            await until(app, lambda: len(app.screen_stack) == 2)
            await until(app, lambda says=says: says in " ".join(re.sub("[│╭╮╰╯─]", " ", text(app)).split()))
            assert house.emitted == [], "before the last key"
            await press(app, last)
            await until(app, lambda does=does: acted(house) == does and len(app.screen_stack) == 1)
        assert app.is_running


async def test_leaving_one_market_prints_what_its_book_would_take(tmp_path):
    async with watched(House(tmp_path, *four())) as (app, _):
        await press(app, "down")
        await press(app, "shift+tab")
        await until(app, lambda: app.look.detail_of("0xm4"))
        await press(app, "f")
        # 34.77 to buy back: none at 0.44 but our own, all at 0.45; the mid is 0.435.
        await until(app, lambda: "-34.77 shares will be left" in text(app) and "about $0.52" in text(app))


async def test_a_wish_is_approved_by_its_id(tmp_path):
    wishes = [{"intent_id": f"w1-{i}", "market_id": "0xm2", "target": 5, "who": "a bot", "reason": "[b]x"} for i in (1, 2)]
    house = House(tmp_path, *four(), intents=wishes)
    async with watched(house) as (app, pilot):
        assert "APPROVE 2" in text(app)
        await press(app, "a")
        await until(
            pilot,
            lambda: "(1 of 2)" in text(app) and "a bot wants the position to be 5 shares" in text(app) and "[b]x" in text(app),
        )
        await press(app, "n", "y")
        await until(app, lambda: house.emitted)
        assert house.emitted == [OperatorActed(Verb.APPROVE, "top", "", intent_id="w1-2")]


async def test_no_other_key_does_anything_and_q_only_leaves(tmp_path):
    house = House(tmp_path, *four())
    async with watched(house) as (app, _):
        await press(app, *"bdeghijlmnostvxyz09", "enter", "escape", "tab", "space", "delete", "f1", "f10", "ctrl+k", "ctrl+d")
        await press(app, "escape", "left_square_bracket", "right_square_bracket", "end", "pagedown", "pageup", "left", "right")
        assert app.is_running
        await press(app, "q")
        await until(app, lambda: not app.is_running)
    assert house.emitted == [] and app.return_code == 0


async def test_the_filter_takes_every_letter_and_acts_on_none(tmp_path):
    house = House(tmp_path, *four(), row(5, question="Will it rain?"))
    async with watched(house) as (app, _):
        await press(app, "down", "slash", *"pkcfq")
        await until(app, lambda: "5, 5 hidden" in text(app))
        assert house.emitted == [] and app.is_running and app.query_one("#table").chosen == "*"
        await press(app, *["backspace"] * 5, *"RAIN", "enter")
        await until(app, lambda: "it rain" in text(app) and "river" not in text(app))
        assert "acts on ALL 5 markets, 4 of them hidden by the filter" in text(app)
        await press(app, "down")
        await until(app, lambda: "acts on Will it rain?" in text(app))
        await press(app, "escape")
        await until(app, lambda: "river 2" in text(app) and "acts on Will it rain?" in text(app))


async def test_the_choice_follows_its_market(tmp_path):
    house = House(tmp_path, *(row(i) for i in range(1, 201)))
    async with watched(house) as (app, _):
        await press(app, "end")
        await until(app, lambda: ">Will river 200" in text(app) and "acts on Will river 200" in text(app))
        at = next(i for i, line in enumerate(text(app).split("\n")) if line.startswith(">"))
        house.board["rows"][150]["position"] = 5.0
        await until(app, lambda: "1 held" in text(app) or app._table.keys[1] == "0xm151")
        assert text(app).split("\n")[at].startswith(">Will river 200"), "though another row went to the top"
        await press(app, "pageup", "pageup", "down")
        assert app._table.chosen == app._table.keys[200 - 2 * app._table.page() + 1] and ">Will river" in text(app)
        await press(app, "home")
        await until(app, lambda: ">ALL 200 markets" in text(app))


# When nobody answers.


def colours(app: Any) -> set[str]:
    """Of the market rows."""
    found = [
        s.style.color.name for strip in strips(app) if "river" in strip.text for s in strip if s.text.strip() and s.style.color
    ]
    return set(found)


async def test_a_picture_that_is_over_is_grey_says_since_when_and_comes_back(tmp_path):
    house = House(tmp_path, *four(), tail=[entry(7, "an old word")], last=7)
    async with watched(house) as (app, _):
        await until(app, lambda: "an old word" in text(app))
        assert "STALE" not in text(app) and colours(app) != {PALE}
        await house.close()
        await until(app, lambda: "STALE: no answer for" in text(app))
        assert "the picture is of 2026-" in text(app) and "live" not in text(app) and "no daemon runs on" in text(app)
        await until(app, lambda: colours(app) == {PALE})
        await press(app, "p")
        await until(app, lambda: "pause ALL NOT DONE: no daemon runs" in text(app))
        await press(app, "down", "enter")
        await until(app, lambda: "STALE, no answer for" in text(app))
        await press(app, "escape")
        house.board |= {"session": 2, "tail": [entry(1, "a new word")], "last": 1}
        house.open()
        await until(app, lambda: "STALE" not in text(app) and "a new word" in text(app) and "live" in text(app))
        assert "an old word" not in text(app) and PALE not in colours(app) and house.emitted == []


async def test_it_may_start_before_the_daemon(tmp_path):
    house = House(tmp_path, *four())
    async with watched(house, opened=False) as (app, _):
        await until(app, lambda: "nothing to see yet" in text(app) and "no daemon runs on" in text(app))
        assert "llm-maker run --home" in text(app)
        await press(app, "p", "c", "w", "enter", "escape", "f", "u", "a", "k")
        await until(app, lambda: app.look.tries > 1)
        house.open()
        await until(app, lambda: "river 2" in text(app))
    assert house.emitted == []


@pytest.mark.prove
async def test_an_answer_that_cannot_be_read_is_told(tmp_path):
    house = House(tmp_path, *four())
    async with watched(house) as (app, _):
        good = house.board
        for wrong in ({"rows": "many"}, {"money": {}}, {"rows": [{"market_id": "m"}]}, {"mode": None}, {"alarms": [{}]}, {"ok": 1}):
            house.board = good | wrong
            await until(app, lambda: "STALE" in text(app) and app.look.fault)
            house.board = good
            app._hurry.set()
            await until(app, lambda: "STALE" not in text(app))
        assert app.is_running and house.emitted == []


@pytest.mark.prove
async def test_a_market_that_cannot_be_drawn_or_asked_is_one_line(tmp_path):
    house = House(tmp_path, *four())
    async with watched(house) as (app, _):
        house.details = {"why": {"gates": [{"open": True}]}}
        await press(app, "down", "shift+tab")
        await until(app, lambda: "cannot be drawn: KeyError" in text(app))
        house.details = {"row": 3}
        await press(app, "down", "w")
        await until(app, lambda: "not of this version of top" in text(app) or "cannot be drawn" in text(app))
        await press(app, "escape")
        house.refusal = "the desk is \x1b[2Jclosed"
        await until(app, lambda: "the desk is  [2Jclosed" in text(app))


EVIL = "[red]x[/] [/] [@click=app.quit]y[/] \x1b[2J\x07\u202e\nz"


async def test_words_from_outside_stay_words(tmp_path):
    rows = [row(1, **STILL, question=EVIL, why=EVIL, signal=EVIL, exit=EVIL), row(2, question=EVIL, position=3.0, avg_price=0.4)]
    alarm = {
        "code": EVIL,
        "level": "warning",
        "text": EVIL,
        "cure": EVIL,
        "market_id": EVIL,
        "since_ns": 0,
        "count": 1,
        "standing": True,
    }
    more = {"account": EVIL, "why": EVIL, "alarms": [alarm], "intents": [{"intent_id": EVIL, "reason": EVIL}], "refused": {EVIL: 1}}
    house = House(tmp_path, *rows, **more, tail=[entry(1, EVIL, market_id="0xm1", cure=EVIL)], last=1, provider=EVIL)
    house.details = {"reasoning": EVIL, "model": EVIL, "decision_id": EVIL}
    async with watched(house) as (app, pilot):
        for keys in (
            ["down"],
            ["tab"],
            ["tab"],
            ["tab"],
            ["enter"],
            ["escape", "w"],
            ["escape", "f"],
            ["x", "c"],
            ["x", "a"],
            ["x"],
        ):
            await press(app, *keys)
            await asyncio.sleep(0.05)
            assert all(letter.isprintable() for letter in text(app).replace("\n", "")), keys
        assert "[red]x" in text(app)
        await pilot.resize_terminal(200, 60)
        await until(app, lambda: text(app).count("[red]x") > 9)
        assert all(letter.isprintable() for letter in text(app).replace("\n", ""))
        assert app.is_running
    assert house.emitted == []


# The parts.


async def test_only_what_changed_is_sent(tmp_path, monkeypatch):
    house = House(tmp_path, *four())
    async with watched(house) as (app, _):
        sent: list[Region] = []
        plain = Lines.refresh

        def refresh(self: Lines, *regions: Region, **how: bool) -> Any:
            sent.extend(regions or [self.size.region])
            return plain(self, *regions, **how)

        await asyncio.sleep(0.3)
        monkeypatch.setattr(Lines, "refresh", refresh)
        await asyncio.sleep(0.4)
        assert sent == [], "the same picture again"
        house.board["rows"][1]["ask"] = 0.46
        await until(app, lambda: "0.42/0.46" in text(app))
        assert [(region.width, region.height) for region in sent] == [(1, 1)], "one letter of one row"


def test_a_market_falls_back_only_after_a_while():
    order = top_table.Order()
    ids = lambda rows, now: [line["market_id"][3:] for line in order.sorted(rows, now)]  # noqa: E731
    one, two, three = row(1), row(2), row(3, position=1.0)
    assert ids([one, two, three], 0.0) == ["3", "1", "2"]
    gone = one | STILL
    assert ids([gone, two, three], 5.0) == ["3", "1", "2"], "for a moment without quotes"
    assert ids([gone, two, three], 11.0) == ["3", "2", "1"]
    assert ids([one, two, three | {"position": 0.0}], 12.0) == ["3", "1", "2"]


@settings(max_examples=25)
@given(
    st.integers(min_value=1, max_value=260),
    st.lists(st.tuples(st.text(max_size=30), st.floats(-1e6, 1e6), st.floats(0, 1e5)), max_size=4),
)
def test_no_line_is_wider_than_the_screen_and_no_number_is_cut(width, made):
    rows = [row(i, question=words, position=held, avg_price=at, bid=at) for i, (words, held, at) in enumerate(made)]
    told = [top_table.cells(line) for line in rows]
    shape = top_table.Widths().shape(told, [line["question"] for line in rows], width)
    room = max(width, 1 + top_table.NAME_MIN)
    assert cell_len(top_text.plain(top_table.heading(shape))) <= room
    for line, cells in zip(rows, told, strict=True):
        drawn = top_text.plain(top_table.line(line, cells, shape))
        assert cell_len(drawn) <= room and drawn.isprintable()
        assert all(cells[i][0] in drawn for i, _ in shape.columns)
    whole = picture(*rows)
    assert all(top_text.width_of(line) <= max(width, 40) for line in top_text.head(whole, ("live", ""), width)[:1])
    assert all(top_text.width_of(top_text.fitted(line, width)) <= width for line in top_text.head(whole, ("live", ""), width))


def test_what_leaving_costs_walks_the_book_and_says_where_it_ends():
    line = row(1, position=250.0, bid=0.42, ask=0.44)
    assert (
        top_help.crossing(detail_of(line))
        == "about $3.16 against the mid, fees aside, and 34 shares find no one in the visible book"
    )
    assert top_help.crossing(detail_of(line | {"position": 10.0})) == "about $0.10 against the mid, fees aside"
    assert "one side only" in top_help.crossing(detail_of(line | {"ask": 0.0}))


async def test_only_top_may_call_itself_top(tmp_path):
    house = House(tmp_path, *four())
    house.open()
    try:
        await asyncio.to_thread(ControlClient.call, tmp_path, "pause", {}, 5.0, "top")
        await asyncio.to_thread(ControlClient.call, tmp_path, "pause")
        refused = await asyncio.to_thread(ControlClient.call, tmp_path, "pause", {}, 5.0, "kill file")
    finally:
        await house.close()
    assert house.emitted == [OperatorActed(Verb.PAUSE, "top"), OperatorActed(Verb.PAUSE, "control socket")]
    assert refused["ok"] is False and "not a request" in refused["error"]


# The verb, and a real daemon.

NO_TERMINAL = """
import sys
sys.argv = ["llm-maker", "top"]
from llm_maker import cli
try:
    cli.main()
except SystemExit as stop:
    print(stop.code, "textual" in sys.modules)
"""


def test_without_a_terminal_it_is_one_line_and_nothing_heavy_is_loaded(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", NO_TERMINAL], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.stdout == "2 False\n"
    assert done.stderr == "error: top needs a terminal; `llm-maker status` is for pipes\n"


@contextlib.contextmanager
def daemon(home: Path) -> Iterator[None]:
    """A real one, simulated and keyless, for as long as the test needs it."""
    command = [sys.executable, "-m", "llm_maker", "--home", str(home), "--speed", "20", "--duration", "60"]
    env = {key: value for key, value in os.environ.items() if not key.startswith("LLM_MAKER__")} | {"PYTHONPATH": str(ROOT)}
    env["LLM_MAKER__CONSOLE__HTTP"] = "false"
    with (home / "out.txt").open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=home, env=env)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def mode_of(home: Path) -> str:
    try:
        return str(ControlClient.call(home, "status").get("mode"))
    except (NotRunning, Unanswered):
        return "none"


@pytest.mark.prove
async def test_a_real_daemon_is_seen_and_paused(tmp_path):
    with daemon(tmp_path):
        app = Top(tmp_path, 0.1)
        async with app.run_test(size=SMALL):
            await until(app, lambda: re.search(r"ALL 8 markets .*[1-8] quoted", text(app)))
            assert "PAPER" in text(app) and "SIMULATED" in text(app) and "sim: " in text(app)
            await press(app, "p")
            await until(app, lambda: "done: pause ALL" in text(app) and "HALTED" in text(app).split("\n")[0])
            assert mode_of(tmp_path) == "halted"
            await press(app, "down", "w")
            await until(app, lambda: "gates, in the order they are judged" in text(app))
            await press(app, "escape", "home", "u", "y")
            await until(app, lambda: "done: resume ALL" in text(app) and "ACTIVE" in text(app).split("\n")[0])
            await press(app, "k", *"kill", "enter")
            await until(app, lambda: "STALE" in text(app))
        assert app.return_code in (0, None)


@pytest.mark.prove
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_a_terminal_of_80x24(tmp_path):
    def tmux(*words: str) -> str:
        command = ["tmux", "-S", str(tmp_path / "tmux"), "-f", os.devnull, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C.UTF-8"}).stdout

    def seen(words: str) -> str:
        limit = time.monotonic() + 30
        while not re.search(words, shown := tmux("capture-pane", "-p")):
            pane = "#{pane_width}x#{pane_height}, dead #{pane_dead}, pid #{pane_pid}"
            assert time.monotonic() < limit, f"{tmux('display-message', '-p', pane)}\n{shown}"
            time.sleep(0.1)
        assert all(len(line) <= 80 for line in shown.split("\n"))
        return shown

    top = f"exec env PYTHONPATH={ROOT} {sys.executable} -m llm_maker top --home {tmp_path}"
    tmux("new-session", "-d", "-x", "80", "-y", "24", top)
    try:
        seen("nothing to see yet")
        with daemon(tmp_path):
            first = seen(r"ALL 8 markets .*[1-8] quoted")
            assert len(first.rstrip("\n").split("\n")) == 24 and "ACTIVE" in first and "q quit" in first
            tmux("send-keys", "p")
            seen("done: pause ALL")
            assert "paused by the operator" in seen(r"SIMULATED +HALTED")
            assert mode_of(tmp_path) == "halted"
            tmux("resize-window", "-x", "40", "-y", "10")
            seen("acts on ALL")
            tmux("resize-window", "-x", "80", "-y", "24")
        seen("STALE: no answer for")
        tmux("send-keys", "q")
        limit = time.monotonic() + 10
        with contextlib.suppress(subprocess.CalledProcessError):
            while tmux("list-sessions"):
                assert time.monotonic() < limit
                time.sleep(0.1)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            tmux("kill-server")
