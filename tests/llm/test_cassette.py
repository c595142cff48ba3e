"""Cassettes: what went in comes out, as late and as wrong as it was, for nothing; no half line, no key, no silent gap."""

import asyncio
import os
import stat
from decimal import Decimal

import msgspec
import pytest

from llm_maker.core.values import NS_PER_S
from llm_maker.llm import cassette
from llm_maker.llm.budget import DailyBudget, Usage
from llm_maker.llm.cassette import HEADER, MISSING, Cassette, CassetteError, Exchange, Player, Recorder, Writer
from llm_maker.llm.prompt import key_of, render
from llm_maker.llm.providers import Completion, ProviderError
from tests.llm.members import NEVER, Time, good, member
from tests.llm.samples import brief, request

QUESTION = render(request())
OTHER = render(request(brief(yes_price=0.5)))
MARKED = "test-throwaway-key-marked"  # worth nothing anywhere
USAGE = Usage(input=120, cached=60, output=40, reasoning=9)


def answer(text=None, **changed):
    fields = {"finish": "stop", "usage": USAGE, "cost_usd": Decimal("0.01"), "price_source": "table", "model": "m-2026"}
    return Completion(text=good() if text is None else text, **(fields | {"schema_mode": "json_object"} | changed))


class Spoken:
    """A model that says what it is told to, each a second later than the one before."""

    provider, model = "fake", "m"

    def __init__(self, time, *steps):
        self.time, self.steps, self.closed, self.calls = time, list(steps), 0, 0

    async def complete(self, system, user, schema, deadline_s):
        step, self.calls = self.steps[self.calls], self.calls + 1
        await self.time.sleep(1e9 if step is NEVER else float(self.calls))
        if isinstance(step, BaseException):
            raise step
        return step

    async def search(self, system, user, deadline_s):
        return "searched"

    async def close(self):
        self.closed += 1


async def outcome(model, question=QUESTION, deadline_s=20.0):
    """Of one call: the answer, or the failure as its fields."""
    try:
        return await model.complete(question.system, question.user, question.schema, deadline_s)
    except ProviderError as error:
        return (error.kind, error.detail, error.retry_after_s)
    except (OSError, ValueError) as error:
        return type(error)


async def recorded(*steps, questions=(), now=None):
    """Lines of a cassette on which a model that took these steps was recorded, and what was heard live."""
    time, lines = Time(), []
    model = Recorder(Spoken(time, *steps), lines.append, clock=time.clock, today=lambda: "2026-11-21T10:00:00.000Z")
    async with time.running():
        heard = [await outcome(model, q) for q in questions or [QUESTION] * len(steps)]
    return lines, heard


async def played(exchanges, times=1, deadline_s=20.0, question=QUESTION):
    time = Time()
    player = Player(Cassette(exchanges), "fake", "m", sleep=time.sleep)
    found = []
    async with time.running():
        for _ in range(times):
            began = time.now
            found.append((await outcome(player, question, deadline_s), (time.now - began) / NS_PER_S))
    return found, player


def exchanges_of(lines):
    return [msgspec.json.decode(line, type=Exchange) for line in lines]


def test_there_is_one_key_for_a_prompt():
    assert cassette.key_of is key_of and QUESTION.key == key_of(QUESTION.system, QUESTION.user, QUESTION.schema)
    assert (
        len({QUESTION.key, OTHER.key, key_of("", QUESTION.user, QUESTION.schema), key_of(QUESTION.system, QUESTION.user, {})}) == 4
    )


async def test_an_answer_comes_back_as_it_was_and_as_late_for_nothing():
    lines, heard = await recorded(answer(), answer("two", finish="length"))
    (first, at_first), (second, at_second) = (await played(exchanges_of(lines), 2))[0]
    assert (at_first, at_second) == (1.0, 2.0), "as late as it was"
    for live, again in zip(heard, (first, second), strict=True):
        assert msgspec.structs.replace(again, cost_usd=live.cost_usd, price_source=live.price_source) == live
        assert (again.cost_usd, again.price_source) == (0, "cassette")
    kept = exchanges_of(lines)[0]
    assert (kept.cost_usd, kept.at, kept.user) == ("0.01", "2026-11-21T10:00:00.000Z", QUESTION.user)


FAILURES = [
    ProviderError("auth", "no"),
    ProviderError("rate_limit", "slowly", 7.0),
    ProviderError("overload", "busy", 2.5, maybe_billed=True),
    ProviderError("malformed", "nonsense", usage=USAGE),
    ProviderError("timeout", "late", maybe_billed=True),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda e: e.kind)
async def test_a_failure_is_recorded_too(error):
    lines, heard = await recorded(error)
    ((again, at),), player = await played(exchanges_of(lines))
    assert again == heard[0] == (error.kind, error.detail, error.retry_after_s) and at == 1.0 and player.played == 1


@pytest.mark.parametrize(
    ("error", "kind"), [(ConnectionResetError("x"), "connection"), (TimeoutError(), "timeout"), (ValueError(MARKED), "malformed")]
)
async def test_a_client_that_stumbles_is_recorded_by_class_alone(error, kind):
    lines, heard = await recorded(error)
    assert heard == [type(error)] and MARKED.encode() not in lines[0]
    (((found, detail, _), _),), _ = await played(exchanges_of(lines))
    assert (found, detail) == (kind, type(error).__name__)


@pytest.mark.parametrize(("deadline_s", "kept"), [(5.0, 1), (50.0, 0)])
async def test_what_was_given_up_is_a_timeout_and_what_was_interrupted_is_nothing(deadline_s, kept):
    time, lines = Time(), []
    model = Recorder(Spoken(time, NEVER), lines.append, clock=time.clock, today=lambda: "2026-11-21T10:00:00.000Z")
    async with time.running():
        call = asyncio.create_task(outcome(model, deadline_s=deadline_s))
        await time.sleep(6.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert [exchange.error for exchange in exchanges_of(lines)] == ["timeout"] * kept


async def test_nothing_played_is_charged_whatever_was_paid_then():
    steps = [
        answer(),
        ProviderError("malformed", "x", usage=USAGE),
        ProviderError("timeout", "x", maybe_billed=True),
        answer(cost_usd=None),
    ]
    lines, _ = await recorded(*steps)
    time, purse = Time(), DailyBudget(Decimal(10))
    player = Player(Cassette(exchanges_of(lines)), "fake", "m", sleep=time.sleep)
    player.time = time
    async with time.running():
        asked = member(player)
        replies = [await asked.ask(QUESTION, deadline_s, purse) for deadline_s in (20.0, 20.0, 20.0, 3.0)]
    assert [r.outcome for r in replies] == ["ok", "malformed", "timeout", "timeout"], "the last took four seconds then"
    assert [r.cost_usd for r in replies] == [0] * 4 and purse.spent_usd(time.now) == 0
    assert replies[0].price_source == "cassette"


async def test_the_order_of_one_prompt_is_kept_and_its_last_answer_is_given_again():
    lines, _ = await recorded(answer("a"), answer("other"), answer("b"), questions=[QUESTION, OTHER, QUESTION])
    found, _ = await played(exchanges_of(lines), 4)
    assert [one.text for one, _ in found] == ["a", "b", "b", "b"]
    assert (await played(exchanges_of(lines), question=OTHER))[0][0][0].text == "other"


async def test_each_model_has_its_own_exchanges():
    lines, _ = await recorded(answer("mine"))
    (one,) = exchanges_of(lines)
    both = [
        msgspec.structs.replace(one, model="n", text="n's"),
        one,
        msgspec.structs.replace(one, provider="other", text="other's"),
    ]
    assert (await played(both))[0][0][0].text == "mine"
    assert Cassette(both).models() == dict.fromkeys(("fake/n", "fake/m", "other/m"), "2026-11-21")


async def test_never_recorded_is_counted_and_told_and_opens_no_breaker():
    time, said = Time(), []
    player = Player(Cassette([]), "fake", "m", sleep=time.sleep)
    player.time = time
    asked = member(player, said=said)
    async with time.running():
        replies = [await asked.ask(QUESTION, 20.0, DailyBudget(None)) for _ in range(5)]
    assert [(r.outcome, r.detail, r.attempts) for r in replies] == [("refusal", MISSING, 1)] * 5
    assert player.missing == 5 and asked.breaker.state == "closed" and said == []


async def test_what_is_missing_is_asked_of_who_stands_behind():
    time = Time()
    behind = Spoken(time, answer("fresh"), answer("again"))
    lines, _ = await recorded(answer("kept"))
    player = Player(Cassette(exchanges_of(lines)), "fake", "m", behind=behind, sleep=time.sleep)
    async with time.running():
        texts = [(await outcome(player, q)).text for q in (QUESTION, OTHER, OTHER)]
    assert texts == ["kept", "fresh", "again"] and (player.played, player.asked, player.missing) == (1, 2, 0)
    await player.close()
    assert behind.closed == 1
    with pytest.raises(ProviderError, match="cannot search"):
        await player.search("", "", 1.0)


async def test_a_search_is_passed_on_and_not_kept():
    lines = []
    model = Recorder(Spoken(Time()), lines.append, clock=lambda: 0, today=str)
    assert await model.search("", "", 1.0) == "searched" and lines == []


# The file.


def line(text="{}", key="k", **changed):
    fields = {"key": key, "provider": "fake", "model": "m", "at": "2026-11-21T10:00:00.000Z", "latency_s": 1.5, "user": "asked"}
    return msgspec.json.encode(Exchange(**(fields | {"text": text} | changed)))


def test_a_cassette_is_made_with_all_its_folders_for_the_owner_alone(tmp_path):
    path = tmp_path / "deep" / "er" / "one.cassette"
    writer = Writer(path)
    writer.append(line("a"))
    assert path.read_bytes() == HEADER + b"\n" + line("a") + b"\n", "it is there before anybody closes it"
    writer.close()
    writer.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Writer(path)
    again.append(line("b"))
    again.close()
    found = Cassette.read(path)
    assert [e.text for e in found.exchanges] == ["a", "b"] and found.exchanges[0].user == "", "words for people are not held"
    assert found.next("fake", "m", "k").text == "a" and found.next("fake", "m", "other") is None


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_torn_last_line_is_left_out_and_cut_off_before_more_is_written(tmp_path, cut):
    path = tmp_path / "c"
    path.write_bytes(HEADER + b"\n" + line("a") + b"\n" + line("torn")[:-cut])
    assert [e.text for e in Cassette.read(path).exchanges] == ["a"]
    writer = Writer(path)
    writer.append(line("b"))
    writer.close()
    assert [e.text for e in Cassette.read(path).exchanges] == ["a", "b"]


@pytest.mark.parametrize("cut", range(len(HEADER) + 1))
def test_a_kill_before_the_first_line_was_whole(tmp_path, cut):
    path = tmp_path / "c"
    path.write_bytes(HEADER[:cut])
    Writer(path).close()
    assert Cassette.read(path).exchanges == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: not a cassette"),
        (b'{"tape":1}\n', "line 1: not a cassette"),
        (b"\x00\xff", "line 1: not a cassette"),
        (HEADER + b"\n" + line() + b"\n{]\n" + line() + b"\n", "line 3: JSON"),
        (HEADER + b"\n{}\n", "line 2: Object missing required field"),
        (HEADER + b"\n" + line().replace(b'"asked"', b'"\xff"') + b"\n", "line 2: "),
        (HEADER + b"\n" + line().replace(b"1.5", b"-1.5") + b"\n", "line 2: .*latency_s"),
        (HEADER + b"\n" + line().replace(b"1.5", b"1e999") + b"\n", "line 2: .*latency_s"),
        (HEADER + b"\n" + line(error="timeout").replace(b'"timeout"', b'"oh"') + b"\n", "line 2: Invalid enum"),
    ],
)
def test_damage_is_refused_with_its_place(tmp_path, content, said):
    path = tmp_path / "c"
    path.write_bytes(content)
    with pytest.raises(CassetteError, match=f"{path}: {said}"):
        Cassette.read(path)
    if content:
        with pytest.raises(CassetteError, match=said):
            Writer(path)
        assert path.read_bytes() == content, "what we do not understand is not ours to write on"


def test_no_file_and_no_folder(tmp_path):
    with pytest.raises(CassetteError, match="No such file"):
        Cassette.read(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "deeper"):
        with pytest.raises(CassetteError):
            Writer(path)


def test_two_cannot_record_on_one_cassette(tmp_path):
    first = Writer(tmp_path / "c")
    with pytest.raises(CassetteError, match="another run is recording on it"):
        Writer(tmp_path / "c")
    first.close()
    Writer(tmp_path / "c").close()


def test_a_line_that_cannot_be_written_whole_ends_the_recording(tmp_path, monkeypatch):
    path, write = tmp_path / "c", os.write
    writer = Writer(path)
    writer.append(line("a"))
    monkeypatch.setattr(os, "write", lambda out, raw: write(out, raw[:9]))
    for said in ("the disk is full", "nothing more is recorded"):
        with pytest.raises(CassetteError, match=said):
            writer.append(line("b"))
    monkeypatch.undo()
    with pytest.raises(CassetteError):
        writer.append(line("c"))
    writer.close()
    assert path.read_bytes() == HEADER + b"\n" + line("a") + b"\n"


def test_no_secret_reaches_the_file(tmp_path):
    odd = 'test"throwaway\\key'
    writer = Writer(tmp_path / "c", (MARKED, odd, "a"))
    writer.append(line(f"{MARKED} and {odd}", detail=f"Bearer {MARKED}", user=f"<{MARKED}>", told=MARKED))
    writer.close()
    raw = (tmp_path / "c").read_bytes()
    assert MARKED.encode() not in raw and b"throwaway" not in raw and raw.count(b"***") == 5
    (kept,) = Cassette.read(tmp_path / "c").exchanges
    assert kept.text == "*** and ***", "still a line that can be read; and one letter is no secret"


async def test_half_a_character_does_not_stop_the_recording(tmp_path):
    lines, heard = await recorded(answer("half \ud83d"))
    assert heard[0].text == "half \ud83d" and exchanges_of(lines)[0].text == "half ?"


def test_contamination_is_told_by_day():
    cutoffs = {"a/new": "2026-06-07", "b/old": "2026-06-06", "c/unknown": None}
    new, unknown = cassette.contamination(cutoffs, "2026-06-07")
    assert new == "a/new: CONTAMINATED: trained on data up to 2026-06-07, and the tape begins on 2026-06-07"
    assert unknown.startswith("c/unknown: its cut-off is not known")
    assert cassette.contamination({"a": "2026-06-07"}, "2026-06-08") == []


async def test_what_is_recorded_of_a_member_is_played_to_it(tmp_path):
    """Retry, waits and all: two members that differ only in who answers go the same way."""
    steps = [ProviderError("overload", "x"), answer(), ProviderError("rate_limit", "x", 50.0), answer("}{"), answer()]
    time, path = Time(), tmp_path / "c"
    writer = Writer(path)
    live = Recorder(Spoken(time, *steps), writer.append, clock=time.clock, today=lambda: "2026-11-21T10:00:00.000Z")
    live.time = time

    async def asked(model):
        one, began, found = member(model), model.time.now, []
        async with model.time.running():
            for _ in range(4):
                reply = await one.ask(QUESTION, 40.0, DailyBudget(None))
                text = reply.completion.text if reply.completion else ""
                found.append((reply.outcome, reply.attempts, reply.latency_ms, text, model.time.now - began))
                await model.time.sleep(20.0)
        return found

    then = await asked(live)
    writer.close()
    time = Time()
    again = Player(Cassette.read(path), "fake", "m", sleep=time.sleep)
    again.time = time
    assert await asked(again) == then and [x[0] for x in then] == ["ok", "rate_limit", "ok", "ok"] and again.played == 5
