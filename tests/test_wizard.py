"""`init`: what is chosen is what is written, whole or not at all; secrets are unseen, and nothing that was there is lost."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from llm_maker import wizard, wizard_text
from llm_maker.config import Config, load
from llm_maker.config_text import ConfigError
from llm_maker.keys import SECRET_NAMES, Secrets, read_env
from llm_maker.wizard_text import CannotEdit, config_text, edited, env_text, leaves, shipped, written
from tests.fakes.polymarket.setup import THROWAWAY_KEY, throwaway_account

ROOT = Path(__file__).parent.parent
MODEL_KEY = "throwaway-model-key"  # marked: worth nothing anywhere
COMMENTS = re.compile(r"#.*$", re.MULTILINE)


QUICK = [Phase.explicit, Phase.reuse, Phase.generate]
"""Reading YAML is slow, so that making a failure small takes minutes."""


# The text.


def some_config(changes: dict[str, Any]) -> Config | None:
    try:
        return wizard.with_changes(Config(), changes)
    except ConfigError:
        return None


NAMES = st.lists(st.text(max_size=12), max_size=3)
TYPED = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1).map(str.strip)
CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["paper", "live"]),
        "venue": st.sampled_from(["simulated", "polymarket"]),
        "account": st.sampled_from(["main", "123", "null", "true", "1e3", "-", "no"]),
        "seed": st.integers(0, 2**32 - 1),
        "market_selection.select": st.sampled_from(["all", "listed"]),
        "market_selection.include": NAMES,
        "market_selection.filters.categories": NAMES,
        "market_selection.filters.max_spread": st.floats(0, 1),
        "llm.provider": st.sampled_from(wizard.PROVIDERS),
        "llm.model": st.none() | st.text(min_size=1, max_size=12),
        "llm.base_url": st.none() | st.just("http://127.0.0.1:8000/v1#x"),
        "llm.blocks.question": st.integers(20, 2_000),
        "llm.news.extra": st.dictionaries(st.text(max_size=4), st.booleans() | st.text(max_size=4), max_size=2),
        "llm.cutoff": st.none() | st.just("2026-05-31"),
        "llm.reserve": st.just([{"provider": "xai", "model": "grok: #4"}]),
        "strategy.terms.flow": st.booleans(),
        "strategy.signal_bias_beta": st.floats(0, 5),
        "risk.bankroll_usd": st.none() | st.sampled_from([0.000001, 0.5, 200.0, 1e9, 123_456.789]),
        "risk.stop_exit": st.sampled_from(["maker", "maker_then_taker"]),
        "polymarket.hosts.rpc": st.just("https://node.example/key?a=b#c"),
        "console.http": st.booleans(),
        "console.http_names": NAMES,
        "alerts.telegram_chats": st.lists(st.integers(-(2**40), 2**40), max_size=3),
    },
)


def comments(text: str) -> list[str]:
    return [" ".join(each.split()) for each in COMMENTS.findall(text)]


@settings(max_examples=2, phases=QUICK)
@given(changes=CHANGES)
def test_what_is_written_is_what_was_chosen_and_every_comment_stays(tmp_path_factory, changes):
    wanted = some_config(changes)
    if wanted is None:
        return
    path = tmp_path_factory.mktemp("home") / "config.yaml"
    text = config_text(path, Config(), wanted)
    path.write_text(text)
    assert wizard_text.stands(path) == wanted
    assert load(path, {}) == load(None, {}, leaves(wanted)), "as a run takes it, with the caps of live mode"
    lost = [each for each in comments(shipped("yaml")) if each not in " ".join(text.split())]
    assert not lost, lost
    # Nothing but the lines of what was chosen is another one.
    changed = sum(a != b for a, b in zip(text.splitlines(), shipped("yaml").splitlines(), strict=True))
    assert changed <= len(changes)


@pytest.mark.prove
@settings(max_examples=100, phases=QUICK)
@given(first=CHANGES, then=CHANGES)
def test_a_file_that_is_there_is_edited_and_means_what_was_chosen(tmp_path_factory, first, then):
    base = some_config(first)
    wanted = base and some_config({**first, **then})
    if base is None or wanted is None:
        return
    path = tmp_path_factory.mktemp("home") / "config.yaml"
    path.write_text(config_text(path, Config(), base) + "# mine\n")
    text = config_text(path, base, wanted)
    path.write_text(text)
    assert wizard_text.stands(path) == wanted and text.endswith("# mine\n"), "edited, not replaced"


@settings(max_examples=50)
@given(value=st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | NAMES)
def test_a_value_is_one_line_that_yaml_reads_back(value):
    text = written(value)
    assert "\n" not in text and yaml.safe_load(f"a: {text}  # b\n") == {"a": value}


@pytest.mark.parametrize(
    ("text", "changes", "after"),
    [
        ("", {"venue": "polymarket"}, "venue: polymarket\n"),
        ("# only this\n", {"risk.bankroll_usd": 5.0}, "# only this\nrisk:\n  bankroll_usd: 5\n"),
        ("venue: simulated # a\nseed: 2", {"seed": 3, "venue": "polymarket"}, "venue: polymarket # a\nseed: 3"),
        ("risk:\n  jump_ticks: 5 # j\n", {"risk.bankroll_usd": 9.0}, "risk:\n  bankroll_usd: 9\n  jump_ticks: 5 # j\n"),
        ("risk: {jump_ticks: 5, bankroll_usd: }\n", {"risk.bankroll_usd": 9.0}, "risk: {jump_ticks: 5, bankroll_usd: 9 }\n"),
        (
            "market_selection:\n  include:\n    - a\n    - b  # two\n  # next\n  exclude: [x]\n",
            {"market_selection.include": ["c"]},
            "market_selection:\n  include: [c]              # two\n  # next\n  exclude: [x]\n",
        ),
        ("llm:\n  model:          # empty\n", {"llm.model": "gpt"}, "llm:\n  model: gpt      # empty\n"),
        ("llm:\n  model: gpt      # m\n", {"llm.model": None}, "llm:\n  model:          # m\n"),
    ],
)
def test_edits_by_hand(text, changes, after):
    assert edited(text, changes) == after


@pytest.mark.parametrize("text", ["- a\n", "risk: {a: 1}\n", "risk:\n", "risk: 5\n"])
def test_what_cannot_be_edited_is_said(text):
    with pytest.raises(CannotEdit):
        edited(text, {"risk.bankroll_usd": 5.0})


def test_a_file_laid_out_strangely_is_written_anew_and_keeps_its_values(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("risk: {jump_ticks: 7}\n")
    base = wizard_text.stands(path)
    wanted = wizard.with_changes(base, {"risk.bankroll_usd": 500.0})
    path.write_text(config_text(path, base, wanted))
    assert wizard_text.stands(path) == wanted and wanted.risk.jump_ticks == 7 and "# limits" in path.read_text()


@settings(max_examples=30)
@given(
    secrets=st.dictionaries(st.sampled_from(SECRET_NAMES), TYPED, max_size=4),
)
def test_secrets_are_read_back_as_typed_and_other_lines_stay(tmp_path_factory, secrets):
    path = tmp_path_factory.mktemp("home") / ".env"
    path.write_text(env_text("# mine\nexport GEMINI_API_KEY=old # c\nLLM_MAKER__SEED=5\nGEMINI_API_KEY=again\n", secrets))
    held = read_env(path, {})
    assert {name: held[name] for name in secrets} == secrets and held["LLM_MAKER__SEED"] == "5"
    assert path.read_text().startswith("# mine\n")


# The questions.


class Person:
    """Answers in turn, then Enter."""

    def __init__(self, *answers: str, yes: Callable[[str], bool] = lambda question: True) -> None:
        self.answers, self.yes = list(answers), yes
        self.lines: list[str] = []
        self.asked: list[tuple[str, bool]] = []

    def say(self, line: str = "") -> None:
        self.lines.append(line)

    def ask(self, question: str, default: str, *, hidden: bool = False) -> str:
        self.asked.append((question, hidden))
        return (self.answers.pop(0) if self.answers else "") or default

    def confirm(self, question: str, *, default: bool) -> bool:
        self.asked.append((question, False))
        return self.yes(question)

    @property
    def said(self) -> str:
        return "\n".join(self.lines)


def begun(home: Path, env: dict[str, str] | None = None) -> wizard.Standing:
    return wizard.standing(home, env or {})


def test_enter_all_the_way_is_paper_money_without_a_key(tmp_path):
    person = Person()
    there = begun(tmp_path)
    chosen = wizard.Interview(person, there).whole()
    assert chosen == wizard.Chosen(Config(), {}) and len(person.asked) == 5
    wizard.ready(chosen, there)
    assert "REAL" not in person.said and "one market     $200.00" in person.said
    told = wizard.write(there, chosen)
    assert [line.split()[0] for line in told] == ["wrote", "wrote"]
    assert (tmp_path / "config.yaml").read_text() == shipped("yaml") and (tmp_path / ".env").read_text() == shipped("env")
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert wizard.differences(begun(tmp_path), wizard.Chosen(Config(), {})) == [], "a second time there is nothing to do"


@pytest.mark.parametrize("kind", [3, *(pytest.param(kind, marks=pytest.mark.prove) for kind in (0, 1, 2))])
def test_real_money_wants_a_key_that_fits_its_address_and_a_yes_to_its_limits(tmp_path, kind):
    account = throwaway_account(kind)
    agreed = iter([False, True])
    person = Person(
        "poly", "live", "0x12", THROWAWAY_KEY, "nowhere", "0x" + "ab" * 20, THROWAWAY_KEY, account.maker,
        "openai", MODEL_KEY, "much", "50", "200", "ferry, index", "nonsense", "json://127.0.0.1/throwaway",
        yes=lambda question: next(agreed) if "limits" in question else False,
    )  # fmt: skip
    there = begun(tmp_path)
    chosen = wizard.Interview(person, there).whole()
    config = chosen.config
    assert (config.venue, config.mode, config.llm.provider, config.risk.bankroll_usd) == ("polymarket", "live", "openai", 200.0)
    assert config.market_selection.include == ("ferry", "index") and config.market_selection.select == "listed"
    assert not config.console.http and person.answers == []
    assert chosen.secrets == {
        "LLM_MAKER_PK": THROWAWAY_KEY,
        "LLM_MAKER_BROWSER_ADDRESS": account.maker,
        "OPENAI_API_KEY": MODEL_KEY,
        "LLM_MAKER_ALERT_URLS": "json://127.0.0.1/throwaway",
    }
    for line in (
        "the private key is not one",
        "not an address",
        "does not belong",
        "a number of dollars",
        "no scheme",
        "REAL MONEY",
    ):
        assert line in person.said, line
    assert "one market may lose $1.00" in person.said, "50 dollars are too few for an order"
    wizard.ready(chosen, there)
    wizard.write(there, chosen)
    held = read_env(tmp_path / ".env", {})
    assert Secrets(held).get("LLM_MAKER_PK") == THROWAWAY_KEY and load(tmp_path / "config.yaml", {}).mode == "live"
    shown = [question for question, hidden in person.asked if not hidden]
    assert not [each for each in shown if "key" in each], "keys are typed unseen"
    for value in (THROWAWAY_KEY, THROWAWAY_KEY[2:], MODEL_KEY, "throwaway"):
        assert value not in person.said + "\n".join(wizard.differences(there, chosen)) + (tmp_path / "config.yaml").read_text()


def test_a_second_time_the_answers_are_the_defaults_and_secrets_stay(tmp_path):
    account = throwaway_account(3)
    mine = "# my file\nvenue: polymarket\nmode: live\nllm: {provider: xai}\nrisk: {bankroll_usd: 300}\n"
    keys = {"LLM_MAKER_PK": THROWAWAY_KEY, "LLM_MAKER_BROWSER_ADDRESS": account.maker, "XAI_API_KEY": MODEL_KEY}
    (tmp_path / ".env").write_text("# mine\n" + "".join(f"{name}={value}\n" for name, value in keys.items()))
    (tmp_path / "config.yaml").write_text(mine)
    there = begun(tmp_path)
    person = Person()
    chosen = wizard.Interview(person, there).whole()
    assert chosen.config == there.config and chosen.secrets == {} and wizard.differences(there, chosen) == []
    more = wizard.Interview(Person("", "", "", "", "", "", "400"), begun(tmp_path)).whole()
    lines = wizard.differences(there, more)
    assert "  risk.bankroll_usd: 300 -> 400" in lines and "copy" in lines[0]
    told = wizard.write(there, more)
    assert (tmp_path / "config.yaml").read_text() == mine.replace("300", "400")
    assert (tmp_path / "config.yaml.bak-1").read_text().count("300") == 1 and "bak-1" in told[0]
    assert (tmp_path / ".env").read_text().startswith("# mine\n"), "untouched"
    assert wizard.write(begun(tmp_path), wizard.Chosen(more.config, {})) == [], "the same again writes nothing"


def test_a_provider_without_its_key_becomes_auto_and_another_drops_the_model(tmp_path):
    (tmp_path / "config.yaml").write_text("llm: {provider: gemini, model: some-gemini}\n")
    person = Person("", "deepseek", "short", "")
    chosen = wizard.Interview(person, begun(tmp_path)).whole()
    assert chosen.config.llm.provider == "auto" and chosen.config.llm.model is None and chosen.secrets == {}
    assert "not a key" in person.said and "without its key: auto" in person.said
    own = wizard.Interview(Person("", "ollama", "ftp://x", "", "qwen"), begun(tmp_path)).whole()
    assert (own.config.llm.provider, own.config.llm.model, own.config.llm.base_url) == ("ollama", "qwen", None)


def test_a_person_who_does_not_get_on_is_let_go(tmp_path):
    with pytest.raises(ConfigError, match="venue: no answer that could be used"):
        wizard.Interview(Person(*["kalshi"] * 9), begun(tmp_path)).whole()
    assert list(tmp_path.iterdir()) == []


def test_the_env_beside_is_carried_over_to_a_home_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"XAI_API_KEY={MODEL_KEY}\n")
    there = begun(tmp_path / "home")
    assert there.has("XAI_API_KEY")
    wizard.write(there, wizard.Chosen(Config(), {}))
    assert not (tmp_path / "home" / ".env").exists(), "the one beside is still the one that is read"
    wizard.write(there, wizard.Chosen(Config(), {"OPENAI_API_KEY": MODEL_KEY}))
    held = read_env(tmp_path / "home" / ".env", {})
    assert held == {"XAI_API_KEY": MODEL_KEY, "OPENAI_API_KEY": MODEL_KEY}


# To the disk.


def test_a_write_that_is_broken_off_leaves_everything_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "config.yaml").write_text("seed: 4\n")
    there = begun(tmp_path)
    chosen = wizard.Chosen(wizard.with_changes(there.config, {"seed": 5}), {"XAI_API_KEY": MODEL_KEY})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for broken in ("fsync", "fdopen"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(wizard_text.os, broken, lambda *of, **how: (_ for _ in ()).throw(KeyboardInterrupt))
            wizard.write(there, chosen)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert wizard.write(there, chosen)[0].startswith("kept")


def test_the_secrets_are_private_from_the_first_byte(tmp_path):
    old = os.umask(0)
    try:
        with wizard_text.beside(tmp_path / ".env", "A=1\n", 0o600) as new:
            assert new.stat().st_mode & 0o777 == 0o600 and new.parent == tmp_path
    finally:
        os.umask(old)
    assert list(tmp_path.iterdir()) == []


# A real terminal.


def typed(args: list[str], home: Path, answers: list[str], keys: Callable[[int], bytes] | None = None) -> tuple[str, int, int]:
    """Run it in a terminal of its own, answer each prompt: what was shown, how many prompts, the exit code."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("LLM_MAKER") and not k.endswith("_API_KEY")}
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.execve(sys.executable, [sys.executable, "-m", "llm_maker", *args], env | {"PYTHONPATH": str(ROOT), "TERM": "dumb"})
    shown, prompts, seen = b"", 0, 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if select.select([screen], [], [], 0.02)[0]:
            try:
                shown += os.read(screen, 65_536)
            except OSError:
                break
        elif len(shown) > seen and shown.endswith(b": "):
            seen, answer = len(shown), answers[prompts] if prompts < len(answers) else ""
            os.write(screen, keys(prompts) if keys else answer.encode() + b"\n")
            prompts += 1
    os.close(screen)
    return shown.decode(), prompts, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_in_a_terminal_enter_all_the_way(tmp_path):
    shown, prompts, code = typed(["init"], tmp_path, [])
    assert code == 0 and prompts == 6, shown
    assert "doctor` looks everything over" in shown and load(tmp_path / "config.yaml", {}) == Config()


@pytest.mark.prove
@pytest.mark.parametrize("at", range(6))
def test_ctrl_c_at_any_prompt_leaves_nothing(tmp_path, at):
    shown, prompts, code = typed(["init"], tmp_path, [], lambda n: b"\x03" if n == at else b"\n")
    assert code == 1 and prompts == at + 1 and "nothing was written" in shown and "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.prove
def test_in_a_terminal_no_secret_is_echoed(tmp_path):
    account = throwaway_account(3)
    answers = [
        "polymarket",
        "live",
        THROWAWAY_KEY,
        account.maker,
        "openai",
        MODEL_KEY,
        "200",
        "y",
        "",
        "json://127.0.0.1/throwaway",
        "",
        "",
        "n",
    ]
    shown, prompts, code = typed(["init"], tmp_path, answers)
    assert code == 0 and prompts == len(answers), shown
    assert THROWAWAY_KEY[2:] not in shown and MODEL_KEY not in shown and "throwaway" not in shown
    assert read_env(tmp_path / ".env", {})["LLM_MAKER_PK"] == THROWAWAY_KEY


@pytest.mark.prove
def test_init_doctor_run_in_a_terminal_without_a_key(tmp_path):
    """The whole of it, as a new user types it."""
    _, prompts, code = typed(["init"], tmp_path, [])
    assert (prompts, code) == (6, 0)
    shown, prompts, code = typed(["doctor"], tmp_path, [])
    assert code == 0 and prompts == 0 and "none failed" in shown, shown
    shown, prompts, code = typed(["run", "--duration", "3"], tmp_path, [])
    assert code == 0 and prompts == 0 and "proved that no order of ours rests" in shown, shown


def script(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llm_maker", "init", "--home", str(home), *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)


@pytest.mark.prove
def test_a_script_gives_yes_or_is_refused_in_one_line(tmp_path):
    refused = script(tmp_path)
    assert refused.returncode == 2 and refused.stderr == "error: init asks questions: type it in a terminal, or give --yes\n"
    done = script(tmp_path / "a", "--yes", "--venue", "polymarket", "--bankroll", "500", "--no-page")
    config = load(tmp_path / "a" / "config.yaml", {})
    assert done.returncode == 0 and (config.venue, config.risk.bankroll_usd, config.console.http) == ("polymarket", 500.0, False)
    for args, word in (
        (["--venue", "kalshi"], "one of simulated, polymarket"),
        (["--mode", "live"], "real money needs a real venue"),
        (["--mode", "live", "--venue", "polymarket"], "risk.bankroll_usd is empty"),
        (["--mode", "live", "--venue", "polymarket", "--bankroll", "200"], "LLM_MAKER_PK is not set"),
        (["--provider", "openai"], "OPENAI_API_KEY not set"),
        (["--bankroll", "-5"], "must be a number above 0"),
    ):
        wrong = script(tmp_path / "b", "--yes", *args)
        assert wrong.returncode == 2 and word in wrong.stderr and wrong.stderr.count("\n") == 1, wrong.stderr
        assert not (tmp_path / "b").exists()
