"""The table of costs: its tokens are those of the real prompt, its prices those of the budget, and README has no other figures."""

import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks import cost
from llm_maker.config import Config
from llm_maker.llm import answer
from llm_maker.llm.apis.open_model import open_model
from llm_maker.llm.budget import Pricer
from llm_maker.llm.prompt import SCHEMA, SYSTEM
from llm_maker.llm.providers import PROVIDERS
from tests.fakes.models.server import THROWAWAY_KEY, ModelServer

README = Path(__file__).parent.parent / "README.md"
DATE = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_agenda_is_a_full_one_and_the_answer_is_one():
    asked = cost.question(cost.TYPICAL, full=True)
    assert len(asked.snapshot.handles) == Config().strategy.max_markets_per_query
    assert asked.system == SYSTEM
    assert all(each["rules"] and each["news"] and each["past"] for each in asked.snapshot.values.values())
    read = answer.parse(cost.answer(cost.TYPICAL), asked.snapshot.handles)
    assert isinstance(read, answer.Answer) and len(read.signals) == cost.TYPICAL and not read.invalid
    bare = cost.question(cost.TYPICAL, full=False).snapshot.values.values()
    assert not any(each["rules"] or each["news"] or each["past"] for each in bare)


@pytest.mark.prove
@pytest.mark.parametrize("name", ["openai", "deepseek", "anthropic", "gemini"])
async def test_a_server_counts_what_was_estimated(name):
    """The fake bills bytes / 4 of all words; the schema, which it does not count, is ours to add."""
    spec, asked = PROVIDERS[name], cost.question(cost.TYPICAL, full=True)
    async with ModelServer() as server:
        pricer = Pricer(spec.price_id, spec.model, local=True)
        model = open_model(spec, api_key=THROWAWAY_KEY, pricer=pricer, base_url=server.base_url(spec.api))
        try:
            await model.complete(asked.system, asked.user, asked.schema, 10.0)
        finally:
            await model.close()
    schema = cost.low(json.dumps(SCHEMA, separators=(",", ":")))
    low, high = cost.call(cost.TYPICAL, count_tokens=cost.low), cost.call(cost.TYPICAL)
    assert server.bill[0].input == pytest.approx(low.input - schema, abs=4)
    assert low.input < high.input and low.answer < high.answer


def test_a_day_is_its_calls_and_a_peak_costs_more():
    found = {(p.provider, p.when): p for p in cost.prices({"day": Counter({cost.TYPICAL: 1_000})}, DATE)}
    flat, noon, night = found["openai", ""], found["deepseek", "12:00 UTC"], found["deepseek", "02:00 UTC"]
    assert flat.days["day"] == pytest.approx(flat.full)
    assert night.full == 2 * noon.full
    assert noon.full < noon.days["day"] == night.days["day"] < night.full
    assert all(p.one < p.lean < p.full and p.full_cached < p.full for p in found.values())
    assert {provider for provider, _ in found} == {spec.name for spec in PROVIDERS.values() if spec.model}


def test_the_calls_of_a_log_are_scaled_to_a_day(tmp_path):
    log = tmp_path / "llm_decisions.jsonl"
    rows = [{"timestamp": f"2026-01-01T{hour:02}:00:00.000Z", "num_signals": 1 + hour % 2} for hour in range(13)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cost.rhythm(log) == {1: 14, 2: 12}


def test_readme_has_the_figures_of_the_table():
    """Of a quiet day and of 1,000 decisions; those of counted days need their run."""
    row = r"^\| (\w+) \| `([^`]+)`(?:, ([^|]+))? \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|"
    rows = re.findall(row, README.read_text(), re.MULTILINE)
    told = {(provider, model, when.strip()): figures for provider, model, when, *figures in rows}
    found = cost.prices({"quiet": cost.QUIET}, DATE)
    assert told == {(p.provider, p.model, p.when): [f"{n:.2f}" for n in (p.full, p.one, p.days["quiet"])] for p in found}
    one, ten = cost.call(1), cost.call(cost.TYPICAL)
    for number in (ten.input, ten.answer, one.input, one.answer, cost.call(cost.TYPICAL, count_tokens=cost.low).input):
        assert f"{number:,}" in README.read_text(), number
