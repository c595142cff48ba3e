"""The slow loop as a user runs it: a daemon on the simulated market, models at fake servers over real sockets, and its files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llm_maker.core.events import SignalsFailed, SignalsReceived
from llm_maker.core.values import expit, logit
from llm_maker.llm import scout
from llm_maker.llm.blocks import CLOSE, OPEN
from llm_maker.llm.cassette import Cassette, key_of
from llm_maker.llm.providers import PROVIDERS
from tests.fakes.models import NOTES, THROWAWAY_KEY, ModelServer, Seen, Step, Usage, signal
from tests.slow import DECISION, Run, named, play, single

OFTEN = {"strategy.decision_interval": 10, "strategy.refresh_seconds": 10, "llm.timeout_seconds": 5}
PRICES = {"price_per_million_input_usd": 1.0, "price_per_million_output_usd": 10.0}


def saying(**by_model: dict[str, Any]) -> Callable[[list[str], Seen], dict[str, Any]]:
    """Each model says the same of every market, told by the beginning of its name."""

    def brain(handles: list[str], seen: Seen) -> dict[str, Any]:
        changed = next(words for model, words in by_model.items() if seen.model.startswith(model))
        return {"signals": [signal(handle, **changed) for handle in handles]}

    return brain


@pytest.mark.parametrize(
    "provider",
    ["deepseek", *(pytest.param(name, marks=pytest.mark.prove) for name in ("gemini", "anthropic", "openai"))],
)
async def test_each_wire_decides_and_the_files_tell_it(tmp_path: Path, provider: str):
    async with ModelServer() as server:
        run = await play(tmp_path, single(provider, server))
    assert server.violations == [] and {seen.wire for seen in server.seen} == {PROVIDERS[provider].api}
    told = run.daemon.result()
    assert told["provider"] == provider and told["decisions"] == len(server.seen) >= 2
    assert told["signals"] > 0 and told["orders_placed"] > 0 and told["clean_stop"]
    lines = run.lines()
    assert all(set(line) == DECISION for line in lines) and len(run.answered) == told["decisions"]
    for line in run.answered:
        assert line["model"] == f"{provider}/{PROVIDERS[provider].model}" and line["latency_ms"] > 0
        assert line["tokens"]["output"] > 0 and line["num_signals"] == len(line["signals"]) > 0
        (member,) = line["members"]
        assert (member["model"], member["weight"], member["outcome"]) == (line["model"], 1.0, "ok")
    one = run.answered[0]["signals"][0]
    assert one["p_yes"] == 0.56 and one["accepted"] and one["weight"] > 0 and one["p_final"] != one["yes_price"]
    events = run.events(SignalsReceived)
    assert [event.decision_id for event in events] == [line["decision_id"] for line in run.answered]
    # What a person may read has the market's own names; what left this machine has not.
    text = (tmp_path / "logs" / "snapshot.json").read_text()
    shown = json.loads(text)
    assert text.count("\n") > 20 and shown["prompt_version"] == events[-1].prompt_version
    assert {market["market_id"] for market in shown["markets"]} <= set(run.daemon.state.markets) and shown["markets"]
    fenced = f"{OPEN}[^{CLOSE}]*{CLOSE}"
    assert all("SIM-" not in re.sub(fenced, "", seen.user + seen.system) for seen in server.seen), "but in their own titles"


async def test_an_ensemble_goes_on_without_the_one_that_fails(tmp_path: Path):
    brain = saying(gpt={"p_yes": 0.7, "p_low": 0.6, "p_high": 0.8}, claude={"p_yes": 0.5, "p_low": 0.4, "p_high": 0.6})
    async with ModelServer(answer=brain, fault=lambda seen: "500" if seen.wire == "gemini" else None) as server:
        three = [named(provider, server, **PRICES) for provider in ("openai", "anthropic", "gemini")]
        run = await play(tmp_path, OFTEN | {"llm.ensemble": three, "llm.cassette": "tapes/one.jsonl"}, speed=30.0)
    assert server.violations == []
    assert {seen.wire for seen in server.seen} == {"responses", "messages", "gemini"}
    name = "pool:anthropic/claude-haiku-5-5+gemini/gemini-3.1-flash-lite+openai/gpt-6-luna"
    events = run.events(SignalsReceived)
    assert len(events) >= 3 and {event.model for event in events} == {name}, "the pool keeps its name when one of it is out"
    middle = expit((logit(0.7) + logit(0.5)) / 2)
    for event in events:
        assert {round(s.p_yes, 9) for s in event.signals} == {round(middle, 9)} and all(s.disagreement > 0 for s in event.signals)
    lines = run.answered
    for line in lines:
        members = {member["model"].split("/")[0]: member for member in line["members"]}
        assert {who: (m["outcome"] == "ok", m["weight"]) for who, m in members.items()} == {
            "openai": (True, 0.5), "anthropic": (True, 0.5), "gemini": (False, 0.0),
        }  # fmt: skip
        assert {s["p_yes"] for s in members["openai"]["signals"]} == {0.7} and members["gemini"]["signals"] == []
        assert line["cost_usd"] == pytest.approx(sum(m["cost_usd"] for m in members.values()), abs=3e-6) and line["cost_usd"] > 0
    assert lines[0]["members"][2]["outcome"] == "overload" and lines[-1]["members"][2]["outcome"] == "open", "then left alone"
    left_out = [text for text in run.said if "gemini" in text and "left out" in text]
    assert len(left_out) == 1 and "overload" in left_out[0], "said once, not at every cycle"
    spent = run.daemon.result()["llm_cost_usd"]
    assert spent == pytest.approx(sum(line["cost_usd"] for line in lines)) and spent > 0
    kept = Decimal(json.loads(run.kept("llm_budget"))["spent_usd"])
    cut_off = run.unanswered
    # Of a question that the end cut off nobody knows the price: the ledger of the budget has the dearest it may have had.
    assert float(kept) == pytest.approx(spent, abs=1e-5) if not cut_off else float(kept) > spent
    tape = Cassette.read(tmp_path / "tapes" / "one.jsonl")
    assert 0 <= len(server.seen) - len(tape.exchanges) <= 3 * cut_off and {e.error for e in tape.exchanges} == {"", "overload"}
    assert set(tape.models()) == {"openai/gpt-6-luna", "anthropic/claude-haiku-5-5", "gemini/gemini-3.1-flash-lite"}
    asked = server.seen[0]
    words = (asked.system, asked.user, asked.schema or {})
    assert tape.next("openai", "gpt-6-luna", key_of(*words)) is not None, "found again by every word that was sent"


async def test_the_reserve_steps_in_and_steps_back(tmp_path: Path):
    down = iter(["500"] * 2 + ["ok"] * 1_000)
    async with ModelServer(fault=lambda seen: next(down) if seen.wire == "messages" else None) as server:
        overrides = single("anthropic", server) | {"llm.reserve": [named("deepseek", server)]}
        run = await play(tmp_path, OFTEN | overrides, until=70.0)
    assert server.violations == []
    models = [line["model"] for line in run.answered]
    assert models[0] == "deepseek/deepseek-flash" and set(models[1:]) == {"anthropic/claude-haiku-5-5"}
    assert [member["outcome"] for member in run.answered[0]["members"]] == ["overload", "ok"]
    assert not run.events(SignalsFailed) and run.daemon.state.counts.fallbacks == 0
    turns = [text.split(":")[0] for text in run.said if "stands in" in text]
    assert turns == ["deepseek/deepseek-flash stands in", "nobody stands in any more"]


async def test_a_vote_is_counted_and_the_probabilities_are_left_out(tmp_path: Path):
    for_it = {"action": "buy_yes", "confidence": 0.9, "p_yes": 0.97, "p_low": 0.95, "p_high": 0.99, "risk_level": "low"}
    against = {"action": "hold", "p_yes": 0.4, "p_low": 0.3, "directional_bias": "bearish"}
    brain = saying(gpt=for_it, claude=for_it, deepseek=against)
    async with ModelServer(answer=brain) as server:
        three = [named(provider, server) for provider in ("openai", "anthropic", "deepseek")]
        run = await play(tmp_path, {"llm.ensemble": three, "llm.ensemble_mode": "vote", "strategy.signal_bias_beta": 1.0})
    event = run.events(SignalsReceived)[0]
    assert {(str(s.action), str(s.directional_bias), s.p_yes) for s in event.signals} == {("buy_yes", "bullish", None)}
    assert {m.outcome for m in event.members} == {"ok"} and {round(m.weight, 6) for m in event.members} == {round(1 / 3, 6)}


async def test_shares_of_the_capital_reach_the_targets_within_their_bounds(tmp_path: Path):
    def brain(handles: list[str], seen: Seen) -> dict[str, Any]:
        sure = {"action": "buy_yes", "confidence": 0.95, "p_yes": 0.97, "p_low": 0.95, "p_high": 0.99}
        return {"signals": [signal(h, **sure, share=0.8 if h in ("M1", "M2") else 0.0) for h in handles]}

    async with ModelServer(answer=brain) as server:
        run = await play(tmp_path, single("openai", server) | {"llm.portfolio": True, "strategy.max_position_size": 100.0})
    assert all("share" in json.dumps(seen.schema) for seen in server.seen) and server.violations == []
    answers = run.events(SignalsReceived)
    assert {event.prompt_version.endswith("-portfolio") for event in answers} == {True}
    last = answers[-1].signals
    assert [s.share for s in last] == [0.5, 0.5] + [0.0] * (len(last) - 2) and len(last) > 2, "together at most 1"
    markets = run.daemon.state.markets
    targets = {s.market_id: markets[s.market_id].opinion.target_net for s in last}
    for i, target in targets.items():
        most = 100 * 10 ** markets[i].instrument.qty_decimals if i in {s.market_id for s in last[:2]} else 0
        held = max(0, markets[i].position.net)
        assert target <= max(most, held), "no more than a position may be, and nothing where no share was given"
    assert all(targets[s.market_id] > 0 for s in last[:2])


async def test_the_blind_arm_and_a_persons_own_words(tmp_path: Path):
    calm = tmp_path / "prompts" / "calm"
    calm.mkdir(parents=True)
    (calm / "system.txt").write_text("You are the calmest forecaster of Bergen.\n\n$contract\n")
    hidden = "Now: $price\nBefore: $trend\nBook: $book\nOurs: $own_quotes\nThen: $past\n"
    (calm / "market.txt").write_text(f"[$handle]\n$question\n{hidden}")
    own = {"llm.prompts_dir": "prompts", "llm.prompts": ["calm"], "llm.show_price": False}
    async with ModelServer() as server:
        run = await play(tmp_path, OFTEN | own | single("openai", server))
    assert server.violations == [] and run.daemon.result()["decisions"] >= 3
    assert {line["model"] for line in run.answered} == {"openai/gpt-6-luna#calm~blind"}
    assert all(line["prompt_version"].endswith("-blind") for line in run.answered)
    prices = {str(m["yes_price"]) for fact in run.lines("llm_raw") for m in fact["request"]["markets"]}
    assert prices
    for seen in server.seen:
        assert seen.system.startswith("You are the calmest forecaster of Bergen.") and "withheld" in seen.user
        assert not re.findall(r"^(Now|Before|Book|Ours|Then):.*", seen.user, re.MULTILINE), seen.user
        assert not prices & set(re.findall(r"\d+\.\d+", seen.user)), "no price in any prompt that left"
    blind = single("openai", server) | {"llm.show_price": True}
    async with ModelServer() as server:
        await play(tmp_path / "seeing", blind | single("openai", server), until=20.0)
    assert "yes_price" in server.seen[0].user, "or this test shows nothing"


async def test_the_bandit_tries_every_prompt(tmp_path: Path):
    for name in ("calm", "bold"):
        (tmp_path / "prompts" / name).mkdir(parents=True)
        (tmp_path / "prompts" / name / "system.txt").write_text(f"You are {name}.\n\n$contract\n")
    own = {"llm.prompts_dir": "prompts", "llm.prompts": ["calm", "bold"], "llm.bandit": True}
    async with ModelServer() as server:
        run = await play(tmp_path, OFTEN | own | single("openai", server), until=90.0)
    assert server.violations == []
    assert {seen.system.split(".")[0] for seen in server.seen} == {"You are calm", "You are bold"}
    assert all(len(line["members"]) == 1 for line in run.answered) and len(run.answered) > 5
    assert 0 <= len(server.seen) - len(run.answered) <= run.unanswered <= 1
    versions = {line["prompt_version"]: line["model"] for line in run.answered}
    assert sorted(versions.values()) == ["openai/gpt-6-luna#bold", "openai/gpt-6-luna#calm"]


async def scouted(home: Path, monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setattr(scout, "_LOOK_S", 0.1)
    day = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    async with ModelServer(search_text=NOTES.replace("2026-11-20", day)) as server:
        news = {f"llm.news.{key}": value for key, value in named(provider, server).items()}
        run = await play(home, OFTEN | news | single("deepseek", server), until=75.0, speed=15.0)
    assert server.violations == []
    searches = [seen for seen in server.seen if seen.search_tools]
    asked = [seen for seen in server.seen if not seen.search_tools]
    assert searches and not any(re.search(r"\[M1\]|yes_price|\bposition\b", s.user + s.system) for s in searches)
    lines = run.lines("news")
    assert {line["outcome"] for line in lines} == {"ok"} and len(lines) == len(searches)
    assert {line["market_id"] for line in lines} <= set(run.daemon.state.markets)
    fact = f"{OPEN}{day}, news.example: A fake fact with a number in it: 42.{CLOSE}"
    assert "fake fact" not in asked[0].user and fact in asked[-1].user, "fenced, dated, with its source"
    spent = Decimal(json.loads(run.kept("news_budget"))["spent_usd"])
    assert spent == sum(Decimal(line["cost_usd"]) for line in lines)


async def test_what_the_scout_finds_stands_in_later_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    await scouted(tmp_path, monkeypatch, "gemini")


@pytest.mark.prove
@pytest.mark.parametrize("provider", ["xai", "openai", "anthropic"])
async def test_every_search_model_can_be_the_scout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: str):
    await scouted(tmp_path, monkeypatch, provider)


def poor(server: ModelServer, **more: Any) -> dict[str, Any]:
    """A model whose call is 0.001 USD, 0.004 at the worst, and 0.006 USD a day."""
    llm = single("openai_compatible", server, model="m", price_per_million_input_usd=0.0, price_per_million_output_usd=1.0)
    return OFTEN | llm | {"llm.daily_budget_usd": 0.006, "llm.max_output_tokens": 4_000, "llm.probe_seconds": 5.0, **more}


async def test_the_budget_holds_and_outlives_the_daemon(tmp_path: Path):
    async with ModelServer(usage=Usage(input=6_000, output=1_000)) as server:
        first = await play(tmp_path, poor(server), until=100.0)
        asked = len(server.seen)
        assert asked == 3, "the fourth might cost more than is left"
        spent = json.loads(first.kept("llm_budget"))
        assert Decimal(spent["spent_usd"]) == Decimal("0.003")
        again = await play(tmp_path, poor(server), until=30.0)
    assert len(server.seen) == asked, "a restart fills no purse"
    assert json.loads(again.kept("llm_budget")) == spent
    outcomes = [line["outcome"] for line in first.lines() if line["outcome"] in ("ok", "budget", "fallback")]
    assert outcomes[:7] == ["ok"] * 3 + ["budget"] * 3 + ["fallback"]
    assert any("raise llm.daily_budget_usd" in text for text in first.said)
    assert first.daemon.result()["llm_cost_usd"] == pytest.approx(0.003)
    assert again.daemon.resumed and again.daemon.state.slow.fallback


async def test_a_call_that_was_cut_off_by_the_end_is_on_the_bill(tmp_path: Path):
    async with ModelServer(fault=lambda seen: "hang") as server:
        run = await play(tmp_path, poor(server), until=15.0)
    assert len(server.seen) == 1
    assert Decimal(json.loads(run.kept("llm_budget"))["spent_usd"]) == Decimal("0.004"), "the most that it may have cost"


async def test_a_jump_makes_the_model_look_again(tmp_path: Path):
    jumpy = {"risk.jump_ticks": 1, "paper.activity": 200.0, "paper.regime": "toxic", "risk.jump_cooldown_seconds": 1.0}
    async with ModelServer() as server:
        run = await play(tmp_path, jumpy | single("openai", server), until=120.0)
    lines = [line for line in run.answered if "jump" in line["reason"]]
    assert lines and any("asked_because jump" in seen.user for seen in server.seen)
    asked: set[str] = set()
    again = 0
    for line in run.answered:
        markets = {s["market_id"] for s in line["signals"]}
        again += bool(markets & asked and "jump" in line["reason"])
        asked |= markets
    assert again, "a market whose answer was still young"


@pytest.mark.prove
async def test_what_a_model_says_wrongly_costs_only_its_own_signal(tmp_path: Path):
    script = [Step("seed"), Step("injection"), Step("exit_unsure"), Step("wrong_handle")]
    async with ModelServer([*script]) as server:
        run = await play(tmp_path, OFTEN | single("openai", server), until=75.0)
    assert [line["outcome"] for line in run.lines()][:4] == ["ok", "ok", "ok", "malformed"]
    orders = [line for line in run.lines("executions") if line["event"] == "order"]
    assert orders and all(order["post_only"] for order in orders), "no advice crosses the spread"
    assert THROWAWAY_KEY not in json.dumps(run.lines())


def test_a_run_reads_its_own_files(tmp_path: Path):
    """The stage itself: a log that is not there is an error, not an empty one."""
    with pytest.raises(FileNotFoundError):
        Run(tmp_path, None).lines()  # type: ignore[arg-type]
