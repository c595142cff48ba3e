"""The Telegram chat against a fake of its service on loopback: who may, what acts, how often, and that nothing kills it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import pytest
from aiohttp import web

from llm_maker.console import chat as module
from llm_maker.console.chat import MOST_REPLY, Chat
from llm_maker.console.desk import Desk, Refused
from llm_maker.core.commands import Level
from llm_maker.core.events import Event, OperatorActed, Verb

TOKEN = "123456:throwaway-bot-token"
ME, STRANGER = 42, 666
NOW = 1_790_000_000
MONEY = {
    "equity": 10_008.5, "exit": 10_000.0, "cash": 9_000.0, "pnl": 8.5, "today": -1.25, "drawdown": 2.0, "exposure": 100.0,
    "earned_spread": 9.0, "model_cost": 0.5, "model_cost_today": 0.25,
}  # fmt: skip
ALARM = {"code": "halt_drift", "level": "error", "text": "shares\x1b missing", "cure": "wait", "standing": True, "count": 3}
BOARD: dict[str, Any] = {
    "account": "main", "real_money": False, "simulated": True, "venue": "simulated", "mode": "HALTED", "why": "drift: x",
    "money": MONEY, "slow_loop": {"mode": "LLM"}, "counts": {"fills": 12}, "orders": 4, "unknown_orders": ["1-1"],
    "rows": [{"our_bid": 0.4, "our_ask": 0}, {"our_bid": 0, "our_ask": 0}], "alarms": [ALARM], "twin": {"difference_usd": 0.1},
}  # fmt: skip


class Telegram:
    """getUpdates as the real one: an offset confirms what is before it, -1 is the last one alone; it may misbehave."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.sent: list[dict[str, Any]] = []
        self.polls = 0
        self.answer: Callable[[], web.Response | None] = lambda: None
        self.again: list[dict[str, Any]] = []
        """Delivered with the next answer though they were confirmed."""
        self._number = 100

    def says(self, text: str, /, by: int = ME, **more: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {
            "message_id": self._number, "date": NOW, "chat": {"id": by, "type": "private"},
            "from": {"id": by, "is_bot": False}, "text": text,
        }  # fmt: skip
        update = {"update_id": self._number, "message": message | more}
        self.updates.append(update)
        return update

    async def handle(self, request: web.Request) -> web.Response:
        assert request.path.startswith(f"/bot{TOKEN}/")
        body = await request.json()
        if request.path.endswith("sendMessage"):
            self.sent.append(body)
            return web.json_response({"ok": True, "result": {}})
        self.polls += 1
        if (odd := self.answer()) is not None:
            return odd
        offset = body["offset"]
        found = self.updates[-1:] if offset < 0 else [u for u in self.updates if u["update_id"] >= offset]
        found, self.again = [*self.again, *found], []
        return web.json_response({"ok": True, "result": found}, headers={"Date": formatdate(NOW + 1, usegmt=True)})


def ask(verb: str, args: dict[str, Any]) -> dict[str, Any]:
    if verb != "board":
        raise Refused("not here")
    return BOARD


class Said(list[tuple[Level, str, str]]):
    def __call__(self, level: Level, code: str, text: str) -> None:
        self.append((level, code, text))


class Stage:
    def __init__(self) -> None:
        self.telegram, self.said, self.events = Telegram(), Said(), list[Event]()
        self.desk = Desk(ask, {"btc": "0xbtc"}.get)

    async def replies(self, count: int) -> list[str]:
        end = time.monotonic() + 10
        while len(self.telegram.sent) < count and time.monotonic() < end:
            await asyncio.sleep(0.01)
        return [sent["text"] for sent in self.telegram.sent]

    async def polled(self, more: int = 2) -> None:
        end, wanted = time.monotonic() + 10, self.telegram.polls + more
        while self.telegram.polls < wanted and time.monotonic() < end:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def chatting(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[Telegram], Any] = lambda telegram: None
) -> AsyncIterator[Stage]:
    monkeypatch.setattr(module, "_PAUSE_S", 0.02)
    stage = Stage()
    before(stage.telegram)
    served = web.Application()
    served.router.add_post("/{all:.*}", stage.telegram.handle)
    runner = web.AppRunner(served)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    chat = Chat(stage.desk, TOKEN, (ME, -100), f"http://127.0.0.1:{port}", stage.said)
    task = asyncio.create_task(chat.run(stage.events.append))
    await stage.polled(1)
    await stage.polled(1)
    try:
        yield stage
        assert not task.done(), "it lives on"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.cleanup()
    assert "throwaway" not in str(stage.said) + str(stage.telegram.sent)


async def test_it_tells_how_it_stands(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        for verb in ("/status", "/daily", "/alarms", "/help", "/status@my_bot", "/nonsense"):
            stage.telegram.says(verb)
        status, daily, alarms, words, again, unknown = await stage.replies(6)
    assert (
        "paper money, simulated market" in status
        and "HALTED: drift: x" in status
        and "quoting 1 of 2 markets, 4 orders, 1 unknown" in status
    )
    assert "today -$1.25" in daily and "model cost $0.5000, today $0.2500" in daily and "fills since it began: 12" in daily
    assert "NOW halt_drift (3 times): shares  missing\n  wait" in alarms and "/kill" in words and again == status
    assert unknown.startswith("unknown: /nonsense") and stage.events == []


@pytest.mark.parametrize(
    ("text", "event", "reply"),
    [
        ("/pause", OperatorActed(Verb.PAUSE, "telegram 42"), "pause: done"),
        ("/resume btc", OperatorActed(Verb.RESUME, "telegram 42", "0xbtc"), "resume: done for 0xbtc"),
        ("/reduce@bot  btc ", OperatorActed(Verb.REDUCE, "telegram 42", "0xbtc"), "reduce: done for 0xbtc"),
        ("/CANCEL_ALL", OperatorActed(Verb.CANCEL_ALL, "telegram 42"), "cancel_all: done"),
    ],
)
async def test_what_acts_becomes_one_event_that_names_who(monkeypatch: pytest.MonkeyPatch, text: str, event: Event, reply: str):
    async with chatting(monkeypatch) as stage:
        stage.telegram.says(text)
        assert await stage.replies(1) == [reply]
        await stage.polled()
        assert stage.events == [event]


async def test_kill_asks_first_and_only_the_same_person_may_say_yes(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        stage.telegram.says("/kill yes")
        stage.telegram.says("/pause nowhere")
        assert [reply[:7] for reply in await stage.replies(2)] == ["this ca", "refused"] and stage.events == []
        stage.telegram.says("/kill yes")
        assert (await stage.replies(3))[2] == "kill: done"
        assert stage.events == [OperatorActed(Verb.KILL, "telegram 42")]
        stage.telegram.says("/kill yes")
        assert "within a minute" in (await stage.replies(4))[3], "each kill is asked for anew"
        monkeypatch.setattr(module, "SURE_SECONDS", 0.0)
        stage.telegram.says("/kill yes")
        assert "within a minute" in (await stage.replies(5))[4] and len(stage.events) == 1, "too late"


async def test_a_stranger_gets_no_answer_and_is_told_of_once(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        for _ in range(5):
            stage.telegram.says("/kill", by=STRANGER)
        stage.telegram.says("/pause", by=-STRANGER)
        stage.telegram.says("/status")
        assert len(await stage.replies(1)) == 1
        assert [sent["chat_id"] for sent in stage.telegram.sent] == [ME] and stage.events == []
        assert [text.split(" is not")[0] for _, _, text in stage.said] == [f"chat {STRANGER}", f"chat {-STRANGER}"]
        assert {(level, code) for level, code, _ in stage.said} == {(Level.WARNING, "chat")}


@pytest.mark.parametrize(
    "odd",
    [
        {"forward_origin": {"type": "user"}},
        {"forward_date": NOW},
        {"via_bot": {"id": 1}},
        {"from": {"id": ME, "is_bot": True}},
        {"sender_chat": {"id": -100, "type": "channel"}},
        {"text": "please /pause"},
    ],
    ids=str,
)
async def test_what_is_no_plain_message_of_a_person_does_nothing(monkeypatch: pytest.MonkeyPatch, odd: dict[str, Any]):
    async with chatting(monkeypatch) as stage:
        stage.telegram.says("/pause", **odd)
        edited = stage.telegram.says("/pause")
        edited["edited_message"] = edited.pop("message")
        stage.telegram.says("/status")
        assert len(await stage.replies(1)) == 1 and stage.events == []


async def test_a_group_may_look_and_not_act(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        group = {"chat": {"id": -100, "type": "supergroup"}, "from": {"id": ME, "is_bot": False}}
        stage.telegram.says("/alarms", **group)
        stage.telegram.says("/pause", **group)
        told = await stage.replies(2)
        assert "halt_drift" in told[0] and "private chat" in told[1] and stage.events == []


async def test_what_was_sent_before_the_daemon_began_does_nothing(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch, before=lambda telegram: [telegram.says("/kill"), telegram.says("/pause")]) as stage:
        stage.telegram.says("/resume")
        assert await stage.replies(1) == ["resume: done"]
        assert stage.events == [OperatorActed(Verb.RESUME, "telegram 42")]


async def test_a_command_acts_once_however_often_it_is_delivered(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        update = stage.telegram.says("/pause")
        await stage.replies(1)
        for _ in range(3):
            stage.telegram.again = [update, update]
            await stage.polled()
        assert len(stage.events) == 1 and len(stage.telegram.sent) == 1


async def test_what_was_held_up_on_its_way_acts_only_where_it_protects(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        stage.telegram.says("/resume", date=NOW - 600)
        stage.telegram.says("/pause", date=NOW - 600)
        resumed, paused = await stage.replies(2)
        assert "601s ago" in resumed and paused == "pause: done" and stage.events == [OperatorActed(Verb.PAUSE, "telegram 42")]


async def test_a_message_of_which_nobody_can_tell_when_it_was_sent_acts_only_where_it_protects(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_seconds", lambda date: 0)
    async with chatting(monkeypatch) as stage:
        stage.telegram.says("/resume")
        stage.telegram.says("/pause")
        resumed, paused = await stage.replies(2)
        assert "cannot be told" in resumed and paused == "pause: done" and len(stage.events) == 1


@pytest.mark.parametrize(
    "odd",
    [
        lambda: web.Response(status=500),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"ok": False, "error_code": 400}, status=400),
        lambda: web.json_response({"ok": True, "result": "none"}),
        lambda: web.Response(text="[" * 200_000),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        lambda: web.Response(body=b"x" * (module.MOST_BYTES + 1)),
    ],
    ids=["500", "html", "not ok", "no list", "deep", "redirect", "huge"],
)
async def test_an_answer_that_cannot_be_used_is_said_once_and_survived(
    monkeypatch: pytest.MonkeyPatch, odd: Callable[[], web.Response]
):
    async with chatting(monkeypatch) as stage:
        stage.telegram.answer = odd
        await stage.polled(3)
        stage.telegram.answer = lambda: None
        stage.telegram.says("/status")
        assert len(await stage.replies(1)) == 1
        assert [(level, code) for level, code, _ in stage.said] == [(Level.WARNING, "chat"), (Level.INFO, "chat")]


async def test_a_bad_update_stops_nothing_and_an_idle_service_is_no_busy_loop(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        bad: list[Any] = [
            {"message": {}},
            {"update_id": "x"},
            7,
            None,
            {"update_id": 150, "message": {"chat": "me"}},
            {"update_id": 151},
        ]
        stage.telegram.again = bad
        await stage.polled()
        stage.telegram._number = 200
        stage.telegram.says("/status " + "x" * 100_000)
        assert len((await stage.replies(1))[0]) <= MOST_REPLY
        before = stage.telegram.polls
        await asyncio.sleep(0.3)
        assert stage.telegram.polls - before <= 0.3 / 0.02 + 2, "an answer without news is followed by a pause"


async def test_a_wrong_token_is_told_and_waited_on(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        stage.telegram.answer = lambda: web.json_response({"ok": False, "error_code": 401}, status=401)
        await stage.polled(1)
        before = stage.telegram.polls
        await asyncio.sleep(0.2)
        assert stage.telegram.polls == before and "LLM_MAKER_TELEGRAM_TOKEN" in stage.said[0][2]


async def test_a_service_that_is_not_there_is_said_without_its_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PAUSE_S", 0.02)
    said = Said()
    task = asyncio.create_task(Chat(Desk(ask), TOKEN, (ME,), "http://127.0.0.1:9", said).run(lambda event: None))
    end = time.monotonic() + 10
    while not said and time.monotonic() < end:
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    ((level, code, text),) = said
    assert (
        (level, code) == (Level.WARNING, "chat") and "not reached" in text and "throwaway" not in text and "127.0.0.1" not in text
    )


async def test_a_view_that_breaks_is_told_to_whoever_looked(monkeypatch: pytest.MonkeyPatch):
    async with chatting(monkeypatch) as stage:
        monkeypatch.setitem(BOARD, "money", {})
        stage.telegram.says("/status")
        assert await stage.replies(1) == ["status failed: KeyError"]
