"""A person's file: read as it stands or refused in one line; the verb from the file to the page; real rounds with market prices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.forecastbench import convert
from llm_maker import cli
from llm_maker.report.forecast import ForecastLine, score
from llm_maker.report.forecast_file import ForecastFileError, read

ROOT = Path(__file__).parent.parent.parent
HEAD = "question_id,model,p,market_p,outcome,ts\n"
GOOD = {"question_id": "q", "model": "m", "p": 0.3, "market_p": 0.4, "outcome": 1, "ts": "2026-11-01T12:00:00Z"}
NOON_US = 1_793_534_400_000_000


def written(folder: Path, text: str | bytes, name: str = "f.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def jsonl(*changes: dict) -> str:
    return "".join(json.dumps({k: v for k, v in {**GOOD, **change}.items() if v != "gone"}) + "\n" for change in changes)


def test_the_two_formats_say_the_same(tmp_path: Path):
    rows = [
        ForecastLine("q", "m", 0.3, 0.4, 1.0, NOON_US),
        ForecastLine("1,5", "m", 0.0, None, None, None),
        ForecastLine("7", "n", 1.0, 0.5, 0.5, NOON_US),
    ]
    lines = jsonl(
        {},
        {"question_id": "1,5", "p": 0, "market_p": None, "outcome": None, "ts": None, "extra": 5},
        {"question_id": 7, "model": "n", "p": 1, "market_p": 0.5, "outcome": 0.5, "ts": NOON_US // 1_000_000},
    )
    table = HEAD + 'q,m,0.3,.4,1,2026-11-01T13:00:00+01:00\n\n"1,5",m,0,,,\n7,n,1.0,5e-1,0.5,1793534400000\n'
    assert read(written(tmp_path, lines)) == rows
    assert read(written(tmp_path, table)) == rows
    assert read(written(tmp_path, "\ufeff" + table.replace("\n", "\r\n"))) == rows
    assert read(written(tmp_path, "\n" + lines.replace(', "extra": 5', ""))) == rows


@pytest.mark.parametrize(
    "ts", [NOON_US // 10**6, NOON_US // 10**3, NOON_US, NOON_US * 1_000, float(NOON_US // 10**6), str(NOON_US)]
)
def test_every_unit_of_time_is_the_same_moment(tmp_path: Path, ts):
    assert read(written(tmp_path, jsonl({"ts": ts})))[0].ts_us == NOON_US


def test_keys_that_are_not_known_may_be_left_out(tmp_path: Path):
    assert read(written(tmp_path, jsonl({"ts": "gone", "market_p": "gone", "outcome": "gone"}))) == [ForecastLine("q", "m", 0.3)]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no forecasts in it"),
        (HEAD, "no forecasts in it"),
        ("[{}]", "a JSON list; must be JSONL"),
        (b"\x28\xb5\x2f\xfd\x00", "not UTF-8 text"),
        (b"\x1f\x8b\x08\x00", "unpacked first"),
        (HEAD.replace(",", ";"), "line 1: columns are parted by ';'; must be commas"),
        ("question_id,model,p,p,outcome\n", "line 1: column 'p' is given twice"),
        ("question_id,model,p\nq,m,0.1\n", "line 1: column 'outcome' is missing; needed: question_id, model, p, outcome"),
        ("question_id,model,prob,outcome\n", "line 1: unknown column 'prob'; did you mean 'p'?"),
        ("question_id,modle,p,outcome\n", "line 1: unknown column 'modle'; did you mean 'model'?"),
        ("question_id,model,p,outcome,timestamp\n", "line 1: unknown column 'timestamp'; did you mean 'ts'?"),
        ("Question_ID,model,p,outcome\n", "line 1: unknown column 'Question_ID'; did you mean 'question_id'?"),
        ("a,b\n1,2\n", "line 1: column 'question_id' is missing"),
        (HEAD + "q,m,0.1\n", "line 2: 3 cells; the header has 6"),
        (HEAD + 'q,m,0.1,,"1,\n', "line 2: not CSV"),
        (HEAD + '"a\nb",m,0.1,,1,\nq,m,2,,1,\n', "line 2: question_id is 'a\\nb'; must be printable"),
        (HEAD + "q,m,0.1,,1,\n\nq2,m,2,,1,\n", "line 4: p is '2'; must be a number from 0 to 1"),
        (HEAD + "q,m,,,1,\n", "line 2: p is empty"),
        (HEAD + "q,m,nan,,1,\n", "line 2: p is 'nan'"),
        (HEAD + "q,m,0.1_5,,1,\n", "line 2: p is '0.1_5'"),
        (HEAD + "q,m,30%,,1,\n", "line 2: p is '30%'"),
        (HEAD + "q,m,-0.1,,1,\n", "line 2: p is '-0.1'"),
        (HEAD + "q,m,0.1,40,1,\n", "line 2: market_p is '40'; must be a number from 0 to 1, or empty"),
        (
            HEAD + "q,m,0.1,,YES,\n",
            "line 2: outcome is 'YES'; must be a number from 0 to 1 (0.5: split), or empty while it is open",
        ),
        (HEAD + ",m,0.1,,1,\n", "line 2: question_id is empty"),
        (HEAD + "q,m,0.1,,1,2026-11-01\n", "without a time zone; if it is UTC write 2026-11-01T00:00:00Z"),
        (HEAD + "q,m,0.1,,1,2026-11-01 10:00\n", "without a time zone; if it is UTC write 2026-11-01 10:00Z"),
        (HEAD + "q,m,0.1,,1,yesterday\n", "line 2: ts is 'yesterday'; must be ISO 8601 with a time zone"),
        (HEAD + "q,m,0.1,,1,12345\n", "in the years 2000 to 2099"),
        (HEAD + "q,m,0.1,,1,0026-11-01T00:00:00Z\n", "in the years 2000 to 2099"),
        (
            HEAD + "q,m,0.1,,1,\nq,m,0.2,,1,\n",
            "line 3: same question_id, model and ts as line 2; a question asked again needs a ts",
        ),
        (HEAD + "q,m,0.1,,1,1793534400\nq,m,0.2,,1,2026-11-01T12:00:00Z\n", "line 3: same question_id, model and ts as line 2"),
        (HEAD + "q,m,0.1,,1,\nq,n,0.2,,0,\n", "line 3: outcome 0 for 'q', which has 1 at line 2"),
        ("{\n", "line 1: not JSON"),
        (jsonl({}) + "nonsense\n", "line 2: not JSON: Expecting value"),
        (jsonl({}) + "[1]\n", "line 2: not an object"),
        ('{"question_id": "q", "model": "m", "p": NaN}\n', "line 1: NaN is no number"),
        ('{"question_id": "q", "model": "m", "p": 0.1, "p": 0.9}\n', "line 1: 'p' is given twice"),
        ('{"question_id": "q", "model": "m", "p": 1e999}\n', "line 1: p is inf"),
        ('{"question_id": "q", "model": "m", "p": ' + "9" * 5_000 + "}\n", "line 1: not JSON that can be read"),
        ('{"p": ' + "[" * 100_000 + "\n", "line 1: not JSON"),
        (jsonl({"p": True}), "line 1: p is True"),
        (jsonl({"p": 10**400}), "line 1: p is 1000"),
        (jsonl({"outcome": True}), "line 1: outcome is True"),
        (jsonl({"model": None}), "line 1: model is empty"),
        (jsonl({"model": ["m"]}), "line 1: model is ['m']; must be a text"),
        (jsonl({"model": "\x1b[31mred"}), "line 1: model is '\\x1b[31mred'; must be printable"),
        (jsonl({"model": "\ud800"}), "must be printable"),
        (jsonl({"model": "m" * 201}), "of at most 200 characters"),
        (jsonl({"model": "gone"}), "line 1: column 'model' is missing"),
        (jsonl({}, {"ts": "gone", "time": 5}), "line 2: unknown column 'time'; did you mean 'ts'?"),
        (jsonl({"ts": 10**400}), "line 1: ts is 1000"),
        (jsonl({"ts": {}}), "line 1: ts is {}"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(tmp_path: Path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(ForecastFileError) as caught:
        read(path)
    line = str(caught.value)
    assert told in line
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    result = CliRunner().invoke(cli.app, ["report", "--forecasts", str(path)])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"error: {line}\n")


def verb(*args: object):
    return CliRunner().invoke(cli.app, ["report", *map(str, args)])


def test_the_verb_prints_a_page_or_every_number(tmp_path: Path):
    rows = [{"question_id": f"q{i}", "p": 0.2 + 0.02 * (i % 30), "outcome": int(i % 3 == 0)} for i in range(60)]
    path = written(tmp_path, jsonl(*rows))
    shown = verb("--forecasts", path, "--bootstrap", 200)
    assert shown.exit_code == 0, shown
    assert "60 forecasts, 60 resolved" in shown.stdout
    assert "200 resamples, seed 0" in shown.stdout
    told = json.loads(verb("--forecasts", path, "--bootstrap", 200, "--seed", 0, "--json").stdout)
    assert told == json.loads(verb("--forecasts", path, "--bootstrap", 200, "--json").stdout)
    model = told["models"][0]
    assert model["brier"] == pytest.approx(sum((r["p"] - r["outcome"]) ** 2 for r in rows) / 60, abs=1e-12)
    assert f"{model['brier']:.4f}" in shown.stdout
    assert model["market"]["brier_gain"]["units"] == 60
    assert told["models"] != json.loads(verb("--forecasts", path, "--bootstrap", 200, "--seed", 1, "--json").stdout)["models"]


def test_options_that_make_no_sense_are_refused(tmp_path: Path):
    path = written(tmp_path, jsonl({}))
    for args, told in (
        (["--seed", 1], "--seed goes with --forecasts FILE"),
        (["--bootstrap", 500], "--bootstrap goes with --forecasts FILE"),
        (["--forecasts", path, "--seed", -1], "--seed is -1; must be from 0"),
        (["--forecasts", path, "--bootstrap", 5], "--bootstrap is 5; must be from 200 to 100000"),
        (["--forecasts", tmp_path / "none"], "no such file; give one with --forecasts FILE"),
        (["--forecasts", tmp_path], "cannot be read: Is a directory"),
    ):
        result = verb(*args)
        assert (result.exit_code, result.stdout) == (2, "")
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_nothing_resolved_is_a_failure_not_a_score(tmp_path: Path):
    result = verb("--forecasts", written(tmp_path, jsonl({"outcome": None})), "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "1 forecast, none with an outcome yet: nothing to score" in result.stderr


def test_help_loads_no_numbers():
    code = (
        "import sys, llm_maker.cli as c\n"
        "from typer.testing import CliRunner\n"
        "assert '--forecasts' in CliRunner().invoke(c.app, ['report', '--help']).stdout\n"
        "import llm_maker.report.forecast_page, llm_maker.report.forecast_file\n"
        "print([m for m in ('numpy', 'sklearn', 'scipy') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_round_becomes_rows_and_a_later_price_is_no_outcome(tmp_path: Path):
    def question(name: str, dates: object = "N/A") -> dict:
        return {
            "id": name,
            "source": "s",
            "resolution_dates": dates,
            "freeze_datetime": "2026-01-01T00:00:00+00:00",
            "freeze_datetime_value": "0.4",
        }

    questions = [question("yes"), question("open"), question("absent"), question("data", ["2026-02-01"])]
    told = [
        {"id": "yes", "source": "s", "resolved": True, "resolved_to": 1.0},
        {"id": "yes", "source": "other", "resolved": True, "resolved_to": 0.0},
        {"id": "open", "source": "s", "resolved": False, "resolved_to": 0.7},
        {"id": ["yes", "open"], "source": "s", "resolved": True, "resolved_to": 0.0},
    ]
    written(tmp_path, json.dumps({"questions": questions}), "2026-01-10-llm.json")
    written(tmp_path, json.dumps({"resolutions": told}), "2026-01-10_resolution_set.json")
    rows = [(what.partition(":")[0], row and row["outcome"], row and row["p"]) for what, row in convert(tmp_path)]
    assert rows == [("resolved", 1.0, 0.4), ("pending", None, 0.4), ("pending", None, 0.4), ("dataset question", None, None)]


@pytest.mark.shared
def test_market_prices_of_two_real_rounds(shared: Path, tmp_path: Path):
    rows = [row for _, row in convert(shared / "forecastbench") if row is not None]
    found = score(read(written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))))
    assert (found.rows, found.resolved, found.pending) == (500, 220, 280)
    (market,) = found.models
    assert (market.n, market.questions, market.days) == (220, 193, 2)
    assert market.brier == pytest.approx(0.038839, abs=1e-6)
    parts = market.brier_parts
    assert (parts.miscalibration, parts.discrimination, parts.uncertainty) == pytest.approx(
        (0.009384, 0.084987, 0.114442), abs=1e-6
    )
    assert market.reliability.ece == pytest.approx(0.039032, abs=1e-6)
    assert market.market.brier_gain.verdict == "none"
    assert market.market.brier_gain.mean == 0
