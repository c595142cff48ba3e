"""A small house for tests: one market unless told, accounts by name, orders in plain words, a clock that moves on request."""

from __future__ import annotations

from decimal import Decimal

from tests.fakes.polymarket.house import FakeAccount, FakeMarket, House, Message, OrderFields, Placed

START_MS = 1_763_000_000_000
CID = "0x" + "0" * 63 + "1"
YES, NO = str(7 * 10**70), str(8 * 10**70)
D = Decimal


def a_market(number: int = 1, **rules) -> FakeMarket:
    return FakeMarket(f"0x{number:064x}", str(7 * 10**70 + number - 1), str(8 * 10**70 + number - 1), slug=f"m{number}", **rules)


class Stage:
    """One house, one market unless told, accounts by name; `now` moves only by `wait`."""

    def __init__(self, seed: int = 1, markets: list[FakeMarket] | None = None, **house) -> None:
        self.house = House(seed, **{"settle_s": (2.0, 2.0), **house})
        self.markets = markets or [a_market()]
        for market in self.markets:
            self.house.add_market(market)
        self.now, self.count = START_MS, 0

    def account(self, name: str, cash: str = "1000", **shares: str) -> FakeAccount:
        tokens = {"yes": YES, "no": NO}
        address = "0x" + f"{len(self.house.accounts) + 10:040x}"
        held = {tokens[leg]: D(size) for leg, size in shares.items()}
        account = FakeAccount(address, address, 0, f"key-{name}", "c2VjcmV0", "phrase", D(cash), held)
        self.house.add_account(account)
        return account

    def fields(self, account: FakeAccount, side: str, token: str, price: str, size: str, kind: str = "GTC", **other) -> OrderFields:
        self.count += 1
        cash, shares = int(D(price) * D(size) * 10**6), int(D(size) * 10**6)
        maker, taker = (cash, shares) if side == "BUY" else (shares, cash)
        made = OrderFields(
            f"0x{self.count:064x}", account.maker, account.signer, token, maker, taker, side, 0, self.now, 0, kind, False
        )  # fmt: skip
        for name, value in other.items():
            setattr(made, name, value)
        return made

    def place(self, account: FakeAccount, side: str, token: str, price: str, size: str, kind: str = "GTC", **other) -> Placed:
        return self.house.submit(account, self.fields(account, side, token, price, size, kind, **other), self.now)

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1000)
        self.house.advance(self.now)

    def user(self, account: FakeAccount) -> list[dict]:
        return [message.payload for message in self.house.take_messages() if message.key == account.api_key]


class Follower:
    """A reader that knows only the messages: both tokens' books from `book` and `price_change`."""

    def __init__(self) -> None:
        self.books: dict[str, dict[str, dict[str, str]]] = {}

    def hear(self, message: Message) -> None:
        told = message.payload
        if message.channel == "market" and told["event_type"] == "book":
            self.books[told["asset_id"]] = {
                side: {level["price"]: level["size"] for level in told[name]} for side, name in (("BUY", "bids"), ("SELL", "asks"))
            }
        if message.channel == "market" and told["event_type"] == "price_change":
            for change in told["price_changes"]:
                book = self.books.setdefault(change["asset_id"], {"BUY": {}, "SELL": {}})
                book[change["side"]].pop(change["price"], None)
                if change["size"] != "0":
                    book[change["side"]][change["price"]] = change["size"]
                best = max(map(D, book["BUY"]), default=D(0)), min(map(D, book["SELL"]), default=D(1))
                assert best == (D(change["best_bid"]), D(change["best_ask"])), told

    def agrees(self, row: dict) -> None:
        book = self.books.get(row["asset_id"], {"BUY": {}, "SELL": {}})
        for side, name, sign in (("BUY", "bids", 1), ("SELL", "asks", -1)):
            assert {level["price"]: level["size"] for level in row[name]} == book[side]
            prices = [sign * D(level["price"]) for level in row[name]]
            assert prices == sorted(prices)
