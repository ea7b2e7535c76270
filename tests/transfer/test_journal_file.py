"""The journal survives torn tails, damage and other journals' leftovers; never a foreign error."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.errors import ImageportError
from imageport.model import BLOCK_BYTES
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import HEADER_BYTES, Journal, JournalHeader

NAME = "one.journal"
HEADER = JournalHeader("run", "content", "token", "snap-1", 100 * BLOCK_BYTES, "parent")
RECORD_BYTES = 44


def digest(index: int) -> bytes:
    return hashlib.sha256(str(index).encode()).digest()


def written(count: int, header: JournalHeader = HEADER) -> MemoryFolder:
    folder = MemoryFolder()
    journal = Journal(folder, NAME)
    journal.start(header)
    for index in range(count):
        journal.add(index, digest(index))
    journal.flush()
    journal.close()
    return folder


def damaged(folder: MemoryFolder, data: bytes) -> Journal:
    folder.write_bytes(NAME, data)
    return Journal(folder, NAME)


def test_what_was_flushed_is_found_again():
    folder = written(5)
    journal = Journal(folder, NAME)
    assert journal.load() == HEADER
    assert dict(journal.put) == {index: digest(index) for index in range(5)}
    journal.add(7, digest(7), put=False)
    journal.flush()
    journal.close()
    again = Journal(folder, NAME)
    again.load()
    assert (len(again.put), dict(again.same)) == (5, {7: digest(7)})
    again.close()


def test_a_journal_that_never_was_is_none():
    assert Journal(MemoryFolder(), NAME).load() is None


@pytest.mark.parametrize("missing_bytes", range(1, RECORD_BYTES))
def test_a_torn_tail_is_cut_and_written_over(missing_bytes: int):
    folder = written(3)
    journal = damaged(folder, folder.read_bytes(NAME)[:-missing_bytes])
    journal.load()
    assert sorted(journal.put) == [0, 1]
    journal.add(9, digest(9))
    journal.flush()
    journal.close()
    again = Journal(folder, NAME)
    again.load()
    assert sorted(again.put) == [0, 1, 9]
    again.close()


def test_records_behind_a_damaged_one_do_not_count():
    folder = written(5)
    data = bytearray(folder.read_bytes(NAME))
    data[HEADER_BYTES + 2 * RECORD_BYTES + 20] ^= 1
    journal = damaged(folder, bytes(data))
    journal.load()
    assert sorted(journal.put) == [0, 1]
    journal.close()


def test_records_of_an_earlier_journal_in_the_same_file_do_not_count():
    old = written(5).read_bytes(NAME)
    other = JournalHeader("run", "other content", "token2", "snap-2", 100 * BLOCK_BYTES)
    folder = written(2, other)
    journal = damaged(folder, folder.read_bytes(NAME) + old[HEADER_BYTES + 2 * RECORD_BYTES :])
    assert journal.load() == other
    assert sorted(journal.put) == [0, 1]
    journal.close()


def test_starting_anew_forgets_the_old_blocks():
    folder = written(5)
    journal = Journal(folder, NAME)
    journal.load()
    journal.start(HEADER)
    journal.close()
    again = Journal(folder, NAME)
    again.load()
    assert len(again.put) == 0
    again.close()


def test_a_header_that_would_not_fit_is_refused():
    journal = Journal(MemoryFolder(), NAME)
    with pytest.raises(ImageportError, match="header"):
        journal.start(JournalHeader("run", "c", "t", "h" * 5000, BLOCK_BYTES))
    journal.close()


def test_what_the_target_lost_is_forgotten_for_good():
    folder = written(5)
    journal = Journal(folder, NAME)
    journal.load()
    journal.forget([1, 3])
    assert sorted(journal.put) == [0, 2, 4]
    journal.add(3, digest(33))
    journal.flush()
    journal.close()
    again = Journal(folder, NAME)
    again.load()
    assert dict(again.put) == {0: digest(0), 2: digest(2), 3: digest(33), 4: digest(4)}
    again.close()


@pytest.mark.parametrize("missing_bytes", range(2 * RECORD_BYTES + 1))
def test_a_crash_while_blocks_are_forgotten_leaves_a_journal_to_ask_again(missing_bytes: int):
    folder = written(5)
    journal = Journal(folder, NAME)
    journal.load()
    journal.forget([1, 3])
    journal.close()
    data = folder.read_bytes(NAME)
    torn = damaged(folder, data[: len(data) - missing_bytes])
    assert torn.load() == HEADER
    kept = {0: [0, 2, 4], 1: [0, 2, 3, 4], 2: [0, 1, 2, 3, 4]}
    assert sorted(torn.put) == kept[-(-missing_bytes // RECORD_BYTES)]
    torn.forget({1, 3} & set(torn.put))
    torn.close()
    again = Journal(folder, NAME)
    again.load()
    assert sorted(again.put) == [0, 2, 4]
    again.close()


def test_a_deleted_journal_leaves_no_file():
    folder = written(5)
    journal = Journal(folder, NAME)
    journal.load()
    journal.delete()
    assert folder.list() == []


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_damage_gives_no_journal_or_a_true_beginning_of_it(data: st.DataObject):
    good = written(6).read_bytes(NAME)
    bad = bytearray(good)
    for _number in range(data.draw(st.integers(0, 4))):
        where = data.draw(
            st.one_of(st.integers(0, 200), st.integers(HEADER_BYTES - 4, len(good) - 1))
        )
        bad[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(bad)))
    tail = data.draw(st.binary(max_size=100))
    journal = damaged(MemoryFolder(), bytes(bad[:cut]) + tail)
    header = journal.load()
    if header is not None:
        assert header == HEADER
        assert dict(journal.put) == {index: digest(index) for index in range(len(journal.put))}
    journal.close()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=6000))
def test_bytes_that_are_no_journal_are_none(data: bytes):
    journal = damaged(MemoryFolder(), data)
    assert journal.load() is None
    journal.start(HEADER)
    journal.close()


@given(
    st.one_of(
        st.integers(max_value=0), st.integers(min_value=2**49), st.text(), st.none(), st.floats()
    )
)
def test_a_header_with_an_absurd_size_is_none(size: object):
    facts = {"run_key": "r", "content_key": "c", "token": "t", "handle": "h", "parent": ""}
    text = json.dumps(facts | {"size_bytes": size}).encode()
    block = struct.pack("<8sII", b"IMPTJRN1", len(text), zlib.crc32(text)) + text
    journal = damaged(MemoryFolder(), block.ljust(HEADER_BYTES, b"\0"))
    assert journal.load() is None
    journal.close()
