"""Everything real in a run on a live venue, as configured: market data, discovery and, with a key, the account. It starts nothing.

With paper money only the public part is there, and no key is read. Ports are handed to `app`, which runs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_maker.config import Config, rehearsal
from llm_maker.core import orders
from llm_maker.core.commands import Command, Level
from llm_maker.core.events import AccountStreamDown, AccountStreamUp, Event, InstrumentListed, VenueDown
from llm_maker.core.orders import Order
from llm_maker.core.risk import ACCOUNT_STALE_NS
from llm_maker.core.state import State
from llm_maker.core.values import NS_PER_S, Instrument
from llm_maker.keys import API_SECRETS, Secrets
from llm_maker.port import Emit
from llm_maker.runtime.clock import LiveClock, rehearsal_clock
from llm_maker.universe import Universe
from llm_maker.venues.net import Backoff, Http, Pace
from llm_maker.venues.polymarket.data.feed import Feed, FeedSettings
from llm_maker.venues.polymarket.listing.discovery import Discovery
from llm_maker.venues.polymarket.listing.history import History
from llm_maker.venues.polymarket.listing.tape_header import VENUE
from llm_maker.venues.polymarket.rest import DATA_LIMITS, GAMMA_LIMITS, Clob
from llm_maker.world import Refused

if TYPE_CHECKING:
    from llm_maker.venues.polymarket.auth import Credentials, Wallet
    from llm_maker.venues.polymarket.chain.chain import Chain
    from llm_maker.venues.polymarket.chain.wallets import Problem
    from llm_maker.venues.polymarket.orders.heartbeat import Heartbeat
    from llm_maker.venues.polymarket.orders.venue import PolymarketVenue

Say = Callable[[Level, str, str], None]
"""Level, code, text."""
MAX_SETUP_WAIT_S = 60.0
LOOP_STILL_NS = 2 * NS_PER_S
"""A loop that has not come round for this long is sick: the venue shall cancel for it."""


def live_clock(config: Config, speed: float) -> LiveClock:
    """The wall's clock; for a rehearsal on this machine one that runs faster, from the venue's own time on."""
    if speed == 1.0:
        return LiveClock()
    if not rehearsal(config):
        raise Refused(f"--speed is {speed:g}; a live venue's time cannot be hurried: leave it out")
    if speed <= 0:
        raise Refused("--speed is 0; a live venue's time cannot be skipped: leave it out")
    told = asyncio.run(_venue_seconds(config.polymarket.hosts.clob))
    return rehearsal_clock(speed, told * NS_PER_S if told else LiveClock().now())


async def _venue_seconds(host: str) -> int | None:
    http = Http(host, Pace(LiveClock().now))
    try:
        reply = await http.request("GET", "/time")
    finally:
        await http.close()
    return int(reply.body) if reply.ok and reply.body.isdigit() else None


class LiveVenue:
    """The ports of one live venue, and what is asked of them together."""

    def __init__(
        self,
        config: Config,
        secrets: Secrets,
        clock: LiveClock,
        speed: float,
        say: Say,
        state: Callable[[], State],
        tap: Callable[[int, bytes], None] | None = None,
    ) -> None:
        settings, hosts = config.polymarket, config.polymarket.hosts
        self.config, self.state, self._say = config, state, say
        self.beside: Callable[[], Iterable[State]] = list
        """The paper accounts on the same feed: a market where one of them stands is followed too."""
        self.pace = pace = Pace(clock.now, speed)
        self.clob = Clob(hosts.clob, pace, timeout=settings.request_timeout_seconds)
        self.gamma = Http(hosts.gamma, pace, timeout=1.5 * settings.request_timeout_seconds, limits=GAMMA_LIMITS)
        self.data = Http(hosts.data, pace, timeout=2 * settings.request_timeout_seconds, limits=DATA_LIMITS)
        self.universe = Universe(config.market_selection)
        self.feed = Feed(
            hosts.ws_market,
            self.clob,
            pace,
            FeedSettings(
                assets_per_socket=settings.assets_per_socket,
                ping_s=settings.ping_seconds,
                pong_s=3 * settings.ping_seconds,
                frozen_s=settings.frozen_seconds,
                book_check_s=settings.book_check_seconds,
                reconnect_s=60 * settings.reconnect_minutes,
                backoff_max_s=settings.backoff_max_seconds,
            ),
            say=self._from("feed"),
            tap=tap,
            shows_own=config.mode == "live",
        )
        self.discovery = Discovery(
            self.gamma,
            self.clob,
            self.universe,
            pace,
            every_s=60 * settings.discovery_minutes,
            say=lambda level, text: say(level, "discovery", text),
            on_market=self.listed,
            on_gone=self.feed.remove,
            keep=self.kept,
            history=History(self.data, pace, lambda level, text: say(level, "history", text)),
        )
        self.account = AccountPort(self, secrets) if config.mode == "live" else None

    def _from(self, code: str) -> Callable[[str, str], None]:
        return lambda level, text: self._say(Level(level), code, text)

    def listed(self, instrument: Instrument) -> None:
        """A market of the universe, or new rules of one."""
        self.feed.add(instrument)
        if self.account is not None:
            self.account.know(instrument)

    def kept(self) -> set[str]:
        """Markets where something of ours may stand: they are followed whatever the selection says."""
        found = set()
        for market in (market for state in (self.state(), *self.beside()) for market in state.markets.values()):
            position = market.position
            held = (position.yes, position.no)
            if market.live or position.pending or any(h.settled or h.pending or h.foreign or h.merging for h in held):
                found.add(str(market.instrument.id))
        return found

    def heard(self, emit: Emit) -> Emit:
        """The feed's way out: a tick that the socket has told is known to discovery from then on."""

        def tell(event: Event) -> None:
            emit(event)
            if type(event) is InstrumentListed:
                if self.account is not None:
                    self.account.know(event.instrument)
                self.discovery.told(event.instrument)

        return tell

    def begin(self, emit: Emit) -> None:
        """What is certain at the start of a session: nothing has been heard yet."""
        emit(VenueDown(VENUE, "not connected yet"))

    def sick(self) -> str:
        """Why the heartbeat must starve; empty while every connection lives, the loop runs and nothing account-wide is wrong."""
        state = self.state()
        if self.pace.now() - state.now > LOOP_STILL_NS * max(1.0, self.pace.speed / 4):
            return "the loop stands still"
        if state.halts and not state.stopping:
            return f"halted: {', '.join(state.halts)}"
        if state.stream_down and not (self.account is not None and self.account.only_beatless):
            return f"the account's stream: {state.stream_down}"
        if state.account_known and state.now - state.account_seen_ns > ACCOUNT_STALE_NS:
            return "the account cannot be read"
        return self.feed.sick()

    def facts(self) -> dict[str, Any]:
        """What only the ports know, for `status`: the feed's counters, and what ails feed and discovery (empty: nothing does)."""
        return {
            "feed": {**self.feed.counters, "trouble": self.feed.sick()},
            "discovery": {"chosen": sum(c.chosen for c in self.universe.choices.values()), "trouble": self.discovery.trouble},
            "heartbeat": self.account.heartbeat if self.account is not None else None,
        }

    async def close(self) -> None:
        for host in (self.clob, self.gamma, self.data):
            await host.close()
        if self.account is not None and self.account.chain is not None:
            await self.account.chain.close()


class AccountPort:
    """The account of a key: finds out wallet and credentials, then is the live venue. Until then nothing is sent."""

    name = VENUE

    def __init__(self, live: LiveVenue, secrets: Secrets) -> None:
        from llm_maker.venues.polymarket.chain import wallets
        from llm_maker.venues.polymarket.orders.ours import OwnOrders
        from llm_maker.venues.polymarket.orders.sign import Signer

        self.live, self._secrets = live, secrets
        try:
            self.signer = Signer(secrets.get("LLM_MAKER_PK") or "")
        except ValueError as error:
            raise Refused(f"LLM_MAKER_PK: {error}") from None
        self._emit: Emit | None = None
        self._stream_up, self._beatless = False, ""
        self.address = secrets.get("LLM_MAKER_BROWSER_ADDRESS") or ""
        self.own = OwnOrders(self._is_live)
        self.venue: PolymarketVenue | None = None
        self.chain: Chain | None = None
        self._heart: Heartbeat | None = None
        self.trouble = "wallet and credentials are not known yet"
        found = wallets.detect(self.signer.address, self.address, live.config.polymarket.signature_type)
        if isinstance(found, wallets.Problem):
            raise Refused(f"{found.text}; {found.cure}")
        self.wallet: Wallet = found

    @property
    def only_beatless(self) -> bool:
        """We hear of our fills, and merely no heartbeat is accepted: that must not keep the next one back."""
        return bool(self._beatless) and self._stream_up

    def _lost(self, why: str) -> None:
        """No heartbeat is accepted: the venue cancels whatever we place, so nothing is placed until one is."""
        self._beatless = why
        if self._emit is not None and why:
            self._emit(AccountStreamDown(VENUE, f"no heartbeat is accepted: {why}"))
        elif self._emit is not None and self._stream_up:
            self._emit(AccountStreamUp(VENUE))

    def _hear(self, event: Event) -> None:
        """The venue's words on their way in; its stream alone does not bring us back while no heartbeat is accepted."""
        assert self._emit is not None
        if isinstance(event, AccountStreamUp | AccountStreamDown):
            self._stream_up = isinstance(event, AccountStreamUp)
        if not (isinstance(event, AccountStreamUp) and self._beatless):
            self._emit(event)

    def _is_live(self, order_id: str) -> bool:
        order = self.live.state().orders.get(order_id)
        return order is not None and order.is_live

    @property
    def heartbeat(self) -> str:
        """How the dead man's switch stands, for `status`."""
        if not self.live.config.polymarket.heartbeat:
            return "off"
        return self._heart.state if self._heart is not None else f"not begun: {self.trouble}"

    def know(self, instrument: Instrument) -> None:
        """A market we may trade, or new rules of one, whenever it is heard of."""
        if self.venue is not None:
            self.venue.know(instrument)
        else:
            self.own.know(instrument)

    def execute(self, command: Command) -> None:
        """Handed on once there is an account to send it for; the core asks again for what it needs before that."""
        if self.venue is not None:
            self.venue.execute(command)

    def flush(self) -> None:
        if self.venue is not None:
            self.venue.flush()

    async def run(self, emit: Emit) -> None:
        self._emit = emit
        emit(AccountStreamDown(VENUE, self.trouble))
        clob = self.live.clob
        clob.credentials = await self._credentials()
        venue = self._venue(self.wallet, clob.credentials)
        self.venue = venue
        state = self.live.state()
        # Discovery may have told of markets, or of new rules, that the state has not heard of yet.
        told = self.own.instruments
        for instrument in (*(market.instrument for market in state.markets.values()), *told):
            venue.know(instrument)
        venue.remember((orders.command(o), state.markets[o.instrument].instrument) for o in _ours(state))
        await venue.run(self._hear)

    async def _credentials(self) -> Credentials:
        from llm_maker.venues.polymarket.chain import wallets

        settings, backoff = self.live.config.polymarket, Backoff(2.0, MAX_SETUP_WAIT_S)
        told = tuple(self._secrets.get(name) or "" for name in API_SECRETS)
        given = (told[0], told[1], told[2]) if all(told) else None
        while True:
            found = await wallets.credentials(self.live.clob, self.signer, settings.api_key_nonce, given, self.live.pace)
            if not isinstance(found, wallets.Problem):
                return found
            await self._wait(backoff, found)

    async def _wait(self, backoff: Backoff, problem: Problem) -> None:
        if problem.text != self.trouble:
            self.trouble = problem.text
            self.live._say(Level.ERROR, "account", f"{problem.text}; {problem.cure}")
        await self.live.pace.sleep(backoff.next())

    def _venue(self, wallet: Wallet, credentials: Credentials) -> PolymarketVenue:
        from llm_maker.venues.polymarket.account.reader import AccountReader
        from llm_maker.venues.polymarket.account.stream import UserStream
        from llm_maker.venues.polymarket.account.wire import AccountWire
        from llm_maker.venues.polymarket.chain.chain import Chain, ChainHosts
        from llm_maker.venues.polymarket.chain.relayer import relayer_key
        from llm_maker.venues.polymarket.orders.entry import VenueSettings
        from llm_maker.venues.polymarket.orders.heartbeat import Heartbeat
        from llm_maker.venues.polymarket.orders.venue import PolymarketVenue

        live, settings = self.live, self.live.config.polymarket
        hosts, pace, say = settings.hosts, live.pace, live._from("venue")
        wire = AccountWire(self.own, credentials.key, wallet.maker)
        stream = UserStream(
            hosts.ws_user,
            credentials,
            wire,
            pace,
            ping_s=settings.ping_seconds,
            pong_s=3 * settings.ping_seconds,
            backoff_max_s=settings.backoff_max_seconds,
            say=say,
        )
        proof = relayer_key(self._secrets.get)
        if isinstance(proof, str):
            say("warning", proof)
        self.chain = chain = Chain(
            lambda: self._secrets.get("LLM_MAKER_PK") or "",
            wallet,
            ChainHosts(hosts.relayer, hosts.rpc),
            pace,
            relayer_key=None if isinstance(proof, str) else proof,
        )
        if settings.heartbeat:
            beats = Clob(hosts.clob, pace, credentials, timeout=settings.request_timeout_seconds)
            self._heart = Heartbeat(beats, pace, live.sick, say, self._lost)
        return PolymarketVenue(
            live.clob,
            wallet,
            self.signer,
            self.own,
            AccountReader(live.clob, wire, self.own, wallet, pace, say=say, on_missed=stream.missed),
            stream,
            chain,
            pace,
            VenueSettings(
                orders_per_s=settings.orders_per_second,
                orders_burst=1.5 * settings.orders_per_second,
                cancels_per_s=settings.cancels_per_second,
                cancels_burst=1.5 * settings.cancels_per_second,
                request_s=settings.request_timeout_seconds,
            ),
            say=say,
            heartbeat=self._heart,
            wire=wire,
        )


def refuse_unsafe(state: State, config: Config, wall_ns: int, *, unproved: bool) -> None:
    """A home that real money, or a live feed's clock, cannot go on from: raises `world.Refused`."""
    if state.now - wall_ns > 5 * NS_PER_S and not rehearsal(config):
        late = (state.now - wall_ns) / NS_PER_S
        raise Refused(f"this machine's clock is {late:.0f}s behind the journal of the last run: set it right first")
    if config.mode == "live" and state.stopped and not unproved:
        resting = [o.order_id for o in state.orders.values() if o.is_live]
        if resting:
            raise Refused(
                f"the last stop could not prove that nothing rests ({', '.join(resting[:5])}); look at your open orders on the "
                "site, then start with --unproved: they are looked up first of all"
            )


async def watch_clock(clock: LiveClock, emit: Emit) -> None:
    """Compare the wall with the monotonic clock four times a second, until cancelled."""
    while True:
        await asyncio.sleep(0.25)
        stepped = clock.check()
        if stepped is not None:
            emit(stepped)


def _ours(state: State) -> Iterable[Order]:
    """Orders whose ids the venue may still speak of: the live ones, and those that have ended of late."""
    return (order for order in state.orders.values() if order.instrument in state.markets)


def wallet_folder() -> Path:
    """Where the locks of wallets lie: of this user, whatever the home."""
    import os

    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "llm_maker"
