"""deploy/: the unit as systemd reads it, the container's steps, the scripts, and a backup from which an account returns."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "llm-maker.service"
SCRIPTS = sorted(DEPLOY.glob("*.sh"))
EXPOSURE = 20
"""systemd's own score of what a unit leaves open, in tenths: 0 nothing, 100 everything."""


def wants(tool: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not here")
    return found


def ran(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)


# The unit.


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path):
    analyze = wants("systemd-analyze")
    program = tmp_path / "llm-maker"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("/opt/llm-maker/.venv/bin/llm-maker", str(program))
    assert str(program) in text
    (tmp_path / "llm-maker.service").write_text(text)
    done = ran(analyze, "verify", tmp_path / "llm-maker.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_leaves_little_open():
    analyze = wants("systemd-analyze")
    if "--offline" not in ran(analyze, "--help").stdout:
        pytest.skip("this systemd-analyze cannot judge a file")
    done = ran(analyze, "security", "--offline=true", f"--threshold={EXPOSURE}", UNIT)
    assert done.returncode == 0, done.stdout[-400:]
    loose = ran(analyze, "security", "--offline=true", "--threshold=1", UNIT)
    assert loose.returncode != 0, "the threshold is a threshold"


def test_the_unit_waits_for_a_stop_and_does_not_restart_what_would_fail_again():
    from llm_maker import app, seat

    unit = settings()
    longest = app.STOP_LIVE_SECONDS + app.EMERGENCY_SECONDS + seat.FAREWELL_SECONDS
    assert int(unit["TimeoutStopSec"][0]) > longest + 30, "time for the ledger to be written after it"
    assert int(yaml_of("compose.yaml")["services"]["llm-maker"]["stop_grace_period"].rstrip("s")) > longest + 30
    assert unit["Restart"] == ["on-failure"] and unit["RestartPreventExitStatus"] == ["2"]
    assert unit["Type"] == ["notify"] and int(unit["WatchdogSec"][0]) > 10 * seat.LOOK_SECONDS
    assert unit["KillSignal"] == ["SIGTERM"] and signal.SIGTERM in app._stop_signals()
    assert unit["StartLimitBurst"] and unit["LimitCORE"] == ["0"]


def test_the_units_command_is_one_of_ours():
    import typer.main

    from llm_maker.cli import app

    words = shlex.split(settings()["ExecStart"][0])
    verbs: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    known = {name for parameter in verbs[words[1]].params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    for command in (["ENTRYPOINT", "CMD"], ["HEALTHCHECK"]):
        typed = [word for name in command for step in steps() if step[0] == name for word in exec_form(step[1])]
        assert typed[0] == "llm-maker" and typed[1] in verbs
        assert {w for w in typed[2:] if w.startswith("--")} <= {n for p in verbs[typed[1]].params for n in p.opts}


# The container.


def yaml_of(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def steps() -> list[tuple[str, str]]:
    """Instructions in order, with their words; a line that ends in a backslash goes on."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip() and line[0] != "#"]


def exec_form(words: str) -> list[str]:
    found = json.loads(words[words.index("[") :])
    assert isinstance(found, list) and all(isinstance(word, str) for word in found)
    return found


def test_the_image_is_pinned_small_and_not_root():
    made = steps()
    bases = [words.split()[0] for name, words in made if name == "FROM"]
    assert len(bases) == 2 and all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)
    last = [name for name, _ in made][len(made) - [n for n, _ in reversed(made)].index("FROM") :]
    assert "USER" in last and last.index("USER") < last.index("ENTRYPOINT")
    users = [words for name, words in made if name == "USER"]
    assert users and all(re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user) for user in users)
    assert not [name for name, _ in made if name in ("ADD", "ARG", "ONBUILD", "MAINTAINER")]
    assert [exec_form(words) for name, words in made if name in ("ENTRYPOINT", "CMD")] == [["llm-maker"], ["run"]]
    assert ("STOPSIGNAL", "SIGTERM") in made


def test_no_secret_and_no_index_address_is_in_the_image():
    from llm_maker.keys import SECRET_NAMES

    text = (DEPLOY / "Dockerfile").read_text() + (DEPLOY / "compose.yaml").read_text()
    assert not [name for name in SECRET_NAMES if name in text]
    assert "://" not in text
    assert all("--constraint constraints.txt" in words for name, words in steps() if name == "RUN" and "pip install" in words)


def test_what_is_copied_is_let_into_the_build_and_nothing_else_is():
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert rules[0] == "*", "everything is left out first"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        word.removeprefix("./")
        for name, words in steps()
        if name == "COPY" and "--from" not in words
        for word in words.split()[:-1]
    }
    assert let_in == copied and all((ROOT / name).exists() for name in copied)
    names = [name for name, words in steps() if name in ("COPY", "RUN") and "--from" not in words]
    assert names.index("COPY") < len(names) - 1, "it is copied before it is installed"


def test_the_package_takes_all_its_files_along():
    """The checkout is used in place elsewhere; the image installs it, and what setuptools is not told of is left behind."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    files = [path for path in (ROOT / "llm_maker").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    left = [path for path in files if path.suffix != ".py" and not any(fnmatch.fnmatch(path.name, p) for p in patterns)]
    assert not left, left
    assert all((path.parent / "__init__.py").exists() for path in files), "and each lies in a package"


def test_the_composed_container_is_closed():
    from llm_maker.config import Config
    from llm_maker.config_text import keys_of

    service = yaml_of("compose.yaml")["services"]["llm-maker"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"] and service["ulimits"] == {"core": 0}
    assert service["mem_limit"] and service["pids_limit"] and "privileged" not in service and service["restart"] != "always"
    assert service["ports"] == ["127.0.0.1:8787:8787"], "on the host's loopback alone, the same number on both sides"
    for name in service["environment"]:
        assert name.removeprefix("LLM_MAKER__").lower().replace("__", ".") in dict(keys_of(Config))
    assert service["user"] == next(words for name, words in steps() if name == "USER")


def test_a_browser_on_the_host_is_served_through_the_published_port():
    """In the container the server is bound to all addresses; the browser calls it by the host's loopback."""
    from llm_maker.console.http_guard import Denied, Guard
    from llm_maker.console.http_keys import Keys

    guard = Guard(Keys("THROWAWAY-" + "a" * 20, "THROWAWAY-" + "b" * 20), "0.0.0.0", 8787, ())
    guard.check_place({"host": "127.0.0.1:8787", "origin": "http://127.0.0.1:8787", "sec-fetch-site": "same-origin"}, page=False)
    with pytest.raises(Denied):
        guard.check_place({"host": "rebound.example:8787"}, page=False)


# The scripts.


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_shellcheck_is_content(script: Path):
    done = ran(wants("shellcheck"), script)
    assert done.returncode == 0, done.stdout
    assert script.read_text().startswith("#!/bin/sh\n") and os.access(script, os.X_OK)


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A daemon that runs, two backups of it while it does, and what its ledger said before and after them."""
    home, to = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("backups")
    (home / ".env").write_text("OPENAI_API_KEY=THROWAWAY-not-a-key-0000\n")
    (home / "config.yaml").write_text("paper: {markets: 3}\nllm: {provider: none}\n")
    command = [sys.executable, "-m", "llm_maker", "--home", str(home), "--config", str(home / "config.yaml"), "--speed", "60"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + 60
            while not fills(home) and time.monotonic() < deadline:
                time.sleep(0.05)
            (home / "positions" / "http_key").write_text("THROWAWAY-page-key-000000000000")
            before = fills(home)
            done = ran(DEPLOY / "backup.sh", home, to, "3")
            after = fills(home)
            running = daemon.poll() is None
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(60) == 0
        finally:
            daemon.kill()
    yield {"home": home, "to": to, "done": done, "before": before, "after": after, "running": running}


def fills(home: Path) -> list[tuple[Any, ...]]:
    path = home / "positions" / "ledger.sqlite3"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as ledger:
        try:
            columns = "account, fill_id, order_id, qty, price, cash_after, position_after"
            return ledger.execute(f"SELECT {columns} FROM fills ORDER BY account, seq").fetchall()
        except sqlite3.OperationalError:  # the tables are still to be made
            return []


def test_a_backup_is_whole_and_holds_no_secret(backed_up: dict[str, Any]):
    done, to = backed_up["done"], backed_up["to"]
    assert (done.returncode, done.stderr) == (0, "") and backed_up["running"]
    backup = Path(done.stdout.strip())
    assert [backup] == list(to.iterdir())
    files = {path.relative_to(backup).as_posix(): path for path in backup.rglob("*") if path.is_file()}
    sums = dict(reversed(line.split("  ")) for line in (backup / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if name != "SHA256SUMS"}
    assert {"config.yaml", "positions/ledger.sqlite3"} < set(files) and any("journal-main" in name for name in files)
    assert all(path.stat().st_mode & 0o077 == 0 for path in files.values())
    assert not any(b"THROWAWAY" in path.read_bytes() for path in files.values())
    kept = fills(backup)
    assert set(backed_up["before"]) <= set(kept) <= set(fills(backed_up["home"])) and backed_up["before"]


@pytest.mark.prove
def test_a_restored_account_comes_back_and_nothing_is_doubled(backed_up: dict[str, Any], tmp_path: Path):
    backup, home = Path(backed_up["done"].stdout.strip()), tmp_path / "new"
    assert ran(DEPLOY / "restore.sh", backup, home).returncode == 0
    kept = fills(backup)
    command = ["--home", home, "--config", home / "config.yaml", "--speed", "0", "--until", "60", "--json"]
    done = ran(sys.executable, "-m", "llm_maker", "run", *command)
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0 and told["resumed"] and told["clean_stop"] and told["session"] > 1_000
    now = fills(home)
    assert len(now) == len({row[:2] for row in now}), "each fill once for each account"
    for account in {row[0] for row in kept}:
        old, new = ([row for row in rows if row[0] == account] for rows in (kept, now))
        assert new[: len(old)] == old, "what the ledger knew is there unchanged, and the rest follows it"
    # The journal knows as much as the ledger: made anew from it, the ledger says the same of the days it covers.
    assert (
        ran(sys.executable, "-m", "llm_maker", "replay", next((home / "logs" / "journal").rglob("journal-main-*"))).returncode == 0
    )


def test_restore_overwrites_nothing_and_refuses_what_is_damaged(backed_up: dict[str, Any], tmp_path: Path):
    backup = Path(backed_up["done"].stdout.strip())
    refused = ran(DEPLOY / "restore.sh", backup, backed_up["home"])
    assert refused.returncode == 2 and "is there already" in refused.stderr
    broken = tmp_path / "broken"
    shutil.copytree(backup, broken)
    with (broken / "positions" / "ledger.sqlite3").open("r+b") as file:
        file.seek(2_000)
        file.write(b"?")
    refused = ran(DEPLOY / "restore.sh", broken, tmp_path / "home")
    assert refused.returncode == 1 and "damaged" in refused.stderr and not (tmp_path / "home").exists()


def test_the_oldest_backups_go_and_nothing_of_others(backed_up: dict[str, Any], tmp_path: Path):
    old = [tmp_path / f"llm-maker-2020010{day}T000000Z" for day in range(1, 5)]
    for folder in [*old, tmp_path / "llm-maker-mine", tmp_path / "photos"]:
        folder.mkdir()
    done = ran(DEPLOY / "backup.sh", backed_up["home"], tmp_path, "2")
    made = Path(done.stdout.strip())
    assert {path.name for path in tmp_path.iterdir()} == {made.name, old[3].name, "llm-maker-mine", "photos"}


@pytest.mark.parametrize(
    ("args", "says"), [(["x"], "usage"), (["{home}", "to", "0"], "KEEP is 0"), (["{home}/no", "to"], "no home")]
)
def test_a_backup_that_cannot_be_is_one_line_and_exit_2(backed_up: dict[str, Any], tmp_path: Path, args: list[str], says: str):
    done = ran(DEPLOY / "backup.sh", *[word.format(home=backed_up["home"]) for word in args], cwd=tmp_path)
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


# The audit of what we depend on.


@pytest.mark.parametrize(
    ("says", "code", "shown"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 packages, 0 known holes"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2"]}]}]}',
            1,
            "a 1: X-1; mended in 2",
        ),
        ('{"dependencies": [{"name": "a", "skip_reason": "not there"}]}', 0, "audit skipped: no index"),
        ("", 0, "audit skipped: no index"),
        ("Traceback", 0, "audit skipped: no index"),
    ],
)
def test_the_audit_tells_a_hole_from_an_index_that_is_not_there(says: str, code: int, shown: str):
    done = ran(sys.executable, DEPLOY / "audit.py", "echo", says)
    assert done.returncode == code and shown in done.stdout


def test_the_audit_is_part_of_check_and_never_of_test():
    rules = dict(re.findall(r"^(\w+): .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert "deploy/audit.py" in rules["check"] and "audit" not in rules["test"]


# The container's steps, without an engine.


@pytest.mark.prove
@pytest.mark.timeout(1_200)
def test_the_containers_steps_make_a_daemon_that_is_healthy(tmp_path: Path):
    """RUN, COPY, ENV, WORKDIR, HEALTHCHECK, ENTRYPOINT and CMD, done in a folder that stands for the container's root."""
    if shutil.which("docker") and ran("docker", "info").returncode == 0:
        done = ran("docker", "build", "--file", DEPLOY / "Dockerfile", "--tag", "llm-maker-test", ROOT)
        assert done.returncode == 0, done.stderr[-2_000:]
    image = Image(tmp_path / "root")
    for name, words in steps():
        image.step(name, words)
    daemon = image.start([*image.entrypoint, *image.command, "--speed", "20"])
    try:
        deadline, well = time.monotonic() + 90, False
        while not well and time.monotonic() < deadline:
            time.sleep(1)
            assert daemon.poll() is None, image.said.read_text()[-2_000:]
            well = ran(*image.health, env=image.environ, cwd=image.at).returncode == 0
        assert well
        installed = image.at.parent / "opt/llm-maker/lib"
        page = next(installed.glob("python3.*/site-packages/llm_maker/console/page"))
        assert any(page.glob("*.html")), "the package's other files came along"
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(60) == 0
    finally:
        daemon.kill()
        daemon.wait()
    assert ran(*image.health, env=image.environ, cwd=image.at).returncode != 0, "and unhealthy once it is gone"


class Image:
    """A folder in place of a container's file system. Users and owners are left out: they want root."""

    def __init__(self, root: Path) -> None:
        self.root, self.at = root, root
        self.environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(root / "data"), "LC_ALL": "C.UTF-8"}
        self.environ |= {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_proxy")}
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self.health: list[str] = []
        root.mkdir()
        self.said = root / "said.txt"

    def inside(self, text: str) -> str:
        """Absolute places of the image, in our folder."""
        return re.sub(r"(?<![\w/.-])/(build|opt|data)\b", lambda found: f"{self.root}/{found[1]}", text)

    def step(self, name: str, words: str) -> None:
        match name:
            case "WORKDIR":
                self.at = Path(self.inside(words))
                self.at.mkdir(parents=True, exist_ok=True)
            case "ENV":
                for pair in words.split():
                    key, _, value = pair.partition("=")
                    self.environ[key] = self.inside(value) + (":" + self.environ["PATH"] if key == "PATH" else "")
            case "COPY" if "--from" not in words:
                *sources, target = words.split()
                for source in sources:
                    to = self.at / target / (source if len(sources) > 1 else "")
                    shutil.copytree(ROOT / source, to) if (ROOT / source).is_dir() else shutil.copy(ROOT / source, to)
            case "RUN" if "useradd" not in words:
                line = re.sub(r"&& chown \S+ \S+", "", self.inside(words))
                done = ran("sh", "-euc", line, cwd=self.at, env=self.environ)
                assert done.returncode == 0, done.stderr[-2_000:]
            case "HEALTHCHECK":
                self.health = exec_form(words)
            case "ENTRYPOINT":
                self.entrypoint = exec_form(words)
            case "CMD":
                self.command = exec_form(words)
        for command in (self.health, self.entrypoint):
            if command and "/" not in command[0]:
                command[0] = str(self.root / "opt/llm-maker/bin" / command[0])

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.said.open("wb") as said:
            return subprocess.Popen(command, cwd=self.at, env=self.environ, stdout=said, stderr=said)
