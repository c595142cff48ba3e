"""The report of a home: what made or lost the money of each account, what its models' opinions were worth, who beat whom.

Reads the ledger and the logs of a home, of several homes, or of a home's last backtest; computes by the rooms of `report`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from llm_maker import __version__
from llm_maker.core.skill import Forecast, Skill
from llm_maker.core.state import Counts, Flows, Tally
from llm_maker.core.values import usd
from llm_maker.report import account_text, fill_check, paired, signal_table, skill_page, summary
from llm_maker.report.account import Account, account
from llm_maker.report.account_extras import extras
from llm_maker.report.fill_check import FillCheck
from llm_maker.report.paired import Paired
from llm_maker.report.signal_table import Group
from llm_maker.report.track import Track
from llm_maker.runtime.ledger import Ledger
from llm_maker.runtime.logs import SKILL
from llm_maker.runtime.rows import Scope
from llm_maker.tracks import track
from llm_maker.twins import COPY, PLACEBO, TWIN
from llm_maker.world import Refused

SHADOWS = (COPY, TWIN, PLACEBO)


class Entry(msgspec.Struct, frozen=True):
    """One account of a home: its record, and what the ledger keeps beside it."""

    scope: Scope
    track: Track
    kept: dict[str, str]
    forecasts: list[Forecast]
    totals: dict[str, Any]
    positions: dict[str, int]


class Found(msgspec.Struct, frozen=True):
    """What a home holds."""

    home: Path
    entries: list[Entry]

    @property
    def tracks(self) -> list[Track]:
        return [entry.track for entry in self.entries]


def gather(home: Path, *, backtest: bool = False, samples: bool = False, forecasts: bool = False) -> Found:
    """Every account with rows in the home's ledger; with `backtest` those of its last backtest in their place."""
    path = home / "logs" / "backtest" / "ledger.sqlite3" if backtest else home / "positions" / "ledger.sqlite3"
    if not path.exists():
        return Found(home, [])
    ledger = Ledger.open(path)
    try:
        return Found(home, [_entry(ledger, scope, samples, forecasts) for scope in ledger.scopes()])
    finally:
        ledger.close()


def _entry(ledger: Ledger, scope: Scope, samples: bool, forecasts: bool) -> Entry:
    told = ledger.forecasts(scope) if forecasts else []
    totals = msgspec.to_builtins(ledger.totals(scope))
    return Entry(scope, track(ledger, scope, samples=samples), ledger.risk_state(scope), told, totals, ledger.positions(scope))


def report(home: Path, *, backtest: bool = False) -> dict[str, Any]:
    """Everything as plain data; accounts are never mixed."""
    return told(gather(home, backtest=backtest))


def told(found: Found) -> dict[str, Any]:
    """The JSON of the report; the keys of the older ones stay."""
    accounts = [_plain(entry) for entry in found.entries]
    if not accounts:
        return {"accounts": []}
    return {"accounts": accounts, "compared": account_text.differences(compared(found.tracks))}


def _plain(entry: Entry) -> dict[str, Any]:
    kept = entry.kept

    def read(key: str, kind: Any, default: Any) -> Any:
        return msgspec.json.decode(kept[key], type=kind) if key in kept else default

    flows, worth = read("flows", Flows, Flows()), read("equity", int, 0)
    refused = read("refused", dict[str, Tally], {})
    parts = summary.split(worth - flows.start - flows.transfers, flows)
    ranked = sorted(refused.items(), key=lambda item: -item[1].ns)
    detail = account(entry.track)
    return {
        "venue": entry.scope.venue,
        "mode": entry.scope.mode,
        "wallet": entry.scope.wallet,
        "account": entry.scope.account,
        "simulated": entry.scope.venue == "simulated",
        "equity_usd": usd(worth),
        "pnl_usd": parts.pnl,
        "pnl_exit_usd": usd(read("exit_equity", int, 0) - flows.start - flows.transfers),
        "pnl_split_usd": msgspec.to_builtins(parts),
        "llm_cost_usd": usd(entry.totals["decision_cost"]),
        "counts": msgspec.to_builtins(read("counts", Counts, Counts())),
        "fills": entry.totals["fills"],
        "failed_settlements": entry.totals["failed_fills"],
        "round_trips": entry.totals["trips"],
        "winning_round_trips": entry.totals["winning_trips"],
        "decisions": entry.totals["decisions"],
        "positions": entry.positions,
        "refusals": {k: {"episodes": t.count, "seconds": round(t.ns / 1e9, 3)} for k, t in ranked},
        "quoted_seconds": {k: round(ns / 1e9, 1) for k, ns in read("quoted", dict[str, int], {}).items()},
        "names": read("names", dict[str, str], {}),
        "opinions": {key.removeprefix(SKILL): msgspec.json.decode(value) for key, value in kept.items() if key.startswith(SKILL)},
        "identity_usd": msgspec.to_builtins(detail.split),
        "ratios": msgspec.to_builtins(detail.ratios),
        "by": msgspec.to_builtins(detail.by),
        "terms": msgspec.to_builtins(detail.terms),
    }


def compared(tracks: Sequence[Track]) -> list[Paired]:
    """Main against its twin and its placebo (live: the paper copy is main), and real fills against the simulated ones."""
    found: list[Paired] = []
    for main in [t for t in tracks if t.label["account"] not in SHADOWS]:
        beside = _shadows(main, tracks)
        base = beside.get(COPY, main)
        found += paired.against(base, {name: beside[name] for name in (TWIN, PLACEBO) if name in beside})
        if base is not main:
            found.append(paired.paired(main, base))
    return found


def _shadows(main: Track, tracks: Sequence[Track]) -> dict[str, Track]:
    """The accounts beside one; of a shadow that was begun anew its last life."""
    found: dict[str, Track] = {}
    for t in sorted(tracks, key=lambda one: one.end_ns):
        same = t.label["venue"] == main.label["venue"]
        if same and t.label["account"] in SHADOWS and str(t.label["wallet"]).partition("#")[0] == _wallet(main):
            found[str(t.label["account"])] = t
    return found


def _wallet(main: Track) -> str:
    """A tape's wallet ends in its session, as a shadow's later life does."""
    return str(main.label["wallet"]).partition("#")[0]


def report_lines(found: Found) -> list[str]:
    """The report for people: who made what, a shadow in short, then who beat whom."""
    lines: list[str] = []
    for entry in sorted(found.entries, key=lambda entry: entry.scope.account in SHADOWS):
        shadow = entry.scope.account in SHADOWS
        lines += [*account_text.lines(account(entry.track), short=shadow), ""]
        if not shadow:
            kept = {k.removeprefix(SKILL): v for k, v in entry.kept.items() if k.startswith(SKILL)}
            lines += [*skill_page.lines({k: msgspec.json.decode(v, type=Skill) for k, v in kept.items()}), ""]
    for one in compared(found.tracks):
        lines += [*_meaning(one), *(f"  {line}" for line in paired.lines(one)), ""]
    return lines[:-1]


def _meaning(p: Paired) -> list[str]:
    if TWIN in p.second:
        return ["what the model was worth: the account against its twin without a model, net of the model's cost"]
    if PLACEBO in p.second:
        return ["against the placebo, whose opinions were dealt to the wrong markets"]
    return ["simulator error: real fills against the same engine on simulated ones"]


# Signals, fills, homes.


class Followed(msgspec.Struct, frozen=True):
    """What following the signals of one account would have brought."""

    label: dict[str, Any]
    groups: list[Group]


def signals(home: Path, *, backtest: bool = False) -> list[Followed]:
    """Of every account that asked a model; shadows only hear again what it answered."""
    found = gather(home, backtest=backtest, samples=True, forecasts=True)
    actions = _actions(home / "logs" / "backtest" if backtest else home / "logs")
    return [
        Followed(entry.track.label, signal_table.signal_table(entry.forecasts, signal_table.costs(entry.track), actions))
        for entry in found.entries
        if entry.forecasts and entry.scope.account not in SHADOWS
    ]


def signals_lines(found: Sequence[Followed]) -> list[str]:
    """The same for people."""
    return [line for each in found for line in (account_text.whose(each.label), *signal_table.lines(each.groups), "")][:-1]


def _actions(logs: Path) -> dict[tuple[str, str], str]:
    """(decision, market) -> what was advised, from the decision log; lines that cannot be read are left out."""
    advised: dict[tuple[str, str], str] = {}
    for path in (logs / "llm_decisions.jsonl.1", logs / "llm_decisions.jsonl"):
        if not path.exists():
            continue
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue
                for signal in entry.get("signals") or []:
                    advised[str(entry.get("decision_id")), str(signal.get("market_id"))] = str(signal.get("action"))
    return advised


def fills(home: Path) -> FillCheck:
    """Simulated against live fills; refused where a home lacks one of them."""
    tracks = gather(home).tracks
    pairs = [(t, _shadows(t, tracks).get(COPY)) for t in tracks if t.label["mode"] == "live" and t.label["account"] not in SHADOWS]
    found = [(live, copy) for live, copy in pairs if copy is not None]
    if not found:
        raise Refused(f"{home}: no live account with its paper copy here (mode: live with twin.enabled: true makes both)")
    live, copy = max(found, key=lambda pair: pair[0].end_ns)
    logs = home / "logs"
    real = fill_check.read_orders(logs / "executions.jsonl", str(live.label["account"]), live.instruments)
    paper = fill_check.read_orders(logs / COPY / "executions.jsonl", COPY, copy.instruments)
    return fill_check.check(live, copy, real, paper)


def homes(folders: Sequence[Path], *, backtest: bool = False) -> dict[str, Track]:
    """The main account of each home, by its folder; refused where there is none, or more than one."""
    found: dict[str, Track] = {}
    for folder in folders:
        mains = [t for t in gather(folder, backtest=backtest).tracks if t.label["account"] not in SHADOWS]
        if len(mains) != 1:
            what = "nothing has been traded there yet" if not mains else f"{len(mains)} accounts, and one is wanted"
            raise Refused(f"{folder}: {what}")
        found[str(folder)] = mains[0]
    return found


def _beaten(tracks: dict[str, Track]) -> list[Paired]:
    """Every home against the first."""
    first, *others = tracks
    found = paired.against(tracks[first], {name: tracks[name] for name in others})
    return [msgspec.structs.replace(p, first=first) for p in found]


def _common(a: Track, b: Track) -> int:
    """Markets that both saw: the same id of the same name, for a simulated venue's ids are those of every seed."""
    return len({(i, q.name) for i, q in a.instruments.items()} & {(i, q.name) for i, q in b.instruments.items()})


def homes_lines(tracks: dict[str, Track]) -> list[str]:
    """Homes side by side, and each against the first."""
    details: dict[str, Account] = {name: account(t) for name, t in tracks.items()}
    lines = [f"{name}: {account_text.title(detail)}" for name, detail in details.items()]
    lines += ["", *account_text.beside(details)]
    base = next(iter(tracks.values()))
    for p in _beaten(tracks):
        other = tracks[p.second]
        common = _common(base, other)
        lines += ["", *paired.lines(p), f"  markets in common: {common} of {len(base.instruments)} and {len(other.instruments)}"]
        if not common:
            lines.append("  not the same market: this difference says nothing of the strategies")
    return lines


def homes_told(tracks: dict[str, Track]) -> dict[str, Any]:
    """The same as plain data."""
    base = next(iter(tracks.values()))
    accounts = {name: msgspec.to_builtins(account(t)) for name, t in tracks.items()}
    pairs = account_text.differences(_beaten(tracks))
    return {"homes": accounts, "compared": [p | {"common_markets": _common(base, tracks[p["second"]])} for p in pairs]}


# Files.


def tables(found: Found) -> dict[str, list[dict[str, Any]]]:
    """File name -> rows, all accounts of a home under one another."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for entry in found.entries:
        for name, told_rows in account_text.csv_tables(account(entry.track)).items():
            rows.setdefault(name, []).extend(told_rows)
    rows["compared"] = account_text.differences(compared(found.tracks))
    return rows


def page(found: Found) -> str:
    """The home as one page of HTML."""
    from llm_maker.report.html_page import page as html
    from llm_maker.report.html_plots import accounts_of

    ordered = sorted(found.tracks, key=lambda t: t.label["account"] in SHADOWS)
    pairs = []
    for main in [t for t in ordered if t.label["account"] not in SHADOWS]:
        beside = _shadows(main, ordered)
        base = beside.get(COPY, main)
        others = {name: beside[name] for name in (TWIN, PLACEBO) if name in beside}
        pairs += [(p, base, other) for p, other in zip(paired.against(base, others), others.values(), strict=True)]
    forecasts = [f for entry in found.entries if entry.scope.account not in SHADOWS for f in entry.forecasts]
    named = {each.name: account(each.track) for each in accounts_of(ordered)}
    return html(ordered, extras(named, pairs, forecasts, __version__))
