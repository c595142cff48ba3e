"""What `top` writes, as lines of styled text: header, market table, stream, alarms, money, one market. Pure.

A line is a tuple of (text, style) spans, never markup, so that no word from outside can style or hide anything; whatever came from
outside has lost its control marks (`cells.clean`). A colour never says what no word or sign says.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from llm_maker.console.cells import age, clean, clip, clip_middle, money, number, price, when
from llm_maker.console.shapes import Alarm, Board, Detail, Entry, Level

Span = tuple[str, str]
Line = tuple[Span, ...]
Names = Mapping[str, str]
"""Market id -> what it is called in a row."""

PLAIN, DIM, STRONG, LABEL = "", "#8b949e", "bold", "#6cb6ff"
GOOD, BAD, WARN, OURS = "#57ab5a", "bold #f47067", "#daaa3f", "bold #dcbdfb"
_MODES = {"active": ("active", GOOD), "reduce_only": ("REDUCE", "bold #daaa3f"), "halted": ("HALTED", BAD)}
_LEVELS = {"info": ("info", DIM), "warning": ("WARNING", WARN), "error": ("ERROR", BAD)}
_KINDS = {
    "fill": "bold #57ab5a",
    "settlement": GOOD,
    "signal": "#dcbdfb",
    "decision": "#dcbdfb",
    "operator": "bold #6cb6ff",
    "alarm": BAD,
    "cancel": DIM,
}
_ALARMS = {"info": 0, "warning": 1, "error": 2}
_LADDER, _GATES = 49, 36
"""Cells of the ladder; cells from which the numbers of open gates are shown beside it."""


def width_of(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def flow(items: Iterable[Line], width: int, gap: int = 2) -> list[Line]:
    """Items side by side, a new line where one would not fit whole."""
    lines: list[Line] = []
    for item in items:
        if lines and width_of(lines[-1]) + gap + width_of(item) <= width:
            lines[-1] = (*lines[-1], (" " * gap, PLAIN), *item)
        else:
            lines.append(item)
    return lines


def wrapped(text: str, width: int, style: str = PLAIN, indent: str = "") -> list[Line]:
    """Whole, over as many lines as it needs; continued lines are indented."""
    lines = textwrap.wrap(clean(text), max(20, width), subsequent_indent=indent, break_on_hyphens=False)
    return [((line, style),) for line in lines]


def called(market_id: str, question: str) -> str:
    """A market's name in a row: short, but never silent about a simulation."""
    return clean(question or market_id).replace("Simulated: ", "sim: ", 1)


def mode(word: str) -> Span:
    return _MODES.get(word, (clean(word), BAD))


def gain(value: float | None) -> Span:
    if value is None:
        return "-", DIM
    cents = round(value, 2)
    return money(value, signed=True), GOOD if cents > 0 else BAD if cents < 0 else DIM


def _item(label: str, *spans: Span) -> Line:
    return ((f"{label} ", LABEL), *spans)


def _of(limit: float | None, word: str = "of") -> Span:
    return (f" {word} {money(limit).removesuffix('.00')}", DIM) if limit else ("", PLAIN)


# The header.


def head(board: Board, picture: Span, width: int) -> list[Line]:
    """Whose money, how it stands, when; then the money; then what stands in the way. `picture` tells how old all this is."""
    real = (" REAL MONEY ", "bold reverse #f47067") if board["real_money"] else (" PAPER ", "reverse #6cb6ff")
    word, style = mode(board["mode"])
    marks: Line = ((clean(board["account"]), STRONG), (" ", PLAIN), real)
    if board["simulated"]:
        marks = (*marks, (" ", PLAIN), (" SIMULATED ", "reverse #6cb6ff"))
    first: list[Line] = [(*marks, (" ", PLAIN), (word.upper(), f"{style} bold")), ((when(board["now_ns"]), PLAIN),), (picture,)]
    lines = flow(first, width)
    if board["why"]:
        lines += [((clip(f"{word}: {board['why']}", width).rstrip(), style),)]
    lines += flow(_money_items(board), width)
    worst = max((a for a in board["alarms"] if a["standing"]), key=lambda a: _ALARMS[a["level"]], default=None)
    if worst is not None and worst["level"] == "error":
        lines.append(((clip(f"ERROR: {worst['text']}; helps: {worst['cure']}", width).rstrip(), BAD),))
    return lines


def _money_items(board: Board) -> list[Line]:
    m, slow = board["money"], board["slow_loop"]
    loop = clean(str(slow.get("mode", "?")))
    near = m["drawdown"] > m["drawdown_limit"] / 2 > 0
    return [
        _item("equity", (money(m["equity"]), STRONG)),
        _item("today", gain(m["today"]), _of(-m["daily_loss_limit"], "limit")),
        _item("P&L", gain(m["pnl"])),
        _item("drawdown", (money(m["drawdown"]), BAD if near else PLAIN), _of(m["drawdown_limit"])),
        _item("exposure", (money(m["exposure"]), PLAIN), _of(m["bankroll"])),
        _item("orders", (str(board["orders"]), PLAIN)),
        _item("model", (loop, BAD if loop == "FALLBACK" else PLAIN), (f" {money(m['model_cost'])}", PLAIN), _of(m["model_budget"])),
        _item("health", health(board)),
    ]


def health(board: Board) -> Span:
    """In a word; the alarms and `money` panes say the rest."""
    standing = [alarm["level"] for alarm in board["alarms"] if alarm["standing"]]
    down = [name for name, facts in board["venues"].items() if not facts.get("up", False)]
    if board["health"].get("storage_failed"):
        return "STORAGE FAILED", BAD
    if down:
        return f"{clean(down[0]).upper()} DOWN", BAD
    if "error" in standing:
        return f"TROUBLE {standing.count('error')}", BAD
    if board["unknown_orders"]:
        return f"UNKNOWN ORDERS {len(board['unknown_orders'])}", WARN
    if "warning" in standing:
        return f"WARNING {standing.count('warning')}", WARN
    return "well", GOOD


# Stream and alarms, newest first.


def stream(entries: Sequence[Entry], names: Names, width: int, most: int) -> list[Line]:
    """What happened, the newest on top; each whole, on as many lines as it needs."""
    lines: list[Line] = []
    for entry in reversed(entries):
        if len(lines) >= most:
            break
        lines += _entry(entry, names, width)
    return lines or [(("nothing happened yet", DIM),)]


def _entry(entry: Entry, names: Names, width: int) -> list[Line]:
    at = when(entry["ts_ns"])[11:19]
    style = _KINDS.get(entry["kind"], PLAIN) if entry["level"] == "info" else _LEVELS[entry["level"]][1]
    level = "" if entry["level"] == "info" else f"{_LEVELS[entry['level']][0]} "
    market = clip_middle(names.get(entry["market_id"], clean(entry["market_id"])), 20).rstrip()
    said = f"{level}{clean(entry['text'])}" + (f"; helps: {clean(entry['cure'])}" if entry["cure"] else "")
    body = f"{said} [{market}]" if market else said
    first, *rest = textwrap.wrap(body, max(20, width - 19), break_on_hyphens=False) or [""]
    top: Line = ((f"{at} ", DIM), (f"{entry['kind']:<10}", style), (first, style if level else PLAIN))
    return [top, *(((" " * 19 + more, style if level else PLAIN),) for more in rest)]


def alarms(found: Sequence[Alarm], now_ns: int, names: Names, width: int) -> list[Line]:
    """What is wrong, since when, and what helps."""
    lines: list[Line] = []
    for alarm in found:
        word, style = _LEVELS[alarm["level"]]
        times = f", {alarm['count']}x" if alarm["count"] > 1 else ""
        lasting = "for" if alarm["standing"] else "over,"
        since = f"{lasting} {age(max(0, now_ns - alarm['since_ns']) / 1e9)}{'' if alarm['standing'] else ' ago'}{times}"
        market = names.get(alarm["market_id"], clean(alarm["market_id"]))
        where = f" [{clip_middle(market, 30).rstrip()}]" if market else ""
        lines += wrapped(f"{word} {since}: {alarm['text']}{where}", width, style if alarm["standing"] else DIM, "  ")
        lines += wrapped(f"  helps: {alarm['cure']}", width, PLAIN, "    ") if alarm["cure"] else []
    return lines or [(("no alarm", GOOD),)]


# Money, and all that concerns no single market.


def account(board: Board, width: int) -> list[Line]:
    """Where the money came from, the slow loop, the twin, the venues, what waits and what is refused."""
    m, slow, counts, twin = board["money"], board["slow_loop"], board["counts"], board["twin"]
    told: list[tuple[str, str]] = [
        ("if left now", f"{money(m['exit'])} by crossing, {money(m['equity'] - m['exit'])} below equity; cash {money(m['cash'])}"),
        (
            "earned",
            f"spread {money(m['earned_spread'], signed=True)}, fees {money(-m['fees'], signed=True)}, "
            f"rebates {money(m['rebates'], signed=True)}, rewards {money(m['rewards'], signed=True)}, "
            f"model {money(-m['model_cost'], signed=True)}",
        ),
        (
            "so far",
            ", ".join(f"{counts[key]} {key}" for key in ("placed", "canceled", "fills", "decisions", "signals") if key in counts),
        ),
        ("slow loop", f"{slow.get('mode', '?')}, {board['provider']}" + (f": {slow['cause']}" if slow.get("cause") else "")),
    ]
    if twin is not None:
        told.append(("twin", _twin(twin)))
    told += [("venue", f"{name} {_venue(facts)}") for name, facts in board["venues"].items()]
    told += [("waits", f"{i.get('intent_id')}: {_intent(i)}; a approves") for i in board["intents"]]
    odd = [f"{len(board['unknown_orders'])} unknown orders"] if board["unknown_orders"] else []
    odd += [f"{board['foreign_orders']} foreign orders"] if board["foreign_orders"] else []
    odd += [f"{counts[key]} {key.replace('_', ' ')}" for key in ("failures", "gaps", "halts", "overfills") if counts.get(key)]
    told += [("odd", ", ".join(odd))] if odd else []
    refused = sorted(board["refused"].items(), key=lambda item: -item[1])[:4]
    told += [("refused", ", ".join(f"{reason} {count}x" for reason, count in refused))] if refused else []
    facts = board["health"]
    told.append(("daemon", f"{board['version']}, session {board['session']}, {number(facts.get('rss_mb', 0))} MB"
                 + (f", longest loop {facts['loop_delay_ms']:.0f} ms" if "loop_delay_ms" in facts else "")))  # fmt: skip
    return [line for label, text in told for line in labelled(label, text, width)]


def labelled(label: str, text: str, width: int, style: str = PLAIN, indent: int = 12) -> list[Line]:
    """`label  text`, the text wrapped under itself."""
    first, *rest = textwrap.wrap(clean(text), max(20, width - indent), break_on_hyphens=False) or [""]
    return [((f"{label:<{indent}}", LABEL), (first, style)), *(((" " * indent + more, style),) for more in rest)]


def _twin(twin: dict[str, Any]) -> str:
    gained = twin.get("difference_usd")
    interval = twin.get("interval_usd")
    between = f" [{money(interval[0], signed=True)}, {money(interval[1], signed=True)}]" if interval else ", no interval yet"
    return f"{twin.get('against', '')} " + (
        "nothing to compare" if gained is None else f"{money(gained, signed=True)} against it{between}"
    )


def _venue(facts: dict[str, Any]) -> str:
    if not facts.get("up"):
        return f"DOWN: {facts.get('down_reason', '')}"
    odd = "".join(f", {word.upper()}" for word in ("silent", "lagging") if facts.get(word))
    heard = facts.get("heard_s")
    last = "" if heard is None else f", heard {age(heard)} ago"
    return f"up, {facts.get('regime', '?')}{last}, lag {facts.get('lag_ms', 0):.0f} ms{odd}"


def _intent(intent: dict[str, Any]) -> str:
    return f"{intent.get('who')} wants {intent.get('target')} of {intent.get('market_id')}: {intent.get('reason')}"


# One market.


def market(detail: Detail, width: int, height: int) -> list[Line]:
    """Book and gates side by side, the nearest change, the model's words; of a low pane `height` lines show the heart of it."""
    why, row, low = detail["why"], detail["row"], height < 14
    doing = "quoting" if row["our_bid"] or row["our_ask"] else "NOT QUOTING"
    closed = clean(str(why.get("first_closed", "")))
    fine = doing == "quoting" and not row["why"] and not closed
    change = clean(str(why.get("nearest_change", ""))) or ("none needed" if fine else "none is known")
    state: Line = (
        (doing, GOOD if doing == "quoting" else WARN),
        (", ", PLAIN),
        mode(row["mode"]),
        (f": {closed}" if closed else "", WARN),
    )
    name = wrapped(row["question"] or row["market_id"], width, STRONG)
    lines = [
        *([] if low else name),
        *flow([state, _item("fair", (price(row["fair"]), PLAIN)), *_held(detail)], width)[: 1 if low else 9],
    ]
    if not (low and fine):
        lines += labelled("to change", change, width, WARN if closed else PLAIN)[: 2 if low else 9]
    lines += opinion(detail, width)[: 2 if low else 9]
    left = ladder(detail["bids"], detail["asks"])
    if width < _LADDER + 20:
        return [*lines, *left, *gates(why, width)]
    return [*lines, *beside(left, gates(why, width - _LADDER - 2), _LADDER + 2)]


def _held(detail: Detail) -> list[Line]:
    row = detail["row"]
    at = f" at {price(row['avg_price'])}" if row["position"] else ""
    leaving = f", leaving: {clean(row['exit'])}" if row["exit"] else ""
    return [
        _item("position", (f"{number(row['position'])}{at}{leaving}", PLAIN)),
        _item("worst", (money(row["worst_usd"]), PLAIN)),
        _item("P&L", gain(row["pnl_usd"])),
    ]


def opinion(detail: Detail, width: int) -> list[Line]:
    """The model's present word and its reasons."""
    row = detail["row"]
    if not row["signal"]:
        return labelled("model", "has said nothing about this market", width, DIM)
    old = "" if row["signal_age_s"] is None else f", {age(row['signal_age_s'])} ago"
    sure = "" if row["confidence"] is None else f" {row['confidence']:.2f}"
    return labelled(
        "model", f"{row['signal']}{sure}{old}, weight {row['weight']:.2f}: {detail['reasoning']} ({detail['model']})", width
    )


def ladder(bids: Sequence[Level], asks: Sequence[Level]) -> list[Line]:
    """Best first, bids left and asks right; our shares outside, marked with a star."""
    lines: list[Line] = [((f"{'ours':>7} {'shares':>8} {'bid':>6}   {'ask':<6} {'shares':<8} ours", LABEL),)]
    for i in range(max(len(bids), len(asks))):
        bid, ask = bids[i] if i < len(bids) else None, asks[i] if i < len(asks) else None
        left = _level(bid, f"{_ours(bid):>7} {_shares(bid):>8} {_at(bid):>6}")
        right = _level(ask, f"{_at(ask):<6} {_shares(ask):<8} {_ours(ask):<7}".rstrip())
        lines.append((left, (" | ", DIM), right))
    return lines


def _ours(level: Level | None) -> str:
    return f"*{level['ours']:.6g}" if level and level["ours"] else ""


def _shares(level: Level | None) -> str:
    return f"{level['shares']:.7g}" if level else ""


def _at(level: Level | None) -> str:
    return price(level["price"]) if level else ""


def _level(level: Level | None, text: str) -> Span:
    return text, OURS if level and level["ours"] else PLAIN


def gates(why: dict[str, Any], width: int) -> list[Line]:
    """The closed ones first, then the open, each with its numbers; where these have no room the open ones are only named."""
    lines: list[Line] = []
    chain = why.get("gates", [])
    closed, unlocked = [gate for gate in chain if not gate["open"]], [gate for gate in chain if gate["open"]]
    for gate in [*closed, *(unlocked if width >= _GATES else [])]:
        word, style = ("ok", DIM) if gate["open"] else ("NO", BAD)
        first, *rest = textwrap.wrap(clean(str(gate["numbers"])), max(12, width - 14), break_on_hyphens=False) or [""]
        lines.append(((f"{word:<3}", style), (f"{clean(gate['gate']):<11}", LABEL if gate["open"] else style), (first, PLAIN)))
        lines += [((" " * 14 + more, PLAIN),) for more in rest]
    if unlocked and width < _GATES:
        lines += labelled("ok", ", ".join(gate["gate"] for gate in unlocked), width, DIM, 3)
    return lines


def beside(left: list[Line], right: list[Line], at: int) -> list[Line]:
    """Two columns, the right one from column `at`."""
    lines: list[Line] = []
    for i in range(max(len(left), len(right))):
        first = left[i] if i < len(left) else ()
        second = right[i] if i < len(right) else ()
        lines.append((*first, (" " * max(1, at - width_of(first)), PLAIN), *second) if second else first)
    return lines


def whole(detail: Detail, names: Names, width: int) -> list[Line]:
    """All that is known of one market, for a screen of its own."""
    past = [
        f"{age(each['age_s'])} ago: {each['action']} {each['confidence']:.2f}, "
        f"p_yes {_share(each['p_yes'])} at {price(each['price'])}"
        for each in detail["past"]
    ]
    row = detail["row"]
    reward = row["reward_usd_per_day"]
    share = "not known" if row["reward_share"] is None else f"{row['reward_share']:.1%}"
    return [
        *market(detail, width, 99),
        (),
        *labelled("id", row["market_id"], width),
        *labelled("rewards", "no programme" if reward is None else f"{money(reward)} a day, our share about {share}", width),
        *labelled("decision", detail["decision_id"] or "none", width),
        *(line for i, text in enumerate(past) for line in labelled("" if i else "earlier", text, width)),
        (),
        (("what happened here", LABEL),),
        *stream(detail["tail"], {**names, row["market_id"]: ""}, width, 100),
    ]


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def fitted(line: Line, width: int) -> Line:
    """Cut to `width` cells."""
    kept: list[Span] = []
    for text, style in line:
        room = width - width_of(tuple(kept))
        if room <= 0:
            break
        kept.append((text if cell_len(text) <= room else set_cell_size(text, room), style))
    return tuple(kept)
