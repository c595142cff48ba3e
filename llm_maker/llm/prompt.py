"""What the model is asked: the system prompt, the JSON schema of its answer, the user prompt, and their version.

Pure. The system prompt is byte-identical between cycles (providers cache the prefix); all that changes stands in the
user prompt, last. Knows no provider and does not read answers.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec

from llm_maker.core.commands import RequestSignals
from llm_maker.llm import snapshot
from llm_maker.llm.answer import schema_of
from llm_maker.llm.blocks import BlockBudget
from llm_maker.llm.snapshot import BUDGET, EMPTY, Context, Snapshot
from llm_maker.llm.templates import BUILT_IN, Template, system_prompt, user_prompt

SYSTEM = system_prompt(BUILT_IN, portfolio=False)
SCHEMA = schema_of(portfolio=False)
PORTFOLIO_SCHEMA = schema_of(portfolio=True)
PROMPT_VERSION = BUILT_IN.version


class Prompt(msgspec.Struct, frozen=True):
    """One question, ready to send; its snapshot says which market each handle of the answer means."""

    system: str
    user: str
    schema: dict[str, Any]
    version: str
    snapshot: Snapshot

    @property
    def key(self) -> str:
        """What a recorded answer is found by."""
        return key_of(self.system, self.user, self.schema)


def key_of(system: str, user: str, schema: dict[str, Any]) -> str:
    """SHA-256, in hex, over all that is sent: one word more or less is another question."""
    sent = json.dumps([system, user, schema], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(sent.encode()).hexdigest()


def render(
    request: RequestSignals,
    template: Template = BUILT_IN,
    *,
    show_price: bool = True,
    context: Context = EMPTY,
    budget: BlockBudget = BUDGET,
    portfolio: bool = False,
) -> Prompt:
    """The prompt of one request; the version tells the arms and the portfolio mode apart, for they are scored apart."""
    shot = snapshot.take(request, show_price=show_price, context=context, budget=budget)
    version = template.version + ("-portfolio" if portfolio else "") + ("" if show_price else "-blind")
    schema = PORTFOLIO_SCHEMA if portfolio else SCHEMA
    return Prompt(system_prompt(template, portfolio=portfolio), user_prompt(template, shot), schema, version, shot)
