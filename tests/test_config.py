"""Config: the shipped file is the defaults, every mistake is one line with a cure, every number arrives exactly."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from llm_maker.config import Config, Hosts, check_keys, check_run, load, rehearsal
from llm_maker.config_text import ConfigError, keys_of
from llm_maker.core.params import Params, RiskParams
from llm_maker.keys import KEY_OF, SECRET_NAMES, Secrets, read_env
from llm_maker.tuning import cycle_seconds, to_params

ROOT = Path(__file__).parent.parent
LEAVES = [
    name for name, field in keys_of(Config) if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
]


def refusal(tmp_path: Path, text: str, env: dict[str, str] | None = None, **overrides: object) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, env or {}, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def with_keys(**dotted: object) -> Config:
    return load(None, {}, {key.replace("__", "."): value for key, value in dotted.items()})


# The shipped files.


def test_the_shipped_file_is_exactly_the_defaults():
    assert load(ROOT / "config.yaml", {}) == Config()


def test_the_shipped_file_mentions_every_key_once_and_comments_every_section():
    text = (ROOT / "config.yaml").read_text()
    tree = yaml.safe_load(text)
    for path in LEAVES:
        below: Any = tree
        for key in path.split("."):
            assert key in below, f"config.yaml does not mention {path}"
            below = below[key]
    for section in (name for name in Config.model_fields if isinstance(tree[name], dict)):
        assert re.search(rf"^{section}: +#", text, re.MULTILINE), f"{section} has no comment"


def test_the_example_of_secrets_names_them_all_and_holds_none(tmp_path):
    held = read_env(ROOT / ".env.example", {})
    assert set(held) == set(SECRET_NAMES)
    assert set(held.values()) == {""}
    assert Secrets(held).values() == ()


# Mistakes of a person.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("stratgy: {}", "config.yaml: unknown key 'stratgy'; did you mean 'strategy'?"),
        ("risk: {bankrol_usd: 5}", "unknown key 'risk.bankrol_usd'; did you mean 'risk.bankroll_usd'?"),
        (
            "llm: {decision_interval: 5}",
            "unknown key 'llm.decision_interval'; did you mean 'strategy.decision_interval'?",
        ),
        ("market_selection: {filters: {categorys: []}}", "did you mean 'market_selection.filters.categories'?"),
        ("logging: {zz: 1}", "unknown key 'logging.zz'; known here: level, journal_max_mb"),
        ("llm: {api_key: sk-1}", "secrets go into .env"),
        ("1: 2", "unknown key '1'"),
        (
            "llm: {timeout_seconds: fast}",
            "config.yaml: llm.timeout_seconds is 'fast'; must be a number from 2 up to 600",
        ),
        ("seed: 1.5", "seed is 1.5; must be a whole number from 0"),
        ("seed: true", "seed is true; must be a whole number"),
        ("seed:", "seed is empty; must be a whole number"),
        ("logging: {raw_llm: 1}", "logging.raw_llm is 1; must be true or false"),
        ("risk: 5", "risk is 5; must be a section"),
        ("market_selection: {include: btc}", "market_selection.include is 'btc'; must be a list of texts"),
        ("venue: kalshi", "venue is 'kalshi'; must be one of simulated, polymarket"),
        ("risk: {max_market_pct: 400}", "risk.max_market_pct is 400; must be a number above 0 up to 100"),
        ("risk: {bankroll_usd: .nan}", "risk.bankroll_usd is nan; must be a number above 0"),
        ("risk: {bankroll_usd: .inf}", "risk.bankroll_usd is inf"),
        ("risk: {bankroll_usd: 0.0000001}", "risk.bankroll_usd is 1e-07, which has more than 6 decimals"),
        ("strategy: {base_position_size: 500}", "strategy: base_position_size 500 is above max_position_size 200"),
        ("risk: {daily_loss_pct: 5}", "risk: daily_loss_pct 5 is above weekly_loss_pct 4"),
        ("llm: {provider: openai_compatible}", "needs base_url"),
        ("llm: {base_url: localhost}", "must start with http:// or https://"),
        ("llm: {price_per_million_input_usd: 1}", "go together"),
        ("account: 'A b'", "account is 'A b'; must be a text like"),
        ("mode: liv", "config.yaml: mode is 'liv'; must be one of paper, live"),
        ("a: [\nb: 1", "config.yaml: not YAML at line 2"),
        ("\ta: b", "not YAML at line 1"),
        ("seed: 1\nseed: 2", "not YAML at line 2: key 'seed' is given twice"),
        ("risk:\n  jump_ticks: 5\n  jump_ticks: 6", "line 3: key 'jump_ticks' is given twice"),
        ("? [a]\n: b", "a key must be one word"),
        ("[" * 5_000, "not YAML"),
        ("a: 2026-13-45", "not YAML: month must be in 1..12"),
        ("- a", "not a list of 'key: value' lines"),
        ("stratgy: {}\nseed: x", "unknown key 'stratgy'; did you mean 'strategy'? (and 1 more)"),
    ],
)
def test_a_mistake_is_one_line_that_helps(tmp_path, text, line):
    assert line in refusal(tmp_path, text)


def test_what_cannot_be_read_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file; give one with --config"):
        load(tmp_path / "nowhere.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})
    (tmp_path / "latin.yaml").write_bytes(b"account: \xe9")
    with pytest.raises(ConfigError, match=r"latin\.yaml: not UTF-8 text at byte 9"):
        load(tmp_path / "latin.yaml", {})
    (tmp_path / "big.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="at most 1000000 are read"):
        load(tmp_path / "big.yaml", {})


def test_an_empty_file_and_an_empty_section_are_the_defaults(tmp_path):
    for text in ("", "# nothing\n", "risk:\nmarket_selection:\n  filters:\n"):
        (tmp_path / "config.yaml").write_text(text)
        assert load(tmp_path / "config.yaml", {}) == Config()


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), below, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(key=st.sampled_from([name for name, _ in keys_of(Config)]), value=TREES)
def test_any_value_at_any_key_is_taken_or_refused_in_one_line(tmp_path_factory, key, value):
    tree: Any = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    file = tmp_path_factory.mktemp("any") / "config.yaml"
    file.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
    try:
        params = to_params(load(file, {}))
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert msgspec.json.decode(msgspec.json.encode(params), type=Params) == params


@settings(max_examples=150)
@given(text=st.text(max_size=60) | st.binary(max_size=60))
def test_any_file_is_taken_or_refused_in_one_line(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("any") / "config.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    try:
        load(file, {})
    except ConfigError as error:
        assert "\n" not in str(error)


# Environment and command line.


def test_the_environment_overrides_the_file_and_the_command_line_both(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 2\nrisk: {jump_ticks: 6, sweep_pct: 70}")
    env = {"LLM_MAKER__SEED": "3", "LLM_MAKER__RISK__JUMP_TICKS": "7", "LLM_MAKER__MARKET_SELECTION__INCLUDE": "[a, b]"}
    config = load(tmp_path / "config.yaml", env, {"seed": 4})
    assert (config.seed, config.risk.jump_ticks, config.risk.sweep_pct) == (4, 7, 70)
    assert config.market_selection.include == ("a", "b")


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        (
            "LLM_MAKER__RISK__BANKROLL_USD",
            "much",
            "LLM_MAKER__RISK__BANKROLL_USD: risk.bankroll_usd is 'much'; must be",
        ),
        (
            "LLM_MAKER__RISK__BANKROL_USD",
            "5",
            "LLM_MAKER__RISK__BANKROL_USD: unknown key 'risk.bankrol_usd'; did you mean",
        ),
        ("LLM_MAKER__SEED__X", "5", "LLM_MAKER__SEED__X: 'seed' is not a section"),
        ("LLM_MAKER__SEED", "[", "LLM_MAKER__SEED: not YAML"),
        ("LLM_MAKER__MODE", "real", "LLM_MAKER__MODE: mode is 'real'"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(tmp_path, variable, value, line):
    assert line in refusal(tmp_path, "seed: 1", {variable: value})


def test_a_mistake_on_the_command_line_says_so(tmp_path):
    assert refusal(tmp_path, "", mode="real").startswith("command line: mode is 'real'")


# Secrets.


def test_secrets_are_read_from_env_file_and_environment_and_never_shown(tmp_path):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=from-file\nXAI_API_KEY='${HOME}'\n# note\nexport GEMINI_API_KEY=\n")
    environ = {"OPENAI_API_KEY": "from-environ", "HOME": "x"}
    env = read_env(tmp_path / ".env", environ)
    secrets = Secrets(env)
    assert environ == {"OPENAI_API_KEY": "from-environ", "HOME": "x"}
    assert secrets.get("OPENAI_API_KEY") == "from-environ"
    assert secrets.get("XAI_API_KEY") == "${HOME}"
    assert secrets.get("GEMINI_API_KEY") is None
    assert "from-environ" not in f"{secrets!r} {secrets}"
    assert set(secrets.values()) == {"from-environ", "${HOME}", "%24%7BHOME%7D"}


def test_a_damaged_env_file_is_one_line_without_its_text(tmp_path):
    (tmp_path / ".env").write_text("A=1\nOPENAI_API_KEY='sk-unclosed\n")
    with pytest.raises(ConfigError, match=r"\.env: line 2 is not NAME=value") as caught:
        read_env(tmp_path / ".env", {})
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("provider", [name for name in KEY_OF if name != "openai_compatible"])
def test_a_provider_without_its_key_is_refused_in_the_known_words(provider):
    config = with_keys(llm__provider=provider)
    with pytest.raises(ConfigError) as caught:
        check_keys(config, Secrets({}))
    assert str(caught.value).startswith(f"Missing API key: {KEY_OF[provider]} not set")
    check_keys(config, Secrets({KEY_OF[provider]: "k"}))


def test_a_server_on_this_machine_needs_no_key():
    here, there = (
        with_keys(llm__provider="openai_compatible", llm__base_url=f"http://{host}:1/v1") for host in ("127.0.0.1", "far")
    )
    check_keys(here, Secrets({}))
    with pytest.raises(ConfigError, match="Missing API key: OPENAI_API_KEY not set"):
        check_keys(there, Secrets({}))
    for provider in ("auto", "none", "simulated"):
        check_keys(with_keys(llm__provider=provider), Secrets({}))


KEYED = {"LLM_MAKER_PK": "0x" + "11" * 32, "LLM_MAKER_BROWSER_ADDRESS": "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"}  # throwaway


@pytest.mark.parametrize(
    ("changes", "secrets", "tape", "line"),
    [
        ({"llm.provider": "simulated", "venue": "polymarket"}, KEYED, True, "llm.provider is 'simulated'"),
        ({"llm.provider": "simulated", "venue": "polymarket"}, KEYED, False, "llm.provider is 'simulated'"),
        ({"mode": "live"}, KEYED, False, "mode is 'live' and venue is 'simulated'"),
        ({"mode": "live", "venue": "polymarket", "risk.bankroll_usd": 200}, KEYED, True, "mode is 'live' with --tape"),
        ({"mode": "live", "venue": "polymarket"}, KEYED, False, "mode is 'live' and risk.bankroll_usd is empty"),
        ({"mode": "live", "venue": "polymarket", "risk.bankroll_usd": 200}, {}, False, "LLM_MAKER_PK is not set"),
        (
            {"mode": "live", "venue": "polymarket", "risk.bankroll_usd": 200},
            {"LLM_MAKER_PK": KEYED["LLM_MAKER_PK"]},
            False,
            "LLM_MAKER_BROWSER_ADDRESS is not set",
        ),
        (
            {"mode": "live", "venue": "polymarket", "risk.bankroll_usd": 200},
            {**KEYED, "LLM_MAKER_API_KEY": "k"},
            False,
            "LLM_MAKER_API_KEY is set and LLM_MAKER_API_SECRET is not",
        ),
    ],
)
def test_what_cannot_be_run_together_is_refused(changes, secrets, tape, line):
    with pytest.raises(ConfigError) as caught:
        check_run(load(None, {}, changes), Secrets(secrets), tape=tape)
    assert line in str(caught.value) and "1111" not in str(caught.value)


def test_what_can_be_run():
    check_run(Config(), Secrets({}), tape=False)
    for tape in (True, False):
        check_run(with_keys(venue="polymarket"), Secrets({}), tape=tape)
    check_run(load(None, {}, {"mode": "live", "venue": "polymarket", "risk.bankroll_usd": 200}), Secrets(KEYED), tape=False)


def test_live_takes_no_more_than_its_own_section_allows():
    asked = {"strategy.base_position_size": 50, "strategy.max_position_size": 200, "market_selection.max_markets": 20}
    asked["mode"] = "live"
    config = load(None, {}, asked)
    assert (config.strategy.base_position_size, config.strategy.max_position_size) == (5, 20)
    assert config.market_selection.max_markets == 2 and to_params(config).risk.daily_loss == 25_000_000
    wider = load(None, {}, asked | {"live.max_markets": 30, "live.max_order_shares": 60, "live.max_position_shares": 70})
    assert (wider.strategy.base_position_size, wider.strategy.max_position_size, wider.market_selection.max_markets) == (50, 70, 20)
    assert to_params(Config()).risk.daily_loss == 0, "paper has its share of the bankroll alone"


def test_live_an_unproven_model_has_no_weight_and_a_sure_one_no_larger_order():
    asked = {"mode": "live", "strategy.base_position_size": 4, "live.max_order_shares": 5}
    config = load(None, {}, asked)
    assert config.strategy.size_up_max * config.strategy.base_position_size == 5 and config.strategy.signal_prior_weight == 0
    wider = load(None, {}, asked | {"live.signal_prior_weight": 0.1, "live.max_order_shares": 20})
    assert (wider.strategy.size_up_max, wider.strategy.signal_prior_weight) == (1.5, 0.1)
    assert load(None, {}, {}).strategy.signal_prior_weight == 0.15, "paper acts on it, to learn what it is worth"


def test_hosts_without_encryption_are_this_machine_alone():
    assert rehearsal(load(None, {}, LOOPBACK)) and not rehearsal(Config())
    for url in ("http://clob.polymarket.com", "ftp://127.0.0.1", "https://"):
        with pytest.raises(ConfigError, match=r"polymarket\.hosts: clob is"):
            load(None, {}, {"polymarket.hosts.clob": url})


LOOPBACK = {f"polymarket.hosts.{name}": f"{'ws' if name.startswith('ws') else 'http'}://127.0.0.1:9" for name in Hosts.model_fields}


# People's units -> the core's.

CONVERSIONS: list[tuple[str, object, str, object]] = [
    ("risk.bankroll_usd", 1234.56, "risk.bankroll", 1_234_560_000),
    ("execution.quote_lifetime_seconds", 600, "execution.quote_lifetime_ns", 600_000_000_000),
    ("risk.max_order_usd", 0.000001, "risk.max_order_cost", 1),
    ("risk.max_market_pct", 0.7, "risk.market_ratio", 0.007),
    ("risk.max_event_pct", 3.3, "risk.event_ratio", 0.033),
    ("risk.max_cluster_pct", 7.0, "risk.cluster_ratio", 0.07),
    ("risk.max_gross_pct", 29.0, "risk.gross_ratio", 0.29),
    ("risk.min_free_cash_pct", 0, "risk.free_cash_ratio", 0.0),
    ("risk.linear_stress_pct", 30, "risk.linear_stress_ratio", 0.3),
    ("strategy.max_position_size", 333.333, "risk.max_position_milli", 333_333),
    ("risk.max_open_positions", 3, "risk.max_open_positions", 3),
    ("risk.daily_loss_pct", 1.1, "risk.daily_loss_ratio", 0.011),
    ("risk.weekly_loss_pct", 5, "risk.weekly_loss_ratio", 0.05),
    ("risk.monthly_loss_pct", 9, "risk.monthly_loss_ratio", 0.09),
    ("risk.max_drawdown_pct", 12, "risk.max_drawdown_ratio", 0.12),
    ("risk.max_feed_lag_ms", 900, "risk.max_feed_lag_ns", 900_000_000),
    ("risk.max_loop_delay_ms", 100, "risk.max_loop_delay_ns", 100_000_000),
    ("risk.max_book_age_seconds", 0.1, "risk.max_book_age_ns", 100_000_000),
    ("risk.max_silence_seconds", 11, "risk.max_silence_ns", 11_000_000_000),
    ("risk.jump_ticks", 6, "risk.jump_ticks", 6),
    ("risk.jump_cooldown_seconds", 31, "risk.jump_cooldown_ns", 31_000_000_000),
    ("risk.sweep_pct", 70, "risk.sweep_ratio", 0.7),
    ("risk.stop_cooldown_seconds", 10, "risk.stop_cooldown_ns", 10_000_000_000),
    ("risk.repeated_stop_cooldown_seconds", 4000, "risk.repeated_stop_cooldown_ns", 4_000_000_000_000),
    ("risk.volatility_widen_ratio", 3, "risk.volatility_widen_ratio", 3.0),
    ("risk.volatility_pull_ratio", 9, "risk.volatility_pull_ratio", 9.0),
    ("risk.resolution_pull_hours", 0.5, "risk.resolution_pull_ns", 1_800_000_000_000),
    ("risk.resolution_reduce_hours", 48, "risk.resolution_reduce_ns", 172_800_000_000_000),
    ("risk.event_window_seconds", 60, "risk.event_window_ns", 60_000_000_000),
    ("risk.fat_finger_ticks", 4, "risk.fat_finger_ticks", 4),
    ("risk.fat_finger_pct", 5, "risk.fat_finger_ratio", 0.05),
    ("risk.messages_per_10s", 50, "risk.messages_per_10s", 50),
    ("risk.stop_exit", "maker", "risk.stop_exit_crosses", False),
    ("risk.exit_patience_seconds", 30, "risk.exit_patience_ns", 30_000_000_000),
    ("risk.exit_max_slippage", 0.02, "risk.exit_max_slippage_ratio", 0.02),
    ("risk.approve_above_usd", 9.5, "risk.approve_above", 9_500_000),
    ("risk.unknown_lookup_seconds", 1.5, "risk.unknown_lookup_ns", 1_500_000_000),
    ("risk.ack_timeout_seconds", 5, "risk.ack_timeout_ns", 5_000_000_000),
    ("strategy.stop_loss_percentage", 7, "exits.stop_ratio", 0.07),
    ("strategy.take_profit_percentage", 14, "exits.target_ratio", 0.14),
    ("strategy.stop_hold_seconds", 1, "exits.hold_ns", 1_000_000_000),
    ("strategy.exit_deadline_hours", 1, "exits.deadline_ns", 3_600_000_000_000),
    ("execution.reprice_ticks", 0, "execution.reprice_ticks", 0),
    ("execution.fine_reprice_ticks", 3, "execution.fine_reprice_ticks", 3),
    ("execution.resize_ratio", 0.5, "execution.resize_ratio", 0.5),
    ("execution.flicker_seconds", 0.25, "execution.flicker_ns", 250_000_000),
    ("execution.merge_min_sets", 5.5, "execution.merge_min_milli", 5_500),
    ("execution.merge_cash_ratio", 0.1, "execution.merge_cash_ratio", 0.1),
    ("strategy.signal_rule", "seed", "signals.rule", "seed"),
    ("strategy.min_confidence_to_trade", 0.5, "signals.min_confidence", 0.5),
    ("strategy.min_confidence_to_size_up", 0.9, "signals.size_up_confidence", 0.9),
    ("strategy.size_up_max", 2, "signals.size_up_max", 2.0),
    ("strategy.base_position_size", 12.345, "signals.base_milli", 12_345),
    ("strategy.max_usd", 70, "signals.max_position_cash", 70_000_000),
    ("strategy.signal_prior_weight", 0.2, "signals.prior_weight", 0.2),
    ("strategy.signal_max_weight", 0.6, "signals.max_weight", 0.6),
    ("strategy.signal_half_life_seconds", 60, "signals.half_life_ns", 60_000_000_000),
    ("strategy.signal_expiry_seconds", 8000, "signals.expiry_ns", 8_000_000_000_000),
    ("strategy.refresh_seconds", 60, "signals.refresh_ns", 60_000_000_000),
    ("strategy.signal_smoothing", 0.3, "signals.smoothing", 0.3),
    ("strategy.signal_bias_beta", 0.1, "signals.bias_beta", 0.1),
    ("strategy.signal_expire_before_end_hours", 1, "signals.expire_before_end_ns", 3_600_000_000_000),
    ("llm.provider", "none", "slow.enabled", False),
    ("strategy.decision_interval", 10, "slow.interval_ns", 10_000_000_000),
    ("strategy.max_markets_per_query", 2, "slow.max_markets", 2),
    ("llm.failures_to_fallback", 5, "slow.failures_to_fallback", 5),
    ("llm.timeout_seconds", 60.5, "slow.answer_timeout_ns", 65_500_000_000),
    ("llm.fill_gap_seconds", 7, "slow.fill_gap_ns", 7_000_000_000),
    ("llm.portfolio", True, "slow.whole", True),
    ("strategy.signal_full_weight", 0.3, "signals.full_weight", 0.3),
    ("strategy.signal_disagreement", 0.7, "signals.disagreement_logit", 0.7),
    ("strategy.kelly", 0.2, "signals.kelly_ratio", 0.2),
    ("strategy.kelly_measured", 0.3, "signals.kelly_measured_ratio", 0.3),
    ("llm.probe_seconds", 6, "slow.probe_ns", 6_000_000_000),
    ("llm.probe_max_seconds", 100, "slow.probe_max_ns", 100_000_000_000),
    ("llm.min_gap_seconds", 1, "slow.min_gap_ns", 1_000_000_000),
]


def _flat(params: Params) -> dict[str, object]:
    return {
        f"{section}.{name}": value
        for section, below in msgspec.structs.asdict(params).items()
        for name, value in msgspec.structs.asdict(below).items()
    }


@pytest.mark.parametrize(("key", "value", "param", "wanted"), CONVERSIONS, ids=[row[0] for row in CONVERSIONS])
def test_each_key_reaches_its_parameter_exactly_and_no_other(key, value, param, wanted):
    before, after = _flat(to_params(Config())), _flat(to_params(load(None, {}, {key: value})))
    changed = {name: after[name] for name in after if after[name] != before[name]}
    if key == "strategy.decision_interval":
        del changed["slow.answer_timeout_ns"]  # a cycle has to fit into it
    assert changed == {param: wanted}
    assert type(after[param]) is type(wanted)


@pytest.mark.parametrize(("interval", "timeout", "cycle"), [(45, 20, 36), (10, 5, 8), (10, 20, 20), (300, 20, 240)])
def test_a_cycle_of_the_slow_loop_is_shorter_than_its_interval_unless_one_call_is_not(interval, timeout, cycle):
    config = load(None, {}, {"strategy.decision_interval": interval, "llm.timeout_seconds": timeout})
    assert cycle_seconds(config) == cycle
    assert to_params(config).slow.answer_timeout_ns == (cycle + 5) * 1_000_000_000, "the core waits for it, and a little longer"


def test_every_parameter_of_the_core_has_a_key():
    reached = {param for *_, param, _ in CONVERSIONS} | {"risk.live", "risk.daily_loss", "signals.base_cash", "slow.listens"}
    assert set(_flat(to_params(Config()))) == reached
    assert to_params(Config(mode="live")).risk.live is True
    assert to_params(Config()).slow.listens is False, "only an account that follows another listens, and that is no person's to set"
    linear = to_params(load(None, {}, {"strategy.base_usd": 7, "strategy.max_usd": 70}))
    assert (linear.signals.base_cash, linear.signals.max_position_cash) == (7_000_000, 70_000_000)


def test_the_defaults_are_those_of_the_core():
    cash = 1_000_000
    assert to_params(Config()) == Params(risk=RiskParams(bankroll=10_000 * cash, max_order_cost=100 * cash))


@settings(max_examples=200)
@given(micros=st.integers(1, 10**15))
def test_money_is_exact_to_the_last_cash_unit(micros):
    assert to_params(load(None, {}, {"risk.bankroll_usd": micros / 1e6})).risk.bankroll == micros


@settings(max_examples=200)
@given(tenths=st.integers(1, 1000))
def test_percent_is_the_nearest_ratio(tenths):
    ratio = to_params(load(None, {}, {"risk.sweep_pct": tenths / 10})).risk.sweep_ratio
    assert ratio == tenths / 1000
    assert math.isfinite(ratio)
