"""This machine and this process as `doctor` looks at them: versions, limits, memory, the page's place, what a crash would leave.

Nothing here asks a network or changes anything.
"""

from __future__ import annotations

import errno
import importlib.metadata
import math
import os
import re
import resource
import socket
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from llm_maker.alert_checkup import alert_fault, chat_fault
from llm_maker.checkup import Check
from llm_maker.config import Config
from llm_maker.keys import SECRET_NAMES, Secrets
from llm_maker.sense import suspicions
from llm_maker.wizard_text import shipped

OLDEST_PYTHON = (3, 11)
MEGABYTE = 1_000_000
BASE_MB, MARKET_MB = 120.0, 0.15
"""What a daemon takes, and what each market adds, twins and page included; generous beside `make bench`."""
OWN_FILES = 128
"""Descriptors that a daemon needs beside its sockets: logs, journal, ledger, page."""
PORTS_TRIED = 20
NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs"}
)
KEY_FILES = ("http_key", "http_read_key")
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def machine(config: Config, home: Path, *, running: bool) -> list[Check]:
    """All of it; `running`: a daemon works on this home, so the page's port is its own."""
    return [
        python(),
        packages(),
        files(config),
        memory(config),
        page(config, running=running),
        page_keys(home),
        logs(config),
        *(safety() if config.mode == "live" else ()),
    ]


def python(version: tuple[int, int, int] = sys.version_info[:3]) -> Check:
    """Old ones are refused by the installer; a checkout may be started with any."""
    text = ".".join(map(str, version))
    if version[:2] < OLDEST_PYTHON:
        return Check("python", "failed", f"Python {text}", "install Python 3.11 or newer, and the program with it")
    if sys.flags.optimize:
        return Check(
            "python", "failed", f"Python {text} runs with -O: assertions, which stop a broken run, are off", "start it without -O"
        )
    return Check("python", "ok", f"Python {text}")


def packages() -> Check:
    """What is installed against what was tested together."""
    pins = dict(line.split("==", 1) for line in shipped("txt").splitlines() if "==" in line and not line.startswith("#"))
    try:
        wanted = [_package(each) for each in importlib.metadata.requires("llm_maker") or () if "extra ==" not in each]
    except importlib.metadata.PackageNotFoundError:
        wanted = list(pins)
    drift, compared = [], 0
    for name in wanted:
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        compared += 1
        if name in pins and found != pins[name]:
            drift.append(f"{name} {found}, tested with {pins[name]}")
    if drift:
        cure = "pip install -c constraints.txt, or `make install` in the program's folder"
        return Check("packages", "warning", f"{len(drift)} of {compared}: {'; '.join(drift[:3])}", cure)
    return Check("packages", "ok", f"{compared} packages are of the versions that were tested together")


def _package(requirement: str) -> str:
    return re.split(r"[ ;<>=!~\[]", requirement)[0].lower().replace("_", "-")


def files(config: Config) -> Check:
    """Descriptors against sockets, and what shares the process with them."""
    markets = config.market_selection.max_markets if config.venue == "polymarket" else 0
    # Two tokens a market; at its renewal a connection stands beside the one that replaces it.
    sockets = 2 * math.ceil(2 * markets / config.polymarket.assets_per_socket) + 20
    needed, soft = OWN_FILES + sockets, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft != resource.RLIM_INFINITY and soft < needed:
        cure = f"ulimit -n {max(1024, needed)} before it starts (LimitNOFILE= in a unit)"
        return Check("open files", "warning", f"{soft} may be open, {needed} may be needed", cure)
    return Check(
        "open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"{soft} may be open, {needed} may be needed"
    )


def memory(config: Config) -> Check:
    markets = config.paper.markets if config.venue == "simulated" else config.market_selection.max_markets
    needed, free = BASE_MB + MARKET_MB * markets, _free_mb()
    if free is None:
        return Check("memory", "skipped", "this system does not tell what is free")
    text = f"{free:,.0f} MB free; {markets} markets take about {needed:,.0f} MB"
    if free < needed:
        name = "paper.markets" if config.venue == "simulated" else "market_selection.max_markets"
        return Check("memory", "warning", text, f"lower {name}, or take a larger machine")
    return Check("memory", "ok", text)


def _free_mb() -> float | None:
    """What the kernel says can be had, and no more than this group's limit leaves."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    if found is None:
        return None
    free = int(found[1]) * 1024 / MEGABYTE
    try:
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}").read_text(encoding="ascii").strip() for name in ("max", "current"))
    except OSError:
        return free
    return min(free, (int(limit) - int(used)) / MEGABYTE) if limit.isdecimal() and used.isdecimal() else free


def page(config: Config, *, running: bool) -> Check:
    """Whether the page finds its place; trading goes on without it."""
    console = config.console
    if not console.http:
        return Check("page port", "ok", "off (console.http)")
    if running:
        return Check("page port", "ok", "`llm-maker page` prints the link of the daemon that is at work")
    first = console.http_port
    ports = [first] if first == 0 else range(first, min(65_535, first + PORTS_TRIED) + 1)
    for port in ports:
        fault = _bindable(console.http_host, port)
        if fault == errno.EADDRINUSE or (fault == errno.EACCES and port < 1_024):
            continue
        if fault:
            return Check(
                "page port",
                "warning",
                f"{console.http_host} is no address of this machine: no page",
                "set console.http_host: 127.0.0.1",
            )
        place = f"http://{console.http_host}:{port}" if port else f"http://{console.http_host}, at any free port"
        if console.http_host not in LOOPBACK:
            cure = "set console.http_host: 127.0.0.1 and come by a tunnel; docs/security.md"
            return Check("page port", "warning", f"{place} is open to whoever reaches this machine, without encryption", cure)
        return Check("page port", "ok", place + ("" if port == first else f" ({first} is taken)"))
    return Check("page port", "warning", f"no port of {first} to {ports[-1]} is free: no page", "set console.http_port: 0")


def _bindable(host: str, port: int) -> int:
    """0, or why not."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return 0


def page_keys(home: Path) -> Check:
    """Whoever reads the page's key can stop the daemon."""
    there = [path for path in (home / "positions" / name for name in KEY_FILES) if path.exists()]
    open_ones = [path for path in there if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if open_ones:
        text = f"{' and '.join(map(str, open_ones))} can be read by others"
        return Check("page keys", "warning", text, f"chmod 600 {' '.join(map(str, open_ones))}")
    return Check("page keys", "ok", "yours alone" if there else "made at the first start, for you alone")


def logs(config: Config) -> Check:
    if config.logging.level == "error":
        return Check("logs", "warning", "warnings are not written down (logging.level is error)", "set logging.level: info")
    return Check("logs", "ok", f"from {config.logging.level} on")


def safety() -> Iterator[Check]:
    """What real money wants of a process: no dump of its memory with the key in it, and no more rights than it needs."""
    if resource.getrlimit(resource.RLIMIT_CORE)[0] and sys.platform == "linux":
        yield Check("core dumps", "ok", "allowed in this shell; the daemon switches them off for itself when it starts")
    elif resource.getrlimit(resource.RLIMIT_CORE)[0]:
        text = "a crash may write the memory, and the key in it, to the disk"
        yield Check("core dumps", "warning", text, "ulimit -c 0 before it starts (LimitCORE=0 in a unit)")
    else:
        yield Check("core dumps", "ok", "off: a crash leaves no memory on the disk")
    if os.geteuid() == 0:
        yield Check("user", "warning", "it would run as root", "run it as a user of its own: see deploy/")
    else:
        yield Check("user", "ok", "not root")


def network_disk(place: Path, mounts: str | None = None) -> str:
    """The kind of network filesystem that a folder stands on, or nothing: locks and the ledger want a local one."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    best, kind = "", ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if len(point) >= len(best) and place.absolute().is_relative_to(point):
            best, kind = point, fields[2]
    return kind if kind in NETWORK_FILESYSTEMS else ""


# What the config and the secrets say.


def judged(config: Config, secrets: Secrets, *, asked: bool) -> list[Check]:
    """Numbers that make no sense, alarms that reach nobody, a comparison that is off; `asked`: a model would be."""
    return [risk(config), budget(config, asked=asked), twin(config, asked=asked), alerts(config, secrets)]


def risk(config: Config) -> Check:
    found = suspicions(config)
    if found:
        return Check("risk", "warning", "; ".join(text for text, _ in found), "; ".join(cure for _, cure in found))
    return Check("risk", "ok", "the limits go together")


def budget(config: Config, *, asked: bool) -> Check:
    llm = config.llm
    if not asked:
        return Check("budget", "ok", "no model is asked")
    if llm.daily_budget_usd == 0:
        return Check(
            "budget",
            "warning",
            "a model is set and may cost nothing (llm.daily_budget_usd is 0): it is never asked",
            "set llm.daily_budget_usd: 5",
        )
    if llm.daily_budget_usd < llm.unknown_call_usd:
        text = f"a day's budget (${llm.daily_budget_usd:g}) pays for no call of unknown price (llm.unknown_call_usd)"
        return Check("budget", "warning", text, f"set llm.daily_budget_usd: {max(5.0, 20 * llm.unknown_call_usd):g}")
    return Check("budget", "ok", f"${llm.daily_budget_usd:,.2f} a day for all models")


def twin(config: Config, *, asked: bool) -> Check:
    if not config.twin.enabled and asked:
        return Check("twin", "warning", "no twin runs beside: what the model is worth will not be known", "set twin.enabled: true")
    return Check("twin", "ok", "runs beside" if config.twin.enabled else "off (twin.enabled)")


def alerts(config: Config, secrets: Secrets) -> Check:
    urls = secrets.get("LLM_MAKER_ALERT_URLS") or ""
    fault = alert_fault(urls)
    if fault:
        return Check(
            "alert urls", "failed", fault, "correct LLM_MAKER_ALERT_URLS in .env: ntfy://..., tgram://TOKEN/CHAT, mailto://..."
        )
    text, cure = chat_fault(config, secrets)
    if text:
        return Check("alert urls", "failed", text, cure)
    if not urls:
        if config.mode == "live":
            return Check(
                "alert urls", "warning", "real money, and nobody is told when it halts", "put LLM_MAKER_ALERT_URLS into .env"
            )
        return Check("alert urls", "ok", "sent nowhere; they stand in logs/daemon.jsonl")
    return Check("alert urls", "ok", f"{len(urls.split())} to send to, from {config.alerts.level} on")


def unknown_names(names: Sequence[str]) -> list[str]:
    """Names of an .env that look like ours and are not: nobody reads them."""
    ours = [name for name in names if re.fullmatch(r"LLM_MAKER_[A-Z0-9_]+|[A-Z0-9]+_API_KEY", name)]
    return [name for name in ours if name not in SECRET_NAMES and not name.startswith("LLM_MAKER__")]
