"""Rows of Gamma and replies of the CLOB in the wire's shapes, for tests of what is made of them."""

from __future__ import annotations

import json
from typing import Any

from llm_maker.core.values import NS_PER_S

NOW = 1_790_000_000 * NS_PER_S
"""2026-09-21T14:13:20Z."""


def condition(number: int) -> str:
    return f"0x{number:064x}"


def tokens(number: int) -> list[str]:
    return [f"{number}000000000000000000000000000000000000000000000000000000000000000000001", f"{number}2"]


def row(number: int = 1, **changes: Any) -> dict[str, Any]:
    """An ordinary open market that pays a reward; a value of `...` takes the field away."""
    told: dict[str, Any] = {
        "id": str(500_000 + number),
        "question": f"Will it rain in town {number}?",
        "conditionId": condition(number),
        "slug": f"rain-in-town-{number}",
        "version": "v1",
        "outcomes": json.dumps(["Yes", "No"]),
        "outcomePrices": json.dumps(["0.535", "0.465"]),
        "clobTokenIds": json.dumps(tokens(number)),
        "positionIds": ["77", "78"],
        "active": True,
        "closed": False,
        "archived": False,
        "acceptingOrders": True,
        "enableOrderBook": True,
        "negRisk": False,
        "orderPriceMinTickSize": 0.01,
        "orderMinSize": 5,
        "endDate": "2026-12-31T12:00:00Z",
        "feesEnabled": True,
        "feeType": "weather_fees",
        "feeSchedule": {"exponent": 1, "rate": 0.05, "rebateRate": 0.25, "takerOnly": True},
        "makerBaseFee": 1000,
        "takerBaseFee": 1000,
        "rewardsMinSize": 20,
        "rewardsMaxSpread": 4.5,
        "clobRewards": [{"id": "1", "conditionId": condition(number), "rewardsAmount": 0, "rewardsDailyRate": 3.5,
                         "startDate": "2026-04-29", "endDate": "2500-12-31"}],
        "bestBid": 0.53,
        "bestAsk": 0.54,
        "spread": 0.009,
        "lastTradePrice": 0.52,
        "volume24hr": 1234.5678909,
        "volumeNum": 99_999.9,
        "liquidityNum": 20328.3747,
        "umaResolutionStatus": "",
        "umaResolutionStatuses": "[]",
        "events": [{"id": "260654", "slug": "rain", "negRiskAugmented": False, "enableNegRisk": False}],
        "tags": [{"id": "9", "slug": "weather", "label": "Weather"}],
    }  # fmt: skip
    return {name: value for name, value in (told | changes).items() if value is not ...}


def raw(number: int = 1, **changes: Any) -> bytes:
    return json.dumps(row(number, **changes)).encode()


def compact(number: int = 1, **changes: Any) -> dict[str, Any]:
    """GET /clob-markets of the same market."""
    yes, no = tokens(number)
    told: dict[str, Any] = {
        "c": condition(number),
        "t": [{"t": yes, "o": "Yes"}, {"t": no, "o": "No"}],
        "mts": 0.01,
        "mos": 5,
        "nr": False,
        "mbf": 1000,
        "tbf": 1000,
        "fd": {"r": 0.05, "e": 1, "to": True},
        "r": {"mi": 20, "ma": 4.5, "moas": 30},
        "sd": 0,
        "itode": False,
    }
    return {name: value for name, value in (told | changes).items() if value is not ...}
