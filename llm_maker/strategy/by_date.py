"""Markets on whether something happens by a date, and how their price falls while nothing does (`quoting.md` 1.2).

    p = 1 - exp(-lam H), lam = -ln(1 - p) / H, H the time to the end;    dp = -lam (1 - p) * hold

A market of this kind is recognised by its words and its end, narrowly: one that is missed loses nothing but the drift, one that is
taken wrongly is sold for no reason. The drift is about YES by nature: seen from NO the question is whether something has not
happened by then, and rises. So the term has no mirror.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from llm_maker.core.values import NS_PER_S, Instrument

HORIZON_NS = 14 * 86_400 * NS_PER_S
"""Further from its end than this a market does not drift enough to be priced."""
_DAY_NS = 86_400 * NS_PER_S
_NEAR_DAYS = 3
"""The end may differ from the date in the question by time zones and by the wait for a ruling."""
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
_YEAR = r"(20\d\d)"
_DAY_OF = re.compile(rf"\b(?:by|before) {_MONTH}\.? ([12]?\d|3[01])(?:st|nd|rd|th)?\b(?:,? {_YEAR}\b)?")
_END_OF = re.compile(rf"\bby (?:the )?end of (?:{_MONTH}\b(?:,? {_YEAR}\b)?|{_YEAR}\b)")
_BEFORE = re.compile(rf"\bbefore (?:{_MONTH},? {_YEAR}\b|{_YEAR}\b)")
_OTHERWISE = re.compile(
    r"\b(?:not|no|nobody|none|never|without|un(?:til|changed)|remains?|stays?|still|continues?|keeps?|holds?|lasts?|survives?|"
    r"avoids?|fails?|fewer|less|lower|under|below|more|above|over|least|most|between|exactly|or|how many|which|who|what)\b|n't\b"
)
"""Words of questions where time may speak for YES, or for neither side."""


def drift(instrument: Instrument, fair: float, now: int, hold_ns: int, named: tuple[str, ...]) -> float:
    """What the micro-price `fair` is expected to lose over `hold_ns` while nothing happens, price units, at most 0.

    `named`: ids of markets that somebody says are of this kind; of others their question must say it. 0 where the end is not
    known, has passed or is more than 14 days away.
    """
    if not instrument.is_binary or instrument.end_ns is None or not 0.0 < fair < instrument.payout:
        return 0.0
    left = instrument.end_ns - now
    if not 0 < left < HORIZON_NS or (instrument.id not in named and not is_by_date(instrument)):
        return 0.0
    unlikely = 1.0 - fair / instrument.payout
    return math.log(unlikely) * unlikely * min(hold_ns / left, 1.0) * instrument.payout


def is_by_date(instrument: Instrument) -> bool:
    """Whether a yes/no question by itself asks if something happens by a date at which it also ends."""
    if not instrument.is_binary or instrument.exclusive or instrument.end_ns is None or instrument.start_ns is not None:
        return False
    if instrument.outcomes and tuple(outcome.lower() for outcome in instrument.outcomes) != ("yes", "no"):
        return False
    return _asks_by(instrument.question, instrument.end_ns)


@lru_cache(maxsize=4096)
def _asks_by(question: str, end_ns: int) -> bool:
    """The words alone; kept, because a market is looked at many times and its question does not change."""
    words = " ".join(question.lower().replace("’", "'").split())
    if _OTHERWISE.search(words):
        return False
    return any(abs(end_ns // _DAY_NS - day) <= _NEAR_DAYS for day in _deadlines(words, end_ns))


def _deadlines(words: str, end_ns: int) -> list[int]:
    """The dates a question names after "by" or "before", days since 1970; without a year, in the years around its end."""
    years = _years(end_ns)
    days: list[int] = []
    for month, day, year in _DAY_OF.findall(words):
        days += [_day_number(y, _month(month), int(day)) for y in ([int(year)] if year else years)]
    for month, year, whole_year in _END_OF.findall(words):
        if whole_year:
            days.append(_day_number(int(whole_year) + 1, 1, 1))
        else:
            days += [_day_number(y, _month(month) + 1, 1) for y in ([int(year)] if year else years)]
    for month, year, whole_year in _BEFORE.findall(words):
        days.append(_day_number(int(whole_year or year), 1 if whole_year else _month(month), 1))
    return days


def _years(end_ns: int) -> list[int]:
    year = 1970 + int(end_ns // _DAY_NS / 365.2425)
    return [year - 1, year, year + 1]


def _month(name: str) -> int:
    return _MONTHS.index(name[:3]) + 1


def _day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 of a date of the Gregorian calendar; month 13 is January of the next year.

    Years are counted from March, so that the leap day is the last one: 153 days in every five months from there.
    """
    months = year * 12 + month - 3
    year, month = divmod(months, 12)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719_469
