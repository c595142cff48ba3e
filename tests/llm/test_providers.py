"""Chat completions and what all clients of the `openai` SDK share: each misbehaviour of a server, through the real SDK over a real
socket, reaches its kind; a call costs one request; no key leaks."""

import asyncio
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from llm_maker.llm import prompt
from llm_maker.llm.apis.chat import Chat
from llm_maker.llm.apis.open_model import open_model
from llm_maker.llm.apis.openai_sdk import merged
from llm_maker.llm.apis.responses import Responses
from llm_maker.llm.budget import Pricer
from llm_maker.llm.providers import PROVIDERS, ProviderError, choose, replacement
from tests.fakes.models import THROWAWAY_KEY, ModelServer, Usage, refused
from tests.llm.samples import brief, request

QUESTION = prompt.render(request(brief("0xaa"), brief("0xbb")))
ROOT = Path(__file__).parents[2]
LOCAL = PROVIDERS["openai_compatible"]
WIRES = {"chat": (Chat, LOCAL), "responses": (Responses, PROVIDERS["openai"])}
FREE = Pricer("", "fake-model", local=True)
LISTED = Pricer("openai", "gpt-6-luna")


def client(server, wire="chat", *, spec=None, **kwargs):
    made, usual = WIRES[wire]
    base_url = server if isinstance(server, str) else server.base_url(wire)
    kwargs = {"api_key": THROWAWAY_KEY, "model": "fake-model", "pricer": FREE, "base_url": base_url} | kwargs
    model = made(spec or usual, **kwargs)
    return server.watch(model) if isinstance(server, ModelServer) else model


async def ask(model, deadline_s=5.0):
    try:
        return await model.complete(QUESTION.system, QUESTION.user, QUESTION.schema, deadline_s)
    finally:
        await model.close()


async def fail(model, deadline_s=5.0):
    with pytest.raises(ProviderError) as caught:
        await asyncio.wait_for(ask(model, deadline_s), deadline_s + 3.0)
    return caught.value


class Answering:
    """`async with Answering(status, body)`: a server that gives one and the same answer, whatever is asked."""

    def __init__(self, status, body, **headers):
        self.status, self.body, self.headers = status, body, headers

    async def __aenter__(self):
        async def answer(_):
            raw = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
            return web.Response(status=self.status, body=raw, content_type="application/json", headers=self.headers)

        app = web.Application()
        app.router.add_post("/{any:.*}", answer)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def __aexit__(self, *_):
        await self._runner.cleanup()


async def test_one_good_answer_and_what_was_sent():
    usage = Usage(input=6000, output=1000, cached=2000, cache_write=500, reasoning=300)
    async with ModelServer(usage=usage) as server:
        done = await ask(client(server))
    assert [s["market_id"] for s in json.loads(done.text)["signals"]] == ["M1", "M2"]
    assert (done.finish, done.model, done.schema_mode, done.cost_usd) == ("stop", "fake-model", "json_schema", 0)
    u = done.usage
    assert (u.input, u.cached, u.cache_write, u.output, u.reasoning, u.searches) == (6000, 2000, 500, 1000, 300, 0)
    (seen,) = server.seen
    system, user = {"role": "system", "content": QUESTION.system}, {"role": "user", "content": QUESTION.user}
    assert seen.body["messages"] == [system, user]
    assert seen.body["response_format"]["json_schema"] == {"name": "signals", "strict": True, "schema": prompt.SCHEMA}
    assert seen.body["max_tokens"] == 4000 and "temperature" not in seen.body
    assert seen.headers["authorization"] == f"Bearer {THROWAWAY_KEY}"
    assert seen.headers["accept-encoding"] == "identity"
    assert server.violations == []


FAILURES = [
    ("400", "bad_request"), ("401", "auth"), ("401_text", "auth"), ("key_400", "auth"), ("402", "billing"), ("403", "auth"),
    ("404", "bad_request"), ("408", "timeout"), ("409", "bad_request"), ("410", "bad_request"), ("413", "bad_request"),
    ("422", "bad_request"), ("429", "rate_limit"), ("429_date", "rate_limit"), ("429_quota", "billing"), ("500", "overload"),
    ("502", "overload"), ("503", "overload"), ("504", "overload"), ("529", "overload"), ("307", "bad_request"),
    ("failed", "overload"), ("no_choices", "malformed"),
    ("hang", "timeout"), ("drip", "timeout"), ("reset", "connection"), ("no_reply", "connection"),
    ("empty_body", "malformed"), ("html", "malformed"), ("not_completion", "malformed"), ("list_body", "malformed"),
    ("null_body", "malformed"), ("bad_utf8", "malformed"), ("wrong_object", "malformed"), ("huge", "malformed"),
]  # fmt: skip
UNSURE = {"hang", "drip", "reset", "no_reply", "empty_body", "html", "not_completion", "list_body", "null_body", "bad_utf8"}
UNSURE |= {"wrong_object", "huge", "no_choices"}
"""What may be on the bill though nothing whole came back."""


@pytest.mark.parametrize("wire", WIRES)
async def test_each_failure_has_its_kind(wire):
    async with ModelServer([step for step, _ in FAILURES], hang_s=20.0) as server:
        model = client(server, wire)
        errors = []
        for asked, (step, _) in enumerate(FAILURES, 1):
            with pytest.raises(ProviderError) as caught:
                await model.complete(QUESTION.system, QUESTION.user, QUESTION.schema, 0.6 if step in ("hang", "drip") else 5.0)
            errors.append(caught.value)
            assert len(server.seen) == asked, "one request per call: nobody retries behind our back"
        await model.close()
    assert server.violations == []
    for (step, kind), error in zip(FAILURES, errors, strict=True):
        assert error.kind == kind, (step, error)
        assert error.maybe_billed == (step in UNSURE), step
        if step == "429_date":
            assert 4.0 <= error.retry_after_s <= 7.0
        else:
            assert error.retry_after_s == (7.0 if step in ("429", "429_quota", "503") else None), step
        assert (error.usage is not None) == (step in ("failed", "no_choices")), step
        assert error.detail and len(error.detail) <= 300 and error.detail.isprintable()
        assert ("longer than 2000000 bytes" in error.detail) == (step == "huge"), "reading stops at the limit"
        assert THROWAWAY_KEY not in str(error) + error.detail + repr(error)
        chained = None if error.__suppress_context__ else error.__context__
        assert error.__cause__ is None
        assert not type(chained).__module__.startswith(("openai", "httpx2")), "an SDK error carries the request into a log"


async def test_a_refused_port_is_a_connection_error_and_costs_nothing():
    with refused() as nowhere:
        error = await fail(client(nowhere.openai_url), 2.0)
    assert (error.kind, error.maybe_billed) == ("connection", False)


@pytest.mark.parametrize("wire", WIRES)
async def test_stop_reasons(wire):
    steps = {
        "refusal": "refusal", "filtered": "refusal", "truncated": "length", "truncated_empty": "length", "garbage": "stop",
        "empty_text": "stop", "thinking": "stop",
    }  # fmt: skip
    async with ModelServer(list(steps), usage=Usage(100, 20)) as server:
        for step, finish in steps.items():
            done = await ask(client(server, wire))
            assert done.finish == finish, step
            assert done.usage.output == 20, "usage is kept whatever became of the text"
            assert "aloud" not in done.text
    assert server.violations == []


async def test_errors_that_come_inside_a_200():
    for code, kind in ((502, "overload"), (402, "billing"), (429, "rate_limit"), ("quota", "overload"), (None, "overload")):
        async with Answering(200, {"error": {"code": code, "message": f"said {THROWAWAY_KEY}"}, "usage": USAGE}) as url:
            error = await fail(client(url))
        assert error.kind == kind and error.usage.output == 20 and THROWAWAY_KEY not in str(error)
    async with ModelServer(["error_200"]) as server:
        assert (await fail(client(server))).kind == "overload"


USAGE = {"prompt_tokens": 100, "completion_tokens": 20}
CHOICE = {"message": {"content": "{}"}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    "broken",
    [
        {"choices": {}}, {"choices": [{"message": {"content": [1]}}]}, {"choices": None}, {"choices": [5]},
        {"choices": [CHOICE | {"finish_reason": "insufficient_system_resource"}]}, {"choices": [CHOICE], "model": 3},
    ],
)  # fmt: skip
async def test_an_unusable_body_still_tells_its_usage(broken):
    async with Answering(200, broken | {"usage": USAGE}) as url:
        error = await fail(client(url))
    assert (error.usage.input, error.usage.output) == (100, 20)


@pytest.mark.parametrize(
    "usage",
    [None, [], 7, {}, {"prompt_tokens": "many"}, {"prompt_tokens": -5, "completion_tokens": 3}, {"prompt_tokens": 5},
     {"prompt_tokens": 10**18, "completion_tokens": 3}, {"prompt_tokens": 0, "completion_tokens": 0}],
)  # fmt: skip
async def test_an_answer_without_a_believable_usage_stands_and_its_price_is_unknown(usage):
    async with Answering(200, {"choices": [CHOICE], "usage": usage}) as url:
        done = await ask(client(url, pricer=LISTED))
        local = await ask(client(url))
    assert (done.text, done.cost_usd, done.price_source) == ("{}", None, "unknown")
    assert (local.cost_usd, local.price_source) == (0, "local")


@pytest.mark.parametrize("cost", ["NaN", "sNaN", -1, 1e300, "Infinity", "1E+999999"])
async def test_a_bill_that_cannot_be_true_is_not_believed(cost):
    for name in ("cost", "cost_in_usd_ticks"):
        async with Answering(200, {"choices": [CHOICE], "usage": USAGE | {name: cost}}) as url:
            done = await ask(client(url, pricer=LISTED))
        assert done.price_source == "table" and 0 < done.cost_usd < 1


async def test_the_bill_comes_before_the_table_and_the_table_before_config():
    async with ModelServer(["billed", "ticks", "ok", "billed=0"], usage=Usage(6000, 1000, 2000)) as server:
        billed, ticks, listed, free = [await ask(client(server, pricer=LISTED)) for _ in range(4)]
    assert (billed.cost_usd, billed.price_source) == (Decimal("0.00123"), "billed")
    assert (ticks.cost_usd, ticks.price_source) == (Decimal("0.0037756"), "billed")
    assert (free.cost_usd, free.price_source) == (0, "billed")
    assert listed.price_source == "table" and Decimal("0.0005") < listed.cost_usd < Decimal("0.0011")
    for upstream, told in (({"upstream_inference_cost": 0.002}, Decimal("0.0021")), ({}, None)):
        bill = {"cost": 0.0001, "is_byok": True, "cost_details": upstream}
        async with Answering(200, {"choices": [CHOICE], "usage": USAGE | bill}) as url:
            own_key = await ask(client(url, pricer=LISTED))
        assert (own_key.price_source == "billed") == (told is not None), "the fee alone is not the bill"
        assert told is None or own_key.cost_usd == told


async def test_deepseeks_cached_tokens():
    usage = USAGE | {"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}
    async with Answering(200, {"choices": [CHOICE], "usage": usage}) as url:
        assert (await ask(client(url))).usage.cached == 60


@pytest.mark.parametrize("wire", WIRES)
async def test_a_server_without_schemas_is_asked_with_less_and_that_is_remembered(wire):
    heard = []
    async with ModelServer(["schema_400", "object_400", "ok", "ok"]) as server:
        model = client(server, wire, on_step=heard.append)
        first = await model.complete(QUESTION.system, QUESTION.user, QUESTION.schema, 5.0)
        second = await ask(model)
    assert (first.schema_mode, second.schema_mode) == ("prompt_only", "prompt_only")
    assert [s.schema_mode for s in server.seen] == ["json_schema", "json_object", "prompt_only", "prompt_only"]
    assert len(heard) == 2 and THROWAWAY_KEY not in "".join(heard)
    assert server.violations == []


async def test_a_route_without_schemas_is_asked_with_less_too():
    words = {"error": {"code": 404, "message": "No endpoints found that can handle the requested parameters."}}
    heard = []
    async with Answering(404, words) as url:
        error = await fail(client(url, on_step=heard.append))
    assert (error.kind, len(heard)) == ("bad_request", 2), "and where that does not help it ends"


async def test_a_failure_while_stepping_down_forgets_nothing_and_invents_nothing():
    async with ModelServer(["schema_400", "500", "ok"]) as server:
        model = client(server)
        with pytest.raises(ProviderError, match="overload"):
            await model.complete(QUESTION.system, QUESTION.user, QUESTION.schema, 5.0)
        assert model.schema_mode == "json_schema", "only a mode that was answered is remembered"
        await ask(model)
    assert len(server.seen) == 3


async def test_the_deadline_is_over_all_steps():
    async with ModelServer(["schema_400", "hang"]) as server:
        error = await fail(client(server), 1.0)
    assert (error.kind, len(server.seen)) == ("timeout", 2)


@pytest.mark.parametrize("wire", WIRES)
async def test_the_environment_redirects_nothing(monkeypatch, wire):
    async with ModelServer() as elsewhere, ModelServer() as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "OPENAI_BASE_URL"):
            monkeypatch.setenv(name, elsewhere.url)
        for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
            monkeypatch.setenv(name, "of-another-account")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: of-another-account\nx-other: of-another-account")
        await ask(client(server, wire))
    assert (len(server.seen), len(elsewhere.seen)) == (1, 0)
    assert server.seen[0].headers["authorization"] == f"Bearer {THROWAWAY_KEY}"
    assert "of-another-account" not in str(server.seen[0].headers)


async def test_two_calls_at_once_on_one_client():
    async with ModelServer(["ok", "500"]) as server:
        model = client(server)
        calls = [model.complete("s JSON", QUESTION.user, QUESTION.schema, 5.0) for _ in range(2)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        await model.close()
    assert sorted(type(r).__name__ for r in results) == ["Completion", "_Refused"]
    assert sum(isinstance(r, ProviderError) for r in results) == 1


async def test_extra_joins_the_body_over_the_providers_own():
    routed = PROVIDERS["openrouter"]
    extra = {"provider": {"order": ["one"]}, "max_tokens": None, "max_completion_tokens": 77, "x_search": True}
    async with ModelServer() as server:
        await ask(client(server, spec=routed, extra=extra))
        await ask(client(server, spec=PROVIDERS["deepseek"], extra={"thinking": None}))
        await ask(client(server, spec=PROVIDERS["deepseek"]))
    first, without, usual = (seen.body for seen in server.seen)
    assert first["provider"] == {"require_parameters": True, "order": ["one"]}
    assert first["max_completion_tokens"] == 77 and "max_tokens" not in first and "x_search" not in first
    assert "thinking" not in without and usual["thinking"] == {"type": "disabled"}
    assert usual["response_format"] == {"type": "json_object"}
    assert routed.extra == {"provider": {"require_parameters": True}}, "the table is nobody's to change"


@pytest.mark.parametrize("extra", [{"model": "other"}, {"stream": True}, {"a": float("nan")}, {"a": object()}])
@pytest.mark.parametrize("wire", WIRES)
def test_extra_that_no_request_can_have_is_an_error_at_once(wire, extra):
    with pytest.raises(ValueError, match="extra"):
        client("http://127.0.0.1:9/v1", wire, extra=extra)


def test_an_address_that_is_none_is_an_error_at_once():
    with pytest.raises(ValueError, match="base_url"):
        client("http://[::1")


def test_merged():
    assert merged({"a": {"b": 1}}, {"a": {"c": 2}}, {"a": {"b": None}, "d": [1]}) == {"a": {"c": 2}, "d": [1]}
    assert merged({"a": 1}, {"a": {"b": 1}}) == {"a": {"b": 1}}


@pytest.mark.parametrize("key", ["“key-in-quotes”", "key with a space", "key\nx-evil: 1"])
async def test_a_key_that_cannot_be_one_is_never_sent_nor_told(key):
    async with ModelServer() as server:
        error = await fail(client(server, api_key=key))
    assert error.kind == "auth" and server.seen == [] and "key-in" not in repr(error)


async def test_a_prompt_that_is_no_text_is_our_fault_and_ends_there():
    async with ModelServer() as server:
        model = client(server)
        with pytest.raises(ProviderError, match="bad_request"):
            await model.complete("JSON", "half a pair: \ud83d", QUESTION.schema, 5.0)
        await model.close()


async def test_a_packed_answer_is_not_unpacked():
    async with Answering(200, {"choices": [CHOICE]}, **{"Content-Encoding": "gzip"}) as url:
        error = await fail(client(url))
    assert error.kind == "malformed" and "compressed" in error.detail


async def test_of_an_endless_error_the_beginning_is_read():
    async with Answering(503, b'{"error": {"message": "' + b"a" * 5_000_000) as url:
        error = await fail(client(url))
    assert error.kind == "overload" and len(error.detail) <= 300


async def test_a_key_in_the_answer_is_taken_out():
    text = json.dumps({"said": THROWAWAY_KEY})
    async with Answering(200, {"choices": [{"message": {"content": text}}], "usage": USAGE, "model": THROWAWAY_KEY}) as url:
        done = await ask(client(url))
    assert THROWAWAY_KEY not in done.text + done.model


async def test_a_price_nobody_knows_is_unknown_and_never_zero():
    async with ModelServer() as server:
        done = await ask(client(server, pricer=Pricer("openai", "made-up-model")))
    assert (done.cost_usd, done.price_source) == (None, "unknown")


async def test_only_xai_of_this_wire_can_search():
    async with ModelServer() as server:
        for name in ("deepseek", "openrouter", "ollama", "openai_compatible"):
            with pytest.raises(ProviderError, match="cannot search"):
                await client(server, spec=PROVIDERS[name]).search("s", "u", 5.0)
    assert server.seen == []


def test_choose():
    key = "k-secret"
    assert choose("openai", {"OPENAI_API_KEY": key}).spec is PROVIDERS["openai"]
    missing = choose("xai", {"XAI_API_KEY": " "})
    assert (missing.status, missing.spec) == ("missing_key", None)
    assert missing.text.startswith("Missing API key: XAI_API_KEY not set")
    assert choose("openai_compatible", {}).status == "chosen"
    assert choose("gemini", {"GEMINI_API_KEY": key}).spec is PROVIDERS["gemini"]
    assert "openrouter" in choose("gpt", {}).text and choose("gpt", {}).status == "unknown_name"
    auto = choose("auto", {"XAI_API_KEY": key, "DEEPSEEK_API_KEY": key, "GEMINI_API_KEY": " "})
    assert auto.spec is PROVIDERS["deepseek"] and key not in auto.text
    assert choose("auto", {}).status == "none_set"
    assert next(iter(PROVIDERS)) == "gemini"


def test_what_took_the_place_of_a_retired_model():
    assert replacement(PROVIDERS["xai"], "grok-4-fast-reasoning") == "grok-4.3"
    assert replacement(PROVIDERS["deepseek"], "deepseek-chat") == "deepseek-flash"
    assert all(replacement(spec, spec.model) is None for spec in PROVIDERS.values())


SDKS = ("openai", "anthropic", "google.genai", "httpx2", "genai_prices", "aiohttp")
CLEAN = f"""
import sys, importlib, pkgutil, llm_maker.llm, llm_maker.llm.apis as apis
import llm_maker.llm.analyst, llm_maker.llm.simulated, llm_maker.llm.providers, llm_maker.llm.budget, llm_maker.llm.probe
for found in pkgutil.iter_modules(apis.__path__):
    importlib.import_module(f"llm_maker.llm.apis.{{found.name}}")
loaded = [name for name in {SDKS} if name in sys.modules]
assert not loaded, loaded
from llm_maker.llm.budget import Pricer
from llm_maker.llm.providers import PROVIDERS
from llm_maker.llm.apis.open_model import open_model
open_model(PROVIDERS["ollama"], api_key="", pricer=Pricer("", "m", local=True), model="m")
loaded = [name for name in ("openai", "anthropic", "google.genai") if name in sys.modules]
assert loaded == ["openai"], loaded
"""


def test_only_the_sdk_of_the_model_that_is_opened_is_ever_imported():
    done = subprocess.run([sys.executable, "-c", CLEAN], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_every_provider_opens_its_own_client():
    made = {}
    for name in ("openai", "deepseek", "xai", "openrouter", "ollama", "vllm", "llamacpp", "openai_compatible"):
        model = open_model(PROVIDERS[name], api_key=THROWAWAY_KEY, pricer=FREE, model="m")
        made[name] = type(model)
        assert (model.provider, model.model) == (name, "m")
        await model.close()
    assert made.pop("openai") is Responses and set(made.values()) == {Chat}
