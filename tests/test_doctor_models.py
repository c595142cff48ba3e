"""The doctor looks at the models: each that would be asked answers one tiny question, or is named with what is wrong and the
cure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_maker.checkup import Check
from llm_maker.config import Config, Llm
from llm_maker.doctor import examine
from llm_maker.keys import KEY_OF, Secrets
from llm_maker.llm.providers import PROVIDERS
from tests.fakes.models import THROWAWAY_KEY, ModelServer, refused
from tests.slow import named

KEYS = dict.fromkeys(KEY_OF.values(), THROWAWAY_KEY)


async def look(home: Path, llm: dict[str, Any], keys: dict[str, str] = KEYS) -> list[Check]:
    """What it says of models and prompts."""
    told: list[Check] = []
    found = await examine(Config(llm=Llm(**llm)), Secrets(keys), home, progress=told.append)
    assert found == told and all(check.text and "\n" not in check.text + check.cure for check in found)
    assert THROWAWAY_KEY not in str(found)
    assert all(bool(check.cure) == (check.state in ("warning", "failed")) for check in found)
    return [check for check in found if "model" in check.name or check.name == "prompts"]


async def one(home: Path, llm: dict[str, Any], keys: dict[str, str] = KEYS) -> Check:
    (check,) = await look(home, llm, keys)
    return check


@pytest.mark.parametrize(
    "provider", ["gemini", "ollama", *(pytest.param(name, marks=pytest.mark.prove) for name in ("anthropic", "openai", "deepseek"))]
)
async def test_a_model_that_answers_is_fine(tmp_path: Path, provider: str):
    key = THROWAWAY_KEY if PROVIDERS[provider].env_key else None
    # Where there is no schema the fake does not know what is wanted; a real model reads.
    async with ModelServer(key=key, answer=lambda handles, seen: {"ok": True}) as server:
        llm = named(provider, server) | ({"model": "qwen"} if provider == "ollama" else {})
        check = await one(tmp_path, llm)
    assert check.state == "ok" and f"{provider} {llm.get('model') or PROVIDERS[provider].model}: answers in" in check.text
    assert server.requests == 1 and server.violations == []
    assert PROVIDERS[provider].schema_mode in check.text


WRONG = [
    ("401", "check OPENAI_API_KEY in .env", "check the key in .env"),
    ("key_400", "the key is not accepted", "check the key in .env"),
    ("402", "no credit", "top the account up"),
    ("429_quota", "no credit", "top the account up"),
    ("404", "no such model", "set a name that the provider has"),
    ("429", "rate limit", "name another model"),
    ("500", "overloaded", "name another model"),
    ("hang", "no answer in time", "check the network and base_url"),
    ("reset", "cannot be reached", "check the network and base_url"),
    ("html", "not as this API does", "name another model"),
    ("prose", "does not answer in the form asked for", "name another model"),
    ("refusal", "refused a harmless question", "name another model"),
    ("truncated_empty", "cut off", "name another model"),
]
OFTEN = {"401", "404", "reset", "prose"}
"""What of `WRONG` every run looks at; all of it by `make prove`."""


@pytest.mark.parametrize(
    ("step", "words", "cure"), [pytest.param(*row, marks=[] if row[0] in OFTEN else pytest.mark.prove) for row in WRONG]
)
async def test_what_is_wrong_with_a_model_is_told_with_its_cure(tmp_path: Path, step: str, words: str, cure: str):
    async with ModelServer([step] * 3, hang_s=10.0) as server:
        check = await one(tmp_path, named("openai", server) | {"timeout_seconds": 2.0})
    assert check.state == "failed" and words in check.text and cure in check.cure, check
    assert "openai gpt-6-luna" in check.text and server.requests == 1, "asked once"


async def test_a_server_that_is_not_there(tmp_path: Path):
    with refused() as nowhere:
        check = await one(tmp_path, {"provider": "openai", "base_url": nowhere.openai_url})
    assert check.state == "failed" and "cannot be reached" in check.text and "base_url" in check.cure


async def test_a_retired_model_is_never_asked(tmp_path: Path):
    async with ModelServer() as server:
        at_fake = await one(tmp_path, named("deepseek", server) | {"model": "deepseek-chat"})
        at_home = await one(tmp_path, {"provider": "deepseek", "model": "deepseek-chat"})
    assert server.requests == 0
    for check in (at_fake, at_home):
        assert check.state == "failed" and "retired" in check.text and "deepseek-flash" in check.text


async def test_a_price_that_nobody_knows_is_a_warning(tmp_path: Path):
    async with ModelServer() as server:
        # Another name of this machine: what is not called one's own has its price.
        llm = {"provider": "openai", "base_url": server.openai_url.replace("127.0.0.1", "127.1"), "model": "gpt-no-such"}
        check = await one(tmp_path, llm)
        prices = {"price_per_million_input_usd": 1.0, "price_per_million_output_usd": 2.0}
        told = await one(tmp_path, llm | prices)
    assert check.state == "warning" and "0.05 USD" in check.text and "price_per_million_input_usd" in check.cure
    assert told.state == "ok"


async def test_everybody_who_would_be_asked_is_named(tmp_path: Path):
    async with ModelServer(fault=lambda seen: "401" if seen.wire == "messages" else None) as server:
        llm = {
            "ensemble": [named("gemini", server), named("anthropic", server)],
            "reserve": [named("openrouter", server)],
            "news": named("openai", server),
        }
        found = await look(tmp_path, llm)
    assert [(check.name, check.text.split(":")[0], check.state) for check in found] == [
        ("model", "gemini gemini-3.1-flash-lite", "ok"),
        ("model", "anthropic claude-haiku-5-5", "failed"),
        ("model in reserve", "openrouter openai/gpt-6-luna", "ok"),
        ("news model", "openai gpt-6-luna", "ok"),
    ]
    assert server.violations == [] and "ANTHROPIC_API_KEY" in found[1].text


async def test_a_key_that_is_missing_is_named(tmp_path: Path):
    keys = {"OPENAI_API_KEY": THROWAWAY_KEY}
    for llm in ({"ensemble": [{"provider": "openai"}, {"provider": "xai"}]}, {"provider": "openai", "news": {"provider": "xai"}}):
        check = await one(tmp_path, llm, keys)
        assert check.state == "failed" and "XAI_API_KEY not set" in check.text and ".env" in check.cure


async def test_an_extra_that_no_request_can_have_is_found_like_all_else(tmp_path: Path):
    async with ModelServer() as server:
        spare = named("openai", server) | {"extra": {"stream": True}}
        first, second = await look(tmp_path, named("openai", server) | {"reserve": [spare]})
    assert first.state == "ok" and second.state == "failed" and "extra" in second.text and server.requests == 1


async def test_own_prompts_are_named_and_a_broken_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts" / "calm").mkdir(parents=True)
    words = tmp_path / "prompts" / "calm" / "system.txt"
    words.write_text("You are calm.\n\n$contract")
    llm = {"prompts_dir": "prompts", "prompts": ["calm"]}
    async with ModelServer() as server:
        _, prompts = await look(tmp_path, named("openai", server) | llm)
        words.write_text("You are calm.")
        broken = await one(tmp_path, named("openai", server) | llm)
    assert prompts.state == "ok" and "calm (" in prompts.text
    assert broken.state == "failed" and "$contract" in broken.text
