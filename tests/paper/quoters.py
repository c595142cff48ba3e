"""Quoters without a core on the simulated market: several exchanges hear one feed, and their fills are judged by the truth."""

import math
import random
from dataclasses import dataclass, field

from llm_maker.core.commands import CancelOrder, PlaceOrder, TimeInForce
from llm_maker.core.events import BookDelta, BookSnapshot, InstrumentListed, OrderFilled
from llm_maker.core.values import CASH_PER_USD, NS_PER_S, Leg, Side, expit
from llm_maker.venues.paper.exchange import Exchange
from llm_maker.venues.paper.market import MarketParams, SimulatedMarket
from llm_maker.venues.paper.records import ExchangeParams
from llm_maker.venues.paper.regimes import SHARE, TICK

HOUR = 3_600 * NS_PER_S
LOT = 50 * SHARE


@dataclass
class Deal:
    """One fill; mid and truth in USD at the moment of it."""

    market: str
    side: int
    shares: float
    price: float
    mid: float
    truth: float
    fee: float


@dataclass
class Desk:
    """An exchange and what it filled. `capture - adverse - fees` is what a fill earns; `drift` is what came after it."""

    exchange: Exchange
    deals: list[Deal] = field(default_factory=list)

    def result(self, truth):
        """USD: P&L at the truth of the end, the spread captured, what the takers knew, fees, and the later drift of the truth."""
        capture = sum(d.side * d.shares * (d.mid - d.price) for d in self.deals)
        adverse = sum(d.side * d.shares * (d.mid - d.truth) for d in self.deals)
        drift = sum(d.side * d.shares * (truth[d.market] - d.truth) for d in self.deals)
        fees = sum(d.fee for d in self.deals)
        return {
            "pnl": capture - adverse - fees + drift,
            "capture": capture,
            "adverse": adverse,
            "fees": fees,
            "drift": drift,
            "shares": sum(d.shares for d in self.deals),
        }


class Stage:
    """One feed, some exchanges, and one quoter whose orders all of them get; everything follows from the seed."""

    def __init__(self, seed, exchanges, quoter, *, regime="mixed", markets=6, activity=40.0, step_s=10):
        params = MarketParams(
            seed=seed, markets=markets, regime=regime, activity=activity, step_ns=step_s * NS_PER_S, days_to_end=60.0, rewards=False
        )
        self.feed = SimulatedMarket(params)
        plain = {"seed": seed, "start_cash": 10_000_000 * CASH_PER_USD, "settle_fail_ppm": 0}
        self.desks = {name: Desk(Exchange(ExchangeParams(**plain | changes))) for name, changes in exchanges.items()}
        self.tops, self.names = {}, []
        self.start = params.start_ns
        self.quoter = quoter(seed)

    def run(self, hours, every_s=20):
        turn = self.start + 60 * NS_PER_S
        end = self.start + int(hours * HOUR)
        while (due := self.feed.next_ns()) is not None and due <= end:
            while turn <= due:
                self._turn(turn)
                turn += every_s * NS_PER_S
            for event in self.feed.advance(due):
                self._see(due, event)
        truth = {name: expit(self.feed.truth(name)) for name in self.names}
        return {name: desk.result(truth) for name, desk in self.desks.items()}

    def _see(self, now, event):
        for desk in self.desks.values():
            self._drain(desk, now)
            desk.exchange.observe(now, event)
            self._drain(desk, now)
        match event:
            case InstrumentListed():
                self.names.append(event.instrument.id)
            case BookSnapshot():
                self.tops[event.instrument] = (max(event.bids)[0], min(event.asks)[0])
            case BookDelta(best_bid=bid, best_ask=ask):
                self.tops[event.instrument] = (bid, ask)

    def _turn(self, now):
        commands = self.quoter.orders(self.tops)
        for desk in self.desks.values():
            self._drain(desk, now)
            for command in commands:
                desk.exchange.execute(now, command)

    def _drain(self, desk, now):
        while (due := desk.exchange.next_ns()) is not None and due <= now:
            for event in desk.exchange.advance(due):
                if isinstance(event, OrderFilled):
                    bid, ask = self.tops[event.instrument]
                    desk.deals.append(
                        Deal(
                            event.instrument,
                            int(event.side),
                            event.qty / SHARE,
                            event.price / 10_000,
                            (bid + ask) / 20_000,
                            expit(self.feed.truth(event.instrument)),
                            event.fee / CASH_PER_USD,
                        )
                    )


def place(order_id, market, side, price):
    leg = Leg.YES if side is Side.BUY else Leg.NO
    return PlaceOrder(order_id, market, side, leg, price, LOT, TimeInForce.GTC, True, False, "test")


class RandomQuoter:
    """No view: a random side near its touch, within the spread too; random cancels. Blind to its own fills."""

    def __init__(self, seed):
        self.dice, self.live, self.count = random.Random(f"quoter {seed}"), [], 0

    def orders(self, tops):
        made = []
        for market, (bid, ask) in tops.items():
            if self.dice.random() < 0.5:
                continue
            side = self.dice.choice((Side.BUY, Side.SELL))
            price = (
                self.dice.randrange(bid - TICK, ask, TICK)
                if side is Side.BUY
                else self.dice.randrange(bid + TICK, ask + 2 * TICK, TICK)
            )
            if not TICK <= price <= 10_000 - TICK:
                continue
            self.count += 1
            made.append(place(f"1-{self.count}", market, side, price))
            self.live.append((f"1-{self.count}", market))
        for _ in range(len(self.live) // 3):
            order_id, market = self.live.pop(self.dice.randrange(len(self.live)))
            made.append(CancelOrder(order_id, market, "test"))
        return made


class TouchQuoter:
    """Both sides at the touch of every market, moved when it moves and renewed now and then; blind to its own fills."""

    def __init__(self, seed):
        self.resting, self.count, self.turn = {}, 0, 0

    def orders(self, tops):
        made, self.turn = [], self.turn + 1
        for market, touch in tops.items():
            for side, price in zip((Side.BUY, Side.SELL), touch, strict=True):
                was = self.resting.get((market, side))
                if was is not None and was[1] == price and self.turn - was[2] < 15:
                    continue
                if was is not None:
                    made.append(CancelOrder(was[0], market, "test"))
                if TICK <= price <= 10_000 - TICK:
                    self.count += 1
                    self.resting[market, side] = (f"1-{self.count}", price, self.turn)
                    made.append(place(f"1-{self.count}", market, side, price))
        return made


def interval(values):
    """Mean and the half-width of its 95 % interval."""
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    return mean, 1.96 * spread
