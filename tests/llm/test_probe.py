"""What the probe of a model says: each failure in one line with its cure, no traffic for a name known to be gone."""

import asyncio
import json
from decimal import Decimal

import pytest

from llm_maker.llm import probe as probing
from llm_maker.llm.apis.chat import Chat
from llm_maker.llm.apis.responses import Responses
from llm_maker.llm.budget import Pricer, Usage
from llm_maker.llm.probe import probe
from llm_maker.llm.providers import PROVIDERS, Completion, ProviderError
from tests.fakes.models import THROWAWAY_KEY, ModelServer, refused

OPENAI, DEEPSEEK, GEMINI, OLLAMA = (PROVIDERS[name] for name in ("openai", "deepseek", "gemini", "ollama"))


async def probed(url, spec=OPENAI, *, model="gpt-6-luna", deadline_s=5.0, key=THROWAWAY_KEY):
    made = Responses if spec.api == "responses" else Chat
    client = made(spec, api_key=key, pricer=Pricer(spec.price_id, model), base_url=url, model=model)
    try:
        return await asyncio.wait_for(probe(client, spec, deadline_s), deadline_s + 2.0)
    finally:
        await client.close()


@pytest.mark.parametrize("spec", [OPENAI, DEEPSEEK], ids=lambda spec: spec.name)
async def test_a_model_that_answers_is_ok(spec):
    async with ModelServer(['text={"ok": true}']) as server:
        found = await probed(server.openai_url, spec, model=spec.model)
    assert (found.status, found.schema_mode) == ("ok", spec.schema_mode)
    assert found.latency_ms >= 0 and 0 < found.cost_usd < Decimal("0.001")
    assert found.text.startswith(f"{spec.name} {spec.model}: answers in")
    assert len(server.seen) == 1 and server.seen[0].text_bytes < 400 and server.violations == []


async def test_a_retired_name_is_not_asked():
    async with ModelServer() as server:
        found = await probed(server.openai_url, DEEPSEEK, model="deepseek-chat")
    assert (found.status, found.latency_ms, found.cost_usd) == ("retired", None, None)
    assert "llm.model: deepseek-flash" in found.text and server.seen == []


@pytest.mark.parametrize(
    ("step", "status", "says"),
    [
        ("401", "auth", "OPENAI_API_KEY"), ("403", "auth", "OPENAI_API_KEY"), ("key_400", "auth", "platform.openai.com"),
        ("402", "billing", "top it up"), ("429_quota", "billing", "top it up"), ("404", "unknown_model", "set llm.model"),
        ("429", "failed", "rate limit"), ("500", "failed", "overloaded"), ("400", "failed", "llm.base_url"),
        ("html", "failed", "llm.base_url"), ("reset", "unreachable", "network"), ("hang", "unreachable", "in time"),
        ("text=Sure, it works!", "no_schema", "name another"), ('text={"OK": 1}', "no_schema", "name another"),
        ("text=[]", "no_schema", "name another"), ("empty_text", "no_schema", "name another"),
        ("truncated", "failed", "max_output_tokens"), ("refusal", "failed", "refused"), ('text={"ok": true}', "ok", "answers"),
        ('text=```json\n{"ok": true}\n```', "ok", "answers"),
    ],
)  # fmt: skip
async def test_each_failure_in_one_line_with_its_cure(step, status, says):
    async with ModelServer([step], hang_s=20.0) as server:
        found = await probed(server.openai_url, model="gpt-7", deadline_s=0.6 if step == "hang" else 5.0)
    assert found.status == status, found
    assert says in found.text and found.text.isprintable() and len(found.text) < 600
    assert found.text.startswith("openai gpt-7: ") and THROWAWAY_KEY not in found.text
    assert len(server.seen) == 1, "asked once"


async def test_nobody_there():
    with refused() as nowhere:
        found = await probed(nowhere.openai_url, OLLAMA, model="qwen", deadline_s=2.0)
    assert found.status == "unreachable" and "is the server running?" in found.text


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("HTTP 404: The model `gpt-9` does not exist or you do not have access to it.", "unknown_model"),
        ("HTTP 400: Model Not Exist", "unknown_model"),
        ("HTTP 404: model 'qwen' not found", "unknown_model"),
        ("HTTP 404: model: claude-0", "unknown_model"),
        ("HTTP 404: models/gemini-0 is not found for API version v1beta, or is not supported", "unknown_model"),
        ("HTTP 400: xyz is not a valid model ID", "unknown_model"),
        ("HTTP 404: No endpoints found for some/model.", "unknown_model"),
        ("HTTP 400: grok-0 has been deprecated; model retired", "unknown_model"),
        ("HTTP 404: Not Found", "failed"),
        ("HTTP 400: Unsupported parameter: 'max_tokens' is not supported with this model.", "failed"),
        ("HTTP 400: This model's maximum context length is 8192 tokens", "failed"),
    ],
)
def test_an_unknown_model_in_the_words_of_each_server(said, status):
    assert probing.failed(OPENAI, "asked", ProviderError("bad_request", said)).status == status


def test_a_rate_limit_may_be_a_retired_gemini():
    limited = ProviderError("rate_limit", "HTTP 429: slow down", 30.0)
    assert "a retired Gemini model" in probing.failed(GEMINI, GEMINI.model, limited).text
    text = probing.failed(OPENAI, OPENAI.model, limited).text
    assert "wait 30 s" in text and "Gemini" not in text


def test_a_server_that_swaps_models_under_a_name_is_told():
    done = Completion('{"ok": true}', "stop", Usage(1, 1), Decimal(0), "table", "deepseek-v5", "json_object")
    assert "(it calls itself deepseek-v5)" in probing.answered(DEEPSEEK, "deepseek-flash", done, 5).text
    dated = Completion('{"ok": false}', "stop", Usage(1, 1), Decimal(0), "table", "gpt-6-luna-2026-08-01", "json_schema")
    told = probing.answered(PROVIDERS["openrouter"], "openai/gpt-6-luna", dated, 5)
    assert told.status == "ok" and "calls itself" not in told.text


class Sleepy:
    """A client that keeps no deadline."""

    provider, model = "openai", "gpt-6-luna"

    async def complete(self, *_):
        await asyncio.sleep(30)


async def test_the_deadline_holds_whatever_the_client_does():
    found = await asyncio.wait_for(probe(Sleepy(), OPENAI, 0.05), 2.0)
    assert found.status == "unreachable"


def test_the_schema_is_in_the_common_subset():
    assert probing.SCHEMA["additionalProperties"] is False and probing.SCHEMA["required"] == list(probing.SCHEMA["properties"])
    assert "JSON" in probing.SYSTEM and json.dumps({"ok": True}) in probing.SYSTEM
