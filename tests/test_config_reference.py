"""The reference of all keys is what the program makes of itself, whole and in words."""

from __future__ import annotations

import re
from pathlib import Path

from llm_maker.config import Config
from llm_maker.config_reference import Commented, reference
from llm_maker.reload import why_not
from llm_maker.wizard_text import leaves, shipped

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| (.*) \| (yes|start|home) \|$", re.MULTILINE)


def test_the_page_is_not_stale():
    assert PAGE.read_text(encoding="utf-8") == reference(), "`make docs` writes it anew"


def test_every_key_has_one_row_with_words_and_what_reload_says():
    rows = ROW.findall(reference())
    assert [key for key, _, _ in rows] == list(dict.fromkeys(key for key, _, _ in rows))
    assert {key for key, _, _ in rows} == set(leaves(Config()))
    for key, cells, told in rows:
        words = cells.split(" | ")[0]
        assert re.search(r"\w", words), f"{key} has no comment in config.yaml"
        assert (told == "yes") == (why_not(key) == ""), key


def test_a_value_with_a_range_shows_it():
    page = reference()
    assert re.search(r"`llm.timeout_seconds` \|.*\| a number from 2 up to 600 \| 20 \| start \|", page)
    assert re.search(r"`risk.bankroll_usd` \|.*\| a number above 0 up to 1000000000, or empty \| empty \| yes \|", page)
    assert "`alerts.telegram_chats` | chat ids" in page and "a list of whole numbers" in page


def test_comments_on_lines_of_their_own_belong_to_the_key_above():
    words = Commented("a: 1  # one\n      # and more\nb:   # of b\n  # not of c\n  c: 2\n# of nobody\nd: '#3'\n").of
    assert words == {"a": "one and more", "b": "of b not of c", "b.c": "", "d": ""}


def test_what_is_shipped_is_what_lies_here():
    """An installed program has no folder beside it: the files are inside the package."""
    for name, file in (("yaml", "config.yaml"), ("env", ".env.example"), ("txt", "constraints.txt")):
        assert shipped(name) == (ROOT / file).read_text(encoding="utf-8")
