"""docs/troubleshooting.md: every quoted message is the program's, and every refusal of the program stands on some page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.test_docs import FENCE, PACKAGE, ROOT, alarms

PAGE = ROOT / "docs" / "troubleshooting.md"
TOLD_ON = (PAGE, ROOT / "docs" / "polymarket.md", ROOT / "docs" / "models.md", ROOT / "docs" / "prompts.md")
ENDS = ("Refused", "ConfigError", "fail", "NotRunning", "Unanswered", "KeyUnsafe", "NotAvailable", "TapeError")
OWN_WORDS = 6
"""A shorter piece (`is`, `of`) does not say which message is meant; it only stands beside longer ones."""


def phrases(page: Path) -> Iterator[str]:
    """What stands in double quotes in the first cell of a row."""
    for row in re.findall(r"^\|.*\|$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        yield from re.findall(r'"([^"]+)"', row.split(" | ")[0])


def pieces(phrase: str) -> list[str]:
    return [piece for part in phrase.split("…") if len(piece := part.strip(" `")) > 1]


def test_every_quoted_message_is_the_programs():
    _, texts = alarms()
    told = list(phrases(PAGE))
    assert len(told) > 120
    lost = [phrase for phrase in told if not re.search(".*".join(map(re.escape, pieces(phrase))), texts)]
    assert not lost, lost


def test_every_quoted_message_says_something():
    mute = [phrase for phrase in phrases(PAGE) if not any(len(piece) >= OWN_WORDS for piece in pieces(phrase))]
    assert not mute, mute


def refusals() -> Iterator[tuple[str, str]]:
    """(where, words) of what ends a verb with one line, `…` where something is put in; a message of others is not here."""
    for file in PACKAGE:
        if "venues" in file.parts:
            continue
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if any(f"{name}(" in source for name in ENDS) else ():
            if not isinstance(node, ast.Call) or not node.args:
                continue
            if (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in ENDS:
                words = "".join(_words(node.args[0]))
                if len(words.replace("…", "").strip(" :;,")) > OWN_WORDS:
                    yield f"{file.relative_to(ROOT)}:{node.lineno}", words


def _words(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            for value in values:
                yield value.value if isinstance(value, ast.Constant) else "…"
        case ast.BinOp(left=left, right=right):
            yield from _words(left)
            yield from _words(right)
        case _:
            yield "…"


def test_every_refusal_of_the_program_is_explained():
    told = [piece for page in TOLD_ON for phrase in phrases(page) for piece in pieces(phrase) if len(piece) >= OWN_WORDS]
    found = list(refusals())
    assert len(found) > 90
    unexplained = [f"{where}: {words}" for where, words in found if not any(piece in words for piece in told)]
    assert not unexplained, "\n" + "\n".join(unexplained)
