"""The user channel over a real socket: subscribed, proved alive, lost, refused, frozen, and back again."""

import asyncio
import base64
import contextlib
import json
import time

import pytest
from websockets.asyncio.server import serve

from llm_maker.core.commands import Level
from llm_maker.core.events import AccountStreamDown, AccountStreamUp, OrderAccepted
from llm_maker.core.values import FixedGrid, Instrument, InstrumentId, Kind, Leg, Side
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.account.stream import UserStream
from llm_maker.venues.polymarket.account.wire import AccountWire
from llm_maker.venues.polymarket.auth import Credentials
from llm_maker.venues.polymarket.orders.ours import Ours, OwnOrders

SECRET = base64.urlsafe_b64encode(b"k" * 32).decode()  # throwaway, worth nothing anywhere
PASSPHRASE = "throwaway-passphrase"
CREDENTIALS = Credentials("0xEE", "throwaway-key", SECRET, PASSPHRASE)
PLACED = {"event_type": "order", "type": "PLACEMENT", "id": "0x" + "a1" * 32, "status": "LIVE"}
SPEED = 50.0
MARKET = Instrument(
    id=InstrumentId("0xaa"), venue="polymarket", kind=Kind.BINARY, price_decimals=4, qty_decimals=6, grid=FixedGrid(100),
    qty_step=10_000, min_qty=5_000_000, payout=10_000, token_ids=("1001", "1002"),
)  # fmt: skip


class Venue:
    """A user channel on loopback. Each connection takes the next step of the script, the last one for ever.

    `serve` answers PINGs and tells one order; `refuse` closes at the first frame; `pong_refuse` after the first PONG; `mute` never
    says PONG; `mute_after` says it once; `drop` serves until `cut` is set; `noise` sends text that is no message, then is mute.
    """

    def __init__(self, *script):
        self.script, self.seen, self.pings, self.cut = list(script), [], 0, asyncio.Event()

    async def __aenter__(self):
        self._server = await serve(self._handle, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/ws/user"
        return self

    async def __aexit__(self, *exc):
        self._server.close(close_connections=True)
        await self._server.wait_closed()

    async def _handle(self, socket):
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.seen.append(json.loads(await socket.recv()))
        if step == "refuse":
            return
        if step == "noise":
            await socket.send("INVALID REQUEST")
        if step == "eager":
            await socket.send(json.dumps([PLACED]))
        answered = 0
        with contextlib.suppress(Exception):
            while True:
                waits = [asyncio.ensure_future(socket.recv())] + (
                    [asyncio.ensure_future(self.cut.wait())] if step == "drop" else []
                )
                done, rest = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for each in rest:
                    each.cancel()
                if step == "drop" and self.cut.is_set():
                    self.cut.clear()
                    return
                assert done.pop().result() == "PING"
                self.pings += 1
                if step in ("mute", "noise", "eager") or (step == "mute_after" and answered):
                    continue
                await socket.send("PONG")
                answered += 1
                if step == "pong_refuse":
                    return
                if answered == 1 and step != "mute_after":
                    await socket.send(json.dumps(PLACED))


class Told:
    """What came out, to be waited for."""

    def __init__(self):
        self.events, self.said, self._more = [], [], asyncio.Event()

    def emit(self, event):
        self.events.append(event)
        self._more.set()

    def say(self, level, text):
        self.said.append((level, text))
        self._more.set()

    async def until(self, holds):
        async with asyncio.timeout(10):
            while not holds():
                await self._more.wait()
                self._more.clear()

    def kinds(self):
        return [type(event).__name__ for event in self.events]


@contextlib.asynccontextmanager
async def stream(url, **settings):
    began, anchor = time.monotonic_ns(), 1_767_225_600 * 10**9
    own = OwnOrders()
    own.add(Ours("A1", PLACED["id"], MARKET, Side.BUY, Leg.YES, 5000, 10_000_000, True))
    told, wire = Told(), AccountWire(own, CREDENTIALS.key, "0xdd")
    pace = Pace(lambda: anchor + int((time.monotonic_ns() - began) * SPEED), SPEED)
    running = UserStream(url, CREDENTIALS, wire, pace, say=told.say, **settings)
    task = asyncio.create_task(running.run(told.emit))
    try:
        yield running, told
        assert not task.done(), "it goes on for ever"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_first_frame_asks_for_the_whole_account_and_the_first_pong_proves_it():
    async with Venue("serve") as venue, stream(venue.url) as (running, told):
        assert running.sick() == "user channel: not connected yet"
        await told.until(lambda: len(told.events) == 2)
        assert told.events == [AccountStreamUp("polymarket"), OrderAccepted("A1", PLACED["id"])]
        assert running.sick() == "" and told.said == []
        auth = {"apiKey": "throwaway-key", "secret": SECRET, "passphrase": PASSPHRASE}
        assert venue.seen == [{"type": "user", "auth": auth}]


async def test_an_event_proves_it_too_and_comes_after_the_word():
    async with Venue("eager") as venue, stream(venue.url) as (_, told):
        await told.until(lambda: len(told.events) == 2)
        assert told.kinds() == ["AccountStreamUp", "OrderAccepted"]


async def test_pings_go_on_and_keep_it_alive():
    async with Venue("serve") as venue, stream(venue.url, ping_s=1.0, pong_s=20.0) as (running, told):
        await told.until(lambda: len(told.events) == 2)
        async with asyncio.timeout(10):
            while venue.pings < 45:
                await asyncio.sleep(0.01)
        assert running.sick() == "" and told.kinds() == ["AccountStreamUp", "OrderAccepted"] and len(venue.seen) == 1


async def test_a_lost_connection_is_told_once_and_comes_back():
    async with Venue("drop", "serve") as venue, stream(venue.url) as (running, told):
        await told.until(lambda: len(told.events) == 2)
        venue.cut.set()
        await told.until(lambda: len(told.events) == 5)
        assert told.kinds() == ["AccountStreamUp", "OrderAccepted", "AccountStreamDown", "AccountStreamUp", "OrderAccepted"]
        down = told.events[2]
        assert isinstance(down, AccountStreamDown) and down.venue == "polymarket" and "ConnectionClosed" in down.reason
        assert running.sick() == "" and len(venue.seen) == 2


async def test_silence_is_a_loss():
    async with Venue("mute_after", "serve") as venue, stream(venue.url, ping_s=2.0, pong_s=6.0) as (_, told):
        await told.until(lambda: told.kinds()[1:3] == ["AccountStreamDown", "AccountStreamUp"])
        assert told.events[1].reason == "no PONG for 6s" and venue.pings >= 2


@pytest.mark.parametrize("step", ["mute", "noise"])
async def test_without_a_pong_it_is_never_up(step):
    async with Venue(step) as venue, stream(venue.url, ping_s=2.0, pong_s=6.0) as (running, told):
        await told.until(lambda: len([text for _, text in told.said if "no PONG for 6s" in text]) >= 2)
        assert told.events == [] and "no PONG" in running.sick()
        assert len(venue.seen) >= 2


@pytest.mark.parametrize("step", ["refuse", "pong_refuse"])
async def test_credentials_that_are_refused_are_named_once(step):
    async with Venue(step) as venue, stream(venue.url, backoff_max_s=5.0, ping_s=50.0, pong_s=100.0) as (running, told):
        await told.until(lambda: len(venue.seen) >= 6)
        errors = [text for level, text in told.said if level is Level.ERROR]
        assert len(errors) == 1 and "credentials refused" in errors[0] and "3 times in a row" in errors[0]
        assert "credentials refused" in running.sick()
        shown = " ".join(text for _, text in told.said)
        assert SECRET not in shown and PASSPHRASE not in shown and CREDENTIALS.key not in shown
        flaps = 3 if step == "pong_refuse" else 0  # then one PONG is no proof any more
        assert told.kinds() == ["AccountStreamUp", "AccountStreamDown"] * flaps


async def test_a_refusal_is_forgotten_by_the_next_success():
    script = ["refuse"] * 3 + ["drop"] + ["refuse"] * 3 + ["serve"]
    async with Venue(*script) as venue, stream(venue.url, backoff_max_s=3.0, ping_s=50.0, pong_s=100.0) as (running, told):
        await told.until(lambda: "OrderAccepted" in told.kinds())
        venue.cut.set()
        await told.until(lambda: told.kinds().count("OrderAccepted") == 2)
        assert len([text for level, text in told.said if level is Level.ERROR]) == 2 and running.sick() == ""


async def test_nobody_there_is_tried_for_ever_with_growing_waits():
    async with Venue("serve") as venue:
        url = venue.url
    async with stream(url, backoff_max_s=8.0) as (running, told):
        await told.until(lambda: len(told.said) >= 7)
        waits = [float(text.rsplit(" ", 1)[1].removesuffix("s")) for _, text in told.said]
        assert told.events == [] and all(level is Level.WARNING for level, _ in told.said)
        assert max(waits) <= 8.0 and waits[0] <= 1.0 and waits[-1] >= 4.0
        assert "Error" in running.sick()


async def test_the_waits_begin_anew_after_a_connection_that_lasted():
    async with Venue(*["refuse"] * 5, "drop", "serve") as venue, stream(venue.url, backoff_max_s=8.0) as (_, told):
        await told.until(lambda: "OrderAccepted" in told.kinds())
        await asyncio.sleep(16.0 / SPEED)
        venue.cut.set()
        await told.until(lambda: told.kinds().count("OrderAccepted") == 2)
        waits = [float(text.rsplit(" ", 1)[1].removesuffix("s")) for level, text in told.said if level is Level.WARNING]
        assert len(waits) == 6 and waits[4] >= 4.0 and waits[5] <= 1.0


async def test_what_cannot_be_read_is_said_and_does_not_end_it(monkeypatch):
    monkeypatch.setitem(PLACED, "original_size", 5)
    async with Venue("serve") as venue, stream(venue.url) as (running, told):
        await told.until(lambda: bool(told.said))
        ((level, text),) = told.said
        assert level is Level.WARNING and "1 not readable" in text and "original_size" in text
        assert told.kinds() == ["AccountStreamUp"] and running.sick() == ""
