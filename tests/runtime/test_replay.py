"""Proof and recovery: a journal replays exactly, damage is named, and a crash at any line leads back to the same world."""

import random

import msgspec
import pytest

from llm_maker.core.advice import Action, Bias, Signal
from llm_maker.core.events import OperatorActed, OrderAccepted, OrderFilled, SignalsFailed, SignalsReceived, Started, Verb
from llm_maker.core.values import NS_PER_S
from llm_maker.runtime.journal import JournalDamaged
from llm_maker.runtime.journal_reader import read_journal, recover
from llm_maker.runtime.journal_writer import JournalWriter
from llm_maker.runtime.replay import ReplayDiffers, catch_up, compare, engine_from, replay
from tests.runtime.world import STRATEGIES, World, builtins, net_of_fills, net_of_state

SEED = 3
SECONDS = 120


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """One simulated run with fills, decisions and a stop; (its journal file, its world)."""
    world = World(seed=SEED, activity=400.0)
    account = world.run(tmp_path_factory.mktemp("journal"), SECONDS)
    assert account.stop.clean and world.engine.state.counts.fills > 5 and world.engine.state.counts.decisions > 5
    return account.journal.path, world


def cut_after(path, folder, entries, extra=b""):
    """A copy that ends after its first `entries` entries, as a kill leaves it."""
    lines = path.read_bytes().splitlines(keepends=True)
    copy = folder / path.name
    copy.write_bytes(b"".join(lines[: 1 + entries]) + extra)
    return copy


def come_back(path, analyst=True, real_analyst=False, **exchange):
    """What a restart does: checkpoint, catch up; (world, reader)."""
    reader = read_journal(path)
    world = World(seed=SEED, activity=400.0, engine=engine_from(reader.header, STRATEGIES), analyst=analyst, **exchange)
    saved = {name: bytes(raw) for name, raw in reader.header.simulators.items()}
    joined = world.timeline.restore(saved, may_change=("llm",))
    there = [s for s in world.simulators if s not in joined]
    catch_up(reader, world.engine, world.timeline, there, world.feeds, lambda entry: None, real_analyst=real_analyst)
    return world, reader


def test_a_journal_replays_command_for_command(recorded):
    path, world = recorded
    found = replay(path, STRATEGIES)
    assert found.torn is None and found.entries > 1_000 and found.commands > 100
    assert found.final_ts == world.engine.state.now


def test_the_replayed_engine_ends_in_the_same_state(recorded):
    path, world = recorded
    reader = read_journal(path)
    engine = engine_from(reader.header, STRATEGIES)
    fills = []
    for entry in reader:
        engine.on_event(entry.ts, entry.event)
        fills += [entry.event] if isinstance(entry.event, OrderFilled) else []
    assert builtins(engine.state) == builtins(world.engine.state)
    assert net_of_fills(fills) == net_of_state(engine.state)


def test_a_torn_last_line_is_cut_and_told(recorded, tmp_path):
    path, _ = recorded
    whole = replay(path, STRATEGIES).entries
    data = path.read_bytes()
    last = data.splitlines(keepends=True)[-1]
    torn = tmp_path / path.name
    torn.write_bytes(data[: -len(last) // 2])
    found = replay(torn, STRATEGIES)
    assert found.entries == whole - 1 and "torn" in found.torn and f"line {whole + 1}" in found.torn


def test_one_altered_byte_is_refused_with_its_line(recorded, tmp_path):
    path, _ = recorded
    dice, data = random.Random(5), path.read_bytes()
    starts = [0]
    while (found := data.find(b"\n", starts[-1]) + 1) and found < len(data):
        starts.append(found)
    for line in [0, 1, *dice.sample(range(2, len(starts) - 1), 6)]:
        at = dice.randrange(starts[line], starts[line + 1] - 1)
        spoilt = bytearray(data)
        spoilt[at] ^= 1
        copy = tmp_path / path.name
        copy.write_bytes(bytes(spoilt))
        with pytest.raises(JournalDamaged, match=f"line {line + 1}:") as caught:
            replay(copy, STRATEGIES)
        assert caught.value.line == line + 1


def test_other_parameters_in_the_checkpoint_decide_otherwise(recorded, tmp_path):
    path, _ = recorded
    reader = read_journal(path)
    state = msgspec.json.decode(reader.header.state)
    state["params"]["signals"]["base_milli"] //= 2
    header = msgspec.structs.replace(reader.header, state=msgspec.Raw(msgspec.json.encode(state)))
    engine = engine_from(header, STRATEGIES)
    with pytest.raises(ReplayDiffers, match=r"entry \d+, command \d+: PlaceOrder\.\w+: recorded \S+, now"):
        for entry in reader:
            compare(entry, engine.on_event(entry.ts, entry.event))


@pytest.mark.parametrize("part", range(4))
def test_a_crash_after_any_line_goes_on_as_if_nothing_had_happened(recorded, tmp_path, part):
    """Cut anywhere, catch up, open a fresh file, go on: every later line is the one of the run that was never killed."""
    path, world = recorded
    lines = path.read_bytes().splitlines()
    dice = random.Random(part)
    early, anywhere = range(1, 40), range(40, len(lines) - 30)
    for entries in [*dice.sample(early, 3), *dice.sample(anywhere, 3)]:
        folder = tmp_path / str(entries)
        folder.mkdir()
        back, reader = come_back(cut_after(path, folder, entries))
        assert reader.last_seq == entries
        journal = JournalWriter.resume(reader.path, back.checkpoint, reader=reader)
        session, account = back.session(journal, seq=entries)
        session.now = back.engine.state.now
        session.run_virtual(back.start_ns + SECONDS * NS_PER_S)
        journal.close()
        assert account.stop.clean, entries
        original = [line.rpartition(b',"h"')[0] for line in lines[1 + entries :]]
        again = [line.rpartition(b',"h"')[0] for line in account.journal.path.read_bytes().splitlines()[1:]]
        assert again == original, f"after entry {entries}"
        assert replay(account.journal.path, STRATEGIES).entries == len(original)
        assert builtins(back.engine.state) == builtins(world.engine.state)
        assert back.exchange.cash == world.exchange.cash


def test_a_crash_between_two_events_of_one_moment_can_be_written_down(recorded, tmp_path):
    """The listing comes as many events of one moment; the checkpoint of the restart keeps those still to come."""
    path, _ = recorded
    back, _ = come_back(cut_after(path, tmp_path, 2))
    assert not back.timeline.idle
    saved = back.timeline.checkpoint()
    again = World(seed=SEED, activity=400.0)
    assert again.timeline.restore(saved) == []
    for _ in range(50):
        assert again.timeline.pop() == back.timeline.pop()


def test_a_crash_with_a_torn_line_is_repaired_and_goes_on(recorded, tmp_path):
    path, _ = recorded
    cut_after(path, tmp_path, 500, extra=b'{"seq":501,"ts":17672')
    latest, cuts = recover(tmp_path, "main")
    assert len(cuts) == 1 and "torn" in cuts[0]
    _, reader = come_back(latest)
    assert reader.last_seq == 500 and reader.torn is None


def drive(session, until):
    while session.timeline.next_ns() <= until:
        session.deliver(*session.timeline.pop())


@pytest.mark.parametrize("latency_ns", [0, 250_000_000])
def test_what_people_and_models_said_is_applied_as_it_stands(tmp_path, latency_ns):
    """Operator actions and answers of a real model at the very moment of simulated events, with and without latency."""
    quick = {"entry_ns": latency_ns, "cancel_ns": latency_ns}
    world = World(seed=SEED, activity=400.0, analyst=False, **quick)
    journal = world.journal(tmp_path)
    session, _ = world.session(journal)
    session.deliver(world.start_ns, "main", Started(1, False))
    dice, answered = random.Random(9), 0
    verbs = [Verb.PAUSE, Verb.RESUME, Verb.REDUCE, Verb.RESUME, Verb.FLATTEN, Verb.RESUME, Verb.CANCEL_ALL, Verb.RESUME]
    for number, verb in enumerate(verbs * 3):
        drive(session, session.now + dice.randrange(4, 12) * NS_PER_S)
        due = session.timeline.next_ns()
        ts = due if dice.random() < 0.6 else (session.now + due) // 2
        request, asked = world.engine.state.slow.pending, list(world.engine.state.slow.markets)
        if request and number % 5 == 0:
            session.deliver(ts, "main", SignalsFailed(request, f"D-{number}", "timeout"))
        elif request:
            answered += 1
            view = tuple(Signal(m, Action.BUY_YES, 0.9, Bias.BULLISH, p_yes=0.9, p_low=0.8, p_high=0.95) for m in asked)
            session.deliver(ts, "main", SignalsReceived(request, f"D-{number}", "m", "v", view))
        session.deliver(ts, "main", OperatorActed(verb, "test", take=verb is Verb.FLATTEN))
    drive(session, session.now + 20 * NS_PER_S)
    journal.close()
    assert answered >= 2 and world.engine.state.counts.fills >= 3
    back, _ = come_back(journal.path, analyst=False, real_analyst=True, **quick)
    assert builtins(back.engine.state) == builtins(world.engine.state)
    assert back.exchange.checkpoint() == world.exchange.checkpoint()
    for _ in range(200):
        assert back.timeline.pop() == world.timeline.pop()


def test_an_analyst_may_leave_and_join_between_two_starts(recorded, tmp_path):
    """A key was set, or taken away: the recorded answers stand, and a new analyst hears no old question."""
    path, _ = recorded
    copy = cut_after(path, tmp_path, 700)
    left, _ = come_back(copy, analyst=False, real_analyst=True)
    stayed, _ = come_back(copy)
    assert builtins(left.engine.state) == builtins(stayed.engine.state)
    assert left.exchange.checkpoint() == stayed.exchange.checkpoint()
    journal = JournalWriter.resume(copy, left.checkpoint)
    journal.close()
    joined, _ = come_back(journal.path)
    assert joined.simulators[1].name == "llm" and joined.simulators[1].next_ns() is None


def test_a_feed_may_not_leave_or_join(recorded):
    path, _ = recorded
    header = read_journal(path).header
    saved = {name: bytes(raw) for name, raw in header.simulators.items() if not name.startswith("all/sim")}
    with pytest.raises(ValueError, match="this configuration has"):
        World(seed=SEED).timeline.restore(saved, may_change=("llm",))


def test_a_world_that_says_something_else_is_refused(recorded, tmp_path):
    """A fill that the rebuilt exchange never makes must not be taken for news from outside: it would come twice."""
    path, _ = recorded
    reader = read_journal(path)
    engine = engine_from(reader.header, STRATEGIES)
    world = World(seed=SEED + 1, activity=400.0, engine=engine)
    with pytest.raises(ReplayDiffers, match="the simulated world now says"):
        catch_up(reader, engine, world.timeline, world.simulators, world.feeds, lambda entry: None)


def test_an_exchange_that_answers_otherwise_is_refused(recorded):
    path, _ = recorded
    reader = read_journal(path)
    engine = engine_from(reader.header, STRATEGIES)
    world = World(seed=SEED, activity=400.0, engine=engine, reject_ppm=1_000_000)
    seen = []
    with pytest.raises(ReplayDiffers, match="OrderAccepted"):
        catch_up(reader, engine, world.timeline, world.simulators, world.feeds, lambda entry: seen.append(entry.event))
    assert not any(isinstance(event, OrderAccepted) for event in seen)
