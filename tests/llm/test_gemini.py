"""Gemini's generateContent through the real SDK over loopback: what is sent, each failure's kind, usage, searches, no key told."""

import asyncio
import json
import logging
import ssl
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import msgspec
import psutil
import pytest

from llm_maker.llm.apis.gemini import Gemini
from llm_maker.llm.budget import Pricer
from llm_maker.llm.providers import PROVIDERS, ProviderError
from tests.fakes.models import THROWAWAY_KEY, ModelServer, refused
from tests.llm.pages import Page, Pages

ROOT = Path(__file__).parents[2]
SPEC = PROVIDERS["gemini"]
SCHEMA = {
    "type": "object",
    "properties": {
        "signals": {"type": "array", "items": {"type": "string"}},
        "p_yes": {"anyOf": [{"type": "number"}, {"type": "null"}]},
    },
    "required": ["signals", "p_yes"],
    "additionalProperties": False,
}
OK = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "{}"}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}
GOOGLE = "type.googleapis.com/google.rpc."


def error_page(message, status=400, *, name="INVALID_ARGUMENT", details=(), **headers):
    body = {"error": {"code": status, "message": message, "status": name, "details": list(details)}}
    return Page(body, status, {k.replace("_", "-"): v for k, v in headers.items()})


def spent(message, **kwargs):
    return error_page(message, 429, name="RESOURCE_EXHAUSTED", **kwargs)


def quota(*violations, delay="20.5s"):
    failure = {"@type": f"{GOOGLE}QuotaFailure", "violations": [{"quotaId": i, "quotaValue": v} for i, v in violations]}
    return failure, {"@type": f"{GOOGLE}RetryInfo", "retryDelay": delay}, {"@type": f"{GOOGLE}Help", "links": [{"url": "x"}]}


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch):
    """Reading the system's certificates is most of what making a client costs, and loopback speaks no TLS."""
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *args, **kwargs: None)
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", lambda *args, **kwargs: None)


def client(root, *, spec=SPEC, key=THROWAWAY_KEY, **kwargs):
    kwargs.setdefault("pricer", Pricer("", spec.model, per_million=(Decimal(1), Decimal(5))))
    return Gemini(spec, api_key=key, base_url=root, **kwargs)


async def ask(model, deadline_s=5.0, *, search=False):
    try:
        if search:
            return await model.search("system, JSON", "[M1]\nuser", deadline_s)
        return await model.complete("system, JSON", "[M1]\nuser", SCHEMA, deadline_s)
    finally:
        await model.close()


async def fails(model, deadline_s=5.0, **kwargs):
    with pytest.raises(ProviderError) as caught:
        await asyncio.wait_for(ask(model, deadline_s, **kwargs), 8.0)
    return caught.value


async def test_one_good_answer_and_what_was_sent():
    async with ModelServer() as server:
        done = await ask(server.watch(client(server.root, extra={"safetySettings": [], "generationConfig": {"seed": 7}})))
    assert server.violations == []
    (seen,) = server.seen
    assert seen.path == f"/v1beta/models/{SPEC.model}:generateContent"
    assert seen.body == {
        "contents": [{"role": "user", "parts": [{"text": "[M1]\nuser"}]}],
        "systemInstruction": {"role": "user", "parts": [{"text": "system, JSON"}]},
        "generationConfig": {
            "maxOutputTokens": 4000,
            "responseMimeType": "application/json",
            "responseJsonSchema": SCHEMA,
            "thinkingConfig": {"thinkingLevel": "LOW"},
            "seed": 7,
        },
        "safetySettings": [],
    }
    assert seen.headers["x-server-timeout"] == "5"
    assert "authorization" not in seen.headers
    assert json.loads(done.text)["signals"] is not None
    assert (done.finish, done.model, done.schema_mode, done.price_source) == ("stop", SPEC.model, "json_schema", "config")
    assert done.cost_usd == (done.usage.input + done.usage.output * 5) / Decimal(1_000_000)


FAILURES = [
    ("400", "bad_request"), ("key_400", "auth"), ("401", "auth"), ("401_text", "auth"), ("402", "billing"), ("403", "auth"),
    ("404", "bad_request"), ("408", "timeout"), ("413", "bad_request"), ("422", "bad_request"), ("429", "rate_limit"),
    ("429_body", "rate_limit"), ("429_date", "rate_limit"), ("429_minute", "rate_limit"), ("429_quota", "billing"),
    ("500", "overload"), ("502", "overload"), ("503", "overload"), ("504", "overload"), ("529", "overload"),
    ("307", "bad_request"), ("hang", "timeout"), ("drip", "timeout"), ("reset", "connection"), ("no_reply", "connection"),
    ("huge", "malformed"), ("malformed_response", "malformed"), ("failed", "malformed"), ("no_choices", "malformed"),
    ("empty_body", "malformed"), ("html", "malformed"), ("not_completion", "malformed"), ("wrong_object", "malformed"),
    ("list_body", "malformed"), ("null_body", "malformed"), ("bad_utf8", "malformed"), ("error_200", "malformed"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "kind"), FAILURES)
async def test_each_failure_has_its_kind(step, kind):
    async with ModelServer([step], hang_s=20.0) as server:
        error = await fails(server.watch(client(server.root)), 0.4 if step in ("hang", "drip") else 5.0)
    assert server.violations == [], "one request per call: nobody retries behind our back"
    assert (error.kind, len(server.seen)) == (kind, 1), error
    cut = step in ("hang", "drip", "reset", "no_reply", "huge")
    assert error.maybe_billed == (cut or kind == "malformed")
    waits = step in ("429", "429_body", "429_minute", "429_quota", "503")
    assert error.retry_after_s == (7.0 if waits else pytest.approx(7, abs=2.5) if step == "429_date" else None)
    assert (error.usage is not None) == (step in ("malformed_response", "failed", "no_choices")), "what was told is kept"
    assert error.detail and len(error.detail) <= 300
    assert THROWAWAY_KEY not in f"{error} {error.detail} {error!r}"
    assert error.__cause__ is None
    chained = None if error.__suppress_context__ else error.__context__
    assert not type(chained).__module__.startswith(("google", "httpx2")), "an SDK's error carries the request into a log"


async def test_a_refused_port_is_a_connection_that_nobody_bills():
    with refused() as nobody:
        error = await fails(client(nobody.root), 2.0)
    assert (error.kind, error.maybe_billed) == ("connection", False)


async def test_connecting_has_a_part_of_the_deadline_only():
    asked = []
    async with ModelServer() as server:
        model = client(server.root)
        model._http.event_hooks = {"request": [*model._http.event_hooks["request"], _keep(asked)]}
        await ask(model, 3.0)
    assert asked[0]["connect"] == pytest.approx(1.0) and asked[0]["read"] == pytest.approx(3.0)


def _keep(asked):
    async def hook(request):
        asked.append(request.extensions["timeout"])

    return hook


PER_MINUTE, PER_DAY = "GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "GenerateRequestsPerDayPerProjectPerModel-FreeTier"


@pytest.mark.parametrize(
    ("page", "kind", "wait"),
    [
        (spent("quota", details=quota((PER_MINUTE, "15"))), "rate_limit", 20.5),
        (spent("quota", details=quota((PER_MINUTE, "15")), retry_after="3"), "rate_limit", 3.0),
        (spent("quota", details=quota((PER_MINUTE, "15"), (PER_DAY, "50"))), "billing", 20.5),
        (spent("quota", details=quota((PER_MINUTE, "0"), delay="soon")), "billing", None),
        (spent("Quota exceeded for metric: x, limit: 0, model: y. Please retry in 20.0s."), "billing", None),
        (spent("Quota exceeded for metric: x, limit: 05, check your plan and billing details"), "rate_limit", None),
        (spent("Your prepayment credits are depleted."), "billing", None),
        (spent("Your billing account has exceeded its monthly spending cap"), "billing", None),
        (spent("Resource has been exhausted (e.g. check quota)."), "rate_limit", None),
        (spent("No capacity", details=[{"reason": "MODEL_CAPACITY_EXHAUSTED"}, "odd", {"violations": 3}]), "rate_limit", None),
        (error_page("Please enable billing on your project", name="FAILED_PRECONDITION"), "billing", None),
        (error_page("x", details=[{"@type": f"{GOOGLE}ErrorInfo", "reason": "API_KEY_INVALID"}]), "auth", None),
        (error_page("API key expired. Please renew the API key."), "auth", None),
        (error_page("The model is overloaded.", 503, name="UNAVAILABLE", details=quota(delay="2s")), "overload", 2.0),
        (Page('{"error": "a text"}', 503), "overload", None),
        (Page("[]", 500), "overload", None),
        (Page("[" * 30_000, 500), "overload", None),
        (Page("Schl\u00fcssel".encode("latin-1"), 503, {"retry-after": "4"}), "overload", 4.0),
    ],
)  # fmt: skip
async def test_googles_details_decide(page, kind, wait):
    async with Pages([page]) as server:
        error = await fails(client(server.root))
    assert (error.kind, error.retry_after_s, len(server.seen)) == (kind, wait, 1), error


REFUSALS = ("SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII", "RECITATION")


@pytest.mark.parametrize(
    ("step", "finish"),
    [
        *((f"refusal={reason}", "refusal") for reason in REFUSALS), ("filtered=SAFETY", "refusal"), ("filtered", "refusal"),
        ("truncated", "length"), ("truncated_empty", "length"), ("garbage", "stop"), ("empty_text", "stop"), ("thinking", "stop"),
        ("split", "stop"), ("deep", "stop"),
    ],
)  # fmt: skip
async def test_how_an_answer_ends(step, finish):
    async with ModelServer([step]) as server:
        done = await ask(client(server.root))
    assert done.finish == finish
    assert done.usage.output >= 64 and done.cost_usd > 0, "usage is kept whatever became of the text"
    assert "aloud" not in done.text, "thoughts are not the answer"
    if step in ("split", "thinking"):
        assert "signals" in json.loads(done.text)


async def test_no_second_call_behind_our_back():
    """The SDK by itself would go on where the model stopped for a while, and bill a call that nobody counts."""
    going_on = {"content": {"parts": [{"text": '{"half'}]}, "finishReason": "CONTINUATION", "continuationToken": "bW9yZQ=="}
    async with Pages([Page(OK | {"candidates": [going_on]}), Page(OK)]) as server:
        done = await ask(client(server.root))
    assert (done.finish, done.text, len(server.seen)) == ("length", '{"half', 1)


async def test_usage_adds_the_thoughts_and_what_a_tool_brought():
    usage = {
        "promptTokenCount": 3000,
        "toolUsePromptTokenCount": 500,
        "cachedContentTokenCount": 2000,
        "candidatesTokenCount": 100,
        "thoughtsTokenCount": 40,
    }
    async with Pages([Page(OK | {"usageMetadata": usage})]) as server:
        done = await ask(client(server.root, pricer=Pricer("google", SPEC.model)))
    assert msgspec.structs.asdict(done.usage) == {
        "input": 3500, "cached": 2000, "cache_write": 0, "output": 140, "reasoning": 40, "searches": 0,
    }  # fmt: skip
    # 1,500 at 0.25, 2,000 at 0.025, 140 at 1.5 USD per million.
    assert done.cost_usd == Decimal("0.000635") and done.price_source == "table"


@pytest.mark.parametrize("usage", [None, "much", {"promptTokenCount": "3"}, {"promptTokenCount": -5}, {}])
async def test_a_usage_that_says_nothing_takes_no_answer_with_it_and_is_never_free(usage):
    async with Pages([Page(OK | {"usageMetadata": usage})]) as server:
        done = await ask(client(server.root))
    assert (done.text, done.cost_usd, done.price_source) == ("{}", None, "unknown")


async def test_a_search_cites_counts_and_costs():
    async with ModelServer(["ok", "no_usage", "no_search"], searches=3) as server:
        model = client(server.root)
        found = await model.search("system", "user", 5.0)
        untold = await model.search("system", "user", 5.0)
        none = await ask(model, search=True)
    assert server.violations == []
    assert server.seen[0].body["tools"] == [{"googleSearch": {}}]
    assert "responseMimeType" not in server.seen[0].body["generationConfig"]
    assert "42" in found.text and json.loads(found.text)
    assert [c.url for c in found.citations] == ["https://news.example/one", "https://news.example/two"]
    assert (found.searches, found.finish, none.searches, none.citations) == (3, "stop", 0, ())
    assert (untold.searches, untold.cost_usd, untold.price_source) == (3, None, "unknown")
    tokens = (found.usage.input + found.usage.output * 5) / Decimal(1_000_000)
    assert found.cost_usd == tokens + 3 * SPEC.search_usd


async def test_who_cannot_search_says_so():
    async with ModelServer() as server:
        error = await fails(client(server.root, spec=msgspec.structs.replace(SPEC, search_tools=())), search=True)
    assert (error.kind, server.seen) == ("bad_request", [])


THINKING = "Thinking level is not supported for this model."


@pytest.mark.parametrize(
    ("messages", "sent", "mode"),
    [
        ([THINKING], [(1, 1, 1), (0, 1, 1), (0, 1, 1)], "json_schema"),
        (["The specified schema has too many states"], [(1, 1, 1), (1, 1, 0), (1, 1, 0)], "json_object"),
        (
            ["Unknown name responseJsonSchema", "JSON mode is not enabled"],
            [(1, 1, 1), (1, 1, 0), (1, 0, 0), (1, 0, 0)],
            "prompt_only",
        ),
        ([THINKING, "schema", "schema"], [(1, 1, 1), (0, 1, 1), (0, 1, 0), (0, 0, 0), (0, 0, 0)], "prompt_only"),
    ],
)
async def test_what_a_model_will_not_take_is_left_out_said_and_remembered(messages, sent, mode):
    heard = []
    async with Pages([*(error_page(f"{m} {THROWAWAY_KEY}") for m in messages), Page(OK)]) as server:
        model = client(server.root, on_step=heard.append)
        first = await model.complete("s", "u", SCHEMA, 5.0)
        second = await ask(model)
    fields = ("thinkingConfig", "responseMimeType", "responseJsonSchema")
    assert [tuple(int(f in body["generationConfig"]) for f in fields) for _, body, _ in server.seen] == sent
    assert first.schema_mode == second.schema_mode == mode
    assert len(heard) == len(messages) and THROWAWAY_KEY not in "".join(heard)


async def test_stepping_down_ends_and_forgets_what_was_not_answered():
    async with Pages([error_page("thinking and schema")]) as server:
        model = client(server.root)
        error = await fails(model)
    assert (error.kind, len(server.seen), model.schema_mode) == ("bad_request", 4, "json_schema")


async def test_a_search_steps_down_from_the_thinking_only():
    async with Pages([error_page(THINKING), Page(OK), error_page("schema")]) as server:
        model = client(server.root)
        await model.search("s", "u", 5.0)
        error = await fails(model, search=True)
    assert (error.kind, len(server.seen), model.schema_mode) == ("bad_request", 3, "json_schema")
    assert "thinkingConfig" not in server.seen[2][1].get("generationConfig", {})


async def test_extra_is_laid_over_and_what_is_ours_stays_ours():
    extra = {"generationConfig": {"thinkingConfig": {"thinkingLevel": None, "thinkingBudget": 0}}}
    async with Pages([Page(OK)]) as server:
        model = client(server.root, extra=extra)
        await model.complete("s", "u", SCHEMA, 5.0)
        await ask(model)
    assert [body["generationConfig"]["thinkingConfig"] for _, body, _ in server.seen] == [{"thinkingBudget": 0}] * 2
    assert extra["generationConfig"]["thinkingConfig"] == {"thinkingLevel": None, "thinkingBudget": 0}
    for bad in ({"contents": []}, {"tools": []}, {"labels": {"at": float("inf")}}):
        with pytest.raises(ValueError, match="extra"):
            client("http://127.0.0.1:1", extra=bad)


@pytest.mark.parametrize("step", ["ok", "401", "html", "reset", "400"])
async def test_no_log_of_any_library_holds_the_key(step, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("anthropic", "google_genai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    async with ModelServer([step]) as server:
        await asyncio.gather(ask(client(server.root)), return_exceptions=True)
    assert "127.0.0.1" in caplog.text and THROWAWAY_KEY not in caplog.text


async def test_the_environment_redirects_and_records_nothing(monkeypatch, tmp_path):
    async with ModelServer() as elsewhere, ModelServer() as server:
        addresses = "HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy GOOGLE_GEMINI_BASE_URL GOOGLE_VERTEX_BASE_URL"
        for name in addresses.split():
            monkeypatch.setenv(name, elsewhere.root)
        planted = {
            "GOOGLE_API_KEY": "another-key", "GEMINI_API_KEY": "another-key", "GOOGLE_GENAI_USE_VERTEXAI": "true",
            "GOOGLE_GENAI_USE_ENTERPRISE": "true", "GOOGLE_CLOUD_PROJECT": "another-project", "GOOGLE_CLOUD_LOCATION": "mars",
            "GOOGLE_GENAI_API_VERSION": "v9", "GOOGLE_GENAI_HTTP_CLIENT": "httpx", "GOOGLE_API_USE_MTLS_ENDPOINT": "always",
            "GOOGLE_GENAI_CLIENT_MODE": "record", "GOOGLE_GENAI_REPLAYS_DIRECTORY": str(tmp_path), "GOOGLE_GENAI_REPLAY_ID": "a/b",
        }  # fmt: skip
        for name, value in planted.items():
            monkeypatch.setenv(name, value)
        await ask(server.watch(client(server.root)))
        assert server.violations == []
        await ask(client(server.root, key=""))
    assert (len(elsewhere.seen), elsewhere.listed, list(tmp_path.iterdir())) == (0, [], [])
    assert server.seen[0].path.startswith("/v1beta/models/")
    assert server.seen[0].headers["x-goog-api-key"] == THROWAWAY_KEY
    assert "another" not in str([dict(seen.headers) for seen in server.seen])


@pytest.mark.parametrize("key", ["AIza-bad\u2026key-0000", "AIza-two\nlines-0000"])
async def test_a_key_that_no_header_takes_is_told_without_quoting_it(key):
    error = await fails(client("http://127.0.0.1:1", key=key))
    assert error.kind == "auth" and key not in error.detail and "lines-0000" not in error.detail


async def test_two_calls_at_once_and_a_cancelled_one_leave_the_client_whole():
    async with ModelServer(["ok", "500", "hang", "ok"]) as server:
        model = client(server.root)
        results = await asyncio.gather(*(model.complete("s", "[M1]", SCHEMA, 5.0) for _ in range(2)), return_exceptions=True)
        cancelled = asyncio.create_task(model.complete("s", "[M1]", SCHEMA, 20.0))
        while len(server.seen) < 3:
            await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        await ask(model)
        assert cancelled.cancelled() and model._http.is_closed
    assert sorted(type(r).__name__ for r in results) == ["Completion", "ProviderError"]


def test_importing_loads_no_sdk():
    code = (
        "import sys, llm_maker.llm.apis.gemini\n"
        "sys.exit(','.join(m for m in ('anthropic', 'openai', 'google.genai', 'httpx2', 'aiohttp') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.prove
async def test_a_thousand_calls_leave_the_memory_where_it_was(capsys):
    server_steps = ["ok", "500", "garbage", "429", "refusal"]
    async with ModelServer(keep=1, fault=lambda seen: server_steps[server.requests % 5]) as server:
        model, process = client(server.root), psutil.Process()

        async def run(calls):
            for _ in range(calls):
                await asyncio.gather(model.complete("s", "[M1]", SCHEMA, 5.0), return_exceptions=True)

        await run(200)
        before = process.memory_info().rss
        await run(1000)
        grown = (process.memory_info().rss - before) / 1e6
        await model.close()
    with capsys.disabled():
        print(f"\ngemini: RSS moved by {grown:+.2f} MB over 1,000 calls")
    assert grown < 5
