"""`reload`: what may change while running does, all of it and from one event; what may not is refused; told in dollars before."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

from llm_maker import app, cli, cli_operate, lab, reload
from llm_maker.config import Config, load
from llm_maker.config_text import ConfigError, keys_of
from llm_maker.console.desk import Refused
from llm_maker.console.reload_lines import reload_lines
from llm_maker.core.commands import AnyCommand, CancelOrder, PlaceOrder
from llm_maker.core.engine import Engine, checkpoint, restore
from llm_maker.core.events import Event, ParamsChanged, Tick
from llm_maker.core.orders import Status
from llm_maker.core.params import Params
from llm_maker.core.state import State
from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.keys import Secrets
from llm_maker.runtime.journal import Entry, files
from llm_maker.runtime.journal_reader import read_journal
from llm_maker.tuning import maker_params, run_params

SEED = 5
PACKAGE = Path(reload.__file__).parent
LIVE = {"mode": "live", "venue": "polymarket", "risk.bankroll_usd": 1000.0}


# Every key.


def leaves() -> dict[str, FieldInfo]:
    """Every key that holds a value, not a section."""
    known = dict(keys_of(Config))
    return {key: field for key, field in known.items() if not any(other.startswith(f"{key}.") for other in known)}


def others(value: Any, field: FieldInfo) -> Iterator[Any]:
    """Values like this one, but different."""
    choices = typing.get_args(field.annotation)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (type(value)(value * by) for by in (1.02, 0.98, 0.5, 2, 1.5))
        yield from (value + 1, value - 1, value + 0.25, value + 300)
    elif isinstance(value, tuple):
        yield from (("x",), (7,), [{"provider": "gemini"}])
    elif isinstance(value, str) and choices:
        yield from (one for one in choices if one != value)
    else:
        yield from ("x", 450.0, "2026-01-31", "http://127.0.0.1:9", "ws://127.0.0.1:9", "polymarket", "abc")


def changed(base: dict[str, Any], key: str, field: FieldInfo) -> Config | None:
    """The config with this key changed, however it can be; None: it cannot alone."""
    start = load(None, {}, dict(base))
    for other in others(at(start, key), field):
        try:
            found = load(None, {}, {**base, key: other})
        except ConfigError:
            continue
        if at(found, key) != at(start, key):
            return found
    return None


def at(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def numbers(config: Config) -> bytes:
    return msgspec.json.encode((run_params(config, "gemini", 1.0), maker_params(config)))


def test_every_key_is_either_put_in_force_or_refused():
    bare = {"market_selection.filters.min_price": 0.1, "market_selection.filters.max_price": 0.9, "strategy.max_usd": 100.0}
    seen = {True: 0, False: 0}
    for key, field in leaves().items():
        why, moved = reload.why_not(key), []
        for base in (bare, {**bare, **LIVE}):
            start, config = load(None, {}, dict(base)), changed(base, key, field)
            if config is None:
                continue
            moved.append(numbers(config) != numbers(start))
            found = {key for key, _, _ in reload._differences(start, config)}
            assert key in found, f"{key}: a change nobody is told of"
        if why:
            assert len(why) > 20 and ("start again" in why or "another --home" in why), key
        else:
            assert any(moved), f"{key} is allowed, and changes nothing that is put in force"
        seen[not why] += 1
    assert seen[True] > 80 and seen[False] > 80


def test_an_allowed_key_is_read_for_the_numbers_alone():
    """Nothing that a daemon is built of reads it elsewhere, where it would be read at the start only."""
    allowed = {key.rpartition(".")[2] for key in leaves() if not reload.why_not(key)}
    built_of = reached("app") - {"tuning", "reload"}
    assert {"seat", "twins", "mind", "llm.build", "venues.polymarket.orders.venue"} <= built_of
    found = set()
    for name in sorted(name for name in built_of if not name.startswith("config")):
        text = source(name).read_text()
        if "llm_maker.config" in text:
            nodes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute) and n.attr in allowed]
            found |= {f"{name}: {ast.unparse(n)}" for n in nodes if not re.search(r"params|state\.", ast.unparse(n))}
    assert not found
    assert "account_checkup" not in built_of and "risk.bankroll_usd" in source("account_checkup").read_text(), "it reads anew"


def source(name: str) -> Path:
    path = PACKAGE / name.replace(".", "/")
    return path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"


def reached(start: str) -> set[str]:
    """Every module of ours that this one imports, at its head or in a function, and what those import."""
    found: set[str] = set()
    left = [start]
    while left:
        name = left.pop()
        if name in found or not source(name).exists():
            continue
        found.add(name)
        for module, names in re.findall(r"from llm_maker(?:\.([\w.]+))? import (\([^)]*\)|[^\n]*)", source(name).read_text()):
            whole = re.findall(r"\w+", names)
            left += [module, *(f"{module}.{word}" for word in whole)] if module else whole
    return found


def test_a_key_that_nobody_has_thought_of_is_refused():
    assert "start again" in reload.why_not("brand_new.key") and reload.why_not("risk.max_market_pct") == ""


# The effects.


def between(daemon: app.Daemon, act: Callable[[float], None]) -> None:
    """Have `act` called between two events, with the market seconds that have passed."""
    deliver = daemon.session.deliver

    def delivered(ts: int, account: str, event: Event) -> None:
        deliver(ts, account, event)
        act((ts - daemon.world.start_ns) / NS_PER_S)

    daemon.session.deliver = delivered  # type: ignore[method-assign]


def state_of(home: Path) -> State:
    """A state with positions, and with quotes that rest."""
    kept: list[bytes] = []
    daemon = daemon_of(home, 150.0, None)

    def act(seconds: float) -> None:
        state = daemon.state
        resting = sum(order.status is Status.OPEN for order in state.orders.values())
        if seconds > 20 and not kept and len(state.held) > 1 and resting > 3 and not state.stopping:
            kept.append(checkpoint(state))

    between(daemon, act)
    run(daemon)
    return restore(kept[0], app.STRATEGIES["maker"])


def daemon_of(home: Path, until: float, file: Path | None, **settings: Any) -> app.Daemon:
    busy = {"seed": SEED, "paper.markets": 3, "paper.activity": 120.0, "strategy.decision_interval": 15.0}
    changes = {**busy, **{key.replace("__", "."): value for key, value in settings.items()}}

    def read() -> Config:
        return load(file, {}, changes)

    reader = reload.FileReader(file, read) if file else None
    return app.Daemon(read(), Secrets({}), home, app.Options(speed=0.0, until=until), lambda line: None, reader)


def run(daemon: app.Daemon) -> None:
    try:
        assert asyncio.run(daemon.run()), "a clean stop"
    finally:
        daemon.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return state_of(tmp_path_factory.mktemp("state"))


def with_risk(state: State, **numbers: Any) -> Any:
    return msgspec.structs.replace(state.params, risk=msgspec.structs.replace(state.params.risk, **numbers))


def test_looking_changes_nothing(state: State):
    before = checkpoint(state)
    reload.effects(state, with_risk(state, market_ratio=0.0001, max_position_milli=1_000, max_open_positions=1))
    assert checkpoint(state) == before


def test_orders_that_are_said_to_go_go(state: State):
    """What is told is what the engine does with the same numbers, on a copy."""
    told = 0
    for numbers in ({"market_ratio": 0.001}, {"max_order_cost": 3 * CASH_PER_USD}, {"max_position_milli": 12_000}):
        params = with_risk(state, **numbers)
        said = [line for line in reload.effects(state, params) if "our " in line]
        copy = restore(checkpoint(state), app.STRATEGIES["maker"])
        raw = msgspec.Raw(msgspec.json.encode(params)), msgspec.Raw(msgspec.json.encode(copy.strategy_params))
        made: list[AnyCommand] = Engine(copy, app.STRATEGIES["maker"]).on_event(copy.now, ParamsChanged(*raw, "test"))
        gone = {command.order_id for command in made if isinstance(command, CancelOrder)}
        named = {order for line in said for order in state.orders if f"({order})" in line}
        assert named <= gone and (named or not gone), numbers
        told += len(named)
    assert told > 0


@pytest.mark.parametrize(
    "numbers", [{"max_spread_usd": 0.0001}, {"min_liquidity_usd": 1e9}, {"edge_floor_ticks": 8.0}, {"interval_ns": 1}]
)
def test_quotes_that_the_strategys_new_numbers_move_are_told(state: State, numbers: dict[str, Any]):
    """No limit changes, and yet what rests goes or moves: exactly what the engine then cancels is named."""
    maker = msgspec.structs.replace(state.strategy_params, **numbers)
    before = checkpoint(state)
    said = [line for line in reload.effects(state, state.params, maker) if "our " in line]
    assert checkpoint(state) == before
    named = {order for line in said for order in state.orders if f"({order})" in line}
    copies = []
    for own in (state.strategy_params, maker):
        copy = restore(before, app.STRATEGIES["maker"])
        raw = msgspec.Raw(msgspec.json.encode(copy.params)), msgspec.Raw(msgspec.json.encode(own))
        made = Engine(copy, app.STRATEGIES["maker"]).on_event(copy.now, ParamsChanged(*raw, "test"))
        copies.append({command.order_id for command in made if isinstance(command, CancelOrder)})
    assert named == copies[1] - copies[0]
    assert bool(named) == ("interval_ns" not in numbers)


def test_a_stop_that_a_shorter_patience_lets_cross_is_told(state: State):
    copy = restore(checkpoint(state), app.STRATEGIES["maker"])
    market = copy.markets[copy.held[0]]
    assert market.exit_plan is not None
    market.exit_plan.exiting, market.exit_plan.started_ns = "stop", copy.now - 60 * NS_PER_S
    lines = reload.effects(copy, with_risk(copy, exit_patience_ns=30 * NS_PER_S))
    assert any("CROSSES THE SPREAD AT ONCE" in line for line in lines)
    assert not any("CROSSES" in line for line in reload.effects(copy, with_risk(copy, exit_patience_ns=90 * NS_PER_S)))
    exits = msgspec.structs.replace(copy.params, exits=msgspec.structs.replace(copy.params.exits, stop_ratio=0.01))
    assert any("keep the stop" in line for line in reload.effects(copy, exits))


def test_what_is_held_above_a_new_cap_is_named_with_its_numbers(state: State):
    held = state.markets[state.held[0]]
    most = abs(held.position.net) // 2 * 1_000 // 10**held.instrument.qty_decimals
    lines = reload.effects(state, with_risk(state, max_position_milli=max(most, 1)))
    assert any(held.instrument.question in line and "shares are held, the new cap is" in line for line in lines)


def test_a_loss_limit_that_is_passed_already_is_said_and_halts(state: State):
    copy = restore(checkpoint(state), app.STRATEGIES["maker"])
    copy.risk.day_base += 50 * CASH_PER_USD
    params = with_risk(copy, daily_loss_ratio=0.001)
    (line,) = [one for one in reload.effects(copy, params) if "HALTS" in one]
    assert "one UTC day" in line and "the new limit is $10.00" in line
    engine = Engine(copy, app.STRATEGIES["maker"])
    raw = msgspec.Raw(msgspec.json.encode(params)), msgspec.Raw(msgspec.json.encode(copy.strategy_params))
    engine.on_event(copy.now, ParamsChanged(*raw, "test"))
    engine.on_event(copy.now + 2 * NS_PER_S, Tick())
    assert "daily_loss" in copy.halts
    assert any("lifts none" in one for one in reload.effects(copy, with_risk(copy, daily_loss_ratio=0.5)))


@pytest.mark.parametrize(
    ("key", "value", "raises"),
    [
        ("risk.max_market_pct", 3.0, True),
        ("risk.max_market_pct", 1.0, False),
        ("risk.min_free_cash_pct", 30.0, False),
        ("risk.min_free_cash_pct", 10.0, True),
        ("risk.approve_above_usd", 5.0, False),
        ("live.max_order_shares", 8.0, True),
        ("live.max_order_shares", 4.0, False),
        ("live.daily_loss_usd", 15.0, False),
        ("live.daily_loss_usd", 19.0, True),
        ("strategy.skew_max_ticks", 9.0, False),
    ],
)
def test_what_may_be_lost_is_told_before_and_after(state: State, key: str, value: float, raises: bool):
    base = {**LIVE, "live.daily_loss_usd": 18.0}
    running, new = load(None, {}, dict(base)), load(None, {}, {**base, key: value})
    here = msgspec.structs.replace(state, params=run_params(running, "none", 1.0))
    found = reload.plan(running, lambda: new, here, "none", 1.0)
    assert found.raises_risk is raises and not found.refused and found.real_money
    if key == "risk.max_market_pct":
        (limit,) = found.limits
        assert (limit.name, limit.before, limit.after, limit.unit) == ("one market", 20.0, 10.0 * value, "usd")
    told = reload.told(found)
    assert json.loads(json.dumps(told)) == told
    assert all(line.isprintable() for line in reload_lines(told))


def test_live_without_a_bankroll_is_refused(state: State):
    running, new = load(None, {}, dict(LIVE)), load(None, {}, {**LIVE, "risk.bankroll_usd": None})
    found = reload.plan(running, lambda: new, state, "none", 1.0)
    assert [change.key for change in found.refused] == ["risk.bankroll_usd"]


# A running daemon.


class Ran:
    """A daemon that was reloaded in the midst of its run: what its desk said, and its journals."""

    def __init__(self, home: Path) -> None:
        self.home, self.file = home, home / "config.yaml"
        self.write({})
        self.said: dict[str, Any] = {}
        daemon = daemon_of(home, 90.0, self.file)
        steps = [(20, self._refusals), (25, self._broken), (30, self._in_force), (60, self._nothing_more)]

        def act(seconds: float) -> None:
            if steps and seconds > steps[0][0]:
                steps.pop(0)[1](daemon)

        between(daemon, act)
        run(daemon)
        assert not steps
        again = daemon_of(home, 10.0, self.file)
        self.restarted = again.state.params
        run(again)

    def write(self, tree: dict[str, Any]) -> None:
        self.file.write_text(yaml.safe_dump(tree))

    def ask(self, daemon: app.Daemon) -> dict[str, Any]:
        return daemon.seat.desk.answer("changes", {}, "test")

    def _refusals(self, daemon: app.Daemon) -> None:
        before = checkpoint(daemon.state)
        self.write({"risk": {"max_market_pct": 1.5}, "paper": {"entry_ms": 9}, "console": {"live_lines": 3}})
        self.said["unsafe"] = found = self.ask(daemon)
        self.said["unsafe_done"] = self._refused(daemon, found["plan"])
        self.write({"risk": {"max_market_pct": 1.25}})
        self.said["stale_done"] = self._refused(daemon, found["plan"])
        assert checkpoint(daemon.state) == before

    def _broken(self, daemon: app.Daemon) -> None:
        for text in ("risk: {max_market_pct: 300}", "risk: [", "rsik: {}"):
            self.file.write_text(text)
            with pytest.raises(Refused) as refused:
                self.ask(daemon)
            self.said.setdefault("broken", []).append(str(refused.value))

    def _in_force(self, daemon: app.Daemon) -> None:
        self.write({"risk": {"max_market_pct": 1.0}, "strategy": {"base_position_size": 20.0}})
        self.said["changes"] = found = self.ask(daemon)
        self.said["done"] = daemon.seat.desk.answer("reload", {"plan": found["plan"]}, "a test")

    def _nothing_more(self, daemon: app.Daemon) -> None:
        self.said["after"] = self.ask(daemon)
        self.said["params"] = daemon.state.params
        daemon.seat.desk.answer("reload", {"plan": self.said["after"]["plan"]}, "a test")

    @staticmethod
    def _refused(daemon: app.Daemon, plan: str) -> str:
        with pytest.raises(Refused) as refused:
            daemon.seat.desk.answer("reload", {"plan": plan}, "a test")
        return str(refused.value)

    def entries(self, account: str) -> list[Entry]:
        folder = next((self.home / "logs" / "journal").iterdir())
        return [entry for path in files(folder, account) for entry in read_journal(path)]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return Ran(tmp_path_factory.mktemp("reload"))


def test_what_is_unsafe_is_refused_whole_with_every_key(ran: Ran):
    found = ran.said["unsafe"]
    assert found["allowed"] is False and found["effects"] == []
    assert {change["key"]: change["allowed"] for change in found["changes"]} == {
        "risk.max_market_pct": True,
        "paper.entry_ms": False,
        "console.live_lines": False,
    }
    for word in ("nothing was changed", "paper.entry_ms", "another --home", "console.live_lines", "start again"):
        assert word in ran.said["unsafe_done"], word
    assert "has changed since it was shown" in ran.said["stale_done"]
    assert "\n" not in ran.said["unsafe_done"]


def test_a_broken_file_is_one_line_and_changes_nothing(ran: Ran):
    high, yaml_fault, typo = ran.said["broken"]
    assert "risk.max_market_pct is 300" in high and "not YAML" in yaml_fault and "did you mean 'risk'" in typo
    assert all("\n" not in line for line in ran.said["broken"])


def test_the_new_numbers_shape_every_order_from_one_event_on(ran: Ran):
    assert {change["key"] for change in ran.said["changes"]["changes"]} == {"risk.max_market_pct", "strategy.base_position_size"}
    assert ran.said["done"]["ok"] is True and ran.said["after"]["changes"] == []
    assert (ran.said["params"].risk.market_ratio, ran.said["params"].signals.base_milli) == (0.01, 20_000)
    assert any("20 shares in place of 50" in line for line in ran.said["changes"]["effects"])
    for account in ("main", "twin"):
        entries = ran.entries(account)
        (at,) = [n for n, entry in enumerate(entries) if isinstance(entry.event, ParamsChanged)]
        assert entries[at].event.who == "a test", "and no second one, of the restart or of a reload of nothing"
        sizes = [
            {
                command.qty
                for entry in part
                for command in entry.commands
                if isinstance(command, PlaceOrder) and not command.reduce_only
            }
            for part in (entries[:at], entries[at:])
        ]
        assert max(sizes[0]) == 50_000_000 // scale(entries) and max(sizes[1]) <= 1.5 * 20_000_000 // scale(entries), account
        assert msgspec.json.decode(entries[at].event.params, type=Params).risk.market_ratio == 0.01, account
    assert ran.restarted.risk.market_ratio == 0.01 and ran.restarted.signals.base_milli == 20_000


def scale(entries: list[Entry]) -> int:
    """Millionths of a share in a unit."""
    decimals = next(entry.event.instrument.qty_decimals for entry in entries if type(entry.event).__name__ == "InstrumentListed")
    return 10 ** (6 - decimals)


def test_the_journal_proves_itself(ran: Ran):
    assert lab.replay(next((ran.home / "logs" / "journal").iterdir()))["proved"]


def test_the_operators_notice_is_in_the_log(ran: Ran):
    told = [json.loads(line) for line in (ran.home / "logs" / "daemon.jsonl").read_text().splitlines()]
    assert sum("reload by a test" in json.dumps(line) for line in told) == 1


# The verb.


def verb(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *args: str, typed: str = "") -> tuple[Any, list[str]]:
    asked: list[str] = []

    def ask(home: Path, name: str, given: dict[str, Any]) -> dict[str, Any]:
        asked.append(name)
        return answer

    monkeypatch.setattr(cli_operate, "ask", ask)
    return CliRunner().invoke(cli.app, ["reload", *args], input=typed), asked


def an_answer(**over: Any) -> dict[str, Any]:
    change = {"key": "risk.max_market_pct", "before": "2.0", "after": "3.0", "allowed": True, "why": ""}
    limit = {"name": "one market", "before": 20.0, "after": 30.0, "unit": "usd", "raises": True}
    plain = {"ok": True, "plan": "abc", "changes": [change], "limits": [limit], "effects": ["m: is quoted again"]}
    return {**plain, "allowed": True, "raises_risk": True, "real_money": False, **over}


def test_the_verb_asks_and_real_money_wants_its_word(monkeypatch: pytest.MonkeyPatch):
    done, asked = verb(monkeypatch, an_answer(), typed="y\n")
    assert done.exit_code == 0 and asked == ["changes", "reload"] and "$20.00 -> $30.00" in done.stdout
    for typed in ("n\n", "yes\n", "live"[:3] + "\n"):
        no, asked = verb(monkeypatch, an_answer(real_money=True), typed=typed)
        assert no.exit_code == 1 and asked == ["changes"], typed
    live, asked = verb(monkeypatch, an_answer(real_money=True), typed="live\n")
    assert live.exit_code == 0 and asked == ["changes", "reload"]
    lower, asked = verb(monkeypatch, an_answer(real_money=True, raises_risk=False), typed="y\n")
    assert lower.exit_code == 0 and asked == ["changes", "reload"]
    sure, asked = verb(monkeypatch, an_answer(real_money=True), "--yes", "--json")
    assert sure.exit_code == 0 and asked == ["changes", "reload"] and json.loads(sure.stdout)["ok"]


def test_the_verb_checks_without_acting(monkeypatch: pytest.MonkeyPatch):
    shown, asked = verb(monkeypatch, an_answer(), "--check")
    assert shown.exit_code == 0 and asked == ["changes"]
    as_json, _ = verb(monkeypatch, an_answer(), "--check", "--json")
    assert json.loads(as_json.stdout)["plan"] == "abc"
    no = {"key": "seed", "before": "1", "after": "2", "allowed": False, "why": "made of it; stop"}
    refused, asked = verb(monkeypatch, an_answer(changes=[no], allowed=False), "--yes")
    assert refused.exit_code == 1 and asked == ["changes"] and "seed" in refused.stderr and "made of it" in refused.stdout
    same, asked = verb(monkeypatch, an_answer(changes=[], limits=[], effects=[]), "--yes")
    assert same.exit_code == 0 and asked == ["changes"] and "nothing has changed" in same.stdout
