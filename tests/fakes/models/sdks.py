"""The calls of `llm-providers.md` 2.2 through the real SDKs, one small client for all four wires.

For tests of the fake itself: whether a real SDK takes what it says. The SDKs are imported when a client is made.
"""

from __future__ import annotations

from typing import Any

from tests.fakes.models.asked import Wire
from tests.fakes.models.server import THROWAWAY_KEY

Answer = tuple[str | None, str, Any, Any]

SYSTEM = "You advise a market maker. Answer in JSON. " * 10
USER = "Give your signals.\n\n[M1]\nquestion: rain?\n\n[M2]\nquestion: snow?"
_NUMBER = {"anyOf": [{"type": "number"}, {"type": "null"}]}
_ITEM = {"market_id": {"type": "string"}, "p_yes": _NUMBER, "action": {"type": "string", "enum": ["hold", "exit"]}}
SCHEMA = {
    "type": "object",
    "properties": {
        "signals": {
            "type": "array",
            "items": {"type": "object", "properties": _ITEM, "required": list(_ITEM), "additionalProperties": False},
        }
    },
    "required": ["signals"],
    "additionalProperties": False,
}
SEARCH_TOOLS = {"responses": ("web_search",), "messages": ("web_search_20260318",), "gemini": ("google_search",)}


class Sdk:
    """One SDK client and the call that `llm-providers.md` 2.2 gives for its wire, as (text, how it ended, usage, whole)."""

    def __init__(self, wire: Wire, url: str, http: Any, key: str = THROWAWAY_KEY, retries: int = 0) -> None:
        self.wire = wire
        self.client: Any
        if wire == "gemini":
            from google import genai
            from google.genai import types

            self.types = types
            options = types.HttpOptions(
                base_url=url,
                api_version="v1beta",
                retry_options=types.HttpRetryOptions(attempts=1 + retries, initial_delay=0.01, jitter=0.0),
                httpx_async_client=http,
            )
            self.client = genai.Client(api_key=key, http_options=options)
        elif wire == "messages":
            from anthropic import AsyncAnthropic

            self.client = AsyncAnthropic(api_key=key, base_url=url, max_retries=retries, http_client=http)
        else:
            from openai import AsyncOpenAI

            self.client = AsyncOpenAI(api_key=key, base_url=url, max_retries=retries, http_client=http)

    async def ask(
        self, user: str = USER, model: str = "m", schema: Any = SCHEMA, search: tuple[str, ...] = (), **extra: Any
    ) -> Answer:
        answer: Answer = await getattr(self, "_" + self.wire)(user, model, None if search else schema, search, extra)
        return answer

    async def _responses(self, user: str, model: str, schema: Any, search: tuple[str, ...], extra: Any) -> Answer:
        if schema:
            extra["text"] = {"format": {"type": "json_schema", "name": "signals", "strict": True, "schema": schema}}
        if search:
            extra["tools"] = [{"type": name} for name in search]
        reply = await self.client.responses.create(
            model=model, instructions=SYSTEM, input=user, max_output_tokens=500, store=False, **extra
        )
        ended = reply.incomplete_details.reason if reply.incomplete_details else reply.status
        return reply.output_text, ended, reply.usage, reply

    async def _chat(self, user: str, model: str, schema: Any, search: tuple[str, ...], extra: Any) -> Answer:
        if schema:
            named = {"name": "signals", "strict": True, "schema": schema}
            extra["response_format"] = {"type": "json_schema", "json_schema": named}
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
        reply = await self.client.chat.completions.create(model=model, messages=turns, max_tokens=500, **extra)
        choice = reply.choices[0]
        return choice.message.content or choice.message.refusal, choice.finish_reason, reply.usage, reply

    async def _messages(self, user: str, model: str, schema: Any, search: tuple[str, ...], extra: Any) -> Answer:
        if schema:
            extra["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
        if search:
            extra["tools"] = [{"type": name, "name": "web_search", "max_uses": 2} for name in search]
        block = {"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}
        turns = [{"role": "user", "content": user}]
        reply = await self.client.messages.create(model=model, max_tokens=500, system=[block], messages=turns, **extra)
        return "".join(b.text for b in reply.content if b.type == "text"), reply.stop_reason, reply.usage, reply

    async def _gemini(self, user: str, model: str, schema: Any, search: tuple[str, ...], extra: Any) -> Answer:
        if schema:
            extra |= {"response_mime_type": "application/json", "response_json_schema": schema}
        if search:
            extra["tools"] = [self.types.Tool(google_search=self.types.GoogleSearch())]
        config = self.types.GenerateContentConfig(system_instruction=SYSTEM, max_output_tokens=500, **extra)
        reply = await self.client.aio.models.generate_content(model=model, contents=user, config=config)
        if not reply.candidates:
            return "", reply.prompt_feedback.block_reason.value, reply.usage_metadata, reply
        first = reply.candidates[0]
        parts = first.content.parts if first.content and first.content.parts else []
        text = "".join(part.text for part in parts if not part.thought)
        return text, first.finish_reason.value, reply.usage_metadata, reply
