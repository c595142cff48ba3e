"""`compare`: a config against itself, against others, over several tapes; what was tried is remembered and counted."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from llm_maker import cli, compare, trial, variants
from llm_maker.config import load
from llm_maker.core.values import NS_PER_S, usd
from llm_maker.report.paired import DAY_NS, Paired
from llm_maker.report.track import Point, Track
from llm_maker.world import Refused
from tests.test_backtest_llm import T0, make_tape

HOUR_NS = 3_600 * NS_PER_S


@pytest.fixture(scope="module")
def tapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tapes")
    return [make_tape(folder / f"t{n}.jsonl", 30, 5 + n, T0 + n * HOUR_NS) for n in range(5)]


@pytest.fixture
def configs(tmp_path):
    """Base, the same again with another way to write it down, and two that trade otherwise."""
    for name, text in {
        "base": "{}",
        "same": "{logging: {level: debug}, account: other, strategy: {skew_max_ticks: 3.5}}",
        "touch": "strategy: {quoting: touch}",
        "skew": "strategy: {skew_max_ticks: 8}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return {path.stem: load(path, {}, {}) for path in sorted(tmp_path.glob("*.yaml"))}


def verb(*args):
    done = CliRunner().invoke(cli.app, ["compare", *map(str, args)])
    return done.exit_code, done.output


def test_a_config_against_itself_differs_by_exactly_nothing(tapes, configs, tmp_path):
    found = compare.compare({"a": configs["base"], "b": configs["same"]}, tapes, tmp_path)
    assert found.made["a"] == found.made["b"] and found.made["a"].fills > 0
    (one,) = found.against_base
    assert (one.total, one.gross, one.verdict, one.p) == (0.0, 0, "", None)
    assert one.per_day is not None and (one.per_day.low, one.per_day.high) == (0.0, 0.0)
    assert found.tried == 0, "what is only written down elsewhere is no other variant"
    assert found.changed == {
        "b": {"account": ("main", "other"), "logging.level": ("info", "debug")},
    }
    assert "no verdict: too few days" in "\n".join(compare.lines(found))


def test_the_difference_is_that_of_separate_runs(tapes, configs, tmp_path):
    found = compare.compare({name: configs[name] for name in ("base", "touch", "skew")}, tapes, tmp_path)
    alone = {name: [trial.run_tape(configs[name], tape) for tape in tapes] for name in ("base", "touch", "skew")}
    made = {name: sum(one.equity - one.start_cash for one in runs) for name, runs in alone.items()}
    assert {name: found.made[name].pnl for name in made} == {name: usd(total) for name, total in made.items()}
    assert [(one.first, one.second, one.total) for one in found.against_base] == [
        (name, "base", made[name] - made["base"]) for name in ("touch", "skew")
    ]
    assert all(one.total and one.steps == 5 and one.per_day is not None and one.variants == 2 for one in found.against_base)
    assert found.changed["skew"] == {"strategy.skew_max_ticks": (3.5, 8.0)}


def test_every_variant_ever_tried_on_these_tapes_counts(tapes, configs, tmp_path):
    compare.compare({"a": configs["base"], "b": configs["touch"]}, tapes[:1], tmp_path)
    elsewhere = compare.compare({"a": configs["base"], "b": configs["skew"]}, tapes[1:2], tmp_path)
    assert elsewhere.tried == 1, "on other tapes it counts nothing"
    assert compare.compare({"a": configs["base"], "b": configs["skew"]}, tapes[:1], tmp_path).tried == 2
    assert compare.compare({"a": configs["base"], "b": configs["touch"]}, tapes[:1], tmp_path).tried == 2, "again is not anew"
    log = tmp_path / "logs" / "variants.jsonl"
    with log.open("ab") as file:
        file.write(b'{"torn')
    assert len(variants.tried(tmp_path, [variants.file_id(tapes[0])])) == 3
    variants.note(tmp_path, "compare", {"x": "x"}, {variants.file_id(tapes[0]): "t"})
    assert len(variants.tried(tmp_path, [variants.file_id(tapes[0])])) == 4 and b"torn" not in log.read_bytes()
    log.write_bytes(b"{}\n" + log.read_bytes())
    with pytest.raises(Refused, match=r"variants.jsonl:1: "):
        variants.tried(tmp_path, ["any"])


def test_p_is_corrected_for_what_is_not_at_hand_and_a_verdict_goes_with_it():
    seen = [Paired(first=name, second="base", p=p, verdict="better", days=30.0) for name, p in (("a", 0.01), ("b", 0.001))]
    few, many = compare.corrected(seen, 2), compare.corrected(seen, 20)
    assert [one.p for one in few] == pytest.approx([0.01, 0.002]) and [one.verdict for one in few] == ["better", "better"]
    assert [one.p for one in many] == pytest.approx([0.19, 0.02])
    assert [(one.verdict, one.variants) for one in many] == [("no difference seen", 20), ("better", 20)]
    silent = compare.corrected([Paired(first="a", second="base", why="too few days")], 9)
    assert (silent[0].p, silent[0].verdict) == (None, "")


def test_runs_side_by_side_in_time_are_one_record_of_money():
    def run(start, *points):
        levels = [Point(start + ts, 100 + gained, 0) for ts, gained in points]
        cash = {"start_cash": 100, "equity": levels[-1].equity, "exit_equity": 0, "flows": {}, "counts": {}}
        return Track(label={"account": "main"}, start_ns=start, end_ns=levels[-1].ts, points=levels, **cash)

    whole = compare.joined("x", [run(0, (10, 5), (20, 7)), run(15, (1, -3), (10, -4)), run(3 * DAY_NS, (1, 1))])
    assert (whole.start_ns, whole.end_ns, whole.start_cash, whole.equity) == (0, 3 * DAY_NS + 1, 100, 104)
    told = {point.ts: point.equity for point in whole.points}
    assert told == {10: 105, 16: 102, 20: 104, 25: 103, 3 * DAY_NS + 1: 104}


def test_the_verb(tapes, configs, tmp_path):
    files = [tmp_path / f"{name}.yaml" for name in ("base", "touch")]
    code, told = verb(*files, "--tape", *tapes[:2], "--home", tmp_path)
    assert code == 0, told
    assert "touch.yaml differs in 1 key:\n  strategy.quoting: inventory -> touch" in told
    assert "2 configs on 2 tapes, paper money; base: base.yaml" in told and "touch.yaml less base.yaml: " in told
    code, told = verb(*files, "--tape", tapes[0], "--home", tmp_path, "--json")
    plain = json.loads(told)
    assert code == 0 and plain["configs"]["touch.yaml"]["fills"] > plain["configs"]["base.yaml"]["fills"] > 0
    assert plain["configs"]["base.yaml"]["markout_cents"]["3600"] is None and plain["paper_money"] is True
    gap = plain["configs"]["touch.yaml"]["pnl_usd"] - plain["configs"]["base.yaml"]["pnl_usd"]
    assert plain["against_base"][0]["difference_usd"] == pytest.approx(gap, abs=1e-9)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["base.yaml", "--tape", "T"], "compare takes two configs"),
        (["base.yaml", "base.yaml", "--tape", "T"], "one file is named twice"),
        (["base.yaml", "none.yaml", "--tape", "T"], "none.yaml: no such file"),
        (["base.yaml", "touch.yaml", "--tape", "none.jsonl"], "none.jsonl"),
        (["base.yaml", "touch.yaml", "--tape", "T", "T"], "are the same tape"),
        (["base.yaml", "touch.yaml", "--tape", "T", "--signals", "none.jsonl"], "none.jsonl"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tapes, configs, tmp_path, monkeypatch, args, told):
    monkeypatch.chdir(tmp_path)
    code, said = verb(*(str(tapes[0]) if arg == "T" else arg for arg in args))
    assert code == 2 and told in said and len(said.strip().splitlines()) == 1, said
