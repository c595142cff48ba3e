"""The board as Prometheus text: names `llm_maker_...` with their units, one account a daemon, labels that cannot grow without end.

Loads prometheus_client; `http_wire.py` imports this in a thread. Nothing is kept between two scrapes: what is shown is the board.
What can fall again (money that a failed settlement takes back) is a gauge, whatever it adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
PREFIX = "llm_maker_"
MAX_MARKETS, MAX_LABELS = 200, 50
_QUESTION_CHARS = 80
_MODES = ("active", "reduce_only", "halted")

_MONEY = {
    "equity": ("equity_usd", "What the account is worth, positions at the mid"),
    "exit": ("exit_equity_usd", "What it would be worth if every position were left now by crossing"),
    "cash": ("cash_usd", "Cash"),
    "pnl": ("pnl_usd", "Gained or lost since the account began, transfers out"),
    "today": ("pnl_today_usd", "Gained or lost since the UTC day began"),
    "drawdown": ("drawdown_usd", "Below the highest equity so far"),
    "exposure": ("exposure_usd", "Lost at worst by all that rests and is held"),
    "bankroll": ("bankroll_usd", "What the limits are measured by"),
    "daily_loss_limit": ("daily_loss_limit_usd", "A loss of a UTC day that halts"),
    "drawdown_limit": ("drawdown_limit_usd", "A drawdown that halts"),
    "model_cost_today": ("model_cost_today_usd", "Paid for the model since the UTC day began"),
    "model_budget": ("model_budget_usd", "What the model may cost a UTC day"),
    "earned_spread": ("spread_earned_usd", "Captured against the mid by our fills"),
    "fees": ("fees_paid_usd", "Paid to the venue"),
    "rebates": ("rebates_usd", "Received from the venue for making"),
    "rewards": ("rewards_usd", "Received from the venue for quoting"),
}
_COUNTS = {
    "placed": ("orders_placed_total", "Orders sent"),
    "canceled": ("orders_canceled_total", "Orders canceled"),
    "unknown": ("orders_went_unknown_total", "Orders of which it was for a while not known whether they rest"),
    "fills": ("fills_total", "Fills"),
    "overfills": ("overfills_total", "Fills beyond an order's size"),
    "failed_settlements": ("failed_settlements_total", "Fills that the venue took back"),
    "merges": ("merges_total", "Complete sets turned back to cash, in times it was done"),
    "decisions": ("decisions_total", "Valid answers of the model"),
    "failures": ("decision_failures_total", "Cycles without a valid answer"),
    "signals": ("signals_total", "Opinions taken"),
    "signals_refused": ("signals_refused_total", "Opinions refused"),
    "fallbacks": ("fallbacks_total", "Times the model was given up for rules"),
    "gaps": ("book_gaps_total", "Books emptied because they could not be trusted"),
    "halts": ("halts_total", "Halts"),
}
_HEALTH: dict[str, tuple[str, str, float]] = {
    "rss_mb": ("resident_memory_bytes", "Memory the process holds", 1 << 20),
    "uptime_s": ("uptime_seconds", "Since the daemon started, wall time", 1.0),
    "tasks": ("tasks", "Tasks of the event loop", 1.0),
    "inbox": ("inbox_events", "Events that wait to be handled", 1.0),
    "loop_delay_ms": ("loop_delay_seconds", "The longest delay of the event loop in the last minute", 1e-3),
    "journal_mb": ("journal_bytes", "Size of the journal on disk", 1 << 20),
}
_VENUE: dict[str, tuple[str, str, float]] = {
    "up": ("venue_up", "1: connected", 1.0),
    "lag_ms": ("venue_lag_seconds", "Delay of the feed beyond its smallest so far", 1e-3),
    "lagging": ("venue_lagging", "1: the feed is too late to quote by", 1.0),
    "silent": ("venue_silent", "1: nothing has been heard for too long", 1.0),
    "heard_s": ("venue_heard_age_seconds", "Since anything was heard", 1.0),
}
_MARKET = {
    "pnl_usd": ("market_pnl_usd", "Gained or lost in a market, marked at the mid"),
    "position": ("market_position_shares", "Net YES shares; minus is NO"),
    "worst_usd": ("market_worst_usd", "Lost at worst in a market if everything that rests fills"),
    "bid": ("market_bid_usd", "Best bid of the book"),
    "ask": ("market_ask_usd", "Best ask of the book"),
    "fair": ("market_fair_usd", "What we hold for the fair price"),
    "book_age_s": ("market_book_age_seconds", "Since the book changed"),
    "weight": ("market_signal_weight", "Weight of the model's opinion, 0 to 1"),
    "reward_share": ("market_reward_share", "Our estimated share of the venue's reward, 0 to 1"),
}


class _One(Collector):
    """What `generate_latest` asks: one family."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def parts(board: dict[str, Any]) -> Iterator[bytes]:
    """A `shapes.Board` -> the text of `/metrics`, a family at a time: all of it takes milliseconds, which nobody need wait for."""
    for family in chain(_whole(board), _counted(board), _venues(board["venues"]), _markets(board["rows"])):
        yield generate_latest(_One(family))


def _gauge(name: str, text: str, value: Any, factor: float = 1.0) -> Metric:
    """One number; None: the family without a sample."""
    family = GaugeMetricFamily(PREFIX + name, text)
    if value is not None:
        family.add_metric([], float(value) * factor)
    return family


def _counter(name: str, text: str, value: Any) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=float(value))


def _by(
    name: str, text: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], Any]], *, rising: bool = False
) -> Metric:
    family = (CounterMetricFamily if rising else GaugeMetricFamily)(PREFIX + name, text, labels=labels)
    for of, value in values:
        if value is not None:
            family.add_metric(of, float(value))
    return family


def _whole(board: dict[str, Any]) -> Iterator[Metric]:
    about = tuple(str(board[name]) for name in ("version", "account", "venue", "provider"))
    yield _by("info", "What runs", ("version", "account", "venue", "provider"), [(about, 1)])
    yield _gauge("real_money", "1: real orders with real money; 0: paper", board["real_money"])
    yield _gauge("simulated", "1: the market itself is simulated", board["simulated"])
    yield _gauge("market_time_seconds", "Market time, seconds since 1970", board["now_ns"], 1e-9)
    yield _by("mode", "1: the daemon's mode is this", ("mode",), [((mode,), mode == board["mode"]) for mode in _MODES])
    for key, (name, text) in _MONEY.items():
        yield _gauge(name, text, board["money"].get(key))
    slow = board["slow_loop"]
    yield _gauge("model_fallback", "1: the model failed and rules trade alone", slow["mode"] == "FALLBACK")
    yield _gauge("model_failures_in_a_row", "Cycles without a valid answer since the last valid one", slow.get("failures_in_a_row"))
    yield _gauge("orders_open", "Orders of ours that may rest", board["orders"])
    yield _gauge("orders_unknown", "Orders of ours of which it is not known whether they rest", len(board["unknown_orders"]))
    yield _gauge("orders_foreign", "Resting orders of the account that are not ours", board["foreign_orders"])
    yield _gauge("intents_waiting", "Wishes that wait for approval", len(board["intents"]))
    twin = board["twin"] or {}
    yield _gauge("twin_difference_usd", "P&L of this account above that of its twin without the model", twin.get("difference_usd"))
    for key, (name, text, factor) in _HEALTH.items():
        yield _gauge(name, text, board["health"].get(key), factor)
    yield _gauge("storage_failed", "1: the journal cannot be written", bool(board["health"].get("storage_failed")))
    alarms = sorted((a["code"], a["level"]) for a in board["alarms"] if a["standing"])
    told = {each: alarms.count(each) for each in sorted(set(alarms))[:MAX_LABELS]}
    yield _by("alarms", "What is wrong now", ("code", "level"), told.items())


def _counted(board: dict[str, Any]) -> Iterator[Metric]:
    for key, (name, text) in _COUNTS.items():
        yield _counter(name, text, board["counts"][key])
    yield _counter("events_total", "Events handled in this run", board["health"].get("events", 0))
    yield _counter("model_cost_usd_total", "Paid for the model", max(0.0, board["money"]["model_cost"]))
    refused = [((reason,), count) for reason, count in sorted(board["refused"].items())[:MAX_LABELS]]
    yield _by("refusals_total", "Times risk refused, by reason", ("reason",), refused, rising=True)


def _venues(venues: dict[str, dict[str, Any]]) -> Iterator[Metric]:
    for key, (name, text, factor) in _VENUE.items():
        values = [((venue,), None if told.get(key) is None else told[key] * factor) for venue, told in venues.items()]
        yield _by(name, text, ("venue",), values)


def _markets(rows: list[dict[str, Any]]) -> Iterator[Metric]:
    modes = [row["mode"] for row in rows]
    yield _by("markets", "Markets by mode, shown here or not", ("mode",), [((mode,), modes.count(mode)) for mode in _MODES])
    rows = rows[:MAX_MARKETS]
    named = [((row["market_id"], _plain(row["question"])), 1) for row in rows]
    yield _by("market_info", "The question of a market", ("market_id", "question"), named)
    yield _by(
        "market_quoted_sides",
        "On how many sides an order of ours rests",
        ("market_id",),
        [((row["market_id"],), _sides(row)) for row in rows],
    )
    for key, (name, text) in _MARKET.items():
        yield _by(name, text, ("market_id",), [((row["market_id"],), row[key]) for row in rows])


def _sides(row: dict[str, Any]) -> int:
    return bool(row["our_bid"]) + bool(row["our_ask"])


def _plain(text: str) -> str:
    """Words from outside, for a label: one short line of what can be printed."""
    return "".join(c if c.isprintable() else " " for c in text)[:_QUESTION_CHARS].strip()
