"""Looking at a run in hostile weather: nothing shown moves the state, every number is finite, and the sums agree."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from llm_maker import reload
from llm_maker.console import view
from llm_maker.console.board import Around, board, detail
from llm_maker.console.history import Past
from llm_maker.console.tail import Tail
from llm_maker.core.engine import checkpoint
from llm_maker.core.values import usd
from tests.sim.climate import STRATEGY
from tests.sim.weather import Weather

AROUND = Around("v", "simulated", "none", True, 0, None, {}, None, None, [], [], 0)
SAME = {"equity": "equity_usd", "exit": "exit_equity_usd", "cash": "cash_usd", "pnl": "pnl_usd", "exposure": "exposure_usd"}


class Looked(Weather):
    """A run that is looked at by every reading verb after each so many events."""

    def __init__(self, seed: int, every: int) -> None:
        super().__init__(seed)
        self.every, self.looks = every, 0
        self.past, self.tail = Past(), Tail(lambda: self.state)

    def _deliver(self, event: Any) -> None:
        before = len(self.log)
        super()._deliver(event)
        if len(self.log) > before:
            self.tail.record(len(self.log), *self.log[-1])
            if len(self.log) % self.every == 0:
                self.look()

    def look(self) -> None:
        state, saved = self.state, checkpoint(self.state)
        shown, status = board(state, AROUND), view.status(state)
        self.past.look(state, None)
        told: list[Any] = [shown, status, view.ask(state, "markets", {}), self.tail.since(0)]
        for name, market in state.markets.items():
            told += [detail(state, market, self.tail.of(name), STRATEGY), self.past.told(state, name, [])]
        tight = msgspec.structs.replace(state.params.risk, market_ratio=0.01, daily_loss_ratio=0.0001)
        maker = msgspec.structs.replace(state.strategy_params, edge_floor_ticks=5.0)
        told.append(reload.effects(state, msgspec.structs.replace(state.params, risk=tight), maker))
        assert checkpoint(state) == saved, "a look has moved the state"
        assert all(math.isfinite(value) for value in numbers(told))
        assert {name: shown["money"][name] for name in SAME} == {name: status[other] for name, other in SAME.items()}
        flows = state.flows
        rows = sum(row["pnl_usd"] for row in shown["rows"]) + usd(flows.rebates + flows.rewards + flows.funding)
        assert shown["money"]["pnl"] == pytest.approx(rows, abs=0.002), "the markets' gains are not the account's"
        self.looks += 1


def numbers(told: Any) -> list[float]:
    if isinstance(told, dict):
        return [number for value in told.values() for number in numbers(value)]
    if isinstance(told, list | tuple):
        return [number for value in told for number in numbers(value)]
    return [told] if isinstance(told, float) else []


def test_a_day_is_looked_at():
    run = Looked(9, every=400)
    run.run()
    assert run.looks > 5


@pytest.mark.prove
@pytest.mark.parametrize("seed", range(40))
def test_many_days_are_looked_at_often(seed):
    run = Looked(seed, every=29)
    run.run()
    assert run.looks > 20
