"""`/metrics` of a daemon that has run: what it says is what the board says, and the dashboard asks for nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from llm_maker.console import metrics
from tests.console.http_client import ran, serving

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = ("_usd", "_seconds", "_bytes", "_shares", "_total")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("metrics")


async def scraped(home: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the board, families by name) of a short run, scraped over HTTP with the reading key."""
    daemon = await ran(home)
    async with serving(home, daemon.seat.desk) as served:
        board = (await served.ask("GET", "/api/board")).json
        got = await served.ask("GET", "/metrics", key="http_read_key")
    daemon.close()
    assert got.status == 200 and got.headers["content-type"].startswith("text/plain; version=0.0.4")
    return board, families(got.body)


def families(text: bytes) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text.decode())}


def value(found: dict[str, Any], name: str, **labels: str) -> float:
    (number,) = [s.value for s in found[name].samples if labels.items() <= s.labels.items()]
    return number


async def test_a_scrape_says_what_the_board_says_and_the_dashboard_asks_for_nothing_else(home: Path):
    board, found = await scraped(home)
    assert value(found, "llm_maker_equity_usd") == board["money"]["equity"]
    assert value(found, "llm_maker_fills") == board["counts"]["fills"] > 0
    assert value(found, "llm_maker_orders_open") == board["orders"]
    assert value(found, "llm_maker_real_money") == 0 and value(found, "llm_maker_simulated") == 1
    assert {s.labels["mode"]: s.value for s in found["llm_maker_mode"].samples}[board["mode"]] == 1
    assert sum(s.value for s in found["llm_maker_mode"].samples) == 1
    row = next(row for row in board["rows"] if row["position"])
    assert value(found, "llm_maker_market_position_shares", market_id=row["market_id"]) == row["position"]
    assert value(found, "llm_maker_resident_memory_bytes") > 1 << 20
    for name, family in found.items():
        assert name.startswith("llm_maker_") and family.documentation and family.type in ("gauge", "counter"), name
        assert all(s.name.endswith("_total") == (family.type == "counter") for s in family.samples), name
        assert name.endswith(UNITS) or not re.search(r"(_ms|_mb|_s|_usd_total)$", name), name
    offered = {s for name, family in found.items() for s in (name, *(sample.name for sample in family.samples))}
    asked = _asked()
    assert len(asked) > 30 and asked <= offered, asked - offered


def _board() -> dict[str, Any]:
    """The smallest board there is: everything that may be unknown is."""
    return {
        "version": "1", "account": 'a"b\\c\nd', "venue": "v", "provider": "none", "real_money": True, "simulated": False,
        "now_ns": 0, "mode": "halted", "money": {"equity": 1.5, "model_cost": -0.0, "today": None, "fees": 1e9}, "orders": 0,
        "unknown_orders": ["x"], "slow_loop": {"mode": "rules only", "cause": ""}, "foreign_orders": 0, "intents": [],
        "twin": None, "health": {}, "alarms": [], "counts": dict.fromkeys(metrics._COUNTS, 0), "refused": {}, "venues": {},
        "rows": [],
    }  # fmt: skip


def _row(n: int) -> dict[str, Any]:
    unknown = dict.fromkeys(metrics._MARKET)
    return unknown | {"market_id": f"m{n}", "question": f"\x1b[31m{n}\n" * 99, "mode": "active", "our_bid": 0.4, "our_ask": 0}


def test_what_is_not_known_is_left_out_and_never_a_zero():
    found = families(b"".join(metrics.parts(_board())))
    for name in ("pnl_today_usd", "twin_difference_usd", "loop_delay_seconds", "cash_usd", "venue_up", "alarms", "refusals"):
        assert found[f"llm_maker_{name}"].samples == [], name
    assert found["llm_maker_info"].samples[0].labels["account"] == 'a"b\\c\nd', "escaped"


def test_labels_are_bounded_and_words_from_outside_are_one_plain_line():
    board = _board() | {
        "rows": [_row(n) for n in range(1_000)],
        "refused": {f"r{n}": n for n in range(1_000)},
        "alarms": [{"code": f"c{n}", "level": "warning", "standing": True} for n in range(1_000)],
    }
    found = families(b"".join(metrics.parts(board)))
    assert max(len(family.samples) for family in found.values()) == metrics.MAX_MARKETS
    assert len(found["llm_maker_refusals"].samples) == len(found["llm_maker_alarms"].samples) == metrics.MAX_LABELS
    assert value(found, "llm_maker_markets", mode="active") == 1_000, "what is cut can be seen"
    questions = {s.labels["question"] for s in found["llm_maker_market_info"].samples}
    assert all(q.isprintable() and len(q) <= 80 for q in questions)
    assert value(found, "llm_maker_market_quoted_sides", market_id="m7") == 1


def test_alarms_that_are_over_do_not_count():
    over = {"code": "lag", "level": "warning", "standing": False}
    found = families(b"".join(metrics.parts(_board() | {"alarms": [over, over | {"standing": True}, over | {"standing": True}]})))
    assert value(found, "llm_maker_alarms", code="lag") == 2


def test_nothing_of_ours_enters_the_registry_of_the_process():
    b"".join(metrics.parts(_board()))
    assert not [family.name for family in REGISTRY.collect() if family.name.startswith("llm_maker")]


# What is shipped beside it.


def _dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana.json").read_text())


def _expressions() -> list[str]:
    board = _dashboard()
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    found += [each["expr"] for each in board["annotations"]["list"]]
    return found + [each["query"]["query"] for each in board["templating"]["list"] if each["type"] == "query"]


def _asked() -> set[str]:
    return {name for text in _expressions() for name in re.findall(r"llm_maker_\w+", text)}


def test_the_dashboard_is_whole():
    board = _dashboard()
    panels = board["panels"]
    assert (
        board["uid"] and board["schemaVersion"] >= 36 and {v["name"] for v in board["templating"]["list"]} == {"source", "instance"}
    )
    assert len({panel["id"] for panel in panels}) == len(panels)
    titles = [panel["title"] for panel in panels if panel["type"] != "row"]
    assert len(set(titles)) == len(titles) > 20
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, f"{panel['title']} lies on another"
        taken |= cells
        if panel["type"] != "row":
            assert panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] and panel["datasource"]["uid"] == "${source}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for text in _expressions():
        for opening, closing in ("()", "[]", "{}"):
            assert text.count(opening) == text.count(closing), text
        assert "label_values" in text or text.count("llm_maker_") == text.count('instance=~"$instance"'), text
        assert not re.search(r"(rate|increase|changes)\(llm_maker_\w+(?<!_total)\{", text), f"a gauge has no rate: {text}"


def test_the_sample_scrape_asks_as_the_server_wants_it():
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] == "/metrics" and job["authorization"]["type"] == "Bearer"
    assert "credentials" not in job["authorization"] and job["authorization"]["credentials_file"].endswith("read_key")
    assert job["static_configs"] == [{"targets": ["127.0.0.1:8787"]}]
