"""Journal: what was written is what is read, any damage is named, and no crash or full disk leaves a broken file."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import typing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_maker
from llm_maker.core import events as ev
from llm_maker.core.commands import CancelOrder, Notice, PlaceOrder, RequestSignals, TimeInForce
from llm_maker.core.values import Instrument, InstrumentId, Kind, Leg, Side, TieredGrid
from llm_maker.runtime.journal import (
    COMMAND_DECODER,
    EVENT_DECODER,
    Checkpoint,
    JournalDamaged,
    JournalError,
    file_name,
    files,
    find_latest,
    first_seq_of,
    seal,
)
from llm_maker.runtime.journal_reader import read_journal, read_tail, recover, repair
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter

ROOT = Path(llm_maker.__file__).parents[1]
PLAIN = JournalLimits(compress=False)
DELTA = ev.BookDelta("A", ((4200, 15),), ((4300, 0),), 4200, None, 7)
PLACE = PlaceOrder("1-1", "A", Side.SELL, Leg.NO, 4300, 50, TimeInForce.GTC, True, False, "quote")
INSTRUMENT = Instrument(
    id=InstrumentId("A"),
    venue="v",
    kind=Kind.BINARY,
    price_decimals=4,
    qty_decimals=2,
    grid=TieredGrid(((1000, 10), (9000, 100), (10000, 10))),
    qty_step=1,
    min_qty=500,
    payout=10_000,
)


def checkpoint(number=0):
    return Checkpoint(b'{"n":%d}' % number, {"exchange": b'{"b":1}', "analyst": b"[]"}, {"strategy": "maker", "edge": 3})


def write_some(directory, count=5, limits=PLAIN, **options):
    writer = JournalWriter.create(directory, "main", checkpoint, limits=limits, **options)
    for seq in range(1, count + 1):
        writer.write(seq, seq * 10, DELTA, [PLACE] if seq % 2 else [])
    writer.close()
    return writer


def test_what_is_written_is_what_is_read(tmp_path):
    writer = write_some(tmp_path)
    reader = read_journal(writer.path)
    entries = list(reader)
    assert [(entry.seq, entry.ts, entry.account) for entry in entries] == [(n, n * 10, "main") for n in range(1, 6)]
    assert [entry.event for entry in entries] == [DELTA] * 5
    assert [entry.commands for entry in entries] == [(PLACE,), (), (PLACE,), (), (PLACE,)]
    assert (reader.last_seq, reader.last_ts, reader.last_hash, reader.torn) == (5, 50, writer.last_hash, None)
    assert bytes(reader.header.state) == b'{"n":0}'
    assert list(reader.header.simulators) == ["analyst", "exchange"]
    assert reader.header.meta == {"strategy": "maker", "edge": 3}
    assert writer.hexdigest == hashlib.sha256(writer.path.read_bytes()).hexdigest()
    assert [bytes(raw.event) for raw in reader.raw()] == [msgspec.json.encode(DELTA)] * 5


def example(kind):
    """A value of any annotated type, non-default where it can be."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    simple = {int: 7, str: "x", float: 0.5, bool: True, msgspec.Raw: msgspec.Raw(b'{"p":1}'), Instrument: INSTRUMENT}
    if kind in simple:
        return simple[kind]
    if origin is tuple:
        return (example(arguments[0]),) if arguments[-1] is Ellipsis else tuple(map(example, arguments))
    if origin is typing.Literal:
        return arguments[-1]
    if arguments:
        return example(arguments[0])
    if issubclass(kind, msgspec.Struct):
        return kind(**{name: example(hint) for name, hint in typing.get_type_hints(kind).items() if name[0] != "_"})
    return list(kind)[-1]


@pytest.mark.parametrize("kind", typing.get_args(ev.AnyEvent), ids=lambda kind: kind.__name__)
def test_every_event_comes_back_as_it_was(kind, tmp_path):
    event = example(kind)
    writer = JournalWriter.create(tmp_path, "main", checkpoint, limits=PLAIN)
    writer.write(1, 1, event, [])
    writer.close()
    (entry,) = read_journal(writer.path)
    assert entry.event == event
    assert type(entry.event) is kind
    assert EVENT_DECODER.decode(msgspec.json.encode(event)) == event


def test_every_command_comes_back_as_it_was():
    from llm_maker.core.commands import AnyCommand

    kinds = typing.get_args(AnyCommand)
    assert {PlaceOrder, CancelOrder, Notice, RequestSignals} < set(kinds)
    for kind in kinds:
        command = example(kind)
        assert COMMAND_DECODER.decode(msgspec.json.encode(command)) == command


def test_a_torn_last_line_is_cut_reported_and_kept_aside(tmp_path):
    path = write_some(tmp_path).path
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last + 1, len(whole)):
        path.write_bytes(whole[:cut])
        reader = read_journal(path)
        assert [entry.seq for entry in reader] == [1, 2, 3, 4]
        assert "line 6" in reader.torn
        assert reader.size == last
    assert "line 6" in repair(path)
    assert path.read_bytes() == whole[:last]
    assert path.with_name(path.name + ".torn").read_bytes() == whole[last:-1]
    assert repair(path) is None


def test_an_incomplete_last_line_with_a_newline_is_torn_too(tmp_path):
    path = write_some(tmp_path).path
    path.write_bytes(path.read_bytes()[:-30] + b"\n")
    reader = read_journal(path).scan()
    assert reader.last_seq == 4
    assert reader.torn


def test_any_altered_byte_before_the_last_line_is_refused_with_its_line(tmp_path):
    path = write_some(tmp_path, count=3).path
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1)
    line = 1
    for at in range(last):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(JournalDamaged) as refused:
            read_journal(path).scan()
        assert refused.value.line == line, f"byte {at}"
        assert f"line {line}:" in str(refused.value)
        line += whole[at] == ord("\n")


@pytest.mark.parametrize("change", ["drop", "double", "swap", "empty"])
def test_missing_doubled_and_exchanged_lines_are_refused(tmp_path, change):
    path = write_some(tmp_path).path
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "drop":
        del lines[2]
    elif change == "double":
        lines.insert(2, lines[2])
    elif change == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines.insert(2, b"\n")
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamaged):
        read_journal(path).scan()


def test_an_altered_last_line_is_damage_not_a_tear(tmp_path):
    path = write_some(tmp_path).path
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"seq":5', b'"seq":6'))
    with pytest.raises(JournalDamaged, match="line 6"):
        read_journal(path).scan()


def test_a_gap_in_the_sequence_is_refused_even_with_right_hashes(tmp_path):
    path = write_some(tmp_path, count=1).path
    body = b'{"seq":3,"ts":30,"a":"main","event":{"type":"Tick"},"commands":[]'
    chain = read_journal(path).scan().last_hash.encode()
    path.write_bytes(path.read_bytes() + body + b',"h":"' + seal(chain, body) + b'"}\n')
    with pytest.raises(JournalDamaged, match="line 3: sequence 3 after 1"):
        list(read_journal(path))


def test_sequence_and_time_of_the_caller_are_asserted(tmp_path):
    writer = write_some(tmp_path / "a")
    writer = JournalWriter.create(tmp_path / "b", "main", checkpoint, limits=PLAIN)
    writer.write(1, 10, DELTA, [])
    with pytest.raises(AssertionError):
        writer.write(3, 10, DELTA, [])
    with pytest.raises(AssertionError):
        writer.write(2, 9, DELTA, [])
    writer.close()


def rotating(directory, count, **limits):
    state = {"seq": 0}
    writer = JournalWriter.create(
        directory, "main", lambda: checkpoint(state["seq"]), limits=JournalLimits(max_file=2_000, **limits)
    )
    for seq in range(1, count + 1):
        state["seq"] = seq
        writer.write(seq, seq, DELTA, [PLACE])
        writer.rotate_if_due()
    writer.close()
    return writer


@pytest.mark.parametrize("compress", [False, True])
def test_rotation_chains_files_each_with_its_own_checkpoint(tmp_path, compress):
    writer = rotating(tmp_path, 60, compress=compress)
    found = files(tmp_path, "main")
    assert len(found) > 3
    assert {path.suffix for path in found[:-1]} == {".zst" if compress else ".jsonl"}
    assert found[-1] == find_latest(tmp_path, "main") == writer.path
    assert [entry.seq for entry in read_tail(tmp_path, "main", 0)] == list(range(1, 61))
    assert [entry.seq for entry in read_tail(tmp_path, "main", 41)] == list(range(42, 61))
    assert list(read_tail(tmp_path, "main", 60)) == []
    for path in found:
        reader = read_journal(path)
        assert bytes(reader.header.state) == b'{"n":%d}' % (reader.header.first_seq - 1)
        seqs = [entry.seq for entry in reader]
        assert seqs == list(range(reader.header.first_seq, reader.header.first_seq + len(seqs)))
    assert not list(tmp_path.glob("*.tmp"))


def test_the_digest_is_that_of_all_bytes_in_order_and_of_no_path(tmp_path):
    first, second = rotating(tmp_path / "a", 60, compress=False), rotating(tmp_path / "b" / "c", 60, compress=False)
    everything = b"".join(path.read_bytes() for path in files(tmp_path / "a", "main"))
    assert first.hexdigest == second.hexdigest == hashlib.sha256(everything).hexdigest()


def test_a_lost_or_foreign_file_between_others_is_noticed(tmp_path):
    rotating(tmp_path, 60, compress=False)
    found = files(tmp_path, "main")
    found[1].unlink()
    with pytest.raises(JournalDamaged, match="does not continue"):
        list(read_tail(tmp_path, "main", 0))
    found[0].unlink()
    with pytest.raises(JournalError, match="are gone"):
        list(read_tail(tmp_path, "main", 0))


def test_the_total_is_capped_and_never_by_the_current_file(tmp_path):
    writer = rotating(tmp_path, 300, compress=False, max_total=6_000)
    sizes = [path.stat().st_size for path in files(tmp_path, "main")]
    assert sum(sizes) <= 6_000
    assert len(sizes) >= 2
    assert find_latest(tmp_path, "main") == writer.path
    tiny = rotating(tmp_path / "tiny", 300, compress=False, max_total=1)
    assert files(tmp_path / "tiny", "main") == [tiny.path]
    assert files(tmp_path / "tiny", "mai") == []


def test_what_the_ledger_lacks_is_kept_above_the_cap(tmp_path):
    for indexed in (0, 100, 200, 300):
        folder = tmp_path / str(indexed)
        rotating(folder, 300, compress=False, max_total=1, indexed=lambda indexed=indexed: indexed)
        first, *others = (first_seq_of(path) for path in files(folder, "main"))
        assert first <= indexed + 1, "the entry behind the last one indexed is there"
        assert not others or others[0] > indexed + 1, "and no file before it"
        assert [entry.seq for entry in read_tail(folder, "main", indexed)] == list(range(indexed + 1, 301))


def test_no_journal_can_be_read_by_others(tmp_path):
    rotating(tmp_path, 60, compress=True)
    assert list(tmp_path.glob("*.zst"))
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_a_compressed_file_cut_short_or_altered_is_refused(tmp_path):
    rotating(tmp_path, 60, compress=True)
    path = files(tmp_path, "main")[1]
    whole = path.read_bytes()
    checksum = 4
    for at in range(0, len(whole) - checksum, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        with pytest.raises(JournalDamaged):
            read_journal(path).scan()
        path.write_bytes(whole[:at])
        with pytest.raises(JournalDamaged):
            read_journal(path).scan()


@pytest.mark.parametrize("fresh", [False, True])
def test_resume_continues_the_chain(tmp_path, fresh):
    path = write_some(tmp_path).path
    path.write_bytes(path.read_bytes()[:-10])
    latest, cuts = recover(tmp_path, "main")
    assert latest == path
    assert len(cuts) == 1
    writer = JournalWriter.resume(latest, lambda: checkpoint(4), fresh=fresh, limits=PLAIN)
    assert writer.last_seq == 4
    assert (writer.path == path) is not fresh
    writer.write(5, 50, DELTA, [])
    writer.close()
    assert [entry.seq for entry in read_tail(tmp_path, "main", 0)] == [1, 2, 3, 4, 5]


def test_resume_after_a_checkpoint_without_entries_replaces_it(tmp_path):
    first = write_some(tmp_path)
    for number in (1, 2):
        path, cuts = recover(tmp_path, "main")
        assert cuts == []
        reader = read_journal(path).scan()
        writer = JournalWriter.resume(path, lambda n=number: checkpoint(n), reader=reader, limits=PLAIN)
        writer.close()
    assert files(tmp_path, "main") == [first.path, tmp_path / file_name("main", 6)]
    assert bytes(read_journal(writer.path).header.state) == b'{"n":2}'
    assert [entry.seq for entry in read_tail(tmp_path, "main", 0)] == [1, 2, 3, 4, 5]


def test_a_file_whose_checkpoint_is_torn_is_set_aside_and_the_one_before_continued(tmp_path):
    first = write_some(tmp_path).path
    second = tmp_path / file_name("main", 6)
    second.write_bytes(b'{"journal":1,"vers')
    path, cuts = recover(tmp_path, "main")
    assert path == first
    assert "kept aside" in cuts[0]
    assert second.with_name(second.name + ".torn").read_bytes() == b'{"journal":1,"vers'
    assert recover(tmp_path, "nobody") == (None, [])


def test_an_existing_journal_is_never_overwritten(tmp_path):
    path = write_some(tmp_path).path
    before = path.read_bytes()
    with pytest.raises(JournalError, match="never overwritten"):
        JournalWriter.create(tmp_path, "main", checkpoint)
    assert path.read_bytes() == before


class Disk:
    """os.write onto a simulated disk with `room` bytes left, which takes at most `chunk` bytes a call."""

    def __init__(self, room, chunk=1 << 30):
        self.room, self.chunk = room, chunk

    def write(self, fd, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = os.write(fd, bytes(data[: min(self.room, self.chunk)]))
        self.room -= taken
        return taken


@given(room=st.integers(0, 3_000), chunk=st.integers(20, 500), more=st.integers(0, 2_000))
@settings(max_examples=60, deadline=None)
def test_a_full_disk_is_an_error_and_leaves_whole_lines_that_go_on_later(tmp_path_factory, room, chunk, more):
    directory = tmp_path_factory.mktemp("disk")
    disk = Disk(1 << 30, chunk)
    writer = JournalWriter.create(directory, "main", checkpoint, limits=PLAIN, os_write=disk.write)
    disk.room = room
    failed = False
    for seq in range(1, 21):
        writer.write(seq, seq, DELTA, [PLACE])
        try:
            writer.flush()
        except JournalError as error:
            assert "No space left" in str(error)
            failed = True
            disk.room += more // 10
        reader = read_journal(writer.path).scan()
        assert reader.torn is None
        assert reader.last_seq <= seq
        assert failed or reader.last_seq == seq
    disk.room = 1 << 30
    writer.close()
    assert [entry.seq for entry in read_journal(writer.path)] == list(range(1, 21))
    assert writer.hexdigest == hashlib.sha256(writer.path.read_bytes()).hexdigest()


def test_a_disk_that_takes_nothing_is_an_error_not_a_loop(tmp_path):
    writer = JournalWriter.create(tmp_path, "main", checkpoint, limits=PLAIN)
    writer._os_write = lambda fd, data: 0
    writer.write(1, 1, DELTA, [])
    with pytest.raises(JournalError, match="only 0 of"):
        writer.flush()
    writer._os_write = os.write
    writer.close()
    assert read_journal(writer.path).scan().last_seq == 1


def test_a_writer_gives_up_for_good_past_its_buffer_and_the_file_stays_whole(tmp_path):
    disk = Disk(1 << 30)
    limits = JournalLimits(compress=False, max_buffer=1_000, flush_at=1 << 20)
    writer = JournalWriter.create(tmp_path, "main", checkpoint, limits=limits, os_write=disk.write)
    writer.write(1, 1, DELTA, [])
    writer.flush()
    disk.room = 0
    with pytest.raises(JournalError, match="the journal ends here"):
        for seq in range(2, 100):
            writer.write(seq, seq, DELTA, [])
    disk.room = 1 << 30
    with pytest.raises(JournalError, match="the journal ends here"):
        writer.flush()
    assert read_journal(writer.path).scan().last_seq == 1


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_file_in_use(tmp_path):
    disk = Disk(1 << 30)
    limits = JournalLimits(compress=False, max_file=100)
    writer = JournalWriter.create(tmp_path, "main", checkpoint, limits=limits, os_write=disk.write)
    for seq in (1, 2, 3):
        writer.write(seq, seq, DELTA, [])
    writer.flush()
    disk.room = 50
    with pytest.raises(JournalError):
        writer.rotate_if_due()
    disk.room = 1 << 30
    assert writer.path == tmp_path / file_name("main", 1)
    assert not list(tmp_path.glob("*.tmp"))
    assert writer.rotate_if_due()
    writer.write(4, 4, DELTA, [])
    writer.close()
    assert [entry.seq for entry in read_tail(tmp_path, "main", 0)] == [1, 2, 3, 4]


def test_a_checkpoint_larger_than_a_file_should_be_does_not_begin_one_at_every_event(tmp_path):
    large = Checkpoint(b'"' + b"x" * 20_000 + b'"', {}, {})
    writer = JournalWriter.create(tmp_path, "main", lambda: large, limits=JournalLimits(compress=False, max_file=2_000))
    written = 0
    for seq in range(1, 301):
        writer.write(seq, seq, DELTA, [PLACE])
        written += writer.rotate_if_due()
    writer.close()
    assert 1 <= written <= 10, "no more often than as much again has been written"
    assert [entry.seq for entry in read_tail(tmp_path, "main", 0)] == list(range(1, 301))


CHILD = """
import sys
from pathlib import Path
from llm_maker.core.events import BookDelta
from llm_maker.runtime.journal import Checkpoint, find_latest
from llm_maker.runtime.journal_writer import JournalLimits, JournalWriter
event = BookDelta("A", ((4200, 15),) * 40, (), None, None, 7)
directory, limits = Path(sys.argv[1]), JournalLimits(max_file=200_000)
make = lambda: Checkpoint(b'{"pad":"%s"}' % (b"x" * 5_000))
latest = find_latest(directory, "main")
writer = JournalWriter.resume(latest, make, fresh=sys.argv[2] == "fresh", limits=limits) if latest else \\
    JournalWriter.create(directory, "main", make, limits=limits)
seq = writer.last_seq
while True:
    seq += 1
    writer.write(seq, seq, event, [])
    writer.flush()
    if seq % 100 == 0:
        print(seq, flush=True)
    writer.rotate_if_due()
"""


def test_kill_9_at_any_moment_loses_nothing_that_was_flushed(tmp_path):
    told = 0
    for life, lines in enumerate((3, 9, 17)):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), "fresh" if life % 2 else "same"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(lines):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        recover(tmp_path, "main")
        seqs = [entry.seq for entry in read_tail(tmp_path, "main", 0)]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= told
    assert len(files(tmp_path, "main")) > 2
