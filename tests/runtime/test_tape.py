"""Tapes: round trips in three formats, cut tails read and said, damage refused with its line, and the feed on top."""

import gzip
import json

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_maker.core.events import InstrumentListed, OperatorActed, TopReported, VenueUp
from llm_maker.core.values import FixedGrid, Instrument, Kind
from llm_maker.runtime import tape
from llm_maker.runtime.tape import TapeError, TapeFeed, TapeReader, TapeWriter

SUFFIXES = ("", ".gz", ".zst")
HEADER = {"tape": 1, "venue": "simulated", "instruments": [{"condition_id": "m"}]}
SECOND = 1_000_000_000
INSTRUMENT = Instrument(
    id="m",
    venue="simulated",
    kind=Kind.BINARY,
    price_decimals=4,
    qty_decimals=6,
    grid=FixedGrid(100),
    qty_step=10_000,
    min_qty=5_000_000,
    payout=10_000,
)


def frames_of(count, step=SECOND):
    return [(1000 + place * step, b'{"n":%d,"text":"%s"}' % (place, b"abc" * (place % 40))) for place in range(count)]


def write(path, frames, header=HEADER):
    writer = TapeWriter(path, header)
    for recv_ns, frame in frames:
        writer.write(recv_ns, frame)
    writer.close()
    return path


def read(path):
    reader = TapeReader(path)
    return [(line.recv_ns, bytes(line.frame)) for line in reader], reader.truncated


def pack(suffix, data):
    return {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[suffix](data)


def lines_of(frames, header=HEADER):
    told = [json.dumps({"recv_ns": ns, "channel": "market", "frame": json.loads(frame)}) for ns, frame in frames]
    return "".join(line + "\n" for line in [json.dumps(header), *told]).encode()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    frames = frames_of(300)
    path = write(tmp_path / f"t.jsonl{suffix}", frames)
    assert read(path) == (frames, None)
    reader = TapeReader(path)
    assert (reader.header, reader.venue, reader.check(), reader.line) == (HEADER, "simulated", 300, 301)
    assert reader.check() == 300, "a second pass is a whole pass"
    again = write(tmp_path / f"again.jsonl{suffix}", frames)
    whole = path.read_bytes()
    assert whole == again.read_bytes(), "equal frames give equal files"
    if suffix == ".gz":
        assert whole[4:8] == bytes(4), "no wall time in the file"
    if suffix == ".zst":
        assert zstandard.get_frame_parameters(whole).has_checksum, "damage in a block is seen"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_empty_tape_is_a_tape(tmp_path, suffix):
    assert read(write(tmp_path / f"t{suffix}", [])) == ([], None)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_single_packed_stream_and_blocks_of_any_size(tmp_path, monkeypatch, suffix):
    frames = frames_of(50)
    path = tmp_path / "t"
    path.write_bytes(pack(suffix, lines_of(frames)))
    for size in (5, 64, 1 << 14):
        monkeypatch.setattr(tape, "_READ", size)
        found, truncated = read(path)
        assert [(ns, json.loads(frame)) for ns, frame in found] == [(ns, json.loads(frame)) for ns, frame in frames]
        assert truncated is None


def test_the_format_is_known_by_content_not_by_name(tmp_path):
    path = write(tmp_path / "t.jsonl.zst", frames_of(3))
    assert read(path.rename(tmp_path / "t.jsonl")) == (frames_of(3), None)


def test_frames_that_are_no_single_json_line_are_kept(tmp_path):
    frames = [(1, b"PONG"), (2, b'{\n "a": 1.10,\r\n "b":"x\\ny"}'), (3, b"\xff{"), (4, b'["spaced" , 2]'), (5, b"")]
    found, _ = read(write(tmp_path / "t", frames))
    replaced = '"\ufffd{"'.encode()
    assert found == [(1, b'"PONG"'), (2, b'{"a":1.10,"b":"x\\ny"}'), (3, replaced), (4, b'["spaced" , 2]'), (5, b'""')]


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1), suffix=st.sampled_from(SUFFIXES), one_stream=st.booleans())
def test_a_cut_tail_is_read_to_its_last_whole_line_and_said(tmp_path_factory, cut, suffix, one_stream):
    folder = tmp_path_factory.mktemp("cut")
    frames = frames_of(60)
    path = write(folder / f"t{suffix}", frames)
    if one_stream:
        path.write_bytes(pack(suffix, lines_of(frames)))
    whole = path.read_bytes()
    first = len(whole) // 2
    kept = first + round(cut * (len(whole) - first))
    path.write_bytes(whole[:kept])
    found, truncated = read_loosely(path)
    expected = [(ns, json.loads(frame)) for ns, frame in frames]
    assert found == expected[: len(found)]
    if suffix == "":
        assert len(found) >= whole[:kept].count(b"\n") - 1
    if kept < len(whole) and len(found) < len(frames):
        # A cut between two blocks leaves a whole, shorter tape: nothing can tell it from one.
        between = kept in block_ends(whole, suffix)
        assert (truncated is None) == between
        assert between or ("cut off" in truncated and str(path) in truncated and "\n" not in truncated)


def read_loosely(path):
    try:
        found, truncated = read(path)
    except TapeError as error:
        assert "expected a tape header" in str(error), "only a tape cut inside its header is refused"
        return [], "cut off before the header " + str(path)
    return [(ns, json.loads(frame)) for ns, frame in found], truncated


def block_ends(whole, suffix):
    if suffix == "":
        # A line that lacks only its line feed is whole.
        return {end for place, byte in enumerate(whole) if byte == 10 for end in (place, place + 1)}
    ends, rest = set(), whole
    while rest:
        stream = tape._unzip() if suffix == ".gz" else tape._unzstd()
        stream.decompress(rest)
        rest = stream.unused_data
        ends.add(len(whole) - len(rest))
    return ends


def test_every_cut_of_a_last_line(tmp_path):
    frames = frames_of(3)
    whole = lines_of(frames)
    start = whole[:-1].rfind(b"\n") + 1
    path = tmp_path / "t"
    for kept in range(start + 1, len(whole) - 1):
        path.write_bytes(whole[:kept])
        found, truncated = read(path)
        assert len(found) == 2 and truncated == f"{path}: cut off in line 4; read to line 3"
    path.write_bytes(whole[:-1])
    assert len(read(path)[0]) == 3 and read(path)[1] is None, "only the line feed is missing: the line is whole"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("line", "damage"),
    [
        (2, b'{"recv_ns":1,"channel":"market","frame":{"n"'),
        (30, b""),
        (30, b'{"recv_ns":"1","frame":{}}'),
        (30, b'{"recv_ns":-1,"frame":{}}'),
        (30, b'{"recv_ns":1}'),
        (30, b'{"recv_ns":29000001001,"frame":{}}{"recv_ns":29000001001,"frame":{}}'),
        (61, b"\x00\x00\x00"),
    ],
)
def test_damage_is_refused_with_its_line(tmp_path, suffix, line, damage):
    """In the middle, and in a last line that has its end."""
    lines = lines_of(frames_of(60)).split(b"\n")
    lines[line - 1] = damage
    path = tmp_path / "t"
    path.write_bytes(pack(suffix, b"\n".join(lines)))
    reader, found = TapeReader(path), []
    with pytest.raises(TapeError) as caught:
        found.extend(reader)
    assert str(caught.value).startswith(f"{path}:{line}: expected a frame") and "\n" not in str(caught.value)
    assert len(found) == line - 2, "what stands before the damage is read"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_packing_is_refused(tmp_path, suffix):
    path = write(tmp_path / f"t{suffix}", frames_of(200))
    whole = bytearray(path.read_bytes())
    for place in range(len(whole) // 2, len(whole) // 2 + 8):
        whole[place] ^= 0xFF
    path.write_bytes(whole)
    with pytest.raises(TapeError, match=r":\d+: ") as caught:
        TapeReader(path).check()
    assert "\n" not in str(caught.value)


def test_time_never_steps_back(tmp_path):
    frames = frames_of(40)
    path = tmp_path / "t"
    same = [*frames[:20], (frames[19][0], b"{}"), *frames[20:]]
    path.write_bytes(lines_of(same))
    assert TapeReader(path).check() == 41, "an equal time is no step back"
    path.write_bytes(lines_of([*frames[:20], (frames[19][0] - 1, b"{}"), *frames[20:]]))
    with pytest.raises(TapeError, match=f"{path}:22: receive time steps back from {frames[19][0]}"):
        TapeReader(path).check()


def test_time_never_steps_back_between_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(tape, "_READ", 16)
    path = tmp_path / "t"
    path.write_bytes(lines_of([(2000, b"{}"), (1999, b"{}")]))
    with pytest.raises(TapeError, match=":3: receive time steps back"):
        TapeReader(path).check()


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\n",
        b"not json\n",
        b'{"recv_ns":1,"channel":"market","frame":{}}\n',
        b'{"tape":2,"venue":"x","instruments":[]}\n',
        b'{"tape":1,"instruments":[]}\n',
        b'{"tape":1,"venue":"x","instruments":{}}\n',
        b'{"tape":1,"venue":"x","instr',
    ],
)
def test_a_tape_without_its_header_is_refused(tmp_path, first):
    path = tmp_path / "t"
    path.write_bytes(first)
    with pytest.raises(TapeError, match=r":1: (expected a tape header|tape version 2)") as caught:
        TapeReader(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_is_a_tape_error(tmp_path):
    with pytest.raises(TapeError, match="cannot be read: No such file"):
        TapeReader(tmp_path / "none")


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tape, "_MAX_LINE", 1000)
    monkeypatch.setattr(tape, "_READ", 100)
    path = tmp_path / "t"
    path.write_bytes(json.dumps(HEADER).encode() + b"\n" + b"x" * 5000)
    with pytest.raises(TapeError, match=":2: a line of more than 1000 bytes"):
        TapeReader(path).check()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_kill_loses_at_most_five_seconds(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    writer = TapeWriter(path, HEADER)
    for recv_ns, frame in frames_of(100, step=SECOND // 4):
        writer.write(recv_ns, frame)
        found, truncated = read(path)
        assert truncated is None, "what is in the file is whole"
        kept = found[-1][0] if found else 1000 - SECOND // 4
        assert recv_ns - kept <= 5 * SECOND
    writer.flush()
    assert len(read(path)[0]) == 100 == writer.frames
    if suffix:
        assert len(block_ends(path.read_bytes(), suffix)) == 1 + 5, "the header, then one block in five seconds"


def test_the_writer_holds_no_more_than_a_block(tmp_path):
    path = tmp_path / "t"
    writer = TapeWriter(path, HEADER)
    for _ in range(5):
        writer.write(1, b'"' + b"x" * (1 << 19) + b'"')
    assert path.stat().st_size > 1 << 21
    writer.close()


def test_the_writer_never_overwrites_and_never_steps_back(tmp_path):
    path = write(tmp_path / "t", frames_of(2))
    with pytest.raises(FileExistsError):
        TapeWriter(path, HEADER)
    writer = TapeWriter(tmp_path / "u", HEADER)
    writer.write(5, b"{}")
    with pytest.raises(AssertionError):
        writer.write(4, b"{}")
    writer.close()


# The feed.


class Parser:
    """A simulated parser: every third frame tells nothing, and it remembers how many it saw."""

    def __init__(self):
        self.malformed = {}
        self.seen = 0

    def parse(self, frame):
        self.seen += 1
        told = msgspec.json.decode(frame)
        if told["n"] % 3 == 2:
            return []
        return [TopReported("m", told["n"], self.seen, 0)]


def feed_of(path):
    return TapeFeed(TapeReader(path), [INSTRUMENT], Parser())


def play(feed):
    told = []
    while (due := feed.next_ns()) is not None:
        told += [(due, event) for event in feed.advance(due)]
    return told


def test_feed_opens_with_its_instruments_and_plays_in_order(tmp_path):
    feed = feed_of(write(tmp_path / "t.zst", frames_of(9)))
    assert (feed.name, feed.next_ns(), feed.frames) == ("tape", 1000, 0)
    assert feed.advance(999) == []
    told = play(feed)
    assert told[:2] == [(1000, InstrumentListed(INSTRUMENT)), (1000, VenueUp("simulated", snapshots=False))]
    expected = [(1000 + n * SECOND, TopReported("m", n, n + 1, 0)) for n in (0, 1, 3, 4, 6, 7)]
    assert told[2:] == expected
    assert (feed.frames, feed.malformed, feed.truncated, feed.advance(1 << 62)) == (9, {}, None, [])


def test_feed_gives_all_that_is_due_and_nothing_more(tmp_path):
    path = write(tmp_path / "t", frames_of(9))
    feed = feed_of(path)
    first = feed.advance(1000 + 4 * SECOND)
    assert feed.frames == 5 and feed.next_ns() == 1000 + 5 * SECOND
    assert first + feed.advance(1 << 62) == [event for _, event in play(feed_of(path))]


def test_feed_ignores_commands_and_events(tmp_path):
    path = write(tmp_path / "t", frames_of(4))
    feed = feed_of(path)
    feed.execute(0, None)
    feed.observe(0, OperatorActed)
    assert play(feed) == play(feed_of(path))


def test_feed_skips_other_channels_and_counts_them(tmp_path):
    writer = TapeWriter(tmp_path / "t", HEADER)
    for recv_ns, frame in frames_of(6):
        writer.write(recv_ns, frame, "user" if recv_ns % (2 * SECOND) == 1000 else "market")
    writer.close()
    feed = feed_of(tmp_path / "t")
    play(feed)
    assert (feed.frames, feed.skipped) == (3, 3)


def test_feed_of_an_empty_tape_is_never_due(tmp_path):
    feed = feed_of(write(tmp_path / "t", []))
    assert feed.next_ns() is None and feed.advance(1 << 62) == []


@pytest.mark.parametrize("played", [0, 1, 5, 9])
def test_feed_continues_from_a_checkpoint(tmp_path, played):
    path = write(tmp_path / "t.gz", frames_of(9))
    feed = feed_of(path)
    for _ in range(played):
        feed.advance(feed.next_ns())
    saved = feed.checkpoint()
    other = feed_of(path)
    other.restore(saved)
    assert other.checkpoint() == saved and json.loads(saved)["frames"] == played
    assert play(other) == play(feed)


def test_feed_refuses_the_checkpoint_of_another_tape(tmp_path):
    feed = feed_of(write(tmp_path / "t", frames_of(9)))
    feed.advance(1 << 62)
    saved = feed.checkpoint()
    for place, frames in enumerate((frames_of(8), frames_of(9, step=2 * SECOND), [])):
        other = feed_of(write(tmp_path / f"other{place}", frames))
        with pytest.raises(TapeError, match="not the tape of the checkpoint"):
            other.restore(saved)


def test_feed_reports_a_cut_tape(tmp_path):
    path = write(tmp_path / "t", frames_of(9))
    path.write_bytes(path.read_bytes()[:-4])
    feed = feed_of(path)
    play(feed)
    assert feed.frames == 8 and feed.truncated == f"{path}: cut off in line 10; read to line 9"


def test_feed_stops_at_damage(tmp_path):
    path = tmp_path / "t"
    lines = lines_of(frames_of(9)).split(b"\n")
    lines[5] = b"{}"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(TapeError, match=":6: expected a frame"):
        play(feed_of(path))
