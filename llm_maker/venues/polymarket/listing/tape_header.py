"""A tape's header becomes Polymarket instruments, and instruments a header.

It knows how the venue words a market, its tick, fee, rebate and reward. It refuses to know frames, and who asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from llm_maker.core.values import FeeCurve, FeeRule, FixedGrid, Instrument, InstrumentId, Kind, RewardRule
from llm_maker.venues.polymarket.numbers import PAYOUT, PRICE_DECIMALS, QTY_DECIMALS, WireError, text_of, tick_grid, units

VENUE = "polymarket"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
QTY_STEP = 10 ** (QTY_DECIMALS - 2)
"""Orders take two decimals of a share (`polymarket.md` 4.3)."""
CTF, NEG_RISK = "ctf", "neg_risk"
"""The routes of protocol v1 (`polymarket.md` 1.4)."""
_REBATE_PPM = {"crypto": 200_000, "sports": 150_000}
_REBATE_PPM_OTHER = 250_000
"""Maker's share of the taker fee by category (`polymarket.md` 4.5), where a header or a listing does not tell it."""
_FEE_QUANTUM = 10
"""10^-5 USD, which is the least fee too."""


class _Listing(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One market in a tape's header; decimals are text. `reward` is (spread USD, shares, USD a day)."""

    condition_id: str
    token_ids: tuple[str, str]
    outcomes: tuple[str, ...]
    question: str
    tick_size: str
    min_order_size: str
    neg_risk: bool
    exclusive: bool | None = None
    """Where it is not what `neg_risk` says: exactly one market of the event pays."""
    fee_rate: str
    rebate_share: str | None = None
    reward: tuple[str, str, str] | None = None
    event_id: str = ""
    category: str = ""
    cluster: str = ""
    start_time: str | None = None
    end_time: str | None = None


def rebate_share(category: str) -> int:
    """Maker's share of the taker fee in a category, parts per million."""
    return _REBATE_PPM.get(category, _REBATE_PPM_OTHER)


def fee_rule(taker_ppm: int, rebate_ppm: int) -> FeeRule:
    """rate x p(1-p) of the taker alone, to 10^-5 USD and at least that (`polymarket.md` 4.5)."""
    return FeeRule(curve=FeeCurve.VARIANCE, taker_ppm=taker_ppm, rebate_ppm=rebate_ppm, quantum=_FEE_QUANTUM, minimum=_FEE_QUANTUM)


def instruments_from_header(header: dict[str, Any]) -> list[Instrument]:
    """A tape's header -> its instruments; raises `WireError` naming the market's place and the field.

    Without `end_time` the resolution guard is off. Without `rebate_share` the category's share of `polymarket.md` 4.5
    is used, 25 % where there is no category. Without `event_id` a market is its own event.
    """
    if header.get("venue") != VENUE:
        raise WireError("venue", f"expected {VENUE}", str(header.get("venue")))
    try:
        listings = msgspec.convert(header["instruments"], list[_Listing])
    except (KeyError, msgspec.ValidationError) as error:
        raise WireError("instruments", f"expected a list of markets: {error}") from error
    tokens = [token for listing in listings for token in listing.token_ids]
    if len(set(tokens)) != len(tokens):
        raise WireError("instruments", "a token is listed twice")
    found: list[Instrument] = []
    for place, listing in enumerate(listings):
        try:
            found.append(_instrument(listing))
        except WireError as fault:
            raise WireError(f"instruments[{place}].{fault.field}", fault.what, fault.text) from fault
    return found


def _instrument(listing: _Listing) -> Instrument:
    rebate = listing.rebate_share
    share = units(rebate, 6, "rebate_share") if rebate else rebate_share(listing.category)
    end_ns = _time("end_time", listing.end_time)
    return Instrument(
        id=InstrumentId(listing.condition_id),
        venue=VENUE,
        kind=Kind.BINARY,
        price_decimals=PRICE_DECIMALS,
        qty_decimals=QTY_DECIMALS,
        grid=tick_grid("tick_size", listing.tick_size),
        qty_step=QTY_STEP,
        min_qty=units(listing.min_order_size, QTY_DECIMALS, "min_order_size"),
        payout=PAYOUT,
        fee=fee_rule(units(listing.fee_rate, 6, "fee_rate"), share),
        reward=_reward(listing.reward),
        question=listing.question,
        outcomes=listing.outcomes,
        token_ids=listing.token_ids,
        event_id=listing.event_id or listing.condition_id,
        route=NEG_RISK if listing.neg_risk else CTF,
        exclusive=listing.neg_risk if listing.exclusive is None else listing.exclusive,
        cluster=listing.cluster,
        category=listing.category,
        start_ns=_time("start_time", listing.start_time),
        end_ns=end_ns,
        guard_start=False,  # a tape is played with paper money, which goes without the guard
        guard_end=end_ns is not None,
    )


def header_from_instruments(instruments: Iterable[Instrument], source: str = "") -> dict[str, Any]:
    """The header of a tape of these instruments; `instruments_from_header` gives the same instruments back.

    Times are kept to the microsecond.
    """
    listings = [msgspec.to_builtins(_listing(instrument)) for instrument in instruments]
    return {"tape": 1, "venue": VENUE, "source": source, "instruments": listings}


def _listing(instrument: Instrument) -> _Listing:
    assert isinstance(instrument.grid, FixedGrid) and len(instrument.token_ids) == 2, "an instrument of this venue"
    reward, own_event = instrument.reward, instrument.event_id == instrument.id
    # Instruments of other venues have no route; what pays exclusively is written as the venue would.
    neg_risk = instrument.route == NEG_RISK if instrument.route else instrument.exclusive
    return _Listing(
        condition_id=instrument.id,
        token_ids=(instrument.token_ids[0], instrument.token_ids[1]),
        outcomes=instrument.outcomes,
        question=instrument.question,
        tick_size=text_of(instrument.grid.step, PRICE_DECIMALS),
        min_order_size=text_of(instrument.min_qty, QTY_DECIMALS),
        neg_risk=neg_risk,
        exclusive=None if instrument.exclusive == neg_risk else instrument.exclusive,
        fee_rate=text_of(instrument.fee.taker_ppm, 6),
        rebate_share=text_of(instrument.fee.rebate_ppm, 6),
        reward=_reward_text(reward) if reward else None,
        event_id="" if own_event else instrument.event_id,
        category=instrument.category,
        cluster=instrument.cluster,
        start_time=_time_text(instrument.start_ns),
        end_time=_time_text(instrument.end_ns),
    )


def _reward(told: tuple[str, str, str] | None) -> RewardRule | None:
    if told is None:
        return None
    spread, shares, pool = told
    return RewardRule(units(spread, PRICE_DECIMALS, "reward"), units(shares, QTY_DECIMALS, "reward"), units(pool, 6, "reward"))


def _reward_text(rule: RewardRule) -> tuple[str, str, str]:
    return text_of(rule.max_spread, PRICE_DECIMALS), text_of(rule.min_qty, QTY_DECIMALS), text_of(rule.pool_per_day, 6)


def _time(field: str, text: str | None) -> int | None:
    """ISO 8601 with an offset -> ns."""
    if text is None:
        return None
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except (ValueError, TypeError) as error:
        raise WireError(field, "not an ISO 8601 time with an offset", text) from error
    return since // timedelta(microseconds=1) * 1000


def _time_text(ns: int | None) -> str | None:
    return None if ns is None else (_EPOCH + timedelta(microseconds=ns // 1000)).isoformat()
