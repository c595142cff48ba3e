"""The words of `top` that do not change: its keys, what they do, and what each question says will happen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_maker.console.cells import age, clean, clip, money, number, when
from llm_maker.console.shapes import Board, Detail, Row
from llm_maker.console.top_table import quoted
from llm_maker.console.top_text import BAD, DIM, LABEL, STRONG, WARN, Line, Span, fitted, head, labelled, wrapped

KEYS = (
    ("p", "pause"), ("r", "reduce"), ("u", "resume"), ("c", "cancel"), ("f", "flatten"), ("k", "KILL"), ("w", "why"),
    ("/", "find"), ("?", "help"), ("q", "quit"),
)  # fmt: skip
_HELP = (
    ("", "The keys act on the chosen row: one market, or the first row, which is all of them. The line above the keys says which."),
    ("p", "pause: cancel our quotes and stand still until resumed; at once"),
    ("r", "reduce-only: from now on only reduce positions; at once"),
    ("u", "resume: go on after a pause, a reduce-only, or a halt that waits for a person; asks"),
    ("c", "cancel every order and stay paused until resumed; asks"),
    ("f", "flatten: leave positions, as maker or across the spread; says the cost and asks"),
    ("k", "kill: cancel everything of ours, prove it, end the daemon; asks for the word"),
    ("a", "approve a wish that is held back; asks"),
    ("", ""),
    ("arrows", "choose a row; PageUp, PageDown, Home, End"),
    ("Enter", "all that is known of the chosen row, as a page"),
    ("w", "why: the whole gate chain with its numbers; of all: every market that is not quoted"),
    ("/", "show only markets with these letters; Esc shows all again"),
    ("Tab", "the next pane: market, stream, alarms, money; on a large screen all are there"),
    ("[ ]", "scroll the pane"),
    ("q", "leave top; the daemon goes on"),
    ("", ""),
    ("ours", "our bid/ask; ! after it: something is held back, `w` says what. Without quotes: why there are none"),
    ("signal", "YES+ wants more YES, YES- less; NO+ NO-; hold; exit. Then its age"),
    ("ahead", "shares before ours in the queue, bid/ask: at most this"),
    ("old", "since the book last changed or was confirmed"),
    ("reward", "what the venue pays here a day, our share of it"),
    ("worst", "what is lost at worst if everything resting fills"),
    ("STALE", "no answer from the daemon: what is grey is what was, not what is"),
    ("", ""),
    ("", "When nothing answers: `touch HOME/KILL` ends the daemon in order. `llm-maker status` prints the state for a pipe."),
)


def help_lines(width: int) -> list[Line]:
    """Every key, every short word."""
    return [line for key, text in _HELP for line in (labelled(key, text, width, indent=9) if key else wrapped(text, width) or [()])]


def key_line(width: int, waiting: int) -> Line:
    """As many keys as fit; `?` tells all."""
    keys = [("a", f"APPROVE {waiting}"), *KEYS] if waiting else list(KEYS)
    full = sum(len(key) + len(word) + 3 for key, word in keys) - 2
    gap = "  " if full <= width else " "
    return fitted(tuple(span for key, word in keys for span in ((key, f"{STRONG} #6cb6ff"), (f" {word}{gap}", DIM))), width)


def tab_line(board: Board, panes: Sequence[str], shown: str, stale: bool) -> Line:
    """Which panes there are, which one is shown, which has something to say."""
    standing = sum(alarm["standing"] for alarm in board["alarms"])
    words = {
        "alarms": f"alarms {standing}!" if standing else "alarms",
        "money": "money, a wish waits" if board["intents"] else "money",
    }
    spans: list[Span] = [("Tab ", DIM)]
    for name in panes:
        word = words.get(name, name)
        style = STRONG if name == shown else BAD if word.endswith("!") and not stale else DIM
        spans.append((f" [{word}]" if name == shown else f"  {word} ", style))
    return (*spans, ("   STALE" if stale else "", BAD))


def absent(home: str, fault: str, tries: int, width: int) -> list[Line]:
    """Nothing was ever seen: why, and how to start it."""
    often = f" ({tries} tries)" if tries else ""
    return [
        ((" llm-maker top ", "reverse #6cb6ff"), ("  nothing to see yet", WARN)),
        *wrapped(f"{fault or 'asking the daemon'}{often}", width, WARN),
        *wrapped(f"Start one with `llm-maker run --home {home}`; this screen goes on asking. q leaves.", width),
    ]


def stale_head(board: Board, home: str, fault: str, old: float, width: int) -> list[Line]:
    """The last picture's header in grey, under a line that cannot be overlooked."""
    said = f" STALE: no answer for {age(old)}, the picture is of {when(board['now_ns'])} "
    cure = f"{fault or 'the daemon does not answer'}; trying again. `llm-maker run --home {home}` starts one."
    grey = [tuple((text, DIM) for text, _ in line) for line in head(board, ("STALE", BAD), width)]
    return [((clip(said, width), "bold reverse #f47067"),), *wrapped(cure, width, BAD)[:2], *grey]


def scope_words(rows: Sequence[Row], chosen: Row | None) -> str:
    """What an act would act on, in words."""
    return f"ALL {len(rows)} markets" if chosen is None else clean(chosen["question"] or chosen["market_id"])


def _orders(rows: Sequence[Row]) -> str:
    return f"{sum(map(quoted, rows))} of {len(rows)} quoted" if len(rows) != 1 else ("quoted" if quoted(rows[0]) else "not quoted")


def ask_cancel(board: Board, rows: Sequence[Row], words: str, width: int) -> list[Line]:
    """What a cancel does."""
    orders = f"All {board['orders']} orders" if len(rows) == len(board["rows"]) else "Every order"
    said = (
        f"{orders} of ours there will be canceled ({_orders(rows)}), and nothing is quoted there until you resume. Positions stay."
    )
    return _asked("Cancel", words, said, "y: cancel    any other key: leave it", width)


def ask_resume(board: Board, words: str, width: int) -> list[Line]:
    """What a resume does."""
    money_word = "REAL MONEY" if board["real_money"] else "paper money"
    said = f"Quoting goes on there with {money_word}, as far as its gates allow; a halt that waits for a person ends."
    return _asked("Resume", words, said, "y: resume    any other key: leave it", width)


def ask_flatten(board: Board, row: Row | None, detail: Detail | None, words: str, width: int) -> list[Line]:
    """What leaving costs, both ways."""
    if row is None:
        cost = f"about {money(board['money']['equity'] - board['money']['exit'])} including fees"
        held = f"{sum(1 for each in board['rows'] if each['position'])} positions"
    else:
        held = f"{number(row['position'])} shares"
        cost = "a price not known from here" if detail is None else crossing(detail)
    said = (
        f"{held} will be left; nothing new is taken there meanwhile. As maker: at the touch, no spread is paid, it may take long."
    )
    lines = _asked("Flatten", words, said, "m: as maker    t: take, across the spread    any other key: leave it", width)
    return [*lines[:-2], *wrapped(f"Across the spread, at once: it costs {cost}.", width, WARN), *lines[-2:]]


def crossing(detail: Detail) -> str:
    """What it costs against the mid to walk the visible book with the whole position, fees aside."""
    row = detail["row"]
    left, cost = abs(row["position"]), 0.0
    if not row["bid"] or not row["ask"]:
        return "what the other side will pay: the book has one side only"
    mid = (row["bid"] + row["ask"]) / 2
    for level in detail["bids"] if row["position"] > 0 else detail["asks"]:
        taken = min(left, level["shares"])
        cost, left = cost + taken * abs(level["price"] - mid), left - taken
        if left <= 1e-9:
            return f"about {money(cost)} against the mid, fees aside"
    return f"about {money(cost)} against the mid, fees aside, and {number(round(left, 2))} shares find no one in the visible book"


def ask_kill(board: Board, width: int) -> list[Line]:
    """What a kill does."""
    held = sum(1 for row in board["rows"] if row["position"])
    said = (
        f"Cancels all {board['orders']} orders of ours, proves that nothing rests, and ENDS THE DAEMON. "
        f"{held} positions stay as they are, with nobody watching them."
    )
    return _asked("KILL", f"account {clean(board['account'])}", said, "Type kill and Enter. Esc: leave it.", width)


def ask_approve(intent: dict[str, Any], number_of: str, name: str, width: int) -> list[Line]:
    """Whose wish it is, and for what."""
    said = (
        f"{intent.get('who')} wants the position to be {intent.get('target')} shares of YES (minus is NO): {intent.get('reason')}. "
        f"Approved, it still passes every gate. Its id: {intent.get('intent_id')}"
    )
    return _asked(f"Approve ({number_of})", name, said, "y: approve    n: the next one    any other key: leave it", width)


def _asked(verb: str, words: str, said: str, answers: str, width: int) -> list[Line]:
    title: Line = ((f"{verb}: ", BAD if verb in ("KILL", "Cancel") else LABEL), (words, STRONG))
    first = wrapped(f"{verb}: {words}", width, STRONG)
    return [*([title] if len(first) == 1 else first), (), *wrapped(said, width), (), *wrapped(answers, width, DIM)]
