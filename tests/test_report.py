"""`report` as a person types it, on homes that the daemon made: text, JSON, CSV, a page, signals, homes side by side, refusals."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from llm_maker.cli import app
from llm_maker.home_report import compared, gather
from llm_maker.report.account import HORIZONS
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.rows import Scope
from tests.test_scopes import run

OLD_KEYS = {
    "venue", "mode", "wallet", "account", "simulated", "equity_usd", "pnl_usd", "pnl_exit_usd", "pnl_split_usd", "llm_cost_usd",
    "counts", "fills", "failed_settlements", "round_trips", "winning_round_trips", "decisions", "positions", "refusals",
    "quoted_seconds", "names", "opinions",
}  # fmt: skip


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Two homes of other seeds, some market minutes each, a placebo in the second; nobody writes into them."""
    folder = tmp_path_factory.mktemp("homes")
    for name, seed, seconds in (("one", "1", 320), ("two", "7", 60)):
        env = {"LLM_MAKER__SEED": seed, "LLM_MAKER__TWIN__PLACEBO": str(name == "two"), "LLM_MAKER__PAPER__ACTIVITY": "150"}
        done = run(folder / name, "--until", seconds, **env)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def backtested(homes, tmp_path):
    """A home whose last backtest is what the first home did."""
    place = tmp_path / "logs" / "backtest"
    place.mkdir(parents=True)
    shutil.copy(homes / "one" / "positions" / "ledger.sqlite3", place / "ledger.sqlite3")
    shutil.copy(homes / "one" / "logs" / "llm_decisions.jsonl", place / "llm_decisions.jsonl")
    return tmp_path


def report(*args):
    return CliRunner().invoke(app, ["report", *map(str, args)])


def told(*args):
    done = report(*args)
    assert done.exit_code == 0, done.output
    return done.stdout


def data(*args):
    return json.loads(told(*args, "--json"))


def test_the_text_says_what_it_is_closes_and_ends_with_the_twin(homes):
    text = told("--home", homes / "one")
    assert text.startswith("main on simulated, PAPER money, SIMULATED market, 2026-01-01")
    assert text.count("the parts add up to it exactly") == 2 and "NO VERDICT" in text
    assert text.index("main on simulated") < text.index("twin on simulated") < text.index("main less twin")
    assert "what the model was worth" in text and "net of the model's cost" in text and "no verdict: too few days" in text
    assert text.count("by market") == 1, "of the twin only what it earned"
    assert max(map(len, text.splitlines())) <= 140
    shown = re.search(r"1 d +(\S+) +\S+ +0 of (\d+)", text)
    assert shown and shown.group(1) == "n/a" and int(shown.group(2)) > 0


def test_the_printed_parts_add_up_to_the_printed_profit(homes):
    block = told("--home", homes / "one").split("\n\n")[0]
    lines = {name.strip(): float(usd) for name, usd in re.findall(r"^ {2,4}(\S[\w &]*?) {2,}([+-][\d.]+)", block, re.M)}
    parts = ("capture", "markout 60 s", "inventory", "fees", "rebates", "rewards", "rounding")
    assert sum(lines[part] for part in parts) == pytest.approx(lines["P&L at mid"], abs=5e-6)


def test_json_has_the_old_keys_and_the_new(homes):
    found = data("--home", homes / "one")
    main, twin = found["accounts"]
    assert [main["account"], twin["account"]] == ["main", "twin"] and main["simulated"] is True
    assert set(main) >= OLD_KEYS | {"identity_usd", "ratios", "by", "terms"}
    split = main["identity_usd"]
    assert split["closes"] is True and split["pnl"] == pytest.approx(main["pnl_usd"], abs=1e-9)
    assert list(split["horizons"]) == list(HORIZONS.values())
    for after in split["horizons"].values():
        rest = sum(split[name] for name in ("capture", "unknown", "fees", "rebates", "rewards", "funding", "rounding"))
        assert rest + (after["markout_usd"] or 0) + after["inventory_usd"] == pytest.approx(split["pnl"], abs=1e-9)
    assert split["horizons"]["1 d"]["markout_usd"] is None
    for rows in main["by"].values():
        assert sum(row["fills"] for row in rows) == main["fills"] > 0
    (pair,) = found["compared"]
    assert (pair["first"], pair["second"], pair["verdict"], pair["why"]) == ("main", "twin", None, "too few days")
    cost = main["llm_cost_usd"]
    assert pair["total_usd"] == pytest.approx(main["pnl_usd"] - twin["pnl_usd"] - cost, abs=1e-6)


def test_csv_says_the_same_as_json_and_leaves_empty_what_is_not_known(homes, tmp_path):
    wrote = told("--home", homes / "one", "--csv", tmp_path / "new" / "tables").splitlines()
    assert len(wrote) == 6 and all(line.startswith("wrote ") for line in wrote)
    found = data("--home", homes / "one")

    def rows(name):
        with (tmp_path / "new" / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    money = {(row["account"], row["line"]): float(row["usd"]) for row in rows("pnl")}
    markouts = {(row["account"], row["horizon"]): row["markout_usd"] for row in rows("markouts")}
    for each in found["accounts"]:
        name, split = each["account"], each["identity_usd"]
        assert {line for who, line in money if who == name} <= set(split)
        assert all(split[line] == usd for (who, line), usd in money.items() if who == name)
        for horizon, after in split["horizons"].items():
            assert markouts[name, horizon] == ("" if after["markout_usd"] is None else str(after["markout_usd"]))
    groups = [row for row in rows("groups") if (row["account"], row["by"]) == ("main", "market")]
    assert sum(int(row["fills"]) for row in groups) == found["accounts"][0]["fills"]
    assert [row["sharpe"] for row in rows("ratios")] == ["", ""] and {row["simulated"] for row in rows("ratios")} == {"True"}
    assert float(rows("compared")[0]["total_usd"]) == found["compared"][0]["total_usd"]
    assert {row["reason"] for row in rows("refusals")} == {reason for each in found["accounts"] for reason in each["refusals"]}


def test_the_page_stands_alone_and_names_both_accounts(homes, tmp_path):
    assert told("--home", homes / "one", "--html", tmp_path / "a" / "page.html") == f"wrote {tmp_path}/a/page.html\n"
    text = (tmp_path / "a" / "page.html").read_text(encoding="utf-8")
    assert "SIMULATED" in text and "main − twin" in text and "After the fills" in text and "skew, with" in text
    assert not re.findall(r"""<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", text)
    assert not re.findall(r"""url\(\s*["']?(?:https?:)?//|@import""", re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    assert "default-src 'none'" in text


def test_signals_are_those_of_the_account_that_asked(homes, backtested):
    text = told("--home", homes / "one", "--signals")
    assert text.startswith("main on simulated, PAPER money, SIMULATED market\n") and "twin" not in text
    assert "simulated(R2=" in text and "by action" in text and "by confidence" in text and "by model" in text
    (main,) = data("--home", homes / "one", "--signals")["accounts"]
    groups = {(g["heading"], g["name"]): g for g in main["groups"]}
    ledger = Ledger.open(homes / "one" / "positions" / "ledger.sqlite3")
    used = [f for f in ledger.forecasts(Scope("simulated", "paper", "paper", "main")) if f.role == "used"]
    ledger.close()
    everything = groups["all", "all"]
    assert main["simulated"] is True and everything["signals"] == len(used) > 0
    for heading in ("action", "confidence", "model"):
        assert sum(g["signals"] for g in main["groups"] if g["heading"] == heading) == len(used)
    assert ("action", "not on record") not in groups, "the decision log has them all"
    assert everything["cells"]["5 min"]["known"] > 0 and everything["cells"]["5 min"]["cents"] is not None
    assert everything["cells"]["1 d"] == {"known": 0, "moved": 0, "hits": None, "cents": None, "limits": None, "event_days": 0}
    assert told("--home", backtested, "--backtest", "--signals") == text


def test_a_placebo_is_compared_and_its_opinions_are_not_counted_again(homes):
    found = data("--home", homes / "two")
    assert [each["account"] for each in found["accounts"]] == ["main", "placebo", "twin"]
    assert [(p["first"], p["second"], p["variants"]) for p in found["compared"]] == [("main", "twin", 2), ("main", "placebo", 2)]
    assert "whose opinions were dealt to the wrong markets" in told("--home", homes / "two")
    ledger = Ledger.open(homes / "two" / "positions" / "ledger.sqlite3")
    assert ledger.forecasts(Scope("simulated", "paper", "paper", "placebo")), "it has its own record of what it heard"
    ledger.close()
    assert [each["account"] for each in data("--home", homes / "two", "--signals")["accounts"]] == ["main"]


def test_the_last_backtest_of_a_home(homes, backtested):
    assert told("--home", backtested, "--backtest") == told("--home", homes / "one")
    assert report("--home", backtested).exit_code == 1, "the home itself has traded nothing"


def test_homes_side_by_side(homes, backtested):
    one, two = homes / "one", homes / "two"
    text = told(one, two)
    assert f"{one} less {two}" in text and "markets in common: 0 of" in text and "says nothing of the strategies" in text
    found = data(one, two)
    (pair,) = found["compared"]
    split = {name: each["split"]["pnl"] for name, each in found["homes"].items()}
    assert (pair["first"], pair["second"], pair["common_markets"]) == (str(one), str(two), 0) and set(split) == {str(one), str(two)}
    assert split[str(one)] != split[str(two)] and pair["verdict"] is None
    both = tuple(backtested / name for name in ("a", "b"))
    for each in both:
        shutil.copytree(backtested / "logs", each / "logs")
    same = told(*both, "--backtest")
    assert "+0.00 USD in 0.0 days" in same and "says nothing of the strategies" not in same


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--signals", "--fills"], 2, "--signals and --fills exclude one another"),
        (["--signals", "--html", "x.html"], 2, "--html goes with the report of a home, not with --signals"),
        (["--fills", "--backtest"], 2, "--backtest goes with the report of a home, not with --fills"),
        (["{one}", "{two}", "--csv", "x"], 2, "--csv goes with the report of a home, not with DIR1 DIR2"),
        (["{one}"], 2, "one home alone is reported with --home"),
        (["{one}", "{one}/../one"], 2, "one home is named twice"),
        (["{one}", "{none}"], 2, "nothing has been traded there yet"),
        (["--seed", "3"], 2, "--seed goes with --forecasts FILE"),
        (["--home", "{one}", "--fills"], 2, "no live account with its paper copy here"),
        (["--home", "{none}"], 1, "nothing has been traded here yet; `llm-maker run` first"),
        (["--home", "{one}", "--backtest"], 1, "no backtest has been run here yet"),
        (["--home", "{none}", "--signals"], 1, "no model has said anything here yet"),
        (["--home", "{one}", "--csv", "{file}"], 1, "exists"),
        (["--home", "{one}", "--html", "{none}"], 1, "directory"),
        (["--home", "{broken}"], 2, "ledger"),
        (["--home", "{three}"], 0, ""),
        (["{three}", "{one}"], 2, "2 accounts, and one is wanted"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals_are_one_line_with_the_cure(homes, tmp_path, args, code, words):
    places = {name: tmp_path / name for name in ("none", "broken", "three")} | {"one": homes / "one", "two": homes / "two"}
    places["file"] = tmp_path / "file"
    places["file"].write_text("mine")
    places["none"].mkdir()
    (places["broken"] / "positions").mkdir(parents=True)
    (places["broken"] / "positions" / "ledger.sqlite3").write_bytes(b"no database" * 500)
    (places["three"] / "positions").mkdir(parents=True)
    shutil.copy(homes / "one" / "positions" / "ledger.sqlite3", places["three"] / "positions")
    ledger = Ledger.open(places["three"] / "positions" / "ledger.sqlite3")
    ledger.remember(Scope("polymarket", "paper", "paper", "main"), {"start_ns": "1"})
    ledger.close()
    done = report(*(arg.format(**places) for arg in args))
    assert done.exit_code == code, done.output
    if code:
        assert done.stdout == "" and len(done.stderr.strip().splitlines()) == 1 and words in done.stderr, done.stderr
        assert "fault of our own" not in done.stderr
    assert places["file"].read_text() == "mine"


def test_a_shadow_belongs_to_the_account_of_its_own_venue_and_wallet(homes):
    tracks = gather(homes / "one").tracks
    assert [(p.first, p.second) for p in compared(tracks)] == [("main", "twin")]
    for label in ({"venue": "polymarket"}, {"wallet": "0xabc"}):
        tracks = gather(homes / "one").tracks
        tracks[1].label |= label
        assert compared(tracks) == []


def test_a_reader_that_has_seen_enough_is_no_fault(homes):
    """`report | head`: the pipe closes before all is written."""
    command = [sys.executable, "-m", "llm_maker", "report", "--home", str(homes / "one")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.wait(60), process.stderr.read()) == (0, b"")
