"""The strategy of docs/strategy.md is what its page says: it quotes, waits, keeps its cap, replays, and its own test passes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from llm_maker import trial
from llm_maker.config import load
from llm_maker.core.engine import checkpoint, restore
from llm_maker.core.values import Side
from llm_maker.strategy.params import MakerParams
from llm_maker.venues.paper.market import MarketParams
from tests.core.builders import SHARE, Rig

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "strategy.md").read_text(encoding="utf-8")
EXAMPLE, OWN_TEST = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
DIFFS = re.findall(r"`(llm_maker/\w+\.py)`:\n\n```diff\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def module() -> Any:
    made: Any = ModuleType("llm_maker.strategy.patient")
    sys.modules[made.__name__] = made
    exec(compile(EXAMPLE, "docs/strategy.md", "exec"), made.__dict__)
    yield made
    del sys.modules[made.__name__]


def test_the_test_on_the_page_passes(module):
    scope: dict[str, Any] = {"Patient": module.Patient}
    exec(compile(OWN_TEST, "docs/strategy.md", "exec"), scope)
    (name,) = [name for name in scope if name.startswith("test_")]
    scope[name]()


def test_it_quotes_and_trades_on_a_simulated_market(module, monkeypatch):
    monkeypatch.setitem(trial.STRATEGIES, "patient", module.Patient())
    config = load(None, {}, {})
    config = config.model_copy(update={"strategy": config.strategy.model_copy(update={"name": "patient"})})
    track = trial.run_simulated(config, market=MarketParams(seed=5, markets=1, activity=60.0), days=0.05)
    assert track.counts["placed"] > 20 and track.fills
    assert {fill.reason for fill in track.fills if not fill.reason.startswith("exit: ")} == {"patient"}


def test_it_stays_within_the_cap_and_out_of_one_sided_books(module):
    rig = Rig(strategy=module.Patient(), wants=MakerParams(), max_position_milli=60_000).start()
    rig.hold(Side.BUY, 5_000, 58 * SHARE)
    rig.run(70)
    assert not rig.live(Side.BUY), "less than the smallest order is left of the cap"
    assert rig.one(Side.SELL).price == rig.market().book.best_ask
    rig.book(bids=((4_900, 500 * SHARE),), asks=())
    assert rig.market().own.note == "one-sided book"


def test_its_state_outlives_a_restart(module):
    rig = Rig(strategy=module.Patient(), wants=MakerParams()).start()
    own = rig.market().own
    assert own.mid2 and own.moved_ns
    assert msgspec.to_builtins(restore(checkpoint(rig.state), rig.strategy).markets["m"].own) == msgspec.to_builtins(own)


def test_what_the_page_changes_is_there_to_be_changed():
    assert [path for path, _ in DIFFS] == ["llm_maker/app.py", "llm_maker/config_strategy.py"]
    for path, diff in DIFFS:
        assert changed((ROOT / path).read_text(encoding="utf-8"), diff) != (ROOT / path).read_text(encoding="utf-8")


def changed(text: str, diff: str) -> str:
    """One line in place of another; what is imported besides goes behind the line that is told with it."""
    marked = {mark: [line[1:] for line in diff.splitlines() if line[0] == mark] for mark in " -+"}
    (gone,), *imports, instead = marked["-"], *marked["+"]
    assert text.count(gone + "\n") == 1
    for told, line in zip(marked[" "], imports, strict=True):
        assert text.count(told + "\n") == 1
        text = text.replace(told, f"{told}\n{line}")
    return text.replace(gone, instead)


@pytest.mark.prove
@pytest.mark.timeout(180)
def test_done_as_the_page_says_the_program_runs_it_and_its_journal_replays(tmp_path):
    shutil.copytree(ROOT / "llm_maker", tmp_path / "llm_maker", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "llm_maker" / "strategy" / "patient.py").write_text(EXAMPLE, encoding="utf-8")
    for path, diff in DIFFS:
        file = tmp_path / path
        file.write_text(changed(file.read_text(encoding="utf-8"), diff), encoding="utf-8")
    config = tmp_path / "patient.yaml"
    config.write_text("strategy: {name: patient}\nconsole: {http: false}\n", encoding="utf-8")
    home = tmp_path / "home"

    def verb(*words: str) -> str:
        command = [sys.executable, "-m", "llm_maker", *words]
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr
        return done.stdout

    verb("run", "--home", str(home), "--config", str(config), "--speed", "0", "--until", "1800")
    assert '"reason":"patient"' in (home / "logs" / "executions.jsonl").read_text(encoding="utf-8")
    verb("replay", str(home / "logs" / "journal" / "simulated-paper-paper"))
