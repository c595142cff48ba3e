"""Gamma's listings, and the CLOB's word over them, become candidates: an instrument and what is told of it, or why not.

Pure (`polymarket.md` 2.1, 2.2, 4.5): no socket, no clock. A row that cannot be read is a candidate that says so; nothing here
raises for what a row holds. Which protocol a market is of is told by `version` alone, never by which ids it carries (1.4). Which
markets are wanted is the universe's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from llm_maker.core.values import NS_PER_S, FeeRule, Instrument, InstrumentId, Kind, RewardRule
from llm_maker.universe import Candidate, Facts
from llm_maker.venues.polymarket.listing.fields import Fields
from llm_maker.venues.polymarket.listing.tape_header import CTF, NEG_RISK, QTY_STEP, VENUE, fee_rule, rebate_share
from llm_maker.venues.polymarket.numbers import PAYOUT, PRICE_DECIMALS, QTY_DECIMALS, WireError, tick_grid

NOT_YET = "the order book does not know it yet"
"""A market is active on Gamma minutes before the CLOB has it (`polymarket.md` 2.1)."""
RULES_CHARS = 2_000
"""Of a market's description: more than any prompt shows of it, and little enough to hold a whole survey."""
_CASH_DECIMALS = 6
_CENTS_DECIMALS = PRICE_DECIMALS - 2
_RATE_PPM = {
    "crypto": 70_000,
    "sports": 50_000,
    "politics": 40_000,
    "finance": 40_000,
    "tech": 40_000,
    "mentions": 40_000,
    "economics": 50_000,
    "culture": 50_000,
    "weather": 50_000,
    "geopolitics": 0,
}
"""Taker rates by category (`polymarket.md` 4.5), for a market that says it has fees but not which."""
_RATE_PPM_OTHER = 50_000
_PLACEHOLDER = re.compile(
    r"other|[a-z]+ [a-z]|(person|individual|candidate|player|party|team|option|outcome|name|company|country|movie|artist) [a-z]{2}",
    re.IGNORECASE,
)
"""An outcome whose name is still to come: "Person A", "Candidate AB"; and "Other", which shrinks with every name that comes."""


def page(body: bytes, key: str) -> tuple[list[msgspec.Raw], str]:
    """One page of a keyset listing: its rows, and the cursor of the next ("": it was the last). Raises `WireError`."""
    told = Fields(body, "page")
    if not told.has(key):
        raise WireError(key, "missing")
    return told.raws(key), told.text("next_cursor")


def event_rows(body: bytes) -> tuple[Fields, list[msgspec.Raw]]:
    """One event, and the rows of its markets, which do not tell of the event themselves. Raises `WireError`."""
    event = Fields(body, "event")
    return event, event.raws("markets")


def candidate(raw: bytes | msgspec.Raw, now: int, event: Fields | None = None) -> Candidate:
    """A row of a listing as a candidate; `event` is the one it stood in, where it does not tell its own.

    Whatever can be written down as an instrument is, also what is refused or closed: a position may stand in it.
    """
    name, question = "a row without an id", ""
    try:
        row = Fields(raw, "market")
        name = row.text("conditionId") or f"gamma {row.text('id')}"
        question = row.text("question")
        own = row.objects("events")
        of = own[0] if own else event
        facts, alien = _facts(row, of, now), _alien(row)
        if alien:
            return Candidate(name, question, replace(facts, refused=alien))
        return Candidate(name, question, replace(facts, refused=_refusal(row, of)), _instrument(row, of, now), _rules(row))
    except WireError as fault:
        return Candidate(name, question, Facts(refused=f"its listing cannot be read: {fault}"))


def refine(known: Candidate, body: bytes) -> Candidate:
    """The same candidate with what GET /clob-markets says standing over its listing: tick, sizes, fee, route, tokens."""
    assert known.instrument is not None, "only what can be written down is asked for"
    try:
        return _refined(known, known.instrument, Fields(body, "clob-markets"))
    except WireError as fault:
        return _refused(known, f"its order book's rules cannot be read: {fault}")


def unknown_yet(known: Candidate) -> Candidate:
    """The CLOB has no such market, or none with tokens."""
    return _refused(known, NOT_YET)


def winner(body: bytes, instrument: Instrument) -> int | None:
    """What one YES share pays by GET /markets/{id} of the CLOB: closed, and exactly one of our tokens won. Raises `WireError`."""
    told = Fields(body, "market")
    won = [token.text("token_id") for token in told.objects("tokens") if token.flag("winner")]
    if not told.flag("closed") or len(won) != 1:
        return None
    if won[0] not in instrument.token_ids:
        raise WireError("tokens", "the winner is not a token of the market", won[0])
    return instrument.payout if won[0] == instrument.token_ids[0] else 0


# What a row tells.


def _rules(row: Fields) -> str:
    """Only shown, never read: without it a market is as good."""
    try:
        return row.text("description")[:RULES_CHARS]
    except WireError:
        return ""


def _facts(row: Fields, event: Fields | None, now: int) -> Facts:
    closed = bool(row.flag("closed") or row.flag("archived"))
    bid, ask = row.about("bestBid", PRICE_DECIMALS), row.about("bestAsk", PRICE_DECIMALS)
    spread, price = row.about("spread", PRICE_DECIMALS), row.about("lastTradePrice", PRICE_DECIMALS)
    if bid and ask and bid < ask < PAYOUT:
        spread, price = ask - bid, (bid + ask) // 2
    if price is not None and _yes(row):
        price = PAYOUT - price
    return Facts(
        slug=row.text("slug"),
        event_slug=event.text("slug") if event else "",
        event_id=event.text("id") if event else "",
        tags=_tags((row, event)),
        volume_24h=row.about("volume24hr", _CASH_DECIMALS),
        liquidity=row.about("liquidityNum", _CASH_DECIMALS),
        spread=spread,
        price=price,
        reward_per_day=_pool(row, now),
        accepting=bool(row.flag("acceptingOrders")) and row.flag("active") is not False,
        closed=closed,
        paid=_paid(row) if closed else None,
    )


def _tags(told_by: Iterable[Fields | None]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for holder in told_by:
        for tag in holder.objects("tags") if holder else ():
            found |= {text: None for text in (tag.text("id"), tag.text("slug"), tag.text("label")) if text}
    return tuple(found)


def _pool(row: Fields, now: int) -> int:
    """Liquidity reward a day, cash units: the sum of what runs today (UTC)."""
    today = datetime.fromtimestamp(now // NS_PER_S, UTC).date().isoformat()
    total = 0
    for reward in row.objects("clobRewards"):
        first, last = reward.text("startDate")[:10], reward.text("endDate")[:10]
        if first <= today and (not last or today <= last):
            total += reward.about("rewardsDailyRate", _CASH_DECIMALS) or 0
    return total


def _paid(row: Fields) -> int | None:
    """What one YES share pays; only UMA's last word with prices that say it exactly counts: a closing price is none."""
    prices = row.texts("outcomePrices")
    if row.text("umaResolutionStatus") != "resolved" or len(prices) != 2:
        return None
    yes = {"1": PAYOUT, "0": 0, "0.5": PAYOUT // 2}
    both = [yes.get(_plain(price)) for price in prices]
    if None in both or both[0] + both[1] != PAYOUT:  # type: ignore[operator]
        return None
    return both[_yes(row)]


def _plain(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def _yes(row: Fields) -> int:
    """Which outcome plays YES: the one of that name, else the first."""
    return 1 if [name.casefold() for name in row.texts("outcomes")] == ["no", "yes"] else 0


# Why not.


def _alien(row: Fields) -> str:
    """Why nothing of ours can be made of it."""
    version = row.text("version")
    if version != "v1":
        name = {"v2": "protocol v2", "": "its protocol version is not told"}.get(version, f"unknown protocol {version!r}")
        return f"{name}: not traded by this version"
    outcomes = len(row.texts("outcomes"))
    if outcomes != 2:
        return f"has {outcomes} outcomes: only markets of two are traded"
    return "" if row.texts("clobTokenIds") else NOT_YET


def _refusal(row: Fields, event: Fields | None) -> str:
    if not row.flag("enableOrderBook"):
        return "has no order book"
    if event is not None and event.flag("negRiskAugmented"):
        title = row.text("groupItemTitle").strip()
        if not title or row.flag("negRiskOther") or _PLACEHOLDER.fullmatch(title):
            return f"unnamed outcome of an augmented event: {title or 'no name'}"
    schedule = row.object("feeSchedule")
    return _strange_fee(schedule, "rate", "exponent", "takerOnly") if schedule and row.flag("feesEnabled") is not False else ""


def _strange_fee(told: Fields, rate: str, exponent: str, taker_only: str) -> str:
    """A fee that our rule, rate x p(1-p) of the taker alone, would get wrong."""
    if not told.number(rate):
        return ""
    power = told.number(exponent)
    if power is not None and power != 1:
        return f"fee exponent {power:f}: this version knows 1"
    return "makers pay its fee too: not traded by this version" if told.flag(taker_only) is False else ""


def _refused(known: Candidate, why: str) -> Candidate:
    return Candidate(known.id, known.question, replace(known.facts, refused=why), known.instrument)


# The instrument.


def _instrument(row: Fields, event: Fields | None, now: int) -> Instrument:
    condition = row.text("conditionId")
    if not condition:
        raise WireError("conditionId", "missing")
    tokens, outcomes = row.texts("clobTokenIds"), row.texts("outcomes")
    if len(tokens) != 2 or tokens[0] == tokens[1]:
        raise WireError("clobTokenIds", "not two tokens")
    if _yes(row):
        tokens, outcomes = tokens[::-1], outcomes[::-1]
    neg_risk = bool(row.flag("negRisk"))
    category = _category(row, event)
    return Instrument(
        id=InstrumentId(condition),
        venue=VENUE,
        kind=Kind.BINARY,
        price_decimals=PRICE_DECIMALS,
        qty_decimals=QTY_DECIMALS,
        grid=tick_grid("orderPriceMinTickSize", _told(row, "orderPriceMinTickSize")),
        qty_step=QTY_STEP,
        min_qty=_some(row.units("orderMinSize", QTY_DECIMALS), "orderMinSize"),
        payout=PAYOUT,
        fee=_fee(row, category),
        reward=_reward(row, now),
        question=row.text("question"),
        outcomes=outcomes,
        token_ids=tokens,
        route=NEG_RISK if neg_risk else CTF,
        event_id=(event.text("id") if event else "") or condition,
        # An augmented event's winner may be an outcome that has no market of its own yet, and its Other changes meaning:
        # losses of its markets are then summed, never netted.
        exclusive=neg_risk and not (event is not None and event.flag("negRiskAugmented")),
        category=category,
        start_ns=row.time("gameStartTime"),
        guard_start=_of_a_game(row, event, category),
        end_ns=row.time("endDate"),
    )


def _of_a_game(row: Fields, event: Fields | None, category: str) -> bool:
    """The market is about something with a start, so that a start which is not told is missing (`polymarket.md` 2.1)."""
    games = {"sports", "esports", "games"}
    told = any(row.has(name) and row.text(name) for name in ("gameId", "sportsMarketType", "gameStartTime"))
    return told or category in games or any(tag.casefold() in games for tag in _tags((row, event)))


def _told(row: Fields, name: str) -> str:
    """A number as plain text."""
    value = row.number(name)
    if value is None:
        raise WireError(name, "missing")
    return f"{value:f}"


def _some(value: int | None, name: str) -> int:
    if value is None:
        raise WireError(name, "missing")
    return value


def _category(row: Fields, event: Fields | None) -> str:
    """The venue's own word, else the one its fee is named after, else the first tag that is one; lower case."""
    category = row.text("category").casefold()
    if category:
        return category
    kind = row.text("feeType").casefold().partition("_")[0]
    return next((name for name in (kind, *map(str.casefold, _tags((row, event)))) if name in _RATE_PPM), "")


def _fee(row: Fields, category: str) -> FeeRule:
    """Makers pay nothing; without fees there is nothing to pay back either."""
    schedule, enabled = row.object("feeSchedule"), row.flag("feesEnabled")
    if enabled is False or (enabled is None and schedule is None):
        return fee_rule(0, 0)
    rate = schedule.units("rate", 6) if schedule else None
    share = schedule.units("rebateRate", 6) if schedule else None
    return fee_rule(
        _RATE_PPM.get(category, _RATE_PPM_OTHER) if rate is None else rate, rebate_share(category) if share is None else share
    )


def _reward(row: Fields, now: int) -> RewardRule | None:
    """None where nothing is paid today: the spread and size that Gamma shows for every market are then no rule."""
    pool, spread = _pool(row, now), row.units("rewardsMaxSpread", _CENTS_DECIMALS)
    return RewardRule(spread, row.units("rewardsMinSize", QTY_DECIMALS) or 0, pool) if pool and spread else None


def _refined(known: Candidate, instrument: Instrument, told: Fields) -> Candidate:
    tokens = [token.text("t") for token in told.objects("t")]
    if not any(tokens):
        return unknown_yet(known)
    if sorted(tokens) != sorted(instrument.token_ids):
        return _refused(known, "its order book is of other tokens than its listing")
    fee, reward, refused = instrument.fee, instrument.reward, known.facts.refused
    terms, paid = told.object("fd"), told.object("r")
    if terms is not None and terms.has("r"):
        rate = _some(terms.units("r", 6), "fd.r")
        fee = fee_rule(rate, fee.rebate_ppm or (rebate_share(instrument.category) if rate else 0))
        refused = refused or _strange_fee(terms, "r", "e", "to")
    if reward is not None and paid is not None:
        spread, least = paid.units("ma", _CENTS_DECIMALS), paid.units("mi", QTY_DECIMALS)
        reward = RewardRule(spread or reward.max_spread, reward.min_qty if least is None else least, reward.pool_per_day)
    neg_risk = told.flag("nr")
    route = instrument.route if neg_risk is None else NEG_RISK if neg_risk else CTF
    least = told.units("mos", QTY_DECIMALS)
    refined = replace(
        instrument,
        grid=tick_grid("mts", _told(told, "mts")) if told.has("mts") else instrument.grid,
        min_qty=instrument.min_qty if least is None else least,
        fee=fee,
        reward=reward,
        route=route,
        exclusive=instrument.exclusive and route == NEG_RISK,
        start_ns=instrument.start_ns if instrument.start_ns is not None else told.time("gst"),
    )
    accepting = known.facts.accepting and told.flag("ao") is not False
    return Candidate(known.id, known.question, replace(known.facts, refused=refused, accepting=accepting), refined, known.rules)
