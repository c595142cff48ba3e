"""`init`: a few questions -> config.yaml with its comments, and .env that nobody else can read.

It asks, checks and shows; nothing is written before the last yes, and then whole files or none. Secrets are typed unseen, checked
without a network, and go into .env alone. What is there already is the default of every question and is never lost.
"""

from __future__ import annotations

import difflib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from llm_maker import wizard_text
from llm_maker.alert_checkup import alert_fault
from llm_maker.config import Config, check_keys, check_run, load
from llm_maker.config_text import ConfigError, read_text
from llm_maker.keys import KEY_OF, Secrets, read_env
from llm_maker.sense import suspicions
from llm_maker.tuning import worst_cases

TRIES = 5
"""Wrong answers to one question, until the wizard ends."""
OWN_SERVERS = ("ollama", "vllm", "llamacpp")
PROVIDERS = ("auto", "none", "gemini", "anthropic", "openai", "deepseek", "xai", "openrouter", *OWN_SERVERS, "openai_compatible")
T = TypeVar("T")


class Terminal(Protocol):
    """A person, one question at a time."""

    def say(self, line: str = "") -> None: ...
    def ask(self, question: str, default: str, *, hidden: bool = False) -> str: ...
    def confirm(self, question: str, *, default: bool) -> bool: ...


class Chosen(msgspec.Struct, frozen=True):
    """What the questions led to. `config` is without the caps of live mode, as a file says it; `secrets` are the new ones alone."""

    config: Config
    secrets: dict[str, str]


class Standing(msgspec.Struct, frozen=True):
    """What is there before the first question."""

    home: Path
    config: Config
    """What the file says, or the defaults."""
    begin: Config
    """The same with what was given on the command line: where the questions begin."""
    env: dict[str, str]
    """The .env that a run would read, under the environment."""

    @property
    def file(self) -> Path:
        return self.home / "config.yaml"

    @property
    def env_file(self) -> Path:
        return self.home / ".env"

    def has(self, name: str) -> bool:
        return bool(self.env.get(name, "").strip())


def standing(home: Path, environ: Mapping[str, str], given: Mapping[str, Any] | None = None) -> Standing:
    """Read it; `given`: dotted keys of the command line. Raises `ConfigError` where a file is wrong, or the home cannot be one."""
    place = home.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"{place}: cannot be written; choose another --home")
    config = wizard_text.stands(home / "config.yaml")
    return Standing(home, config, with_changes(config, given or {}), read_env(_env_there(home), environ))


def _env_there(home: Path) -> Path:
    """The .env that counts for this home: its own, else the one here."""
    return home / ".env" if (home / ".env").exists() else Path(".env")


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with these dotted keys. Raises `ConfigError`, one line, where they cannot be so."""
    load(None, {}, wizard_text.leaves(config) | dict(changes))
    tree: dict[str, Any] = {}
    for key, value in (wizard_text.leaves(config) | dict(changes)).items():
        below, parts = tree, key.split(".")
        for part in parts[:-1]:
            below = below.setdefault(part, {})
        below[parts[-1]] = value
    return Config.model_validate(tree)


def in_force(config: Config) -> Config:
    """As a run would take it: live is capped."""
    return load(None, {}, wizard_text.leaves(config))


# The questions.


class Interview:
    """The questions in their order; each leaves its answer in `config` and `secrets`."""

    def __init__(self, terminal: Terminal, there: Standing) -> None:
        self._t, self._there = terminal, there
        self.config = there.begin
        self.secrets: dict[str, str] = {}

    def whole(self) -> Chosen:
        """All of them. Raises `ConfigError` where a person does not get on."""
        self._where()
        if self.config.mode == "live":
            self._wallet()
        self._model()
        self._bankroll()
        if self.config.venue != "simulated":
            self._markets()
        self._alarms()
        self._page()
        return Chosen(self.config, self.secrets)

    def _set(self, **changes: Any) -> None:
        self.config = with_changes(self.config, {key.replace("__", "."): value for key, value in changes.items()})

    def _until(self, question: str, default: str, check: Callable[[str], T], *, hidden: bool = False) -> T:
        """Ask until the answer is one; what is wrong with it is said."""
        for _ in range(TRIES):
            answer = self._t.ask(question, default, hidden=hidden).strip()
            try:
                return check(answer)
            except (ValueError, ConfigError) as error:
                self._t.say(f"  {error}")
        raise ConfigError(f"{question}: no answer that could be used, {TRIES} times; nothing was written")

    def _where(self) -> None:
        self._t.say("venue      simulated: a market that comes with the program; polymarket: live data (paper money needs no key)")
        venue = self._until("venue", self.config.venue, one_of(("simulated", "polymarket")))
        mode = "paper"
        if venue == "polymarket":
            self._t.say("mode       paper: nothing leaves this machine; live: REAL MONEY, needs the key of your account")
            mode = self._until("mode", self.config.mode, one_of(("paper", "live")))
        changes: dict[str, Any] = {"venue": venue, "mode": mode}
        if venue != "simulated" and self.config.llm.provider == "simulated":
            changes["llm__provider"] = "auto"  # it knows the simulated venue alone
        self._set(**changes)

    def _wallet(self) -> None:
        """Key and address, until they belong together."""
        from llm_maker.venues.polymarket.chain import wallets
        from llm_maker.venues.polymarket.orders.sign import Signer, checksum

        self._t.say(
            "wallet     the address that the site shows holds the money: a deposit wallet, proxy or Safe made from your key,"
        )
        self._t.say("           or the key's own. The private key signs for it; docs/polymarket.md tells where to export it.")
        for _ in range(TRIES):
            key = self._secret("LLM_MAKER_PK", "private key", _checked_key)
            address = self._secret("LLM_MAKER_BROWSER_ADDRESS", "address on the site", checksum, hidden=False)
            found = wallets.detect(Signer(key).address, address)
            if isinstance(found, wallets.Problem):
                self._t.say(f"  {found.text}: {found.cure}")
                continue
            self._t.say(f"  {found.maker} is this key's {wallets.kind_name(found.kind)}")
            if self.config.polymarket.signature_type not in ("auto", found.kind.name.lower()):
                self._set(polymarket__signature_type="auto")
            return
        raise ConfigError("the key and the address do not belong together; nothing was written")

    def _secret(self, name: str, what: str, check: Callable[[str], str], *, hidden: bool = True) -> str:
        """A secret that must be there: typed, or the one that is set already."""
        held = self.secrets.get(name) or self._there.env.get(name, "").strip()

        def checked(answer: str) -> str:
            if answer or not held:
                return check(answer)
            return check(held)

        told = f"{what} (typed unseen{'; Enter keeps the one that is set' if held else ''})" if hidden else what
        value = self._until(told, "" if hidden else held, checked, hidden=hidden)
        if value != held:
            self.secrets[name] = value
        return value

    def _model(self) -> None:
        llm = self.config.llm
        if llm.ensemble:
            self._t.say("model      an ensemble is named in the file; it stays")
            return
        without = "a simulated analyst" if self.config.venue == "simulated" else "plain rules"
        self._t.say(f"model      auto: the first whose key is set ({without} without any); none: plain rules; or one of")
        self._t.say("           gemini anthropic openai deepseek xai openrouter, or a server of yours: ollama vllm llamacpp")
        provider = self._until("model", llm.provider, one_of((*PROVIDERS, "simulated")))
        if provider == "simulated" and self.config.venue != "simulated":
            self._t.say("  that analyst knows the simulated venue alone: auto")
            provider = "auto"
        changes: dict[str, Any] = {"llm__provider": provider}
        if provider != llm.provider:
            changes |= {"llm__model": None, "llm__base_url": None}
            changes |= {"llm__price_per_million_input_usd": None, "llm__price_per_million_output_usd": None}
        if provider in (*OWN_SERVERS, "openai_compatible"):
            url = self._until("its address (http://...; Enter: the usual one)", llm.base_url or "", _url(provider))
            model = self._until("the model, as your server calls it", llm.model or "", _some_word)
            changes |= {"llm__base_url": url, "llm__model": model}
        elif provider in KEY_OF and not self._model_key(provider):
            self._t.say("  without its key: auto")
            changes["llm__provider"] = "auto"
        self._set(**changes)

    def _model_key(self, provider: str) -> bool:
        from llm_maker.llm.providers import PROVIDERS as KNOWN

        name, held = KEY_OF[provider], self._there.has(KEY_OF[provider])
        told = "Enter keeps the one that is set" if held else f"from {KNOWN[provider].key_url}; Enter: none"
        key = self._until(f"{name} (typed unseen; {told})", "", _checked_model_key, hidden=True)
        if key:
            self.secrets[name] = key
        return bool(key) or held

    def _bankroll(self) -> None:
        """What is put at work, until its limits in dollars are what a person wants."""
        live, cash = self.config.mode == "live", self.config.paper.cash_usd
        self._t.say("bankroll   what you are ready to put at work, USD" + ("" if live else f" (paper money, of ${cash:,.0f})"))
        for _ in range(TRIES):
            there = self.config.risk.bankroll_usd
            default = "" if there is None and live else f"{cash if there is None else there:.15g}"
            amount = self._until("bankroll", default, _dollars(None if live else cash))
            keep = not live and there is None and amount == cash
            self._set(risk__bankroll_usd=None if keep else amount)
            for line in limits(self.config):
                self._t.say(f"  {line}")
            # Paper money may be tried out; what real money can lose wants a yes of its own.
            if not live or self._t.confirm("are these limits what you want?", default=False):
                return
        raise ConfigError("no bankroll was agreed upon; nothing was written")

    def _markets(self) -> None:
        selection = self.config.market_selection
        self._t.say("markets    words of their questions, or their slugs, separated by commas; all: the best that the venue lists")
        listed = ", ".join(selection.include) if selection.select == "listed" else ""
        names = self._until("markets", listed or "all", lambda text: [each.strip() for each in text.split(",") if each.strip()])
        if names and names != ["all"]:
            self._set(market_selection__include=names, market_selection__select="listed")
        elif listed:
            self._set(market_selection__include=[], market_selection__select="all")

    def _alarms(self) -> None:
        held = self._there.has("LLM_MAKER_ALERT_URLS")
        self._t.say("alarms     to your phone by an apprise URL, such as ntfy://a-topic-of-yours or tgram://TOKEN/CHAT")
        told = "Enter keeps the one that is set" if held else "Enter: none"

        def checked(urls: str) -> str:
            fault = alert_fault(urls)
            if fault:
                raise ConfigError(fault)
            return urls

        urls = self._until(f"alarm URL (typed unseen; {told})", "", checked, hidden=True)
        if urls:
            self.secrets["LLM_MAKER_ALERT_URLS"] = urls

    def _page(self) -> None:
        console = self.config.console
        self._t.say(
            f"page       http://{console.http_host}:{console.http_port}, with a key of its own (`llm-maker page` prints the link)"
        )
        self._set(console__http=self._t.confirm("serve the page?", default=console.http))


# What answers may be.


def one_of(words: tuple[str, ...]) -> Callable[[str], str]:
    """One of the words, or the beginning of one; otherwise the nearest is named."""

    def check(text: str) -> str:
        if text in words:
            return text
        begun = [word for word in words if text and word.startswith(text.lower())]
        if len(begun) == 1:
            return begun[0]
        near = difflib.get_close_matches(text.lower(), words, 1)
        raise ValueError(f"one of {', '.join(words)}" + (f"; did you mean {near[0]}?" if near else ""))

    return check


def _checked_key(text: str) -> str:
    from llm_maker.venues.polymarket.orders.sign import Signer

    Signer(text)
    return text


def _checked_model_key(text: str) -> str:
    if text and (len(text) < 8 or not text.isascii() or any(not each.isprintable() or each == " " for each in text)):
        raise ValueError("not a key: at least 8 letters and digits, without spaces")
    return text


def _some_word(text: str) -> str:
    if not text:
        raise ValueError("its name is needed")
    return text


def _url(provider: str) -> Callable[[str], str | None]:
    def check(text: str) -> str | None:
        if not text and provider != "openai_compatible":
            return None
        if not text.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return text

    return check


def _dollars(most: float | None) -> Callable[[str], float]:
    def check(text: str) -> float:
        try:
            amount = float(text.replace(",", "").replace("_", "").removeprefix("$"))
        except ValueError:
            raise ValueError("a number of dollars, for example 200") from None
        if not 0 < amount <= 1e9 or round(amount, 6) != amount:
            raise ValueError("a number of dollars above 0, with at most 6 decimals")
        if most is not None and amount > most:
            raise ValueError(f"at most {most:,.0f}: the paper account holds no more (paper.cash_usd)")
        return amount

    return check


def limits(config: Config) -> list[str]:
    """What can be lost, in dollars, and what of it makes no sense."""
    taken = in_force(config)
    bank = taken.paper.cash_usd if taken.risk.bankroll_usd is None else taken.risk.bankroll_usd
    money = "REAL MONEY" if config.mode == "live" else "paper money"
    told = [line.strip() for line in worst_cases(taken)[1:-1]]
    return [
        f"at worst, with ${bank:,.2f} of {money}:",
        *(f"  {line}" for line in told),
        *(f"note: {t}: {c}" for t, c in suspicions(taken)),
    ]


# Showing and writing.


def changed_keys(before: Config, after: Config) -> list[str]:
    """`risk.bankroll_usd: empty -> 500`, one a key."""
    old, new = wizard_text.leaves(before), wizard_text.leaves(after)
    return [f"{key}: {_shown(old[key])} -> {_shown(new[key])}" for key in new if new[key] != old[key]]


def _shown(value: Any) -> str:
    return wizard_text.written(value) or "empty"


def differences(there: Standing, chosen: Chosen) -> list[str]:
    """What writing would do to the home, line by line; empty: nothing. Secrets are named, never shown."""
    lines: list[str] = []
    keys = changed_keys(there.config, chosen.config)
    if not there.file.exists():
        lines.append(f"{there.file}: new, every key with its comment" + (", changed:" if keys else ", all at their defaults"))
    elif keys:
        lines.append(f"{there.file}: changed (a copy of it is kept):")
    lines += [f"  {key}" for key in keys]
    source = _env_there(there.home)
    if not source.exists():
        lines.append(f"{there.env_file}: new, yours alone (mode 0600)" + ("" if chosen.secrets else ", no secret in it yet"))
    elif chosen.secrets and not there.env_file.exists():
        lines.append(f"{there.env_file}: new, yours alone (mode 0600), with what {source} says; that one is no longer read here:")
    elif chosen.secrets:
        lines.append(f"{there.env_file}: changed, its other lines stay:")
    lines += [f"  {name}: {'replaced' if there.has(name) else 'set'}" for name in chosen.secrets]
    return lines


def write(there: Standing, chosen: Chosen) -> list[str]:
    """Both files, each whole or not at all; what was done, in lines. Raises `ConfigError`, `OSError`."""
    text = wizard_text.config_text(there.file, there.config, chosen.config)
    told: list[str] = []
    source = _env_there(there.home)
    env = wizard_text.env_text(read_text(source) if source.exists() else wizard_text.shipped("env"), chosen.secrets)
    new_env = bool(chosen.secrets) or not source.exists()
    new_config = not there.file.exists() or read_text(there.file) != text
    # A link keeps pointing where it points; what it points to is replaced.
    file, env_file = there.file.resolve(), there.env_file.resolve()
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
    with wizard_text.beside(file, text, mode) as first, wizard_text.beside(env_file, env, 0o600) as second:
        load(first, {})
        held = read_env(second, {})
        assert all(held[name] == value for name, value in chosen.secrets.items()), "what is written is what was typed"
        # From here on a Ctrl-C comes too late: both files, or none.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            if new_config:
                if file.exists():
                    told.append(f"kept {wizard_text.kept_copy(file)}")
                first.replace(file)
                told.append(f"wrote {there.file}")
            if new_env:
                second.replace(env_file)
                told.append(f"wrote {there.env_file}")
        finally:
            signal.signal(signal.SIGINT, before)
    return told


def ready(chosen: Chosen, there: Standing) -> None:
    """Raises `ConfigError` where a run would be refused."""
    secrets = Secrets({**there.env, **chosen.secrets})
    config = in_force(chosen.config)
    check_run(config, secrets, tape=False)
    check_keys(config, secrets)


def command(verb: str, home: Path) -> str:
    """What to type for this home."""
    program = "llm-maker" if shutil.which("llm-maker") else f"{sys.executable} -m llm_maker"
    if Path(sys.argv[0]).name == "llm-maker" and not shutil.which("llm-maker"):
        program = sys.argv[0]
    if home.absolute() == Path.cwd():
        return f"{program} {verb}"
    return f"{program} {verb} --home {home} --config {home / 'config.yaml'}"
