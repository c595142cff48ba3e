"""One order book: snapshot, delta, the venue's own top as the check on ours, and when not to trust it.

It holds totals per price of the one (YES) book and judges itself: stale levels are pruned, what cannot be explained is
a gap. It knows nothing of our orders, of instruments beyond the payout, or of what anybody does about a gap.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from llm_maker.core.events import BookDelta, BookSnapshot, Levels, TopReported
from llm_maker.core.values import NS_PER_S, Side

PRUNE_LIMIT = 50
"""More stale levels than this within `PRUNE_WINDOW_NS` mean that removals are lost wholesale: a gap."""
PRUNE_WINDOW_NS = 10 * NS_PER_S
HEAL_NS = 5 * NS_PER_S
"""Where no snapshot can be had, the own top must have agreed with the venue's for this long."""
SETTLED_NS = 2 * NS_PER_S
"""After this nothing of a gap's own moment is still under way."""
HELD_LIMIT = 512
"""Deltas kept during a gap, to be laid over a snapshot that is older than they are."""


class Applied(StrEnum):
    """What became of a message: taken, of no use, or a sign that the book cannot be trusted."""

    APPLY = "apply"
    SKIP = "skip"
    GAP = "gap"


class Book(msgspec.Struct):
    """Totals per price; `best_*` 0 means an empty side. To be read only while `trusted`: a snapshot, no gap since."""

    payout: int = 0
    """0 for linear; a told best ask equal to it means an empty side."""
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    best_bid: int = 0
    best_ask: int = 0
    bid_qty: int = 0
    """Quantity at the best bid."""
    ask_qty: int = 0
    trusted: bool = False
    heals_by_top: bool = False
    """No snapshot can be had: after a gap levels are learned anew, and trusted once the top has agreed long enough."""
    venue_ts: int = 0
    """Newest venue time applied; in a gap, the venue time a snapshot must be newer than."""
    snapshot_ts: int = 0
    changed_ns: int = 0
    """Market time of the last applied event."""
    gap_ns: int = 0
    """When the present gap began; 0 while trusted, or before anything was known."""
    gap_reason: str = "no_snapshot"
    pruned: int = 0
    skipped: int = 0
    gaps: int = 0
    top_version: int = 0
    """Rises whenever a best price, or the quantity at one, changes."""
    agreed_ns: int = 0
    prune_ns: list[int] = []
    held: list[BookDelta] = []
    last_delta: BookDelta | None = None

    @property
    def two_sided(self) -> bool:
        """Trusted, with a bid and an ask."""
        return self.trusted and self.best_bid > 0 and self.best_ask > 0

    @property
    def mid(self) -> float | None:
        """Middle of the best prices, price units; None unless two-sided."""
        return (self.best_bid + self.best_ask) / 2 if self.two_sided else None

    @property
    def spread(self) -> int | None:
        """Best ask less best bid, price units; None unless two-sided."""
        return self.best_ask - self.best_bid if self.two_sided else None

    def qty_at(self, side: Side, price: int) -> int:
        """Total quantity resting at a price; 0 where there is none."""
        return (self.bids if side is Side.BUY else self.asks).get(price, 0)

    def top(self, side: Side, n: int, min_qty: int = 1) -> list[tuple[int, int]]:
        """The `n` best (price, quantity), best first, of levels holding at least `min_qty`."""
        levels = self.bids if side is Side.BUY else self.asks
        best: list[tuple[int, int]] = []
        for price in sorted(levels, reverse=side is Side.BUY):
            qty = levels[price]
            if qty >= min_qty:
                best.append((price, qty))
                if len(best) == n:
                    break
        return best

    def depth(self, side: Side, n_levels: int) -> int:
        """Total quantity of the `n_levels` best levels."""
        return sum(qty for _, qty in self.top(side, n_levels))

    def ahead(self, side: Side, price: int) -> int:
        """Total quantity at strictly better prices than `price`."""
        if side is Side.BUY:
            return sum(qty for level, qty in self.bids.items() if level > price) if self.best_bid > price else 0
        return sum(qty for level, qty in self.asks.items() if level < price) if 0 < self.best_ask < price else 0

    def apply_snapshot(self, event: BookSnapshot, now: int) -> Applied:
        """Replace all levels; ends a gap if it is newer than it. `venue_ts` 0 (not told) is taken as new.

        A venue stamps a book with its last change. Of the gap's own moment it may be from before or after the change that we
        lack, while that is still under way; `SETTLED_NS` later it can only be the market as it stands since.
        """
        ts = event.venue_ts
        if ts and (ts < self.venue_ts or (ts == self.venue_ts and not self.trusted and now - self.gap_ns < SETTLED_NS)):
            self.skipped += 1
            return Applied.SKIP
        bids = {price: qty for price, qty in event.bids if qty}
        asks = {price: qty for price, qty in event.asks if qty}
        best_bid, best_ask = max(bids, default=0), min(asks, default=0)
        if 0 < best_ask <= best_bid:
            return self._gap("crossed_snapshot", ts, now)
        held, self.held = self.held, []
        self.bids, self.asks = bids, asks
        self.venue_ts = self.snapshot_ts = ts
        self.last_delta = None
        self._trust(now)
        self._set_top(best_bid, best_ask)
        return self._lay_over(held, ts, now)

    def apply_delta(self, event: BookDelta, now: int) -> Applied:
        """Set the totals of some levels, then check the top against the venue's word for it."""
        ts = event.venue_ts
        if not self.trusted:
            return self._learn(event.bids, event.asks, event, now) if self.heals_by_top else self._hold(event)
        if ts <= self.venue_ts and ts:
            refused = self._refuse_late(event, now)
            if refused is not None:
                return refused
        # The common change is below the top and leaves the told best as it was: nothing more than two dict writes.
        near = False
        best_bid, best_ask = self.best_bid, self.best_ask
        if event.bids:
            levels = self.bids
            for price, qty in event.bids:
                if price >= best_bid:
                    near = True
                if qty:
                    levels[price] = qty
                else:
                    levels.pop(price, None)
        if event.asks:
            levels = self.asks
            for price, qty in event.asks:
                if price <= best_ask or not best_ask:
                    near = True
                if qty:
                    levels[price] = qty
                else:
                    levels.pop(price, None)
        told_bid, told_ask = event.best_bid, event.best_ask
        if ts:
            self.venue_ts = ts
        self.changed_ns = now
        self.last_delta = event
        if near or (told_bid != best_bid and told_bid is not None) or (told_ask != best_ask and told_ask is not None):
            best_bid, best_ask = self._best_after(event)
            return self._settle(best_bid, best_ask, event, now)
        return Applied.APPLY

    def check_top(self, event: TopReported, now: int) -> Applied:
        """Judge the book by the venue's best prices; a report older than the book is skipped."""
        if event.venue_ts and event.venue_ts < self.venue_ts:
            self.skipped += 1
            return Applied.SKIP
        if self.trusted:
            self.changed_ns = now
            return self._settle(self.best_bid, self.best_ask, event, now)
        if self.heals_by_top:
            return self._learn((), (), event, now)
        self.skipped += 1
        return Applied.SKIP

    def lose(self, now: int, reason: str) -> None:
        """Data may be missing: empty the book and trust nothing until a newer snapshot."""
        if self.trusted or not self.gap_ns:
            self.gaps += self.trusted
            self.gap_ns, self.gap_reason = now, reason
        self.trusted = False
        self.bids, self.asks, self.held, self.prune_ns = {}, {}, [], []
        self.best_bid = self.best_ask = self.bid_qty = self.ask_qty = self.agreed_ns = 0
        self.last_delta = None
        self.top_version += 1

    def _gap(self, reason: str, ts: int, now: int) -> Applied:
        self.venue_ts = max(self.venue_ts, ts)
        self.lose(now, reason)
        return Applied.GAP

    def _trust(self, now: int) -> None:
        self.trusted = True
        self.gap_ns, self.gap_reason = 0, ""
        self.changed_ns = now

    def _set_top(self, best_bid: int, best_ask: int) -> None:
        bid_qty, ask_qty = self.bids.get(best_bid, 0), self.asks.get(best_ask, 0)
        if best_bid != self.best_bid or best_ask != self.best_ask or bid_qty != self.bid_qty or ask_qty != self.ask_qty:
            self.top_version += 1
            self.best_bid, self.best_ask, self.bid_qty, self.ask_qty = best_bid, best_ask, bid_qty, ask_qty

    def _hold(self, event: BookDelta) -> Applied:
        """Keep what a late snapshot will not contain; past the limit the oldest goes, and the top check is left."""
        self.skipped += 1
        if len(self.held) == HELD_LIMIT:
            del self.held[0]
        self.held.append(event)
        return Applied.SKIP

    def _lay_over(self, held: list[BookDelta], ts: int, now: int) -> Applied:
        for event in held:
            # Of the same moment counts as contained: a stale level is pruned later, a false gap would repeat itself.
            if event.venue_ts > ts and self.apply_delta(event, now) is Applied.GAP:
                return Applied.GAP
        return Applied.APPLY

    def _refuse_late(self, event: BookDelta, now: int) -> Applied | None:
        """Duplicates and what the snapshot already holds are skipped, the past is a gap; None: of this same moment."""
        if event == self.last_delta or event.venue_ts < self.snapshot_ts:
            self.skipped += 1
            return Applied.SKIP
        # A total from the past may overwrite a newer one, and no later message need repair it.
        return self._gap("out_of_order", event.venue_ts, now) if event.venue_ts < self.venue_ts else None

    def _best_after(self, event: BookDelta) -> tuple[int, int]:
        """Own best prices after the levels of `event` were written; searches a side only if its best is gone."""
        best_bid, best_ask = self.best_bid, self.best_ask
        for price, qty in event.bids:
            if qty and price > best_bid:
                best_bid = price
        for price, qty in event.asks:
            if qty and (price < best_ask or not best_ask):
                best_ask = price
        if best_bid not in self.bids:
            best_bid = max(self.bids, default=0)
        if best_ask not in self.asks:
            best_ask = min(self.asks, default=0)
        return best_bid, best_ask

    def _settle(self, best_bid: int, best_ask: int, told: BookDelta | TopReported, now: int) -> Applied:
        """Prune what the venue's best contradicts; a best that we lack, a cross, or too much pruning is a gap."""
        told_bid, told_ask = told.best_bid, self._told_ask(told)
        pruned = self.pruned
        if told_bid is not None and told_bid != best_bid:
            best_bid = self._prune_bids(told_bid)
        if told_ask is not None and told_ask != best_ask:
            best_ask = self._prune_asks(told_ask)
        if told_bid not in (None, best_bid) or told_ask not in (None, best_ask):
            return self._gap("best_missing", told.venue_ts, now)
        if 0 < best_ask <= best_bid:
            return self._gap("crossed", told.venue_ts, now)
        if self.pruned != pruned and self._pruned_too_often(self.pruned - pruned, now):
            return self._gap("pruned_too_often", told.venue_ts, now)
        self._set_top(best_bid, best_ask)
        return Applied.APPLY

    def _told_ask(self, told: BookDelta | TopReported) -> int | None:
        """The told best ask in our terms: 0 for an empty side."""
        return 0 if told.best_ask is not None and told.best_ask == self.payout else told.best_ask

    def _prune_bids(self, told: int) -> int:
        """Drop bids above the told best; the best that is left."""
        stale = [price for price in self.bids if price > told]
        for price in stale:
            del self.bids[price]
        self.pruned += len(stale)
        return told if told in self.bids else max(self.bids, default=0)

    def _prune_asks(self, told: int) -> int:
        """Drop asks below the told best, all of them where it is 0; the best that is left."""
        stale = [price for price in self.asks if price < told or not told]
        for price in stale:
            del self.asks[price]
        self.pruned += len(stale)
        return told if told in self.asks else min(self.asks, default=0)

    def _pruned_too_often(self, count: int, now: int) -> bool:
        recent = [at for at in self.prune_ns if at > now - PRUNE_WINDOW_NS]
        self.prune_ns = (recent + [now] * count)[-(PRUNE_LIMIT + 1) :]
        return len(self.prune_ns) > PRUNE_LIMIT

    def _learn(self, bids: Levels, asks: Levels, told: BookDelta | TopReported, now: int) -> Applied:
        """Healing without a snapshot: take levels as they come, trust them once the top has agreed for `HEAL_NS`."""
        if told.venue_ts and told.venue_ts < self.venue_ts:
            self.skipped += 1
            return Applied.SKIP
        for levels, changes in ((self.bids, bids), (self.asks, asks)):
            levels.update(changes)
            for price, qty in changes:
                if not qty:
                    levels.pop(price, None)
        self.venue_ts = max(self.venue_ts, told.venue_ts)
        told_bid, told_ask = told.best_bid, self._told_ask(told)
        best_bid = max(self.bids, default=0) if told_bid is None else self._prune_bids(told_bid)
        best_ask = min(self.asks, default=0) if told_ask is None else self._prune_asks(told_ask)
        self._set_top(best_bid, best_ask)
        if (told_bid, told_ask) != (best_bid, best_ask) or 0 < best_ask <= best_bid:
            self.agreed_ns = 0
        elif not self.agreed_ns:
            self.agreed_ns = now
        elif now - self.agreed_ns >= HEAL_NS:
            self._trust(now)
            return Applied.APPLY
        self.skipped += 1
        return Applied.SKIP
