"""What must be so, whatever happened: the house's invariants, and the truth about one account for a test to compare with."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.fakes.polymarket.records import ZERO, FakeAccount, FakeMarket
from tests.fakes.polymarket.settlement import ENDS, Trade

if TYPE_CHECKING:
    from tests.fakes.polymarket.house import House


def truth(house: House, account: FakeAccount) -> dict[str, Any]:
    """Exactly what an account has.

    `cash` and `shares` (token -> size, no zeros) as the chain has them now; `final_cash` and `final_shares` if every unsettled
    trade confirms; `open` order ids; `settled` and `unsettled` trade ids; `fees` paid in trades that did not fail; `fills`:
    one for each order of the account in each trade, in order of time, with `trade`, `order`, `token`, `side`, `price`,
    `size`, `role`, `fee`, `status`.
    """
    mine = [trade for trade in house.clearing.trades.values() if account in trade.accounts]
    final = {token: account.holds(token) for token in [None, *account.shares]}
    for trade in mine:
        if trade.status not in ENDS and not trade.applied:
            for who, asset, amount in trade.moves:
                if who is account:
                    final[asset] = final.get(asset, ZERO) + amount
    fills = [fill for trade in mine for fill in _fills(trade, account)]
    return {
        "cash": account.cash,
        "shares": {token: size for token, size in account.shares.items() if size},
        "final_cash": final.pop(None),
        "final_shares": {token: size for token, size in final.items() if size},
        "open": [row["id"] for row in house.open_orders(account)],
        "settled": [trade.id for trade in mine if trade.status in ENDS],
        "unsettled": [trade.id for trade in mine if trade.status not in ENDS],
        "fees": sum((fill["fee"] for fill in fills if fill["status"] != "FAILED"), ZERO),
        "fills": fills,
    }


def _fills(trade: Trade, account: FakeAccount) -> list[dict[str, Any]]:
    sides = [(trade.taker, trade.size, trade.price, "TAKER", trade.fee)]
    sides += [(hit.maker, hit.size, hit.maker.price, "MAKER", ZERO) for hit in trade.hits]
    return [
        {
            "trade": trade.id,
            "order": order.id,
            "token": order.token,
            "side": order.side,
            "price": price,
            "size": size,
            "role": role,
            "fee": fee,
            "status": trade.status,
        }
        for order, size, price, role, fee in sides
        if order.wallet is account
    ]


def check(house: House) -> None:
    """Raise AssertionError where money was made or lost, somebody is in debt, or a book is wrong."""
    wallets = [*house.accounts.values(), house.crowd.wallet]
    for wallet in wallets:
        assert wallet.cash >= 0, f"{wallet.maker} owes {-wallet.cash}"
        for token, size in wallet.shares.items():
            assert size >= 0, f"{wallet.maker} owes {-size} of {token}"
    for account in house.accounts.values():
        for asset in (None, *account.shares):
            assert house.available(account, asset) >= 0, f"{account.maker} has promised more of {asset or 'cash'} than it has"
    vault = house.vault
    cash = sum((wallet.cash for wallet in wallets), ZERO) + sum(vault.pots.values(), ZERO) + vault.fees
    assert cash == vault.endowed, f"cash {cash} is not what came in, {vault.endowed}"
    for market in house.markets.values():
        _check_shares(market, wallets, vault.pots[market.condition_id])
        _check_book(house, market)
    _check_orders(house)


def _check_shares(market: FakeMarket, wallets: list[FakeAccount], pot: Decimal) -> None:
    yes, no = (sum((wallet.holds(token) for wallet in wallets), ZERO) for token in market.tokens)
    if market.resolved is None:
        assert yes == no == pot, f"{market.slug}: {yes} YES and {no} NO for {pot}"
    else:
        assert (yes if market.resolved == "yes" else no) == pot, f"{market.slug}: the pot of {pot} does not pay the winners"


def _check_book(house: House, market: FakeMarket) -> None:
    bid, ask = house.top(market.condition_id)
    assert bid is None or ask is None or bid < ask, f"{market.slug}: {bid} bid, {ask} asked"
    orders = house.resting(market.condition_id)
    assert not (market.closed and orders), f"{market.slug}: closed with orders"
    for order in orders:
        assert order.status == "LIVE" and order.remaining > 0 and order.rests, f"{order.id} rests, {order.status}"
        assert order.price % market.tick == 0, f"{order.id} is off the grid"


def _check_orders(house: House) -> None:
    matched: dict[str, Decimal] = {}
    for trade in house.clearing.trades.values():
        assert trade.size == sum((hit.size for hit in trade.hits), ZERO)
        for order, size in [(trade.taker, trade.size), *((hit.maker, hit.size) for hit in trade.hits)]:
            matched[order.id] = matched.get(order.id, ZERO) + size
    resting = {order.id for condition_id in house.markets for order in house.resting(condition_id)}
    for order in house.orders():
        assert order.matched == matched.get(order.id, ZERO) <= order.size, f"{order.id}: {order.matched} of {order.size} matched"
        rests = order.id in resting
        assert rests == (order.status == "LIVE"), f"{order.id} is {order.status} and {'rests' if rests else 'does not rest'}"
        assert (order.status == "MATCHED") == (order.remaining == 0), f"{order.id}: {order.status}, {order.remaining} left"
