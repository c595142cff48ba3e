"""The P&L identity: by hand, and closing exactly whatever an account lived through. The books of the core are the oracle."""

from random import Random

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from llm_maker.core.events import OrderFilled
from llm_maker.core.positions import Position
from llm_maker.core.state import Flows
from llm_maker.core.values import Leg, Liquidity, Side
from llm_maker.report import pnl
from llm_maker.report.track import MARKOUTS_S, Fill, Money, Quoted, Track
from tests.core.builders import binary, linear

NAMED = {"account": "a", "venue": "v", "mode": "paper", "wallet": "", "simulated": True}


def quoted(**changes):
    """A share is 10^6 quantity units, a price unit 10^-4 USD: half a unit of each is 1/20,000 cash unit."""
    base = {"name": "m?", "price_scale": 10_000, "qty_scale": 1_000_000, "payout": 10_000, "mid2": 10_000}
    return Quoted(**base | changes)


def fill(n=1, side=1, price=4900, shares=10, **changes):
    base = {
        "ts": n, "fill_id": f"f{n}", "order_id": f"o{n}", "instrument": "m", "side": side, "price": price,
        "qty": shares * 1_000_000, "fee": 0, "maker": True, "cash": -side * price * shares * 100, "position_after": 0,
    }  # fmt: skip
    return Fill(**base | changes)


def track(fills, instruments, pnl_cash, **changes):
    flows = {"start": 0, "fees": 0, "rebates": 0, "rewards": 0, "funding": 0, "transfers": 0, "trading": 0} | changes.pop(
        "flows", {}
    )
    return Track(
        label=dict(NAMED), start_ns=0, end_ns=9, start_cash=0, equity=pnl_cash, exit_equity=0, flows=flows, counts={}, fills=fills,
        instruments=instruments, **changes,
    )  # fmt: skip


def lines(found, horizon):
    """What must add up to the P&L."""
    split = found.horizons[horizon]
    rest = (found.fees, found.rebates, found.rewards, found.funding, found.rounding, found.unexplained)
    return found.capture + found.unknown + (split.markout or 0) + split.inventory + sum(rest)


def test_a_fill_is_split_at_each_horizon():
    """Bought 10 at 0.49 with the mid at 0.495; 0.50 a second later, 0.48 after ten, 0.50 at the end. Fee 2 cents, rebate 1."""
    bought = fill(mid2=9_900, marks={1: 10_000, 10: 9_600}, fee=20_000)
    found = pnl.identity(
        track([bought], {"m": quoted(net=10_000_000)}, 90_000, flows={"fees": -20_000, "rebates": 10_000}, model_costs=[(1, 500)])
    )
    usd = found.usd
    assert (usd(found.capture), usd(found.pnl), usd(found.fees), usd(found.rebates)) == (0.05, 0.09, -0.02, 0.01)
    shown = {h: (None if s.markout is None else usd(s.markout), usd(s.inventory), s.known) for h, s in found.horizons.items()}
    assert shown[1] == (0.05, 0.0, 1) and shown[10] == (-0.15, 0.2, 1)
    assert all(shown[h] == (None, 0.05, 0) for h in (60, 300, 3_600, 86_400, pnl.SETTLEMENT)), "not reached is n/a, never 0"
    assert found.closes is True and found.rounding == 0 and usd(found.llm_cost) == -0.0005


def test_a_fill_without_its_own_mid_is_unknown_and_the_others_are_not():
    fills = [fill(1, mid2=9_900, marks={1: 9_900}), fill(2, side=-1, price=5100, marks={1: 9_000})]
    found = pnl.identity(track(fills, {"m": quoted()}, 200_000))
    assert (found.usd(found.capture), found.usd(found.unknown), found.unknown_fills) == (0.05, 0.1, 1)
    assert found.horizons[1] == pnl.Horizon(0, found.horizons[10].inventory, 1, 2), "a mark without a mid says nothing"
    assert found.closes is True


def test_settlement_is_a_horizon_of_resolved_markets_alone():
    fills = [fill(1, mid2=9_900), fill(2, instrument="n", mid2=9_900)]
    instruments = {"m": quoted(settled2=20_000, net=10_000_000), "n": quoted(net=10_000_000)}
    found = pnl.identity(track(fills, instruments, 5_200_000))
    last = found.horizons[pnl.SETTLEMENT]
    assert (found.usd(last.markout), found.usd(last.inventory), last.known, last.of) == (5.05, 0.05, 1, 2)
    assert found.closes is True and pnl.settled(track(fills, instruments, 0)) == {"m"}


def test_money_that_no_fill_explains_is_said_and_not_called_rounding():
    bought = fill(mid2=9_900)
    found = pnl.identity(track([bought], {"m": quoted(net=10_000_000)}, 100_002))
    assert found.closes is True and found.usd(found.rounding) == 2e-6, "one unit for the fill and one for the market"
    found = pnl.identity(track([bought], {"m": quoted(net=10_000_000)}, 100_003))
    assert found.closes is False and found.usd(found.unexplained) == 3e-6 and found.rounding == 0 and "shares" in found.why
    assert all(lines(found, h) == found.pnl for h in pnl.HORIZONS)


def test_a_mark_between_two_prices_is_taken_as_the_equity_takes_it():
    """Ten shares at a mid of 0.50005: the equity has them at 0.5000, which is half a millionth of a dollar a share less."""
    found = pnl.identity(track([fill(mid2=9_900)], {"m": quoted(mid2=10_001, net=10_000_000)}, 100_000))
    assert found.closes is True and found.usd(found.rounding) == -0.0005


def test_a_part_of_the_account_is_what_its_fills_made():
    fills = [fill(1, mid2=9_900, fee=7), fill(2, instrument="n", side=-1, mid2=9_900)]
    money = [Money(ts=3, kind="rebate", amount=11, instrument="m"), Money(ts=3, kind="rebate", amount=13, instrument="n")]
    whole = track(fills, {"m": quoted(net=10_000_000), "n": quoted(net=-10_000_000)}, 0, money=money)
    part = pnl.identity(whole, ["m"])
    assert part.closes is None and part.fills == 1
    assert part.usd(part.pnl) == pytest.approx(0.1 - 7e-6 + 11e-6) and lines(part, 60) == part.pnl


def test_keys():
    said = {"model": "gpt", "action": "buy_yes", "confidence": 0.7, "shift": -0.2, "reason": "inventory"}
    told = fill(side=-1, mid2=9_900, terms={"fair": 5000.0, "half": 100.0, "skew": -30.0, "flow": 10.0}, **said)
    silent = fill(2, maker=False, mid2=9_900)
    keys = (pnl.market, pnl.side, pnl.liquidity, pnl.reason, pnl.model, pnl.action, pnl.confidence, pnl.agreement, pnl.largest_term)
    assert [key(told) for key in keys] == ["m", "sell", "maker", "inventory", "gpt", "buy_yes", "0.7-0.8", "with", "skew"]
    assert [key(silent) for key in keys] == ["m", "buy", "taker", "none", "none", "none", "none", "none", "none"]
    assert [pnl.leaning(name)(told) for name in ("skew", "flow", "parity")] == ["with", "against", "none"]
    bins = [pnl.confidence(fill(model="x", confidence=c)) for c in (0.0, 0.49, 0.5, 0.95, 1.0)]
    assert bins == ["0.0-0.5", "0.0-0.5", "0.5-0.6", "0.9-1.0", "0.9-1.0"]


def test_parts_add_up_to_the_whole():
    fills = [fill(n, side=1 if n % 3 else -1, price=4_000 + 97 * n, mid2=9_000 + 31 * n, marks={10: 9_500}) for n in range(1, 20)]
    whole = track(fills, {"m": quoted(net=0)}, 0)
    found, parts = pnl.identity(whole), pnl.by(whole, pnl.side)
    assert set(parts) == {"buy", "sell"} and sum(p.fills for p in parts.values()) == 19
    assert sum(p.capture for p in parts.values()) == found.capture
    assert sum(p.horizons[10].markout for p in parts.values()) == found.horizons[10].markout
    assert sum(p.pnl for p in parts.values()) == sum(m.pnl for m in pnl.moves(whole)) == found.pnl - found.unexplained
    assert all(sum(m.pnl for m in p.moves) == p.pnl for p in parts.values())
    assert parts["buy"].shares == 130.0


# Whatever happens.


class Books:
    """An account kept by the core's own positions, and the track that was recorded of it."""

    def __init__(self, number: int) -> None:
        self.dice = Random(number)
        self.markets = {
            "a": binary("a", price_decimals=4, qty_decimals=6),
            "b": binary("b", price_decimals=3, qty_decimals=2, payout=1_000),
            "l": linear(),
        }
        self.positions = {name: Position() for name in self.markets}
        self.marks = {name: self.price(name) for name in self.markets}
        self.settled: dict[str, int] = {}
        self.flows = Flows()
        self.cash = self.failed = 0
        self.fills: dict[str, Fill] = {}
        self.money: list[Money] = []

    def price(self, name):
        top = self.markets[name].payout or 8_000_000
        return self.dice.randint(1, 2 * top - 1) / 2

    def trade(self, n):
        """A fill of either leg; shares that are sold are there."""
        name = self.dice.choice([m for m in self.markets if m not in self.settled] or ["l"])
        instrument, position = self.markets[name], self.positions[name]
        side, qty, fee = self.dice.choice((Side.BUY, Side.SELL)), self.dice.randint(1, 9_999_999), self.dice.randint(0, 3)
        price = self.dice.randint(1, (instrument.payout or 8_000_000) - 1)
        leg = self.dice.choice(position.legs(instrument))
        sells = instrument.is_binary and (side is Side.SELL) is (leg is Leg.YES)
        if sells and position.free_to_sell(leg) <= 0:
            leg = Leg.NO if leg is Leg.YES else Leg.YES
        elif sells:
            qty = min(qty, position.free_to_sell(leg))
        settled = self.dice.random() < 0.7
        event = OrderFilled(f"o{n}", f"f{n}", name, side, leg, price, qty, fee, Liquidity.MAKER, settled)
        result = position.apply_fill(instrument, event, n)
        self.cash += result.cash
        self.flows.fees -= fee
        marks = {h: round(2 * self.price(name)) for h in MARKOUTS_S if self.dice.random() < 0.6}
        self.fills[f"f{n}"] = Fill(
            ts=n, fill_id=f"f{n}", order_id=f"o{n}", instrument=name, side=int(side), price=price, qty=qty, fee=fee, maker=True,
            cash=result.cash + fee, position_after=position.net, marks=marks,
            mid2=round(2 * self.marks[name]) if self.dice.random() < 0.9 else 0,
        )  # fmt: skip

    def settle(self, n):
        """A pending fill becomes final, or fails."""
        waiting = [(name, i) for name, p in self.positions.items() for i in p.pending if name not in self.settled]
        if not waiting:
            return
        name, fill_id = self.dice.choice(waiting)
        position = self.positions[name]
        if self.dice.random() < 0.5:
            position.settle(fill_id)
            return
        self.flows.fees += position.pending[fill_id].fee
        self.cash += position.fail(self.markets[name], fill_id, n)
        del self.fills[fill_id]
        self.failed += 1

    def work(self, n):
        """Sets are merged, or made."""
        name = self.dice.choice("ab")
        instrument, position = self.markets[name], self.positions[name]
        cost = self.dice.randint(0, 2)
        if name in self.settled:
            return
        if position.sets() > 0 and self.dice.random() < 0.7:
            size = self.dice.randint(1, position.sets())
            position.merge_started(size)
            moved = position.merged(instrument, size)
        else:
            moved = position.split(instrument, self.dice.randint(1, 9_999_999))
        self.cash += moved - cost
        self.flows.fees -= cost
        self.money.append(Money(ts=n, kind="merge", amount=moved - cost, instrument=name))

    def pay(self, n):
        kind = self.dice.choice(("rebate", "reward", "funding", "transfer"))
        amount = self.dice.randint(-5_000, 9_000) if kind in ("funding", "transfer") else self.dice.randint(1, 9_000)
        self.cash += amount
        name = {"rebate": "rebates", "reward": "rewards", "transfer": "transfers"}.get(kind, kind)
        setattr(self.flows, name, getattr(self.flows, name) + amount)
        self.money.append(Money(ts=n, kind=kind, amount=amount, instrument="" if kind == "transfer" else "a"))

    def resolve(self, n):
        """A market ends, and some of what is held is redeemed."""
        name = self.dice.choice("ab")
        instrument, position = self.markets[name], self.positions[name]
        if position.pending or name in self.settled:
            return
        paid = self.settled[name] = self.dice.choice((0, instrument.payout, instrument.payout // 2))
        for leg in (Leg.YES, Leg.NO):
            if position.held(leg).settled > 0 and self.dice.random() < 0.6:
                moved = position.redeem(instrument, leg, position.held(leg).settled, paid, n)
                self.cash += moved
                self.money.append(Money(ts=n, kind="redemption", amount=moved, instrument=name))

    def live(self, steps):
        acts = (self.trade, self.trade, self.trade, self.settle, self.settle, self.work, self.pay, self.resolve)
        weights = (9, 9, 9, 5, 5, 4, 4, 1)
        for n in range(steps):
            self.dice.choices(acts, weights)[0](n)
            name = self.dice.choice("abl")
            if name not in self.settled:
                self.marks[name] = self.price(name)

    def equity(self):
        """As `core.worth` has it."""
        total = self.cash
        for name, position in self.positions.items():
            doubled = round(2 * self.marks[name])
            mark = doubled // 2 if position.net > 0 else -(-doubled // 2)
            total += position.value(self.markets[name], self.settled.get(name, mark))
        return total

    def track(self):
        instruments = {
            name: Quoted(
                name=name, price_scale=10**i.price_decimals, qty_scale=10**i.qty_decimals, payout=i.payout,
                mid2=round(2 * self.marks[name]), net=self.positions[name].net,
                settled2=2 * self.settled[name] if name in self.settled else None,
            )
            for name, i in self.markets.items()
        }  # fmt: skip
        flows = {name: getattr(self.flows, name) for name in Flows.__struct_fields__}
        return Track(
            label=dict(NAMED), start_ns=0, end_ns=1, start_cash=0, equity=self.equity(), exit_equity=0, flows=flows, counts={},
            fills=list(self.fills.values()), instruments=instruments, money=self.money, failed_fills=self.failed,
        )  # fmt: skip


@seed(20261121)
@settings(max_examples=120)
@given(number=st.integers(0, 1 << 30), steps=st.integers(1, 60))
def test_the_identity_closes_whatever_the_account_lived_through(number, steps):
    books = Books(number)
    books.live(steps)
    found = pnl.identity(books.track())
    assert found.closes is True, (number, found.why, found.usd(found.unexplained))
    assert found.pnl == (books.equity() - books.flows.transfers) * found.scale
    for horizon in pnl.HORIZONS:
        assert lines(found, horizon) == found.pnl, (number, horizon)


@seed(20261122)
@settings(max_examples=40)
@given(number=st.integers(0, 1 << 30))
def test_a_fill_that_is_left_out_is_noticed(number):
    """The check has teeth: of an account with a few fills none can be missing."""
    books = Books(number)
    books.live(25)
    whole = books.track()
    split = {m.fill.fill_id: m.pnl for m in pnl.moves(whole)}
    room = (len(whole.fills) + len(whole.money) + books.failed + 6) * pnl.scale_of(whole)
    for n, missing in enumerate(whole.fills):
        if abs(split[missing.fill_id]) > 2 * room:
            whole.fills = [f for k, f in enumerate(books.fills.values()) if k != n]
            assert pnl.identity(whole).closes is False, number
