"""What the advice costs: the built-in prompt's own tokens at each provider's default model, by the table that the budget uses.

    python -m benchmarks.cost [--log logs/llm_decisions.jsonl] [--json FILE]

Tokens are estimated twice, for no provider's tokenizer is asked: high, as the prompt's own budgets count (`llm.blocks`), which is
what is priced, and low, a token for four bytes. A decision is one call. The agenda is made up, but as long as real ones are: in 152
Polymarket questions of ForecastBench a title has 50 characters and the rules 760, in the median. `reasoning` tokens are added to
the answer of every model that is left to think; DeepSeek's is told not to.

Days: `quiet` is 20 markets asked again every half hour and nothing else, two calls of ten; with `--log` the calls of a day as
they were, each with as many markets as it had signals. Every day is priced with nothing cached, over all hours, for prices may
change with them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from llm_maker.config_llm import Llm
from llm_maker.core.commands import MarketBrief, PastDecision, PortfolioBrief, RequestSignals
from llm_maker.llm.blocks import tokens
from llm_maker.llm.budget import Pricer, Usage
from llm_maker.llm.news import Note, Report
from llm_maker.llm.prompt import Prompt, render
from llm_maker.llm.providers import PROVIDERS, ProviderSpec
from llm_maker.llm.snapshot import Context

TYPICAL = 10
"""Markets in a full agenda: `strategy.max_markets_per_query`."""
QUIET = Counter({TYPICAL: 96})
"""Markets in a call -> calls a day."""
REASONING = 400
_NOW = 1_795_000_000_000_000_000
_RULES = (
    'This market will resolve to "Yes" if the council of the city adopts the motion, in the form in which it was tabled or as '
    'amended, in a recorded vote on or before the date in the title, 11:59 PM ET. Otherwise, this market will resolve to "No". '
    "A vote that is postponed beyond that date, or a motion that is withdrawn, sent back to a committee or ruled out of order, "
    "counts as not adopted. If the motion is split, it is the part that names the sum that counts. A repeal after the vote has no "
    "effect on the resolution. The primary resolution source will be the minutes that the council publishes; a consensus of "
    "credible reporting may also be used, should the minutes not be published within seven days of the vote."
)
_FACTS = (
    "The mayor said on Thursday that three members who had been undecided will vote for the motion when it comes up.",
    "The finance committee recommended adoption by six votes to five, with an amendment that lowers the sum by a tenth.",
    "The council's agenda for next week lists the motion as the second item after the budget statement.",
)
_ANSWER = {
    "evidence": "Three undecided members announced their votes; the committee recommended adoption by one vote.",
    "p_yes": 0.61,
    "p_low": 0.48,
    "p_high": 0.73,
    "action": "hold",
    "confidence": 0.55,
    "reasoning": "Such motions pass about half of the time, and the committee's vote lifts that a little. The price says as much.",
    "directional_bias": "bullish",
    "risk_level": "medium",
    "priority": "medium",
}


class Call(msgspec.Struct, frozen=True):
    """Tokens of one call, estimated: `prefix` is the part of `input` that is the same in every cycle."""

    input: int
    prefix: int
    answer: int

    def usage(self, reasoning: int, *, cached: bool = False) -> Usage:
        return Usage(input=self.input, cached=self.prefix if cached else 0, output=self.answer + reasoning, reasoning=reasoning)


class Price(msgspec.Struct, frozen=True):
    """USD of one model: of 1,000 decisions, and of a day by the name of its rhythm."""

    provider: str
    model: str
    when: str
    full: Decimal
    full_cached: Decimal
    lean: Decimal
    one: Decimal
    days: dict[str, Decimal]


# What is sent and what comes back.


def agenda(count: int, *, past: bool = True) -> RequestSignals:
    """Markets of the usual length, no two alike, each with a position, own quotes and (`past`) four decisions remembered."""
    portfolio = PortfolioBrief(
        equity_usd=9_987.42, cash_usd=9_216.05, pnl_today_usd=-12.58, exposure_usd=771.37, open_positions=7, mode="active"
    )
    return RequestSignals("1-r1", tuple(_brief(n, past=past) for n in range(count)), portfolio, "interval")


def _brief(n: int, *, past: bool) -> MarketBrief:
    mid = 0.2345 + 0.0571 * n % 0.5
    remembered = tuple(
        PastDecision(1_843.0 * k, "hold", 0.55, mid + 0.013, mid - 0.0042 * k, 0.0042 * k, 31.0 * k, 0.37 * k) for k in range(1, 5)
    )
    return MarketBrief(
        market_id=f"0x{n:064x}",
        question=f"Will the council pass motion {617 + n} this month?",
        outcomes=("Yes", "No"),
        category="Politics",
        kind="binary",
        yes_price=mid,
        spread=0.02,
        bid=mid - 0.01,
        ask=mid + 0.01,
        bid_depth=1_843.0 + 11 * n,
        ask_depth=1_512.0 + 7 * n,
        imbalance=1.22,
        trend_5m=0.0025,
        trend_1h=-0.0115,
        trend_24h=0.0335,
        volatility=0.0127,
        flow=138.0,
        position=146.1 - 20 * n,
        avg_price=mid - 0.0063,
        pnl_pct=1.27,
        hours_to_end=131.4 + n,
        last_action="hold" if past else "",
        last_p_yes=mid + 0.013 if past else None,
        last_age_s=1_843.0 if past else None,
        trend_4h=-0.0205,
        bids=tuple((mid - 0.01 * k, 431.0 * k) for k in range(1, 5)),
        asks=tuple((mid + 0.01 * k, 388.0 * k) for k in range(1, 5)),
        avg_trade=41.0,
        trades_per_hour=9.4,
        own_bid=(mid - 0.01, 50.0),
        own_ask=(mid + 0.01, 50.0),
        reward_usd_per_day=25.0,
        reward_max_spread=0.035,
        reward_min_size=50.0,
        event_id="" if n % 2 else f"0x{n // 4:08x}",
        past=remembered if past else (),
    )


def question(count: int, *, full: bool) -> Prompt:
    """The prompt as it is sent; `full`: with rules, news and past decisions."""
    notes = tuple(Note(text=text, date="2026-11-20", url="https://news.example/council") for text in _FACTS)
    report = Report(market_id="any", found_ns=_NOW - 12 * 60 * 10**9, model="m", notes=notes)
    context = Context(lambda _: _RULES, lambda _: report, _NOW) if full else Context(now=_NOW)
    return render(agenda(count, past=full), context=context)


def answer(count: int) -> str:
    return json.dumps({"signals": [{"market_id": f"M{n}", **_ANSWER} for n in range(1, count + 1)]})


def call(count: int, *, full: bool = True, count_tokens: Callable[[str], int] = tokens) -> Call:
    """Of one decision on so many markets; the schema is sent with it and paid for."""
    asked = question(count, full=full)
    prefix = count_tokens(asked.system) + count_tokens(json.dumps(asked.schema, separators=(",", ":")))
    return Call(prefix + count_tokens(asked.user), prefix, count_tokens(answer(count)))


def low(text: str) -> int:
    """A token for four bytes: prose takes about so many, numbers take more."""
    return -(-len(text.encode()) // 4)


# What that costs.


def price(spec: ProviderSpec, days: Mapping[str, Counter[int]], at: datetime, when: str, reasoning: int) -> Price:
    """One row. Raises AssertionError where the table does not know the model: a default must have a price."""
    pricer = Pricer(spec.price_id, spec.model, now=_ns(at))
    assert pricer.known, f"{spec.name}/{spec.model} has no price in the table"
    thought = 0 if spec.extra.get("thinking", {}).get("type") == "disabled" else reasoning

    def usd(made: Call, moment: datetime, *, cached: bool = False) -> Decimal:
        cost = pricer.cost(made.usage(thought, cached=cached), None, _ns(moment)).usd
        assert cost is not None
        return cost

    calls = {count: call(count) for counts in days.values() for count in counts}
    hours = [at.replace(hour=hour) for hour in range(24)]

    def day(counts: Counter[int]) -> Decimal:
        return sum((made * usd(calls[count], h) for count, made in counts.items() for h in hours), Decimal(0)) / len(hours)

    full = call(TYPICAL)
    return Price(
        spec.name,
        spec.model,
        when,
        1_000 * usd(full, at),
        1_000 * usd(full, at, cached=True),
        1_000 * usd(call(TYPICAL, full=False), at),
        1_000 * usd(call(1), at),
        {name: day(counts) for name, counts in days.items()},
    )


def prices(days: Mapping[str, Counter[int]], date: datetime, reasoning: int = REASONING) -> list[Price]:
    """Every provider that has a default model; two rows where the hour matters."""
    found = []
    noon, night = date.replace(hour=12), date.replace(hour=2)
    for spec in PROVIDERS.values():
        if not spec.model:
            continue
        by_day, by_night = (price(spec, days, at, "", reasoning) for at in (noon, night))
        if by_day.full == by_night.full:
            found.append(by_day)
        else:
            found += [msgspec.structs.replace(by_day, when="12:00 UTC"), msgspec.structs.replace(by_night, when="02:00 UTC")]
    return found


def rhythm(path: Path) -> Counter[int]:
    """The calls of a day, by the markets in each, as a decision log has them; scaled where it holds more or less than a day."""
    calls: Counter[int] = Counter()
    times: list[datetime] = []
    for line in path.read_bytes().splitlines():
        told = msgspec.json.decode(line, type=dict[str, Any])
        times.append(datetime.fromisoformat(told["timestamp"]))
        if told["num_signals"]:
            calls[told["num_signals"]] += 1
    span = max(times) - min(times)
    assert span > timedelta(hours=1), f"{path} holds {span} only"
    share = timedelta(days=1) / span
    return Counter({count: round(made * share) for count, made in calls.items()})


def _ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9


# The page.


def page(found: list[Price], days: Mapping[str, Counter[int]], reasoning: int) -> list[str]:
    full, lean, one = call(TYPICAL), call(TYPICAL, full=False), call(1)
    lines = ["tokens of one decision, estimated high, and in brackets at four bytes a token"]
    for name, high, by_bytes in (
        ("10 markets, rules, news, past", full, call(TYPICAL, count_tokens=low)),
        ("10 markets, none of these", lean, call(TYPICAL, full=False, count_tokens=low)),
        ("1 market, rules, news, past", one, call(1, count_tokens=low)),
    ):
        lines.append(
            f"  {name:<30} in {high.input:>6,} ({by_bytes.input:,}), the same each time {high.prefix:,} ({by_bytes.prefix:,}); "
            f"out {high.answer:,} ({by_bytes.answer:,}) and {reasoning} for reasoning"
        )
    for name, counts in days.items():
        markets = sum(count * made for count, made in counts.items())
        lines.append(f"day '{name}': {counts.total():,} calls on {markets / counts.total():.1f} markets in the mean")
    head = ["provider", "model", "10 markets", "prefix cached", "bare", "1 market", *(f"day {name}" for name in days)]
    rows = [head]
    for p in found:
        named = f"{p.model} {p.when}".strip()
        rows.append([p.provider, named, *(f"{n:.2f}" for n in (p.full, p.full_cached, p.lean, p.one, *p.days.values()))])
    lines += ["", "USD for 1,000 decisions, and for a day:", f"| {' | '.join(head)} |", f"|{'---|' * 2}{'---:|' * (len(head) - 2)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows[1:]]
    return [*lines, "", f"never more in a day than llm.daily_budget_usd: {Llm().daily_budget_usd:g} USD as shipped"]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.cost", description="What the advice costs at each provider's default model.")
    parser.add_argument("--log", type=Path, action="append", default=[], metavar="FILE", help="a llm_decisions.jsonl; adds its day")
    parser.add_argument("--date", default=f"{datetime.now(UTC):%Y-%m-%d}", help="the day whose prices are asked for")
    parser.add_argument("--reasoning", type=int, default=REASONING, help="tokens of reasoning in each answer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    args = parser.parse_args()
    date = datetime.fromisoformat(args.date).replace(tzinfo=UTC)
    days = {"quiet": QUIET} | {path.absolute().parent.parent.name: rhythm(path) for path in args.log}
    found = prices(days, date, args.reasoning)
    print(f"genai-prices {importlib.metadata.version('genai-prices')}, prices of {args.date}")
    print("\n".join(page(found, days, args.reasoning)))
    if args.json:
        args.json.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


if __name__ == "__main__":
    main()
