"""What Polymarket tells of our account: golden user frames, REST rows, and one position whatever the order they come in."""

import json
import os
import random
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core import orders
from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.events import (
    FillFailed,
    FillSettled,
    OrderCanceled,
    OrderFilled,
    OrderLookedUp,
    RestingOrder,
)
from llm_maker.core.positions import Position
from llm_maker.core.values import Leg, Liquidity, Side
from llm_maker.venues.polymarket.account import wire as account_wire
from llm_maker.venues.polymarket.account.wire import AccountWire
from llm_maker.venues.polymarket.listing.tape_header import instruments_from_header
from llm_maker.venues.polymarket.numbers import WireError
from llm_maker.venues.polymarket.orders.ours import Ours, OwnOrders

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("LLM_MAKER_SHARED_DATA", ROOT.parent / "shared" / "data")) / "wire_fixtures_nautilus"
LINES = (ROOT / "tests/golden/polymarket_user/frames.jsonl").read_text().splitlines()
HEAD, GOLDEN = json.loads(LINES[0]), [json.loads(line) for line in LINES[1:]]
COUNTERS = (
    "pongs", "malformed", "unknown", "unrecorded", "foreign_orders", "foreign_trades", "uneven", "contradicted",
)  # fmt: skip
MARKETS = instruments_from_header(HEAD["header"])
SHARE = 10**6


def digest(pair):
    return "0x" + pair * 32


def own_orders():
    own = OwnOrders()
    for market in MARKETS:
        own.know(market)
    for name, pair, market, side, leg, price, qty in HEAD["own"]:
        own.add(Ours(name, digest(pair), MARKETS[market], Side[side], Leg(leg), price, qty * SHARE, True))
    return own


def wire(own=None):
    return AccountWire(own or own_orders(), HEAD["key"], HEAD["wallet"])


def raw(value):
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def counted(parser):
    return {name: value for name in COUNTERS if (value := getattr(parser, name))}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_golden(case):
    parser = wire()
    told = [event for frame in case["frames"] for event in parser.parse(raw(frame))]
    assert [json.loads(msgspec.json.encode(event)) for event in told] == case["events"]
    assert counted(parser) == case["counted"]
    assert parser.frames == len(case["frames"])
    assert HEAD["key"] not in parser.last_fault + parser.complaint()


@pytest.mark.parametrize("case", [c for c in GOLDEN if c["name"] != "text"], ids=lambda case: case["name"])
def test_rest_tells_the_same_trades_and_nothing_twice(case):
    """A REST row is the message without its envelope; after the channel has told it, REST has nothing to add, and the reverse."""
    notes = [n for f in case["frames"] for n in (f if isinstance(f, list) else [f]) if isinstance(n, dict)]
    trades = [note for note in notes if note.get("event_type", "trade") == "trade" and "maker_orders" in note]
    rows = [msgspec.Raw(raw(as_row(note, random.Random(1)))) for note in trades]
    parser = wire()
    told = parser.trades(rows)
    wanted = [event for event in case["events"] if event["type"] in ("OrderFilled", "FillSettled", "FillFailed")]
    assert [json.loads(msgspec.json.encode(event)) for event in told] == wanted
    twice = wire()
    for note in trades:
        twice.parse(raw(note))
        assert twice.trades([raw(as_row(note, random.Random(2)))]) == [] == twice.parse(raw(note))


def as_row(note, dice):
    """The REST form of a trade: no envelope, prefixed status, entries in another order."""
    row = {key: value for key, value in note.items() if key not in ("event_type", "type", "timestamp", "trade_owner")}
    if row.get("maker_orders"):
        row["maker_orders"] = dice.sample(row["maker_orders"], len(row["maker_orders"]))
    if dice.random() < 0.5 and row.get("status") and not row["status"].startswith("TRADE_"):
        row["status"] = "TRADE_STATUS_" + row["status"]
    return row | {"transaction_hash": "", "fee_rate_bps": ""}


# What the memory of told fills must and must not do.


def fill_note(trade="t", status="MATCHED", pair="a1", amount="5", price="0.518", token="1001", **more):
    entry = {"order_id": digest(pair), "owner": HEAD["key"], "matched_amount": amount, "price": price, "asset_id": token}
    return {"event_type": "trade", "id": trade, "status": status, "trader_side": "MAKER", "maker_orders": [entry], **more}


def test_a_fill_that_could_not_be_told_is_told_once_its_order_is_known():
    own = OwnOrders()
    parser = wire(own)
    assert parser.parse(raw(fill_note())) == [] and parser.unrecorded == 1
    own.add(own_orders().by_order("A1"))
    (fill,) = parser.parse(raw(fill_note()))
    assert isinstance(fill, OrderFilled) and fill.fill_id == "t:A1"


def test_the_end_of_a_fill_is_told_even_when_its_order_and_its_sizes_changed_their_words():
    """What was first told stands: one id, one fill."""
    parser = wire()
    (fill,) = parser.parse(raw(fill_note(amount="5")))
    told = parser.parse(raw(fill_note(status="CONFIRMED", amount="7", price="0.4")))
    assert told == [fill, FillSettled("t:A1", "0xaa")]


def test_a_taker_whose_makers_come_later_keeps_its_first_fill():
    parser = wire()
    note = {"event_type": "trade", "id": "t", "status": "MATCHED", "taker_order_id": digest("a4"), "asset_id": "1001"}
    note |= {"price": "0.48", "size": "30", "trader_side": "TAKER"}
    makers = [{"order_id": digest("01"), "asset_id": "1001", "price": p, "matched_amount": "15"} for p in ("0.48", "0.49")]
    (fill,) = parser.parse(raw(note))
    assert parser.parse(raw(note | {"maker_orders": makers, "status": "FAILED"})) == [fill, FillFailed("t:A4", "0xaa")]


def test_memory_is_bounded_and_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(account_wire, "LIMIT", 3)
    parser = wire()
    for number in range(5):
        assert parser.parse(raw(fill_note(f"t{number}", "CONFIRMED")))
        assert parser.parse(raw(fill_note(f"u{number}")))
        parser.parse(raw(fill_note(f"v{number}", pair="cc")))
    assert len(parser._ended) == len(parser._open) == len(parser._strangers) == 3
    assert parser.parse(raw(fill_note("t4", "CONFIRMED"))) == [] and parser.parse(raw(fill_note("t0", "CONFIRMED")))


def test_names_of_faults_are_bounded():
    parser = wire()
    for number in range(100):
        parser.parse(raw({"event_type": f"kind {number}" + "x" * 500}))
    assert len(parser.unknown) == 65 and parser.unknown["other"] == 36
    assert max(map(len, parser.unknown)) <= 120


def test_what_is_not_settled_is_known_by_its_age_and_its_token():
    parser = wire()
    assert parser.open_since() == 0
    parser.parse(raw(fill_note("t1", match_time="1757908892")))
    parser.parse(raw(fill_note("t2", match_time=1757908000, pair="a2", token="1002", price="0.482")))
    parser.parse(raw(fill_note("t3", match_time="2024-01-01T00:00:00Z", pair="a3", price="0.49")))
    assert parser.open_since() == 1757908000
    assert list(parser.traded) == list(parser.fresh) == ["1001", "1002"]
    parser.fresh.clear()
    parser.parse(raw(fill_note("t2", "CONFIRMED", pair="a2", token="1002", price="0.482")))
    assert parser.open_since() == 1757908892 and list(parser.fresh) == ["1002"]


def test_a_complaint_comes_at_the_first_fault_and_at_each_doubling():
    parser = wire()
    spoken = []
    for _ in range(16):
        parser.parse(b"{")
        spoken.append(bool(parser.complaint()))
    assert [number for number, said in enumerate(spoken, 1) if said] == [1, 2, 4, 8, 16]
    assert not parser.complaint()


def test_the_key_may_become_known_later():
    keys = [""]
    parser = AccountWire(OwnOrders(), lambda: keys[0], HEAD["wallet"])
    parser.parse(raw(fill_note("t1")))
    keys[0] = HEAD["key"]
    parser.parse(raw(fill_note("t2")))
    assert (parser.foreign_trades, parser.unrecorded) == (1, 1)


def test_our_key_is_not_shown():
    parser, shown = wire(), []
    for note in (fill_note(amount=HEAD["key"]), {"event_type": 5, "owner": HEAD["key"]}, [{"owner": HEAD["key"]}, 5]):
        text = raw(note)
        for at in range(len(text) + 1):
            parser.parse(text[:at])
            shown.append(parser.last_fault + parser.complaint())
    assert parser.faults > 100 and not [each for each in shown if HEAD["key"] in each]
    assert [each for each in shown if "our key" in each]


# Orders by REST.


def row(pair="a1", status="LIVE", size="100", matched="0", token="1001", side="BUY", price="0.518", **more):
    told = {"id": digest(pair), "status": status, "owner": HEAD["key"], "market": "0xaa", "asset_id": token, "side": side}
    more = {"expiration": None, "associate_trades": None, "created_at": 1757908890, **more}
    return msgspec.Raw(raw({**told, "original_size": size, "size_matched": matched, "price": price, **more}))


@pytest.mark.parametrize(
    ("status", "matched", "found"),
    [
        ("LIVE", "25.5", "open"),
        ("DELAYED", "", "open"),
        ("UNMATCHED", None, "open"),
        ("ORDER_STATUS_LIVE", "0", "open"),
        ("MATCHED", "99.999999", "filled"),
        ("CANCELED", "0", "canceled"),
        ("CANCELED", "100", "filled"),
        ("CANCELED_MARKET_RESOLVED", "1", "canceled"),
        ("INVALID", "0", "canceled"),
        ("CANCELED_EXPIRED_ORDER", "2", "expired"),
        ("EXPIRED", "", "expired"),
    ],
)
def test_one_order_looked_up(status, matched, found):
    filled = round(float(matched or 0) * SHARE)
    assert wire().order(row(status=status, matched=matched)) == OrderLookedUp("A1", found, filled)


def test_an_order_that_cannot_be_told():
    parser = wire()
    strange = [row("c1"), row(status="REVIEWED"), row(size=""), row(matched="x"), b"null", b"{", b'{"error":"not found"}']
    assert [parser.order(each) for each in strange] == [None] * 7
    assert parser.foreign_orders == 1 and parser.unknown == {"order status REVIEWED": 1} and parser.faults == 5


def test_what_rests():
    listed = wire().resting(
        [
            row("a1", matched="25.5"),
            row("a2", size="10", token="1002", price="0.482"),
            row("c1", size="7", token="1001", side="SELL", price="0.6"),
            row("c2", size="7", token="1002", side="SELL", price="0.6"),
            row("c3", size="7", token="77", side="SELL", price="0.6", market="0xcc"),
            row("c1", size="7", token="1001", side="SELL", price="0.6"),
            row("b1", matched="100", token="2002", side="SELL"),
            row("a3", status="CANCELED"),
        ]
    )
    assert listed == (
        RestingOrder("A1", digest("a1"), "0xaa", Side.BUY, Leg.YES, 5180, 74_500000),
        RestingOrder("A2", digest("a2"), "0xaa", Side.SELL, Leg.NO, 5180, 10 * SHARE),
        RestingOrder("", digest("c1"), "0xaa", Side.SELL, Leg.YES, 6000, 7 * SHARE),
        RestingOrder("", digest("c2"), "0xaa", Side.BUY, Leg.NO, 4000, 7 * SHARE),
        RestingOrder("", digest("c3"), "0xcc", Side.SELL, Leg.NONE, 6000, 7 * SHARE),
    )


@pytest.mark.parametrize(
    "bad", [row("c1", size="7.0000001"), row("c1", side="HOLD"), row(size=""), row(matched="-1"), row("c1", price=""), b"[]", b"{"]
)
def test_a_list_with_a_row_that_cannot_be_read_is_no_list(bad):
    parser = wire()
    with pytest.raises(WireError):
        parser.resting([row("a1"), bad])
    assert parser.faults == 1


# One end, whatever the way: the money's property.


class Account:
    """A core's position, cash and orders, told events; and nothing else."""

    def __init__(self):
        self.positions = {market.id: Position() for market in MARKETS}
        self.markets = {market.id: market for market in MARKETS}
        self.orders = {name: orders.new(placed(name, *rest), 0) for name, _, *rest in HEAD["own"]}
        self.cash = 0

    def take(self, event):
        position, market = self.positions[event.instrument], self.markets[event.instrument]
        match event:
            case OrderFilled():
                result = position.apply_fill(market, event, 0)
                self.cash += result.cash
                if not result.duplicate:
                    orders.fill(self.orders[event.order_id], event.qty, 0)
            case FillSettled():
                position.settle(event.fill_id)
            case FillFailed():
                self.cash += position.fail(market, event.fill_id, 0)

    def state(self):
        held = {name: (p.yes, p.no, p.fees, p.volume, p.cash_rounding, set(p.pending)) for name, p in self.positions.items()}
        return self.cash, held, {name: order.filled for name, order in self.orders.items()}


def placed(name, market, side, leg, price, qty):
    return PlaceOrder(
        name, MARKETS[market].id, Side[side], Leg(leg), price, qty * SHARE, TimeInForce.GTC, False, False, "test"
    )  # fmt: skip


def random_trades(dice):
    """A history: of each trade its messages in their true order, ending confirmed, failed or not at all."""
    history = []
    for number in range(dice.randint(1, 12)):
        names = dice.sample(HEAD["own"], dice.randint(1, 3))
        market = MARKETS[names[0][2]]
        entries = [maker_entry(dice, each, market) for each in names if each[2] == names[0][2]]
        entries += [stranger(dice, market) for _ in range(dice.randint(0, 3))]
        note = {"event_type": "trade", "type": "TRADE", "id": f"trade-{number}", "trader_side": "MAKER", "market": market.id}
        note |= {"taker_order_id": digest("ee"), "asset_id": dice.choice(market.token_ids), "size": "1", "price": "0.5"}
        if dice.random() < 0.3:  # our own exit takes
            taker = names[0]
            entries = [stranger(dice, market) for _ in range(dice.randint(1, 4))]
            size = sum(round(float(entry["matched_amount"]) * SHARE) for entry in entries)
            note |= {"taker_order_id": digest(taker[1]), "asset_id": market.token_ids[taker[4] == "no"], "price": "0.5"}
            note |= {"size": f"{size / SHARE:.6f}", "trader_side": "TAKER"}
        way = ["MATCHED", *dice.choice([["MINED"], ["MINED", "RETRYING", "MINED"], []])]
        way += dice.choice([["CONFIRMED"], ["CONFIRMED"], ["FAILED"], []])
        history.append([note | {"maker_orders": entries, "status": status} for status in way])
    return history


def exact_cash(history):
    """Cash units before fees of all that did not fail, by the raw texts alone."""
    total, own = Decimal(0), {digest(pair): rest for _, pair, *rest in HEAD["own"]}
    for way in history:
        note = way[0]
        for entry in note["maker_orders"] if way[-1]["status"] != "FAILED" else []:
            price = Decimal(entry["price"])
            if note["trader_side"] == "TAKER":
                _, side, leg, *_ = own[note["taker_order_id"]]
                same = entry["asset_id"] == note["asset_id"]
                price = price if same else 1 - price
            elif entry["order_id"] in own:
                _, side, leg, *_ = own[entry["order_id"]]
            else:
                continue
            buys = (side == "BUY") is (leg == "yes")
            total += (-1 if buys else 1) * price * Decimal(entry["matched_amount"]) * SHARE
    return total


def maker_entry(dice, ours, market):
    _, pair, _, _, leg, price, _ = ours
    text = f"{(10_000 - price if leg == 'no' else price) / 10_000:.4f}"
    return {
        "order_id": digest(pair), "owner": HEAD["key"], "asset_id": market.token_ids[leg == "no"], "price": text,
        "matched_amount": amount(dice),
    }  # fmt: skip


def stranger(dice, market):
    token, price = dice.choice(market.token_ids), f"{dice.randint(1, 99) / 100:.2f}"
    pair = f"{dice.randint(0, 15):x}0"
    return {"order_id": digest(pair), "owner": "another", "asset_id": token, "price": price, "matched_amount": amount(dice)}


def amount(dice):
    return f"{dice.randint(1, 10**7) / SHARE:.6f}" if dice.random() < 0.5 else str(dice.randint(1, 20))


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_any_order_and_repetition_of_messages_and_rows_ends_in_the_same_account(seed):
    dice = random.Random(seed)
    history = random_trades(dice)
    plain, straight = Account(), wire()
    for way in history:
        for note in way:
            for event in straight.parse(raw(note)):
                plain.take(event)
    assert not straight.faults and not straight.uneven
    notes = [note for way in history for note in way]
    notes += dice.choices(notes, k=dice.randint(0, len(notes)))
    dice.shuffle(notes)
    account, parsers = Account(), [wire(), wire()]  # a second one, as after a restart: ids do not depend on what was told
    for note in notes:
        parser = dice.choice(parsers)
        if dice.random() < 0.5:
            events = parser.parse(raw([note] if dice.random() < 0.3 else note))
        else:
            events = parser.trades([msgspec.Raw(raw(as_row(note, dice)))])
        for event in events:
            account.take(event)
    assert account.state() == plain.state()
    expected = {}
    for way in history:
        for entry in way[0]["maker_orders"]:
            if entry["owner"] == HEAD["key"]:  # strangers have none of our ids
                expected[entry["order_id"]] = expected.get(entry["order_id"], 0) + round(float(entry["matched_amount"]) * SHARE)
        if way[0]["trader_side"] == "TAKER":
            taken = way[0]["taker_order_id"]
            expected[taken] = expected.get(taken, 0) + round(float(way[0]["size"]) * SHARE)
    assert abs(plain.cash + sum(p.fees for p in plain.positions.values()) - exact_cash(history)) <= len(history) * 10
    assert {digest(pair): account.orders[name].filled for name, pair, *_ in HEAD["own"] if account.orders[name].filled} == expected


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_damage_never_raises_and_is_counted(seed):
    dice = random.Random(seed)
    parser = wire()
    frame = bytearray(raw(dice.choice(dice.choice([c for c in GOLDEN if c["frames"]])["frames"])))
    for _ in range(dice.randint(1, 5)):
        at = dice.randrange(len(frame) or 1)
        frame[at : at + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
    parser.parse(bytes(frame))
    parser.trades([bytes(frame)])
    parser.order(bytes(frame))
    parser.complaint()
    assert parser.frames == 1


@given(st.binary(max_size=200))
def test_noise_never_raises(noise):
    parser = wire()
    assert parser.parse(noise) == [] and parser.trades([noise]) == []


# Real and hand-made captures, where they are kept.

KEPT = SHARED / "tests/integration_tests/adapters/polymarket/resources/ws_messages"
MADE = SHARED / "crates/adapters/polymarket/test_data"


def captured(shared, path, *known):
    """A parser that knows these (order id, side, leg) as ours in the market of the file, and the file's text."""
    if not path.is_file():
        pytest.skip(f"not kept here: {path.name}")
    text = path.read_bytes()
    tokens = (
        "21742633143463906290569050155826241533067272736897614950488156847949938836455",
        "48331043336612883890938759509493159234755048973500640148014422747788308965732",
    )
    market = msgspec.structs.replace(MARKETS[0], token_ids=tokens)
    own = OwnOrders()
    own.know(market)
    for order_id, side, leg in known:
        own.add(Ours(order_id[:6], order_id, market, side, leg, 5000, 100 * SHARE, True))
    return wire(own), text


@pytest.mark.shared
def test_a_captured_mint(shared):
    ours = "0x3b67d584e1e7ad29b06bda373449638898aa87f0c9fd52a34bdbfb1325a6c184"
    parser, frame = captured(shared, KEPT / "user_trade1.json", (ours, Side.SELL, Leg.NO))
    (fill,) = parser.parse(frame)
    assert (fill.price, fill.qty, fill.side, fill.leg, fill.fee) == (5180, 10 * SHARE, Side.SELL, Leg.NO, 0)
    assert fill.fill_id == "83b5c849-620e-4c23-b63b-2e779c04a6e7:0x3b67"


@pytest.mark.shared
def test_a_captured_taker_and_two_of_ours_in_one_trade(shared):
    taker = "0x5b605a0e8e40f3402d3cb3bc19edad6733ed23fbc079d2a09ee399c3487ace81"
    parser, frame = captured(shared, KEPT / "user_trade2.json", (taker, Side.BUY, Leg.YES))
    (fill,) = parser.parse(frame)
    assert (fill.price, fill.qty, fill.liquidity) == (5200, 5 * SHARE, Liquidity.TAKER)
    first = "0x3ad09f225ebe141dfbdb3824f31cb457e8e0301ca4e0a06311e543f5328b9dea"
    second = "0x67b598cab933c71389176573822be763192a35a8c37e49999a11d611a5882e7d"
    known = [(order_id, Side.BUY, Leg.YES) for order_id in (first, second)]
    parser, frame = captured(shared, KEPT / "user_trade4.json", *known)
    told = parser.parse(frame)
    assert [(e.price, e.qty) for e in told if isinstance(e, OrderFilled)] == [(4000, 5 * SHARE), (3000, 5 * SHARE)]
    assert sum(isinstance(e, FillSettled) for e in told) == 2 and not parser.faults


@pytest.mark.shared
def test_captured_orders(shared):
    ours = "0xc6e99c14f1c7cae9e0538eb2d45a4d8b93ffd743e850edd1502a8c85700be5d3"
    parser, frame = captured(shared, KEPT / "order_cancel.json", (ours, Side.SELL, Leg.YES))
    assert parser.parse(frame) == []  # wholly matched: its trades tell
    for name, order_id, reason in (
        ("ws_user_order_venue_cancel.json", "0x0e", "INVALID"),
        (
            "ws_user_order_fok_killed.json",
            "0x78xx",
            "CANCELED_order couldn't be fully filled. FOK orders are fully filled or killed.",
        ),
    ):
        parser, frame = captured(shared, MADE / name, (order_id, Side.BUY, Leg.YES))
        # One of the two files lacks its envelope's kind.
        assert parser.parse(frame) == [OrderCanceled(order_id, reason)] and not parser.faults


@pytest.mark.shared
def test_captured_rest_rows(shared):
    parser, text = captured(shared, MADE / "http_open_orders_page.json")
    rows = msgspec.json.decode(text, type=dict[str, msgspec.Raw])["data"]
    resting = parser.resting(msgspec.json.decode(rows, type=list[msgspec.Raw]))
    assert [(order.order_id, order.qty) for order in resting] == [("", 200 * SHARE), ("", 100 * SHARE)]
    parser, text = captured(shared, MADE / "http_trade_report.json")
    assert parser.trades([text]) == [] and (parser.foreign_trades, parser.faults) == (1, 0)
