"""The answers of `status`, `markets` and `why` as lines for a person: 80 columns, aligned, no colour. Pure.

Knows the dicts of `view` and nothing behind them. Names and reasons may be shortened in a row; a price or an id never is. Text
that came from outside (a question, a venue's reason) is stripped of whatever could move a terminal's cursor.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from llm_maker.console.cells import age, clean, clip, clip_middle, fit, money, number, price, when

__all__ = [
    "age", "check_line", "clean", "clip", "clip_middle", "fit", "heading", "market_lines", "money", "number", "oddities",
    "position", "price", "quotes", "row", "status_lines", "survey_lines", "touch", "when", "why_lines",
]  # fmt: skip

WIDTH = 80
_TOUCH, _POSITION, _SIGNAL = 11, 13, 12
_NAME_MAX = 60
_LABEL = 12
_IDS_SHOWN = 5
_TOP_REFUSALS = 4
_TOP_CAPS = 3
_FEED_FACTS = ("frames", "markets", "sockets", "connected", "trouble")
_MODES = {"active": "ok", "reduce_only": "REDUCE", "halted": "HALTED"}

Answer = dict[str, Any]


# One market in a row.


def name(line: Answer) -> str:
    return str(line["question"] or line["market_id"])


def quotes(line: Answer) -> bool:
    """Something of ours rests, or may rest, on this market."""
    return bool(line["our_bid"] or line["our_ask"])


def touch(bid: float | None, ask: float | None) -> str:
    return f"{price(bid)}/{price(ask)}"


def position(line: Answer) -> str:
    """`+12.68@0.415`: minus is NO, or short; the price is that of YES. To four figures; `why` has them all."""
    held = line["position"]
    if not held:
        return "-"
    size = f"{held:+.0f}" if abs(held) >= 1000 else f"{held:+.4g}"
    return f"{size}@{price(line['avg_price'])}"


def signal(line: Answer) -> str:
    return f"{line['signal']} {age(line['signal_age_s'])}" if line["signal"] else "-"


def ours(line: Answer) -> str:
    """Our prices and whatever is not as usual about them; without prices, why there are none."""
    words = []
    if quotes(line):
        words.append(touch(line["our_bid"], line["our_ask"]))
    if line["exit"]:
        words.append(f"leaving: {line['exit']}")
    if line["why"]:
        words.append(line["why"])
    elif line["mode"] != "active":
        words.append(line["mode"])
    return ", ".join(words) or "no quote wanted"


def _row(cells: tuple[str, str, str, str, str], width: int) -> str:
    market, book, held, own, said = cells
    free = max(20, width - _TOUCH - _POSITION - _SIGNAL - 4)
    short = min(_NAME_MAX, free * 11 // 20)
    left = f"{clip_middle(market, short)} {fit(book, _TOUCH)} {fit(held, _POSITION)}"
    return f"{left} {clip(own, free - short)} {said}".rstrip()


def heading(width: int = WIDTH) -> str:
    return _row(("market", "bid/ask", "position", "ours, or why not", "signal, age"), width)


def row(line: Answer, width: int = WIDTH) -> str:
    """One market of `view.line` in one line, `width` columns unless its numbers need more."""
    # Short, but never silent about it.
    called = name(line).replace("Simulated: ", "sim: ", 1)
    cells = (called, touch(line["bid"], line["ask"]), position(line), ours(line), signal(line))
    return _row(cells, width)


def _item(label: str, text: str, indent: int = 2) -> list[str]:
    """`label  text`, the text wrapped under itself."""
    head = " " * indent + f"{clean(label):<{_LABEL}} "
    return textwrap.wrap(
        clean(text), WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
    ) or [head.rstrip()]


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# `status`.


def status_lines(answer: Answer) -> list[str]:
    """What runs, whether it is well, what is odd, and every market in a row."""
    markets, counts = answer["markets"], answer["counts"]
    refused = sorted(answer["refused"].items(), key=lambda item: (-item[1], item[0]))[:_TOP_REFUSALS]
    return [
        f"{clean(answer['account'])}: {answer['mode'].upper()}, {_stakes(answer)}",
        *_item("market time", f"{when(answer['now_ns'])}, session {answer['session']}"),
        *_item("well?", _verdict(answer)),
        *(line for odd in oddities(answer) for line in _item("odd", odd)),
        *_item("money", _money(answer)),
        *_item("orders", f"{answer['orders']} live; so far {counts['placed']} placed, {_plural(counts['fills'], 'fill')}"),
        *(line for intent in answer["intents"] for line in _item("waits", _intent(intent))),
        *(line for intent in answer["at_work"] for line in _item("wish", _wish(intent))),
        *_item("slow loop", _slow(answer)),
        *(_item("twin", _twin(answer["twin"])) if answer.get("twin") else ()),
        *(line for venue, facts in answer["venues"].items() for line in _item("venue", f"{venue}: {_venue(facts)}")),
        *(_item("feed", _feed(answer)) if "feed" in answer else ()),
        *(_item("page", f"{answer['page']}; `llm-maker page` prints its link") if answer.get("page") else ()),
        *(_item("refused", ", ".join(f"{reason} {count}x" for reason, count in refused)) if refused else ()),
        "",
        *([heading(), *map(row, markets)] if markets else ["no markets yet"]),
    ]


def _stakes(answer: Answer) -> str:
    """What kind of money, and of market."""
    kind = "LIVE, REAL MONEY" if answer["real_money"] else "PAPER money"
    return kind + (" on a SIMULATED market" if answer.get("simulated") else "")


def _wanted(intent: Answer) -> str:
    target = "a position" if intent["target"] is None else number(intent["target"])
    because = f": {intent['reason']}" if intent["reason"] else ""
    return f"{intent['who']} wants {target} of {intent['market_id']}{because}"


def _intent(intent: Answer) -> str:
    return f"{_wanted(intent)}; `llm-maker approve {intent['intent_id']}`"


def _wish(intent: Answer) -> str:
    return f"{_wanted(intent)}; {intent['intent_id']}, at work; an `intend` for what is held takes it back"


def _twin(twin: Answer) -> str:
    """What the model was worth so far, and every account beside that does not trade."""
    gained, days = twin["difference_usd"], twin["days"]
    still = [f"{name} {a['mode'].upper()}: {a['why']}" for name, a in twin["accounts"].items() if a["mode"] != "active"]
    worth = "nothing to compare" if gained is None else f"{twin['against']} {money(gained, signed=True)} against it"
    if twin["interval_usd"] is not None:
        worth += f" [{', '.join(money(limit, signed=True) for limit in twin['interval_usd'])}]"
    doubt = f", no verdict under {twin['verdict_days']}" if days < twin["verdict_days"] else ""
    return "; ".join([f"{worth}, model cost paid, over {number(round(days, 2))} days{doubt} (paper)", *still])


def _verdict(answer: Answer) -> str:
    quoting, total = sum(map(quotes, answer["markets"])), len(answer["markets"])
    told = f"quoting {quoting} of {_plural(total, 'market')}"
    odd = len(oddities(answer))
    return f"yes: {told}" if not odd else f"look: {_plural(odd, 'odd thing')} below; {told}"


def oddities(answer: Answer) -> list[str]:
    """What a person should look at, the worst first; empty when all is well."""
    return [*_odd_now(answer), *_odd_so_far(answer["counts"])]


def _odd_now(answer: Answer) -> Iterator[str]:
    if answer["mode"] != "active":
        yield f"{answer['mode']}: {answer['why']}"
    unknown = answer["unknown_orders"]
    if unknown:
        more = f" and {len(unknown) - _IDS_SHOWN} more" if len(unknown) > _IDS_SHOWN else ""
        ids = ", ".join(unknown[:_IDS_SHOWN])
        yield f"{_plural(len(unknown), 'order')} UNKNOWN, counted as live until the venue says: {ids}{more}"
    for venue, facts in answer["venues"].items():
        if not facts["up"] or facts["silent"] or facts["lagging"]:
            yield f"venue {venue}: {_venue(facts)}"
    trouble = answer["discovery"]["trouble"] if "discovery" in answer else ""
    if trouble:
        yield f"the venue's listings: {trouble}"
    slow = answer["slow_loop"]
    if slow["mode"] == "FALLBACK":
        yield f"the model fails, rules quote alone: {slow['cause']}"
    if answer["foreign_orders"]:
        yield f"{_plural(answer['foreign_orders'], 'order')} on the account not ours, left alone"
    if answer["markets"] and answer["mode"] == "active" and not any(map(quotes, answer["markets"])):
        yield "nothing is quoted: `llm-maker markets` tells why"


def _odd_so_far(counts: dict[str, int]) -> Iterator[str]:
    names = {"overfills": "overfill", "failed_settlements": "failed settlement", "halts": "halt", "gaps": "book gap"}
    seen = [_plural(counts[key], noun) for key, noun in names.items() if counts[key]]
    if seen:
        yield "so far " + ", ".join(seen)


def _money(answer: Answer) -> str:
    today = "" if answer["today_usd"] is None else f" (today {money(answer['today_usd'], signed=True)})"
    return (
        f"equity {money(answer['equity_usd'])}, P&L {money(answer['pnl_usd'], signed=True)}{today}; "
        f"{money(answer['exit_equity_usd'])} if left now; cash {money(answer['cash_usd'])}; "
        f"worst case of all that rests and is held {money(answer['exposure_usd'])}"
    )


def _slow(answer: Answer) -> str:
    slow, counts = answer["slow_loop"], answer["counts"]
    if slow["mode"] == "rules only":
        return f"rules only: {slow['cause']}"
    cause = f": {slow['cause']}" if slow["cause"] and slow["mode"] == "FALLBACK" else ""
    told = f"{_plural(counts['decisions'], 'decision')}, {_plural(counts['signals'], 'signal')}"
    failed = f", {_plural(counts['failures'], 'failure')} ({slow['failures_in_a_row']} in a row)" if counts["failures"] else ""
    waiting = "; an answer is awaited" if slow["waiting_for"] else ""
    return f"{slow['mode']}{cause}; {told}{failed}{waiting}"


def _feed(answer: Answer) -> str:
    """Connections as they are now, what went wrong so far, and the dead man's switch where there is one."""
    feed = answer["feed"]
    told = f"{_plural(feed['markets'], 'market')}, {feed['connected']} of {_plural(feed['sockets'], 'socket')} connected"
    faults = [f"{kind} {count}x" for kind, count in feed.items() if kind not in _FEED_FACTS and count]
    faults += [f"heartbeat {answer['heartbeat']}"] if answer["heartbeat"] else []
    return "; ".join(filter(None, (told, ", ".join(faults))))


def _venue(facts: Answer) -> str:
    if not facts["up"]:
        return f"DOWN: {facts['down_reason']}"
    heard = "never heard" if facts["heard_s"] is None else f"heard {age(facts['heard_s'])} ago"
    odd = "".join(f", {word.upper()}" for word in ("silent", "lagging") if facts[word])
    return f"up, {facts['regime']}, {heard}, lag {facts['lag_ms']:.0f} ms{odd}"


# `markets`.


def market_lines(answer: Answer) -> list[str]:
    """What is in, in rows; then in full what stands still and why; then what was not chosen and why."""
    markets, rest = answer["markets"], answer.get("not_chosen", [])
    still = [line for line in markets if not quotes(line)]
    lines = [f"{clean(answer['account'])}: {_stakes(answer)}"]
    lines += [f"{_plural(len(markets), 'market')} in, {len(markets) - len(still)} quoted; {len(rest)} not chosen"]
    if markets:
        lines += ["", heading(), *map(row, markets)]
    if still:
        lines += ["", "in, but not quoted, and why", *_grouped((name(line), ours(line)) for line in still)]
    if rest:
        lines += ["", "not chosen, and why", *_grouped((name(entry), str(entry["why"])) for entry in rest)]
    return lines


def survey_lines(answer: Answer) -> list[str]:
    """Every candidate of the venue's listings under the reason why it is in or out."""
    rows = answer["markets"]
    lines = [f"{_plural(answer['surveyed'], 'candidate')}, {answer['chosen']} chosen"]
    for title, chosen in (("chosen, and why", True), ("not chosen, and why", False)):
        pairs = [(name(row), str(row["why"])) for row in rows if row["chosen"] is chosen]
        if pairs:
            lines += ["", title, *_grouped(iter(pairs))]
    return lines


_SIGNS = {"ok": "ok      ", "warning": "warning ", "failed": "FAILED  ", "skipped": "skipped "}


def check_line(title: str, state: str, text: str, cure: str) -> str:
    """One finding of `doctor`; its cure on a line of its own."""
    line = f"{_SIGNS[state]}{clean(title)}: {clean(text)}"
    return f"{line}\n        cure: {clean(cure)}" if cure and state != "ok" else line


def _grouped(pairs: Iterator[tuple[str, str]]) -> list[str]:
    """Every reason once, in the order of its first market, with the markets under it."""
    groups: dict[str, list[str]] = {}
    for market, reason in pairs:
        groups.setdefault(reason, []).append(market)
    lines = []
    for reason, names in groups.items():
        lines += textwrap.wrap(clean(reason), WIDTH, initial_indent="  ", subsequent_indent="  ") or ["  no reason told"]
        lines += [f"      {clip_middle(market, WIDTH - 6).rstrip()}" for market in names]
    return lines


# `why MARKET`.


def why_lines(answer: Answer) -> list[str]:
    """The gate chain with its numbers, both sides, caps and the opinion; the last line is the nearest change."""
    return [
        *textwrap.wrap(clean(name(answer)), WIDTH),
        *_item("id", answer["market_id"]),
        *_item("account", f"{answer['account']}: {_stakes(answer)}"),
        *_item("now", _now(answer)),
        *_item("book", f"{touch(answer['bid'], answer['ask'])}, fair {price(answer['fair'])}"),
        *_item("position", _position(answer)),
        "",
        "gates, in the order they are judged",
        *(line for gate in answer["gates"] for line in _gate(gate)),
        "",
        "quotes",
        *(line for side, facts in answer["sides"].items() for line in _side(side, facts)),
        *_strategy(answer),
        "",
        "caps",
        *(line for cap, text in answer["caps"].items() for line in _item(cap, text)),
        *_item("size", f"base {number(answer['base_size'])}, position at most {number(answer['max_position'])}"),
        "",
        "opinion",
        *_opinion(answer),
        "",
        f"nearest change: {clean(_change(answer))}",
    ]


def _now(answer: Answer) -> str:
    closed = answer["first_closed"]
    doing = "quoting" if quotes(answer) else "not quoting"
    return f"{doing}; {answer['mode']}" + (f": {closed}" if closed else ", every gate is open")


def _position(answer: Answer) -> str:
    if not answer["position"]:
        return "flat"
    leaving = f", leaving: {answer['exit']}" if answer["exit"] else ""
    return f"{number(answer['position'])} at {price(answer['avg_price'])} on average{leaving}"


def _gate(gate: Answer) -> list[str]:
    return _item(gate["gate"], f"{_MODES[gate['mode']]:<6}  {gate['numbers']}".rstrip())


def _side(side: str, facts: Answer) -> list[str]:
    """What is wanted, what the limits leave of it, what rests, what was refused, and what would help."""
    wish = facts["wish"]
    if wish is not None:
        how = wish["reason"] + _behind(wish["ticks_behind"])
        told = f"wants {number(wish['shares'])} at {price(wish['price'])} ({how}); limits leave {number(facts['fits'])}"
    else:
        told = f"wanted at {price(facts['wanted'])}" if facts["wanted"] is not None else "nothing wanted"
        told += f": {facts['lack']}" if facts["lack"] else ""
    lines = _item(side, told)
    if facts["caps"]:
        rooms = [f"{cap['cap']} leaves {number(round(cap['leaves'], 2))}" for cap in facts["caps"][:_TOP_CAPS]]
        reduces = f"{number(facts['reduces'])} only reduce; beyond, " if facts["reduces"] else ""
        lines += _item("", reduces + ", ".join(rooms))
    for order in facts["resting"]:
        what = f"{number(order['remaining'])} at {price(order['price'])}"
        told = f"{order['status'].upper().replace('_', ' ')}, {order['token'].upper()}, {age(order['age_s'])} old"
        lines += _item("", f"rests {what}, {told}, {order['reason']}; {order['order_id']}")
    for reason, seconds in facts["refused_for_s"].items():
        lines += _item("", f"refused: {reason}, for {age(seconds)}")
    return lines + (_item("", f"change: {facts['change']}") if facts["change"] else [])


def _behind(ticks: int | None) -> str:
    """Where a price stands beside the best of the others."""
    if not ticks:
        return "" if ticks is None else ", joins the best"
    return f", {_plural(abs(ticks), 'tick')} {'behind' if ticks > 0 else 'before'} the best"


def _strategy(answer: Answer) -> list[str]:
    """What moved its prices, the largest first, and what it took off its sizes; or what trades in its place."""
    facts = answer["strategy"]
    if facts["instead"]:
        return _item("strategy", f"not asked: {facts['instead']}")
    moved = sorted(((k, v) for k, v in facts["terms"].items() if v), key=lambda term: -abs(term[1]))
    told = [
        facts["note"],
        "prices chosen by expected value" if facts["table"] else "",
        ", ".join(f"{name} {value:+.4f}" for name, value in moved),
    ]
    told += [f"{name} takes {number(round(shares, 2))} shares off" for name, shares in facts["taken_shares"].items()]
    return _item("strategy", "; ".join(filter(None, told)) or "adds nothing")


def _opinion(answer: Answer) -> list[str]:
    view = answer["opinion"]
    if not answer["signal"]:
        return _item("model", "has said nothing about this market")
    target = "none" if view["target"] is None else number(view["target"])
    effect = (
        f"{view['shift_log_odds']:+.4f} log-odds at weight {view['weight']:.3f}; sizes x{view['size_ratio']:g}, "
        f"half-spread x{view['widen']:g}, position wanted {target}{', EXIT' if view['exit'] else ''}"
    )
    said = f"{answer['signal']}, confidence {answer['confidence']:g}, {age(answer['signal_age_s'])} ago"
    torn = f"; its models are {view['disagreement']:.2f} log-odds apart" if view["disagreement"] else ""
    left = f"; {view['left_log_odds']:+.3f} of {view['apart_log_odds']:+.3f} log-odds are left after the market's own move"
    faded = f"half-life {age(view['half_life_s'])}, faded to {view['faded_to']:.0%}"
    faded += f", expires in {age(view['expires_in_s'])}" if view["expires_in_s"] > 0 else ""
    counts = f"{view['why_weight']}; {faded}{left}" + (f"; NOTHING NOW: {view['idle']}" if view["idle"] else "")
    return [*_item("model", f"{view['model']}: {said}{torn}"), *_item("counts for", counts), *_item("effect", effect)]


def _change(answer: Answer) -> str:
    if answer["nearest_change"]:
        return str(answer["nearest_change"])
    refused = [reason for facts in answer["sides"].values() for reason in facts["refused"]]
    if refused:
        return f"none is known for: {', '.join(dict.fromkeys(refused))}"
    return "none needed, it is quoted" if quotes(answer) else "none is known: no gate is closed, nothing was refused"
