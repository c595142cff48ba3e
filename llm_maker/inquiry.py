"""`why ORDER`, `why FILL`: the event that made us decide, the book, the signal, the gates, the answer, and what became of it.

Told from the journal alone, whether the daemon runs or not: the checkpoint of the file that holds the order is restored and its
events are lived through again, up to the one that decided and on to the order's end. Where the journal is gone, damaged or of a
build that decides otherwise, the logs and the ledger tell what they can, and what they cannot is named. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llm_maker import __version__, traces
from llm_maker.app import STRATEGIES
from llm_maker.console import view
from llm_maker.core import events as e
from llm_maker.core.commands import AnyCommand, CancelOrder, LookUpOrder, PlaceOrder
from llm_maker.core.engine import Engine
from llm_maker.core.params import sizes
from llm_maker.core.state import Market, State
from llm_maker.core.values import Instrument, Side, usd
from llm_maker.inquiry_picture import Seen, event_told, fair_told, fill_told, order_told, seen, signal_told, what_changed
from llm_maker.runtime.journal import Entry, Header, JournalDamaged
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.runtime.line_log import iso
from llm_maker.runtime.replay import engine_from
from llm_maker.traces import Look, Named
from llm_maker.twins import COPY, PLACEBO, TWIN

SHADOWS = (COPY, TWIN, PLACEBO)
ENGINE_FAULTS = (AssertionError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, msgspec.MsgspecError)
"""What an engine may answer to events of another build."""
_REPORT_EVERY = 5_000


class _Otherwise(Exception):
    """The engine of this build stumbles over what another one wrote."""


class NotFound(Exception):
    """Nothing here bears this id; one line, with the newest ids."""


def inquire(home: Path, text: str, account: str = "", look: Look = lambda done: None) -> dict[str, Any]:
    """All that can be told of an order or a fill of an account (empty: whoever is not an account beside another).

    Raises `NotFound`.
    """
    text = text.strip()
    known = traces.accounts(home)
    if account and account not in known and not (traces.logs_of(home, account) != home / "logs"):
        raise NotFound(f"no account {account!r} in {home}; there is {', '.join(known) or 'none'}")
    found = [account] if account else [name for name in known if name not in SHADOWS] or ["main"]
    for name in found:
        named = traces.name_of(home, name, text, look)
        told = None if named is None else _tell(home, name, named, look)
        if told is not None:
            return {"ok": True, "asked": text, "kind": "fill" if named and named.fill_id else "order", **told}
    raise NotFound(_nothing(home, found[0], text))


def _nothing(home: Path, account: str, text: str) -> str:
    orders, fills = traces.newest(traces.logs_of(home, account), account)
    if not orders and not fills:
        return f"no order or fill {text!r} in {home}: nothing was ever ordered there by {account}"
    newest = [f"the newest orders are {', '.join(orders)}"] if orders else []
    newest += [f"the newest fills {', '.join(fills)}"] if fills else []
    return f"no order or fill {text!r} of {account} in {home}; {'; '.join(newest)}"


def _tell(home: Path, account: str, named: Named, look: Look) -> dict[str, Any] | None:
    """From the journal, completed from logs and ledger; None: nothing anywhere knows the order."""
    logs = traces.logs_of(home, account)
    lines = traces.executions(logs, account, named.order_id)
    held = traces.holder(home, account, named.order_id, look)
    rows = traces.rows(home, account, named)
    if not held.paths and not lines and not rows.fills:
        return None
    life = _Life(named.order_id)
    cannot = [*held.trouble, *([held.lost] if held.lost else [])]
    if held.paths:
        cannot += life.relive(held.paths, look)
    told = life.told() if life.order is not None else _from_lines(named.order_id, lines, rows)
    if life.order is None:
        cannot.append("the book, the signal, the gates and the event that decided cannot be told: they are in the journal alone")
    decision_id = (told["signal"] or {}).get("decision_id") or told["order"]["decision_id"]
    told["decision"] = traces.decision(logs, account, decision_id)
    if decision_id and told["decision"] is None:
        cannot.append(f"the line of decision {decision_id} is in no llm_decisions.jsonl any more")
    if named.fill_id and all(fill["fill_id"] != named.fill_id for fill in told["fills"]):
        return None
    for fill in told["fills"]:
        _earned(fill, rows)
    first = lines[0] if lines else {}
    place = held.paths[0].parent.name.split("-", 2) if held.paths else [str(first.get("venue", "")), str(first.get("mode", ""))]
    return {
        "account": account,
        "venue": place[0],
        "simulated": place[0] == "simulated",
        "real_money": place[1] == "live" and account not in SHADOWS,
        "of": named.fill_id,
        "source": "journal" if life.order is not None else "logs and ledger",
        "journal": held.paths[0].name if held.paths else "",
        **told,
        "cannot": [*cannot, *([rows.trouble] if rows.trouble else [])],
    }


class _Life:
    """An order's decision and its life, as the engine goes through them again."""

    def __init__(self, order_id: str) -> None:
        self._id = order_id
        self.order: dict[str, Any] | None = None
        self._decision: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self._fills: dict[str, dict[str, Any]] = {}
        self._command: PlaceOrder | None = None
        self._instrument: Instrument | None = None
        self._ts = 0
        self._ended = ""
        self._differs = ""
        self._read = 0

    def relive(self, paths: list[Path], look: Look) -> list[str]:
        """Go through the files until the order has ended and its fills are settled; what hindered it, in words."""
        engine: Engine | None = None
        for path in paths:
            try:
                reader = read_journal(path)
                if engine is None:
                    engine = _engine(reader.header)
                    if reader.header.version != __version__:
                        self._differs = f"{path.name} was written by build {reader.header.version}; this is {__version__}"
                for entry in reader:
                    self._step(engine, entry)
                    self._read += 1
                    if self._read % _REPORT_EVERY == 0:
                        look(self._read)
                    if self._done(engine.state):
                        return [self._differs] if self._differs else []
            except (JournalDamaged, OSError) as damage:
                return [f"the journal cannot be read on: {damage}", *([self._differs] if self._differs else [])]
            except _Otherwise as fault:
                why = self._differs or "this build goes another way than the one that wrote it"
                return [f"{path.name} cannot be lived through: {why} ({fault})"]
            if reader.torn:
                break
        return [self._differs] if self._differs else []

    def _step(self, engine: Engine, entry: Entry) -> None:
        """One entry: before and after it where it concerns the order."""
        command = self._placing(entry.commands) if self._command is None else None
        if command is None:
            if self._command is not None:
                self._live(engine, entry)
            else:
                _lived(engine, entry)
            return
        state = engine.state
        market = state.markets[command.instrument]
        before, caps = seen(state, market), view.caps(state, market)
        made = _lived(engine, entry)
        if tuple(made) != entry.commands:
            self._differs = (
                "this build decides otherwise here than the one that wrote the journal: gates and terms are this build's"
            )
        self._command, self._instrument, self._ts = command, market.instrument, entry.ts
        self._decide(state, market, entry, before, caps)

    def _placing(self, commands: tuple[AnyCommand, ...]) -> PlaceOrder | None:
        return next((c for c in commands if isinstance(c, PlaceOrder) and c.order_id == self._id), None)

    def _decide(self, state: State, market: Market, entry: Entry, before: Seen, caps: dict[str, str]) -> None:
        """Everything that stood at the decision; `state` is as it was right after it."""
        assert self._command is not None
        command, after = self._command, seen(state, market, leave_out=entry.commands)
        chain = view.why(state, market)
        side = command.side.name.lower()
        base = sizes(state.params, market.instrument, market.mark)[0]
        self.order = order_told(market.instrument, command, entry.ts) | {
            "ahead": market.instrument.usd_qty(after.qty_at(command.side, command.price)),
            "base_shares": market.instrument.usd_qty(base),
            "shaped_by": [key.partition(" ")[2] for key in market.refusals if key.startswith((side, "both"))],
        }
        self._decision = {
            "seq": entry.seq,
            "event": event_told(entry.event, market.instrument) | {"ts_ns": entry.ts, "time": iso(entry.ts)},
            "changed": what_changed(before, after, market.instrument),
            "book_before": before.told(market.instrument),
            "book": after.told(market.instrument),
            "signal": signal_told(state, market, entry.ts),
            "fair": fair_told(market, command.reason),
            "gates": chain["gates"],
            "caps_before": caps,
            "caps": chain["caps"],
            "market_mode": chain["mode"],
            "with_it": [order_told(i, c, entry.ts) for i, c in _others(state, entry.commands, command)],
        }

    def _live(self, engine: Engine, entry: Entry) -> None:
        """Something after the decision: what it says of our order, and what we asked because of it."""
        assert self._command is not None and self._instrument is not None
        event, state = entry.event, engine.state
        market = state.markets.get(self._command.instrument)
        mid = market.mark if market is not None else 0.0
        place = market.resting.get(self._id) if market is not None else None
        _lived(engine, entry)
        word = _word(event) if getattr(event, "order_id", None) == self._id else ""
        if isinstance(event, e.OrderFilled) and word:
            ahead = None if place is None else self._instrument.usd_qty(place.ahead)
            again = event.fill_id in self._fills
            if not again:
                self._fills[event.fill_id] = fill_told(self._instrument, event, entry.ts, mid) | {"ahead": ahead}
            shares = f"{self._instrument.usd_qty(event.qty):g} shares, {event.fill_id}"
            self._add(entry.ts, "told again" if again else word, shares)
        elif word:
            detail = ", ".join(
                str(getattr(event, name)) for name in ("reason", "detail", "found", "venue_id") if getattr(event, name, "")
            )
            self._add(entry.ts, word, detail)
        elif isinstance(event, e.FillSettled | e.FillFailed) and event.fill_id in self._fills:
            status = "settled" if isinstance(event, e.FillSettled) else "failed: reversed"
            self._fills[event.fill_id]["status"] = status
            self._add(entry.ts, status, event.fill_id)
        for command in entry.commands:
            if isinstance(command, CancelOrder | LookUpOrder) and command.order_id == self._id:
                asked = "cancel asked" if isinstance(command, CancelOrder) else "looked up"
                because = event_told(event, self._instrument)["text"]
                self._add(entry.ts, asked, f"{command.reason} (upon: {because})" if because else command.reason)
        self._mark_end(state)

    def _mark_end(self, state: State) -> None:
        order = state.orders.get(self._id)
        self._ended = order.status.value if order is not None else self._ended

    def _add(self, ts: int, what: str, text: str) -> None:
        self._steps.append({"ts_ns": ts, "time": iso(ts), "after_ms": (ts - self._ts) / 1e6, "what": what, "text": text})

    def _done(self, state: State) -> bool:
        """Nothing more is to come: the order is final and none of its fills waits for its settlement."""
        order = state.orders.get(self._id) if self._command is not None else None
        waiting = any(fill["status"] == "provisional" for fill in self._fills.values())
        return order is not None and order.is_final and not waiting

    def told(self) -> dict[str, Any]:
        """All of it; to be asked only where the order was found."""
        assert self.order is not None
        return {
            "order": self.order,
            **self._decision,
            "life": self._steps,
            "status": self._ended or "pending_new",
            "fills": list(self._fills.values()),
        }


def _engine(header: Header) -> Engine:
    try:
        return engine_from(header, STRATEGIES)
    except ENGINE_FAULTS as fault:
        raise _Otherwise(f"{type(fault).__name__}: {fault}") from None


def _lived(engine: Engine, entry: Entry) -> list[AnyCommand]:
    try:
        return engine.on_event(entry.ts, entry.event)
    except ENGINE_FAULTS as fault:
        raise _Otherwise(f"entry {entry.seq}: {type(fault).__name__}: {fault}") from None


def _others(state: State, commands: tuple[AnyCommand, ...], mine: PlaceOrder) -> Iterator[tuple[Instrument, PlaceOrder]]:
    """What the same event made us order beside it."""
    for command in commands:
        if isinstance(command, PlaceOrder) and command.order_id != mine.order_id:
            yield state.markets[command.instrument].instrument, command


_WORDS: dict[type[e.Event], str] = {
    e.OrderAccepted: "accepted",
    e.OrderRejected: "rejected",
    e.OrderFilled: "filled",
    e.OrderCanceled: "canceled",
    e.OrderExpired: "expired",
    e.CancelRejected: "cancel refused",
    e.OrderUncertain: "unknown",
    e.OrderLookedUp: "found",
}


def _word(event: e.Event) -> str:
    return _WORDS.get(type(event), "")


def _earned(fill: dict[str, Any], rows: traces.Rows) -> None:
    """Mid at the fill, markouts, and what it earned by the newest price known; USD, the fee paid, of the fill alone."""
    row = next((one for one in rows.fills if one["fill_id"] == fill["fill_id"]), None)
    fill |= {"markouts": [], "earned_usd": None, "earned_by": "", "status": fill["status"]}
    gain = fill["yes_side"] * fill["shares"]

    def worth(mid: float) -> float:
        return float(round(gain * (mid - fill["yes_price"]) - fill["fee_usd"], 6))

    if row is not None:
        twice = 2.0 * row["price_scale"]
        fact = rows.facts.get(fill["fill_id"])
        if fill["mid"] is None and fact is not None and fact["mid2"]:
            fill["mid"] = fact["mid2"] / twice
        marks = rows.marks.get(fill["fill_id"], {})
        fill["markouts"] = [{"after_s": s, "mid": m / twice, "earned_usd": worth(m / twice)} for s, m in sorted(marks.items())]
        fill["status"] = row["status"] if fill["status"] == "provisional" else fill["status"]
    if fill["status"].startswith("failed"):
        fill |= {"earned_usd": 0.0, "earned_by": "its settlement failed: it counts for nothing"}
    elif row is not None and rows.last is not None and rows.last[0] >= fill["ts_ns"]:
        fill |= {"earned_usd": worth(rows.last[1] / twice), "earned_by": f"the price of {iso(rows.last[0])}"}
    elif fill["markouts"]:
        last = fill["markouts"][-1]
        fill |= {"earned_usd": last["earned_usd"], "earned_by": f"the mid {last['after_s']} s later"}
    elif fill["mid"] is not None:
        fill |= {"earned_usd": worth(fill["mid"]), "earned_by": "the mid at the fill"}


def _from_lines(order_id: str, lines: list[dict[str, Any]], rows: traces.Rows) -> dict[str, Any]:
    """What the logs and the ledger alone tell."""
    placed = next((line for line in lines if line.get("event") == "order"), {})
    any_line = placed or (lines[0] if lines else {})
    fills = [_fill_of_row(row) for row in rows.fills]
    known = ("market_id", "question", "side", "token", "price", "yes_price", "time_in_force", "post_only", "reduce_only", "ahead")
    order = {name: any_line.get(name) for name in known}
    order |= {"order_id": order_id, "shares": placed.get("size"), "time": any_line.get("timestamp"), "shaped_by": []}
    order |= {"reason": any_line.get("reason", ""), "decision_id": any_line.get("decision_id", ""), "base_shares": None}
    told = [
        {"time": line["timestamp"], "after_ms": None, "what": line["event"], "text": str(line.get("reason") or "")}
        for line in lines
        if line.get("event") != "order"
    ]
    nothing = dict.fromkeys(("event", "book_before", "book", "signal", "fair", "seq", "caps", "caps_before", "market_mode"))
    return {"order": order, **nothing, "changed": [], "gates": [], "with_it": [], "life": told, "status": "", "fills": fills}


def _fill_of_row(row: dict[str, Any]) -> dict[str, Any]:
    price, side = row["price"] / row["price_scale"], Side(row["side"])
    sold = row["leg"] == "no"
    return {
        "fill_id": row["fill_id"],
        "ts_ns": row["ts"],
        "time": iso(row["ts"]),
        "side": (side.other if sold else side).name.lower(),
        "token": row["leg"],
        "price": round(1.0 - price, 9) if sold else price,
        "yes_side": row["side"],
        "yes_price": price,
        "shares": row["qty"] / row["qty_scale"],
        "fee_usd": usd(row["fee"]),
        "liquidity": row["liquidity"],
        "status": row["status"],
        "mid": None,
        "ahead": None,
    }


def plain(told: dict[str, Any]) -> dict[str, Any]:
    """For `--json`: nothing but JSON."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
    return found
