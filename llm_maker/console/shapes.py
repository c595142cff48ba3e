"""What a person is shown, as plain JSON: the answers of the reading verbs that `top`, the page and the metrics live on. Pure types.

USD, shares and seconds are numbers for the eye; None is "not known" or "none". Ids are never shortened. Text that came from outside
(a question, a reason, a model's words) is as it came: whoever draws it strips or escapes it.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Kind = Literal["decision", "signal", "order", "cancel", "fill", "settlement", "operator", "alarm", "notice"]


class Entry(TypedDict):
    """One thing that happened, for the stream: in words, with its numbers beside them."""

    n: int
    """Counts up from 1 within a run of the daemon."""
    ts_ns: int
    """Market time."""
    kind: Kind
    level: Literal["info", "warning", "error"]
    code: str
    """Of a notice or an alarm (`console/alarms.py`); the verb of an operator's action; else empty."""
    market_id: str
    text: str
    """One line: what happened and why."""
    cure: str
    """Of an alarm: the command that helps; else empty."""
    facts: dict[str, Any]
    """By kind. order: order_id, side, price, shares, reason, decision_id. fill: order_id, fill_id, side, price, shares, fee_usd,
    mid. cancel: order_id, reason. signal: action, confidence, p_yes, model, reasoning, decision_id. decision: decision_id, model,
    signals, cost_usd, outcome."""


class Row(TypedDict):
    """One market in a row."""

    market_id: str
    question: str
    mode: str
    """active, reduce_only, halted."""
    why: str
    """What keeps quotes away, or some of them; empty: nothing does."""
    bid: float
    ask: float
    """Of the book, USD; 0: none."""
    our_bid: float
    our_ask: float
    """0: none rests."""
    our_bid_shares: float
    our_ask_shares: float
    bid_ahead: float | None
    ask_ahead: float | None
    """Shares ahead of our best order of a side, as far as it is known: at most this; None: nothing rests, or not known."""
    book_age_s: float | None
    """Since the book of this market last changed or was confirmed."""
    fair: float
    position: float
    """Net YES shares, minus is NO."""
    avg_price: float | None
    pnl_usd: float
    """Of this market since it was first traded, marked at the mid."""
    worst_usd: float
    """Lost at worst if everything resting fills."""
    signal: str
    confidence: float | None
    signal_age_s: float | None
    weight: float
    exit: str
    reward_usd_per_day: float | None
    """What the venue pays here a day; None: no programme."""
    reward_share: float | None
    """Our estimated share of it by what rests now, 0 to 1; None: no programme, or not known."""


class Alarm(TypedDict):
    """One thing that is wrong now, or went wrong lately and nobody has dealt with: newest first."""

    code: str
    level: Literal["info", "warning", "error"]
    text: str
    cure: str
    market_id: str
    since_ns: int
    count: int
    """How often it was raised since then."""
    standing: bool
    """True while it is so; False: it happened, and is shown for a while."""


class Money(TypedDict):
    """USD."""

    equity: float
    exit: float
    """Equity if everything were left now by crossing."""
    cash: float
    pnl: float
    """Since the account began, transfers out."""
    today: float | None
    drawdown: float
    """Below the highest equity so far; 0 or more."""
    exposure: float
    """Worst case of all that rests and is held."""
    bankroll: float
    daily_loss_limit: float
    drawdown_limit: float
    model_cost: float
    model_cost_today: float | None
    model_budget: float | None
    """A day's; None: no model is paid."""
    earned_spread: float
    fees: float
    """Paid: plus is a cost."""
    rebates: float
    rewards: float


class Board(TypedDict):
    """The answer of `board`: everything a screen shows at a glance."""

    ok: Literal[True]
    version: str
    account: str
    real_money: bool
    simulated: bool
    """The market itself is simulated."""
    venue: str
    provider: str
    mode: str
    why: str
    now_ns: int
    started_ns: int
    session: int
    money: Money
    slow_loop: dict[str, Any]
    """As in `status`: mode (LLM, FALLBACK, rules only), cause, failures_in_a_row, waiting_for."""
    counts: dict[str, int]
    venues: dict[str, Any]
    orders: int
    unknown_orders: list[str]
    foreign_orders: int
    intents: list[dict[str, Any]]
    """What waits for `approve`: intent_id, market_id, target, who, reason."""
    refused: dict[str, int]
    twin: dict[str, Any] | None
    """As in `status`."""
    health: dict[str, Any]
    """rss_mb, uptime_s, events, tasks, inbox, loop_delay_ms (the longest of the last minute), journal_mb, storage_failed."""
    rows: list[Row]
    alarms: list[Alarm]
    tail: list[Entry]
    """Entries after the `since` that was asked for, oldest first, at most 200 of them: the newest."""
    last: int
    """The number of the newest entry; what the next `since` is."""


class Level(TypedDict):
    price: float
    shares: float
    ours: float


class Detail(TypedDict):
    """The answer of `detail`: one market, whole."""

    ok: Literal[True]
    row: Row
    bids: list[Level]
    asks: list[Level]
    """Best first, at most ten; our own shares within, or beside where the venue's book does not show them."""
    why: dict[str, Any]
    """The answer of `why`."""
    reasoning: str
    """The model's words for its present opinion; untrusted."""
    model: str
    decision_id: str
    past: list[dict[str, Any]]
    """Earlier decisions here, newest first: age_s, action, confidence, p_yes, price."""
    tail: list[Entry]
    """The last entries of this market, oldest first, at most 50."""


class Curve(TypedDict):
    """Columns of equal length, oldest first; thinned as they grow, so that a month fits where an hour did."""

    ts_ms: list[int]
    values: dict[str, list[float | None]]


class History(TypedDict):
    """The answer of `history`: what the page draws. With `market`: that market's curve, else the account's."""

    ok: Literal[True]
    account: Curve
    """values: equity, drawdown, exposure, inventory (worst case of positions alone), model_cost, twin (None: no twin)."""
    market: Curve | None
    """values: bid, ask, our_bid, our_ask, fair, position."""
    marks: list[Entry]
    """Fills and signals of that market, oldest first, at most 200."""
    calibration: list[dict[str, Any]]
    """What was measured of each model's opinions, one a model and category (empty category: all of them): model, category, n
    (opinions with a later price), weight (in force), measured (False: the weight is the prior), why, slope, slope_low,
    slope_high (95 %), outcomes, brier, brier_market (None: nothing resolved), confidence: [{up_to, rho}]; empty: nothing known."""
