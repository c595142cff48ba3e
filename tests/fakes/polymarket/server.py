"""A fake Polymarket on loopback: every host of the venue behind one port, over one house, with faults on request.

`FakePolymarket` lives in the loop that starts it; `Background` gives it a thread and a loop of its own. Venue time runs `speed`
times as fast as the wall; give the same clock to the client (`now_ns`). Paths by host: `/clob`, `/gamma`, `/data`, `/ws/market`,
`/ws/user`, `/geoblock`, `/rpc`, and the relayer at the root. By hand: `python -m tests.fakes.polymarket --help`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from decimal import Decimal
from typing import Any, Self

from aiohttp import web

from tests.fakes.polymarket.access import Heartbeats, Keys, Limits
from tests.fakes.polymarket.books import Books
from tests.fakes.polymarket.chain import Chain
from tests.fakes.polymarket.faults import Faults
from tests.fakes.polymarket.house import House
from tests.fakes.polymarket.listings import Listings
from tests.fakes.polymarket.records import FakeMarket, Message
from tests.fakes.polymarket.sockets import Sockets
from tests.fakes.polymarket.trading import Trading
from tests.fakes.polymarket.verify import Refused
from tests.fakes.polymarket.weather import Weather

AUTH_WINDOW_S = 60.0
"""How far a proof's timestamp may be from venue time; the venue's own number is not known."""
LOG_MOST = 200_000
LEAST_STEP_S = 0.002
"""Wall seconds between steps, however fast venue time runs."""
TRADING = ("/clob/order", "/clob/orders", "/clob/cancel-all", "/clob/cancel-market-orders")
DISABLED = "Trading is currently disabled. Check polymarket.com for updates"
CANCEL_ONLY = "Trading is currently cancel-only. New orders are not accepted, but cancels are allowed."
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakePolymarket:
    """All servers of the venue. `log` holds (now_ms, method, path, status, note); `counters` what was done how often."""

    def __init__(
        self,
        house: House,
        faults: Faults | None = None,
        *,
        speed: float = 1.0,
        crowd_every_ms: int = 500,
        rate_limits: bool = True,
        anchor_ms: int | None = None,
        auth_window_s: float = AUTH_WINDOW_S,
    ) -> None:
        """`crowd_every_ms` 0: the house is alone with its accounts. `anchor_ms`: venue time now, the wall's where None."""
        self.house, self.faults, self.speed = house, faults or Faults(), speed
        self.crowd_every_ms, self.blocked = crowd_every_ms, False
        self._anchor_ms = time.time_ns() // 1_000_000 if anchor_ms is None else anchor_ms
        self._began = time.monotonic()
        self.log: list[tuple[int, str, str, int, str]] = []
        self.counters: Counter[str] = Counter()
        self.bugs: list[Exception] = []
        """The fake's own; `stop` raises the first."""
        # At a high speed a short pause of this machine is long in venue time: the window grows with it.
        self.keys = Keys(house, max(auth_window_s, 2 * speed))
        self.limits, self.heartbeats = Limits(rate_limits), Heartbeats(self.now_ms())
        self.sockets, self.books, self.trading = Sockets(self), Books(self), Trading(self)
        self.listings, self.chain, self.weather = Listings(self), Chain(self), Weather(self)
        self.base = ""
        self._of_token: dict[str, FakeMarket] = {}
        self._levels: dict[str, float] = {}
        self._runner: web.AppRunner | None = None
        self._closing = asyncio.Event()
        self._clockwork: asyncio.Task[None] | None = None

    # Life and time.

    async def start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._around], client_max_size=4 * 2**20)
        app.router.add_routes([web.get("/ws/market", self.sockets.serve), web.get("/ws/user", self.sockets.serve)])
        for part in (self.books, self.trading, self.listings, self.chain):
            app.router.add_routes(part.routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.2, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.base = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self.step()
        self._clockwork = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Close everything; what went wrong in the fake itself is raised here."""
        self._closing.set()
        assert self._runner is not None and self._clockwork is not None, "it was started"
        broken = self._clockwork.done()
        self._clockwork.cancel()
        await self.sockets.close()
        await self._runner.cleanup()
        if broken:
            await self._clockwork
        if self.bugs:
            raise self.bugs[0]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def hosts(self) -> dict[str, str]:
        """The section `polymarket.hosts` of a config."""
        ws = self.base.replace("http", "ws", 1)
        return {
            "clob": f"{self.base}/clob",
            "gamma": f"{self.base}/gamma",
            "data": f"{self.base}/data",
            "relayer": self.base,
            "ws_market": f"{ws}/ws/market",
            "ws_user": f"{ws}/ws/user",
            "geoblock": f"{self.base}/geoblock",
            "rpc": f"{self.base}/rpc",
        }

    def now_ns(self) -> int:
        """Venue time; any thread may ask."""
        return self._anchor_ms * 1_000_000 + int((time.monotonic() - self._began) * self.speed * 1e9)

    def now_ms(self) -> int:
        return self.now_ns() // 1_000_000

    def wall(self, seconds: float) -> float:
        """Wall seconds of so many venue seconds."""
        return seconds / self.speed

    async def pause(self, seconds: float) -> None:
        """Venue seconds, or until it closes."""
        try:
            await asyncio.wait_for(self._closing.wait(), self.wall(seconds))
        except TimeoutError:
            return

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(max(self.wall((self.crowd_every_ms or 500) / 1000), LEAST_STEP_S))
            self.step()

    def step(self) -> None:
        """One turn of the clockwork: settlements, the others, the weather, silent hearts, and what follows from them."""
        now_ms = self.now_ms()
        self.weather.step(now_ms)
        self.house.advance(now_ms)
        if self.crowd_every_ms:
            self.house.crowd_step(now_ms)
        for api_key in self.heartbeats.silent(now_ms):
            key = self.keys.find(api_key)
            assert key is not None, "a heart has an account"
            canceled, _ = self.house.cancel_all(key.account, now_ms)
            self.counters["heartbeat_cancels"] += len(canceled)
            self.note("BEAT", "silent", 0, f"{len(canceled)} orders cancelled")
        self.books.step(now_ms)
        self.sockets.step(now_ms)
        self.flush()

    def flush(self) -> None:
        """Push what the house has to say."""
        messages = self.house.take_messages()
        self.weather.saw(messages)
        self.sockets.deliver(messages)

    def note(self, method: str, path: str, status: int, note: str = "") -> None:
        self.log.append((self.now_ms(), method, path, status, note))
        if len(self.log) > LOG_MOST:
            del self.log[: LOG_MOST // 2]

    def list_market(self, market: FakeMarket) -> None:
        """One more market, and word of it."""
        self.house.add_market(market)
        told = {
            "event_type": "new_market",
            "id": self.listings.market_id(market),
            "question": market.question,
            "market": market.condition_id,
            "condition_id": market.condition_id,
            "slug": market.slug,
            "assets_ids": list(market.tokens),
            "clob_token_ids": list(market.tokens),
            "outcomes": ["Yes", "No"],
            "active": True,
            "order_price_min_tick_size": f"{market.tick:f}",
            "tags": list(market.tags),
            "timestamp": str(self.now_ms()),
        }
        self.sockets.deliver([Message("market", "", told)])

    # What all parts ask of the house.

    @property
    def markets(self) -> list[FakeMarket]:
        return list(self.house.markets.values())

    def market_of(self, token: str) -> FakeMarket | None:
        if len(self._of_token) != 2 * len(self.house.markets):
            self._of_token = {each: market for market in self.markets for each in market.tokens}
        return self._of_token.get(token)

    def tick_of(self, token: str) -> Decimal:
        market = self.market_of(token)
        return market.tick if market is not None else Decimal("0.01")

    def book_event(self, token: str, now_ms: int) -> dict[str, Any] | None:
        book = self.house.book(token, now_ms)
        return None if book is None else {"event_type": "book", **book}

    def touch(self, market: FakeMarket) -> tuple[Decimal, Decimal]:
        """Best bid and ask of YES; 0 and 1 where there is none, the payout once it is known."""
        if market.resolved is not None:
            pays = Decimal(market.resolved == "yes")
            return pays, pays
        bid, ask = self.house.top(market.condition_id)
        return Decimal(0) if bid is None else bid, Decimal(1) if ask is None else ask

    def level_of(self, market: FakeMarket) -> float:
        """The mid when it was first asked for."""
        bid, ask = self.touch(market)
        return self._levels.setdefault(market.condition_id, float(bid + ask) / 2)

    # Every request.

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        note = ""
        try:
            if request.path.startswith("/ws/"):
                return await handler(request)
            await request.read()
            response = await self._answered(request, handler)
        except Refused as refused:
            response, note = _refusal(request, refused), f"{refused.words}; {refused.note}"
        except web.HTTPException as error:
            response = web.json_response({"error": error.reason}, status=error.status)
        except ConnectionError:
            raise  # the client has gone
        except Exception as bug:
            # It would look like a fault of the venue, of which nobody asked: so it is told at the end.
            self.bugs.append(bug)
            raise
        self.counters[f"{request.method} {request.path}"] += 1
        self.note(request.method, request.path, response.status, note)
        self.flush()
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or what a fault makes of it."""
        faults, now_ms, about = self.faults, self.now_ms(), f"{request.method} {request.path}"
        if late := faults.hit("slow", now_ms, about):
            await self.pause(late.value)
        if limited := faults.hit("limited", now_ms, about):
            headers = {"Retry-After": f"{limited.value:.0f}"} if limited.value else {}
            raise Refused(429, "Too Many Requests", "a fault", headers=headers)
        trading = request.path in TRADING and request.method in ("POST", "DELETE")
        if trading:
            await self._trading_faults(request, handler, about)
        if request.path == "/clob/data/orders" and faults.hit("orders_fail", now_ms, about):
            raise Refused(500, "Internal server error", "a fault")
        if failing := faults.hit("error_500", now_ms, about):
            raise Refused(500, "Internal server error", await self._perhaps(request, handler, failing.value if trading else 0))
        response = await handler(request)
        body = response.body if isinstance(response, web.Response) else None
        if response.status == 200 and isinstance(body, bytes) and body and faults.hit("malformed", now_ms, about):
            return web.Response(body=body[: len(body) // 2], content_type="application/json")
        return response

    async def _trading_faults(self, request: web.Request, handler: Handler, about: str) -> None:
        faults, now_ms = self.faults, self.now_ms()
        if faults.hit("disabled", now_ms, about):
            raise Refused(503, DISABLED, "a fault")
        if request.method == "POST" and faults.hit("cancel_only", now_ms, about):
            raise Refused(503, CANCEL_ONLY, "a fault")
        if restart := faults.hit("restart", now_ms, about):
            raise Refused(425, "service not ready", await self._perhaps(request, handler, restart.value))
        for outcome, share in (("done", 1.0), ("lost", 0.0)):
            if hang := faults.hit(f"{request.method.lower()}_hang_{outcome}", now_ms, about):
                note = await self._perhaps(request, handler, share)
                self.flush()
                await self.pause(hang.value)
                if request.transport is not None:
                    request.transport.abort()
                raise Refused(504, "no answer", note)

    async def _perhaps(self, request: web.Request, handler: Handler, share: float) -> str:
        """Do with this probability what was asked, and tell nobody but the log."""
        if not self.faults.chance(share):
            return "a fault, not done"
        try:
            response = await handler(request)
        except Refused as refused:
            return f"a fault, would have been refused: {refused.words}"
        return f"a fault, done all the same: {response.status}"


def _refusal(request: web.Request, refused: Refused) -> web.Response:
    name = "error_msg" if request.path.endswith("/heartbeats") and refused.status == 400 else "error"
    return web.json_response({name: refused.words, **refused.more}, status=refused.status, headers=refused.headers)


class Background:
    """A fake in a thread of its own: `with Background(FakePolymarket(house)) as fake: fake.call(house.order, ...)`."""

    def __init__(self, venue: FakePolymarket, port: int = 0) -> None:
        self.venue, self._port = venue, port
        self._loop = asyncio.new_event_loop()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._live, name="fake-polymarket", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self.venue.stop(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def call(self, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Run a function between two of the fake's turns, push what it brought about, give its value back."""
        return asyncio.run_coroutine_threadsafe(self._called(function, args, named), self._loop).result()

    async def _called(self, function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        value = function(*args, **named)
        self.venue.flush()
        return value

    def _live(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self.venue.start(self._port))
        except Exception as error:
            self._ready.set_exception(error)  # who waits in `__enter__` raises it
            self._loop.close()
            return
        self._ready.set_result(None)
        self._loop.run_forever()
