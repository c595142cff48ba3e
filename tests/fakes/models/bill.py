"""What one request costs: its tokens by a stated rule, the row on the bill, and how the usage of a reply is bent.

Input is the bytes of all words / 4, rounded up; output is the bytes of the answer / 4, rounded up, and the reasoning. The system
prompt (bytes / 4, rounded down) is written to the cache when a model first sees it and read from it afterwards; Gemini tells no
writes, Anthropic's wire caches only what is marked. A search adds a fixed number of tokens to the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tests.fakes.models.asked import Seen, Wire
from tests.fakes.models.faults import Step
from tests.fakes.models.wires import Usage

TOOL_TOKENS = 500
"""What one search adds to the input."""


@dataclass(slots=True)
class Billed:
    """What was served for one request. `input` is the total, cached, cache_write and tool parts of it; reasoning is in `output`.

    `told`: the usage left whole, to a client that was still there. It is False while the answer is under way, and stays so where
    the answer was cut, late, unreadable or without usage: the provider may bill it all the same. Refusals by status are not on
    the bill.
    """

    wire: Wire
    model: str
    step: str
    input: int
    cached: int
    cache_write: int
    output: int
    reasoning: int
    tool: int
    searches: int
    cost_usd: Decimal | None = None
    """As told in the reply, where the step tells one."""
    told: bool = False


class Meter:
    """Counts tokens; remembers which model has seen which system prompt."""

    def __init__(self) -> None:
        self._warm: set[tuple[str, str, str]] = set()

    def usage(self, seen: Seen, text: str, reasoning: int, searches: int) -> Usage:
        tool = TOOL_TOKENS * searches
        prefix, known = len(seen.system.encode()) // 4, (seen.wire, seen.model, seen.system)
        warm = known in self._warm
        if seen.caches:
            self._warm.add(known)
        return Usage(
            input=-(-seen.text_bytes // 4) + tool,
            output=-(-len(text.encode()) // 4) + reasoning,
            cached=prefix if warm else 0,
            cache_write=0 if warm or seen.wire == "gemini" or not seen.caches else prefix,
            reasoning=reasoning,
            tool=tool,
        )


def usage_changed(step: Step, wire: Wire, usage: Usage) -> dict[str, Any]:
    """Fields of the reply's usage that a step sets, over the honest ones."""
    if step.name == "billed" and wire in ("chat", "responses"):
        return {"cost": float(step.value or "0.00123")}
    if step.name == "ticks" and wire in ("chat", "responses"):
        return {"cost_in_usd_ticks": int(step.value or "37756000")}
    if step.name == "hit_tokens" and wire == "chat":
        hit = usage.cached
        return {"prompt_tokens_details": None, "prompt_cache_hit_tokens": hit, "prompt_cache_miss_tokens": usage.input - hit}
    if step.name == "bad_usage":
        names = {"chat": "completion_tokens", "gemini": "candidatesTokenCount"}
        return {names.get(wire, "output_tokens"): -5}
    return {}
