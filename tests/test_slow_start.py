"""A slow loop that cannot be had as configured: `run` ends before anything is begun, with exit code 2 and one line that names the
cure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llm_maker import cli
from llm_maker.keys import SECRET_NAMES

PROMPT = "llm: {prompts_dir: prompts, prompts: [calm]}"
ENSEMBLE = "llm: {ensemble: [{provider: gemini}, {provider: openai}]}"


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run with a config and secrets of one's own; the line of the refusal."""
    monkeypatch.chdir(tmp_path)

    def run(config: str, *, begun: bool = False, **secrets: str) -> str:
        for name in SECRET_NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in secrets.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "config.yaml").write_text(config)
        monkeypatch.setattr(sys, "argv", ["llm-maker", "run", "--duration", "1"])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
        assert (tmp_path / "positions" / "ledger.sqlite3").exists() == begun
        assert not [value for value in secrets.values() if value in line]
        return line

    return run


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("llm: {provider: deepseek, model: deepseek-chat}", ["deepseek-chat", "retired", "deepseek-flash"]),
        ("llm: {provider: xai, model: grok-4-fast-reasoning}", ["grok-4-fast-reasoning", "retired", "grok-4.3"]),
        ("llm: {ensemble: [{provider: openai}, {provider: xai, model: grok-3}]}", ["grok-3", "retired", "grok-4.3"]),
        ("llm: {provider: openai, reserve: [{provider: deepseek, model: deepseek-chat}]}", ["retired", "deepseek-flash"]),
        ("llm: {provider: ollama}", ["llm.model is empty", "ollama"]),
        (ENSEMBLE, ["GEMINI_API_KEY not set", "llm.ensemble"]),
        ("llm: {provider: openai, reserve: [{provider: openrouter}]}", ["OPENROUTER_API_KEY not set", "llm.reserve"]),
        ("llm: {provider: openai, news: {provider: gemini}}", ["GEMINI_API_KEY not set", "llm.news.provider"]),
        ("llm: {provider: openai, base_url: 'localhost:8000'}", ["base_url", "http://"]),
        ("llm: {provider: openai_compatible, model: m}", ["needs base_url"]),
        ("llm: {provider: openai, ensemble: [{provider: openai}]}", ["beside an ensemble"]),
        ("llm: {bandit: true}", ["bandit has nothing to choose from"]),
        ("llm: {provider: openai, prompts: [calm]}", ["prompts_dir"]),
        ("llm: {provider: gpt}", ["gpt", "openai"]),
    ],
)
def test_what_cannot_be_had_is_one_line_and_exit_2(refused, config: str, told: list[str]):
    keys = dict.fromkeys(("OPENAI_API_KEY", "DEEPSEEK_API_KEY", "XAI_API_KEY"), "throwaway-0000")
    line = refused(config, **keys)
    assert all(word in line for word in told), line


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("llm: {provider: openai, reserve: [{provider: openai, extra: {stream: true}}]}", ["openai/gpt-6-luna", "extra", "stream"]),
        ("llm: {provider: openai, news: {provider: openai, extra: {model: x}}}", ["openai/gpt-6-luna", "extra", "model"]),
        ("llm: {provider: openai, cassette: config.yaml}", ["llm.cassette", "not a cassette"]),
    ],
)
def test_what_only_a_client_can_tell_is_one_line_and_exit_2_too(refused, config: str, told: list[str]):
    line = refused(config, begun=True, OPENAI_API_KEY="throwaway-0000")
    assert all(word in line for word in told), line


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("market.txt", "[$handle]\n$question\n$pirce\n", ["$pirce", "$price"]),
        ("market.txt", "[$handle]\nno question\n", ["$question"]),
        ("system.txt", "You are calm.\n", ["$contract"]),
        ("system.txt", "You are $ calm.\n\n$contract", ["$"]),
        ("systen.txt", "You are calm.\n\n$contract", ["systen.txt", "system.txt"]),
    ],
)
def test_a_broken_prompt_is_one_line_and_exit_2(refused, tmp_path: Path, file: str, text: str, told: list[str]):
    (tmp_path / "prompts" / "calm").mkdir(parents=True)
    (tmp_path / "prompts" / "calm" / file).write_text(text)
    line = refused(PROMPT, OPENAI_API_KEY="throwaway-0000")
    assert "calm" in line and all(word in line for word in told), line


def test_a_folder_without_the_prompt_is_one_line_and_exit_2(refused, tmp_path: Path):
    (tmp_path / "prompts" / "clam").mkdir(parents=True)
    assert "calm" in refused(PROMPT, OPENAI_API_KEY="throwaway-0000")
