"""The limits that docs/venues.md tells are those that the program keeps to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llm_maker.config import Config
from llm_maker.core import order_events
from llm_maker.core.values import NS_PER_S
from llm_maker.venues.paper import regimes as simulated
from llm_maker.venues.polymarket import rest
from llm_maker.venues.polymarket.listing import survey
from llm_maker.venues.polymarket.numbers import tick_grid
from llm_maker.venues.polymarket.orders import entry, heartbeat, regimes, tickets

PAGE = (Path(__file__).parent.parent / "docs" / "venues.md").read_text(encoding="utf-8")
SETTINGS, CONFIG = entry.VenueSettings(), Config()


def row(first: str) -> str:
    """The line of a table that begins with these words."""
    (found,) = re.findall(rf"^\| {re.escape(first)}.*$", PAGE, re.MULTILINE)
    return str(found)


def whole(value: float) -> str:
    return f"{value:,g}" if value < 1e6 else str(value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("orders in a request", f"{entry.MAX_ORDERS}, {entry.MAX_CANCELS:,}"),
        ("life", f"at least {tickets.GTD_LEAST_S // 60} minutes ahead"),
        (
            "post-only",
            f"waits {order_events.HELD_OFF_CROSSED_NS // NS_PER_S} s, after any other {order_events.HELD_OFF_NS // NS_PER_S} s",
        ),
        ("orders, cancels of an account", f"{SETTINGS.orders_per_s:g} a second ({SETTINGS.orders_burst:g} at once)"),
        ("orders, cancels of an account", f"{SETTINGS.cancels_per_s:g} ({SETTINGS.cancels_burst:g})"),
        ("HTTP by address", f"{whole(rest.CLOB_LIMITS[('*', '/')][0] * 10)} in 10 s"),
        ("HTTP by address", f"books {whole(rest.CLOB_LIMITS[('POST', '/books')][0] * 10)}"),
        ("HTTP by address", f"one book {whole(rest.CLOB_LIMITS[('GET', '/book')][0] * 10)}"),
        ("HTTP by address", f"account lists {whole(rest.CLOB_LIMITS[('GET', '/data/')][0] * 10)}"),
        ("HTTP by address", f"balances {whole(rest.CLOB_LIMITS[('GET', '/balance-allowance')][0] * 10)}"),
        ("what we allow ourselves", f"({CONFIG.risk.messages_per_10s})"),
        ("listings", f"the {survey.PAGE * survey.PAGES:,} busiest markets"),
        ("tokens on a socket", f"{CONFIG.polymarket.assets_per_socket} is what"),
        ("tick, least size", f"{simulated.TICK / simulated.PAYOUT:g}; {simulated.MIN_QTY // simulated.SHARE} shares"),
        ("fees", f"{simulated.FEE.taker_ppm / 1e6:g} p(1-p)"),
        ("markets", f"({CONFIG.paper.markets})"),
    ],
)
def test_a_number_of_the_page_is_the_programs(line: str, words: str):
    assert words in row(line), words


def test_the_times_of_the_page_are_the_programs():
    assert regimes.POST_ONLY_S == 120 and "post_only for two minutes" in PAGE
    assert f"A beat every {heartbeat.EVERY_S:g} s; {heartbeat.DEADLINE_S:g} to 15 s after" in PAGE


def test_every_tick_of_the_page_is_one_that_the_program_takes():
    for tick in re.findall(r"0\.\d+", row("price").split("(")[1].split(")")[0]):
        assert tick_grid("tick", tick).step


def test_a_venue_of_the_last_part_is_refused():
    for name in ("kalshi", "hyperliquid", "pacifica"):
        assert f"**{name.capitalize()}.**" in PAGE
        with pytest.raises(ValueError, match="venue"):
            Config.model_validate({"venue": name})
