"""Order entry alone: commands as the core makes them, drafted and signed in a row, and sent as a burst through the whole port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable

import uvloop
from coincurve import PrivateKey

from benchmarks import legs
from benchmarks.digests import hashed
from benchmarks.loopback_markets import Feed
from llm_maker.core.commands import Level, PlaceOrder, TimeInForce
from llm_maker.core.events import AccountStreamUp, Event, OrderAccepted, OrderRejected, OrderUncertain
from llm_maker.core.values import Instrument, Leg, Side
from llm_maker.venues.net import Pace
from llm_maker.venues.polymarket.account.reader import AccountReader
from llm_maker.venues.polymarket.account.stream import UserStream
from llm_maker.venues.polymarket.account.wire import AccountWire
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.chain.chain import Chain, ChainHosts
from llm_maker.venues.polymarket.chain.wallets import Problem, credentials
from llm_maker.venues.polymarket.listing import gamma
from llm_maker.venues.polymarket.orders.drafts import draft
from llm_maker.venues.polymarket.orders.entry import VenueSettings
from llm_maker.venues.polymarket.orders.heartbeat import Heartbeat
from llm_maker.venues.polymarket.orders.ours import OwnOrders
from llm_maker.venues.polymarket.orders.sign import Signer, order_signature
from llm_maker.venues.polymarket.orders.venue import PolymarketVenue
from llm_maker.venues.polymarket.rest import Clob

_WALLET = Wallet(WalletKind.EOA, legs.ADDRESS, legs.ADDRESS)
_PATIENCE_S = 60.0
_QTY = 5_000_000
_FREE = VenueSettings(orders_per_s=1e6, orders_burst=1e6, max_wait_s=_PATIENCE_S, request_s=_PATIENCE_S)
"""No venue allows so much; what the port itself can do is the question."""


def _instruments(markets: int) -> list[Instrument]:
    """Of the loopback venue, by their listings."""
    found = [
        gamma.candidate(json.dumps(market.listing()).encode(), time.time_ns()).instrument for market in Feed(1, markets).markets
    ]
    return [instrument for instrument in found if instrument is not None]


def _commands(instruments: list[Instrument], count: int, first: int) -> list[PlaceOrder]:
    """Both sides of each market in turn, every one of another price or id than its neighbours."""
    now = time.time_ns()
    return [
        PlaceOrder(
            order_id=f"1-{first + number}",
            instrument=instruments[number // 2 % len(instruments)].id,
            side=Side.SELL if number % 2 else Side.BUY,
            leg=Leg.NO if number % 2 else Leg.YES,
            price=(6_000 if number % 2 else 3_000) + 100 * (number % 7),
            qty=_QTY,
            time_in_force=TimeInForce.GTC,
            post_only=True,
            reduce_only=False,
            reason="burst",
            decided_ns=now + number,
        )
        for number in range(count)
    ]


# Signing.


def signing(orders: int, repeats: int) -> tuple[list[float], list[float], list[float]]:
    """Microseconds an order, a sample a repeat, measured turn about: ours; the floor; the typical library, if it is there."""
    instruments, signer, key = _instruments(10), Signer(legs.KEY), PrivateKey(bytes.fromhex(legs.KEY[2:]))
    by_id = {str(instrument.id): instrument for instrument in instruments}
    struct, envelope = bytes(12 * 32), bytes(66)
    ours: list[float] = []
    floor: list[float] = []
    theirs: list[float] = []
    library = None if legs.missing_bot() else _library()
    for number in range(repeats):
        commands = _commands(instruments, orders, number * orders)
        ours.append(_each(commands, lambda c: order_signature(draft(c, by_id[c.instrument], _WALLET), signer)))
        floor.append(_each(commands, lambda _: (hashed(struct), key.sign_recoverable(hashed(envelope), hasher=None))))
        if library is not None:
            theirs.append(_each(commands[: max(orders // 10, 1)], lambda c: library(by_id[c.instrument].token_ids[0])))
    return ours, floor, theirs


def _each(commands: list[PlaceOrder], work: Callable[[PlaceOrder], object]) -> float:
    began = time.perf_counter()
    for command in commands:
        work(command)
    return (time.perf_counter() - began) / len(commands) * 1e6


def _library() -> Callable[[str], object]:
    """What a user of `py-clob-client-v2` calls; nothing is asked of any host."""
    from py_clob_client_v2.client import ClobClient
    from py_clob_client_v2.clob_types import OrderArgsV2, PartialCreateOrderOptions

    client = ClobClient("http://127.0.0.1:9", 137, key=legs.KEY)
    client.get_tick_size = lambda token: "0.01"
    options = PartialCreateOrderOptions(tick_size="0.01", neg_risk=False, version=2)
    return lambda token: client.create_order(OrderArgsV2(token, 0.37, 5.0, "BUY"), options)


# A burst.


class _Heard:
    """Who has been acknowledged."""

    def __init__(self) -> None:
        self.accepted: set[str] = set()
        self.failed: list[Event] = []
        self.up = asyncio.Event()
        self.all_there = asyncio.Event()
        self.wanted = 0

    def emit(self, event: Event) -> None:
        if isinstance(event, OrderAccepted):
            self.accepted.add(event.order_id)
            if len(self.accepted) >= self.wanted:
                self.all_there.set()
        elif isinstance(event, AccountStreamUp):
            self.up.set()
        elif isinstance(event, OrderRejected | OrderUncertain):
            self.failed.append(event)
            self.all_there.set()


def burst(port: int, markets: int, orders: int, repeats: int) -> list[float]:
    """Seconds from the first command to the last acknowledgement of `orders` given at once, for each repeat after a first one."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_burst(port, markets, orders, repeats))


async def _burst(port: int, markets: int, orders: int, repeats: int) -> list[float]:
    http, heard, instruments = f"http://127.0.0.1:{port}", _Heard(), _instruments(markets)
    pace = Pace(time.time_ns)
    clob = Clob(http, pace)
    venue = await _venue(clob, pace, http)
    for instrument in instruments:
        venue.know(instrument)
    running = asyncio.create_task(venue.run(heard.emit))
    took = []
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await heard.up.wait()
            for number in range(repeats + 1):
                commands = _commands(instruments, orders, number * orders)
                heard.wanted = (number + 1) * orders
                heard.all_there.clear()
                began = time.perf_counter()
                for command in commands:
                    venue.execute(command)
                await heard.all_there.wait()
                took.append(time.perf_counter() - began)
                assert not heard.failed, heard.failed[:3]
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await clob.close()
    return took[1:]


async def _venue(clob: Clob, pace: Pace, http: str) -> PolymarketVenue:
    """The port as live trading has it, but for its pace."""
    signer, own = Signer(legs.KEY), OwnOrders()
    proof = await credentials(clob, signer, 1, None, pace)
    assert not isinstance(proof, Problem), proof
    clob.credentials = proof
    account = AccountWire(own, proof.key, _WALLET.maker)
    stream = UserStream(f"{http.replace('http', 'ws', 1)}/ws/user", proof, account, pace, say=_silent)
    chain = Chain(lambda: legs.KEY, _WALLET, ChainHosts(http, http), pace)
    reader = AccountReader(clob, account, own, _WALLET, pace, say=_silent)
    heart = Heartbeat(Clob(http, pace, proof), pace, lambda: "", _silent)
    return PolymarketVenue(
        clob, _WALLET, signer, own, reader, stream, chain, pace, _FREE, say=_silent, heartbeat=heart, wire=account
    )


def _silent(level: Level, text: str) -> None:
    """Nobody reads a benchmark's warnings: what matters is asserted."""
