"""The slow loop's story end to end: a model that fails three times over a real socket, FALLBACK, exits alive, and the way back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from llm_maker import app
from llm_maker.config import load
from llm_maker.keys import Secrets
from tests.fakes.model_server import ModelServer

KEY = "sk-THROWAWAY-ONLY-FOR-TESTS-0001"


async def tell(home: Path, script: list[str], market_seconds: float, **overrides: object) -> tuple[app.Daemon, list[dict]]:
    """Run the daemon on a small simulated market at speed, its model being the fake server; its decision log."""
    async with ModelServer(script, hang_s=5.0) as server:
        llm = {"llm.provider": "openai_compatible", "llm.base_url": server.url, "llm.model": "fake"}
        config = load(None, {}, {"paper.markets": 3, **llm, **overrides})
        daemon = app.Daemon(
            config, Secrets({"OPENAI_API_KEY": KEY}), home, app.Options(speed=150.0, until=market_seconds), lambda line: None
        )
        try:
            assert await asyncio.wait_for(daemon.run(), 60)
        finally:
            daemon.close()
    return daemon, [json.loads(line) for line in (home / "logs" / "llm_decisions.jsonl").read_text().splitlines()]


async def test_three_failures_enter_fallback_and_one_good_answer_returns(tmp_path: Path):
    # An overload is tried once more within its cycle, and only then a failure.
    daemon, lines = await tell(tmp_path, ["500", "500", "garbage", "refusal", "empty_text"], 600.0)
    outcomes = [line["outcome"] for line in lines]
    entered, left = outcomes.index("fallback"), outcomes.index("fallback_over")
    assert outcomes[:entered] == ["overload", "malformed", "refusal"]
    assert outcomes[entered + 1 : left] == ["malformed", "ok"], "the first probe fails, the second answers"
    assert "Switching to fallback mode after 3 consecutive failures: refusal" in lines[entered]["note"]
    assert "Cure: " in lines[entered]["note"]
    assert daemon.state.counts.fallbacks == 1 and not daemon.state.slow.fallback
    assert daemon.result()["decisions"] > 0 and daemon.result()["signals"] > 0
    notices = [json.loads(line) for line in (tmp_path / "logs" / "daemon.jsonl").read_text().splitlines()]
    assert [n["event"] for n in notices if n["event"].startswith("fallback")] == ["fallback", "fallback_over"]


@pytest.mark.prove
async def test_stops_work_in_fallback(tmp_path: Path):
    daemon, lines = await tell(
        tmp_path,
        ["500"] * 1000,
        900.0,
        **{
            "paper.markets": 8,
            "paper.regime": "toxic",
            "paper.activity": 200.0,
            "execution.max_spread_threshold": 0.2,
            "strategy.decision_interval": 10.0,  # rules take over early, and most of the run is theirs
            "strategy.stop_loss_percentage": 0.5,
            "strategy.stop_hold_seconds": 1.0,
            "strategy.take_profit_percentage": 90.0,
        },
    )
    assert daemon.state.slow.fallback
    entered = next(line["timestamp"] for line in lines if line["outcome"] == "fallback")
    stops = [
        n
        for n in map(json.loads, (tmp_path / "logs" / "daemon.jsonl").read_text().splitlines())
        if n["event"] == "exit_stop" and n["timestamp"] > entered
    ]
    assert stops, "no position was stopped out after FALLBACK began; the run shows nothing"
    orders = [json.loads(line) for line in (tmp_path / "logs" / "executions.jsonl").read_text().splitlines()]
    after = [o for o in orders if o["event"] == "order" and o["reason"].startswith("exit: stop") and o["timestamp"] > entered]
    assert after and after[0]["post_only"], "a stop first rests as maker"
    assert all(o["post_only"] != o["reason"].endswith(", taking") for o in after), "only a stop whose patience is over takes"


@pytest.mark.parametrize("step", ["hang", pytest.param("reset", marks=pytest.mark.prove)])
async def test_a_dead_server_is_a_named_failure(tmp_path: Path, step: str):
    _, lines = await tell(tmp_path, [step] * 100, 480.0, **{"llm.timeout_seconds": 2.0})
    outcomes = {line["outcome"] for line in lines}
    assert outcomes <= {"timeout" if step == "hang" else "connection", "fallback"} and len(outcomes) == 1 + ("fallback" in outcomes)
