"""The one desk behind every door: what a person may ask of a running daemon, and what they may do, whichever way they came.

The control socket, the local HTTP server and the chat hand their requests to it and add nothing. Reading verbs are answered by a
function handed in; acting verbs become an event that names who acted, and nothing else. It knows no state, no order and no risk,
and not whether an action is a good idea.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

from llm_maker.core.events import IntentReceived, OperatorActed, Verb
from llm_maker.port import Emit

READS = ("status", "why", "markets", "board", "detail", "history", "changes")
"""`changes`: what a reload would change, with its `plan`."""
ACTS = (
    Verb.PAUSE, Verb.RESUME, Verb.REDUCE, Verb.FLATTEN, Verb.CANCEL_ALL, Verb.KILL, Verb.ADOPT, Verb.APPROVE, Verb.SPLIT,
)  # fmt: skip
PROTECTS = frozenset(verb.value for verb in (Verb.PAUSE, Verb.REDUCE, Verb.CANCEL_ALL, Verb.KILL))
"""They add nothing to what may be lost: taken late, and while the daemon stops, too."""
RELOAD, INTEND = "reload", "intend"
"""Acts that are not an `OperatorActed`: `ParamsChanged`, and `IntentReceived`."""
EXTRA = {
    Verb.FLATTEN.value: ("take",),
    Verb.APPROVE.value: ("intent_id",),
    Verb.SPLIT.value: ("shares",),
    RELOAD: ("plan",),
    INTEND: ("shares", "reason"),
}
"""The arguments that a verb has beside its market."""
VERBS = (*READS, *(verb.value for verb in ACTS), RELOAD, INTEND)
_TEXTS = ("market", "intent_id", "shares", "plan", "reason")
_REASON_MAX = 200

Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
"""(reading verb, arguments) -> what to show; `{"ok": False, "error": ...}` or `Refused` where it cannot."""
Find = Callable[[str], str | None]
"""What a person typed for a market -> its instrument id; None: there is no such market, or more than one."""
Size = Callable[[str, str], int | None]
"""(instrument id, shares as typed) -> quantity units; None: not a size."""
Reload = Callable[[str, str], dict[str, Any]]
"""(plan, who) -> what was changed; `Refused` where the plan is no longer what the file says."""
Shut = Callable[[str], str]
"""Acting verb -> why it can no longer be done; empty: it can."""


class Refused(Exception):
    """The daemon will not, and says why in one line."""


def _no_reload(plan: str, who: str) -> dict[str, Any]:
    raise Refused("this daemon has no configuration file to read again")


class Desk:
    """Reads and acts of one account; `emit` is set by whoever runs it, before the first act."""

    def __init__(
        self,
        ask: Ask,
        find: Find | None = None,
        size: Size | None = None,
        reload: Reload = _no_reload,
        shut: Shut = lambda verb: "",
    ) -> None:
        self._ask, self._shut = ask, shut
        self._find: Find = find or (lambda text: text)
        self._size: Size = size or (lambda instrument, text: None)
        self._reload = reload
        self._intents = 0
        self.session = 0
        """Of the daemon: the ids of wishes never repeat, because one may wait over a restart."""
        self.emit: Emit | None = None

    def answer(self, verb: str, args: dict[str, Any], who: str) -> dict[str, Any]:
        """Read or act. Raises `Refused`; a fault of a view (`LookupError` and its kind) passes through."""
        verb = verb.replace("-", "_")
        if verb in READS:
            return {"ok": True} | self._ask(verb, args)
        return self.act(verb, args, who)

    def act(self, verb: str, args: dict[str, Any], who: str) -> dict[str, Any]:
        """One action, attributed to `who`. Raises `Refused`."""
        verb = _known(verb)
        # Said to be done and then lost, or done at the next start: both are worse than a no.
        if why := self._shut(verb):
            raise Refused(f"{verb}: {why}")
        known = ["market", *EXTRA.get(verb, ())]
        if unknown := sorted(args.keys() - set(known)):
            raise Refused(f"{verb} takes no {unknown[0]!r}; known: {', '.join(known)}")
        take, texts = args.get("take", False), {name: args.get(name, "") for name in _TEXTS}
        if not isinstance(take, bool) or not all(isinstance(text, str) for text in texts.values()):
            raise Refused(f"{', '.join(texts)} are texts, and take is true or false")
        found = self._find(texts["market"]) if texts["market"] else ""
        if found is None:
            raise Refused(f"no market {texts['market']!r} here, or more than one")
        assert self.emit is not None, "acts are taken by a running daemon"
        if verb == RELOAD:
            return self._reload(texts["plan"], who)
        if not found and verb in (Verb.ADOPT, Verb.SPLIT, INTEND):
            raise Refused(f"{verb} needs a market")
        if verb == INTEND:
            return self._intend(found, texts, who)
        if verb == Verb.APPROVE and not texts["intent_id"]:
            raise Refused("approve needs the id of what waits; `status` lists it")
        qty = self._size(found, texts["shares"]) if verb == Verb.SPLIT else 0
        if qty is None or (verb == Verb.SPLIT and qty <= 0):
            raise Refused(f"{texts['shares']!r} is no number of shares")
        self.emit(OperatorActed(Verb(verb), who, found, take, texts["intent_id"], qty))
        return {"ok": True, "verb": verb, "market": found, "take": take}

    def _intend(self, found: str, texts: dict[str, str], who: str) -> dict[str, Any]:
        """A person's, or their own program's, wish for a position: it passes the same gates as everything."""
        assert self.emit is not None
        target = self._size(found, texts["shares"])
        if target is None:
            raise Refused(f"{texts['shares']!r} is no number of shares (YES; minus is NO)")
        self._intents += 1
        intent_id = f"w{self.session}-{self._intents}"
        self.emit(IntentReceived(intent_id, found, target, who, " ".join(texts["reason"].split())[:_REASON_MAX]))
        return {"ok": True, "verb": INTEND, "market": found, "intent_id": intent_id}


def _known(text: str) -> str:
    if text in VERBS and text not in READS:
        return text
    near = difflib.get_close_matches(text, VERBS, 1)
    raise Refused(f"unknown verb {text[:40]!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(VERBS)}"))
