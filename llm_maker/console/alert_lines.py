"""What `llm-maker alerts` prints: where alarms go, with nothing secret in it, and the table of what they mean."""

from __future__ import annotations

from typing import Any

from llm_maker.config_console import Alerts
from llm_maker.console.alarm_rules import SECTIONS
from llm_maker.console.sender import name_of

_CODE_WIDTH = 25


def told(alerts: Alerts, urls: str, *, bot: bool) -> dict[str, Any]:
    """For `--json`: services by scheme and host, the settings, every code with its meaning and cure."""
    codes = {
        code: {"section": section, "means": rule.title, "does": rule.does, "cure": rule.cure, "sent": rule.sent}
        for section, rules in SECTIONS.items()
        for code, rule in rules.items()
    }
    return {
        "services": [name_of(url) for url in urls.split()],
        "level": alerts.level,
        "mute": list(alerts.mute),
        "repeat_minutes": alerts.repeat_minutes,
        "max_per_hour": alerts.max_per_hour,
        "daily_summary": alerts.daily_summary,
        "telegram": {"bot": bot, "chats": len(alerts.telegram_chats)},
        "codes": codes,
    }


def lines(answer: dict[str, Any]) -> list[str]:
    """The same for a terminal; `*` before what is sent."""
    services = answer["services"]
    shown = [f"services      {', '.join(services) or 'none: put LLM_MAKER_ALERT_URLS into .env (see .env.example)'}"]
    shown.append(
        f"what is sent  {answer['level']} and worse, at most {answer['max_per_hour']} an hour, the same again after "
        f"{answer['repeat_minutes']:g} minutes{'; muted: ' + ', '.join(answer['mute']) if answer['mute'] else ''}"
    )
    chat = answer["telegram"]
    state = "on" if chat["bot"] and chat["chats"] else "off" if not chat["bot"] else "off: alerts.telegram_chats names nobody"
    shown += [f"Telegram      {state}, {chat['chats']} chats may command", "try it        `llm-maker alerts --test`"]
    section = ""
    for code, rule in answer["codes"].items():
        if rule["section"] != section:
            section = rule["section"]
            shown += ["", f"{section} (* is sent)"]
        muted = " (muted)" if code in answer["mute"] else ""
        shown.append(f"{'*' if rule['sent'] else ' '} {code:<{_CODE_WIDTH}} {rule['means']}{muted}")
        shown.append(f"  {'':<{_CODE_WIDTH}} {rule['cure']}")
    return shown


def test_lines(answer: dict[str, Any]) -> list[str]:
    """One service a line."""
    return [
        f"{'ok    ' if each['ok'] else 'failed'} {each['service']}{': ' + each['why'] if each['why'] else ''}"
        for each in answer["services"]
    ]
