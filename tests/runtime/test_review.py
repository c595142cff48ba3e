"""A journal that somebody deletes under a running writer is a failure, and the loop ends on it."""

from __future__ import annotations

import pytest

from llm_maker.core.events import Tick
from llm_maker.runtime.journal import Checkpoint, JournalError
from llm_maker.runtime.journal_writer import JournalWriter


def test_a_deleted_journal_is_noticed_at_the_next_chance_to_rotate(tmp_path):
    writer = JournalWriter.create(tmp_path, "a", lambda: Checkpoint(b"{}", {}, {}))
    writer.write(1, 1, Tick(), [])
    writer.flush()
    assert not writer.rotate_if_due()
    writer.path.unlink()
    with pytest.raises(JournalError, match="deleted"):
        writer.rotate_if_due()
