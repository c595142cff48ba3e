"""Orders before they are signed: golden digests, amounts exact at every tick and size, and orders that take within their limit."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import msgspec
import pytest
from polymarket._internal.actions.orders.limit import _compute_limit_order_amounts
from polymarket._internal.actions.orders.market import _compute_market_order_amounts

from llm_maker.core.commands import PlaceOrder, TimeInForce
from llm_maker.core.values import FixedGrid, Leg, Side
from llm_maker.venues.polymarket.auth import Wallet, WalletKind
from llm_maker.venues.polymarket.orders import drafts
from llm_maker.venues.polymarket.orders.drafts import Draft, draft
from tests.polymarket.sdk import (
    ADDRESS,
    DECIDED_NS,
    FUNDS,
    TAKING,
    TICKS,
    TOKEN,
    instrument,
    place,
    random_order,
    tick_size,
    wallet,
)

GOLDEN = Draft(12345, ADDRESS, ADDRESS, TOKEN, 40_000_000, 100_000_000, 0, 0, 1_763_000_000_000, "ctf")
ROOT = Path(__file__).parent.parent.parent
SIZES = range(500, 100_001)
"""Lots of 0.01 share: 5 to 1,000 shares."""


# The digest (`polymarket.md` 1.3).


def test_the_type_and_the_domains_are_the_known_ones():
    assert drafts._ORDER_TYPE_HASH.hex() == "bb86318a2138f5fa8ae32fbe8e659f8fcf13cc6ae4014a707893055433818589"
    assert {route: domain.hex() for route, domain in drafts.DOMAINS.items()} == {
        "ctf": "3264e159346253e26a64e00b69032db0e7d32f94628de3e6eecb50304d7af3d2",
        "neg_risk": "9b858f53327b0bd13af8ec14cfb35234fb9eb7b0504d1a4e61f433840d30e81a",
        "v3": "466c63910185bbd55e8679264200c4e0abdcbb0c6264eb3d41d13326022e095b",
    }


def test_the_golden_order_has_its_digest():
    assert GOLDEN.digest.hex() == "5c258659f556bdde8620651707ecf32879827661c1b8ed1375028ca3a4945cc0"
    assert GOLDEN.venue_id == "0x" + GOLDEN.digest.hex()


@pytest.mark.parametrize(
    "changes",
    [
        {"salt": 12346}, {"maker": FUNDS}, {"signer": FUNDS}, {"token_id": "7"}, {"maker_amount": 1}, {"taker_amount": 1},
        {"side": 1}, {"signature_type": 2}, {"timestamp_ms": 1_763_000_000_001}, {"route": "neg_risk"}, {"route": "v3"},
    ],
    ids=str,
)  # fmt: skip
def test_every_field_is_in_the_digest(changes):
    assert GOLDEN.digest != msgspec.structs.replace(GOLDEN, **changes).digest


def test_the_salt_fits_a_json_number_and_differs_by_wallet_order_and_time():
    commands = [
        place(order_id=f"{session}-{n}", decided_ns=DECIDED_NS + late) for session in (1, 2) for n in range(500) for late in (0, 1)
    ]
    salts = {draft(command, instrument(), wallet(kind)).salt for command in commands for kind in (WalletKind.EOA, WalletKind.SAFE)}
    assert len(salts) == 4000 and max(salts) < 1 << 53 and max(salts) > 1 << 52


def test_a_journal_tells_the_digest_again_in_another_process():
    command = place()
    kept = msgspec.json.encode(command).decode()
    command_line = [sys.executable, "-c", _TELL, kept]
    told = subprocess.run(command_line, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONHASHSEED": "7"})
    assert told.stdout.split() == [draft(command, instrument(), wallet()).venue_id, "False"]


_TELL = """
import sys, msgspec
from llm_maker.core.commands import PlaceOrder
from llm_maker.venues.polymarket.orders.drafts import draft
light = "coincurve" in sys.modules
from tests.polymarket.sdk import instrument, wallet
print(draft(msgspec.json.decode(sys.argv[1], type=PlaceOrder), instrument(), wallet()).venue_id, light)
"""


# What a command becomes.


@pytest.mark.parametrize(
    ("side", "leg", "expected"),
    [
        (Side.BUY, Leg.YES, (0, TOKEN, 5_300_000, 10_000_000)),
        (Side.SELL, Leg.YES, (1, TOKEN, 10_000_000, 5_300_000)),
        (Side.SELL, Leg.NO, (0, "7", 4_700_000, 10_000_000)),
        (Side.BUY, Leg.NO, (1, "7", 10_000_000, 4_700_000)),
    ],
)
def test_a_leg_turns_side_price_and_token(side, leg, expected):
    made = draft(place(side, 5300, 1000, leg=leg), instrument(), wallet())
    assert (made.side, made.token_id, made.maker_amount, made.taker_amount) == expected
    assert made.qty == 10_000_000


@pytest.mark.parametrize("kind", WalletKind)
def test_a_deposit_wallet_signs_in_its_own_name_and_no_other_does(kind):
    made = draft(place(), instrument(), wallet(kind))
    signer = FUNDS if kind is WalletKind.DEPOSIT else ADDRESS
    assert (made.maker, made.signer, made.signature_type) == (wallet(kind).maker, signer, kind)
    assert made.timestamp_ms == DECIDED_NS // 10**6 and made.route == "ctf"


@pytest.mark.parametrize(
    ("command", "route"),
    [
        (place(), ""),
        (place(), "ctf2"),
        (place(price=0), "ctf"),
        (place(price=10_000), "ctf"),
        (place(qty=10_005_000), "ctf"),
        (place(lots=0), "ctf"),
        (place(leg=Leg.NONE), "ctf"),
        (place(decided_ns=0), "ctf"),
        (place(instrument="0xother"), "ctf"),
    ],
)
def test_what_cannot_be_an_order_is_our_own_fault(command, route):
    with pytest.raises(AssertionError):
        draft(command, instrument(route=route), wallet())


# Amounts of orders that rest (`polymarket.md` 4.3).


@pytest.mark.parametrize(
    ("side", "tick", "price", "lots", "amounts"),
    [
        (Side.BUY, 100, 5300, 1000, (5_300_000, 10_000_000)),
        (Side.BUY, 100, 5300, 1012, (5_363_600, 10_120_000)),
        (Side.SELL, 25, 25, 700, (7_000_000, 17_500)),
        (Side.SELL, 10, 5130, 555, (5_550_000, 2_847_150)),
    ],
)
def test_the_amounts_of_the_specification(side, tick, price, lots, amounts):
    made = draft(place(side, price, lots), instrument(tick), wallet())
    assert (made.maker_amount, made.taker_amount) == amounts


def _prices(tick: int, count: int) -> list[int]:
    """Both edges, the middle, and some of the grid, seeded."""
    inner = random.Random(tick).sample(range(tick, 10_000, tick), min(count, 10_000 // tick - 1))
    return list(dict.fromkeys((tick, 10_000 - tick, 5000, *inner)))


def _check_resting(tick: int, side: Side, price: int, lots: int) -> None:
    made = draft(place(side, price, lots), instrument(tick), _WALLET)
    shares, cash = (made.taker_amount, made.maker_amount) if side is Side.BUY else (made.maker_amount, made.taker_amount)
    # Exact: the size asked for, at the price asked for, to the last unit.
    assert shares == lots * 10_000 and cash * 10_000 == shares * price, (tick, side, price, lots)


_WALLET = wallet()


@pytest.mark.parametrize("tick", TICKS)
def test_amounts_are_exact_for_every_size(tick):
    prices, sides = itertools.cycle(_prices(tick, 30)), itertools.cycle((Side.BUY, Side.SELL, Side.SELL))
    for lots in SIZES:
        _check_resting(tick, next(sides), next(prices), lots)


@pytest.mark.prove
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("tick", TICKS)
def test_amounts_are_exact_for_every_size_at_many_prices(tick, side):
    for price, lots in itertools.product(_prices(tick, 12), SIZES):
        _check_resting(tick, side, price, lots)


@pytest.mark.parametrize("tick", TICKS)
def test_amounts_are_exact_at_every_price(tick):
    for price, side in itertools.product(range(tick, 10_000, tick), Side):
        _check_resting(tick, side, price, 500 + price * 7919 % 99_501)


def test_the_sdk_rounds_nothing_away_either():
    rng = random.Random(20_261_121)
    for _ in range(3000):
        tick, lots, side = rng.choice(TICKS), rng.choice(SIZES), rng.choice(tuple(Side))
        price = rng.choice(_prices(tick, 200))
        made = draft(place(side, price, lots), instrument(tick), wallet())
        theirs = _compute_limit_order_amounts(
            price=Decimal(price).scaleb(-4), size=Decimal(lots).scaleb(-2), side=side.name, tick_size=tick_size(instrument(tick))
        )  # fmt: skip
        assert (made.maker_amount, made.taker_amount) == theirs, (tick, price, lots, side)


# Orders that take.


def _taking(side: Side, tick: int, price: int, lots: int, tif: TimeInForce = TimeInForce.IOC) -> Draft:
    return draft(place(side, price, lots, time_in_force=tif), instrument(tick), wallet())


@pytest.mark.parametrize(
    ("side", "tick", "price", "lots", "amounts"),
    [
        (Side.BUY, 100, 5300, 730, (3_710_000, 7_000_000)),  # a cent buys no fraction of a share at 0.53
        (Side.BUY, 100, 5000, 730, (3_650_000, 7_300_000)),
        (Side.BUY, 10, 5130, 2000, (10_260_000, 20_000_000)),  # at 0.513 only tens of shares
        (Side.BUY, 10, 5130, 2500, (12_800_000, 25_000_000)),  # so 25 of them at 0.512
        (Side.BUY, 1, 93, 5000, (460_000, 50_000_000)),  # at 0.0092
        (Side.SELL, 100, 5300, 730, (7_300_000, 3_869_000)),
        (Side.SELL, 10, 5130, 555, (5_500_000, 2_821_500)),  # USD to 4 decimals
        (Side.SELL, 1, 5131, 1099, (10_000_000, 5_131_000)),
    ],
)
def test_an_order_that_takes_is_cut_to_what_the_venue_accepts(side, tick, price, lots, amounts):
    for tif in TAKING:
        made = _taking(side, tick, price, lots, tif)
        assert (made.maker_amount, made.taker_amount) == amounts


@pytest.mark.parametrize("leg", [Leg.YES, Leg.NO])
@pytest.mark.parametrize("tick", TICKS)
def test_an_order_that_takes_keeps_its_limit_and_the_decimals(tick, leg):
    rng = random.Random(tick)
    for n in range(2500):
        asked = place(
            rng.choice(tuple(Side)), rng.choice(_prices(tick, 300)), rng.choice(SIZES), leg=leg, time_in_force=TAKING[n % 2]
        )  # fmt: skip
        made = draft(asked, instrument(tick), wallet())
        limit = 10_000 - asked.price if leg is Leg.NO else asked.price
        buys = made.side == 0
        paid, shares = (made.maker_amount, made.taker_amount) if buys else (made.taker_amount, made.maker_amount)
        if buys and limit < 100 and paid * 10_000 == shares * limit and shares == asked.qty and paid % 10_000:
            continue  # below a cent it may be that nothing fits; the venue refuses it
        assert made.maker_amount % 10_000 == 0 and made.taker_amount % 100 == 0, "2 decimals given, 4 wanted"
        assert 0 < shares <= asked.qty and made.qty == shares
        price, rest = divmod(paid * 10_000, shares)
        assert rest == 0 and price % tick == 0, "a price of the grid, exactly"
        assert limit - 100 < price <= limit if buys else price == limit
        if limit >= 100:
            assert asked.qty - shares < 1_000_000, "less than a share is lost"
        # A higher price within the limit would have bought fewer whole shares.
        for higher in range(price + tick, limit + 1, tick) if buys else ():
            step = Fraction(higher, 10_000).denominator * 10_000
            assert asked.qty // step * step // 1_000_000 < shares // 1_000_000, higher
        theirs = _compute_market_order_amounts(
            amount=Decimal(made.maker_amount).scaleb(-6),
            price=Decimal(price).scaleb(-4),
            side="BUY" if buys else "SELL",
            tick_size=tick_size(instrument(tick)),
        )
        assert (made.maker_amount, made.taker_amount) == theirs


def test_where_nothing_fits_the_order_goes_out_as_it_is_and_the_limit_holds():
    made = _taking(Side.BUY, 1, 1, 500)
    assert (made.maker_amount, made.taker_amount) == (500, 5_000_000)


def test_an_order_decided_on_another_tick_is_no_crash():
    command = place(Side.BUY, 5137, 2500, time_in_force=TimeInForce.IOC)
    made = draft(command, msgspec.structs.replace(instrument(), grid=FixedGrid(100)), wallet())
    assert (made.maker_amount, made.taker_amount) == (12_750_000, 25_000_000)


# Equality and size.


def test_the_same_order_is_the_same_and_a_remembered_digest_is_not_handed_on():
    command, market, owner = random_order(random.Random(5))
    one, two = draft(command, market, owner), draft(command, market, owner)
    assert one.digest and one == two and hash(one) == hash(two)
    assert msgspec.structs.replace(one, salt=one.salt ^ 1).digest != one.digest
    assert set(msgspec.to_builtins(one)) == set(Draft.__struct_fields__)


def test_what_is_remembered_is_bounded():
    for n in range(5000):
        drafts._token_word(str(n))
    assert drafts._token_word.cache_info().currsize <= 4096
    with pytest.raises(AssertionError):
        drafts.address_word("0x12")


def test_a_command_and_a_wallet_are_all_it_takes():
    other = Wallet(WalletKind.EOA, FUNDS, FUNDS)
    command: PlaceOrder = place()
    assert draft(command, instrument(), other).venue_id != draft(command, instrument(), wallet()).venue_id
    # Its word for why, and where the grid is now, are no part of the order.
    assert draft(place(reason="other"), instrument(10), wallet()) == draft(command, instrument(), wallet())
