"""docs/configuration.md, made of what the program knows: `python -m llm_maker.config_reference > docs/configuration.md`.

Types, ranges and defaults are the schema's, the words are the comments of the shipped config.yaml, and what may change while
running is what `reload` says. Nothing of it is written twice.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llm_maker.config import Config
from llm_maker.config_llm import MemberConfig
from llm_maker.config_text import allowed, keys_of
from llm_maker.reload import why_not
from llm_maker.wizard_text import leaves, shipped, written

_HEAD = """\
# Configuration: every key

Made of the program itself by `make docs`; a test fails when it is stale. `config.yaml` is read from where you start, or from
`--config FILE`; `llm-maker init` writes one with all comments. A line that is not there is at its default. A key that does not
exist stops the start and names the nearest one.

- **From outside**: `LLM_MAKER__SECTION__KEY=value` in the environment or in `.env` sets a key, as
  `LLM_MAKER__RISK__BANKROLL_USD=500`. It wins over the file; `--venue`, `--mode` and `--seed` win over both.
- **Secrets** are no keys: they stand in `.env` (`.env.example` has their names).
- **Units** are in the names: `_usd`, `_pct` (percent), `_ratio`, `_seconds`, `_minutes`, `_hours`, `_ms`, `_mb`, `_ticks` (steps
  of the market's price). Shares and cents are of yes/no markets.
- **reload**: whether `llm-maker reload` can change it while the daemon runs. *start*: stop it and start it again. *home*: never
  in the same home; start with another `--home`.
"""
_MEMBERS = """
## Models in `llm.ensemble` and `llm.reserve`

Each is a section of its own: `ensemble: [{provider: gemini}, {provider: xai, model: grok-4.3}]`.

| key | allowed | default |
|---|---|---|
"""


class Commented:
    """The words of the shipped file: behind each key, and on the lines of comment alone that follow it."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        assert isinstance(root, yaml.MappingNode)
        self.of = {key: self._words(line, column) for key, line, column in _places(root)}

    def _words(self, line: int, column: int) -> str:
        first = re.search(r"\s#\s?(.*)$", self._lines[line])
        found = [first[1]] if first else []
        for below in self._lines[line + 1 :]:
            alone = re.match(r"( *)#\s?(.*)$", below)
            if alone is None or len(alone[1]) <= column:
                break
            found.append(alone[2])
        return " ".join(" ".join(found).split())


def _places(node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    for key, value in node.value:
        yield prefix + key.value, key.start_mark.line, key.start_mark.column
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _places(value, f"{prefix}{key.value}.")


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _may_be(field: FieldInfo) -> str:
    if get_origin(field.annotation) is tuple and get_args(field.annotation)[0] is MemberConfig:
        return "a list of models (below)"
    pattern = next((bound.pattern for bound in field.metadata if getattr(bound, "pattern", None)), "")
    text = allowed(field)
    # A pattern is code; the rest is words.
    return text.replace(pattern, f"`{pattern}`") if pattern else text


def _default(value: Any) -> str:
    text = written(value)
    return (f"`{text}`" if text.startswith(("[", "{")) else text) or "empty"


def _reload(key: str) -> str:
    why = why_not(key)
    return "yes" if not why else "home" if "another --home" in why else "start"


def reference() -> str:
    """The whole page."""
    words, values = Commented(shipped("yaml")).of, leaves(Config())
    fields = dict(keys_of(Config))
    sections: dict[str, list[str]] = {
        section: [] for section in ("", *(key for key, field in fields.items() if _is_section(field)))
    }
    for key in values:
        sections[key.rpartition(".")[0]].append(key)
    parts = [_HEAD]
    for section, keys in sections.items():
        title = f"`{section}`" if section else "At the top"
        parts.append(f"\n## {title}\n\n" + (f"{_sentence(words[section])}\n\n" if words.get(section) else ""))
        if not keys:
            continue
        parts.append("| key | what it does | allowed | default | reload |\n|---|---|---|---|---|\n")
        for key in keys:
            cells = (f"`{key}`", words[key], _may_be(fields[key]), _default(values[key]), _reload(key))
            parts.append(f"| {' | '.join(map(_cell, cells))} |\n")
    parts.append(_MEMBERS)
    for name, field in MemberConfig.model_fields.items():
        default = "must be given" if field.is_required() else _default(field.default)
        parts.append(f"| `{name}` | {_cell(_may_be(field))} | {default} |\n")
    return "".join(parts)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith((".", ":")) else ".")


if __name__ == "__main__":
    sys.stdout.write(reference())
