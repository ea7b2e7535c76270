"""A pending log is applied in memory: the disk reads as if it had been detached, untouched."""

from __future__ import annotations

import itertools
import struct
import subprocess
import time
import uuid
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats._patched_file import PatchedFile, Patches
from imageport.formats._vhdx_layout import Header
from imageport.formats._vhdx_log import replayed
from imageport.formats.opening import open_disk
from imageport.formats.vhdx import VhdxDisk
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder
from tests.formats.chain_bytes import (
    BAT,
    FULL,
    KIB,
    METADATA,
    MIB,
    PARTIAL,
    Layer,
    sealed,
    write_layer,
)
from tests.formats.log_bytes import GUID, PAGE, crashed, entry, page, scrambled, with_log

InMemory = Callable[[bytes], ByteFile]
LAYER = Layer(3 * MIB, blocks={0: (FULL, ()), 2: (FULL, ())})
PAYLOAD = 4 * MIB
"""Where block 0 lies."""


@pytest.fixture(scope="module")
def sound() -> bytes:
    folder = MemoryFolder()
    write_layer(folder, "x", LAYER)
    return folder.read_bytes("x", 1 << 30)


@pytest.fixture(scope="module")
def guest() -> bytes:
    folder = MemoryFolder()
    return bytes(write_layer(folder, "x", LAYER).content)


def guest_of(in_memory: InMemory, content: bytes) -> bytes:
    with VhdxDisk(in_memory(content)) as disk:
        whole = disk.read_at(0, disk.size_bytes)
        assert b"".join(data for _, data in disk.read_many([(0, disk.size_bytes)])) == whole
        assert "replayed" in str(disk.details()["log"])
        assert sum(extent.length_bytes for extent in disk.extents()) == disk.size_bytes
        return whole


@pytest.mark.parametrize(
    "offsets",
    [
        [BAT],
        [METADATA],
        [METADATA + 64 * KIB],
        [192 * KIB, 256 * KIB],
        [PAYLOAD, PAYLOAD + 5 * PAGE, PAYLOAD + MIB - PAGE],
        [BAT, METADATA, METADATA + 64 * KIB, 192 * KIB, 256 * KIB, PAYLOAD + MIB],
    ],
    ids=["table", "metadata table", "metadata items", "region tables", "payload", "all of them"],
)
@pytest.mark.parametrize("first", [0, 9 * PAGE, MIB - PAGE, MIB - 3 * PAGE])
def test_any_page_may_lie_in_the_log(
    in_memory: InMemory, sound: bytes, guest: bytes, offsets: list[int], first: int
) -> None:
    assert guest_of(in_memory, crashed(sound, offsets, first=first)) == guest


def test_the_source_is_not_written(sound: bytes) -> None:
    folder = MemoryFolder()
    content = crashed(sound, [BAT, METADATA])
    folder.write_bytes("x.vhdx", content)
    before = folder.stat("x.vhdx")
    with open_disk(folder.open_read("x.vhdx", deny_write=True), folder) as disk:
        disk.read_at(0, disk.size_bytes)
        disk.check_unchanged()
    assert folder.read_bytes("x.vhdx", 1 << 30) == content
    assert folder.stat("x.vhdx") == before


def test_a_later_entry_wins_over_an_earlier_one(
    in_memory: InMemory, sound: bytes, guest: bytes
) -> None:
    wrong = b"\x11" * PAGE
    first = entry(7, [(BAT, wrong), (PAYLOAD, 8 * PAGE)], tail=0)
    second = entry(8, [(BAT, page(sound, BAT)), (PAYLOAD, page(sound, PAYLOAD))], tail=0)
    content = with_log(scrambled(sound, BAT), {0: first, len(first): second})
    found = guest_of(in_memory, content)
    assert found[:PAGE] == guest[:PAGE]
    assert found[PAGE : 8 * PAGE] == bytes(7 * PAGE)
    assert found[8 * PAGE :] == guest[8 * PAGE :]


def test_only_what_the_newest_entry_names_is_replayed(
    in_memory: InMemory, sound: bytes, guest: bytes
) -> None:
    """What lies before the tail was written to its place long ago, and overwritten there."""
    old = entry(3, [(PAYLOAD, b"\x33" * PAGE)], tail=0)
    new = entry(4, [(BAT, page(sound, BAT))], tail=len(old))
    content = with_log(scrambled(sound, BAT), {0: old, len(old): new})
    assert guest_of(in_memory, content) == guest


def test_entries_of_another_log_and_older_sequences_do_not_count(
    in_memory: InMemory, sound: bytes, guest: bytes
) -> None:
    garbage = b"\x44" * PAGE
    other = uuid.UUID(int=1)
    content = with_log(
        scrambled(sound, BAT),
        {
            0: entry(90, [(BAT, garbage)], tail=0, log_guid=other),
            64 * KIB: entry(20, [(BAT, page(sound, BAT))], tail=64 * KIB),
            128 * KIB: entry(19, [(BAT, garbage)], tail=128 * KIB),
            256 * KIB: entry(99, [(BAT, garbage)], tail=0),  # what it begins with is gone
        },
    )
    assert guest_of(in_memory, content) == guest


@pytest.mark.parametrize("torn_at", [0, 8, 16, 40, 70, 4 * KIB + 2, 4 * KIB + 5, 8 * KIB - 1])
def test_a_torn_entry_and_what_follows_are_as_if_never_written(
    in_memory: InMemory, sound: bytes, torn_at: int
) -> None:
    """The log's last write was cut by the crash: what was whole before it counts."""
    first = entry(5, [(BAT, page(sound, BAT))], tail=0)
    torn = bytearray(entry(6, [(PAYLOAD, b"\x55" * PAGE)], tail=0))
    torn[torn_at] ^= 0x10
    later = entry(7, [(PAYLOAD, b"\x66" * PAGE)], tail=0)
    places = {0: first, len(first): bytes(torn), len(first) + len(torn): later}
    content = with_log(scrambled(sound, BAT), places)
    assert guest_of(in_memory, content)[:PAGE] == page(sound, PAYLOAD)


def test_an_entry_may_be_padded_to_larger_sectors(
    in_memory: InMemory, sound: bytes, guest: bytes
) -> None:
    packed = bytearray(entry(5, [(BAT, page(sound, BAT))], tail=0) + bytes(2 * PAGE))
    struct.pack_into("<I", packed, 8, len(packed))
    content = with_log(scrambled(sound, BAT), {0: sealed(bytes(packed))})
    assert guest_of(in_memory, content) == guest


def test_a_log_that_fills_its_region_and_starts_in_its_middle_is_replayed(
    in_memory: InMemory, sound: bytes, guest: bytes
) -> None:
    offsets = [PAYLOAD + at * PAGE for at in range(127)] + [BAT]
    content = crashed(sound, offsets, first=40 * 2 * PAGE)
    assert guest_of(in_memory, content) == guest


def test_the_file_grows_by_what_the_log_says(in_memory: InMemory, sound: bytes) -> None:
    """A crash may lose the growth of the file; the log knows how long it was."""
    cut = sound[: 5 * MIB]  # block 2 lies at 5 MiB
    restored = entry(5, [(5 * MIB + PAGE, b"\x77" * PAGE)], tail=0, flushed=5 * MIB, last=6 * MIB)
    content = with_log(cut, {0: restored})
    found = guest_of(in_memory, content)
    assert found[2 * MIB :] == bytes(PAGE) + b"\x77" * PAGE + bytes(MIB - 2 * PAGE)


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a file cut behind the log's back": (
        lambda c: with_log(c, {0: entry(5, [], tail=0, flushed=len(c) + MIB)}),
        "cut short: the log needs",
    ),
    "no entry at all": (lambda c: with_log(c, {}), "needed a complete sequence"),
    "a sequence whose beginning is gone": (
        lambda c: with_log(c, {PAGE: entry(5, [], tail=0)}),
        "needed a complete sequence",
    ),
    "a write over the headers": (
        lambda c: with_log(c, {0: entry(5, [(64 * KIB, bytes(PAGE))], tail=0)}),
        "log descriptor",
    ),
    "zeros over the log": (
        lambda c: with_log(c, {0: entry(5, [(MIB, MIB)], tail=0)}),
        "log descriptor",
    ),
    "growth without end": (
        lambda c: with_log(c, {0: entry(5, [], tail=0, last=1 << 60)}),
        "file size by the log",
    ),
    "a zeroed range without end": (
        lambda c: with_log(c, {0: entry(5, [(8 * MIB, 1 << 62)], tail=0)}),
        "file size by the log",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_log_that_cannot_be_replayed_is_refused_with_the_reason(
    in_memory: InMemory, sound: bytes, name: str
) -> None:
    change, words = REFUSED[name]
    with pytest.raises(BadDisk) as caught:
        VhdxDisk(in_memory(change(sound)))
    assert words in caught.value.message


@pytest.mark.parametrize(
    "bad",
    [
        entry(0, [], tail=0),
        entry(5, [(BAT + 1, bytes(PAGE))], tail=0),
        entry(5, [(BAT, 100)], tail=0),
        entry(5, [], tail=100),
        entry(5, [], tail=2 * MIB),
    ],
    ids=["sequence zero", "a place at no page", "zeros of no page", "tail at no page", "tail out"],
)
def test_an_entry_with_an_impossible_field_is_no_entry(
    in_memory: InMemory, sound: bytes, bad: bytes
) -> None:
    with pytest.raises(BadDisk, match="complete sequence"):
        VhdxDisk(in_memory(with_log(sound, {0: bad})))


def test_more_descriptors_than_a_log_holds_are_not_replayed(
    in_memory: InMemory, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imageport.formats._vhdx_log.MAX_DESCRIPTORS", 100)
    for count, at_most in ((100, True), (101, False)):
        content = with_log(sound, {0: entry(5, [(7 * MIB, PAGE)] * count, tail=0)})
        if at_most:
            VhdxDisk(in_memory(content)).close()
            continue
        with pytest.raises(UnsupportedDisk, match="more than 100 descriptors") as caught:
            VhdxDisk(in_memory(content))
        assert caught.value.hint


def test_a_log_of_entries_over_each_other_takes_no_time(in_memory: InMemory, sound: bytes) -> None:
    """Every page claims to begin an entry that fills the log."""
    log = bytearray(MIB)
    for at in range(0, MIB, PAGE):
        head = (b"loge", 0, MIB, 0, 5, 0, 0, GUID.bytes_le, 0, 0)
        struct.pack_into("<4sIIIQII16sQQ", log, at, *head)
    started = time.process_time()
    with pytest.raises(BadDisk, match="over each other"):
        VhdxDisk(in_memory(with_log(sound, {0: bytes(log)})))
    assert time.process_time() - started < 5


def test_lengths_that_entries_claim_cost_nothing_until_they_are_sound(sound: bytes) -> None:
    """Every page of a large log claims to fill it, by a descriptor that is none."""
    log_bytes = 32 * MIB
    head = (b"loge", 0, log_bytes, 0, 5, 1, 0, GUID.bytes_le, 0, 0)
    page_of_log = struct.pack("<4sIIIQII16sQQ", *head).ljust(PAGE, b"\0")
    layout_header = Header(9, GUID, GUID, GUID, 0, 1, log_bytes, len(sound))
    folder = MemoryFolder()
    folder.write_bytes("x", sound + page_of_log * (log_bytes // PAGE))
    with folder.open_read("x") as file:
        started = time.process_time()
        with pytest.raises(BadDisk, match="complete sequence"):
            replayed(file, layout_header)
        assert time.process_time() - started < 5


def test_a_child_and_its_parent_may_both_have_pending_logs() -> None:
    """Also the sector bitmap of a child may lie in its log."""
    folder = MemoryFolder()
    base = write_layer(folder, "gold.vhdx", LAYER)
    child = Layer(3 * MIB, blocks={0: (PARTIAL, range(0, 2048, 3)), 1: (FULL, ())})
    made = write_layer(folder, "gold.1.avhdx", child, parent=base)
    bitmap = 5 * MIB  # behind the first payload block
    for name, offsets in (
        ("gold.vhdx", [BAT, PAYLOAD]),
        ("gold.1.avhdx", [BAT, bitmap, PAYLOAD + PAGE, METADATA]),
    ):
        content = folder.read_bytes(name, 1 << 30)
        folder.write_bytes(name, crashed(content, offsets))
    with open_disk(folder.open_read("gold.1.avhdx"), folder) as disk:
        assert disk.read_at(0, disk.size_bytes) == made.content
        assert b"".join(data for _, data in disk.read_many([(0, 3 * MIB)])) == made.content


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6), st.booleans()), max_size=12),
    st.integers(0, 20 * 4096),
    st.integers(0, 20 * 4096),
)
def test_patches_read_as_if_they_had_been_written(
    writes: list[tuple[int, int, bool]], offset: int, length: int
) -> None:
    folder = MemoryFolder()
    wanted = bytearray(b"\x01" * 20 * PAGE)
    folder.write_bytes("x", bytes(wanted))
    patches = Patches()
    for number, (at, count, zero) in enumerate(writes):
        pages = count if zero else 1
        data = None if zero else bytes([number + 2]) * PAGE
        patches.put(at * PAGE, pages * PAGE, data)
        end = (at + pages) * PAGE
        if pages:
            wanted.extend(bytes(max(0, end - len(wanted))))
            wanted[at * PAGE : end] = data or bytes(end - at * PAGE)
    size = max(20 * PAGE, patches.end_bytes)
    with PatchedFile(folder.open_read("x"), patches, size) as file:
        assert size == len(wanted)
        offset = min(offset, size)
        length = min(length, size - offset)
        assert file.read_at(offset, length) == wanted[offset : offset + length]
        assert b"".join(data for _, data in file.read_many([(0, size)])) == wanted
        stored = file.allocated_ranges()
        assert all(sum(one) <= other[0] for one, other in itertools.pairwise(stored))
        for page_at in range(0, size, PAGE):
            inside = any(at <= page_at < at + count for at, count in stored)
            assert inside or not any(wanted[page_at : page_at + PAGE])


@pytest.mark.parametrize("first", [0, 8 * PAGE])
def test_qemu_replays_the_log_to_the_same_bytes(
    folder: LocalFolder, sound: bytes, guest: bytes, first: int
) -> None:
    """qemu 7.2 loses entries of a log that wraps around its end; those it is not asked."""
    offsets = [BAT, METADATA, METADATA + 64 * KIB, PAYLOAD, PAYLOAD + MIB + PAGE]
    content = crashed(sound, offsets, first=first)
    path = folder.root / "x.vhdx"
    path.write_bytes(content)
    command = ["qemu-img", "check", "-q", "-r", "all", "-f", "vhdx", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    replayed = path.read_bytes()
    assert replayed != content
    with VhdxDisk(folder.open_read("x.vhdx")) as disk:
        assert "log" not in disk.details()
        assert disk.read_at(0, disk.size_bytes) == guest
    path.write_bytes(content)
    with VhdxDisk(folder.open_read("x.vhdx")) as disk:
        assert disk.read_at(0, disk.size_bytes) == guest
