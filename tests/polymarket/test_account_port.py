"""The account of a key as the daemon's port: what it knows, whenever it hears of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from llm_maker.config import Config
from llm_maker.keys import Secrets
from llm_maker.live import AccountPort
from llm_maker.venues.polymarket.orders.sign import Signer
from tests.polymarket.test_venue import KEY, MARKET, place


class Venue:
    def __init__(self) -> None:
        self.told: list[Any] = []

    def know(self, instrument: Any) -> None:
        self.told.append(("know", instrument))

    def execute(self, command: Any) -> None:
        self.told.append(("execute", command))

    def flush(self) -> None:
        self.told.append("flush")


def test_a_market_found_while_it_runs_is_known_to_the_venue_and_commands_are_flushed():
    live: Any = SimpleNamespace(state=lambda: SimpleNamespace(orders={}), config=Config())
    port = AccountPort(live, Secrets({"LLM_MAKER_PK": KEY, "LLM_MAKER_BROWSER_ADDRESS": Signer(KEY).address}))
    port.know(MARKET)
    port.execute(place("0-1"))
    port.flush()
    assert port.own.instruments == [MARKET]
    venue: Any = Venue()
    port.venue = venue
    newer = msgspec.structs.replace(MARKET, min_qty=10_000_000)
    port.know(newer)
    port.execute(place("1-1"))
    port.flush()
    assert venue.told == [("know", newer), ("execute", place("1-1")), "flush"]
