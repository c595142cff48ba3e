"""Each misbehaviour of a model server reaches its class through the real SDK over a real socket; no key leaks."""

import asyncio
import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from llm_maker.llm import prompt
from llm_maker.llm.apis.chat import OpenAICompatible, redact
from llm_maker.llm.budget import Pricer
from llm_maker.llm.providers import PROVIDERS, ProviderError, choose
from tests.fakes.model_server import THROWAWAY_KEY, ModelServer, parse_script
from tests.llm.samples import brief, request

QUESTION = prompt.render(request(brief("0xaa"), brief("0xbb")))
ROOT = Path(__file__).parents[2]
LOCAL = PROVIDERS["openai_compatible"]


def client(server, spec=LOCAL, *, deadline=None, **kwargs):
    kwargs.setdefault("model", "fake-model")
    kwargs.setdefault("pricer", Pricer("", "fake-model", local=True))
    return OpenAICompatible(spec, api_key=THROWAWAY_KEY, base_url=server if isinstance(server, str) else server.url, **kwargs)


async def ask(model, deadline_s=5.0):
    try:
        return await model.complete(QUESTION.system, QUESTION.user, QUESTION.schema, deadline_s)
    finally:
        await model.close()


async def test_one_good_answer_and_what_was_sent():
    async with ModelServer() as server:
        done = await ask(client(server))
    assert [s["market_id"] for s in json.loads(done.text)["signals"]] == ["M1", "M2"]
    assert (done.finish, done.model, done.schema_mode, done.cost_usd) == ("stop", "fake-model", "json_schema", 0)
    u = done.usage
    assert (u.input, u.cached, u.output, u.reasoning) == (6000, 2000, 1000, 300)
    (seen,) = server.seen
    assert seen.body["messages"] == [
        {"role": "system", "content": QUESTION.system},
        {"role": "user", "content": QUESTION.user},
    ]
    assert seen.body["response_format"]["json_schema"] == {"name": "signals", "strict": True, "schema": prompt.SCHEMA}
    assert seen.body["max_tokens"] == 4000
    assert "temperature" not in seen.body
    assert seen.headers["Authorization"] == f"Bearer {THROWAWAY_KEY}"
    assert THROWAWAY_KEY not in json.dumps(seen.body)
    assert seen.headers["x-stainless-retry-count"] == "0"


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("400", "bad_request"), ("401", "auth"), ("402", "billing"), ("403", "auth"), ("404", "bad_request"),
        ("413", "bad_request"), ("429", "rate_limit"), ("429_quota", "billing"), ("500", "overload"),
        ("503", "overload"),
        ("529", "overload"), ("307", "bad_request"), ("hang", "timeout"), ("drip", "timeout"), ("reset", "connection"),
        ("empty_body", "malformed"), ("html", "malformed"), ("not_completion", "malformed"), ("huge", "malformed"),
    ],
)  # fmt: skip
async def test_each_failure_has_its_kind(step, kind):
    async with ModelServer([step], hang_s=20.0) as server:
        with pytest.raises(ProviderError) as caught:
            await asyncio.wait_for(ask(client(server), 0.5 if kind == "timeout" else 5.0), 6.0)
    error = caught.value
    assert error.kind == kind, error
    assert len(server.seen) == 1, "one request per call: nobody retries behind our back"
    assert error.retry_after_s == (7.0 if step in ("429", "429_quota", "503") else None)
    assert error.detail and len(error.detail) <= 300
    assert ("longer than 2000000 bytes" in error.detail) == (step == "huge"), "reading stops at the limit"
    assert THROWAWAY_KEY not in str(error) + error.detail + repr(error)
    chained = None if error.__suppress_context__ else error.__context__
    assert error.__cause__ is None
    assert not type(chained).__module__.startswith(("openai", "httpx2")), "an SDK error carries the request into a log"


async def test_a_refused_port_is_a_connection_error():
    async with ModelServer() as server:
        url = server.url
    with pytest.raises(ProviderError) as caught:
        await ask(client(url), 2.0)
    assert caught.value.kind == "connection"


@pytest.mark.parametrize(
    ("step", "finish"), [("refusal", "refusal"), ("filtered", "refusal"), ("truncated", "length"), ("garbage", "stop")]
)
async def test_stop_reasons(step, finish):
    async with ModelServer([step]) as server:
        done = await ask(client(server))
    assert done.finish == finish
    assert done.usage.output == 1000, "usage is kept whatever became of the text"


async def test_a_server_without_schemas_is_asked_with_less_and_that_is_remembered():
    heard = []
    async with ModelServer(["schema_400", "object_400", "ok", "ok"]) as server:
        model = client(server, on_step=heard.append)
        first = await model.complete(QUESTION.system, QUESTION.user, QUESTION.schema, 5.0)
        second = await ask(model)
    assert (first.schema_mode, second.schema_mode) == ("prompt_only", "prompt_only")
    assert [s.body.get("response_format", {}).get("type") for s in server.seen] == [
        "json_schema",
        "json_object",
        None,
        None,
    ]
    assert len(heard) == 2 and THROWAWAY_KEY not in "".join(heard)


async def test_a_failure_while_stepping_down_forgets_nothing_and_invents_nothing():
    async with ModelServer(["schema_400", "500", "ok"]) as server:
        model = client(server)
        with pytest.raises(ProviderError, match="overload"):
            await model.complete(QUESTION.system, QUESTION.user, QUESTION.schema, 5.0)
        assert model.schema_mode == "json_schema", "only a mode that was answered is remembered"
        await ask(model)
    assert len(server.seen) == 3


async def test_the_environment_redirects_nothing(monkeypatch):
    async with ModelServer() as elsewhere, ModelServer() as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "OPENAI_BASE_URL"):
            monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.setenv("OPENAI_API_KEY", "another-key")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-of-another-account")
        await ask(client(server))
    assert (len(server.seen), len(elsewhere.seen)) == (1, 0)
    assert server.seen[0].headers["Authorization"] == f"Bearer {THROWAWAY_KEY}"
    assert "org-of-another-account" not in str(server.seen[0].headers)


async def test_the_bill_comes_before_the_table_and_the_table_before_config():
    table = Pricer("openai", "gpt-6-luna")
    async with ModelServer(["billed", "ticks", "ok", "no_usage"]) as server:
        billed, ticks, listed, bare = [await ask(client(server, pricer=table)) for _ in range(4)]
    assert (billed.cost_usd, billed.price_source) == (Decimal("0.00123"), "billed")
    assert (ticks.cost_usd, ticks.price_source) == (Decimal("0.0037756"), "billed")
    assert listed.price_source == "table" and Decimal("0.0005") < listed.cost_usd < Decimal("0.0011")
    assert bare.usage.input == 0


async def test_two_calls_at_once_on_one_client():
    async with ModelServer(["ok", "500"]) as server:
        model = client(server)
        results = await asyncio.gather(
            *(model.complete("s JSON", QUESTION.user, QUESTION.schema, 5.0) for _ in range(2)), return_exceptions=True
        )
        await model.close()
    assert sorted(type(r).__name__ for r in results) == ["Completion", "ProviderError"]


def test_a_price_nobody_knows_is_unknown_and_never_zero():
    unknown = Pricer("openai", "made-up-model")
    assert not unknown.known
    assert unknown.cost(_usage(), None, 0).source == "unknown" and unknown.cost(_usage(), None, 0).usd is None
    fixed = Pricer("openai", "made-up-model", per_million=(Decimal("0.5"), Decimal(2)))
    assert fixed.cost(_usage(), None, 0).usd == Decimal("0.005") and fixed.cost(_usage(), None, 0).source == "config"
    assert Pricer("", "x", local=True).cost(_usage(), None, 0).usd == 0


def _usage():
    from llm_maker.llm.budget import Usage

    return Usage(input=6000, output=1000)


def test_choose():
    key = "k-secret"
    assert choose("openai", {"OPENAI_API_KEY": key}).spec is PROVIDERS["openai"]
    missing = choose("xai", {"XAI_API_KEY": " "})
    assert (missing.status, missing.spec) == ("missing_key", None)
    assert missing.text.startswith("Missing API key: XAI_API_KEY not set")
    assert choose("openai_compatible", {}).status == "chosen"
    assert choose("gemini", {"GEMINI_API_KEY": key}).status == "not_implemented"
    assert "openrouter" in choose("gpt", {}).text and choose("gpt", {}).status == "unknown_name"
    auto = choose("auto", {"XAI_API_KEY": key, "DEEPSEEK_API_KEY": key, "GEMINI_API_KEY": key})
    assert auto.spec is PROVIDERS["deepseek"]
    assert "GEMINI_API_KEY is set, but gemini is not available yet" in auto.text and key not in auto.text
    none = choose("auto", {"GEMINI_API_KEY": key})
    assert (none.status, none.spec) == ("none_set", None) and "GEMINI_API_KEY is set" in none.text
    assert choose("auto", {}).status == "none_set"
    assert next(iter(PROVIDERS)) == "gemini"


def test_redaction_takes_masked_and_foreign_keys_too():
    text = redact("bad key sk-abcd***wxyz, Bearer abc.def, mykey, AIzaSyA1234567890", "mykey")
    assert "wxyz" not in text and "abc.def" not in text and "mykey" not in text and "AIza" not in text
    assert redact("risk-adjusted key-driver", "") == "risk-adjusted key-driver"


def test_importing_the_slow_loop_imports_no_sdk():
    code = (
        "import sys, llm_maker.llm.analyst, llm_maker.llm.simulated, llm_maker.llm.providers, llm_maker.llm.budget\n"
        "import llm_maker.llm.apis.chat\n"
        "sys.exit(','.join(m for m in ('openai', 'httpx2', 'genai_prices', 'aiohttp') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_fake_server_runs_by_hand():
    assert parse_script("500*3, ok") == ["500", "500", "500", "ok"]
    command = [sys.executable, "-m", "tests.fakes.model_server", "--script", "401"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            with pytest.raises(ProviderError, match="auth"):
                asyncio.run(ask(client(url)))
        finally:
            process.terminate()
