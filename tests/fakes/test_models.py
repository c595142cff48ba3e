"""The fake model server against the real SDKs: each wire gets a valid reply, and each failure arrives as its SDK's own error."""

from __future__ import annotations

import json
from decimal import Decimal

import httpx2
import pytest

from tests.fakes.models import NOTES, SOURCES, THROWAWAY_KEY, ModelServer, Usage
from tests.fakes.models.faults import ENDED, ERRORS
from tests.fakes.models.sdks import SEARCH_TOOLS, SYSTEM, USER, Sdk

WIRES = ("responses", "chat", "messages", "gemini")


@pytest.fixture
async def http():
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0, verify=False) as client:
        yield client


def signals(text):
    return [each["market_id"] for each in json.loads(text)["signals"]]


ENDS = {  # step -> how each SDK says that it ended: responses, chat, messages, gemini
    "ok": ("completed", "stop", "end_turn", "STOP"),
    "truncated": ("max_output_tokens", "length", "max_tokens", "MAX_TOKENS"),
    "truncated_empty": ("max_output_tokens", "length", "max_tokens", "MAX_TOKENS"),
    "context_window": ("max_output_tokens", "length", "model_context_window_exceeded", "MAX_TOKENS"),
    "refusal": ("completed", "stop", "refusal", "SAFETY"),
    "filtered": ("content_filter", "content_filter", "refusal", "PROHIBITED_CONTENT"),
    "malformed_response": ("completed", "stop", "end_turn", "MALFORMED_RESPONSE"),
    "failed": ("failed", "error", "pause_turn", "OTHER"),
    "thinking": ("completed", "stop", "end_turn", "STOP"),
    "split": ("completed", "stop", "end_turn", "STOP"),
    "slow=0.01": ("completed", "stop", "end_turn", "STOP"),
}


@pytest.mark.parametrize("wire", WIRES)
async def test_each_sdk_takes_each_reply_and_reads_how_it_ended(wire, http):
    async with ModelServer([*ENDS]) as server:
        sdk = Sdk(wire, server.base_url(wire), http)
        replies = {step: await sdk.ask() for step in ENDS}
    assert {step: reply[1] for step, reply in replies.items()} == {step: ends[WIRES.index(wire)] for step, ends in ENDS.items()}
    for step in ("ok", "thinking", "split", "slow=0.01"):
        assert signals(replies[step][0]) == ["M1", "M2"], step
        assert json.loads(replies[step][0])["signals"][0] == {"market_id": "M1", "p_yes": 0.56, "action": "hold"}, "as asked"
    assert replies["truncated_empty"][0] in ("", None)
    with pytest.raises(json.JSONDecodeError):
        json.loads(replies["truncated"][0])
    assert server.violations == []
    assert [row.told for row in server.bill] == [True] * len(ENDS)


async def test_a_refusal_in_each_form(http):
    async with ModelServer(["refusal", "refusal", "refusal=bio", "refusal=RECITATION", "filtered=BLOCKLIST"]) as server:
        replies = [await Sdk(wire, server.base_url(wire), http).ask() for wire in (*WIRES, "gemini")]
    responses, chat, messages, stopped, blocked = (reply[3] for reply in replies)
    assert responses.output[0].content[0].type == "refusal" and responses.status == "completed"
    assert chat.choices[0].message.content is None and chat.choices[0].message.refusal
    assert messages.content == [] and messages.stop_details.category == "bio"
    assert stopped.candidates[0].finish_reason.value == "RECITATION" and stopped.text is None
    assert blocked.candidates is None and blocked.prompt_feedback.block_reason.value == "BLOCKLIST"


ERROR_CLASSES = {  # step -> openai's class, anthropic's, google's class and code
    "400": ("BadRequestError", "BadRequestError", ("ClientError", 400)),
    "400_hold": ("BadRequestError", "BadRequestError", ("ClientError", 400)),
    "schema_400": ("BadRequestError", "BadRequestError", ("ClientError", 400)),
    "object_400": ("BadRequestError", "BadRequestError", ("ClientError", 400)),
    "key_400": ("BadRequestError", "AuthenticationError", ("ClientError", 400)),
    "401": ("AuthenticationError", "AuthenticationError", ("ClientError", 401)),
    "401_text": ("AuthenticationError", "AuthenticationError", ("ClientError", 401)),
    "402": ("APIStatusError", "PaymentRequiredError", ("ClientError", 402)),
    "403": ("PermissionDeniedError", "PermissionDeniedError", ("ClientError", 403)),
    "404": ("NotFoundError", "NotFoundError", ("ClientError", 404)),
    "408": ("APIStatusError", "RequestTimeoutError", ("ClientError", 408)),
    "409": ("ConflictError", "ConflictError", ("ClientError", 409)),
    "410": ("APIStatusError", "APIStatusError", ("ClientError", 410)),
    "413": ("APIStatusError", "ContentTooLargeError", ("ClientError", 413)),
    "422": ("UnprocessableEntityError", "UnprocessableEntityError", ("ClientError", 422)),
    "429": ("RateLimitError", "RateLimitError", ("ClientError", 429)),
    "429_body": ("RateLimitError", "RateLimitError", ("ClientError", 429)),
    "429_date": ("RateLimitError", "RateLimitError", ("ClientError", 429)),
    "429_minute": ("RateLimitError", "RateLimitError", ("ClientError", 429)),
    "429_quota": ("RateLimitError", "RateLimitError", ("ClientError", 429)),
    "500": ("InternalServerError", "InternalServerError", ("ServerError", 500)),
    "502": ("InternalServerError", "InternalServerError", ("ServerError", 502)),
    "503": ("InternalServerError", "ServiceUnavailableError", ("ServerError", 503)),
    "504": ("InternalServerError", "GatewayTimeoutError", ("ServerError", 504)),
    "529": ("InternalServerError", "OverloadedError", ("ServerError", 529)),
}


def test_the_tables_are_whole():
    assert set(ERROR_CLASSES) == set(ERRORS) - {"307"} and set(ENDED) < set(ENDS)


@pytest.mark.parametrize("wire", WIRES)
async def test_each_status_is_the_sdks_own_error_and_one_request(wire, http):
    caught = {}
    async with ModelServer([*ERROR_CLASSES]) as server:
        sdk = Sdk(wire, server.base_url(wire), http)
        for step in ERROR_CLASSES:
            with server.attempt(), pytest.raises(Exception) as raised:
                await sdk.ask()
            caught[step] = raised.value
    column = {"messages": 1, "gemini": 2}.get(wire, 0)
    if wire == "gemini":
        got = {step: (type(error).__name__, error.code) for step, error in caught.items()}
    else:
        got = {step: type(error).__name__ for step, error in caught.items()}
    for step in ("400_hold", "429_quota", "402"):
        if wire == "messages":  # Anthropic's SDK has classes for these codes, below the one of the status
            named = [each.__name__ for each in type(caught[step]).__mro__]
            assert ERROR_CLASSES[step][1] in named
            got[step] = ERROR_CLASSES[step][1]
    assert got == {step: classes[column] for step, classes in ERROR_CLASSES.items()}
    assert server.requests == len(ERROR_CLASSES) and server.violations == [] and server.bill == []
    headers = {step: error.response.headers.get("retry-after") for step, error in caught.items()}
    assert {step for step, value in headers.items() if value} == {"429", "429_date", "429_minute", "429_quota", "503"}
    assert headers["429"] == "7" and headers["429_date"].endswith("GMT")
    assert THROWAWAY_KEY in str(caught["401"]), "the key is echoed, for clients to be tested on"


async def test_what_tells_a_rate_from_a_quota_and_a_wrong_key_from_a_wrong_request(http):
    from anthropic import APIStatusError
    from google.genai.errors import ClientError
    from openai import BadRequestError, RateLimitError

    async with ModelServer(["429_quota"] * 3 + ["429_minute", "429_body=12", "key_400", "key_400"], retry_after="3.5") as server:
        openai, anthropic, google = (Sdk(wire, server.base_url(wire), http) for wire in ("chat", "messages", "gemini"))
        with pytest.raises(RateLimitError) as quota:
            await openai.ask()
        assert quota.value.code == "insufficient_quota"
        with pytest.raises(APIStatusError) as limit:
            await anthropic.ask()
        assert (limit.value.type, limit.value.error_code) == ("rate_limit_error", "enforced_spend_limit_reached")
        details = []
        for _ in range(4):
            with pytest.raises(ClientError) as refusal:
                await google.ask()
            details.append(json.dumps(refusal.value.details))
        day, minute, body, key = details
        assert "PerDay" in day and "PerMinute" in minute and '"3.5s"' in minute
        assert "QuotaFailure" not in body and '"12s"' in body and "RESOURCE_EXHAUSTED" in body
        assert "API_KEY_INVALID" in key and "INVALID_ARGUMENT" in key
        with pytest.raises(BadRequestError) as wrong:
            await openai.ask()
        assert isinstance(wrong.value.body, str) and "Incorrect API key" in wrong.value.body, "xAI's form"


@pytest.mark.parametrize("wire", WIRES)
async def test_the_usage_each_sdk_reads_is_the_bill(wire, http):
    fixed = Usage(input=6000, output=1000, cached=2000, cache_write=0, reasoning=300)
    async with ModelServer() as server:
        sdk = Sdk(wire, server.base_url(wire), http)
        first, second = (await sdk.ask())[2], (await sdk.ask())[2]
        server.usage = fixed
        third = (await sdk.ask())[2]
    words = len(SYSTEM.encode()) + len(USER.encode())
    prefix = len(SYSTEM.encode()) // 4
    cold, warm, set_ = server.bill
    assert (cold.input, cold.cached, cold.cache_write) == (-(-words // 4), 0, 0 if wire == "gemini" else prefix)
    assert (warm.input, warm.cached, warm.cache_write) == (cold.input, prefix, 0)
    assert (set_.input, set_.output, set_.cached, set_.reasoning) == (6000, 1000, 2000, 300)
    for row, usage in zip(server.bill, (first, second, third), strict=True):
        assert read_usage(wire, usage) == (row.input, row.cached, row.cache_write, row.output, row.reasoning)
        assert row.told and row.wire == wire and row.model == "m"


def read_usage(wire, u):
    """`llm-providers.md` 2.5, one column each."""
    if wire == "responses":
        details = u.input_tokens_details
        reasoning = u.output_tokens_details.reasoning_tokens
        return u.input_tokens, details.cached_tokens, details.cache_write_tokens, u.output_tokens, reasoning
    if wire == "chat":
        details = u.prompt_tokens_details
        reasoning = u.completion_tokens_details.reasoning_tokens
        return u.prompt_tokens, details.cached_tokens, details.cache_write_tokens, u.completion_tokens, reasoning
    if wire == "messages":
        read, written = u.cache_read_input_tokens, u.cache_creation_input_tokens
        return u.input_tokens + read + written, read, written, u.output_tokens, u.output_tokens_details.thinking_tokens
    total = u.prompt_token_count + (u.tool_use_prompt_token_count or 0)
    thoughts = u.thoughts_token_count
    return total, u.cached_content_token_count, 0, u.candidates_token_count + thoughts, thoughts


async def test_the_told_cost_stands_on_the_bill(http):
    async with ModelServer(["billed", "ticks", "billed=0.5", "hit_tokens", "no_usage", "bad_usage"]) as server:
        sdk = Sdk("chat", server.url, http)
        replies = [await sdk.ask() for _ in range(6)]
    assert [row.cost_usd for row in server.bill[:3]] == [Decimal("0.00123"), Decimal("0.0037756"), Decimal("0.5")]
    assert replies[0][2].model_extra["cost"] == 0.00123
    assert replies[1][2].model_extra["cost_in_usd_ticks"] == 37756000
    assert replies[3][2].model_extra["prompt_cache_hit_tokens"] == server.bill[3].cached > 0
    assert replies[4][2] is None and replies[5][2].completion_tokens < 0
    assert [row.told for row in server.bill] == [True, True, True, True, False, False]


@pytest.mark.parametrize("wire", SEARCH_TOOLS)
async def test_a_search_is_cited_counted_and_billed(wire, http):
    async with ModelServer(["ok", "no_citations", "no_search"], searches=3) as server:
        sdk = Sdk(wire, server.base_url(wire), http)
        found, bare, idle = [await sdk.ask(search=SEARCH_TOOLS[wire]) for _ in range(3)]
    assert found[0] == bare[0] == idle[0] == NOTES
    assert [cited(wire, reply[3]) for reply in (found, bare, idle)] == [(list(SOURCES), 3), ([], 3), ([], 0)]
    assert [row.searches for row in server.bill] == [3, 3, 0]
    assert read_usage(wire, found[2])[0] == server.bill[0].input == server.bill[2].input + 1500
    assert server.violations == []


def cited(wire, reply):
    if wire == "responses":
        texts = [part for item in reply.output if item.type == "message" for part in item.content]
        found = [(a.url, a.title) for text in texts for a in text.annotations]
        return found, sum(item.type == "web_search_call" for item in reply.output)
    if wire == "messages":
        found = [(c.url, c.title) for block in reply.content if block.type == "text" for c in block.citations or ()]
        return found, reply.usage.server_tool_use.web_search_requests
    grounding = reply.candidates[0].grounding_metadata
    if grounding is None:
        return [], 0
    return [(chunk.web.uri, chunk.web.title) for chunk in grounding.grounding_chunks], len(grounding.web_search_queries)


async def test_xai_counts_its_searches_beside_and_cites_on_top(http):
    async with ModelServer(searches=4, search_text=lambda seen: f"- a bullet for {seen.model}") as server:
        text, _, usage, reply = await Sdk("responses", server.url, http).ask(model="grok-4.3", search=("web_search", "x_search"))
    assert text == "- a bullet for grok-4.3"
    assert reply.model_extra["citations"] == [url for url, _ in SOURCES]
    assert usage.model_extra["server_side_tool_usage_details"] == {"web_search_calls": 2, "x_search_calls": 2}
    assert sum(item.type == "web_search_call" for item in reply.output) == 2, "those on X are items of another type"
