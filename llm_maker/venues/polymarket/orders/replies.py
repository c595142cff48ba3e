"""What the venue's replies to an order, a cancel and a look-up mean, each order for itself (`polymarket.md` 2.3, 2.5).

Pure: a reply goes in, one answer for each order that was sent comes out, in their order. It knows the venue's words, maps them to
ours, and says UNKNOWN wherever the words leave it open whether the order is there. It refuses to know what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from llm_maker.venues.net import Outcome, Reply

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DETAIL = 300
"""Characters of the venue's words that are kept."""


class Fate(StrEnum):
    """What became of an order that was sent."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Fault(msgspec.Struct, frozen=True):
    """We are set up wrong: `cure` is for the operator. Not `lasting`: the venue may come round by itself, so it is tried again."""

    cure: str
    lasting: bool = True


class Answer(msgspec.Struct, frozen=True):
    """One order's end of a request. `venue_id` and `status` as told; `reason` is one of ours (`OrderRejected`)."""

    fate: Fate
    venue_id: str = ""
    status: str = ""
    reason: str = ""
    detail: str = ""
    fault: Fault | None = None


class Ended(StrEnum):
    """What became of a cancel."""

    CANCELED = "canceled"
    GONE = "gone"
    """The venue says that no such order rests: no proof of its end (it has said so of orders that rested)."""
    REFUSED = "refused"
    UNKNOWN = "unknown"


class CancelAnswer(msgspec.Struct, frozen=True):
    ended: Ended
    detail: str = ""


NOT_OURS = "API key and wallet do not belong together: run `doctor`, and see polymarket.signature_type"
NOT_SIGNED = "the venue does not take our signature: run `doctor`; if it finds nothing, a newer llm_maker is needed"
NOT_DEPOSIT = "this account trades through its deposit wallet: set polymarket.signature_type to deposit, and its address"
NOT_KNOWN = "the venue does not know our API key: check this machine's clock and run `doctor`"
NOT_HERE = "the venue refuses this machine's address: run `doctor`; trading needs an allowed region"

_REASONS: tuple[tuple[str, str], ...] = (
    ("crosses book", "post_only"),
    ("not enough balance", "balance"),
    ("allowance is not enough", "balance"),
    ("sum of matched orders", "balance"),
    ("minimum tick size", "tick"),
    ("lower than the minimum", "size"),
    ("min size", "size"),
    ("duplicated", "duplicate"),
    ("no orderbook exists", "closed"),
    ("not yet ready to process", "closed"),
    ("post-only mode", "closed"),
    ("post_only_mode", "closed"),
    ("cancel-only", "closed"),
    ("trading is currently disabled", "closed"),
    ("too many requests", "rate"),
    ("rate limit", "rate"),
)
"""Words of a refusal, lower case -> our reason; the first that occurs counts, anything else is "other"."""
_FAULTS: tuple[tuple[str, str], ...] = (
    ("order_version_mismatch", NOT_SIGNED),
    ("invalid order version", NOT_SIGNED),
    ("invalid signature", NOT_SIGNED),
    ("address of the api key", NOT_OURS),
    ("owner of the api key", NOT_OURS),
    (
        "deposit wallet flow",
        "this account trades through its deposit wallet: set polymarket.signature_type to deposit and its address",
    ),
    ("address banned", "the venue has banned this address: write to its support"),
    ("closed only mode", "the venue lets this account only close positions: write to its support"),
)
_OPEN_ENDED = (
    "order match delayed",  # placed, but in the taker delay
    "delaying the order",
    "could not insert order",
    "could not run the execution",
    "order timed out",
)
"""Words that leave open whether the order is there: faults of the venue's own system, told like refusals."""
_STATUSES = ("live", "matched", "delayed", "unmatched")
_GONE = ("already canceled", "already cancelled", "matched", "not found", "can't be found", "cannot be found", "does not exist")


def fault_of(status: int, words: str) -> Fault | None:
    """What is wrong with our set-up, where a reply says so; `status` of HTTP, 200 for an entry of a batch."""
    lower = words.lower()
    for phrase, cure in _FAULTS:
        if phrase in lower:
            return Fault(cure)
    if status == 401:
        return Fault(NOT_KNOWN, lasting=False)
    return Fault(NOT_HERE, lasting=False) if status == 403 else None


def placed(reply: Reply, venue_ids: Sequence[str], *, batch: bool) -> list[Answer]:
    """One answer for each order, in their order, whatever the reply; `venue_ids` are the digests that were sent.

    An accepted order's `venue_id` is what the venue told: whether it is ours is for the caller to judge.
    """
    count = len(venue_ids)
    match reply.outcome:
        case Outcome.UNSENT:
            return [Answer(Fate.REJECTED, reason="other", detail=f"never sent: {reply.error}")] * count
        case Outcome.UNKNOWN:
            return [Answer(Fate.UNKNOWN, detail=reply.error)] * count
        case Outcome.REFUSED:
            return [_refused(reply.status, reply.error)] * count
    try:
        if batch:
            return _attributed(msgspec.json.decode(reply.body, type=list[_Entry]), venue_ids)
        return [_entry(msgspec.json.decode(reply.body, type=_Entry))]
    except _UNREADABLE as error:
        return [Answer(Fate.UNKNOWN, detail=f"not a reply to an order: {error}"[:_DETAIL])] * count


def canceled(reply: Reply, venue_ids: Sequence[str]) -> list[CancelAnswer]:
    """One answer for each id, in their order. HTTP 200 says nothing by itself: each id stands in one of two lists, or in none."""
    count = len(venue_ids)
    match reply.outcome:
        case Outcome.UNSENT:
            return [CancelAnswer(Ended.REFUSED, f"never sent: {reply.error}")] * count
        case Outcome.UNKNOWN:
            return [CancelAnswer(Ended.UNKNOWN, reply.error)] * count
        case Outcome.REFUSED:
            # A refusal of a whole list says nothing about one order of it.
            return [_not_canceled(reply.error) if count == 1 else CancelAnswer(Ended.REFUSED, reply.error)] * count
    try:
        told = msgspec.json.decode(reply.body, type=_Canceled)
    except _UNREADABLE as error:
        return [CancelAnswer(Ended.UNKNOWN, f"not a reply to a cancel: {error}"[:_DETAIL])] * count
    done = {venue_id.lower() for venue_id in told.canceled or ()}
    refused = {venue_id.lower(): words or "no reason given" for venue_id, words in (told.not_canceled or {}).items()}
    return [_one_cancel(venue_id.lower(), done, refused) for venue_id in venue_ids]


def looked_up(reply: Reply) -> bytes | None:
    """The order's row as the venue tells it, `b""` where it says that there is none; None: the question failed.

    A 404 counts only with a body of the venue's own kind: a gateway's error page proves nothing.
    """
    body = reply.body.strip()
    if not (reply.ok or reply.status == 404):
        return None
    try:
        found = msgspec.json.decode(body) if body else None
    except _UNREADABLE:
        return None
    if reply.status == 404:
        return b"" if found is None or isinstance(found, dict) else None
    if isinstance(found, dict) and found:
        return body
    return b"" if not found else None


class _Entry(msgspec.Struct):
    """The reply to one order; everything may be missing."""

    success: bool | None = None
    errorMsg: str | None = ""
    orderID: str | None = ""
    status: str | None = ""


class _Canceled(msgspec.Struct):
    """The reply to a cancel; an id that stands in neither is in doubt."""

    canceled: list[str] | None = None
    not_canceled: Mapping[str, str | None] | None = None


def _entry(entry: _Entry) -> Answer:
    words, venue_id, status = entry.errorMsg or "", entry.orderID or "", (entry.status or "").lower()
    if entry.success and not words and venue_id and status in _STATUSES:
        return Answer(Fate.ACCEPTED, venue_id.lower(), status)
    if entry.success is False or (words and not venue_id):
        # A refused entry of a batch may say `success: true` all the same (`polymarket.md` 2.3).
        return _refused(200, words or f"refused without a reason, status {status!r}")
    told = f"success {entry.success}, status {status!r}, {words or 'no reason'}, id {venue_id or 'none'}"
    return Answer(Fate.UNKNOWN, detail=f"neither accepted nor refused: {told}"[:_DETAIL])


def _refused(status: int, words: str) -> Answer:
    lower, detail = words.lower(), words[:_DETAIL]
    if any(phrase in lower for phrase in _OPEN_ENDED):
        return Answer(Fate.UNKNOWN, detail=detail)
    fault = fault_of(status, words)
    reason = "rate" if status == 429 else next((ours for phrase, ours in _REASONS if phrase in lower), "other")
    return Answer(Fate.REJECTED, reason="other" if fault else reason, detail=detail, fault=fault)


def _attributed(entries: list[_Entry], venue_ids: Sequence[str]) -> list[Answer]:
    """Each entry to its order: by the id it tells; by its place only while no id contradicts the places."""
    place = {venue_id.lower(): at for at, venue_id in enumerate(venue_ids)}
    by_id = {place[entry.orderID.lower()]: entry for entry in entries if entry.orderID and entry.orderID.lower() in place}
    in_place = len(entries) == len(venue_ids) and all(at == i for i, e in enumerate(entries) if (at := _at(e, place)) is not None)
    answers = []
    for at in range(len(venue_ids)):
        entry = by_id.get(at) or (entries[at] if in_place else None)
        answers.append(_entry(entry) if entry else Answer(Fate.UNKNOWN, detail="the batch's reply does not tell of it"))
    return answers


def _at(entry: _Entry, place: Mapping[str, int]) -> int | None:
    return place.get(entry.orderID.lower()) if entry.orderID else None


def _one_cancel(venue_id: str, done: set[str], refused: Mapping[str, str]) -> CancelAnswer:
    if venue_id in refused:
        return _not_canceled(refused[venue_id])
    if venue_id in done:
        return CancelAnswer(Ended.CANCELED)
    return CancelAnswer(Ended.UNKNOWN, "the reply does not tell of it")


def _not_canceled(words: str) -> CancelAnswer:
    lower = words.lower()
    return CancelAnswer(Ended.GONE if any(phrase in lower for phrase in _GONE) else Ended.REFUSED, words[:_DETAIL])
