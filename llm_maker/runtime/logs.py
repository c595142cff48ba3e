"""What a person reads with jq, and the rows of the ledger: made from events, commands and the state after them.

`executions.jsonl` has every order and fill with its reason, `llm_decisions.jsonl` (see `decision_lines`) every cycle of the slow
loop, `daemon.jsonl` the notices. Timestamps are market time, ISO 8601 UTC. Nothing here decides anything.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.core import events as e
from llm_maker.core.commands import AnyCommand, CancelOrder, MergeSets, Notice, PlaceOrder
from llm_maker.core.skill import HORIZONS_S, skill_key
from llm_maker.core.state import Market, State
from llm_maker.core.values import NS_PER_S, Instrument, Leg, Side, leg_price, leg_side, usd
from llm_maker.core.worth import equity, exit_equity
from llm_maker.runtime.decision_lines import Ahead, DecisionLines, Facts
from llm_maker.runtime.fill_book import MARKOUTS_S, SAMPLE_NS, FillBook, Roll
from llm_maker.runtime.forecasts import ForecastBook
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.line_log import LineLog, iso
from llm_maker.runtime.memory import Memory
from llm_maker.runtime.rows import CashRow, DecisionRow, EquityRow, FillRow, RiskRow, Row, Scope, SettleRow, TripRow

EQUITY_NS = 60 * NS_PER_S
_FIRST_LIFE = dict.fromkeys(("latency_ms", "tokens", "twin_difference_usd", "twin_interval_usd"))
SKILL = "skill "
"""Before the model and category in the risk state's key of what was measured of it."""


class Recorder:
    """Turns one account's steps into log lines and ledger rows."""

    def __init__(
        self,
        state: State,
        scope: Scope,
        ledger: Ledger | Memory | None,
        logs: Path | None,
        *,
        simulated: bool,
        facts: Facts = lambda request_id: {},
        on_notice: Callable[[int, Notice], None] = lambda ts, notice: None,
        on_failure: Callable[[str], None] = lambda reason: None,
        max_bytes: int = 64 << 20,
        sample_ns: int = SAMPLE_NS,
        difference: Ahead = lambda: (None, None),
    ) -> None:
        """`logs` None writes no lines; `sample_ns` is how often each market of ours is sampled, 0 for never.

        `difference`: how far the account is ahead of its twin by now, USD, and its 95 % limits; None where there is none.
        """
        self._state, self._scope, self._ledger = state, scope, ledger
        self._on_notice = on_notice
        self._tags = {"account": state.account, "venue": scope.venue, "mode": scope.mode, "simulated": simulated}
        self._logs = None if logs is None else _Logs(logs, max_bytes, on_failure)
        self._decision_lines = DecisionLines(state, facts, difference)
        pending = ledger.forecasts(scope, state.now - int(1.2 * HORIZONS_S[-1]) * NS_PER_S) if ledger is not None else ()
        self._forecasts = ForecastBook(state, pending)
        fills = ledger.pending_fills(scope, state.now - int(1.2 * MARKOUTS_S[-1]) * NS_PER_S) if ledger is not None else ()
        self._fill_book = FillBook(state, sample_ns, fills)
        kept = ledger.risk_state(scope) if ledger is not None else {}
        self._roll = Roll(state, kept)
        self._start_ns = msgspec.json.decode(kept["start_ns"], type=int) if "start_ns" in kept else 0
        self._listed = ""
        self._seq = 0
        """The last entry that the totals know of."""
        self._cash, self._fills = state.cash, state.counts.fills
        self._flows = (state.flows.transfers, state.flows.fees)
        self._equity_ns = 0
        self.quiet = False
        """True while a restart catches up: rows are made, lines are not, because they were written before; then `speak`."""
        self._latest: tuple[int, e.Event, list[AnyCommand]] | None = None

    def record(self, seq: int, ts: int, event: e.Event, commands: list[AnyCommand]) -> None:
        """One step: lines for what was ordered and filled, rows for what the ledger keeps."""
        self._seq, self._start_ns = max(seq, self._seq), self._start_ns or ts
        rows = self._rows(ts, event, commands)
        if rows and self._ledger is not None:
            self._ledger.append(self._scope, seq, ts, rows, wait=self.quiet)
        repeated = isinstance(event, e.OrderFilled) and self._state.counts.fills == self._fills
        self._cash, self._fills = self._state.cash, self._state.counts.fills
        self._flows = (self._state.flows.transfers, self._state.flows.fees)
        self._decision_lines.asked(commands)
        if self.quiet:
            self._latest = (ts, event, commands)
            return
        for command in commands:
            if isinstance(command, Notice):
                self._on_notice(ts, command)
        for log, lines in self._lines(ts, event, commands, repeated=repeated):
            log.write(lines)

    def speak(self) -> None:
        """End of `quiet`: the kill may have come before the last entry's lines; they are written if they are not there."""
        self.quiet = False
        if self._latest is not None:
            for log, lines in self._lines(*self._latest):
                if not _same_line(log.last(), lines[-1]):
                    log.write(lines)
        self._latest = None

    def _lines(
        self, ts: int, event: e.Event, commands: list[AnyCommand], *, repeated: bool = False
    ) -> list[tuple[LineLog, list[bytes]]]:
        """What one step adds to each log; nothing for a fill that was told before."""
        if self._logs is None:
            return []
        decisions = self._decision_lines.of(event, commands, ts)
        executions = [] if repeated else self._event_lines(event)
        executions += [line for line in map(self._command_line, commands) if line]
        made = ((self._logs.decisions, decisions), (self._logs.executions, executions))
        return [(log, [self._encode(ts, line) for line in lines]) for log, lines in made if lines]

    def indexed(self, seq: int) -> None:
        """Every entry up to `seq` has been recorded: a restart need not look for rows before it."""
        if self._ledger is not None:
            self._ledger.append(self._scope, seq, self._state.now, ())

    def save_state(self, ts: int) -> None:
        """Leave the totals where `report` finds them; refusals still open are counted up to now."""
        state = self._state
        for market in state.markets.values():
            for key, since in market.refusals.items():
                state.refused[key.partition(" ")[2]].ns += ts - since
                market.refusals[key] = ts
        if self._ledger is not None:
            self._ledger.remember(self._scope, {row.key: row.value for row in self._totals()}, ts)

    def close(self) -> None:
        if self._logs is not None:
            self._logs.executions.close()
            self._logs.decisions.close()

    def _totals(self) -> list[RiskRow]:
        state = self._state
        parts: dict[str, Any] = {
            "flows": state.flows,
            "counts": state.counts,
            "refused": state.refused,
            "risk": state.risk,
            "cash": state.cash,
            "equity": equity(state),
            "exit_equity": exit_equity(state),
            "now": state.now,
            "seq": self._seq,
            "start_ns": self._start_ns,
            **self._roll.totals(),
            "names": {
                m.instrument.id: m.instrument.question for m in state.markets.values() if m.position.volume or m.position.net
            },
        }
        return [RiskRow(key=key, value=msgspec.json.encode(value).decode()) for key, value in parts.items()]

    def _news(self) -> list[RiskRow]:
        """The totals, without the list of instruments where it has not changed: it may be long."""
        rows = self._totals()
        listed = next(row.value for row in rows if row.key == "instruments")
        changed, self._listed = listed != self._listed, listed
        return rows if changed else [row for row in rows if row.key != "instruments"]

    def _encode(self, ts: int, line: dict[str, Any]) -> bytes:
        return msgspec.json.encode({"timestamp": iso(ts), **line, **self._tags})

    def _rows(self, ts: int, event: e.Event, commands: list[AnyCommand]) -> list[Row]:
        rows: list[Row] = []
        match event:
            case e.OrderFilled():
                row = self._fill_row(event)
                if row is not None:
                    rows.append(row)
            case e.FillSettled():
                rows.append(SettleRow(fill_id=event.fill_id, instrument=event.instrument, status="settled"))
            case e.FillFailed():
                rows.append(SettleRow(fill_id=event.fill_id, instrument=event.instrument, status="failed"))
                rows += self._news()  # the row has no moment of its own: totals from before it would count a fill that is gone
            case e.CashMoved():
                rows.append(
                    CashRow(
                        kind=event.kind.value,
                        amount=event.amount,
                        instrument=event.instrument,
                        leg=event.leg.value,
                        qty=event.qty,
                    )
                )
            case e.SetsMerged() | e.SetsSplit() if self._state.cash != self._cash:  # told twice it moves nothing
                amount, kind = self._state.cash - self._cash, "merge" if isinstance(event, e.SetsMerged) else "split"
                rows.append(CashRow(kind=kind, amount=amount, instrument=event.instrument, qty=event.qty))
            case e.AccountSnapshot() if self._state.cash != self._cash:
                rows += self._account_rows()
            case e.SignalsReceived():
                rows.append(
                    DecisionRow(
                        decision_id=event.decision_id,
                        model=event.model,
                        prompt_version=event.prompt_version,
                        signals=len(event.signals),
                        outcome="ok",
                        cost=event.cost,
                        simulated=event.simulated,
                    )
                )
            case e.SignalsFailed():
                rows.append(
                    DecisionRow(
                        decision_id=event.decision_id,
                        model="",
                        prompt_version="",
                        signals=0,
                        outcome=event.reason,
                        cost=event.cost,
                    )
                )
            case e.WeightUpdated():
                skill = msgspec.json.encode(event.skill).decode()
                rows.append(RiskRow(key=SKILL + skill_key(event.model, event.category), value=skill))
            case e.Tick():
                if ts - self._equity_ns >= EQUITY_NS:
                    self._equity_ns = ts
                    rows += [self._equity_row(), *self._news()]
        rows += [self._trip_row(closed) for closed in self._state.closed]
        rows += self._forecasts.rows(ts, event)
        rows += self._fill_book.rows(ts, event, commands)
        return rows

    def _account_rows(self) -> list[Row]:
        """The account held more or less than the ledger explained: what the core has booked of the difference, and as what.

        `work` is what a merge, split or redemption moved whose answer never came.
        """
        flows, (transfers, fees) = self._state.flows, self._flows
        moved = {"transfer": flows.transfers - transfers, "fee": flows.fees - fees}
        moved["work"] = self._state.cash - self._cash - sum(moved.values())
        return [CashRow(kind=kind, amount=amount) for kind, amount in moved.items() if amount]

    def _fill_row(self, event: e.OrderFilled) -> FillRow | None:
        """The ledger's row of a fill; None for one that was booked before, or had failed before it was told."""
        state = self._state
        market = state.markets.get(event.instrument)
        if market is None or state.counts.fills == self._fills:
            return None
        order = state.orders.get(event.order_id)
        status = "provisional" if event.fill_id in market.position.pending else "settled"
        return FillRow(
            order_id=event.order_id,
            fill_id=event.fill_id,
            instrument=event.instrument,
            side=int(event.side),
            leg=event.leg.value,
            price=event.price,
            qty=event.qty,
            price_scale=10**market.instrument.price_decimals,
            qty_scale=10**market.instrument.qty_decimals,
            cash=state.cash - self._cash + event.fee,
            fee=event.fee,
            liquidity=event.liquidity.value,
            cash_after=state.cash,
            position_after=market.position.net,
            status=status,
            reason=order.reason if order else "",
            decision_id=order.decision_id if order else "",
        )

    def _trip_row(self, closed: Any) -> TripRow:
        trip = closed.trip
        return TripRow(
            instrument=closed.instrument,
            side=int(trip.side),
            qty=trip.qty,
            opened_ns=trip.entry_ns,
            entry_price=round(trip.entry_price),
            exit_price=round(trip.exit_price),
            pnl=trip.realised,
            fees=trip.fees,
            exit_reason=closed.exit_reason,
            decision_id=trip.entry_decision,
            reasoning=closed.reasoning,
            context=msgspec.json.encode({"entry_reason": trip.entry_reason}).decode(),
        )

    def _equity_row(self) -> EquityRow:
        worth, flows = equity(self._state), self._state.flows
        unrealised = sum(self._unrealised(self._state.markets[i]) for i in self._state.held)
        total = worth - flows.start - flows.transfers
        return EquityRow(equity=worth, cash=self._state.cash, realized_pnl=total - unrealised, unrealized_pnl=unrealised)

    def _unrealised(self, market: Market) -> int:
        exponent = market.instrument.price_decimals + market.instrument.qty_decimals - 6
        return round(market.position.unrealised(market.mark) / float(10**exponent))

    def _event_lines(self, event: e.Event) -> list[dict[str, Any]]:
        state = self._state
        match event:
            case e.OrderFilled():
                order = state.orders.get(event.order_id)
                return [
                    {
                        "event": "fill",
                        **self._trade(event.instrument, event.side, event.leg, event.price, event.qty),
                        "order_id": event.order_id,
                        "fill_id": event.fill_id,
                        "fee_usd": usd(event.fee),
                        "liquidity": event.liquidity.value,
                        "settled": event.settled,
                        "position_after": self._size(event.instrument, self._net(event.instrument)),
                        "cash_after": usd(state.cash),
                        "reason": order.reason if order else "",
                        "decision_id": order.decision_id if order else "",
                    }
                ]
            case e.FillSettled():
                return [{"event": "settled", "market_id": event.instrument, "fill_id": event.fill_id}]
            case e.FillFailed():
                return [{"event": "reversed", "market_id": event.instrument, "fill_id": event.fill_id}]
            case e.OrderAccepted():
                return [self._of_order("accepted", event.order_id, venue_id=event.venue_id)]
            case e.OrderRejected():
                return [self._of_order("rejected", event.order_id, reason=event.reason, detail=event.detail)]
            case e.OrderCanceled():
                return [self._of_order("canceled", event.order_id, reason=event.reason)]
            case e.OrderExpired():
                return [self._of_order("expired", event.order_id)]
            case e.CancelRejected():
                return [self._of_order("cancel_rejected", event.order_id, reason=event.reason)]
            case e.OrderUncertain():
                return [self._of_order("unknown", event.order_id, reason=event.reason)]
            case e.OrderLookedUp():
                return [self._of_order("looked_up", event.order_id, found=event.found)]
            case e.SetsMerged() | e.SetsSplit():
                size, what = self._size(event.instrument, event.qty), "merged" if isinstance(event, e.SetsMerged) else "split"
                return [{"event": what, "market_id": event.instrument, "size": size}]
            case e.CashMoved():
                return [{"event": event.kind.value, "market_id": event.instrument, "amount_usd": usd(event.amount)}]
            case _:
                return []

    def _of_order(self, what: str, order_id: str, **facts: str) -> dict[str, Any]:
        """A line about one of our orders, with its market where it is still known."""
        order = self._state.orders.get(order_id)
        return {"event": what, "market_id": order.instrument if order else "", "order_id": order_id, **facts}

    def _command_line(self, command: AnyCommand) -> dict[str, Any] | None:
        match command:
            case PlaceOrder():
                return {
                    "event": "order",
                    **self._trade(command.instrument, command.side, command.leg, command.price, command.qty),
                    "order_id": command.order_id,
                    "ahead": self._ahead(command),
                    "time_in_force": command.time_in_force.value,
                    "post_only": command.post_only,
                    "reduce_only": command.reduce_only,
                    "reason": command.reason,
                    "decision_id": command.decision_id,
                }
            case CancelOrder():
                return {
                    "event": "cancel",
                    "market_id": command.instrument,
                    "order_id": command.order_id,
                    "reason": command.reason,
                }
            case MergeSets():
                size = self._size(command.instrument, command.qty)
                return {"event": "merge", "market_id": command.instrument, "size": size, "reason": command.reason}
            case _:
                return None

    def _trade(self, instrument_id: str, side: Side, leg: Leg, price: int, qty: int) -> dict[str, Any]:
        """An order or fill in its own token's terms, as the venue shows it, with the YES price beside it."""
        instrument = self._instrument(instrument_id)
        return {
            "market_id": instrument_id,
            "question": instrument.question,
            "side": leg_side(side, leg).name.lower(),
            "token": leg.value,
            "price": instrument.usd_price(leg_price(instrument, price, leg)),
            "yes_price": instrument.usd_price(price),
            "size": instrument.usd_qty(qty),
        }

    def _instrument(self, instrument_id: str) -> Instrument:
        return self._state.markets[instrument_id].instrument

    def _ahead(self, command: PlaceOrder) -> float:
        """What the book showed at the order's price when it was decided; on a live book other orders of ours are in it."""
        market = self._state.markets[command.instrument]
        return market.instrument.usd_qty(market.book.qty_at(command.side, command.price))

    def _net(self, instrument_id: str) -> int:
        return self._state.markets[instrument_id].position.net

    def _size(self, instrument_id: str, qty: int) -> float:
        return self._instrument(instrument_id).usd_qty(qty)


class _Logs:
    """The two files of lines."""

    def __init__(self, folder: Path, max_bytes: int, on_failure: Callable[[str], None]) -> None:
        self.executions = LineLog(folder / "executions.jsonl", max_bytes, on_failure)
        self.decisions = LineLog(folder / "llm_decisions.jsonl", max_bytes, on_failure)


def _same_line(written: bytes, made: bytes) -> bool:
    """Whether a log's last line is this one; what only the first life knew, of a call and of the twin, is left out."""
    if written == made or not written:
        return written == made
    old, new = (msgspec.json.decode(line, type=dict[str, Any]) | _FIRST_LIFE for line in (written, made))
    return old == new
