"""What the daemon says when it starts: what is running, with whose money, and what to change next."""

from __future__ import annotations

from llm_maker import __version__
from llm_maker.app import Daemon
from llm_maker.config import rehearsal
from llm_maker.core.values import Mode


def banner(daemon: Daemon) -> list[str]:
    """What is running, and what to change next."""
    config, tape = daemon.config, daemon.options.tape
    feed = f"tape {tape.name}" if tape else f"simulated market, seed {config.seed}, {config.paper.markets} markets"
    if daemon.live is not None:
        feed = f"live data of {config.venue}" + (" (a rehearsal on this machine)" if rehearsal(config) else "")
    money = "PAPER money" if daemon.exchange else f"LIVE, REAL MONEY of {daemon.wallet}"
    lines = [
        f"llm_maker {__version__}: {money}, {feed}" + ("; no order leaves this machine" if daemon.exchange else ""),
        f"signals: {daemon.mind.text}",
    ]
    if daemon.provider in ("none", "simulated"):
        lines.append("next: put a model's key into .env (see .env.example), edit config.yaml; `llm-maker status` shows the rest")
    page = "`llm-maker page` (its link), " if config.console.http else ""
    lines.append(f"look: `llm-maker top`, {page}`llm-maker why MARKET`; stop: Ctrl-C or `llm-maker kill`")
    if daemon.resumed:
        lines.append(f"goes on where session {daemon.state.session} stopped")
    state = daemon.state
    why = [f"{name}: {halt.text}" for name, halt in state.halts.items()]
    if state.operator_mode is not Mode.ACTIVE:
        why.append(f"{state.operator_mode.value}, by the operator")
    if why:
        lines.append(f"NOT ACTIVE ({'; '.join(why)}): `llm-maker resume` when it is right")
    return lines
