"""Everybody else: seeded makers and takers round a price nobody sees. Their orders are never signed, and their purse is deep.

The latent price of each market wanders in [0.15, 0.85] (units of 10^-4). Makers keep four levels on either side of it, each
order for about twenty seconds, half in either token: so the same order of ours is met directly, by a mint or by a merge. A
maker who comes late to a moved price takes what stands in its way. Takers arrive at random in venue time, however often `step`
is called, and lean towards the latent price: whoever quotes at the touch is filled a few times a minute, and mostly when it
hurts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.fakes.polymarket.records import ONE, FakeAccount, FakeMarket, Order

if TYPE_CHECKING:
    from tests.fakes.polymarket.house import House

POINT = Decimal("0.0001")
FLOOR, CEILING = 1500, 8500
LOWEST, HIGHEST = 1000, 9000
"""No order of the crowd at or beyond these."""
MOVE_PER_ROOT_S = 15.0
HALF_SPREAD = 40
LEVELS = 4
FOLLOW = 30
"""How far the price goes before the makers follow."""
TAKERS_PER_S = 0.2
REFRESH_PER_S = 0.05
CATCH_UP_S = 5.0
"""After a longer pause nobody makes up for what was missed."""
PEOPLE = 12


@dataclass
class _Scene:
    """One market as the crowd sees it."""

    dice: random.Random
    latent: int
    quoted: int
    """The latent price that the makers go by."""
    last_ms: int
    next_taker_ms: float
    orders: dict[str, Order] = field(default_factory=dict)


class Crowd:
    """All background traders; one wallet, many names."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.wallet = FakeAccount("0x" + "c" * 40, "0x" + "c" * 40, 0, "", "", "", Decimal(1_000_000_000))
        self.sets = Decimal(10_000_000)
        """Pairs it starts with in each market."""
        dice = random.Random(f"{seed} people")
        self.people = [(f"{dice.getrandbits(128):032x}", f"0x{dice.getrandbits(160):040x}") for _ in range(PEOPLE)]
        self._scenes: dict[str, _Scene] = {}

    def latent(self, condition_id: str) -> Decimal | None:
        """The price of YES that nobody sees, for tests; None before the first step."""
        scene = self._scenes.get(condition_id)
        return None if scene is None else scene.latent * POINT

    def step(self, house: House, now_ms: int) -> None:
        for market in house.markets.values():
            if market.accepting and not market.closed:
                self._play(house, market, now_ms)

    def _play(self, house: House, market: FakeMarket, now_ms: int) -> None:
        scene = self._scenes.get(market.condition_id)
        if scene is None:
            dice = random.Random(f"{self.seed} {market.condition_id}")
            latent = dice.randint(3000, 7000)
            scene = _Scene(dice, latent, latent, now_ms, now_ms)
            self._scenes[market.condition_id] = scene
        passed_s = min((now_ms - scene.last_ms) / 1000, CATCH_UP_S)
        scene.last_ms = now_ms
        scene.orders = {order.id: order for order in scene.orders.values() if order.status == "LIVE"}
        self._wander(scene, passed_s)
        self._keep_levels(house, market, scene, passed_s, now_ms)
        if now_ms - scene.next_taker_ms > CATCH_UP_S * 1000:
            scene.next_taker_ms = now_ms
        while scene.next_taker_ms <= now_ms:
            scene.next_taker_ms += scene.dice.expovariate(TAKERS_PER_S) * 1000
            self._hit(house, market, scene, now_ms)

    def _wander(self, scene: _Scene, passed_s: float) -> None:
        moved = scene.latent + round(scene.dice.gauss(0, MOVE_PER_ROOT_S) * passed_s**0.5)
        moved = 2 * FLOOR - moved if moved < FLOOR else moved
        scene.latent = 2 * CEILING - moved if moved > CEILING else moved
        if abs(scene.latent - scene.quoted) >= FOLLOW:
            scene.quoted = scene.latent

    def _keep_levels(self, house: House, market: FakeMarket, scene: _Scene, passed_s: float, now_ms: int) -> None:
        tick = int(market.tick / POINT)
        step = max(tick, 50)
        best_bid = (scene.quoted - HALF_SPREAD) // tick * tick
        best_ask = -((-scene.quoted - HALF_SPREAD) // tick) * tick
        wanted = {(True, best_bid - level * step) for level in range(LEVELS)}
        wanted |= {(False, best_ask + level * step) for level in range(LEVELS)}
        wanted = {(bid, price) for bid, price in wanted if LOWEST < price < HIGHEST}
        there = set()
        for order in list(scene.orders.values()):
            at = order.is_bid, int(order.yes_price / POINT)
            # Stale quotes linger for about a second: somebody is always late.
            chance = REFRESH_PER_S if at in wanted else 1.0
            if scene.dice.random() < chance * passed_s:
                house.withdraw(order, now_ms)
                del scene.orders[order.id]
            else:
                there.add(at)
        for bid, price in sorted(wanted - there):
            bare = not any(side == bid for side, _ in there)
            if bare or scene.dice.random() < 2 * passed_s:
                self._send(house, market, scene, bid, price, "GTC", now_ms)

    def _hit(self, house: House, market: FakeMarket, scene: _Scene, now_ms: int) -> None:
        best_bid, best_ask = house.top(market.condition_id)
        mine = [order for order in scene.orders.values() if order.status == "LIVE"]
        if best_bid is None or best_ask is None:
            return
        lean = (scene.latent - int((best_bid + best_ask) / 2 / POINT)) / 400
        up = scene.dice.random() < min(0.8, max(0.2, 0.5 + lean))
        if len({order.yes_price for order in mine if order.is_bid != up}) < 2:
            return  # they know each other: nobody empties a side
        reach = scene.dice.choice((0, 0, 1)) * int(market.tick / POINT)
        price = int((best_ask if up else best_bid) / POINT) + (reach if up else -reach)
        if LOWEST < price < HIGHEST:
            self._send(house, market, scene, up, price, "FAK", now_ms)

    def _send(self, house: House, market: FakeMarket, scene: _Scene, bid: bool, price: int, kind: str, now_ms: int) -> None:
        """`bid` and `price` in terms of YES; the token is a throw of its own."""
        dice = scene.dice
        token = dice.choice(market.tokens)
        is_yes = token == market.yes
        size = Decimal(dice.randint(*((500, 15_000) if kind == "FAK" else (1500, 9000)))).scaleb(-2)
        owner, maker = dice.choice(self.people)
        order = Order(
            f"0x{dice.getrandbits(256):064x}",
            self.wallet,
            owner,
            maker,
            market,
            token,
            "BUY" if bid == is_yes else "SELL",
            price * POINT if is_yes else ONE - price * POINT,
            size,
            kind,
            created_ms=now_ms,
            background=True,
        )
        house.enter(order, now_ms)
        if order.status == "LIVE":
            scene.orders[order.id] = order
