"""What the ledger holds: whose rows, the rows, what is summed up of them, and the schema of the file.

Plain records and SQL text. It refuses to know how a row is computed, when it is written, and of any open database.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import msgspec

SCHEMA_VERSION = 3


class Scope(msgspec.Struct, frozen=True):
    """Whose rows: nothing read in one scope comes from another. `wallet` is empty where there is none."""

    venue: str
    mode: str
    wallet: str
    account: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        return (self.venue, self.mode, self.wallet, self.account)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all rows. Money is in cash units, prices and quantities in the instrument's, on the YES book."""

    table: ClassVar[str]


class FillRow(Row, frozen=True, kw_only=True):
    """One fill of ours. `cash` is what it moved before `fee`; the two `_after` are the account's then (net for YES)."""

    table: ClassVar[str] = "fills"
    order_id: str
    fill_id: str
    instrument: str
    side: int
    leg: str
    price: int
    qty: int
    price_scale: int
    """Price units in one USD."""
    qty_scale: int
    cash: int
    fee: int
    liquidity: str
    cash_after: int
    position_after: int
    status: str = "provisional"
    """`provisional`, `settled` or `failed`; a failed fill counts nowhere."""
    reason: str = ""
    decision_id: str = ""


class SettleRow(Row, frozen=True, kw_only=True):
    """The end of a provisional fill; changes its status to `settled` or `failed`."""

    fill_id: str
    instrument: str
    status: str


class TripRow(Row, frozen=True, kw_only=True):
    """A position from flat to flat: at what it was entered and left, what it brought, and why it was entered."""

    table: ClassVar[str] = "round_trips"
    instrument: str
    side: int
    qty: int
    opened_ns: int
    entry_price: int
    exit_price: int
    pnl: int
    fees: int
    exit_reason: str
    decision_id: str = ""
    reasoning: str = ""
    context: str = "{}"
    """JSON: what was known at entry."""


class CashRow(Row, frozen=True, kw_only=True):
    """Money that is not a fill. `qty` shares of `leg` were burned; a `merge` burns as many of both legs."""

    table: ClassVar[str] = "cash_moves"
    kind: str
    amount: int
    instrument: str = ""
    leg: str = "none"
    qty: int = 0


class EquityRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "equity_points"
    equity: int
    cash: int
    realized_pnl: int
    unrealized_pnl: int


class DecisionRow(Row, frozen=True, kw_only=True):
    """One call of a model and what it cost. `outcome` is `ok` or the reason of the failure."""

    table: ClassVar[str] = "decisions"
    decision_id: str
    model: str
    prompt_version: str
    signals: int
    outcome: str
    cost: int
    simulated: bool = False


class RiskRow(Row, frozen=True, kw_only=True):
    """One value of the risk state; the newest of its key stands. `value` is JSON."""

    table: ClassVar[str] = "risk_state"
    key: str
    value: str


class ForecastRow(Row, frozen=True, kw_only=True):
    """One opinion on one market, with the market's log-odds at that moment (`core.skill.Forecast`)."""

    table: ClassVar[str] = "forecasts"
    decision_id: str
    model: str
    role: str
    prompt_version: str
    instrument: str
    category: str
    event_id: str
    p_yes: float | None
    confidence: float
    bias: int
    x_market: float
    d: float | None
    simulated: bool


class MarkRow(Row, frozen=True, kw_only=True):
    """The market's log-odds `horizon_s` after a decision on it."""

    table: ClassVar[str] = "forecast_marks"
    decision_id: str
    instrument: str
    horizon_s: int
    x_market: float


class OutcomeRow(Row, frozen=True, kw_only=True):
    """What a YES share of a resolved market paid, parts per million of a whole one."""

    table: ClassVar[str] = "outcomes"
    instrument: str
    paid_ppm: int


class FillFactRow(Row, frozen=True, kw_only=True):
    """What stood beside a fill at its moment. Mids are doubled, so that they are integers of price units."""

    table: ClassVar[str] = "fill_facts"
    fill_id: str
    instrument: str
    mid2: int
    """Best bid plus best ask of the last trusted book; 0: there was none yet."""
    fair: float
    """Our fair value, opinion included, price units; 0: not known."""
    terms: str
    """JSON: the strategy's terms of that moment, price units."""
    model: str = ""
    action: str = ""
    confidence: float = 0.0
    shift: float = 0.0
    """What the opinion in force added, log-odds; the four are empty without one."""


class FillMarkRow(Row, frozen=True, kw_only=True):
    """The doubled mid `horizon_s` after a fill."""

    table: ClassVar[str] = "fill_marks"
    fill_id: str
    instrument: str
    horizon_s: int
    mid2: int


class SampleRow(Row, frozen=True, kw_only=True):
    """A market as it was at one moment, for the eye: the book's best, ours (0: none), position and fair value."""

    table: ClassVar[str] = "samples"
    instrument: str
    bid: int
    ask: int
    own_bid: int
    own_ask: int
    net: int
    fair: float


RowT = TypeVar(
    "RowT",
    FillRow,
    TripRow,
    CashRow,
    EquityRow,
    DecisionRow,
    RiskRow,
    ForecastRow,
    MarkRow,
    OutcomeRow,
    FillFactRow,
    FillMarkRow,
    SampleRow,
)


class Holding(msgspec.Struct, frozen=True):
    """What our own fills, less merges and redemptions, left of one leg."""

    instrument: str
    leg: str
    qty: int


class Totals(msgspec.Struct, frozen=True):
    """Sums of one scope, cash units, for the report. `cash_by_kind` is what moved besides fills."""

    fills: int
    failed_fills: int
    fees: int
    trips: int
    winning_trips: int
    trip_pnl: int
    decisions: int
    decision_cost: int
    cash_by_kind: dict[str, int]


_KEY = """id INTEGER PRIMARY KEY, venue TEXT NOT NULL, mode TEXT NOT NULL, wallet TEXT NOT NULL, account TEXT NOT NULL,
  seq INTEGER NOT NULL, n INTEGER NOT NULL, ts INTEGER NOT NULL"""
_UNIQUE = "UNIQUE (venue, mode, wallet, account, seq, n)"
_BOT = "account || '@' || mode || ':' || venue"
_TIME = "strftime('%Y-%m-%dT%H:%M:%fZ', ts / 1e9, 'unixepoch')"
_SCHEMA_1 = f"""
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE progress (venue TEXT, mode TEXT, wallet TEXT, account TEXT, last_seq INTEGER NOT NULL,
  PRIMARY KEY (venue, mode, wallet, account)) WITHOUT ROWID;
CREATE TABLE fills ({_KEY}, order_id TEXT NOT NULL, fill_id TEXT NOT NULL, instrument TEXT NOT NULL,
  side INTEGER NOT NULL, leg TEXT NOT NULL, price INTEGER NOT NULL, qty INTEGER NOT NULL, price_scale INTEGER NOT NULL,
  qty_scale INTEGER NOT NULL, cash INTEGER NOT NULL, fee INTEGER NOT NULL, liquidity TEXT NOT NULL,
  cash_after INTEGER NOT NULL, position_after INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL,
  decision_id TEXT NOT NULL, {_UNIQUE}, UNIQUE (venue, mode, wallet, account, order_id, fill_id));
CREATE INDEX fills_by_fill_id ON fills (fill_id);
CREATE TABLE round_trips ({_KEY}, instrument TEXT NOT NULL, side INTEGER NOT NULL, qty INTEGER NOT NULL,
  opened_ns INTEGER NOT NULL, entry_price INTEGER NOT NULL, exit_price INTEGER NOT NULL, pnl INTEGER NOT NULL,
  fees INTEGER NOT NULL, exit_reason TEXT NOT NULL, decision_id TEXT NOT NULL, reasoning TEXT NOT NULL,
  context TEXT NOT NULL, hold_ns INTEGER GENERATED ALWAYS AS (ts - opened_ns) VIRTUAL, {_UNIQUE});
CREATE TABLE cash_moves ({_KEY}, kind TEXT NOT NULL, amount INTEGER NOT NULL, instrument TEXT NOT NULL,
  leg TEXT NOT NULL, qty INTEGER NOT NULL, {_UNIQUE});
CREATE TABLE equity_points ({_KEY}, equity INTEGER NOT NULL, cash INTEGER NOT NULL, realized_pnl INTEGER NOT NULL,
  unrealized_pnl INTEGER NOT NULL, {_UNIQUE});
CREATE TABLE decisions ({_KEY}, decision_id TEXT NOT NULL, model TEXT NOT NULL, prompt_version TEXT NOT NULL,
  signals INTEGER NOT NULL, outcome TEXT NOT NULL, cost INTEGER NOT NULL, simulated INTEGER NOT NULL, {_UNIQUE});
CREATE TABLE risk_state ({_KEY}, key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (venue, mode, wallet, account, key));
CREATE VIEW trades AS SELECT id, {_TIME} AS time, {_BOT} AS bot_name, instrument AS symbol,
  CASE side WHEN 1 THEN 'buy' ELSE 'sell' END AS side, 1.0 * qty / qty_scale AS size,
  1.0 * price / price_scale AS price, cash_after / 1e6 AS cash_after,
  1.0 * position_after / qty_scale AS position_after FROM fills WHERE status <> 'failed';
CREATE VIEW equity AS SELECT id, {_TIME} AS time, {_BOT} AS bot_name, equity / 1e6 AS equity,
  realized_pnl / 1e6 AS realized_pnl, unrealized_pnl / 1e6 AS unrealized_pnl FROM equity_points;
"""
_SCHEMA_2 = f"""
CREATE TABLE forecasts ({_KEY}, decision_id TEXT NOT NULL, model TEXT NOT NULL, role TEXT NOT NULL,
  prompt_version TEXT NOT NULL, instrument TEXT NOT NULL, category TEXT NOT NULL, event_id TEXT NOT NULL, p_yes REAL,
  confidence REAL NOT NULL, bias INTEGER NOT NULL, x_market REAL NOT NULL, d REAL, simulated INTEGER NOT NULL, {_UNIQUE});
CREATE INDEX forecasts_by_time ON forecasts (ts);
CREATE TABLE forecast_marks ({_KEY}, decision_id TEXT NOT NULL, instrument TEXT NOT NULL, horizon_s INTEGER NOT NULL,
  x_market REAL NOT NULL, {_UNIQUE});
CREATE INDEX forecast_marks_by_decision ON forecast_marks (decision_id, instrument);
CREATE TABLE outcomes ({_KEY}, instrument TEXT NOT NULL, paid_ppm INTEGER NOT NULL, {_UNIQUE});
CREATE INDEX outcomes_by_instrument ON outcomes (instrument);
"""
_SCHEMA_3 = f"""
CREATE TABLE fill_facts ({_KEY}, fill_id TEXT NOT NULL, instrument TEXT NOT NULL, mid2 INTEGER NOT NULL, fair REAL NOT NULL,
  terms TEXT NOT NULL, model TEXT NOT NULL, action TEXT NOT NULL, confidence REAL NOT NULL, shift REAL NOT NULL, {_UNIQUE});
CREATE TABLE fill_marks ({_KEY}, fill_id TEXT NOT NULL, instrument TEXT NOT NULL, horizon_s INTEGER NOT NULL,
  mid2 INTEGER NOT NULL, {_UNIQUE});
CREATE TABLE samples ({_KEY}, instrument TEXT NOT NULL, bid INTEGER NOT NULL, ask INTEGER NOT NULL, own_bid INTEGER NOT NULL,
  own_ask INTEGER NOT NULL, net INTEGER NOT NULL, fair REAL NOT NULL, {_UNIQUE});
CREATE INDEX samples_by_time ON samples (ts);
"""
MIGRATIONS = (_SCHEMA_1, _SCHEMA_2, _SCHEMA_3)
"""Script `n` leads from schema `n` to `n + 1`; an old one is never edited."""
