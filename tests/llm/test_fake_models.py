"""The fake model server's own rules: what it objects to, how it breaks a line, who drives it, and that one attempt is one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.fakes.models import STEPS, THROWAWAY_KEY, ModelServer, Step, parse_script, refused, signal
from tests.fakes.models.faults import BODIES, ENDED, ERRORS, LINE, SHAPED
from tests.fakes.models.sdks import SCHEMA, USER, Sdk
from tests.fakes.models.texts import SPOKEN

ROOT = Path(__file__).parents[2]
WIRES = ("responses", "chat", "messages", "gemini")


@pytest.fixture
async def http():
    async with httpx2.AsyncClient(trust_env=False, timeout=5.0, verify=False) as client:
        yield client


async def test_what_a_vendor_refuses_by_itself(http):
    from anthropic import BadRequestError as AnthropicBadRequest
    from openai import APIStatusError, BadRequestError, NotFoundError

    async with ModelServer(models=["m"], refuses={"json_schema"}) as server:
        openai, anthropic = Sdk("chat", server.url, http), Sdk("messages", server.anthropic_url, http)
        with pytest.raises(BadRequestError, match="response_format"):
            await openai.ask()
        with pytest.raises(NotFoundError):
            await openai.ask(model="gone")
        with pytest.raises(APIStatusError) as gone:
            await openai.ask(schema=None, extra_body={"search_parameters": {"mode": "on"}})
        assert gone.value.status_code == 410
        with pytest.raises(BadRequestError):
            await openai.ask(schema=None, user="x" * 9, response_format={"type": "json_object"}, extra_body={"messages": [
                {"role": "system", "content": "s"}, {"role": "user", "content": "u"}]})  # fmt: skip
        server.refuses = set()
        tool = {"type": "web_search_20260318", "name": "web_search"}
        with pytest.raises(AnthropicBadRequest):
            await anthropic.ask(tools=[tool])
        with pytest.raises(AnthropicBadRequest):
            await anthropic.ask(extra_body={"temperature": 1.0})
    said = " ".join(server.violations)
    assert "search_parameters is sent" in said and "without the word JSON" in said and "temperature is sent" in said


@pytest.mark.parametrize("wire", WIRES)
async def test_violations_are_found(wire, http):
    body_of = {
        "responses": {"model": "m", "input": "u"},
        "chat": {"model": "m", "messages": [{"role": "user", "content": "u"}]},
        "messages": {"model": "m", "messages": [{"role": "user", "content": "u"}]},
        "gemini": {"contents": [{"role": "user", "parts": [{"text": "u"}]}]},
    }
    path = {"responses": "/v1/responses", "chat": "/v1/chat/completions", "messages": "/v1/messages"}
    async with ModelServer(secrets=["0xwalletkey"]) as server:
        url = server.root + path.get(wire, "/v1beta/models/m:generateContent")
        await http.post(url, json=body_of[wire] | {"x": "0xwalletkey"})
        bare = set(server.violations)
        await http.post(url, content=b"[]")
        await http.post(server.root + "/elsewhere", json={})
    said = " ".join(bare)
    assert "no key in" in said and "another key" in said and "a secret stands in the body" in said
    assert "no limit of the answer" in said and "no system prompt" in said
    assert ("x-stainless-retry-count" in said) == (wire != "gemini")
    assert ("anthropic-version" in said) == (wire == "messages") and ("store is not false" in said) == (wire == "responses")
    assert any("no JSON object" in each for each in server.violations)
    assert any("no such path" in each for each in server.violations)


def _open(schema):
    return json.loads(json.dumps(schema).replace(', "additionalProperties": false', ""))


@pytest.mark.parametrize(
    ("schema", "finding"),
    [
        (_open(SCHEMA), "not closed"),
        (SCHEMA | {"required": []}, "does not require"),
        (json.loads(json.dumps(SCHEMA).replace('"number"', '"number", "minimum": 0')), "says minimum"),
    ],
)
async def test_a_schema_outside_the_common_subset_is_a_violation(schema, finding, http):
    async with ModelServer() as server:
        for wire in WIRES:
            await Sdk(wire, server.base_url(wire), http).ask(schema=schema)
    assert len([each for each in server.violations if finding in each]) >= 4, server.violations


@pytest.mark.parametrize("wire", WIRES)
async def test_an_sdk_that_retries_by_itself_is_caught(wire, http):
    async with ModelServer(["503=0.01", "ok"]) as server:
        sdk = Sdk(wire, server.base_url(wire), http, retries=1)
        with server.attempt():
            await sdk.ask()
    assert server.requests == 2
    assert any("more requests than attempts" in each for each in server.violations)
    assert any("retry-count is '1'" in each for each in server.violations) == (wire != "gemini")


async def test_watching_a_model_counts_its_attempts_and_allows_asking_with_less(http):
    class Model:
        provider = "fake"

        async def complete(self, times):
            for _ in range(times):
                await asyncio.gather(sdk.ask(), return_exceptions=True)

    async with ModelServer(["schema_400", "object_400"]) as server:
        sdk, model = Sdk("chat", server.url, http), server.watch(Model())
        await model.complete(3)
        assert server.violations == [] and model.provider == "fake"
        await asyncio.gather(model.complete(1), model.complete(1))
        assert server.violations == []
        await model.complete(2)
    assert len(server.violations) == 1


@pytest.mark.parametrize("wire", ["chat", "gemini"])
async def test_a_line_that_fails_is_no_status(wire, http):
    kinds = {}
    async with ModelServer(["hang", "drip", "reset", "no_reply", "huge"], hang_s=20.0) as server:
        sdk = Sdk(wire, server.base_url(wire), http)
        for step in ("hang", "drip", "reset", "no_reply", "huge"):
            try:
                async with asyncio.timeout(0.15 if step in ("hang", "drip") else 5.0):
                    await sdk.ask()
            except Exception as error:
                kinds[step] = type(error).__name__
    with refused() as nobody, pytest.raises((Exception,)) as caught:
        await Sdk(wire, nobody.base_url(wire), http).ask()
    lost = ("APIConnectionError", "RemoteProtocolError", "ReadError")
    assert kinds["hang"] == kinds["drip"] == "TimeoutError"
    assert kinds["reset"] in lost and kinds["no_reply"] in lost
    assert "huge" in kinds
    assert type(caught.value).__name__ == ("ConnectError" if wire == "gemini" else "APIConnectionError")
    assert [row.told for row in server.bill] == [False] * 5, "it may be billed, and nobody was told how much"
    assert server.violations == []


async def test_a_late_answer_nobody_heard_is_not_told(http):
    async with ModelServer(["slow=0.2", "ok"]) as server:
        sdk = Sdk("chat", server.url, http)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await sdk.ask()
        await sdk.ask()
        await asyncio.sleep(0.25)
    assert [row.told for row in server.bill] == [False, True]


async def test_a_redirect_followed_is_a_violation():
    async with ModelServer(["307"]) as server, httpx2.AsyncClient(trust_env=False, follow_redirects=True, verify=False) as http:
        await Sdk("chat", server.url, http).ask()
    assert any("redirect was followed" in each for each in server.violations)


@pytest.mark.parametrize("step", [*SPOKEN, *BODIES, "no_choices", "text=exactly this"])
async def test_every_text_and_body_goes_over_every_wire(step, http):
    """Without an SDK: what arrives is what the step says, and parses as JSON where it should."""
    async with ModelServer([step] * 4) as server:
        replies = []
        for wire, path, body in _raw_requests():
            reply = await http.post(server.root + path, json=body, headers=_headers(wire))
            assert reply.status_code == 200
            replies.append(reply.content)
    if step in BODIES:
        assert replies == [BODIES[step][1]] * 4
        return
    for content in replies:
        json.loads(content)
    if step == "text=exactly this":
        assert all(b"exactly this" in content for content in replies)


def _raw_requests():
    yield "responses", "/v1/responses", {"model": "m", "instructions": "JSON", "input": USER}
    yield "chat", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": USER}]}
    yield "messages", "/v1/messages", {"model": "m", "messages": [{"role": "user", "content": USER}]}
    yield "gemini", "/v1/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": USER}]}]}


def _headers(wire):
    return {"x-goog-api-key": THROWAWAY_KEY} if wire == "gemini" else {"Authorization": f"Bearer {THROWAWAY_KEY}"}


async def test_the_deadly_texts_are_what_they_are_called(http):
    said = {}
    async with ModelServer([*SPOKEN]) as server:
        _, path, body = next(each for each in _raw_requests() if each[0] == "chat")
        for step in SPOKEN:
            reply = await http.post(server.root + path, json=body, headers=_headers("chat"))
            said[step] = reply.json()["choices"][0]["message"]["content"]
    first = {step: json.loads(said[step])["signals"][0] for step in ("seed", "exit_unsure", "huge_number", "out_of_range")}
    assert "p_yes" not in first["seed"] and "risk_level" not in first["seed"]
    assert (first["exit_unsure"]["action"], first["exit_unsure"]["confidence"]) == ("exit", 0.01)
    assert first["huge_number"]["p_yes"] == 1e308 and first["out_of_range"]["p_yes"] > 1
    assert "NaN" in said["nan"] and "Infinity" in said["infinite"] and "M999" in said["wrong_handle"]
    assert said["duplicate_keys"].count('"action"') == 4 and len(json.loads(said["thousand_signals"])["signals"]) == 1000
    assert len(json.loads(said["twice"])["signals"]) == 4 and len(said["megabytes"]) > 2_000_000
    assert "wallet key" in said["injection"] and isinstance(json.loads(said["bare_list"]), list)
    with pytest.raises(RecursionError):
        json.loads(said["deep"])


async def test_the_brain_and_the_rule_drive_a_simulation(http):
    """Answers follow the handles, faults follow a rule, and what is kept is bounded."""

    def brain(handles, seen):
        return {"signals": [signal(handle, p_yes=0.3, p_low=0.2, p_high=0.4, action="sell_yes") for handle in handles]}

    async with ModelServer(["401"], answer=brain, keep=5) as server:
        server.fault = lambda seen: Step("500") if server.requests % 3 == 0 else None
        sdk = Sdk("chat", server.url, http)
        outcomes = await asyncio.gather(*(sdk.ask() for _ in range(30)), return_exceptions=True)
    names = sorted(type(each).__name__ for each in outcomes)
    assert names == ["AuthenticationError"] + ["InternalServerError"] * 10 + ["tuple"] * 19
    text = next(each[0] for each in outcomes if isinstance(each, tuple))
    assert [each["p_yes"] for each in json.loads(text)["signals"]] == [0.3, 0.3]
    assert (len(server.seen), len(server.bill), server.requests) == (5, 5, 30)


async def test_a_brain_that_fails_is_said_and_not_taken_for_an_overload(http):
    def brain(handles, seen):
        raise KeyError("a test's own mistake")

    async with ModelServer(answer=brain) as server:
        with pytest.raises(Exception, match="500"):
            await Sdk("chat", server.url, http).ask()
    assert any("a test's own mistake" in each for each in server.violations)


async def test_the_lists_of_models_as_each_sdk_reads_them(http):
    from anthropic import NotFoundError as AnthropicNotFound
    from google.genai.errors import ClientError
    from openai import AuthenticationError, NotFoundError

    async with ModelServer(models=["m", "vendor/model"]) as server:
        openai, anthropic, google = (Sdk(wire, server.base_url(wire), http).client for wire in ("chat", "messages", "gemini"))
        assert [each.id async for each in openai.models.list()] == ["m", "vendor/model"]
        assert (await openai.models.retrieve("vendor/model")).id == "vendor/model"
        assert [each.id async for each in anthropic.models.list()] == ["m", "vendor/model"]
        assert (await anthropic.models.retrieve("m")).id == "m"
        assert (await google.aio.models.get(model="m")).name == "models/m"
        assert [each.name async for each in await google.aio.models.list()] == ["models/m", "models/vendor/model"]
        with pytest.raises(NotFoundError):
            await openai.models.retrieve("gone")
        with pytest.raises(AnthropicNotFound):
            await anthropic.models.retrieve("gone")
        with pytest.raises(ClientError, match="404"):
            await google.aio.models.get(model="gone")
    assert server.requests == 0 and len(server.listed) == 9 and server.violations == []
    async with ModelServer(["500"], get_script=["401"]) as server:
        with pytest.raises(AuthenticationError):
            await Sdk("chat", server.url, http).client.models.list()


def test_a_script_is_checked_before_it_runs():
    assert parse_script("500*3, slow=0.5*2,ok") == ["500"] * 3 + ["slow=0.5"] * 2 + ["ok"]
    with pytest.raises(ValueError, match="no such step: 'of'"):
        asyncio.run(ModelServer(["of"]).__aenter__())
    assert len(set(STEPS)) == len(STEPS) == len(SPOKEN) + len(ENDED) + len(SHAPED) + len(BODIES) + len(ERRORS) + len(LINE)


def test_it_runs_by_hand():
    import urllib.error
    import urllib.request

    command = [sys.executable, "-m", "tests.fakes.models", "--script", "429=9"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            request = urllib.request.Request(url + "/chat/completions", b'{"model": "m"}', {"Content-Type": "application/json"})
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10)
            assert (caught.value.code, caught.value.headers["Retry-After"]) == (429, "9")
        finally:
            process.terminate()
