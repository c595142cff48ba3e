"""Ten thousand calls through the real clients, over sockets, with members and an analyst around them: memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from llm_maker.llm.analyst import Analyst, AnalystSettings
from llm_maker.llm.apis.open_model import open_model
from llm_maker.llm.breaker import Breaker
from llm_maker.llm.budget import DailyBudget, Pricer, RateLimit
from llm_maker.llm.member import Member
from llm_maker.llm.prompt import render
from llm_maker.llm.providers import PROVIDERS
from llm_maker.llm.templates import BUILT_IN
from tests.fakes.models import THROWAWAY_KEY, Address
from tests.llm.samples import request, rich

ROOT = Path(__file__).parents[2]
WIRES = {"chat": "deepseek", "responses": "openai", "messages": "anthropic", "gemini": "gemini"}
FAULTS = (None,) * 6 + ("text={}", "500", "truncated", "refusal", "429=1", "reset", "empty_body", "bad_usage")
"""What the server does in turn; most are answers."""
WARM_UP, CALLS = 1_500, 10_000
MOST_MB = 5.0


def rss_mb(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


SERVER = """
import asyncio, itertools
from tests.fakes.models import ModelServer
from tests.llm.test_memory import FAULTS
async def main():
    turns = itertools.cycle(FAULTS)
    async with ModelServer(fault=lambda seen: next(turns), keep=10) as server:
        print(server.port, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def _asked(port):
    """Figures: (calls, MB) at the start and as they go; the server is another process, whose memory is not ours."""
    address, said = Address(), []
    address.port = port
    members = []
    for wire, provider in WIRES.items():
        spec = PROVIDERS[provider]
        pricer = Pricer(spec.price_id, spec.model, per_million=(Decimal(1), Decimal(5)))
        model = open_model(spec, api_key=THROWAWAY_KEY, pricer=pricer, base_url=address.base_url(wire))
        members.append(
            Member(
                f"{provider}/{spec.model}",
                model,
                template=BUILT_IN,
                blind=False,
                rate=RateLimit(1_000_000),
                breaker=_Open(),
                pricer=pricer,
                max_output_tokens=4_000,
                unknown_call_usd=Decimal("0.05"),
                say=lambda level, text: said.append(level) if len(said) < 100 else None,
                sleep=_short,
            )
        )
    analyst = Analyst(
        members,
        [],
        render=lambda asked, member: render(asked),
        skills={},
        mode="pool",
        budget=DailyBudget(None),
        record=lambda facts: None,
        say=lambda level, text: None,
        settings=AnalystSettings(),
    )
    asked = request(rich("a"), rich("b"), rich("c"))
    figures, outcomes, calls = [], set(), 0
    while calls < WARM_UP + CALLS:
        event, told = await analyst.answer(msgspec.structs.replace(asked, request_id=f"R{calls}"))
        outcomes.update(one.outcome for one in told.members)
        assert event.request_id == f"R{calls}"
        before, calls = calls, calls + sum(one.attempts for one in told.members)
        if before < WARM_UP <= calls or before // 2_000 != calls // 2_000 or calls >= WARM_UP + CALLS:
            gc.collect()
            figures.append((calls, rss_mb(os.getpid())))
    for member in members:
        await member.model.close()
    return [figure for figure in figures if figure[0] >= WARM_UP], outcomes


class _Open(Breaker):
    """One that never opens: here the calls are counted, not spared."""

    def may(self, now):
        return True

    def patience_ns(self, now):
        return 0


async def _short(seconds):
    await asyncio.sleep(seconds if seconds >= 2.0 else 0.0)


@pytest.mark.prove
@pytest.mark.timeout(0)
def test_ten_thousand_calls_leave_memory_as_it_was():
    server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        figures, outcomes = asyncio.run(_asked(int(server.stdout.readline())))
    finally:
        server.kill()
        server.wait()
    grown = figures[-1][1] - figures[0][1]
    print("\n" + ", ".join(f"{calls} calls {mb:.1f} MB" for calls, mb in figures) + f": {grown:+.2f} MB over {CALLS} calls")
    print("outcomes:", sorted(outcomes))
    assert {"ok", "malformed", "overload", "truncated", "refusal", "rate_limit", "connection"} <= outcomes
    assert grown < MOST_MB
