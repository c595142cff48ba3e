"""What README and docs name exists: verbs, options, keys, secrets, alarms with their words, checks, files, links; nothing stale."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from llm_maker.cli import app
from llm_maker.config import ENV_PREFIX, Config
from llm_maker.config_text import keys_of
from llm_maker.keys import SECRET_NAMES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
PACKAGE = sorted((ROOT / "llm_maker").rglob("*.py"))
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
GUIDE = ROOT / "docs" / "polymarket.md"
MODELS = ROOT / "docs" / "models.md"

VERBS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
KEYS = dict(keys_of(Config))
FILE_ENDINGS = ("yaml", "md", "py", "toml", "txt", "json", "jsonl", "env", "zst", "gz", "sqlite3", "html")

SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOTTED = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, kind: str | None = None) -> Iterator[str]:
    yield from (body for language, body in FENCE.findall(text_of(page)) if kind is None or language == kind)


def spans(page: Path) -> list[str]:
    return SPAN.findall(FENCE.sub("", text_of(page)))


# Commands.


def commands(page: Path) -> Iterator[str]:
    """What is to be typed: from `llm-maker` to the end of the span, or to the pipe or comment in a block."""
    for body in blocks(page):
        for line in body.splitlines():
            found = re.match(r"(?:\$ )?(?:\S*/)?llm-maker( .*)?$", line)
            if found:
                yield re.split(r"\s[|>#]|\s&&", found[1] or "")[0]
    for span in spans(page):
        found = re.match(r"(?:\S*/)?llm-maker( .*)?$", span)
        if found:
            yield found[1] or ""


def options_of(verb: str) -> set[str]:
    return {name for parameter in VERBS[verb].params for name in parameter.opts} | {"--help"}


def wrong_with(command: str) -> str:
    words = shlex.split(command)
    if words[:1] == ["VERB"]:
        return ""
    verb = words[0] if words and not words[0].startswith("-") else "run"
    if verb not in VERBS:
        return f"no verb {verb}: {command}"
    unknown = [w for w in words if w.startswith("-") and w.split("=")[0] not in options_of(verb)]
    return f"{verb} has no {', '.join(unknown)}: {command}" if unknown else ""


@every_page
def test_every_command_could_be_typed(page):
    told = list(commands(page))
    assert told, "it shows how to run it"
    wrong = list(filter(None, map(wrong_with, told)))
    assert not wrong, wrong


@every_page
def test_every_option_named_alone_is_one_of_some_verb(page):
    known = {name for verb in VERBS for name in options_of(verb)}
    named = {word.split("=")[0] for span in spans(page) if span.startswith("--") for word in span.split() if word.startswith("--")}
    assert named <= known, named - known


def test_the_verbs_of_the_table_are_those_of_the_program():
    rows = re.search(r"\| verb \| does \|\n\|[-| ]+\|\n((?:\|.*\n)+)", text_of(ROOT / "README.md"))
    assert rows is not None
    told = [span for row in rows[1].splitlines() for span in SPAN.findall(row.split("|")[1])]
    named = {span.split()[0] for span in told}
    assert named == set(VERBS), f"only in the table: {named - set(VERBS)}; not in it: {set(VERBS) - named}"
    wrong = list(filter(None, map(wrong_with, told)))
    assert not wrong, wrong


@every_page
def test_every_target_of_make_exists(page):
    targets = set(re.findall(r"^(\w+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    named = {name for body in [*blocks(page), *spans(page)] for name in re.findall(r"^make (\w+)", body, re.MULTILINE)}
    assert named <= targets, named - targets


# Configuration.


@every_page
def test_every_key_exists(page):
    dotted = {span.split(":")[0] for span in spans(page) if DOTTED.fullmatch(span.split(":")[0])}
    keys = {name for name in dotted if name.rpartition(".")[2] not in FILE_ENDINGS}
    assert keys <= set(KEYS), keys - set(KEYS)


@every_page
def test_every_key_named_beside_one_of_its_section_exists(page):
    """In a table, `strategy.base_position_size`, `max_position_size`."""
    for row in re.findall(r"^\|.*\|$", FENCE.sub("", text_of(page)), re.MULTILINE):
        named = SPAN.findall(row.split("|")[1])
        if named and "." in named[0] and named[0] in KEYS:
            section = named[0].rpartition(".")[0]
            beside = {name if "." in name else f"{section}.{name}" for name in named}
            assert beside <= set(KEYS), beside - set(KEYS)


@every_page
def test_every_piece_of_config_is_valid(page):
    for body in blocks(page, "yaml"):
        Config.model_validate(yaml.safe_load(body))
    for span in spans(page):
        if re.match(r"[a-z_]+: \{", span):
            Config.model_validate(yaml.safe_load(span))


@every_page
def test_every_secret_and_variable_exists(page):
    for name in set(re.findall(r"\b(?:LLM_MAKER_\w+|[A-Z]+_API_KEY)\b", text_of(page))):
        key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        assert name in SECRET_NAMES or (name.startswith(ENV_PREFIX) and key in {*KEYS, "section.key"}), name


def test_every_dependency_has_its_reason():
    wanted = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["dependencies"]
    decisions = text_of(ROOT / "README.md").partition("## Decisions")[2]
    told = {span.partition("==")[0] for span in SPAN.findall(decisions)}
    names = {re.split(r"[=<>;\s]", name)[0] for name in wanted}
    assert names <= told, names - told


# Alarms: their codes and their words, as the code has them.


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@cache
def alarms() -> tuple[set[str], str]:
    """All codes that the program can log, and every text of it, one a line, `…` where it puts something in."""
    codes: set[str] = set()
    texts: list[str] = []
    for file in PACKAGE:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(_constant(part) or "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
            elif isinstance(node, ast.Call):
                codes |= set(_codes(node))
    return codes, "\n".join(texts)


def _codes(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = {"notice": 1, "Notice": 1, "say": 1, "_say": 1, "_emit": 1, "halt": 0, "_limit": 1, "_from": 0}.get(name)
    least = 1 if name in ("halt", "_limit", "_from") else 3
    if place is None or len(call.args) < max(least, place + 1):
        return
    code, prefix = call.args[place], "halt_" if name in ("halt", "_limit") else ""
    if (plain := _constant(code)) is not None:
        yield prefix + plain
    elif isinstance(code, ast.JoinedStr) and (start := _constant(code.values[0])) == "exit_":
        yield from (start + reason for reason in ("stop", "target", "deadline"))


def failures() -> Iterator[tuple[str, list[str], list[str]]]:
    """Rows of the guide's tables of what the program says: the first cell, its codes, its quoted words."""
    part = text_of(GUIDE).partition("## 3. ")[2].partition("## 4. ")[0]
    for table in re.findall(r"\| it says \(code\).*\n\|[-| ]+\|\n((?:\|.*\n)+)", part):
        for row in table.splitlines():
            cell = re.split(r"(?<!\\)\|", row)[1].strip()
            quoted = re.findall(r'"([^"]+)"', cell)
            # A span inside quoted words is of the words; one that names a verb or a status is no code.
            codes = re.findall(r"`([a-z_]+)`", re.sub(r'"[^"]*"', "", cell))
            yield cell, codes, quoted


def test_every_alarm_code_of_the_guide_is_in_the_program():
    codes, _ = alarms()
    told = {code for _, named, _ in failures() for code in named}
    assert len(told) > 30
    assert told <= codes, told - codes


def test_every_quoted_word_of_an_alarm_is_the_programs():
    _, texts = alarms()
    told = [phrase for _, _, quoted in failures() for phrase in quoted]
    assert len(told) > 40
    lost = [piece for phrase in told for piece in map(str.strip, phrase.split("…")) if piece and not _said(piece, texts)]
    assert not lost, lost


def _said(piece: str, texts: str) -> bool:
    """Somewhere in one text of the program; a regime or a mode may stand where the program puts something in."""
    regime = re.fullmatch(r"is now (\w+)", piece)
    if regime:
        return "is now …" in texts and regime[1] in texts.splitlines()
    return any(piece in line for line in texts.splitlines())


def test_every_row_of_the_guides_failures_has_a_code_or_words():
    rows = list(failures())
    assert len(rows) > 40
    mute = [cell for cell, codes, quoted in rows if not codes and not quoted and "llm-maker" not in cell]
    assert not mute, mute


def test_the_guide_names_every_halt():
    codes, _ = alarms()
    halts = {code for code in codes if code.startswith("halt_")} - {"halt_kill"}
    told = {code for _, named, _ in failures() for code in named}
    assert halts <= told, halts - told


def test_the_guide_explains_every_check_of_the_doctor():
    """The table has exactly the checks that the sources make, but those of the round trip."""
    made: set[str] = set()
    for name in ("doctor.py", "checkup.py", "local_checkup.py", "account_checkup.py"):
        for node in ast.walk(ast.parse((ROOT / "llm_maker" / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Check":
                made |= {plain for plain in [_constant(node.args[0])] if plain}
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "bounded":
                made |= {plain for plain in [_constant(node.args[0])] if plain}
            if isinstance(node, ast.Tuple) and [getattr(each, "id", "") for each in node.elts[1:]] in (["plan"], ["news"]):
                made |= {plain for plain in [_constant(node.elts[0])] if plain}  # ("model in reserve", plan)
            if isinstance(node, ast.List) and node.elts and all(isinstance(each, ast.Tuple) for each in node.elts):
                made |= {plain for each in node.elts if (plain := _constant(each.elts[0]))}  # type: ignore[attr-defined]
    made -= set(VERBS) | {"venue"}
    rows = re.search(r"\| check \| what it looks at \|\n\|[-| ]+\|\n((?:\|.*\n)+)", text_of(GUIDE))
    assert rows is not None
    told = {span for row in rows[1].splitlines() for span in SPAN.findall(row.split("|")[1])}
    assert told == made, f"only in the guide: {told - made}; not in it: {made - told}"


# Models.


def test_every_failure_of_the_models_guide_is_said_by_the_program():
    _, texts = alarms()
    table = re.search(r"\| it says \| .*\n\|[-| ]+\|\n((?:\|.*\n)+)", text_of(MODELS))
    assert table is not None
    told = [phrase for row in table[1].splitlines() for phrase in re.findall(r'"([^"]+)"', row.split("|")[1])]
    assert len(told) > 20
    lost = [piece for phrase in told for piece in _pieces(phrase) if piece not in texts]
    assert not lost, lost


def _pieces(phrase: str) -> list[str]:
    """What stands between the gaps; a table of the program may join two halves of a line, and a gap's bracket is its own."""
    found = [piece.strip(" ()") for gap in phrase.split("…") for piece in re.split(r"(?<=stopped after )\w+: ", gap)]
    return [piece for piece in found if len(piece) > 1]


def test_every_provider_is_in_the_guide_with_its_key_and_its_model():
    from llm_maker.llm.providers import PROVIDERS

    rows = [line for line in text_of(MODELS).splitlines() if line.startswith("| `")]
    for spec in PROVIDERS.values():
        (row,) = [row for row in rows if f"`{spec.name}`" in row.split("|")[1]]
        assert all(told in row for told in (spec.env_key, spec.key_url, spec.model)), spec.name
        assert ("| yes" in row) == bool(spec.search_tools), spec.name


def test_where_to_get_each_key_stands_above_it():
    from llm_maker.llm.providers import PROVIDERS

    lines = text_of(ROOT / ".env.example").splitlines()
    for spec in PROVIDERS.values():
        if spec.key_url:
            assert spec.key_url in lines[lines.index(f"{spec.env_key}=") - 1].split(), spec.name


# Files and links.


@every_page
def test_every_file_and_folder_named_exists(page):
    top = ("llm_maker/", "tests/", "docs/", "benchmarks/", "deploy/", ".ci/")
    named = {span for span in spans(page) if span.startswith(top) and " " not in span}
    lost = [name for name in named if not (ROOT / name).exists()]
    assert not lost, lost


def anchors(page: Path) -> set[str]:
    """As the usual viewers make them of headings."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@every_page
def test_every_relative_link_resolves(page):
    for target in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (page.parent / file).resolve() if file else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


def test_the_guide_is_where_the_program_says_it_is():
    for name in ("config.yaml", ".env.example"):
        for told in re.findall(r"docs/[\w./]+\.md", text_of(ROOT / name)):
            assert (ROOT / told).exists(), f"{name} names {told}"
    assert all(f"docs/{page.name}" in text_of(ROOT / "README.md") for page in PAGES if page.parent.name == "docs")
