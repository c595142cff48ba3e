"""The successful reply in each of the four formats: the smallest that its SDK accepts, with usage and citations.

Owns the field names of the wires (`llm-providers.md` 2.5 and 7.1). Knows no step, no script and no socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.fakes.models.asked import Seen

Ended = Literal["stop", "length", "window", "refusal", "filtered", "malformed", "failed"]
Body = dict[str, Any]
_REFUSAL = "I cannot help with that."


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input` is the total: cached, cache_write and tool (what a search brought) are parts of it;
    `reasoning` is a part of `output`."""

    input: int
    output: int
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    tool: int = 0


@dataclass(slots=True)
class Reply:
    """What is to be said, before it has a format."""

    text: str
    usage: Usage
    ended: Ended = "stop"
    reason: str = ""
    """The wire's own word for how it ended, instead of the usual one."""
    sources: Sequence[tuple[str, str]] = ()
    searches: int = 0
    thinking: bool = False
    split: bool = False
    """In two pieces, where the wire has pieces; a reply with citations always is."""
    empty: bool = False
    """No choice, item, block or candidate at all."""
    usage_told: bool = True
    usage_changed: dict[str, Any] = field(default_factory=dict)

    @property
    def pieces(self) -> list[str]:
        if not (self.split or self.sources):
            return [self.text]
        middle = len(self.text) // 2
        return [self.text[:middle], self.text[middle:]]


def body_of(seen: Seen, reply: Reply) -> Body:
    """The reply as its wire says it."""
    made = {"responses": _responses, "chat": _chat, "messages": _messages, "gemini": _gemini}[seen.wire](seen, reply)
    name = "usageMetadata" if seen.wire == "gemini" else "usage"
    usage = made.pop(name)
    if reply.usage_told:
        made[name] = usage | reply.usage_changed
    return made


def _chat(seen: Seen, reply: Reply) -> Body:
    usage = reply.usage
    usual = {"length": "length", "window": "length", "filtered": "content_filter", "failed": "error"}.get(reply.ended, "stop")
    refusal = _REFUSAL if reply.ended == "refusal" else None
    message: Body = {"role": "assistant", "content": None if refusal else reply.text, "refusal": refusal}
    if reply.thinking:
        message["reasoning_content"] = '{"signals": "thinking aloud"}'
    return {
        "id": "fake",
        "object": "chat.completion",
        "created": 0,
        "model": seen.model,
        "choices": []
        if reply.empty
        else [{"index": 0, "finish_reason": reply.reason or usual, "logprobs": None, "message": message}],
        "usage": {
            "prompt_tokens": usage.input,
            "completion_tokens": usage.output,
            "total_tokens": usage.input + usage.output,
            "prompt_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
        },
    }


def _responses(seen: Seen, reply: Reply) -> Body:
    usage = reply.usage
    unfinished = {"length": "max_output_tokens", "window": "max_output_tokens", "filtered": "content_filter"}.get(reply.ended)
    status = "failed" if reply.ended == "failed" else "incomplete" if unfinished else "completed"
    made: Body = {
        "id": "resp_fake",
        "object": "response",
        "created_at": 0,
        "status": status,
        "model": seen.model,
        "error": {"code": "server_error", "message": "the model failed"} if reply.ended == "failed" else None,
        "incomplete_details": {"reason": reply.reason or unfinished} if unfinished else None,
        "output": _items(seen, reply, status),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": seen.body.get("tools", []),
        "usage": {
            "input_tokens": usage.input,
            "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write},
            "output_tokens": usage.output,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning},
            "total_tokens": usage.input + usage.output,
        },
    }
    if seen.search_tools and _is_xai(seen):
        on_x = len(_x_searches(seen, reply))
        made["citations"] = [url for url, _ in reply.sources]
        made["usage"]["num_server_side_tools_used"] = reply.searches
        counts = {"web_search_calls": reply.searches - on_x, "x_search_calls": on_x}
        made["usage"]["server_side_tool_usage_details"] = counts
    return made


def _is_xai(seen: Seen) -> bool:
    return "x_search" in seen.search_tools or seen.model.startswith("grok")


def _x_searches(seen: Seen, reply: Reply) -> range:
    """Of a model that may search in both places, every second one is on X; those are not `web_search_call` items."""
    if "x_search" not in seen.search_tools:
        return range(0)
    return range(0, reply.searches, 1 if len(seen.search_tools) == 1 else 2)


def _items(seen: Seen, reply: Reply, status: str) -> list[Body]:
    if reply.empty or reply.ended == "failed":
        return []
    on_x = _x_searches(seen, reply)
    items: list[Body] = []
    for i in range(reply.searches):
        if i in on_x:
            call = {"type": "custom_tool_call", "id": f"ctc_{i}", "call_id": f"xs_call_{i}", "name": "x_keyword_search"}
            items.append(call | {"input": '{"query": "fake"}', "status": "completed"})
        else:
            action = {"type": "search", "query": "fake", "queries": ["fake"]}
            items.append({"type": "web_search_call", "id": f"ws_{i}", "status": "completed", "action": action})
    if reply.thinking:
        items.append({"type": "reasoning", "id": "rs_0", "summary": [{"type": "summary_text", "text": '{"signals": "aloud"}'}]})
    if reply.ended == "refusal":
        content: list[Body] = [{"type": "refusal", "refusal": _REFUSAL}]
    else:
        content = [{"type": "output_text", "text": piece, "annotations": []} for piece in reply.pieces]
        content[0]["annotations"] = [
            {"type": "url_citation", "url": url, "title": title, "start_index": 0, "end_index": 0} for url, title in reply.sources
        ]
    items.append({"type": "message", "id": "msg_0", "role": "assistant", "status": status, "content": content})
    return items


def _messages(seen: Seen, reply: Reply) -> Body:
    usage = reply.usage
    usual = {
        "length": "max_tokens",
        "window": "model_context_window_exceeded",
        "refusal": "refusal",
        "filtered": "refusal",
        "failed": "pause_turn",
    }.get(reply.ended, "end_turn")
    category = reply.reason or None
    return {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": seen.model,
        "content": _blocks(reply),
        "stop_reason": usual,
        "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": category, "explanation": None} if usual == "refusal" else None,
        "usage": {
            # Anthropic's input_tokens leaves out what was read from and written to the cache.
            "input_tokens": usage.input - usage.cached - usage.cache_write,
            "cache_creation_input_tokens": usage.cache_write,
            "cache_read_input_tokens": usage.cached,
            "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
            "output_tokens": usage.output,
            "output_tokens_details": {"thinking_tokens": usage.reasoning},
            "server_tool_use": {"web_search_requests": reply.searches, "web_fetch_requests": 0} if seen.search_tools else None,
        },
    }


def _blocks(reply: Reply) -> list[Body]:
    if reply.empty or reply.ended in ("refusal", "failed"):
        return []
    blocks: list[Body] = []
    if reply.thinking:
        blocks.append({"type": "thinking", "thinking": '{"signals": "thinking aloud"}', "signature": "fake"})
    found = [
        {"type": "web_search_result", "url": url, "title": title, "encrypted_content": "fake", "page_age": None}
        for url, title in reply.sources
    ]
    for i in range(reply.searches):
        blocks.append({"type": "server_tool_use", "id": f"srvtoolu_{i}", "name": "web_search", "input": {"query": "fake"}})
        blocks.append({"type": "web_search_tool_result", "tool_use_id": f"srvtoolu_{i}", "content": found})
    cited = [
        {"type": "web_search_result_location", "url": url, "title": title, "encrypted_index": "fake", "cited_text": "fake"}
        for url, title in reply.sources
    ]
    texts: list[Body] = [{"type": "text", "text": piece} for piece in reply.pieces]
    if cited:
        texts[0]["citations"] = cited
    return blocks + texts


def _gemini(seen: Seen, reply: Reply) -> Body:
    usage = reply.usage
    usual = {
        "length": "MAX_TOKENS",
        "window": "MAX_TOKENS",
        "refusal": "SAFETY",
        "malformed": "MALFORMED_RESPONSE",
        "failed": "OTHER",
    }.get(reply.ended, "STOP")
    candidate: Body = {"finishReason": reply.reason or usual, "index": 0}
    if reply.ended not in ("refusal", "malformed", "failed") and (reply.text or reply.ended != "length"):
        parts: list[Body] = [{"text": piece} for piece in reply.pieces]
        if reply.thinking:
            parts.insert(0, {"text": '{"signals": "thinking aloud"}', "thought": True})
        candidate["content"] = {"role": "model", "parts": parts}
    if seen.search_tools and reply.searches:
        candidate["groundingMetadata"] = {
            "webSearchQueries": [f"fake {i}" for i in range(reply.searches)],
            "groundingChunks": [{"web": {"uri": url, "title": title}} for url, title in reply.sources],
            "groundingSupports": [
                {"segment": {"startIndex": 0, "endIndex": 4, "text": "fake"}, "groundingChunkIndices": [i]}
                for i in range(len(reply.sources))
            ],
        }
    made: Body = {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": usage.input - usage.tool,
            "cachedContentTokenCount": usage.cached,
            "toolUsePromptTokenCount": usage.tool,
            # Thoughts are beside the candidates here, not inside.
            "candidatesTokenCount": usage.output - usage.reasoning,
            "thoughtsTokenCount": usage.reasoning,
            "totalTokenCount": usage.input + usage.output,
        },
        "modelVersion": seen.model,
        "responseId": "fake",
    }
    if reply.ended == "filtered" or reply.empty:
        del made["candidates"]
    if reply.ended == "filtered":
        made["promptFeedback"] = {"blockReason": reply.reason or "PROHIBITED_CONTENT"}
    return made
