"""The answer of `changes` as lines for a person: keys, limits and effects, before they are put in force. Pure."""

from __future__ import annotations

import textwrap

from llm_maker.console.tables import WIDTH, Answer, clean


def reload_lines(answer: Answer) -> list[str]:
    """Every key that differs, what may not change and why, the limits before and after, and what happens at once."""
    changes = answer["changes"]
    if not changes:
        return ["nothing has changed: the file says what is in force"]
    refused = [change for change in changes if not change["allowed"]]
    lines = ["changes of config.yaml, as it would be in force"]
    for change in changes:
        lines += _wrapped(f"{'  ' if change['allowed'] else 'X '}{change['key']}: {change['before']} -> {change['after']}")
    if refused:
        lines += ["", "X cannot change while running, so nothing will be changed:"]
        for change in refused:
            lines += _wrapped(f"  {change['key']}: {change['why']}")
        return lines
    if answer["limits"]:
        lines += ["", "at most, before -> after (^ more may be lost)"]
        lines += [_limit(limit) for limit in answer["limits"]]
    lines += ["", "at once"]
    for effect in answer["effects"] or ["nothing of what rests or is held is touched"]:
        lines += _wrapped(f"  {effect}")
    return lines


def _limit(limit: Answer) -> str:
    before, after = (_amount(limit[side], limit["unit"], limit["name"]) for side in ("before", "after"))
    return f"{'^ ' if limit['raises'] else '  '}{limit['name']:<40} {before} -> {after}"


def _amount(value: float, unit: str, name: str) -> str:
    if name.startswith("a wish waits") and not value:
        return "none waits"
    return f"${value:,.2f}" if unit == "usd" else f"{value:g} {unit}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(clean(text), WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False) or [""]
