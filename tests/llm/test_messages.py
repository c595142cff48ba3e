"""Anthropic's messages through the real SDK over loopback: what is sent, each failure's kind, usage, searches, no key anywhere."""

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

from llm_maker.llm.apis.messages import Messages
from llm_maker.llm.budget import Pricer
from llm_maker.llm.providers import PROVIDERS, ProviderError
from tests.fakes.models import THROWAWAY_KEY, ModelServer, refused
from tests.llm.pages import Page, Pages

ROOT = Path(__file__).parents[2]
SPEC = PROVIDERS["anthropic"]
SCHEMA = {
    "type": "object",
    "properties": {"signals": {"type": "array", "items": {"type": "string"}}},
    "required": ["signals"],
    "additionalProperties": False,
}
OK = {"content": [{"type": "text", "text": "{}"}], "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}


def error_page(message, status=400, *, type_="invalid_request_error", **headers):
    body = {"type": "error", "error": {"type": type_, "message": message}, "request_id": "r"}
    return Page(body, status, {k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch):
    """Reading the system's certificates is most of what making a client costs, and loopback speaks no TLS."""
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *args, **kwargs: None)
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", lambda *args, **kwargs: None)


def client(root, *, spec=SPEC, key=THROWAWAY_KEY, **kwargs):
    kwargs.setdefault("pricer", Pricer("", spec.model, per_million=(Decimal(1), Decimal(5))))
    return Messages(spec, api_key=key, base_url=root, **kwargs)


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
        done = await ask(server.watch(client(server.root, extra={"metadata": {"user_id": "u"}})))
    assert server.violations == []
    (seen,) = server.seen
    assert seen.body == {
        "model": SPEC.model,
        "max_tokens": 4000,
        "system": [{"type": "text", "text": "system, JSON", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "[M1]\nuser"}],
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        "metadata": {"user_id": "u"},
    }
    assert seen.headers["anthropic-version"] == "2026-10-21"
    assert json.loads(done.text)["signals"]
    assert (done.finish, done.model, done.schema_mode, done.price_source) == ("stop", SPEC.model, "json_schema", "config")
    assert done.cost_usd == (done.usage.input + done.usage.output * 5) / Decimal(1_000_000)


FAILURES = [
    ("400", "bad_request"), ("400_hold", "billing"), ("key_400", "auth"), ("401", "auth"), ("401_text", "auth"), ("402", "billing"),
    ("403", "auth"), ("404", "bad_request"), ("408", "timeout"), ("413", "bad_request"), ("422", "bad_request"),
    ("429", "rate_limit"), ("429_date", "rate_limit"), ("429_quota", "billing"), ("500", "overload"), ("502", "overload"),
    ("503", "overload"), ("504", "overload"), ("529", "overload"), ("307", "bad_request"), ("hang", "timeout"), ("drip", "timeout"),
    ("reset", "connection"), ("no_reply", "connection"), ("huge", "malformed"), ("empty_body", "malformed"), ("html", "malformed"),
    ("not_completion", "malformed"), ("wrong_object", "malformed"), ("list_body", "malformed"), ("null_body", "malformed"),
    ("bad_utf8", "malformed"), ("error_200", "malformed"),
]  # fmt: skip


@pytest.mark.parametrize(("step", "kind"), FAILURES)
async def test_each_failure_has_its_kind(step, kind):
    async with ModelServer([step], hang_s=20.0) as server:
        error = await fails(server.watch(client(server.root)), 0.4 if step in ("hang", "drip") else 5.0)
    assert server.violations == [], "one request per call: nobody retries behind our back"
    assert (error.kind, len(server.seen)) == (kind, 1), error
    cut = step in ("hang", "drip", "reset", "no_reply", "huge")
    assert error.maybe_billed == (cut or kind == "malformed")
    waits = step in ("429", "429_quota", "503")
    assert error.retry_after_s == (7.0 if waits else pytest.approx(7, abs=2.5) if step == "429_date" else None)
    assert error.detail and len(error.detail) <= 300
    assert THROWAWAY_KEY not in f"{error} {error.detail} {error!r}"
    assert error.__cause__ is None
    chained = None if error.__suppress_context__ else error.__context__
    assert not type(chained).__module__.startswith(("anthropic", "httpx2")), "an SDK's error carries the request into a log"


async def test_a_refused_port_is_a_connection_that_nobody_bills():
    with refused() as nobody:
        error = await fails(client(nobody.root), 2.0)
    assert (error.kind, error.maybe_billed) == ("connection", False)


@pytest.mark.parametrize(
    ("message", "status", "kind"),
    [
        ("Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing.", 400, "billing"),
        ("You have reached your specified API usage limits. You will regain access on 2026-12-01.", 400, "billing"),
        ("messages: at least one message is required", 400, "bad_request"),
        ("This request would exceed your organization's rate limit of 5 requests per minute", 429, "rate_limit"),
    ],
)
async def test_a_400_for_money_is_told_by_its_words(message, status, kind):
    async with Pages([error_page(message, status)]) as server:
        assert (await fails(client(server.root))).kind == kind


@pytest.mark.parametrize(
    ("step", "finish"),
    [
        ("refusal", "refusal"), ("truncated", "length"), ("truncated_empty", "length"), ("context_window", "length"),
        ("failed", "length"), ("garbage", "stop"), ("empty_text", "stop"), ("thinking", "stop"), ("split", "stop"),
        ("deep", "stop"),
    ],
)  # fmt: skip
async def test_how_an_answer_ends(step, finish):
    async with ModelServer([step]) as server:
        done = await ask(client(server.root))
    assert done.finish == finish
    assert done.usage.output >= 64 and done.cost_usd > 0, "usage is kept whatever became of the text"
    assert "aloud" not in done.text, "thoughts are not the answer"
    if step in ("split", "thinking"):
        assert json.loads(done.text)["signals"]


async def test_usage_adds_up_what_the_cache_read_and_wrote():
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 2000,
        "cache_creation_input_tokens": 300,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
    }
    async with Pages([Page(OK | {"usage": usage})]) as server:
        done = await ask(client(server.root, pricer=Pricer("anthropic", "claude-haiku-4-5")))
    assert msgspec.structs.asdict(done.usage) == {
        "input": 2400, "cached": 2000, "cache_write": 300, "output": 50, "reasoning": 20, "searches": 0,
    }  # fmt: skip
    # 100 at 1, 2,000 at 0.1, 300 at 1.25, 50 at 5 USD per million.
    assert done.cost_usd == Decimal("0.000925") and done.price_source == "table"


@pytest.mark.parametrize("usage", [None, "much", {"input_tokens": "3"}, {"input_tokens": -5}, {}])
async def test_a_usage_that_says_nothing_takes_no_answer_with_it_and_is_never_free(usage):
    async with Pages([Page(OK | {"usage": usage})]) as server:
        done = await ask(client(server.root))
    assert (done.text, done.cost_usd, done.price_source) == ("{}", None, "unknown")


async def test_a_malformed_answer_keeps_the_usage_it_told():
    async with Pages([Page({"content": "not a list", "usage": {"input_tokens": 10, "output_tokens": 5}})]) as server:
        error = await fails(client(server.root))
    assert (error.kind, error.usage.input, error.usage.output, error.maybe_billed) == ("malformed", 10, 5, True)


async def test_a_search_cites_counts_and_costs():
    async with ModelServer(["ok", "no_search"], searches=2) as server:
        model = client(server.root)
        found = await model.search("system", "user", 5.0)
        none = await ask(model, search=True)
    assert server.violations == []
    assert server.seen[0].body["tools"] == [
        {"type": "web_search_20260318", "name": "web_search", "max_uses": 2, "allowed_callers": ["direct"]}
    ]
    assert server.seen[0].body["output_config"] == {"effort": "low"}, "no schema beside citations"
    assert "42" in found.text and json.loads(found.text), "pieces joined as they stand"
    assert [c.url for c in found.citations] == ["https://news.example/one", "https://news.example/two"]
    assert (found.searches, found.finish, none.searches, none.citations) == (2, "stop", 0, ())
    tokens = (found.usage.input + found.usage.output * 5) / Decimal(1_000_000)
    assert found.cost_usd == tokens + 2 * SPEC.search_usd


async def test_citations_are_harmless_and_bounded():
    def cited(url, title=None):
        return {"type": "web_search_result_location", "url": url, "title": title, "cited_text": "", "encrypted_index": ""}

    bad = [
        cited("javascript:alert(1)"),
        cited("https://x.example/" + "a" * 3000),
        cited(None),
        cited(f"https://x.example/{THROWAWAY_KEY}"),
    ]
    many = [cited(f"https://n.example/{i}", "ti\x1b[31mtle\n") for i in range(60)]
    page = OK | {"content": [{"type": "text", "text": f"said {THROWAWAY_KEY}", "citations": bad + many}]}
    async with Pages([Page(page)]) as server:
        found = await ask(client(server.root), search=True)
    assert found.text == "said ***"
    assert [c.url for c in found.citations[:2]] == ["https://x.example/***", "https://n.example/0"]
    assert len(found.citations) == 40 and found.citations[1].title == "ti [31mtle"


async def test_who_cannot_search_says_so():
    async with ModelServer() as server:
        error = await fails(client(server.root, spec=msgspec.structs.replace(SPEC, search_tools=())), search=True)
    assert (error.kind, server.seen) == ("bad_request", [])


@pytest.mark.parametrize(
    ("messages", "configs"),
    [
        (["output_config.format: this model does not support structured outputs"], [{"effort": "low"}]),
        (["This model does not support the effort parameter."], [{"format": 1}]),
        (["output_config: Extra inputs are not permitted"] * 2, [{"format": 1}, None]),
    ],
)
async def test_what_a_model_will_not_take_is_left_out_said_and_remembered(messages, configs):
    heard = []
    async with Pages([*(error_page(f"{m} {THROWAWAY_KEY}") for m in messages), Page(OK)]) as server:
        model = client(server.root, on_step=heard.append)
        first = await model.complete("s", "u", SCHEMA, 5.0)
        second = await ask(model)
    sent = [body.get("output_config") for _, body, _ in server.seen]
    shapes = [config and {k: 1 if k == "format" else v for k, v in config.items()} for config in sent]
    assert shapes == [{"effort": "low", "format": 1}, *configs, configs[-1]]
    assert first.schema_mode == second.schema_mode == ("json_schema" if configs[-1] == {"format": 1} else "prompt_only")
    assert len(heard) == len(messages) and THROWAWAY_KEY not in "".join(heard)


async def test_stepping_down_ends_and_forgets_what_was_not_answered():
    async with Pages([error_page("effort and schema and output_config")]) as server:
        model = client(server.root)
        error = await fails(model)
        assert (error.kind, len(server.seen), model.schema_mode) == ("bad_request", 3, "json_schema")


async def test_extra_is_laid_over_and_what_is_ours_stays_ours():
    async with Pages([Page(OK)]) as server:
        await ask(client(server.root, extra={"output_config": {"effort": None}, "service_tier": "auto"}))
        await ask(client(server.root, extra={"output_config": {"effort": "high"}}))
        await ask(client(server.root, schema_mode="json_object"))
    bodies = [body for _, body, _ in server.seen]
    assert [set(body["output_config"]) for body in bodies] == [{"format"}, {"format", "effort"}, {"effort"}]
    assert bodies[0]["service_tier"] == "auto" and bodies[1]["output_config"]["effort"] == "high"
    for extra in ({"model": "x"}, {"stream": True}, {"metadata": {"at": float("nan")}}, {"metadata": object()}):
        with pytest.raises(ValueError, match="extra"):
            client("http://127.0.0.1:1", extra=extra)


@pytest.mark.parametrize("step", ["ok", "401", "html", "reset", "400"])
async def test_no_log_of_any_library_holds_the_key(step, caplog):
    caplog.set_level(logging.DEBUG)
    for name in ("anthropic", "google_genai", "httpx2", "httpcore2"):
        caplog.set_level(logging.DEBUG, logger=name)
    async with ModelServer([step]) as server:
        await asyncio.gather(ask(client(server.root)), return_exceptions=True)
    assert "127.0.0.1" in caplog.text and THROWAWAY_KEY not in caplog.text


async def test_the_environment_and_profiles_redirect_nothing(monkeypatch, tmp_path):
    (tmp_path / "configs").mkdir()
    async with ModelServer() as elsewhere, ModelServer() as server:
        profile = {"base_url": elsewhere.root, "authentication": {"type": "api_key", "api_key": "profile-key"}}
        (tmp_path / "configs" / "default.json").write_text(json.dumps(profile))
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "ANTHROPIC_BASE_URL"):
            monkeypatch.setenv(name, elsewhere.root)
        planted = {
            "ANTHROPIC_API_KEY": "another-key",
            "ANTHROPIC_AUTH_TOKEN": "another-token",
            "ANTHROPIC_CONFIG_DIR": str(tmp_path),
            "ANTHROPIC_PROFILE": "default",
            "ANTHROPIC_CUSTOM_HEADERS": "Authorization: Bearer another\nx-api-key: another",
        }
        for name, value in planted.items():
            monkeypatch.setenv(name, value)
        await ask(server.watch(client(server.root)))
        assert server.violations == []
        await ask(client(server.root, key=""))
    assert (len(elsewhere.seen), elsewhere.listed) == (0, [])
    assert server.seen[0].headers["Authorization"] == f"Bearer {THROWAWAY_KEY}"
    assert "another" not in str([dict(seen.headers) for seen in server.seen])


@pytest.mark.parametrize("key", ["sk-ant-bad\u2026key-0000", 'sk-ant-"quoted"-0000', "sk-ant-two\nlines-0000"])
async def test_a_key_that_no_header_takes_is_told_without_quoting_it(key):
    error = await fails(client("http://127.0.0.1:1", key=key))
    assert error.kind in ("auth", "connection") and key not in error.detail and "lines-0000" not in error.detail


async def test_half_a_character_in_a_prompt_is_our_fault():
    async with ModelServer() as server:
        model = client(server.root)
        with pytest.raises(ProviderError, match="bad_request"):
            await model.complete("s", "half \ud83d", SCHEMA, 5.0)
        await model.close()


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
        "import sys, llm_maker.llm.apis.messages\n"
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
        print(f"\nanthropic: RSS moved by {grown:+.2f} MB over 1,000 calls")
    assert grown < 5
