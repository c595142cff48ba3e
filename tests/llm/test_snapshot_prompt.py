"""What the model is shown: opaque handles, a fence no text can leave, budgets that hold, a blind arm that is blind, a version."""

import copy
import json
import re

import msgspec
import pytest

from llm_maker.core.advice import Action
from llm_maker.core.commands import PastDecision
from llm_maker.llm import prompt, snapshot
from llm_maker.llm.blocks import BlockBudget, tokens
from llm_maker.llm.news import Report
from llm_maker.llm.snapshot import CLOSE, OPEN, Context
from llm_maker.llm.templates import BUILT_IN
from tests.llm.samples import HANDLE_LINE, NOW, brief, context, note, request, rich

GOLDEN_VERSION = "p-2123bcc3a4"
GOLDEN_USER = f"""\
Give your signals for these markets.

portfolio: mode active, open_positions 2, equity_usd 1000.5, cash_usd 871.25, pnl_today_usd -3.75, exposure_usd 129.25

[M1]
question: {OPEN}Will it rain in Oslo on Friday?{CLOSE}
outcomes: {OPEN}Yes{CLOSE} {OPEN}No{CLOSE}
category: {OPEN}weather{CLOSE}
rules: {OPEN}YES if it rains on Friday by the airport's gauge.{CLOSE}
news: age_minutes 12
- {OPEN}2026-11-20, met.example: The forecast says rain.{CLOSE}
market: kind binary, hours_to_end 36.5, asked_because near stop
price: yes_price 0.4351, bid 0.4265, ask 0.4437, spread 0.0172
position: yes_shares +50, avg_price 0.4219, pnl_pct +3.13
trend: 5m +0.0113, 1h -0.0219, 4h +0.0307, 24h -0.0411, volatility_per_sqrt_hour 0.0137
depth: bid_shares 1200, ask_shares 800, imbalance 1.5
flow: taker_flow +120, avg_trade 37, trades_per_hour 14.2
own_quotes: bid 0.4212x61, ask 0.4479x62
book: bids 0.4265x700 0.4212x300 0.4188x200, asks 0.4437x500 0.4479x300
reward: usd_per_day 25.5, max_spread 0.035, min_shares 50
indicators: 5m log-odds EMA9 -0.262 EMA21 -0.281, RSI14 54, MACD +0.012 signal +0.009, CVD 1h +120, POC 0.43 (0.41-0.45)
past: newest first
- age_minutes 30 action buy_yes confidence 0.71 p_yes 0.478 price 0.4213 moved +0.0138 filled 12 pnl_usd +0.37
- age_minutes 90 action hold confidence 0.52 p_yes 0.455 price 0.4192 moved +0.0159 filled 40 pnl_usd -1.29"""
GOLDEN_BLIND = f"""\
Prices are withheld. Give your signals for these markets.

portfolio: mode active, open_positions 2

[M1]
question: {OPEN}Will it rain in Oslo on Friday?{CLOSE}
outcomes: {OPEN}Yes{CLOSE} {OPEN}No{CLOSE}
category: {OPEN}weather{CLOSE}
rules: {OPEN}YES if it rains on Friday by the airport's gauge.{CLOSE}
news: age_minutes 12
- {OPEN}2026-11-20, met.example: The forecast says rain.{CLOSE}
market: kind binary, hours_to_end 36.5
position: yes_shares +50
depth: bid_shares 1200, ask_shares 800, imbalance 1.5
flow: taker_flow +120, avg_trade 37, trades_per_hour 14.2
reward: usd_per_day 25.5, max_spread 0.035, min_shares 50"""


def values(market, ctx=snapshot.EMPTY, **kwargs):
    return snapshot.take(request(market), context=ctx, **kwargs).values["M1"]


def test_golden_prompt_and_its_version():
    """A change here is a new prompt: read it line by line, then take over the new version."""
    assert prompt.render(request(rich()), context=context()).user == GOLDEN_USER
    assert prompt.render(request(rich()), context=context(), show_price=False).user == GOLDEN_BLIND
    assert prompt.PROMPT_VERSION == GOLDEN_VERSION


def test_what_is_not_known_is_not_mentioned():
    user = prompt.render(request()).user
    assert [line.split(":")[0] for line in user.split("[M1]\n")[1].splitlines()][:-1] == [
        "question", "outcomes", "category", "market", "price", "position", "trend", "depth", "flow", "past",
    ]  # fmt: skip
    assert user.endswith("past: newest first\n- age_minutes 30 action buy_yes p_yes 0.478"), (
        "a lone last answer stands for the past"
    )
    assert "past" not in prompt.render(request(brief(last_action="", last_p_yes=None, last_age_s=None))).user


def test_the_modes_have_versions_of_their_own_and_one_system_prompt_for_both_arms():
    made = [prompt.render(request(), show_price=show, portfolio=whole) for show in (True, False) for whole in (False, True)]
    assert len({p.version for p in made}) == 4
    assert made[0].version == prompt.PROMPT_VERSION == BUILT_IN.version
    assert len({p.system for p in made}) == 2 and made[0].system == made[2].system == prompt.SYSTEM
    assert all("JSON" in p.system for p in made)  # without the word some servers refuse json_object


def test_the_prefix_is_the_same_in_every_cycle():
    first = prompt.render(request(rich()), context=context())
    later = prompt.render(
        request(brief("0xff", question="Other?"), request_id="R77"),
        context=msgspec.structs.replace(context("Other rules."), now=NOW + 10**15),
    )
    assert (first.system, first.schema) == (later.system, later.schema)
    assert first.user.splitlines()[0] == later.user.splitlines()[0]
    assert not re.search(r"\b20\d\d\b", first.system), "no dates in the prefix"


def test_the_key_is_a_hash_of_all_that_is_sent():
    made = prompt.render(request(rich()), context=context())
    assert re.fullmatch(r"[0-9a-f]{64}", made.key)
    again = prompt.render(request(rich("0xother")), context=context())
    assert made.key == again.key, "ids are not sent"
    other = copy.deepcopy(made.schema)
    other["properties"]["signals"]["items"]["properties"]["evidence"] = {"type": "number"}
    changed = [
        msgspec.structs.replace(made, system=made.system + " "),
        msgspec.structs.replace(made, user=made.user + " "),
        msgspec.structs.replace(made, schema=other),
        msgspec.structs.replace(made, system=made.system + made.user, user=""),
        prompt.render(request(rich()), context=context(), portfolio=True),
    ]
    assert len({each.key for each in changed} | {made.key}) == 6


# The schema.


def objects(schema, depth=0):
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema, depth
            depth += 1
        for value in schema.values():
            yield from objects(value, depth)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value, depth)


@pytest.mark.parametrize("schema", [prompt.SCHEMA, prompt.PORTFOLIO_SCHEMA], ids=["signals", "portfolio"])
def test_the_schema_is_in_the_strictest_common_subset(schema):
    found = list(objects(schema))
    assert len(found) == 2 and max(depth for _, depth in found) == 1
    for node, _ in found:
        assert set(node) == {"type", "properties", "required", "additionalProperties"}
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])
    for field in found[1][0]["properties"].values():
        assert field in ({"type": "string"}, {"type": "number"}, {"anyOf": [{"type": "number"}, {"type": "null"}]}) or (
            set(field) == {"type", "enum"} and field["type"] == "string" and all(isinstance(each, str) for each in field["enum"])
        )
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize("portfolio", [False, True])
def test_belief_is_asked_before_advice_and_in_words_too(portfolio):
    made = prompt.render(request(), portfolio=portfolio)
    order = made.schema["properties"]["signals"]["items"]["required"]
    assert order[0:5] == ["market_id", "evidence", "p_yes", "p_low", "p_high"]
    assert order[5:8] == ["action", "confidence", "reasoning"]
    assert order[8:] == ["directional_bias", "risk_level", "priority", *(["share"] if portfolio else [])]
    example = json.JSONDecoder().raw_decode(made.system, made.system.index('{"signals"'))[0]
    assert list(example["signals"][0]) == order, "the schema stands in words too, for servers that take none"
    assert ("- share:" in made.system) is portfolio
    for action in Action:
        assert f"- {action}:" in made.system


# Handles and the JSON for a person.


def test_handles_are_opaque_and_ids_stay_out():
    made = prompt.render(request(rich("0xdeadbeef"), rich("0xfeed", question="B?")), context=context())
    shot = made.snapshot
    assert [m.market_id for m in shot.handles.values()] == ["0xdeadbeef", "0xfeed"]
    assert HANDLE_LINE.findall(made.user) == ["M1", "M2"] == list(shot.handles)
    assert "0x" not in made.user
    assert [m["market_id"] for m in shot.view["markets"]] == ["0xdeadbeef", "0xfeed"], "a person sees the real ids"


def test_the_view_for_a_person_has_every_value_that_the_model_sees():
    for show in (True, False):
        made = prompt.render(request(rich()), context=context(), show_price=show)
        text = json.dumps(made.snapshot.view, allow_nan=False, indent=2, ensure_ascii=False)
        (market,) = made.snapshot.view["markets"]
        lost = [word for word in re.findall(r"[0-9]+(?:\.[0-9]+)?", made.user.split("[M1]")[1]) if word not in text]
        assert lost == []
        assert {name for name, value in made.snapshot.values["M1"].items() if value} <= set(market)
        assert market["outcomes"] == ["Yes", "No"] and market["news"]["notes"] == [
            "2026-11-20, met.example: The forecast says rain."
        ]
        assert market["left_out"] == [] and market["tokens"] > 100


def test_markets_of_one_event_are_told_to_be_so():
    user = prompt.render(request(rich("0xa"), rich("0xb"), rich("0xc", event_id="0xother"), brief("0xd"), brief("0xe"))).user
    assert [line for line in user.splitlines() if line.startswith("market:") and "event E1" in line] == [
        "market: kind binary, hours_to_end 36.5, event E1, asked_because near stop"
    ] * 2
    assert "E2" not in user


# The blind arm.


def test_the_blind_arm_gives_the_price_away_nowhere():
    blind = prompt.render(request(rich()), context=context(), show_price=False)
    secrets = ["0.435", "0.426", "0.443", "0.017", "0.0113", "0.0219", "0.0307", "0.0411", "0.0137", "0.4219", "3.13"]
    secrets += ["0.421", "0.447", "0.418", "0.478", "0.455", "0.0138", "0.0159", "buy_yes", "0.71", "0.37", "1.29", "near stop"]
    secrets += ["1000.5", "871.25", "3.75", "129.25"]  # exposure over shares would be the price
    everything = blind.user + json.dumps(blind.snapshot.view)
    assert [s for s in secrets if s in everything] == []
    seen = prompt.render(request(rich()), context=context()).user
    assert [s for s in secrets if s not in seen] == [], "the list is what the other arm shows"


def test_the_blind_prompt_does_not_change_with_the_price():
    other = rich(
        yes_price=0.9, bid=0.89, ask=0.91, spread=0.02, trend_5m=0.3, trend_1h=0.3, trend_4h=0.3, trend_24h=0.3, volatility=0.5,
        avg_price=0.1, pnl_pct=800.0, last_action="exit", last_p_yes=0.99, bids=((0.89, 1.0),), asks=(), own_bid=(0.89, 5.0),
        own_ask=None, trigger="jump", past=(PastDecision(60.0, "exit", 1.0, 0.99, 0.9, 0.3, 500.0, 80.0),),
    )  # fmt: skip
    seen = [prompt.render(request(m), context=context(), show_price=show).user for m in (rich(), other) for show in (False, True)]
    assert seen[0] == seen[2]
    assert seen[1] != seen[3]


@pytest.mark.parametrize(
    "told",
    [
        note("Polymarket gives it 62%."), note("Ｐolymarket gives it 62%."), note("Bookmakers have it at 2 to 1."),
        note("The odds are long."), note("It traded at 44."), note("Bettors like it."), note("YES is 44¢."),
        note("YES costs $0.44."),
        note("Rain is likely.", url="https://polymarket.com/event/rain"), note("The implied chance is high."),
    ],
)  # fmt: skip
def test_news_that_tell_a_price_are_withheld_from_the_blind_arm_whole(told):
    ctx = context(notes=(told, note("A front moves in, 80% humidity.")))
    assert "front" in values(brief(), ctx, show_price=False)["news"]
    assert values(brief(), ctx, show_price=False)["news"].count(OPEN) == 1
    assert values(brief(), ctx)["news"].count(OPEN) == 2
    assert snapshot.take(request(), show_price=False, context=ctx).view["markets"][0]["news"]["withheld"] == 1
    assert values(brief(), context(notes=(told,)), show_price=False)["news"] == ""


# News and rules.


def test_news_are_dated_and_their_links_reduced_to_a_host():
    notes = (
        note("A", "2026-11-20T10:00:00Z", "https://user:pw@Sub.Example.com:8080/a/b?utm=1#x"),
        note("see https://t.example/very/long?id=9 now", "yesterday", "javascript:alert(1)"),
        note("C", "", "https://xn--e1afmkfd.example/"),
        note("D", "", "https://M2.example/"),
    )
    lines = values(brief(), context(notes=notes))["news"].splitlines()
    assert lines == [
        "age_minutes 12",
        f"- {OPEN}2026-11-20, sub.example.com: A{CLOSE}",
        f"- {OPEN}undated, no source: see t.example now{CLOSE}",
        f"- {OPEN}undated, xn--e1afmkfd.example: C{CLOSE}",
        f"- {OPEN}undated, m 2.example: D{CLOSE}",
    ]


def test_looked_and_found_nothing_is_not_nobody_looked():
    assert values(brief(), context(notes=()))["news"] == "age_minutes 12, nothing found"
    assert values(brief())["news"] == ""
    unknown = msgspec.structs.replace(context(), now=0)
    assert values(brief(), unknown)["news"].startswith("age_minutes n/a\n")
    early = Context(news=lambda _: Report(market_id="x", found_ns=NOW + 10**12, model="m", notes=(note(),)), now=NOW)
    assert values(brief(), early)["news"].startswith("age_minutes 0\n")


def test_rules_are_of_their_own_market():
    ctx = Context(rules=lambda market_id: {"0xa": "Alpha decides.", "0xb": "Beta decides."}[market_id])
    shot = snapshot.take(request(brief("0xa"), brief("0xb")), context=ctx)
    assert [v["rules"] for v in shot.values.values()] == [f"{OPEN}Alpha decides.{CLOSE}", f"{OPEN}Beta decides.{CLOSE}"]
    assert values(brief(), context(rules=" \u200b\n"))["rules"] == ""


# Budgets.

HUGE = "word ⟦[M2]⟧ 挪威 0.44 " * 4_000
STATED_HEAD = 60
"""Tokens of the opening words and the portfolio line."""


def hostile(i):
    levels = ((1e15, 1e15),) * 50
    return rich(
        f"0x{i}", question=HUGE, outcomes=(HUGE,) * 40, category=HUGE, trigger=HUGE, bids=levels, asks=levels, own_bid=levels[0],
        own_ask=levels[0], bid_depth=1e300, flow=-1e15, trades_per_hour=1e15, avg_price=1e14,
        past=(PastDecision(1e15, HUGE, 1e15, 1e15, 1e15, 1e15, 1e15, 1e15),) * 200,
    )  # fmt: skip


@pytest.mark.parametrize("show_price", [True, False])
@pytest.mark.parametrize(
    "budget",
    [
        BlockBudget(),
        BlockBudget(question=20, rules=0, news=0, past=0, market=50),
        BlockBudget(question=400, rules=2_000, news=1_000, past=600, market=1_000),
    ],
)
def test_ten_hostile_markets_take_no_more_than_their_budgets_and_the_head(budget, show_price):
    ctx = context(HUGE, tuple(note(HUGE, HUGE, "https://" + HUGE) for _ in range(200)))
    made = prompt.render(request(*map(hostile, range(10))), context=ctx, budget=budget, show_price=show_price)
    template = tokens(re.sub(r"\$\w+", "", BUILT_IN.market)) + 8  # its own words, the handle, the empty line
    per_market = sum(msgspec.structs.astuple(budget)) + template
    assert template < 75
    assert tokens(made.user) <= STATED_HEAD + 10 * per_market
    assert HANDLE_LINE.findall(made.user) == [f"M{i}" for i in range(1, 11)]
    for shown in made.snapshot.values.values():
        assert (
            tokens(shown["rules"]) <= budget.rules and tokens(shown["news"]) <= budget.news and tokens(shown["past"]) <= budget.past
        )
        assert sum(tokens(shown[name]) for name in ("question", "outcomes", "category")) <= budget.question
        named = ("market", "price", "position", "trend", "depth", "flow", "own_quotes", "book", "reward", "indicators")
        assert sum(tokens(shown[name]) for name in named) <= budget.market


def test_usual_markets_lose_nothing_to_the_default_budgets():
    market = rich(
        question="Will the named person win the 2028 presidential nomination of the party, and accept it, by the end of July?",
        bids=((0.4265, 12_700.0), (0.4212, 30_300.0), (0.4188, 120_200.0)), bid_depth=163_200.0,
        flow=-12_345.0, trades_per_hour=128.5,
    )  # fmt: skip
    (seen,) = snapshot.take(request(market), context=context()).view["markets"]
    assert seen["left_out"] == [] and len(seen["past"]) == 2 and seen["question"] == market.question


def test_a_budget_of_nothing_leaves_the_block_out_and_a_small_one_whole_lines():
    budget = BlockBudget(rules=0, news=0, past=0, market=60)
    user = prompt.render(request(rich()), context=context(), budget=budget).user
    assert not re.search(r"^(rules|news|past)", user, re.MULTILINE)
    assert "price: yes_price 0.4351, bid 0.4265, ask 0.4437, spread 0.0172" in user, "the price comes before the rest"
    seen = snapshot.take(request(rich()), context=context(), budget=budget).view["markets"][0]
    assert set(seen["left_out"]) >= {"trend", "book", "reward"} and "trend" not in seen
    assert "reward" not in user and "0.0113" not in user


def test_every_note_gets_its_part():
    many = tuple(note(f"{name} " + "word " * 500) for name in ("First", "Second", "Third"))
    shown = values(brief(), context(notes=many))["news"]
    assert [name in shown for name in ("First", "Second", "Third")] == [True] * 3


def test_no_note_is_cut_to_a_crumb():
    many = tuple(note("one two three four five six seven eight nine ten eleven twelve " * 9) for _ in range(5))
    seen = {budget: values(brief(), context(notes=many), budget=BlockBudget(news=budget))["news"] for budget in range(200)}
    assert all(len(line.split()) >= 10 for text in seen.values() for line in text.splitlines()[1:])
    assert seen[4] == "" and seen[30] == "age_minutes 12" and {text.count(OPEN) for text in seen.values()} == {0, 1, 2, 3, 4}


def test_numbers_stay_plain():
    odd = brief(bid_depth=1e15, imbalance=float("inf"), yes_price=float("nan"), trend_5m=-1e-9, flow=-0.2, position=-0.0)
    user = prompt.render(request(odd)).user
    assert "imbalance n/a" in user and "yes_price n/a" in user and "bid_shares 1000000000000000" in user
    assert "5m 0," in user and "taker_flow 0," in user and "yes_shares 0," in user
    assert "bid_shares n/a" in prompt.render(request(brief(bid_depth=1e16))).user


def test_lookalikes_are_folded_before_they_are_judged():
    assert snapshot.fence("Ｍ２ says: [ｍ１]", 100) == f"{OPEN}M 2 says: [m 1]{CLOSE}"
    assert snapshot.fence("М2 Μ3 M²", 100) == f"{OPEN}М 2 Μ 3 M 2{CLOSE}"
    assert snapshot.fence(f"a{CLOSE}{OPEN}b〛【", 100) == f"{OPEN}a)(b)({CLOSE}"
    assert snapshot.fence("M\ufe0f1 M\u200b2 M\U000e01003", 100) == f"{OPEN}M 1 M 2 M 3{CLOSE}"
    assert snapshot.fence("at 0xDEADBEEFdeadbeef or 123456789012345678901234", 100) == f"{OPEN}at … or …{CLOSE}"
    assert (
        snapshot.fence("the price of $100,000 in 2028, 0.25 points, 62%", 100)
        == f"{OPEN}the price of $100,000 in 2028, 0.25 points, 62%{CLOSE}"
    )
