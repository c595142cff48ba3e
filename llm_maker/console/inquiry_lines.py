"""The answer of `why ORDER` and `why FILL` as lines for a person: 80 columns, no colour. Pure.

Knows the dict of `inquiry` and nothing behind it. Text from outside is stripped of whatever could move a terminal's cursor.
"""

from __future__ import annotations

import textwrap
from typing import Any

from llm_maker.console.tables import WIDTH, Answer, age, clean, money, number, price

_LABEL = 14


def inquiry_lines(answer: Answer) -> list[str]:
    """What was ordered; the event, the book, the signal, fair value, the gates; what became of it; what cannot be told."""
    order = answer["order"]
    return [
        *textwrap.wrap(clean(_head(answer)), WIDTH),
        *_item("market", f"{order['question'] or ''} ({order['market_id']})"),
        *_item("order", _order(order)),
        *_item("reason", _reason(order)),
        *(line for one in answer["with_it"] for line in _item("beside it", _order(one))),
        *_decided(answer),
        "",
        "what became of it",
        *(line for step in answer["life"] for line in _step(step)),
        *_item("now", answer["status"].replace("_", " ") or "see the lines above"),
        *(line for fill in answer["fills"] for line in _fill(fill, answer["of"])),
        *_cannot(answer["cannot"]),
    ]


def _head(answer: Answer) -> str:
    kind = "REAL MONEY" if answer["real_money"] else "PAPER money"
    world = ", SIMULATED market" if answer["simulated"] else ""
    of = f"fill {answer['of']} of " if answer["of"] else ""
    where = f"told from {answer['journal']}" if answer["source"] == "journal" else "told from the logs and the ledger alone"
    return f"{of}order {answer['order']['order_id']} of {answer['account']} on {answer['venue']}, {kind}{world}; {where}"


def _item(label: str, text: str, indent: int = 2) -> list[str]:
    head = " " * indent + f"{clean(label):<{_LABEL}} "
    return textwrap.wrap(
        clean(text), WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False, break_on_hyphens=False
    ) or [head.rstrip()]


def _order(order: Answer) -> str:
    if order["side"] is None:
        return f"{order['order_id']}: its own line is in no log any more"
    flags = [order["time_in_force"] or "", "post-only" if order["post_only"] else "", "reduce-only" if order["reduce_only"] else ""]
    token = "" if order["token"] in ("none", None) else f" {order['token'].upper()}"
    yes = f" (YES price {price(order['yes_price'])})" if order["token"] == "no" else ""
    shares = "" if order["shares"] is None else f"{number(order['shares'])}"
    what = f"{order['side']} {shares}{token} at {price(order['price'])}{yes}"
    return f"{order['order_id']}: {what}; {', '.join(filter(None, flags))}; {order['time']}"


def _reason(order: Answer) -> str:
    words = [order["reason"] or "none told"]
    if order["decision_id"]:
        words.append(f"shaped by decision {order['decision_id']}")
    if order["base_shares"] is not None:
        words.append(f"base size {number(order['base_shares'])}")
    if order["ahead"] is not None:
        words.append(f"{number(order['ahead'])} shares in the book at its price then")
    if order["shaped_by"]:
        words.append(f"held down or refused on this side: {', '.join(order['shaped_by'])}")
    return "; ".join(words)


def _decided(answer: Answer) -> list[str]:
    """The moment of the decision; nothing where the journal cannot tell."""
    if answer["event"] is None:
        return _item("decision", _decision(answer)) if answer["decision"] else []
    event = answer["event"]
    return [
        "",
        "the event that made us decide",
        *_item("event", f"{event['type']} at {event['time']}, entry {answer['seq']}: {event['text']}"),
        *_item("what changed", "; ".join(answer["changed"]) or "nothing in this market but the time"),
        "",
        "the book just before, and at the decision (shares; * ours among them)",
        *_books(answer["book_before"], answer["book"]),
        "",
        "the signal",
        *_signal(answer),
        "",
        "fair value",
        *_fair(answer["fair"]),
        "",
        f"gates, at that moment: {answer['market_mode']}",
        *(line for gate in answer["gates"] for line in _item(gate["gate"], f"{_open(gate):<6}  {gate['numbers']}".rstrip())),
        *(line for cap, text in answer["caps"].items() for line in _item(f"{cap} cap", _cap(answer["caps_before"][cap], text))),
    ]


def _open(gate: Answer) -> str:
    return "ok" if gate["open"] else str(gate["mode"]).upper()


def _cap(before: str, after: str) -> str:
    return after if before == after else f"{before}; with what was sent: {after}"


def _books(before: Answer, after: Answer) -> list[str]:
    width = (WIDTH - 4) // 2
    left, right = _book(before), _book(after)
    rows = max(len(left), len(right))
    pairs = zip(left + [""] * (rows - len(left)), right + [""] * (rows - len(right)), strict=True)
    return [f"  {one:<{width}}{other}".rstrip() for one, other in pairs]


def _book(book: Answer) -> list[str]:
    if not book["trusted"]:
        return ["no trusted book", f"our position {number(book['position'])}"]
    asks = [f"  ask {_level(level)}" for level in reversed(book["asks"])]
    bids = [f"  bid {_level(level)}" for level in book["bids"]]
    middle = "  one-sided" if book["mid"] is None else f"  mid {book['mid']:g}, spread {price(book['spread'])}"
    micro = [] if book["micro_price"] is None else [f"best level's micro-price {book['micro_price']:g}"]
    return [*asks, middle, *bids, *micro, f"our position {number(book['position'])}, {age(book['age_s'])} old"]


def _level(level: Answer) -> str:
    return f"{price(level['price']):>7} {level['shares']:>10g}" + (f" *{level['ours']:g}" if level["ours"] else "")


def _signal(answer: Answer) -> list[str]:
    signal = answer["signal"]
    if signal is None:
        return _item("model", "no opinion was in force: rules alone")
    p_yes = "" if signal["p_yes"] is None else f", p(YES) {signal['p_yes']:.3f}"
    fallback = "; FALLBACK: it did not count" if signal["fallback"] else ""
    said = f"{signal['action']}, confidence {signal['confidence']:g}{p_yes}, {age(signal['age_s'])} old{fallback}"
    target = "none" if signal["target"] is None else number(signal["target"])
    effect = f"{signal['shift_log_odds']:+.4f} log-odds, sizes x{signal['size_ratio']:g}, half-spread x{signal['widen']:g}"
    return [
        *_item("model", f"{signal['model']}: {said}"),
        *_item("weight", f"{signal['weight']:.3f}: {signal['why_weight']}"),
        *_item("effect", f"{effect}, position wanted {target}"),
        *_item("decision", _decision(answer)),
        *_item("its words", signal["reasoning"] or "none"),
    ]


def _decision(answer: Answer) -> str:
    line, signal = answer["decision"], answer["signal"] or {}
    if line is None:
        return f"{signal.get('decision_id') or 'none'}; its line is not in llm_decisions.jsonl"
    took = "" if line.get("latency_ms") is None else f", {line['latency_ms']:.0f} ms"
    asked = f", asked because: {line['reason']}" if line.get("reason") else ""
    return f"{line['decision_id']} of {line['timestamp']}: {line['outcome']}, ${line.get('cost_usd', 0):g}{took}{asked}"


def _fair(fair: Answer) -> list[str]:
    lines = _item("micro-price", f"{fair['micro_price']:.5f}")
    lines += [line for name, value in fair["terms"].items() if value for line in _item(name, _term(name, value))]
    if fair["fair"] is not None:
        told = f"{fair['fair']:.5f}; we quoted around {fair['reservation']:.5f}, no nearer than {fair['half_spread']:.5f}"
        lines += _item("fair value", told)
    return lines + (_item("note", fair["note"]) if fair["note"] else [])


def _term(name: str, value: float) -> str:
    if name in ("taper", "unwind"):
        return f"{value:g} shares taken off"
    return f"{value:+.5f}" + (" of half-spread" if name in ("half", "toxicity") else "")


def _step(step: Answer) -> list[str]:
    after = step["time"] if step["after_ms"] is None else _after(step["after_ms"])
    return _item(step["what"].replace("_", " "), f"{after}  {step['text']}".rstrip())


def _after(ms: float) -> str:
    return f"after {ms:.0f} ms" if ms < 10_000 else f"after {age(ms / 1000)}"


def _fill(fill: Answer, asked: str) -> list[str]:
    token = "" if fill["token"] == "none" else f" {fill['token'].upper()}"
    mark = "  <- asked about" if asked and fill["fill_id"] == asked else ""
    mid = "no mid known" if fill["mid"] is None else f"mid then {fill['mid']:g}"
    queue = "" if fill["ahead"] is None else f", at most {number(fill['ahead'])} shares ahead of it before"
    what = (
        f"{fill['side']} {number(fill['shares'])}{token} at {price(fill['price'])}, {fill['liquidity']}, fee ${fill['fee_usd']:g}"
    )
    later = "; ".join(f"{_span(m['after_s'])} {m['mid']:g} ({money(m['earned_usd'], signed=True)})" for m in fill["markouts"])
    earned = "not known" if fill["earned_usd"] is None else f"{money(fill['earned_usd'], signed=True)}, by {fill['earned_by']}"
    return [
        "",
        *textwrap.wrap(clean(f"fill {fill['fill_id']}, {fill['status']}{mark}"), WIDTH),
        *_item("what", f"{what}; {fill['time']}"),
        *_item("market", f"{mid}{queue}"),
        *(_item("mid later", later) if later else []),
        *_item("earned so far", earned),
    ]


def _span(seconds: float) -> str:
    return f"{age(seconds)}:"


def _cannot(reasons: list[Any]) -> list[str]:
    return ["", "cannot be told", *(line for reason in reasons for line in _item("", str(reason)))] if reasons else []
