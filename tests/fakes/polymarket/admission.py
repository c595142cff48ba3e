"""Which orders the venue takes, and in which words it refuses the others (`polymarket.md` 2.5, 4.3).

The form of an order only: amounts, price, size, expiry, whose it is. What depends on the book or on balances is the house's.
Texts that the reference does not hold whole follow what users report of the venue.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal

from tests.fakes.polymarket.records import MICRO, ONE, FakeAccount, FakeMarket, OrderFields, text

PRICE_DECIMALS = {"0.1": 1, "0.01": 2, "0.005": 3, "0.0025": 4, "0.001": 3, "0.0001": 4}
"""By tick. A size has 2 decimals, and an amount of cash as many as price and size together."""
SIZE_DECIMALS = 2
MARKET_BUY_DECIMALS = 2, 4
"""Of cash and of shares, whatever the tick."""
GTD_AHEAD_S = 180
MARKETABLE_MIN = Decimal(1)

NO_BOOK = "No orderbook exists for the requested token id"
NOT_READY = "the market is not yet ready to process new orders"
CROSSES = "invalid post-only order: order crosses book"
FOK_KILLED = "order couldn't be fully filled. FOK orders are fully filled or killed."
FAK_KILLED = "no orders found to match with FAK order. FAK orders are partially filled or killed if no match is found."
DUPLICATED = "Duplicated."
EXPIRATION = "invalid expiration"
BALANCE = "not enough balance / allowance"


class Refused(Exception):
    """An order that is not taken, with the venue's words."""


def examine(account: FakeAccount, market: FakeMarket | None, fields: OrderFields, now_ms: int) -> tuple[Decimal, Decimal]:
    """Price and size of an order in good form; else `Refused`."""
    if market is None or market.closed:
        raise Refused(NO_BOOK)
    if not market.accepting:
        raise Refused(NOT_READY)
    _owner(account, fields)
    if fields.side not in ("BUY", "SELL") or fields.order_type not in ("GTC", "GTD", "FOK", "FAK"):
        raise Refused("Invalid order payload")
    if fields.post_only and fields.order_type not in ("GTC", "GTD"):
        raise Refused("invalid post-only order: only GTC and GTD orders are allowed")
    gtd = fields.order_type == "GTD"
    if gtd != (fields.expiration != 0) or (gtd and fields.expiration < now_ms // 1000 + GTD_AHEAD_S):
        raise Refused(EXPIRATION)
    given, wanted = fields.maker_amount * MICRO, fields.taker_amount * MICRO
    cash, shares = (given, wanted) if fields.side == "BUY" else (wanted, given)
    if cash <= 0 or shares <= 0:
        raise Refused("invalid amounts")
    price = _price(market, fields, cash, shares)
    if shares < market.min_size:
        raise Refused(f"order {fields.id} is invalid. Size ({text(shares)}) lower than the minimum: {text(market.min_size)}")
    return price, shares


def _owner(account: FakeAccount, fields: OrderFields) -> None:
    if account.banned:
        raise Refused(f"'{account.maker}' address banned")
    if account.closed_only and fields.side == "BUY":
        raise Refused(f"'{account.maker}' address in closed only mode")
    signer = account.maker if account.kind == 3 else account.signer
    if fields.signer.lower() != signer.lower():
        raise Refused("the order signer address has to be the address of the API KEY")
    if fields.maker.lower() != account.maker.lower() or fields.signature_type != account.kind:
        raise Refused("maker address not allowed, please use the deposit wallet flow")


def _price(market: FakeMarket, fields: OrderFields, cash: Decimal, shares: Decimal) -> Decimal:
    """A price on the grid; a market order's amounts are cut to fewer decimals, so its price is the grid's next worse one."""
    decimals = PRICE_DECIMALS[text(market.tick)]
    buy, at_market = fields.side == "BUY", fields.order_type in ("FOK", "FAK")
    most_cash, most_shares = decimals + SIZE_DECIMALS, SIZE_DECIMALS
    if at_market and buy:
        most_cash, most_shares = MARKET_BUY_DECIMALS
    if _decimals(cash) > most_cash or _decimals(shares) > most_shares:
        maker, taker = (most_cash, most_shares) if buy else (most_shares, most_cash)
        raise Refused(
            f"invalid amounts, the {'market ' if at_market else ''}{fields.side.lower()} orders maker amount supports a max "
            f"accuracy of {maker} decimals, taker amount a max of {taker} decimals"
        )
    if at_market and buy:
        price = (cash / shares / market.tick).to_integral_value(ROUND_FLOOR) * market.tick
        # Dollars cut to cents, or shares to 4 decimals, explain no more than a cent. A hair below a line of the grid is below it.
        if min(abs(cash - line * shares) for line in (price, price + market.tick)) > Decimal("0.01"):
            raise Refused(_off_grid(market, fields, cash / shares))
    else:
        price = (cash / shares).quantize(ONE.scaleb(-decimals), ROUND_HALF_EVEN)
        if price * shares != cash:
            if abs(price * shares - cash) >= Decimal("0.01"):
                raise Refused(_off_grid(market, fields, cash / shares))
            which = "maker" if buy else "taker"
            raise Refused(
                f"invalid amounts, the {which} amount for a ${text(price)} order of size {text(shares)} should be"
                f" '{text(price * shares)}' but the value submited is '{text(cash)}'"
            )
    if price % market.tick:
        raise Refused(_off_grid(market, fields, price))
    if not market.tick <= price <= ONE - market.tick:
        raise Refused(f"invalid price ({text(price)}), min: {text(market.tick)} - max: {text(ONE - market.tick)}")
    return price


def _off_grid(market: FakeMarket, fields: OrderFields, price: Decimal) -> str:
    shown = text(price.quantize(MICRO, ROUND_CEILING))
    return f"order {fields.id} is invalid. Price ({shown}) breaks minimum tick size rule: {text(market.tick)}"


def _decimals(value: Decimal) -> int:
    exponent = value.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return max(0, -exponent)
