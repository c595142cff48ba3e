"""The whole account over REST: what traded, what rests, what is held (`polymarket.md` 2.3, 2.6, 6).

It decides only what must be asked again, and builds no `AccountSnapshot` from a call that failed. What the answers mean is the
core's business; that of one row is `account_wire`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from llm_maker.core.commands import Level
from llm_maker.core.events import AccountSnapshot, AccountUnknown, Event, Holding, OrderFilled, RestingOrder
from llm_maker.core.values import NS_PER_S, Instrument, Leg
from llm_maker.venues.net import Pace, Reply
from llm_maker.venues.polymarket.account.messages import Balance
from llm_maker.venues.polymarket.account.wire import AccountWire
from llm_maker.venues.polymarket.auth import Wallet
from llm_maker.venues.polymarket.numbers import WireError, units
from llm_maker.venues.polymarket.orders.ours import OwnOrders
from llm_maker.venues.polymarket.rest import Clob

MARGIN_S = 60
"""How far before the wanted moment trades are asked for: the venue's clock, and its index, may lag."""
PENDING_S = 24 * 3_600
"""Trades that are not settled are asked for again this long after their match."""
READS_FOR_ALL = 10
"""Every known token is read at least once in so many readings."""
MAX_REFRESHES = 15
"""`/balance-allowance/update` calls of one reading: the venue allows 50 in ten seconds."""
LATE_NS = 15 * NS_PER_S
"""A fill that a reading is the first to tell, this long after its match, was not told by the stream."""
_PARALLEL = 8
_CASH = ""
"""In the place of a token: the collateral."""
_PROTOCOL_V2 = "v3"
"""The route of assets that ExchangeV3 settles; their balances have a name of their own (`polymarket.md` 1.4)."""


class _Matched(msgspec.Struct):
    match_time: str | int


class _Unread(Exception):
    """The account cannot be told: which call, and why."""


class AccountReader:
    """Reads the account whole, one reading at a time."""

    def __init__(
        self,
        clob: Clob,
        wire: AccountWire,
        own: OwnOrders,
        wallet: Wallet,
        pace: Pace,
        *,
        say: Callable[[Level, str], None],
        on_missed: Callable[[int], None] = lambda matched_ns: None,
    ) -> None:
        """`on_missed` hears when a fill of ours was matched that this reading is the first to tell, well after it."""
        self._on_missed = on_missed
        self._clob, self._wire, self._own, self._wallet, self._pace, self._say = clob, wire, own, wallet, pace, say
        self._balances: dict[str, int] = {}
        """Token -> units at its last reading; the longest unread first."""
        self._touched: dict[str, None] = {}
        """Tokens that an order of ours, or work of ours on the chain, may have moved since the start."""
        self._stale: dict[str, None] = {_CASH: None}
        """What the venue's own view may be behind with: to be refreshed before it is read."""
        self._owed: list[Event] = []
        """Read but not handed over yet; a reading that is cancelled loses none of it."""
        self._reading = False

    def touch(self, instrument: Instrument) -> None:
        """Work on the chain (split, merge, redemption) moved this market's tokens and the cash: no order will tell of it."""
        for token in (_CASH, *instrument.token_ids):
            self._stale[token] = None
        self._touched.update(dict.fromkeys(instrument.token_ids))

    async def read(self, asked_ns: int, since_ns: int) -> list[Event]:
        """Trades of ours since `since_ns` (and those not settled yet), then the account, or why it is not known.

        Asked in this order: trades, orders, balances, new trades. The venue answers each at another moment, and a fill may come in
        between. Were trades read only first, an order could be gone from the list, and its shares be in the balance, before its
        fill was told: shares of nobody. Read again at the end, all that list and balance show has been told before the snapshot.
        A fill after the balances is told too early for them, which does no harm: it is not settled, and the core allows for that.

        The snapshot's `asked_ns` is the question's, so the core can tell news from old news. A holding that was not asked for this
        time is that of its last reading: one that was zero, and that nothing of ours has touched.
        """
        assert not self._reading, "one reading of the account at a time"
        self._reading = True
        try:
            self._owed.append(await self._account(asked_ns, since_ns))
        except _Unread as unread:
            self._owed.append(AccountUnknown(str(unread)))
        finally:
            self._reading = False
        if words := self._wire.complaint():
            self._say(Level.WARNING, words)
        events, self._owed = self._owed, []
        return events

    async def _account(self, asked_ns: int, since_ns: int) -> AccountSnapshot:
        began_s = self._pace.now() // NS_PER_S
        since_s, open_s = since_ns // NS_PER_S, self._wire.open_since()
        if open_s:
            # A settlement that was told while nobody listened: the venue lists trades by the time of their match.
            since_s = min(since_s, max(open_s, began_s - PENDING_S))
        await self._trades(since_s)
        orders = await self._orders()
        await self._read_balances()
        await self._trades(began_s)
        return AccountSnapshot(orders, self._holdings(), self._balances[_CASH], asked_ns)

    async def _trades(self, since_s: int) -> None:
        """All trades of the account since then, by no other filter: market, asset and address may be taken as the taker's.

        `polymarket.md` 2.3 says so of the first two; a maker's fill that a filter hides would be a position nobody knows of.
        """
        query = {"after": str(since_s - MARGIN_S)} if since_s > MARGIN_S else {}
        rows, reply = await self._clob.pages("/data/trades", query)
        faults = self._wire.faults
        for row in rows:
            told = self._wire.trades([row])
            self._owed += told
            if any(isinstance(event, OrderFilled) for event in told):
                self._late(row)
        _must(reply, "/data/trades")
        if self._wire.faults > faults:
            raise _Unread(f"/data/trades: {self._wire.last_fault}")

    def _late(self, row: msgspec.Raw) -> None:
        try:
            matched_s = int(msgspec.json.decode(row, type=_Matched).match_time)
        except (msgspec.DecodeError, ValueError):
            return  # without its time nothing can be said of its delay
        if self._pace.now() - matched_s * NS_PER_S > LATE_NS:
            self._on_missed(matched_s * NS_PER_S)

    async def _orders(self) -> tuple[RestingOrder, ...]:
        rows, reply = await self._clob.pages("/data/orders")
        _must(reply, "/data/orders")
        try:
            resting = self._wire.resting(rows)
        except WireError as fault:
            raise _Unread(f"/data/orders: {fault}") from fault
        for order in resting:
            ours = self._own.by_order(order.order_id)
            if ours is not None:
                self._touched[ours.instrument.token_ids[ours.leg is Leg.NO]] = None
        return resting

    # Balances.

    async def _read_balances(self) -> None:
        known = self._known()
        wanted = [_CASH, *self._wanted(known)]
        self._stale.update(self._wire.fresh)
        self._wire.fresh.clear()
        self._stale = {token: None for token in self._stale if token == _CASH or token in known}
        if self._stale:
            self._stale[_CASH] = None
        await self._refresh([token for token in wanted if token in self._stale][:MAX_REFRESHES], known)
        await self._each(wanted, known, "/balance-allowance", self._balance)

    async def _refresh(self, stale: list[str], known: Mapping[str, Instrument]) -> None:
        """Have the venue look at the chain. Marks go before the calls, so that what is told meanwhile marks a token anew."""
        for token in stale:
            del self._stale[token]
        done = False
        try:
            await self._each(stale, known, "/balance-allowance/update", lambda _token, _reply: None)
            done = True
        finally:
            if not done:
                self._stale.update(dict.fromkeys(stale))

    def _wanted(self, known: Mapping[str, Instrument]) -> list[str]:
        """Never read, or moved by us, or not empty; and of the others those that have waited longest."""
        moved = self._touched.keys() | self._wire.traded.keys() | self._stale.keys()
        must = [token for token in known if token not in self._balances or token in moved or self._balances[token]]
        taken = set(must)
        others = [token for token in self._balances if token in known and token not in taken]
        return must + others[: -(-len(known) // READS_FOR_ALL)]

    async def _each(
        self, tokens: list[str], known: Mapping[str, Instrument], path: str, take: Callable[[str, Reply], None]
    ) -> None:
        """Ask for each token, some at a time; `take` gets every answer that is OK."""
        for at in range(0, len(tokens), _PARALLEL):
            asked = tokens[at : at + _PARALLEL]
            replies = await asyncio.gather(*(self._clob.private("GET", path, query=self._query(t, known)) for t in asked))
            for token, reply in zip(asked, replies, strict=True):
                _must(reply, f"{path} {_name(token)}")
                take(token, reply)

    def _query(self, token: str, known: Mapping[str, Instrument]) -> dict[str, str]:
        kind = str(int(self._wallet.kind))
        if token == _CASH:
            return {"asset_type": "COLLATERAL", "signature_type": kind}
        asset = "CONDITIONAL-V2" if known[token].route == _PROTOCOL_V2 else "CONDITIONAL"
        return {"asset_type": asset, "token_id": token, "signature_type": kind}

    def _balance(self, token: str, reply: Reply) -> None:
        try:
            told = units(str(msgspec.json.decode(reply.body, type=Balance).balance), 0, "balance")
        except (msgspec.DecodeError, UnicodeDecodeError, WireError) as error:
            raise _Unread(f"/balance-allowance {_name(token)}: {error}") from error
        self._balances.pop(token, None)
        self._balances[token] = told

    def _known(self) -> dict[str, Instrument]:
        return {token: instrument for instrument in self._own.instruments for token in instrument.token_ids}

    def _holdings(self) -> tuple[Holding, ...]:
        known = self._known()
        if any(token not in self._balances for token in known):
            raise _Unread("markets were listed while the account was read")
        legs = (Leg.YES, Leg.NO)
        return tuple(
            Holding(instrument.id, leg, self._balances[token])
            for instrument in self._own.instruments
            for token, leg in zip(instrument.token_ids, legs, strict=True)
        )


def _must(reply: Reply, call: str) -> None:
    if not reply.ok:
        raise _Unread(f"{call}: {reply.error or reply.outcome.value}")


def _name(token: str) -> str:
    return f"of token {token[:12]}" if token else "of cash"
