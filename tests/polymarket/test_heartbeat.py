"""The dead man's switch over a real socket: the chain of ids, starving on purpose, and every reply survived."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from unittest import mock

import pytest

from llm_maker.core.commands import Level
from llm_maker.core.values import NS_PER_S
from llm_maker.venues.polymarket.orders import heartbeat as heartbeats
from llm_maker.venues.polymarket.orders.heartbeat import Heartbeat
from tests.polymarket.scripted import HANG, Say, Server, clob_of, paced

PATH = "/v1/heartbeats"
SPEED = 100.0


class Keeper:
    """The venue's side: hands out ids, wants the last one back, answers a wrong one with the right one."""

    def __init__(self) -> None:
        self.count, self.wanted, self.accepted = 0, "", 0
        self.lose = 0
        """How many accepted beats' replies get lost."""

    def __call__(self, seen) -> Say:
        if self.wanted and seen.json["heartbeat_id"] != self.wanted:
            return Say({"error_msg": "Invalid Heartbeat ID", "heartbeat_id": self.wanted}, 400)
        self.count, self.accepted = self.count + 1, self.accepted + 1
        self.wanted = f"beat-{self.count}"
        if self.lose:
            self.lose -= 1
            return Say(b"gone", 502)
        return Say({"heartbeat_id": self.wanted})


@asynccontextmanager
async def beating(*replies, well=lambda: ""):
    pace, said = paced(SPEED), []
    async with Server(pace) as server:
        server.on("POST", PATH, *replies)
        heartbeat = Heartbeat(clob_of(server, pace), pace, well, lambda level, words: said.append((level, words)))
        task = asyncio.create_task(heartbeat.run())
        try:
            # A loaded machine is no silent venue: only a reply that never comes runs into the deadline.
            with mock.patch.object(heartbeats, "REQUEST_S", 3.0 if HANG in replies else 500.0):
                yield server, heartbeat, said
            assert not task.done(), "it must survive every reply"
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def until(condition, limit_s=10.0):
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.002)


async def test_each_beat_carries_the_last_id():
    async with beating(Keeper()) as (server, heartbeat, said):
        beats = await server.until("POST", 4)
        await until(lambda: heartbeat.beats >= 4)
    assert [seen.json["heartbeat_id"] for seen in beats[:4]] == ["", "beat-1", "beat-2", "beat-3"]
    assert beats[0].body == b'{"heartbeat_id":""}'
    assert beats[0].headers["POLY_API_KEY"] == "api-key"
    assert heartbeat.state == "beating" and heartbeat.missed == 0 and not said


async def test_a_wrong_id_is_put_right_at_once():
    keeper = Keeper()
    keeper.wanted = "of an earlier life"
    async with beating(keeper) as (server, heartbeat, said):
        await until(lambda: heartbeat.beats >= 1)
        assert [seen.json["heartbeat_id"] for seen in server.seen[:2]] == ["", "of an earlier life"]
        assert heartbeat.missed == 0 and not said, "not one beat later"


async def test_a_lost_reply_may_have_been_accepted():
    keeper = Keeper()
    keeper.lose = 1
    async with beating(keeper) as (server, heartbeat, _):
        await until(lambda: heartbeat.beats >= 2)
        assert [seen.json["heartbeat_id"] for seen in server.seen[:3]] == ["", "", "beat-1"]
        assert heartbeat.missed == 1 and heartbeat.state == "beating"


async def test_not_well_means_no_beat_and_one_word_why():
    why = [""]
    async with beating(Keeper(), well=lambda: why[0]) as (server, heartbeat, said):
        await until(lambda: heartbeat.beats >= 1)
        why[0] = "the loop is late"
        await until(lambda: heartbeat.state == "starved: the loop is late")
        count, then = len(server.seen), server.pace.now()
        await until(lambda: server.pace.now() > then + 30 * NS_PER_S)
        assert len(server.seen) == count
        assert [level for level, _ in said] == [Level.ERROR] and "the loop is late" in said[0][1]
        why[0] = ""
        await until(lambda: heartbeat.state == "beating")
        assert said[-1][0] is Level.INFO


async def test_a_resend_is_a_beat_too_and_needs_wellness():
    answers = iter(["", "not any more"])
    keeper = Keeper()
    keeper.wanted = "other"
    async with beating(keeper, well=lambda: next(answers, "not any more")) as (server, heartbeat, _):
        await until(lambda: heartbeat.state.startswith("starved"))
        assert len(server.seen) == 1 and keeper.accepted == 0


@pytest.mark.parametrize(
    "reply",
    [
        Say(b"", 200),
        Say(b"<html>", 200),
        Say({"status": "ok"}),
        Say({"heartbeat_id": 5}),
        Say({"heartbeat_id": ""}),
        Say({"heartbeat_id": "x" * 10_000}),
        Say({"error_msg": "Invalid Heartbeat ID"}, 400),
        Say({"error_msg": "Invalid Heartbeat ID", "heartbeat_id": "never right"}, 400),
        Say({"error": "Unauthorized/Invalid api key"}, 401),
        Say(b"\xff", 500),
        Say({"error": "service not ready"}, 425),
        Say({}, 429),
        HANG,
    ],
)
async def test_every_reply_is_survived_alarmed_and_recovered_from(reply):
    async with beating(reply) as (server, heartbeat, said):
        await until(lambda: any(level is Level.ERROR for level, _ in said))
        assert heartbeat.state.startswith("failing: ") and heartbeat.beats == 0
        server.on("POST", PATH, Keeper())
        await until(lambda: heartbeat.state == "beating")
        assert [level for level, _ in said] == [Level.ERROR, Level.INFO], "once each"


async def test_nobody_there_is_survived_too():
    pace, said = paced(SPEED), []
    async with Server(pace) as server:
        pass
    heartbeat = Heartbeat(clob_of(server, pace), pace, lambda: "", lambda level, words: said.append(level))
    task = asyncio.create_task(heartbeat.run())
    await until(lambda: said == [Level.ERROR])
    assert heartbeat.state.startswith("failing: Client")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
