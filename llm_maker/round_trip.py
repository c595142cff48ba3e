"""`doctor --round-trip`: one real order of the least size, far from the touch, placed, seen, cancelled and proved gone.

It shows what nothing else can: that the venue takes our signature, and that its order id is our digest. It costs nothing unless
someone trades at the far end of the book. It is sent only with consent that a person typed.
"""

from __future__ import annotations

import msgspec

from llm_maker.account_checkup import credentials
from llm_maker.checkup import NETWORK, Check, Tell, telling
from llm_maker.config import Config
from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.values import Instrument, Leg, Side, usd
from llm_maker.keys import Secrets
from llm_maker.venues.net import Http, Pace
from llm_maker.venues.polymarket.auth import Wallet
from llm_maker.venues.polymarket.chain import wallets
from llm_maker.venues.polymarket.listing import gamma
from llm_maker.venues.polymarket.listing.fields import Fields
from llm_maker.venues.polymarket.numbers import PRICE_DECIMALS, WireError
from llm_maker.venues.polymarket.orders.drafts import Draft, draft
from llm_maker.venues.polymarket.orders.replies import Ended, Fate, canceled, looked_up, placed
from llm_maker.venues.polymarket.orders.sign import Signer, order_json, order_signature
from llm_maker.venues.polymarket.rest import Clob

CONSENT = "one real order"
"""What a person types."""
FAR_TICKS = 10
"""From the touch, at least."""
LOOKS = 10
"""Seconds in which the order must be seen, and be seen gone."""
BY_HAND = "cancel it on the site (open orders), or with `llm-maker cancel-all`"


async def round_trip(config: Config, secrets: Secrets, market: str, *, consent: str, progress: Tell, pace: Pace) -> list[Check]:
    """There and back on `market` (a condition id), ending early where the next step would tell nothing."""
    found: list[Check] = []
    tell = telling(secrets, found, progress)
    if consent != CONSENT:
        tell(Check("consent", "failed", "nothing was sent", f"type: {CONSENT}"))
        return found
    clob = Clob(config.polymarket.hosts.clob, pace, timeout=config.polymarket.request_timeout_seconds)
    try:
        ready = await _ready(config, secrets, clob, pace)
        if isinstance(ready, Check):
            tell(ready)
            return found
        chosen = await _choose(config, clob, market, pace)
        if isinstance(chosen, Check):
            tell(chosen)
            return found
        signer, wallet = ready
        await _Trip(clob, signer, wallet, pace, tell).make(*chosen)
    finally:
        await clob.close()
    return found


async def _ready(config: Config, secrets: Secrets, clob: Clob, pace: Pace) -> tuple[Signer, Wallet] | Check:
    """Who signs, for which wallet; the API key is put into `clob`."""
    try:
        signer = Signer(secrets.get("LLM_MAKER_PK") or "")
    except ValueError as error:
        return Check("key", "failed", f"LLM_MAKER_PK: {error}", "put the private key into .env")
    address = secrets.get("LLM_MAKER_BROWSER_ADDRESS") or ""
    wallet = wallets.detect(signer.address, address, config.polymarket.signature_type)
    if isinstance(wallet, wallets.Problem):
        return Check("wallet", "failed", wallet.text, wallet.cure)
    made = await credentials(config, secrets, clob, signer, pace)
    if isinstance(made, Check):
        return made
    clob.credentials = made
    return signer, wallet


async def _choose(config: Config, clob: Clob, market: str, pace: Pace) -> tuple[Instrument, Leg, int] | Check:
    """The market, and the leg and price of an order that nobody should want; the price is that of YES."""
    http = Http(config.polymarket.hosts.gamma, pace, timeout=config.polymarket.request_timeout_seconds)
    try:
        reply = await http.request("GET", "/markets/keyset", query={"limit": "1", "condition_ids": market})
    finally:
        await http.close()
    if not reply.ok:
        return Check("market", "failed", f"the market cannot be looked up: {reply.error}", NETWORK)
    try:
        rows, _ = gamma.page(reply.body, "markets")
        found = gamma.candidate(rows[0], pace.now()) if rows else None
    except WireError as error:
        return Check("market", "failed", f"the listing cannot be read: {error}", "try again later")
    if found is None or found.instrument is None or found.facts.closed or not found.facts.accepting:
        why = (found.facts.refused if found else "") or "there is no open market of this id"
        return Check("market", "failed", f"{market}: {why}", "choose an open market, by its condition id (`llm-maker markets`)")
    instrument = found.instrument
    book = await clob.public("GET", "/book", query={"token_id": instrument.token_ids[0]})
    if not book.ok:
        return Check("market", "failed", f"its book cannot be read: {book.error}", "try again later, or choose another market")
    try:
        told = Fields(book.body, "book")
        bids, asks = ([row.units("price", PRICE_DECIMALS) for row in told.objects(side)] for side in ("bids", "asks"))
    except WireError as error:
        return Check("market", "failed", f"its book cannot be read: {error}", "choose another market")
    best_bid, best_ask = max((p for p in bids if p), default=None), min((p for p in asks if p), default=None)
    low, high = instrument.min_price, instrument.max_price
    # At the end of the grid that is further from the touch: there it costs least and nobody sells into it.
    if best_ask is not None and best_ask >= instrument.next_ask(low, FAR_TICKS):
        return instrument, Leg.YES, low
    if best_bid is not None and best_bid <= instrument.next_bid(high, FAR_TICKS):
        return instrument, Leg.NO, high
    return Check("market", "failed", f"{market} has no price that is far from the touch", "choose a market nearer to 0.50")


class _Trip:
    """One order, there and back."""

    def __init__(self, clob: Clob, signer: Signer, wallet: Wallet, pace: Pace, tell: Tell) -> None:
        self.clob, self.signer, self.wallet, self.pace, self.tell = clob, signer, wallet, pace, tell

    async def make(self, instrument: Instrument, leg: Leg, price: int) -> None:
        side = Side.BUY if leg is Leg.YES else Side.SELL
        qty = -(-instrument.min_qty // instrument.qty_step) * instrument.qty_step
        command = PlaceOrder(
            order_id="doctor", instrument=instrument.id, side=side, leg=leg, price=price, qty=qty, time_in_force=TimeInForce.GTC,
            post_only=True, reduce_only=False, reason="round trip", decided_ns=self.pace.now(),
        )  # fmt: skip
        made = draft(command, instrument, self.wallet)
        shares, cost = instrument.usd_qty(qty), usd(made.maker_amount)
        what = f"a bid for {shares:g} {leg.value.upper()} at {cost / shares:.4f}, ${cost:.2f} in all, on {instrument.question!r}"
        self.tell(Check("order", "ok", f"{what}; its id by our digest: {made.venue_id}"))
        # Until the venue has refused it, it may rest: whoever interrupts us must not leave it there.
        may_rest = True
        try:
            may_rest = await self._place(made)
        finally:
            if may_rest:
                await self._cancel(made.venue_id)

    async def _place(self, made: Draft) -> bool:
        """False: the venue has not taken it. Anything else may rest."""
        assert self.clob.credentials is not None
        body = order_json(
            made,
            order_signature(made, self.signer),
            owner=self.clob.credentials.key,
            order_type="GTC",
            expiration_s=0,
            post_only=True,
        )
        reply = await self.clob.private("POST", "/order", body=body)
        (answer,) = placed(reply, [made.venue_id], batch=False)
        if answer.fate is Fate.REJECTED:
            cure = answer.fault.cure if answer.fault else "see the venue's words; `llm-maker doctor` names the usual causes"
            self.tell(Check("placed", "failed", f"the venue refused it: {answer.detail or answer.reason}", cure))
            return False
        if answer.fate is Fate.UNKNOWN:
            self.tell(
                Check("placed", "warning", f"whether it was taken is not known: {answer.detail}", "it is looked up and cancelled")
            )
        elif answer.venue_id.lower() != made.venue_id:
            text = f"the venue calls it {answer.venue_id}, our digest is {made.venue_id}"
            self.tell(Check("placed", "failed", text, "do not trade; a newer llm_maker is needed"))
            await self._cancel(answer.venue_id)
            return False
        else:
            self.tell(Check("placed", "ok", f"taken as {answer.status}, under the id that we had computed"))
        status, _ = await self._seen(made.venue_id, resting=True)
        if status == "LIVE":
            self.tell(Check("live", "ok", "the venue shows it as live"))
        else:
            self.tell(Check("live", "failed", f"the venue shows it as {status or 'unknown to it'}", "try again later"))
        return True

    async def _cancel(self, venue_id: str) -> None:
        """Cancel, and look until it is proved gone."""
        reply = await self.clob.private("DELETE", "/order", body=msgspec.json.encode({"orderID": venue_id}))
        (answer,) = canceled(reply, [venue_id])
        status, matched = await self._seen(venue_id, resting=False)
        if status == "LIVE" or status is None or (not status and answer.ended is not Ended.CANCELED):
            told = "it still rests" if status == "LIVE" else "whether it rests is not known"
            self.tell(Check("gone", "failed", f"{told}: {venue_id} ({answer.detail or answer.ended})", BY_HAND))
        elif matched:
            self.tell(
                Check("gone", "warning", f"it is gone, but someone traded {matched} of it", "the shares are yours: see the site")
            )
        else:
            self.tell(Check("gone", "ok", "cancelled, and proved gone"))

    async def _seen(self, venue_id: str, *, resting: bool) -> tuple[str | None, str]:
        """Status and matched size as the venue tells them at last; "" where it has no such order, None where it does not say."""
        status: str | None = None
        matched = ""
        for _ in range(LOOKS):
            row = looked_up(await self.clob.private("GET", f"/data/order/{venue_id}"))
            if row is not None:
                try:
                    told = Fields(row, "order") if row else None
                    status = told.text("status").upper().removeprefix("ORDER_STATUS_") if told else ""
                    size = told.number("size_matched") if told else None
                    matched = f"{size:f}" if size else ""
                except WireError:
                    status = None
            if status is not None and (status == "LIVE") is resting:
                break
            await self.pace.sleep(1.0)
        return status, matched
