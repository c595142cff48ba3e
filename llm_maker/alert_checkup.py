"""Where alarms would go, looked at without sending any: URLs that parse, a bot's token with chats that may command it."""

from __future__ import annotations

import logging
import re

from llm_maker.config import Config
from llm_maker.keys import Secrets

_TELEGRAM = re.compile(r"\d{5,20}:[A-Za-z0-9_-]{30,}")
_NAME = "LLM_MAKER_ALERT_URLS"


def alert_fault(urls: str) -> str:
    """What is wrong with apprise URLs separated by spaces, or nothing. It shows no more of one than its kind: most hold a token."""
    named = urls.split()
    if not named:
        return ""
    from apprise import Apprise
    from apprise.logger import logger

    # Its complaints quote the URL, and with it the token.
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        for number, url in enumerate(named, start=1):
            if not Apprise().add(url):
                kind = re.match(r"[a-z][a-z0-9+.-]{1,20}://", url)
                which = f"number {number}" if len(named) > 1 else "it"
                return f"{_NAME}: {which} ({kind[0] + '...' if kind else 'no scheme://'}) is no address that apprise knows"
    finally:
        logger.setLevel(level)
    return ""


def chat_fault(config: Config, secrets: Secrets) -> tuple[str, str]:
    """What is wrong with the chat that may command, and its cure; two empty texts where nothing is."""
    token, chats = secrets.get("LLM_MAKER_TELEGRAM_TOKEN"), config.alerts.telegram_chats
    if token is None and chats:
        return (
            "alerts.telegram_chats names chats, and there is no bot to hear them",
            "put LLM_MAKER_TELEGRAM_TOKEN into .env, or set alerts.telegram_chats: []",
        )
    if token is not None and not _TELEGRAM.fullmatch(token):
        return "LLM_MAKER_TELEGRAM_TOKEN is not like a bot's: digits, a colon, 35 letters", "copy it again from BotFather into .env"
    if token is not None and not chats:
        return (
            "a Telegram bot is set, and no chat may command it",
            "set alerts.telegram_chats, or take LLM_MAKER_TELEGRAM_TOKEN out of .env",
        )
    return "", ""
