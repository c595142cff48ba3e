"""The table of what was measured: every number of it where it belongs, the whole record of a model before its categories."""

from llm_maker.core.skill import Skill
from llm_maker.report.skill_page import lines


def test_nothing_measured_is_said():
    assert lines({}) == ["  opinions: nothing measured yet"]


def test_every_number_is_shown_and_the_whole_record_comes_first():
    skill = Skill(
        weight=0.123, why="measured", platt=(0.1, 0.8), trust=((0.6, 0.5), (1.0, 1.25)), betas=((1.0, 0.07),), signals=812,
        event_days=77, slope=0.2, slope_low=0.05, slope_high=0.35, outcomes=12, brier=0.1875, brier_market=0.17,
    )  # fmt: skip
    told = lines({"xai/grok-4.3|politics": skill, "xai/grok-4.3|": Skill(weight=0.0, why="no skill in 30 days")})
    assert told[2].split()[:3] == ["xai/grok-4.3", "all", "0.000"]
    row = told[3].split()
    assert row == ["xai/grok-4.3", "politics", "0.123", "+0.200", "+0.05..+0.35", "812", "77", "12", "0.1875", "0.1700"]
    assert "no skill in 30 days" in told[4]
    assert "log-odds +0.100 +0.800" in told[5] and "to 0.60: 0.50, to 1.00: 1.25" in told[5] and "to 1.00: 0.07" in told[5]


def test_a_long_name_is_cut_and_columns_stand_under_one_another():
    told = lines({"pool:" + "a/b+" * 40 + "|": Skill(weight=0.1), "m|": Skill(weight=0.2)})
    assert len({line.index("W") if "W" in line else None for line in told[1:2]}) == 1
    assert all(len(line) < 132 for line in told[:4])
