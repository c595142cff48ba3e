"""Every benchmark runs at its smallest size and gives its rows; no test looks at a time. The proof keeps and resumes."""

import json
import subprocess
import sys

import msgspec
import pytest

from benchmarks import __main__ as main
from benchmarks import bars, prove
from benchmarks.bars import Bar, Result
from benchmarks.rows import ROOT, TINY, Row, row, table
from benchmarks.tapes import MARKETS, make
from llm_maker.world import open_tape

EXPECTED = {
    "backtest": ["backtest", "bare msgspec decode of the same file", "backtest over bare decode, per frame"],
    "messages": [
        "bytes to book (parse both legs, apply)",
        "bytes to book over bare decode of a frame",
        "journal line (encode, hash, buffer, write)",
        "bytes to decision to journal",
        "the same, on one core",
    ],
    "engine": ["on_event, a change below the top", "on_event, the top changes"],
    "growth": [
        "p50 of a message, 2 markets",
        "p50 of a message, 4 markets",
        "growth of the p50",
        "growth where the top changes (engine alone)",
    ],
    "imports": ["import llm_maker.app"],
    "first_quote": ["first quote, as the run tells it", "first quote, from the start of the process"],
    "memory": ["peak memory, 3 markets"],
}


def test_every_benchmark_is_expected_here():
    assert list(main.BENCHMARKS) == list(EXPECTED)


@pytest.mark.prove
@pytest.mark.parametrize("name", EXPECTED)
def test_a_benchmark_gives_its_rows(name, tmp_path):
    rows = main.BENCHMARKS[name](TINY, tmp_path)
    assert [r.name for r in rows][: len(EXPECTED[name])] == EXPECTED[name]
    assert all(r.value > 0 for r in rows), "a figure of nothing was measured"


def test_the_made_tape_reads_like_a_recorded_one(tmp_path):
    reader, instruments, wire = open_tape(make(tmp_path / "made.jsonl.zst", 2_000))
    kinds = {type(event).__name__ for line in reader for event in wire.parse(line.frame)}
    assert kinds == {"BookSnapshot", "BookDelta", "TradePrinted", "TopReported"}
    assert len(instruments) == MARKETS
    assert (wire.malformed, wire.unknown, wire.unknown_asset, wire.mirror_mismatch) == ({}, {}, 0, 0)


def test_a_goal_is_met_or_missed_and_the_table_says_which():
    rows = [
        row("fast", [3.0, 1.0, 2.0], "us", goal=2.0),
        row("slow", [3.0, 1.0, 2.0], "us", goal=1.9),
        row("many", [5.0, 9.0, 7.0], "1/s", goal=7.5, more=True),
        Row(name="free", value=1.0, unit="x"),
    ]
    assert [r.met for r in rows] == [True, False, False, None]
    assert [(r.best, r.value, r.worst) for r in rows[::2]] == [(1.0, 2.0, 3.0), (9.0, 7.0, 5.0)]
    lines = table(rows)
    assert "yes" in lines[1] and "NO" in lines[2] and "NO" in lines[3] and "yes" not in lines[4] + lines[2]


def test_the_command_keeps_its_figures(tmp_path):
    kept = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "engine", "--tiny", "--json", str(kept)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [r["name"] for r in json.loads(kept.read_text())["rows"]][:2] == EXPECTED["engine"]
    assert "on_event, the top changes" in done.stdout


# The proof.


@pytest.fixture
def proof(tmp_path, monkeypatch):
    """Two bars that count how often they were measured; the second one breaks."""
    measured = []

    def good(folder):
        measured.append("good")
        return [Result("good", "python good", "1..3", "3 of 3", "all", True)]

    def bad(folder):
        measured.append("bad")
        raise AssertionError("it did\nnot come")

    monkeypatch.setattr(prove, "FOLDER", tmp_path / "prove")
    monkeypatch.setattr(prove, "BARS", [Bar("good", good), Bar("bad", bad)])
    return measured


def test_a_finished_bar_is_kept_and_a_broken_one_is_not_met(proof, capsys):
    assert prove.prove([], again=False) is False
    assert prove.prove(["good"], again=False) is True
    assert proof == ["good", "bad"]
    prove.prove(["good"], again=True)
    assert proof == ["good", "bad", "good"]
    table = (prove.FOLDER / "results.md").read_text()
    assert "| good | `python good` | 1..3 | 3 of 3 | all | yes |" in table
    assert "broke: it did not come" in table and "| NO |" in table
    assert set(json.loads((prove.FOLDER / "results.json").read_text())) == {"good", "bad"}


def test_a_bar_of_other_code_is_measured_anew_and_told_until_then(proof, monkeypatch, capsys):
    prove.prove(["good"], again=False)
    monkeypatch.setattr(prove, "code", lambda: "another")
    assert "of other code" in "\n".join(prove.Proof().lines())
    prove.prove(["good"], again=False)
    assert proof == ["good", "good"]
    assert "of other code" not in "\n".join(prove.Proof().lines())


def test_a_bar_of_tests_needs_one_that_passes(tmp_path):
    chosen = ["tests/test_benchmarks.py", "-k"]
    passed = prove.pytest_bar("p", "green", "", *chosen, "met_or_missed").measure(tmp_path)[0]
    nothing = prove.pytest_bar("p", "green", "", *chosen, "no_such_test_anywhere").measure(tmp_path)[0]
    assert passed.met is True and passed.figure.startswith("1 passed")
    assert nothing.met is False


@pytest.mark.prove
def test_an_altered_journal_and_a_torn_one_are_told_apart(tmp_path):
    folder = bars.killed(tmp_path / "home")
    plain = bars._plain(folder, tmp_path / "plain")
    results = [bars._proved("proved", folder), bars._torn(plain, tmp_path / "torn"), bars._altered(plain, tmp_path / "altered")]
    assert [(r.bar, r.met) for r in results] == [
        ("proved", True),
        ("replay: torn last line", True),
        ("replay: one byte altered", True),
    ], results


def test_the_last_tops_are_read_from_the_raw_frames(tmp_path):
    tape = make(tmp_path / "made.jsonl.zst", 500)
    tops = bars.told_tops(tape)
    assert len(tops) == 2 * MARKETS
    assert all(bars._price(bid) < bars._price(ask) for bid, ask in tops.values())
    assert bars._same({"best_bid": 0.6, "best_ask": None}, ("0.60", "1"))
    assert not bars._same({"best_bid": 0.6, "best_ask": 0.61}, ("0.60", "0.62"))


def test_results_are_plain_json():
    result = Result("a", "b", "c", "d", "e", None)
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result
