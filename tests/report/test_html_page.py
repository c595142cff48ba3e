"""The HTML report in a real browser: nothing is asked of a network, everything is drawn, nothing that a market says is run."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from plotly.offline import get_plotlyjs

from llm_maker.core.values import CASH_PER_USD, NS_PER_S
from llm_maker.report.html_curves import markouts, reliability
from llm_maker.report.html_extras import Difference, DifferencePoint, Extras, KeyFigure, MoneyRow, StatedBin, Table
from llm_maker.report.html_markets import inventory, quotes
from llm_maker.report.html_page import page
from llm_maker.report.html_plots import MAX_POINTS, accounts_of, equity, kept, refusals, waterfall
from llm_maker.report.track import MARKOUTS_S, Fill, Money, Point, Quoted, Sample, Track

START = 1_780_272_000 * NS_PER_S
DAY_S = 86_400
PLOTS = 9
HOSTILE = "<script>alert(1)</script>"
QUESTIONS = (
    "Will the central bank cut its rate by 25 basis points in September?",
    HOSTILE,
    "Rain in Bergen on more than 20 days of June & July? <img src=x onerror=alert(2)>",
    "Will a crewed mission orbit the Moon before 2027, as announced, without a further delay of its launch window?",
)
SCALE, SHARE = 10_000, 1_000_000


# Accounts that never were: one walk of prices for all, every account with its own luck.


def walk(market: int, seconds: int, step: int) -> list[int]:
    dice = random.Random(1_000 + market)
    x, fair = (-0.9, 0.2, 1.1, -2.0)[market % 4], []
    for n in range(seconds // step):
        x += dice.gauss(0, 0.028 * math.sqrt(step / 60)) - 0.002 * x * (step / 60)
        if n == seconds // step * 2 // 3 and market == 0:
            x += 0.8
        fair.append(round(SCALE / (1 + math.exp(-x))))
    return fair


class Made:
    """One account, filled by dice; its equity is what its fills and positions make it."""

    def __init__(self, account: str, markets: int, seconds: int, step: int, seed: int) -> None:
        print(f"seed {seed} account {account}")
        self.dice, self.step, self.account = random.Random(f"{seed}/{account}"), step, account
        self.walks = [walk(market, seconds, step) for market in range(markets)]
        self.net = [0] * markets
        self.cash = 1_000 * CASH_PER_USD
        self.fills: list[Fill] = []
        self.points: list[Point] = []
        self.samples: dict[str, list[Sample]] = {f"m{market}": [] for market in range(markets)}
        for n in range(seconds // step):
            for market in range(markets):
                self._sample(market, n)
            mids = [fair[n] for fair in self.walks]
            worth = sum(net * mid * CASH_PER_USD // (SHARE * SCALE) for net, mid in zip(self.net, mids, strict=True))
            self.points.append(Point(START + n * step * NS_PER_S, self.cash + worth, self.cash))

    def _sample(self, market: int, n: int) -> None:
        mid, ts = self.walks[market][n], START + n * self.step * NS_PER_S
        half = 60 + 20 * ((n // 40 + market) % 3)
        lean = self.net[market] // SHARE * 2
        resting = not 0.55 < n / len(self.walks[market]) < 0.6
        bid, ask = mid - half, mid + half
        own_bid, own_ask = (min(mid - half + 20 - lean, mid - 10), max(mid + half - 20 - lean, mid + 10)) if resting else (0, 0)
        bias = {"main": 0.006, "twin": 0.0, "placebo": -0.006}.get(self.account, 0.0)
        if resting and self.dice.random() < 0.035 * self.step / 60:
            side = 1 if self.dice.random() < 0.5 + bias - self.net[market] / SHARE / 300 else -1
            self._fill(market, n, side, own_bid if side > 0 else own_ask)
        self.samples[f"m{market}"].append(Sample(ts, bid, ask, own_bid, own_ask, self.net[market], mid + 8 * math.sin(n / 90)))

    def _fill(self, market: int, n: int, side: int, price: int) -> None:
        fair, size = self.walks[market], self.dice.choice([5, 10, 20, 25]) * SHARE
        cash = -side * price * size * CASH_PER_USD // (SHARE * SCALE)
        self.net[market] += side * size
        self.cash += cash
        marks = {h: 2 * fair[n + max(1, h // self.step)] for h in MARKOUTS_S if n + max(1, h // self.step) < len(fair) and h >= 60}
        marks[10] = 2 * fair[n] + self.dice.randint(-30, 26)
        advised = self.account == "main" and self.dice.random() < 0.5
        self.fills.append(
            Fill(
                ts=START + n * self.step * NS_PER_S,
                fill_id=f"f{len(self.fills)}",
                order_id=f"o{len(self.fills)}",
                instrument=f"m{market}",
                side=side,
                price=price,
                qty=size,
                fee=0,
                maker=True,
                cash=cash,
                position_after=self.net[market],
                mid2=2 * fair[n],
                marks=marks,
                model="simulated" if advised else "",
                action=self.dice.choice(["buy_yes", "sell_yes", "hold"]) if advised else "",
                confidence=0.7 if advised else 0.0,
                reason="quote" if self.dice.random() < 0.9 else "exit <b>now</b>",
            )
        )

    def track(self) -> Track:
        seconds = len(self.points) * self.step
        names = {f"m{n}": QUESTIONS[n] if n < len(QUESTIONS) else f"market {n}" for n in range(len(self.walks))}
        dice = random.Random(len(self.fills))
        reasons = ("resolution_guard", "market_cap", "feed_lag", "cluster_cap", "jump_pull", "no_edge_after_fee")
        return Track(
            label={"account": self.account, "venue": "sim", "mode": "paper", "wallet": "", "simulated": True},
            start_ns=START,
            end_ns=START + seconds * NS_PER_S,
            start_cash=1_000 * CASH_PER_USD,
            equity=self.points[-1].equity,
            exit_equity=self.points[-1].equity,
            flows={},
            counts={},
            fills=self.fills,
            instruments={
                i: Quoted(name=name, price_scale=SCALE, qty_scale=SHARE, payout=SCALE, mid2=2 * self.walks[n][-1])
                for n, (i, name) in enumerate(names.items())
            },
            points=self.points,
            samples=self.samples,
            refusals={
                r: (dice.randint(1, 90), int(seconds * NS_PER_S * dice.random() * 0.3 / (k + 1))) for k, r in enumerate(reasons)
            },
        )


def empty() -> Track:
    """An account that has just been opened."""
    label = {"account": "main", "venue": "sim", "mode": "paper", "wallet": "", "simulated": True}
    cash = 1_000 * CASH_PER_USD
    return Track(label=label, start_ns=START, end_ns=START, start_cash=cash, equity=cash, exit_equity=cash, flows={}, counts={})


def rich(seconds: int = 2 * DAY_S, step: int = 60, markets: int = 4, seed: int = 11) -> list[Track]:
    return [Made(account, markets, seconds, step, seed).track() for account in ("main", "twin", "placebo")]


def identity(track: Track) -> list[MoneyRow]:
    """A split of these fills that adds up; what is no fill is made up and small."""
    ahead = {f.fill_id: f.marks.get(300, f.mid2) for f in track.fills}
    capture = sum(f.side * f.qty * (f.mid2 - 2 * f.price) for f in track.fills) / (2 * SCALE * SHARE)
    markout = sum(f.side * f.qty * (ahead[f.fill_id] - f.mid2) for f in track.fills) / (2 * SCALE * SHARE)
    total = (track.equity - track.start_cash) / CASH_PER_USD
    rows = [("capture", capture, "spread at the fills"), ("markout, 5 min", markout, "what the mid did in the five minutes after")]
    rows += [
        ("inventory", total - capture - markout, "what it did later"),
        ("fees", 0.0, ""),
        ("rebates", 1.25, "of fees that takers paid"),
    ]
    cost = -0.84 if track.label["account"] == "main" else 0.0
    rows += [("rewards", 2.5, "for resting near the mid"), ("model cost", cost, "paid to the provider")]
    lines = [MoneyRow(label=label, usd=round(usd, 6), note=note) for label, usd, note in rows]
    return [*lines, MoneyRow(label="profit or loss", usd=round(total + 3.75 + cost, 6), total=True, note="net of everything")]


def told(tracks: list[Track]) -> Extras:
    main, *others = tracks
    dice, bins, series = random.Random(5), [], {}
    for k in range(10):
        stated = (k + 0.5) / 10
        room = 1.96 * math.sqrt(stated * (1 - stated) / (20 + 12 * k))
        observed = min(1.0, max(0.0, stated + dice.gauss(0, 0.06) + (0.15 if k == 7 else 0)))
        low, high = max(0.0, stated - room), min(1.0, stated + room)
        bins.append(StatedBin(stated=stated, observed=observed, low=low, high=high, n=20 + 12 * k))
    for other in others:
        pairs = list(zip(main.points, other.points, strict=True))[::10]
        series[other.label["account"]] = [
            DifferencePoint(
                a.ts, (a.equity - b.equity) / CASH_PER_USD, (a.equity - b.equity) / 1e6 - w, (a.equity - b.equity) / 1e6 + w
            )
            for n, (a, b) in enumerate(pairs)
            for w in [0.6 * math.sqrt(n)]
        ]
    few = "none: 2 days, at least 20 are needed"
    return Extras(
        title="Four simulated markets, two days",
        build="0.1.0",
        headline=[
            KeyFigure(label="Profit or loss", value=f"{identity(main)[-1].usd:+.2f} USD", note="net of fees and the model"),
            KeyFigure(label="Against the twin", value="+4.10 USD a day", note="95 %: −6.2 to +14.4; no verdict"),
            KeyFigure(label="Fills", value=f"{len(main.fills):,}", note="98 % as maker"),
            KeyFigure(label="Capture", value="+0.51 c a share", note="after 5 min +0.48 c left"),
            KeyFigure(label="Largest drawdown", value="18.20 USD", note="1.8 % of its peak"),
            KeyFigure(label="Time quoted", value="95.0 %", note="at least one side resting"),
            KeyFigure(label="Model", value="0.84 USD", note="96 calls, 1 failed"),
            KeyFigure(label="Turnover", value="7,412 USD", note="3.7 times the cash a day"),
        ],
        identity={track.label["account"]: identity(track) for track in tracks},
        differences=[
            Difference(first="main", second=name, mean=4.1, low=-6.2, high=14.4, days=2, verdict=few, series=points)
            for name, points in series.items()
        ],
        reliability={"simulated": bins},
        tables=[
            Table(
                title="By action of the model",
                columns=["action", "fills", "capture, c", "markout 5 min, c", "P&L, USD", "95 % interval"],
                rows=[
                    ["buy_yes", "84", "+0.52", "−0.11", "+3.20", "−1.10 to +7.80"],
                    ["no opinion", "310", "+0.50", "−0.02", "+9.80", "n/a"],
                ],
                note="A fill belongs to the opinion that was in force when its order was placed.",
            ),
            Table(title="By strategy term", columns=["term", "USD"], rows=[]),
        ],
        refusals={"resolution_guard": "too near to the market's end", "feed_lag": "the feed was late"},
        notes=["Markets, trades and the model are simulated: the figures show that the machine works, not that it would earn."],
    )


# The page in a browser.

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser_needed = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on the path")


@dataclass
class Seen:
    """A page that was opened, and all that it did of itself."""

    tab: Any
    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    """Console warnings and errors, page errors, dialogs."""

    def open(self, file: Path) -> None:
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on(
            "console", lambda line: self.said.append(f"{line.type} {line.text}") if line.type in {"error", "warning"} else None
        )
        self.tab.on("pageerror", lambda error: self.said.append(f"page error {error}"))
        self.tab.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.tab.goto(file.as_uri())
        self.drawn()

    def drawn(self, scheme: str = "") -> None:
        self.tab.wait_for_selector(f"html[data-drawn={scheme}]" if scheme else "html[data-drawn]", state="attached")

    def fits(self) -> bool:
        return bool(self.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser: Any, file: Path, **more: Any) -> Seen:
    seen = Seen(browser.new_context(**more).new_page())
    seen.open(file)
    return seen


CONTENT = """() => [...document.querySelectorAll('.plot')].map(card => ({
  id: card.id, said: card.querySelector('.canvas.none')?.innerText ?? '', wide: card.querySelector('.main-svg')?.clientWidth ?? 0,
  marks: card.querySelectorAll('.main-svg .trace path, .main-svg .traces path, .main-svg .point path').length,
  inside: [...card.querySelectorAll('.main-svg')].every(svg => svg.getBoundingClientRect().right <= innerWidth + 1) }))"""


@pytest.mark.prove
@browser_needed
def test_the_page_in_a_browser(browser, tmp_path):
    tracks = rich(seconds=DAY_S, step=300)
    file = tmp_path / "report.html"
    file.write_text(page(tracks, told(tracks)), encoding="utf-8")
    seen = opened(browser, file, viewport={"width": 1_280, "height": 900}, color_scheme="dark")
    tab = seen.tab
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 24)"
    assert tab.evaluate("document.querySelector('#plot-equity .canvas').data[0].line.color") == "#64aef2"
    found = tab.evaluate(CONTENT)
    assert len(found) == PLOTS
    assert all(each["marks"] and each["wide"] > 300 and not each["said"] for each in found), found

    # The selector draws another market; its name is text and nothing else.
    drawn = "document.querySelector('#plot-quotes .canvas').data"
    market = tab.locator("#plot-quotes select").first
    options = market.locator("option").all_inner_texts()
    assert set(options) == {name if len(name) <= 120 else name[:119] + "…" for name in QUESTIONS}
    for option in (next(each for each in options[1:] if each != HOSTILE), HOSTILE):
        before = tab.evaluate(f"JSON.stringify({drawn}[0].y)")
        market.select_option(label=option)
        tab.wait_for_function(f"old => JSON.stringify({drawn}[0].y) !== old", arg=before)
    fill = next(fill for fill in tracks[0].fills if tracks[0].instruments[fill.instrument].name == HOSTILE and fill.side == 1)
    buys = tab.evaluate(f"{drawn}.find(trace => trace.name === 'our buy')")
    assert (buys["x"][0], buys["y"][0]) == (fill.ts // 1_000_000, pytest.approx(fill.price / SCALE))

    # A legend entry hides its line; the shorter range zooms.
    tab.locator("#plot-equity .legend button", has_text="twin").click()
    shown = tab.evaluate("() => document.querySelector('#plot-equity .canvas').data.map(t => t.visible ?? true)")
    assert shown == [True, True, "legendonly", "legendonly", True, True]
    tab.locator("#plot-equity .ranges button", has_text="6 h").click()
    tab.wait_for_function("() => document.querySelector('#plot-equity .canvas').layout.xaxis.range?.[0] > 1e12")

    tab.set_viewport_size({"width": 390, "height": 844})
    tab.wait_for_function("() => document.querySelector('#plot-refusals .main-svg').clientWidth < 390")
    assert seen.fits()
    assert all(each["inside"] and each["marks"] for each in tab.evaluate(CONTENT))

    assert seen.requests == [file.as_uri()]
    assert seen.said == []


@browser_needed
@pytest.mark.prove
def test_an_account_without_a_fill_says_so_in_every_place(browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page([empty()], Extras()), encoding="utf-8")
    seen = opened(browser, file, viewport={"width": 390, "height": 844})
    found = seen.tab.evaluate(CONTENT)
    assert len(found) == PLOTS
    assert all(each["said"].endswith(".") and each["marks"] == 0 for each in found), found
    assert seen.fits()
    assert (seen.requests, seen.said) == ([file.as_uri()], [])


@browser_needed
@pytest.mark.prove
@pytest.mark.parametrize("width", [320, 390, 768, 1_280, 1_920])
def test_every_market_of_every_account_at_every_width(browser, tmp_path, width):
    tracks = rich()
    file = tmp_path / "report.html"
    file.write_text(page(tracks, told(tracks)), encoding="utf-8")
    assert file.stat().st_size < 9_000_000
    seen = opened(browser, file, viewport={"width": width, "height": 900}, has_touch=width < 700)
    assert seen.fits()
    for card in seen.tab.locator(".plot").all():
        selects = card.locator("select").all()
        for select in selects:
            for n in range(select.locator("option").count()):
                select.select_option(index=n)
                card.locator(".main-svg .trace, .main-svg .trace.bars").first.wait_for(state="attached")
        for button in card.locator(".ranges button:not(:disabled)").all():
            if button.is_enabled():
                button.click()
    seen.tab.screenshot(full_page=True)
    assert seen.fits()
    ink = "document.querySelector('#plot-equity .canvas').layout.font.color"
    light = seen.tab.evaluate(ink)
    seen.tab.emulate_media(color_scheme="dark")
    seen.drawn("dark")
    assert seen.tab.evaluate(ink) != light
    assert all(each["inside"] and each["marks"] for each in seen.tab.evaluate(CONTENT))
    assert (seen.requests, seen.said) == ([file.as_uri()], [])


# What is drawn, without a browser.


def data_of(html: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    return json.loads(found)


def test_nothing_yet_is_said_in_a_sentence_for_every_plot_and_no_market_text_is_markup():
    plots = data_of(page([empty()], Extras()))
    assert len(plots) == PLOTS
    assert all(not plot["figures"] and re.fullmatch(r"[A-Z].+\.", plot["empty"]) for plot in plots.values())
    assert set(data_of(page([], Extras()))) == set(plots)

    hostile = '</script><img src=x onerror="alert(1)">{}%{x}<!--slot:data--> @bid'
    track = rich(seconds=3 * 3_600, markets=1)[0]
    track.instruments = {"m0": msgspec.structs.replace(track.instruments["m0"], name=hostile)}
    track.label |= {"account": hostile, "mode": hostile, "venue": hostile}
    table = Table(title=hostile, columns=[hostile, hostile], rows=[[hostile, hostile]], note=hostile)
    row = MoneyRow(label=hostile, usd=1.0, note=hostile)
    pair = Difference(first=hostile, second=hostile, mean=1.0, days=1, verdict=hostile, series=[DifferencePoint(START, 1.0)])
    key = KeyFigure(label=hostile, value=hostile, note=hostile)
    extras = Extras(
        title=hostile, build=hostile, headline=[key], identity={hostile: [row]}, differences=[pair], tables=[table], notes=[hostile]
    )
    html = page([track], extras)
    assert html.count("</script>") == 3
    assert "<img" not in html.replace(get_plotlyjs(), "")
    for figure in data_of(html)["quotes"]["figures"].values():
        assert "<img" not in msgspec.json.encode(figure).decode()


def test_thinning_keeps_every_extreme_and_says_so():
    dice = random.Random(3)
    print("seed 3")
    values = [dice.gauss(0, 1) for _ in range(40_000)]
    values[12_345], values[29_999], values[7] = 50.0, -60.0, None
    rows = kept([values, [dice.random() for _ in values]], 1_000)
    assert len(rows) <= 1_001
    assert rows == sorted(set(rows))
    assert {0, 12_345, 29_999, 39_999} <= set(rows)
    width = -(-40_000 // ((1_000 - 1) // 5))
    for start in range(0, 40_000, width):
        stretch = [v for v in values[start : start + width] if v is not None]
        drawn = [values[i] for i in rows if start <= i < start + width and values[i] is not None]
        assert (min(drawn), max(drawn)) == (min(stretch), max(stretch))
    assert kept([[None] * 2_000], 100)[-1] == 1_999
    assert kept([[1.0, 2.0]], 2) == [0, 1]

    track = rich(seconds=6 * 3_600, markets=1)[0]
    track.points = [Point(START + n, 1_000_000_000 + n % 977, 0) for n in range(3 * MAX_POINTS)]
    plot = equity(accounts_of([track]))
    assert len(plot.figures[""]["data"][0]["x"]) <= MAX_POINTS
    assert "of 15,000 equity points" in plot.notes[0]


def test_equity_is_the_change_without_transfers_and_drawdown_starts_from_nothing():
    track = empty()
    track.points = [Point(START + n, 1_000_000_000 + 1_000_000 * change, 0) for n, change in enumerate([-1, 4, 104, 101])]
    track.money = [Money(ts=START + 2, kind="transfer", amount=100_000_000), Money(ts=START + 2, kind="reward", amount=5)]
    change, fall = equity(accounts_of([track])).figures[""]["data"]
    assert change["y"] == [-1, 4, 4, 1]
    assert fall["y"] == [-1, 0, 0, -3]


def made_fill(n: int, side: int, price: int, mid2: int, marks: dict[int, int], net: int = 0, hours: int = 0) -> Fill:
    return Fill(
        ts=START + (n + hours * 3_600) * NS_PER_S,
        fill_id=f"{n}",
        order_id=f"{n}",
        instrument="m0",
        side=side,
        price=price,
        qty=10 * SHARE,
        fee=0,
        maker=True,
        cash=0,
        position_after=net,
        mid2=mid2,
        marks=marks,
    )


def with_fills(fills: list[Fill], payout: int = SCALE) -> Track:
    track = empty()
    track.fills = fills
    track.instruments = {"m0": Quoted(name="one", price_scale=SCALE, qty_scale=SHARE, payout=payout)}
    return track


def test_markouts_are_ours_in_cents_and_a_horizon_without_data_is_absent():
    # Sold at 0.52 and 0.53 with the mid at 0.51: after a minute the mid is 0.50, then 0.53.
    fills = [made_fill(0, -1, 5_200, 10_200, {60: 10_000}), made_fill(1, -1, 5_300, 10_200, {60: 10_600, 300: 10_200})]
    fills += [made_fill(2, -1, 5_300, 0, {60: 20_000}), made_fill(3, 1, 5_000, 10_200, {})]
    short, long = markouts(accounts_of([with_fills(fills)]), -1).figures[""]["data"]
    assert short["y"] == [None, None, pytest.approx(-0.5), 0]
    assert long["y"] == [None, None]
    assert "2 fills" in short["customdata"][2][1]
    assert "no interval" in short["customdata"][2][1]
    assert "capture at the fill +1.500, left of it +1.000" in short["customdata"][2][1]
    assert short["customdata"][0][1] == ""
    assert not markouts(accounts_of([with_fills(fills)]), 1).figures
    linear = markouts(accounts_of([with_fills(fills[:1], payout=0)]), -1).figures[""]
    assert linear["data"][0]["y"][2] == pytest.approx(100 / 5_100 * 1e4, abs=1e-4)
    assert linear["layout"]["annotations"][0]["text"] == "basis points"


def test_the_interval_of_a_markout_is_that_of_separate_moves():
    dice = random.Random(8)
    print("seed 8")
    moves = [dice.gauss(0, 40) for _ in range(60)]
    once = [made_fill(0, 1, 5_000, 10_000, {60: 10_000 + 2 * round(m)}, hours=n) for n, m in enumerate(moves)]
    often = [made_fill(k, 1, 5_000, 10_000, {60: 10_000 + 2 * round(m)}, hours=n) for n, m in enumerate(moves) for k in range(5)]
    half = [markouts(accounts_of([with_fills(fills)]), 1).figures[""]["data"][0]["error_y"]["array"][2] for fills in (once, often)]
    # Five fills in one minute are one move: no more certain than one.
    assert half[1] == pytest.approx(half[0], rel=1e-6)
    mean = sum(map(round, moves)) / 60
    sd = math.sqrt(sum((round(m) - mean) ** 2 for m in moves) / 59)
    assert half[0] == pytest.approx(1.96 * sd / math.sqrt(60) / 100, rel=1e-3)


def test_a_market_shows_what_stood_in_it():
    track = with_fills([made_fill(30, 1, 4_800, 9_900, {}, net=10 * SHARE)])
    track.samples = {
        "m0": [Sample(START + n * 60 * NS_PER_S, 4_900, 5_000, 4_850 * (n != 1), 0, n * SHARE, 4_950.123) for n in range(3)]
    }
    figure = quotes(accounts_of([track])).figures["0|0"]
    columns = figure["columns"]
    assert columns["t"] == [0, 60_000, 120_000]
    assert (columns["bid"], columns["ask"], columns["fair"]) == ([0.49] * 3, [0.5] * 3, [0.49501] * 3)
    assert (columns["own_bid"], columns["own_ask"]) == ([0.485, None, 0.485], [None] * 3)
    buy = next(trace for trace in figure["data"] if trace.get("name") == "our buy")
    assert (buy["y"], buy["marker"]["color"]) == ([0.48], "@bid")
    assert buy["customdata"][0][:2] == ["10", "+1.5 cents a share, +0.1500 USD"]
    rows = inventory(accounts_of([track])).figures[""]["data"]
    assert [trace["y"] for trace in rows] == [[0, 10, 1, 2], [0, 0, 0, 0]]


def test_accounts_keep_their_colours_and_same_names_are_told_apart():
    tracks = rich(seconds=1_800, markets=1)
    assert [(a.name, a.colour) for a in accounts_of(tracks)] == [("main", "@main"), ("twin", "@twin"), ("placebo", "@placebo")]
    one, two = empty(), empty()
    one.label |= {"home": "a"}
    two.label |= {"home": "b"}
    pair = accounts_of([one, two])
    assert [account.name for account in pair] == ["main (a)", "main (b)"]
    assert len({account.colour for account in pair}) == 2
    styles = page([], Extras()).split("</style>")[0]
    used = set(re.findall(r'"@(\w+)', msgspec.json.encode(data_of(page(tracks, told(tracks)))).decode()))
    assert {"main", "twin", "bid", "ask", "ink", "muted", "card"} <= used
    for name in used:
        assert len(re.findall(rf"--{name}: #[0-9a-f]{{6}};", styles)) == 2, f"{name} has no value in light and in dark"


def test_refusals_stand_longest_first_and_a_part_not_known_is_not_drawn():
    track = empty()
    track.refusals = {"feed_lag": (3, 60 * NS_PER_S), "market_cap": (1, 7_200 * NS_PER_S)}
    figure = refusals(accounts_of([track]), {"feed_lag": "late"}).figures[""]
    assert figure["data"][0]["y"] == ["market cap", "feed lag"]
    assert figure["data"][0]["x"] == [2, pytest.approx(1 / 60, abs=1e-4)]
    assert figure["layout"]["annotations"][0]["text"] == "hours"
    rows = [
        MoneyRow(label="capture", usd=2.0),
        MoneyRow(label="markout, 1 d", usd=None),
        MoneyRow(label="all", usd=2.0, total=True),
    ]
    plot = waterfall({"main": rows}, accounts_of([track]))
    assert plot.figures[""]["data"][0]["y"] == ["capture", "all"]
    assert plot.notes == ["main: not known, so not drawn: markout, 1 d."]
    assert "n/a" in page([track], Extras(identity={"main": rows}))
    outside = StatedBin(stated=0.5, observed=0.9, low=0.4, high=0.6, n=9)
    assert reliability({"m": [outside]}).figures[""]["data"][3]["marker"]["color"] == ["@card"]
