"""What a process imports: help loads no SDK, and a daemon only that of the provider it asks."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_maker import cli
from llm_maker.keys import KEY_OF
from tests.fakes.models import THROWAWAY_KEY, ModelServer
from tests.slow import SMALL, single

ROOT = Path(__file__).parent.parent
SDKS = {"openai", "anthropic", "google.genai"}
HEAVY = SDKS | {
    "genai_prices",
    "numpy",
    "pandas",
    "scipy",
    "httpx2",
    "aiohttp",
    "web3",
    "eth_account",
    "textual",
    "apprise",
    "prometheus_client",
}
VERBS = sorted(str(c.name or getattr(c.callback, "__name__", "")) for c in cli.app.registered_commands)
ENV = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")} | {"PYTHONPATH": str(ROOT)}

ALL_HELP = f"""
import contextlib, io, json, sys
heavy = {sorted(HEAVY)!r}
found = {{}}
import llm_maker
found["import llm_maker"] = [name for name in heavy if name in sys.modules]
from llm_maker import cli
for verb in ["", *{VERBS!r}]:
    sys.argv = ["llm-maker", *([verb] if verb else []), "--help"]
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            cli.main()
    except SystemExit as stop:
        assert stop.code == 0 and "--help" in shown.getvalue(), verb
    found[verb or "--help"] = [name for name in heavy if name in sys.modules]
print(json.dumps(found))
"""
DAEMON = f"""
import json, sys
from pathlib import Path
from llm_maker import app
from llm_maker.config import load
from llm_maker.keys import Secrets
keys, overrides, home = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
daemon = app.Daemon(load(None, {{}}, overrides), Secrets(keys), home, app.Options(speed=60.0, until=50.0), print)
assert app.run(daemon)
told = daemon.result()
daemon.close()
print(json.dumps([told["decisions"], [name for name in {sorted(HEAVY)!r} if name in sys.modules]]))
"""


def imported(*args: str) -> set[str]:
    """Every module that `python -m llm_maker ARGS` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "llm_maker", *args], env=ENV, capture_output=True, text=True, check=True
    )
    found = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "llm_maker.cli" in found, "or nothing was seen"
    return found


def test_help_of_everything_loads_no_sdk():
    done = subprocess.run([sys.executable, "-c", ALL_HELP], env=ENV, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"import llm_maker", "--help", *VERBS} and len(VERBS) > 10
    assert {where: names for where, names in found.items() if names} == {}
    assert imported("--help") & HEAVY == set(), "as a process of its own"


@pytest.mark.prove
@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb_as_a_process_of_its_own(verb: str):
    assert imported(verb, "--help") & HEAVY == set()


async def run(home: Path, overrides: dict[str, object], keys: dict[str, str]) -> tuple[int, set[str]]:
    """A short daemon of its own: how often it decided, and what of the heavy it had imported in the end."""
    args = [json.dumps(keys), json.dumps(SMALL | overrides), str(home)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DAEMON, *args, env=ENV, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    decisions, names = json.loads(out.splitlines()[-1])
    return decisions, set(names)


@pytest.mark.parametrize(
    ("provider", "sdk"),
    [
        ("deepseek", "openai"),
        pytest.param("gemini", "google.genai", marks=pytest.mark.prove),
        pytest.param("anthropic", "anthropic", marks=pytest.mark.prove),
        pytest.param("openai", "openai", marks=pytest.mark.prove),
    ],
)
async def test_a_daemon_imports_the_sdk_of_its_provider_and_no_other(tmp_path: Path, provider: str, sdk: str):
    # Every key is there; it is the one that is named that counts.
    async with ModelServer() as server:
        decisions, names = await run(tmp_path, single(provider, server), dict.fromkeys(KEY_OF.values(), THROWAWAY_KEY))
    assert decisions > 0 and server.violations == []
    assert names & SDKS == {sdk} and "numpy" not in names


async def test_a_daemon_without_a_model_imports_none(tmp_path: Path):
    decisions, names = await run(tmp_path, {}, {})
    assert decisions > 0 and names & (SDKS | {"numpy", "genai_prices"}) == set(), "the simulated analyst is ours"
