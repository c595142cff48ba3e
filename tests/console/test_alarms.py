"""The table of alarms is whole; each alarm comes of its real cause, and reaches a webhook once; what stands is told as it is."""

from __future__ import annotations

import ast
import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_maker.config_console import Alerts as Settings
from llm_maker.console import alarms as module
from llm_maker.console.alarms import DAY_NS, LATELY_NS, MOST_LATELY, RULES, cure_of, markdown
from llm_maker.console.alerts import Alerts
from llm_maker.core import events as ev
from llm_maker.core.commands import Level, Notice
from llm_maker.core.values import NS_PER_S, Leg, Side
from llm_maker.runtime.daemon_log import DaemonLog
from tests.console.causes import CASES, alarms_of, watched
from tests.console.webhook import Webhook
from tests.core.builders import SHARE, T0, Rig, of
from tests.core.test_account import FOREIGN_ORDER, doubtful, snapshot

ROOT = Path(__file__).resolve().parents[2]
WIRED = {"control", "log", "ledger", "twin", "fault", "restarted_after_crash", "http", "chat"}
"""Raised by a whole daemon: test_alerts_daemon.py."""
PROVED = {"llm", "news", "discovery", "venue", "account"}
"""Raised by a whole daemon and a fake of a venue or of a model: the same, at full size."""


# The table.


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


PLACES = {"notice": (1, 3), "Notice": (1, 3), "say": (1, 3), "_say": (1, 3), "_emit": (1, 3), "halt": (0, 3), "_limit": (1, 5)}
"""Function -> (where its code stands, how many arguments it has at least)."""
SPEAKS = re.compile(rf"\b({'|'.join(PLACES)}|_from|loaded)\(")
FORWARDED = {"code", "notice.code", "told.code"}
"""A code that was given a name elsewhere."""


def codes_of(tree: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """(function, the expression of its code) of every call that says something."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name == "_from" and node.args:
            yield name, node.args[0]
        if name in PLACES and len(node.args) >= PLACES[name][1]:
            yield name, node.args[PLACES[name][0]]
        if name == "_limit" and len(node.args) >= 5 and ast.unparse(node.args[4]) != "FOREVER":
            yield "over", node.args[1]
        if name == "loaded" and len(node.args) == 3:
            yield "loaded", node.args[2]


def said_in_the_source() -> tuple[set[str], set[str]]:
    """All codes, and the expressions that are none yet."""
    codes: set[str] = set()
    computed: set[str] = set()
    texts = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "llm_maker").rglob("*.py"))]
    for text in filter(SPEAKS.search, texts):
        for name, node in codes_of(ast.parse(text)):
            plain = _text(node)
            match name:
                case _ if plain is None:
                    computed.add(ast.unparse(node))
                case "halt" | "_limit":
                    codes.add(f"halt_{plain}")
                case "over":
                    codes.add(f"halt_{plain}_over")
                case "loaded":
                    codes.add(f"halt_unknown_{plain}")
                case _:
                    codes.add(str(plain))
    return codes, computed


def test_the_table_has_every_code_that_the_program_can_say_and_no_other():
    codes, computed = said_in_the_source()
    known = {
        "f'halt_{name}'",
        "f'halt_{name}_over'",
        "f'operator_{event.verb.value}'",
        "f'exit_{reason}'",
        "f'unknown_{what}'",
        "name",
    }
    assert computed - FORWARDED == known, "a code that is put together in a new way: teach this test its values"
    codes |= {f"operator_{verb.value}" for verb in ev.Verb} | {f"exit_{reason}" for reason in ("stop", "target", "deadline")}
    assert codes - set(RULES) == set(), "said, but not in the table"
    assert set(RULES) - codes == set(), "in the table, but never said"


def test_every_rule_says_what_it_means_what_is_done_and_what_helps():
    for code, rule in RULES.items():
        assert rule.title and rule.does and rule.cure, code
        assert rule.cure.count("`") % 2 == 0 and "|" not in rule.title + rule.does + rule.cure, code


def test_the_cures_name_verbs_that_there_are():
    from typer.main import get_command

    from llm_maker import cli

    verbs = set(get_command(cli.app).commands)  # type: ignore[attr-defined]
    named = {verb for rule in RULES.values() for verb in re.findall(r"`llm-maker ([a-z-]+)", rule.cure)}
    assert named and named <= verbs, named - verbs


def test_a_cure_names_the_market():
    assert "`llm-maker why 0xabc`" in cure_of("order_rejected", "0xabc") and "MARKET" in cure_of("order_rejected")
    assert cure_of("nobody knows this") == ""


def test_the_page_of_alarms_is_made_from_the_table():
    assert (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8") == markdown(), (
        "stale: python -m llm_maker.console.alarms > docs/alarms.md"
    )


# Each alarm by its real cause, once.


def test_every_alarm_that_is_sent_has_a_cause_here():
    assert set(CASES) | WIRED | PROVED == {code for code, rule in RULES.items() if rule.sent}


@pytest.fixture(scope="module")
def received(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """All causes, each with an ear of its own, side by side; the path of the address tells them apart."""
    folder = tmp_path_factory.mktemp("logs")

    async def all_of_them(hook: Webhook) -> None:
        ears = {}
        for code, made in CASES.items():
            log = DaemonLog(folder / f"{code}.jsonl", (), "error", lambda line: None)
            ears[code] = Alerts(Settings(max_per_hour=1_000), hook.url(code), f"{code} on v, PAPER", log.say)
            log.also = ears[code].hear
            for notice in made():
                log.notice(T0, notice)
            log.close()
        tasks = [asyncio.create_task(ear.run(lambda event: None)) for ear in ears.values()]
        await asyncio.sleep(0)
        await asyncio.gather(*(ear.farewell(30.0) for ear in ears.values()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with Webhook() as hook:
        asyncio.run(all_of_them(hook))
        yield hook


@pytest.mark.parametrize("code", sorted(CASES))
def test_an_alarm_comes_of_its_cause_and_arrives_once(received: Webhook, code: str):
    ((title, body),) = received.got(code, f"/{code}")
    assert f"[{code} on v, PAPER]" in title and RULES[code].title in title
    assert title.split()[0] in ("ERROR", "WARNING", "INFO")
    assert f"what to do: {cure_of(code, 'm')}" in body or f"what to do: {cure_of(code)}" in body
    assert "2026-01-01 00:00:00 UTC" in body


def test_the_summary_of_a_day_has_its_numbers():
    (told,) = [n for n in CASES["daily_summary"]() if n.code == "daily_summary"]
    for words in (
        "2026-01-01 (paper money): P&L $0.00",
        "in all $0.00",
        "0 fills (since the start at 23:59 UTC)",
        "+$0.25",
        "halts: none",
    ):
        assert words in told.text, told.text


def test_a_day_is_told_once_and_its_money_is_by_the_bases_of_the_limits():
    rig = Rig(now=T0 + DAY_NS - 30 * NS_PER_S).start()
    alarms = alarms_of(rig)
    watched(rig, alarms, 5)
    rig.hold(Side.BUY, 5100, 100 * SHARE)
    rig.send(ev.CashMoved(ev.CashKind.TRANSFER, 5_000_000))
    rig.move(5000)
    first = [n for n in watched(rig, alarms, 60) if n.code == "daily_summary"]
    rig.now = T0 + 2 * DAY_NS - 5 * NS_PER_S
    second = [n for n in watched(rig, alarms, 20) if n.code == "daily_summary"]
    assert len(first) == len(second) == 1
    assert "P&L -$1.00, in all -$1.00" in first[0].text, first[0].text
    assert (
        "2026-01-02" in second[0].text and "P&L $0.00, in all -$1.00" in second[0].text and "since the start" not in second[0].text
    )


def test_no_summary_where_none_is_wanted():
    rig = Rig(now=T0 + DAY_NS - 5 * NS_PER_S).start()
    assert [n for n in watched(rig, alarms_of(rig, daily=False), 20) if n.code == "daily_summary"] == []


# Orders and trouble.


def test_an_order_that_is_unknown_for_too_long_is_told_once_with_its_id():
    rig = doubtful()
    order = rig.one().order_id
    told = [n for n in watched(rig, alarms_of(rig), 200) if n.code == "unknown_too_long"]
    assert len(told) == 1 and order in told[0].text and told[0].instrument == "m" and told[0].level is Level.WARNING


def test_an_order_whose_fate_is_told_in_time_is_no_alarm():
    rig = doubtful()
    alarms = alarms_of(rig)
    told = watched(rig, alarms, 50)
    rig.send(ev.OrderLookedUp(rig.one().order_id, "open"))
    told += watched(rig, alarms, 60)
    assert [n.code for n in told if n.code == "unknown_too_long"] == []


def test_a_trouble_that_is_soon_over_is_told_to_nobody():
    rig = Rig().start()
    alarms = alarms_of(rig)
    told: list[Notice] = []
    for _ in range(4):
        rig.send(ev.VenueDown("v", "closed"))
        told += watched(rig, alarms, 20, alive=False)
        rig.send(ev.VenueUp("v", True))
        rig.book()
        told += watched(rig, alarms, 20)
    assert {n.code for n in told} & {"trouble_lasts", "trouble_over"} == set()


def test_a_stop_is_no_trouble():
    rig = Rig().start()
    rig.send(ev.StopRequested("test"), ev.VenueDown("v", "closed"))
    assert "trouble_lasts" not in {n.code for n in watched(rig, alarms_of(rig), 90, alive=False)}


def test_a_budget_is_told_at_four_fifths_and_when_it_is_gone_each_once_a_day():
    rig = Rig().start()
    spent = [0.0]
    alarms = alarms_of(rig, budgets=lambda: {"models": (spent[0], 1.0)})
    codes = []
    for now in (0.5, 0.81, 0.99, 1.0, 1.01, 0.0, 0.85):
        spent[0] = now
        codes += [n.code for n in alarms.look()]
    assert codes == ["budget_nearly_spent", "budget_spent", "budget_nearly_spent"]


# The board.


def board(rig: Rig, alarms: module.Alarms) -> dict[tuple[str, str], Any]:
    return {(a["code"], a["market_id"]): a for a in alarms.board()}


def test_what_stands_is_on_the_board_until_it_is_over_and_then_for_a_day():
    rig = Rig().start()
    alarms = alarms_of(rig)
    since = rig.now
    for notice in of(rig.send(ev.VenueDown("v", "closed")), Notice):
        alarms.hear(rig.now, notice)
    rig.wait(9)
    (shown,) = alarms.board()
    assert shown["standing"] and shown["code"] == "venue_down" and shown["level"] == "warning" and "closed" in shown["text"]
    assert shown["since_ns"] >= since and shown["count"] == 1 and shown["cure"] == cure_of("venue_down")
    rig.send(ev.VenueUp("v", True))
    (was,) = alarms.board()
    assert not was["standing"] and was["code"] == "venue_down" and was["since_ns"] == since
    rig.now += LATELY_NS + 1
    rig.run(1)
    assert ("venue_down", "") not in board(rig, alarms)


@pytest.mark.parametrize(
    ("code", "market", "level", "events"),
    [
        ("halt_kill", "", "error", [ev.OperatorActed(ev.Verb.KILL, "test")]),
        ("stopping", "", "warning", [ev.StopRequested("test")]),
        ("operator_pause", "", "info", [ev.OperatorActed(ev.Verb.PAUSE, "test")]),
        ("operator_pause", "m", "info", [ev.OperatorActed(ev.Verb.CANCEL_ALL, "test", "m")]),
        ("operator_reduce", "", "info", [ev.OperatorActed(ev.Verb.REDUCE, "test")]),
        ("foreign_order", "", "warning", [snapshot(orders=[FOREIGN_ORDER])]),
        ("halt_storage", "", "error", [ev.StorageFailed("the journal", "full")]),
        ("account_stream", "", "warning", [ev.AccountStreamDown("v", "closed")]),
        ("loop_delay", "", "warning", [ev.LoopDelayed(3 * NS_PER_S)]),
        ("regime", "", "warning", [ev.RegimeChanged("v", ev.Regime.CLOSED)]),  # type: ignore[attr-defined]
    ],
)
def test_what_the_state_says_stands_on_the_board(code: str, market: str, level: str, events: list[ev.Event]):
    rig = Rig().start()
    alarms = alarms_of(rig)
    assert alarms.board() == []
    rig.send(*events)
    shown = board(rig, alarms)[code, market]
    assert shown["standing"] and shown["level"] == level and shown["text"] and shown["cure"]


def test_drift_stands_while_shares_are_missing():
    rig = Rig().start()
    rig.hold(Side.BUY, 5000, 40 * SHARE)
    rig.send(snapshot(("m", Leg.YES, 30 * SHARE)))
    assert board(rig, alarms_of(rig))["drift", ""]["since_ns"] == rig.now


def test_unknown_orders_stand_by_market():
    rig = doubtful()
    alarms = alarms_of(rig)
    watched(rig, alarms, 65)
    assert rig.one().order_id in board(rig, alarms)["unknown_too_long", "m"]["text"]


def test_lately_is_counted_bounded_and_newest_first():
    rig = Rig().start()
    alarms = alarms_of(rig)
    for n in range(3 * MOST_LATELY):
        alarms.hear(rig.now + n, Notice(Level.WARNING, "gap", "book emptied", f"m{n}"))
    for n in range(3):
        alarms.hear(rig.now + n, Notice(Level.ERROR, "overfill", f"again {n}", "m"))
    alarms.hear(rig.now, Notice(Level.INFO, "redeemed", "no alarm", "m"))
    shown = alarms.board()
    assert len(shown) == MOST_LATELY
    assert (shown[0]["code"], shown[0]["count"], shown[0]["text"]) == ("overfill", 3, "again 2")
    assert shown[1]["market_id"] == f"m{3 * MOST_LATELY - 1}"


def test_a_person_who_resumes_has_seen_what_was():
    rig = Rig().start()
    alarms = alarms_of(rig)
    for market in ("m", "n"):
        alarms.hear(rig.now, Notice(Level.WARNING, "gap", "book emptied", market))
    alarms.hear(rig.now, Notice(Level.WARNING, "operator_resume", "resume", "m"))
    assert [a["market_id"] for a in alarms.board()] == ["n"]
    alarms.hear(rig.now, Notice(Level.WARNING, "operator_resume", "resume"))
    assert alarms.board() == []


def test_the_ledgers_thread_may_speak_while_the_board_is_made():
    rig = Rig().start()
    alarms = alarms_of(rig)

    def speak(market: str) -> None:
        for _ in range(150):
            alarms.hear(rig.now, Notice(Level.ERROR, "ledger", "x", market))

    talk = [threading.Thread(target=speak, args=(f"m{n}",)) for n in range(4)]
    for thread in talk:
        thread.start()
    for _ in range(50):
        alarms.board()
    for thread in talk:
        thread.join()
    assert sum(a["count"] for a in alarms.board()) == 600
