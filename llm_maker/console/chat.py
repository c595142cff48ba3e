"""A Telegram chat as one more door to the desk: look, pause, resume, reduce, cancel, kill; for the configured chats alone.

Only new, plain messages of a person in a private chat act: none that was edited, forwarded, written by a bot or before the daemon
began; a group may look, and only that. What was sent long ago (the network was gone) acts only where it protects. The token is
part of every address, so no error of the HTTP client is ever shown.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from llm_maker.console.control import VIEW_FAULTS
from llm_maker.console.desk import PROTECTS, Desk, Refused
from llm_maker.core.commands import Command, Level
from llm_maker.port import Emit

Say = Callable[[Level, str, str], None]

POLL_SECONDS = 25
_CONNECT_SECONDS = 10.0
_PAUSE_S, _PAUSE_MAX_S = 1.0, 60.0
_WRONG_TOKEN_S = 600.0
MOST_BYTES = 4_000_000
MOST_TEXT = 200
MOST_REPLY = 3_500
MOST_STRANGERS = 200
STRANGER_SECONDS = 3_600.0
SURE_SECONDS = 60.0
STALE_SECONDS = 60.0
"""A message that is older when it arrives may only protect."""

READS = ("status", "daily", "alarms", "help", "start")
ACTS = ("pause", "resume", "reduce", "cancel_all", "kill")
HELP = (
    "/status how it stands\n/daily the day so far\n/alarms what is wrong\n/pause [MARKET] cancel our quotes and stand still\n"
    "/resume [MARKET] go on\n/reduce [MARKET] only reduce\n/cancel_all [MARKET] cancel everything of ours and stay paused\n"
    "/kill end the daemon (asks)\nMARKET: its id, the beginning of it, or words of its question"
)


class _Reply(msgspec.Struct):
    """What the service answers; of getUpdates each update is read by itself, so that a bad one stops nothing."""

    ok: bool = False
    result: msgspec.Raw = msgspec.Raw(b"[]")
    error_code: int = 0
    parameters: dict[str, Any] = {}


class _Chat(msgspec.Struct):
    id: int
    type: str = ""


class _Sender(msgspec.Struct):
    id: int
    is_bot: bool = False


class _Message(msgspec.Struct):
    chat: _Chat
    date: int = 0
    text: str = ""
    sender: _Sender | None = msgspec.field(default=None, name="from")
    sender_chat: _Chat | None = None
    forward_origin: Any = None
    forward_date: Any = None
    forward_from: Any = None
    via_bot: Any = None


class _Update(msgspec.Struct):
    update_id: int
    message: _Message | None = None


class _Numbered(msgspec.Struct):
    update_id: int


class _Failed(Exception):
    """No answer that can be used; the words hold no address. `pause` seconds are to be waited at least."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


class Chat:
    """A port: long-polls the bot's messages, answers them."""

    name = "chat"

    def __init__(self, desk: Desk, token: str, chats: tuple[int, ...], host: str, say: Say) -> None:
        self._desk, self._chats, self._say = desk, frozenset(chats), say
        self._address = f"{host}/bot{token}/"
        self._http: Any = None
        self._session: Any = None
        self._next = -1
        """The first update that has not been seen; -1: whatever waits is older than we are, and is skipped."""
        self._asked: dict[int, float] = {}
        """Who was asked whether to kill, and when."""
        self._strangers: dict[int, float] = {}
        self._server_s = 0
        """The service's own time at its last answer, seconds since the epoch; 0: it does not tell."""

    def execute(self, command: Command) -> None:
        """Nothing the core can ask for concerns this port."""

    def flush(self) -> None:
        """Nothing is gathered here."""

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled."""
        self._desk.emit = emit
        self._http = await asyncio.to_thread(importlib.import_module, "aiohttp")
        limits = self._http.ClientTimeout(total=POLL_SECONDS + 2 * _CONNECT_SECONDS, connect=_CONNECT_SECONDS)
        failures = 0
        async with self._http.ClientSession(timeout=limits) as session:
            self._session = session
            while True:
                began = time.monotonic()
                try:
                    updates = await self._updates()
                except _Failed as error:
                    failures += 1
                    if failures == 1:
                        self._say(Level.WARNING, "chat", f"Telegram: {error}; tried again, trading goes on")
                    await asyncio.sleep(max(error.pause, min(_PAUSE_S * 2.0 ** (failures - 1), _PAUSE_MAX_S)))
                    continue
                if failures:
                    self._say(Level.INFO, "chat", "Telegram answers again")
                failures = 0
                for update in updates:
                    await self._take(update)
                if not updates and time.monotonic() - began < _PAUSE_S:
                    await asyncio.sleep(_PAUSE_S)  # it did not wait as it was asked to: that must not become a busy loop

    # The wire.

    async def _updates(self) -> list[msgspec.Raw]:
        """New messages, waited for; raises `_Failed`. The first call only finds out where the new ones begin."""
        begun = self._next >= 0
        asked = {"offset": self._next, "timeout": POLL_SECONDS if begun else 0, "limit": 20, "allowed_updates": ["message"]}
        reply = await self._call("getUpdates", asked)
        try:
            found = msgspec.json.decode(reply.result, type=list[msgspec.Raw])
        except (msgspec.MsgspecError, RecursionError):
            raise _Failed("answered with what are no messages") from None
        if begun:
            return found
        ids = [number for number in map(_number, found) if number is not None]
        self._next = max(ids) + 1 if ids else 0
        return []

    async def _call(self, method: str, body: dict[str, Any]) -> _Reply:
        """One request; raises `_Failed` for whatever goes wrong in the world."""
        try:
            async with self._session.post(self._address + method, json=body, allow_redirects=False) as response:
                raw = bytearray()
                async for part in response.content.iter_chunked(65_536):
                    raw += part
                    if len(raw) > MOST_BYTES:
                        raise _Failed("its answer is too long")
                self._server_s = _seconds(response.headers.get("Date", ""))
                status = response.status
        except (self._http.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _Failed(f"not reached ({type(error).__name__})") from None
        try:
            reply = msgspec.json.decode(raw, type=_Reply)
        except (msgspec.MsgspecError, RecursionError):
            raise _Failed(f"answered {status} with what cannot be read") from None
        if status in (401, 404):
            raise _Failed("does not know the bot: check LLM_MAKER_TELEGRAM_TOKEN", _WRONG_TOKEN_S)
        if status == 409:
            raise _Failed("another program reads this bot's messages, or it has a webhook: give this daemon a bot of its own", 30.0)
        if status != 200 or not reply.ok:
            raise _Failed(f"answered {status}", _wait_of(reply))
        return reply

    async def _answer(self, chat: int, text: str) -> None:
        """Best effort, tried twice."""
        for pause in (1.0, 0.0):
            try:
                await self._call("sendMessage", {"chat_id": chat, "text": _clean(text)[:MOST_REPLY] or "-"})
            except _Failed as error:
                if not pause:
                    self._say(Level.WARNING, "chat", f"Telegram took no answer: {error}")
                await asyncio.sleep(pause)
            else:
                return

    # What a person writes.

    async def _take(self, raw: msgspec.Raw) -> None:
        """One update, once: its number is behind us before it acts."""
        number = _number(raw)
        if number is None or number < self._next:
            return
        self._next = number + 1
        try:
            message = msgspec.json.decode(raw, type=_Update).message
        except (msgspec.MsgspecError, RecursionError):
            return
        if message is None:
            return
        if message.chat.id not in self._chats:
            self._tell_of_stranger(message.chat.id)
            return
        sender = message.sender
        borrowed = message.forward_origin or message.forward_date or message.forward_from or message.via_bot or message.sender_chat
        if sender is None or sender.is_bot or borrowed or not message.text.startswith("/"):
            return
        private = message.chat.type == "private" and message.chat.id == sender.id
        age = self._server_s - message.date if self._server_s and message.date else None
        await self._answer(message.chat.id, self._done(message.text[:MOST_TEXT], sender.id, private=private, age=age))

    def _done(self, text: str, who: int, *, private: bool, age: float | None) -> str:
        """Does what a message says; what to answer. `age` in seconds; None: nobody can tell."""
        word, _, rest = text[1:].partition(" ")
        verb, rest = word.partition("@")[0].lower(), rest.strip()
        if verb in READS:
            return self._read(verb)
        if verb not in ACTS:
            return f"unknown: /{verb}\n{HELP}"
        if not private:
            return "a group may look; what acts is taken in a private chat with the bot, of a configured id"
        if verb not in PROTECTS and (age is None or age > STALE_SECONDS):
            when = "at a time that cannot be told" if age is None else f"{age:.0f}s ago"
            return f"this was sent {when} and was not done: send it again"
        if verb == "kill":
            asked = self._asked.pop(who, None)
            if rest.lower() != "yes" or asked is None or time.monotonic() - asked > SURE_SECONDS:
                self._asked[who] = time.monotonic()
                return "this cancels all of ours and ends the daemon: send `/kill yes` within a minute"
            rest = ""
        return self._act(verb, rest, who)

    def _act(self, verb: str, market: str, who: int) -> str:
        try:
            answer = self._desk.act(verb, {"market": market} if market else {}, f"telegram {who}")
        except Refused as error:
            return f"refused: {error}"
        where = f" for {answer['market']}" if answer.get("market") else ""
        return f"{verb}: done{where}"

    def _read(self, verb: str) -> str:
        if verb in ("help", "start"):
            return HELP
        try:
            seen = self._desk.answer("board", {}, "telegram")
            return {"status": _status, "daily": _daily, "alarms": _alarms}[verb](seen)
        except Refused as error:
            return f"refused: {error}"
        except VIEW_FAULTS as error:
            # A fault of a view is told to whoever looked; looking must never end the trading.
            return f"{verb} failed: {type(error).__name__}"

    def _tell_of_stranger(self, chat: int) -> None:
        now = time.monotonic()
        if now - self._strangers.get(chat, -STRANGER_SECONDS) < STRANGER_SECONDS:
            return
        if chat not in self._strangers and len(self._strangers) >= MOST_STRANGERS:
            self._strangers = {known: at for known, at in self._strangers.items() if now - at < STRANGER_SECONDS}
            if len(self._strangers) >= MOST_STRANGERS:
                return
        self._strangers[chat] = now
        self._say(Level.WARNING, "chat", f"chat {chat} is not among alerts.telegram_chats and gets no answer")


def _number(raw: msgspec.Raw) -> int | None:
    try:
        return msgspec.json.decode(raw, type=_Numbered).update_id
    except (msgspec.MsgspecError, RecursionError):
        return None


def _wait_of(reply: _Reply) -> float:
    """What the service wants waited, within reason."""
    wait = reply.parameters.get("retry_after", 0)
    return float(min(max(wait, 0), 600)) if isinstance(wait, int | float) else 0.0


def _seconds(date: str) -> int:
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (ValueError, TypeError, OverflowError):
        return 0


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


# What is answered; the board as a few lines for a phone.


def _label(seen: dict[str, Any]) -> str:
    money = "REAL MONEY" if seen["real_money"] else "paper money"
    return f"{seen['account']} on {seen['venue']}, {money}{', simulated market' if seen['simulated'] else ''}"


def _status(seen: dict[str, Any]) -> str:
    money = seen["money"]
    rows = seen["rows"]
    quoted = sum(1 for row in rows if row["our_bid"] or row["our_ask"])
    lines = [
        _label(seen),
        f"{seen['mode']}{': ' + seen['why'] if seen['why'] else ''}",
        f"quoting {quoted} of {len(rows)} markets, {seen['orders']} orders"
        + (f", {len(seen['unknown_orders'])} unknown" if seen["unknown_orders"] else ""),
        f"P&L {_gain(money['pnl'])}, today {_gain(money['today'])}, equity ${money['equity']:,.2f}",
        f"at risk ${money['exposure']:,.2f}, ${money['drawdown']:,.2f} below the highest",
        f"model: {seen['slow_loop'].get('mode', '-')}",
        f"alarms now: {sum(1 for alarm in seen['alarms'] if alarm['standing'])}",
    ]
    return "\n".join(lines)


def _daily(seen: dict[str, Any]) -> str:
    money, twin = seen["money"], seen["twin"]
    worth = (twin or {}).get("difference_usd")
    cost = money["model_cost_today"]
    lines = [
        _label(seen),
        f"today {_gain(money['today'])}, since it began {_gain(money['pnl'])}",
        f"${money['drawdown']:,.2f} below the highest",
        f"spread earned {_gain(money['earned_spread'])} since it began",
        f"model cost ${money['model_cost']:,.4f}" + (f", today ${cost:,.4f}" if cost is not None else ""),
        f"fills since it began: {seen['counts'].get('fills', 0)}",
    ]
    if worth is not None:
        lines.append(f"model against its twin (paper money) {_gain(worth)}")
    return "\n".join(lines)


def _alarms(seen: dict[str, Any]) -> str:
    if not seen["alarms"]:
        return f"{_label(seen)}\nnothing is wrong"
    lines = [_label(seen)]
    for alarm in seen["alarms"][:10]:
        often = f" ({alarm['count']} times)" if alarm["count"] > 1 else ""
        lines += [f"{'NOW' if alarm['standing'] else 'was'} {alarm['code']}{often}: {alarm['text'][:200]}", f"  {alarm['cure']}"]
    return "\n".join(lines)


def _gain(value: float | None) -> str:
    if value is None:
        return "not known"
    shown = round(value, 2)
    return f"{'-' if shown < 0 else '+' if shown > 0 else ''}${abs(shown):,.2f}"
