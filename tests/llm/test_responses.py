"""The Responses API: what is sent, what is read, and searching with citations. What it shares with chat is in test_providers.py."""

import json
from decimal import Decimal

import pytest

from llm_maker.llm import prompt
from llm_maker.llm.apis.chat import Chat
from llm_maker.llm.budget import Pricer
from llm_maker.llm.providers import PROVIDERS, Citation, ProviderError
from tests.fakes.models import THROWAWAY_KEY, ModelServer, Usage
from tests.fakes.models.texts import NOTES, SOURCES
from tests.llm.samples import brief, request
from tests.llm.test_providers import QUESTION, Answering, ask, client, fail

LISTED = Pricer("openai", "gpt-6-luna")
GROK = Pricer("x-ai", "grok-4.3")


def message(*parts, **fields):
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": p} for p in parts]} | fields


def reply(*output, **fields):
    usage = {"input_tokens": 100, "output_tokens": 20}
    return {"status": "completed", "model": "m", "output": list(output), "usage": usage} | fields


def grok(server, **kwargs):
    base_url = server if isinstance(server, str) else server.openai_url
    return Chat(PROVIDERS["xai"], api_key=THROWAWAY_KEY, pricer=GROK, base_url=base_url, model="grok-4.3", **kwargs)


async def look(model):
    try:
        return await model.search("Find dated facts.", "What happened? [M1]", 5.0)
    finally:
        await model.close()


async def test_one_good_answer_and_what_was_sent():
    usage = Usage(input=6000, output=1000, cached=2000, cache_write=500, reasoning=300)
    async with ModelServer(usage=usage) as server:
        done = await ask(client(server, "responses", pricer=LISTED))
        other = prompt.render(request(brief("0xcc")))
        model = client(server, "responses", max_output_tokens=77, extra={"text": {"verbosity": "low"}, "reasoning": None})
        await model.complete(other.system, other.user, other.schema, 5.0)
        await model.complete(other.system + ".", other.user, other.schema, 5.0)
        await model.close()
    assert [s["market_id"] for s in json.loads(done.text)["signals"]] == ["M1", "M2"]
    assert (done.finish, done.model, done.schema_mode, done.price_source) == ("stop", "fake-model", "json_schema", "table")
    u = done.usage
    assert (u.input, u.cached, u.cache_write, u.output, u.reasoning, u.searches) == (6000, 2000, 500, 1000, 300, 0)
    first, second, third = (seen.body for seen in server.seen)
    assert (first["instructions"], first["input"]) == (QUESTION.system, QUESTION.user)
    assert first["store"] is False and first["max_output_tokens"] == 4000 and first["reasoning"] == {"effort": "low"}
    assert first["text"] == {"format": {"type": "json_schema", "name": "signals", "strict": True, "schema": prompt.SCHEMA}}
    assert not {"temperature", "tools", "stream"} & set(first)
    assert first["prompt_cache_key"] == second["prompt_cache_key"] != third["prompt_cache_key"], "one system prompt, one cache"
    assert second["text"]["verbosity"] == "low" and second["text"]["format"] == first["text"]["format"]
    assert second["max_output_tokens"] == 77 and "reasoning" not in second
    assert server.violations == []


async def test_the_answer_is_the_messages_that_are_no_commentary():
    thinking = {"type": "reasoning", "content": "odd", "summary": []}
    spoken = message("I shall look it up.", phase="commentary")
    async with Answering(200, reply(thinking, spoken, message('{"a"', ": 1}"), {"type": "new_thing"})) as url:
        done = await ask(client(url, "responses"))
    assert done.text == '{"a": 1}'
    async with Answering(200, reply({"type": "reasoning"})) as url:
        assert (await ask(client(url, "responses"))).text == "", "whole, paid for, and empty: for the reader to judge"


@pytest.mark.parametrize(
    ("code", "kind"),
    [("server_error", "overload"), ("rate_limit_exceeded", "rate_limit"), ("insufficient_quota", "billing"), (None, "overload"),
     ("invalid_prompt", "bad_request"), ("bio_policy", "refusal"), ("a_new_word", "bad_request")],
)  # fmt: skip
async def test_a_response_that_failed(code, kind):
    failed = reply(status="failed", error={"code": code, "message": f"said {THROWAWAY_KEY}"})
    async with Answering(200, failed) as url:
        error = await fail(client(url, "responses"))
    assert error.kind == kind and error.usage.input == 100 and THROWAWAY_KEY not in str(error)


@pytest.mark.parametrize(
    "broken",
    [
        reply(status="queued"), reply(), reply(output=None), reply(output={"a": 1}), reply(output=[1]),
        reply(output=[message()], model=[]),
    ],
)  # fmt: skip
async def test_an_unusable_body_still_tells_its_usage(broken):
    async with Answering(200, broken) as url:
        error = await fail(client(url, "responses"))
    assert (error.kind, error.usage.output, error.maybe_billed) == ("malformed", 20, True)


async def test_incomplete_for_its_content_is_a_refusal():
    details = {"incomplete_details": {"reason": "content_filter"}}
    async with Answering(200, reply(message("half"), status="incomplete", **details)) as url:
        assert (await ask(client(url, "responses"))).finish == "refusal"


async def test_openai_searches_and_cites():
    async with ModelServer(searches=3, usage=Usage(6000, 1000)) as server:
        found = await look(client(server, "responses", pricer=LISTED))
        plain = await ask(client(server, "responses", pricer=LISTED))
    body = server.seen[0].body
    assert body["tools"] == [{"type": "web_search"}] and body["store"] is False and "text" not in body
    assert found.text == NOTES and found.finish == "stop"
    assert found.citations == tuple(Citation(url, title) for url, title in SOURCES)
    assert (found.searches, found.usage.searches) == (3, 3)
    assert found.cost_usd == plain.cost_usd + Decimal("0.03") and found.price_source == "table"
    assert server.violations == []


async def test_xai_searches_through_responses_and_x_only_where_allowed():
    async with ModelServer(searches=4, usage=Usage(6000, 1000)) as server:
        web = await look(grok(server))
        both = await look(grok(server, extra={"x_search": True, "reasoning_effort": "none"}))
        one = await look(grok(server, extra={"x_search": "yes"}))
        answered = await ask(grok(server))
    tools = [seen.body["tools"] for seen in server.seen[:3]]
    assert tools == [[{"type": "web_search"}], [{"type": "web_search"}, {"type": "x_search"}], [{"type": "web_search"}]]
    assert [seen.path for seen in server.seen] == [*["/v1/responses"] * 3, "/v1/chat/completions"]
    assert not {"x_search", "reasoning_effort", "thinking"} & set(server.seen[1].body), "chat's extras are not of this wire"
    assert [found.searches for found in (web, both, one)] == [4, 4, 4], "as the server counts them, wherever it looked"
    assert web.cost_usd == answered.cost_usd + 4 * Decimal("0.005")
    assert {c.url for c in web.citations} == {url for url, _ in SOURCES}
    assert server.violations == []


async def test_a_bill_has_the_searches_in_it():
    async with ModelServer(["ticks", "no_usage"], searches=4) as server:
        billed, unknown = await look(grok(server)), await look(grok(server))
    assert (billed.cost_usd, billed.price_source) == (Decimal("0.0037756"), "billed")
    assert (unknown.cost_usd, unknown.price_source, unknown.searches) == (None, "unknown", 4)


async def test_searches_are_counted_from_what_is_shown_where_no_count_is_told():
    on_x = {"type": "custom_tool_call", "name": "x_keyword_search"}
    looked = [{"type": "web_search_call"}, on_x, {"type": "custom_tool_call", "name": "python"}]
    async with Answering(200, reply(*looked, message("a"))) as url:
        assert (await look(grok(url))).searches == 2
    async with Answering(200, reply(message("a"), usage={"server_side_tool_usage_details": {"web_search_calls": None}})) as url:
        assert (await look(grok(url))).searches == 0


async def test_citations_are_plain_addresses_once_and_bounded():
    cited = [
        {"type": "url_citation", "url": "https://a.example/1", "title": "one\n\x1b[31m"},
        {"type": "url_citation", "url": "https://a.example/1", "title": "again"},
        {"type": "url_citation", "url": "javascript:alert(1)", "title": "no"},
        {"type": "url_citation", "url": "https://a.example/two lines\nand more", "title": "no"},
        {"type": "url_citation", "url": "https://a.example/" + "x" * 2_000, "title": "no"},
        {"type": "url_citation", "url": f"https://a.example/?key={THROWAWAY_KEY}", "title": THROWAWAY_KEY},
        {"type": "file_citation", "url": "https://a.example/file"},
        {"type": "url_citation"},
    ]
    part = {"type": "output_text", "text": "facts", "annotations": cited}
    looked_at = ["https://a.example/1", "https://b.example/2", *(f"https://c.example/{i}" for i in range(200))]
    async with Answering(200, reply(message() | {"content": [part]}, citations=looked_at)) as url:
        found = await look(grok(url))
    assert found.citations[0] == Citation("https://a.example/1", "one [31m")
    assert found.citations[1] == Citation("https://b.example/2", "")
    assert len(found.citations) == 50
    assert THROWAWAY_KEY not in repr(found)
    async with Answering(200, reply(message("facts"), citations={"odd": 1})) as url:
        assert (await look(grok(url))).citations == ()


async def test_a_search_fails_as_a_call_does():
    for step, kind in (
        ("401", "auth"),
        ("429_quota", "billing"),
        ("500", "overload"),
        ("reset", "connection"),
        ("html", "malformed"),
    ):
        async with ModelServer([step]) as server:
            with pytest.raises(ProviderError) as caught:
                await look(grok(server))
        assert caught.value.kind == kind and len(server.seen) == 1
    async with ModelServer(["hang"], hang_s=20) as server:
        model = grok(server)
        with pytest.raises(ProviderError) as caught:
            await model.search("s", "u", 0.6)
        await model.close()
    assert (caught.value.kind, caught.value.maybe_billed) == ("timeout", True)
    async with ModelServer(["refusal"]) as server:
        assert (await look(grok(server))).finish == "refusal"
