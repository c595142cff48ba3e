"""The verb `report`: what made or lost the money, as text, JSON, CSV or a page; of a home, of several, of a file of forecasts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_maker.cli_shared import BAD_USAGE, FAILED, HERE, AsJson, Home, fail, faults

app = typer.Typer()


@app.command()
def report(
    homes: Annotated[
        list[Path] | None, typer.Argument(metavar="[DIR1 DIR2...]", help="Compare these homes, each against the first.")
    ] = None,
    home: Home = HERE,
    backtest: Annotated[bool, typer.Option("--backtest", help="Of the last backtest in this home.")] = False,
    signals: Annotated[bool, typer.Option("--signals", help="What following the model's signals would have brought.")] = False,
    fills: Annotated[bool, typer.Option("--fills", help="Simulated against live fills, where both exist.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots, which needs no network.")] = None,
    csv_dir: Annotated[Path | None, typer.Option("--csv", metavar="DIR", help="Write the tables as CSV files.")] = None,
    forecasts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Score forecasts: JSONL or CSV of question_id, model, p, market_p, outcome, ts."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --forecasts: of the intervals' dice; 0 if left out.")] = None,
    bootstrap: Annotated[int | None, typer.Option(metavar="N", help="With --forecasts: resamples; 2000 if left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """What made or lost the money on this home, to the cent; who beat whom; how good a file of forecasts was."""
    modes = {"--signals": signals, "--fills": fills, "--forecasts": forecasts is not None, "DIR1 DIR2": bool(homes)}
    chosen = [name for name, on in modes.items() if on]
    if len(chosen) > 1:
        fail(f"{chosen[0]} and {chosen[1]} exclude one another", BAD_USAGE)
    files = {"--html": html is not None, "--csv": csv_dir is not None, "--backtest": backtest and (fills or forecasts is not None)}
    extra = [name for name, on in files.items() if on]
    if chosen and extra:
        fail(f"{extra[0]} goes with the report of a home, not with {chosen[0]}", BAD_USAGE)
    if forecasts is not None:
        _report_forecasts(forecasts, 0 if seed is None else seed, 2_000 if bootstrap is None else bootstrap, as_json)
    elif seed is not None or bootstrap is not None:
        fail(f"--{'seed' if seed is not None else 'bootstrap'} goes with --forecasts FILE", BAD_USAGE)
    elif homes:
        _report_homes(homes, backtest, as_json)
    elif signals:
        _report_signals(home, backtest, as_json)
    elif fills:
        _report_fills(home, as_json)
    else:
        _report_home(home, backtest, html, csv_dir, as_json)


def _report_home(home: Path, backtest: bool, html: Path | None, csv_dir: Path | None, as_json: bool) -> None:
    from llm_maker import home_report

    with faults():
        found = home_report.gather(home, backtest=backtest, samples=html is not None, forecasts=html is not None)
        if not found.entries:
            what = "no backtest has been run here" if backtest else "nothing has been traded here"
            fail(f"{home}: {what} yet; `llm-maker {'backtest --tape FILE' if backtest else 'run'}` first", FAILED)
        wrote = []
        if html is not None:
            _put(html, home_report.page(found))
            wrote.append(str(html))
        if csv_dir is not None:
            wrote += _write_csv(csv_dir, home_report.tables(found))
        if as_json:
            print(json.dumps(home_report.told(found), allow_nan=False))
        elif wrote:
            print("\n".join(f"wrote {name}" for name in wrote))
        else:
            print("\n".join(home_report.report_lines(found)))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_csv(folder: Path, tables: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One file a table; an empty cell is what is not known."""
    folder.mkdir(parents=True, exist_ok=True)
    wrote = []
    for name, rows in tables.items():
        path = folder / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            names = list(dict.fromkeys(key for row in rows for key in row))
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        wrote.append(str(path))
    return wrote


def _report_homes(homes: list[Path], backtest: bool, as_json: bool) -> None:
    from llm_maker import home_report

    if len(homes) < 2:
        fail(f"one home alone is reported with --home {homes[0]}; to compare, name two or more", BAD_USAGE)
    if len({path.resolve() for path in homes}) < len(homes):
        fail("one home is named twice; its difference to itself is 0", BAD_USAGE)
    with faults():
        tracks = home_report.homes(homes, backtest=backtest)
        if as_json:
            print(json.dumps(home_report.homes_told(tracks), allow_nan=False))
        else:
            print("\n".join(home_report.homes_lines(tracks)))


def _report_signals(home: Path, backtest: bool, as_json: bool) -> None:
    import msgspec

    from llm_maker import home_report

    with faults():
        found = home_report.signals(home, backtest=backtest)
    if not found:
        fail(f"{home}: no model has said anything here yet", FAILED)
    if as_json:
        accounts = [each.label | {"groups": msgspec.to_builtins(each.groups)} for each in found]
        print(json.dumps({"accounts": accounts}, allow_nan=False))
    else:
        print("\n".join(home_report.signals_lines(found)))


def _report_fills(home: Path, as_json: bool) -> None:
    import msgspec

    from llm_maker import home_report
    from llm_maker.report import fill_check

    with faults():
        found = home_report.fills(home)
    if as_json:
        print(json.dumps(msgspec.to_builtins(found, str_keys=True), allow_nan=False))
    else:
        print("\n".join(fill_check.lines(found)))


def _report_forecasts(path: Path, seed: int, resamples: int, as_json: bool) -> None:
    import msgspec

    from llm_maker.report import forecast, forecast_file, forecast_page

    if seed < 0:
        fail(f"--seed is {seed}; must be from 0", BAD_USAGE)
    if not 200 <= resamples <= 100_000:
        fail(f"--bootstrap is {resamples}; must be from 200 to 100000", BAD_USAGE)
    with faults():
        found = forecast.score(forecast_file.read(path), seed, resamples)
    if not found.models:
        fail(forecast_page.nothing_yet(found, str(path)), FAILED)
    if as_json:
        print(json.dumps({"file": str(path), **msgspec.to_builtins(found)}, allow_nan=False))
    else:
        for line in forecast_page.page(found, str(path)):
            print(line)
