"""What a search-capable model wrote -> notes for the prompt: dated or cited, cleaned, cut, few. Never an exception.

Pure; the day is an argument. Tolerated: prose and code fences around the JSON, a document that ends too early (its whole notes
stand), a bare list, bullet lines. A date is a day that can have been; a source is one that the provider itself confirmed. A note
without either is hearsay and is dropped, and so is one that reads as an instruction, an answer or somebody's odds: a second line
of defence, for the fence around what is shown is the wall. Knows no provider and no prompt.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec

from llm_maker.llm.news import Note
from llm_maker.llm.providers import Citation
from llm_maker.llm.snapshot import clean

MAX_NOTES = 6
MAX_TEXT = 240
MAX_URL = 200
MAX_CHARS = 200_000
"""Of the model's text; what follows is not read."""
_MAX_TOLD = 60
"""Notes looked at; the rest is too many."""
_MAX_STARTS = 80
"""Places where JSON is looked for."""
_MAX_FIELD = 4_000
_MAX_HOST = 100
_FIRST_DAY = date(2000, 1, 1)
_REDIRECTS = "vertexaisearch.cloud.google.com"
"""Gemini cites through redirects of its own; the site it means is then the citation's title."""


class Findings(msgspec.Struct, frozen=True):
    """What is left of one answer. `dropped`: reason -> how many. `readable`: it had the form that was asked for, or bullets."""

    notes: tuple[Note, ...]
    dropped: dict[str, int]
    readable: bool


class _Told(msgspec.Struct, frozen=True):
    """A note as it was told."""

    text: str
    date: str = ""
    url: str = ""


def read(text: str, citations: Sequence[Citation], today: date) -> Findings:
    """The notes of an answer in its own order; `citations` are the provider's, `today` is a UTC day."""
    told = _documents(text[:MAX_CHARS])
    if told is None:
        told = list(_bullets(text[:MAX_CHARS]))
        readable = bool(told)
    else:
        readable = True
    sources = _Sources(citations)
    dropped: Counter[str] = Counter()
    kept: dict[str, Note] = {}
    for each in told[:_MAX_TOLD]:
        note = _note(each, sources, today)
        if isinstance(note, str):
            dropped[note] += 1
        elif (same := _letters(note.text)) in kept:
            dropped["duplicate"] += 1
        elif len(kept) == MAX_NOTES:
            dropped["too_many"] += 1
        else:
            kept[same] = note
    if len(told) > _MAX_TOLD:
        dropped["too_many"] += len(told) - _MAX_TOLD
    return Findings(tuple(kept.values()), dict(dropped), readable)


def _note(told: _Told, sources: _Sources, today: date) -> Note | str:
    """The note, or why it is none."""
    link = _LINK.search(told.text)
    text = clean(_NOTHING.sub("", _BARE_URL.sub(" ", _LINK.sub(r"\1", told.text[:_MAX_FIELD]))), MAX_TEXT)
    if not _letters(text):
        return "empty"
    suspicion = _suspicion(told.text[:_MAX_FIELD])
    if suspicion:
        return suspicion
    day = _day(told.date, today)
    url = sources.confirmed(told.url) or (sources.confirmed(link.group(2)) if link else "")
    return Note(text=text, date=day, url=url) if day or url else "hearsay"


# Text -> notes as told.

_DECODER = json.JSONDecoder()


def _documents(text: str) -> list[_Told] | None:
    """The notes of all JSON in the text; None: none of it is an answer. Beyond damage the reading goes on."""
    found: list[_Told] | None = None
    at = -1
    for _ in range(_MAX_STARTS):
        at = min((place for place in (text.find("{", at + 1), text.find("[", at + 1)) if place >= 0), default=-1)
        if at < 0:
            break
        try:
            document, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):  # a number of five thousand digits is a plain ValueError
            continue
        told = _as_notes(document)
        if told is not None:
            found = (found or []) + told
            at = end - 1
    return found


def _as_notes(document: Any) -> list[_Told] | None:
    """The notes of a document; None: it is something else."""
    if isinstance(document, dict) and isinstance(document.get("notes"), list):
        return [_told(entry) for entry in document["notes"]]
    if _is_note(document):
        return [_told(document)]
    if isinstance(document, list) and document and all(map(_is_note, document)):
        return [_told(entry) for entry in document]
    return None


def _is_note(document: Any) -> bool:
    return isinstance(document, dict) and (
        "fact" in document or ("text" in document and not document.keys().isdisjoint(("date", "url")))
    )


def _told(entry: Any) -> _Told:
    fields = entry if isinstance(entry, dict) else {"fact": entry}
    text, day, url = (fields.get(name) for name in ("fact" if "fact" in fields else "text", "date", "url"))
    return _Told(*(value[:_MAX_FIELD] if isinstance(value, str) else "" for value in (text, day, url)))


_BULLET = re.compile(r"\s*(?:[-*•–]|\d{1,2}[.)])\s+(.+)")
_LEADING_DAY = re.compile(r"[\s*_\[(]*(\d{4}-\d{2}-\d{2})[\s*_\])]*[:,;.–—-]?\s*")


def _bullets(text: str) -> Iterator[_Told]:
    """Lines of a list; a day at the head of one is its date, and the first address in it its source."""
    for line in text.splitlines():
        bullet = _BULLET.match(line[:_MAX_FIELD])
        if bullet is None:
            continue
        body = bullet.group(1)
        day = _LEADING_DAY.match(body)
        address = _BARE_URL.search(body)
        yield _Told(body[day.end() :] if day else body, day.group(1) if day else "", address.group() if address else "")


# Dates and sources.

_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})(?:[T ].*)?", re.DOTALL)
_LINK = re.compile(r"\[+([^\[\]]{0,200})\]+\((https?://[^\s()]{1,400})\)")
_BARE_URL = re.compile(r"https?://[^\s<>\"')\]]+", re.IGNORECASE)
_NOTHING = re.compile(r"\(\s*\)|\[\s*\]")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,62})\.)+[a-z]{2,24}")


def _day(told: str, today: date) -> str:
    """An ISO day that can have been: from 2000 to tomorrow, for somewhere it is tomorrow already. Else empty."""
    found = _DAY.fullmatch(told.strip())
    if found is None:
        return ""
    try:
        day = date.fromisoformat(found.group(1))
    except ValueError:
        return ""
    return day.isoformat() if _FIRST_DAY <= day <= today + timedelta(days=1) else ""


class _Sources:
    """The addresses that the provider confirms having seen."""

    def __init__(self, citations: Sequence[Citation]) -> None:
        self._pages: dict[tuple[str, str], str] = {}
        self._hosts: set[str] = set()
        for citation in citations:
            page = _page(citation.url)
            if page is None:
                continue
            meant = citation.title.strip().lower()
            if page[0] != _REDIRECTS:
                self._pages.setdefault(page, citation.url.strip())
                self._hosts.add(page[0])
            elif len(meant) <= _MAX_HOST and _HOST.fullmatch(meant):
                self._hosts.add(_bare(meant))

    def confirmed(self, url: str) -> str:
        """The provider's own address of that page; where it confirms the site alone, the site alone; else empty."""
        page = _page(url)
        if page is None:
            return ""
        exact = self._pages.get(page, "")
        if exact and len(exact) <= MAX_URL and exact.isascii() and exact.isprintable() and not _suspicion(exact):
            return exact
        return f"https://{page[0]}/" if page[0] in self._hosts else ""


def _page(url: str) -> tuple[str, str] | None:
    """(site, path); the query is left out, for providers add their own marks to it."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or len(host) > _MAX_HOST or not _HOST.fullmatch(host):
        return None
    return _bare(host), parts.path.rstrip("/")


def _bare(host: str) -> str:
    return host.removeprefix("www.")


# What is no fact.

_COMMAND = re.compile(
    r"\b(?:ignore|disregard|forget|override|overrule|bypass)\b"
    r".{0,40}\b(?:previous|prior|above|earlier|instructions?|(?:your|the|these) rules|prompts?)\b"
    r"|\b(?:system|assistant|user|developer)\s*:"
    r"|\b(?:system|developer) (?:prompt|message)|\bnew instructions?\b|\bas an ai\b|\byou are (?:now|an? (?:ai|assistant|model))\b"
    r"|\byou must\b|\b(?:respond|answer|reply|output) (?:only\b|(?:with|in) (?:json|yes|no)\b)"
    r"|<\|.{0,40}\|>|</?(?:system|assistant|user|instructions?)>|\[/?inst\]",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"(?<![^\W_])[MmМмΜϺᎷꓟⲘⲙ]\d{1,3}(?!\w|\.\d)"  # a handle, or what looks like one; not the magnitude M6.1
    r"|\bmarket_id\b|\bdirectional_bias\b|\brisk_level\b|\bp_(?:yes|low|high)\b|\b(?:buy|sell)_(?:yes|no)\b"
    r"|[\"']?\b(?:action|confidence|priority|signals)\b[\"']\s*:",
    re.IGNORECASE,
)
_SQUEEZED = re.compile(
    r"(?:ignore|disregard|forget|override)(?:all|any|every|the|these|those|your|my|previous|prior|above)+.{0,20}instruction"
)
"""The same without anything between the letters."""
_MARKET = re.compile(
    r"\b(?:polymarket|kalshi|predictit|manifold|metaculus|betfair)\b"
    r"|\b(?:(?:prediction|betting) markets?|bookmakers?|sportsbooks?|bettors|odds)\b",
    re.IGNORECASE,
)
_QUOTE = re.compile(r"\d\s*(?:%|percent|cents?\b|¢|/\d)|\$\s*0?\.\d|0\.\d|[+-]\d{3}\b|\d+[- ]to[- ]\d+", re.IGNORECASE)


def _suspicion(text: str) -> str:
    """Why a text may not be shown as a fact; empty: it may."""
    plain = clean(text, _MAX_FIELD)
    if _COMMAND.search(plain) or _SQUEEZED.search(_letters(plain)):
        return "instruction"
    if _ANSWER.search(plain):
        return "answer"
    # A price seen in a note is the market's own voice heard twice, and the blind arm may not hear it at all.
    return "odds" if _MARKET.search(plain) and _QUOTE.search(plain) else ""


def _letters(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())
