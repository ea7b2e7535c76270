"""An earlier copy with what changed since: against a plain bytearray, read ahead on both sides.

Recipe: raw files in memory; byte n of the base is 1 + n // 512 % 127, of the top 128 more; a base
may be shorter than the top.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_overlay_disk import check_extents, whole

from imageport.errors import BadDisk, InputError, SourceChanged
from imageport.formats.patched_disk import PatchedDisk
from imageport.formats.raw import RawDisk
from imageport.model import MIB, ExtentState
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder

SECTOR = 512
AREAS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 40)), max_size=8)


class ReadingAhead(RawDisk):
    """Asks for so many ranges more than it has answered, as a share's reader does."""

    ahead = 4
    asked: list[int]

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        self.asked = []
        waiting: deque[tuple[int, int]] = deque()
        for offset, length in ranges:
            self.asked.append(offset)
            waiting.append((offset, length))
            if len(waiting) > self.ahead:
                yield from super().read_many([waiting.popleft()])
        while waiting:
            yield from super().read_many([waiting.popleft()])


def content(sectors: int, first: int) -> bytes:
    return b"".join(bytes([first + number % 127]) * SECTOR for number in range(sectors))


def disk_of(data: bytes, name: str = "disk", sector_bytes: int = SECTOR) -> ReadingAhead:
    folder = MemoryFolder()
    with folder.create(name) as file:
        file.write_at(0, data)
    return ReadingAhead(folder.open_read(name), sector_bytes=sector_bytes)


def areas_of(steps: Sequence[tuple[int, int]], sectors: int) -> list[tuple[int, int]]:
    found, at = [], 0
    for gap, count in steps:
        start = at + gap
        at = min(sectors, start + count)
        if start >= at:
            break
        found.append((start * SECTOR, (at - start) * SECTOR))
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(0, 100),
    AREAS,
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 60)), max_size=8),
)
def test_areas_come_from_the_newer_disk_and_the_rest_from_the_base(
    base_sectors: int,
    grown_sectors: int,
    steps: list[tuple[int, int]],
    reads: list[tuple[int, int]],
) -> None:
    sectors = base_sectors + grown_sectors
    newer = content(sectors, 128)
    model = bytearray(content(base_sectors, 1) + bytes(grown_sectors * SECTOR))
    areas = areas_of(steps, sectors)
    for offset, length in areas:
        model[offset : offset + length] = newer[offset : offset + length]
    with PatchedDisk(disk_of(content(base_sectors, 1)), disk_of(newer), areas) as disk:
        assert disk.size_bytes == len(model)
        assert whole(disk) == bytes(model)
        check_extents(disk, bytes(model))
        ranges = areas_of(reads, sectors)
        at = dict(disk.read_many(ranges))
        joined = b"".join(at[offset] for offset in sorted(at))
        assert joined == b"".join(bytes(model[o : o + n]) for o, n in ranges)
        assert list(at) == sorted(at)
        for offset, length in ranges:
            assert disk.read_at(offset, length) == bytes(model[offset : offset + length])


def test_both_disks_read_ahead_across_the_others_parts() -> None:
    base, newer = disk_of(content(4096, 1)), disk_of(content(4096, 128))
    areas = [(n * 64 * SECTOR, 32 * SECTOR) for n in range(1, 64)]
    with PatchedDisk(base, newer, areas) as disk:
        pieces = disk.read_many([(0, disk.size_bytes)])
        for _ in range(3):
            next(pieces)
        assert len(base.asked) > ReadingAhead.ahead
        assert len(newer.asked) > ReadingAhead.ahead
        assert len(list(pieces)) == 2 * 63 + 1 - 3


def test_pieces_are_small_and_holes_of_either_disk_stay_holes() -> None:
    folder = MemoryFolder()
    for name in ("base", "top"):
        with folder.create(name) as file:
            file.set_sparse()
            file.set_size(8 * MIB)
            file.write_at(0, b"x" * 3 * MIB)
    base, top = (RawDisk(folder.open_read(name)) for name in ("base", "top"))
    with PatchedDisk(base, top, [(2 * MIB, 4 * MIB)]) as disk:
        found = [(e.offset_bytes, e.length_bytes, e.state) for e in disk.extents()]
        assert found == [(0, 3 * MIB, ExtentState.DATA), (3 * MIB, 5 * MIB, ExtentState.HOLE)]
        assert {len(data) for _, data in disk.read_many([(0, 8 * MIB)])} == {MIB}


@pytest.mark.parametrize(
    ("areas", "words"),
    [
        ([(0, 1024), (512, 512)], "found bytes 512..1024, needed some between 1024"),
        ([(1024, 512), (0, 512)], "found bytes 0..512"),
        ([(8 * SECTOR, 512)], f"found bytes {8 * SECTOR}..{9 * SECTOR}"),
        ([(0, 0)], "found bytes 0..0"),
        ([(-512, 512)], "found bytes -512..0"),
        ([(512, 100)], "whole sectors of 512"),
        ([(100, 924)], "whole sectors of 512"),
    ],
)
def test_areas_that_cannot_be_are_refused(areas: list[tuple[int, int]], words: str) -> None:
    base, newer = disk_of(content(8, 1)), disk_of(content(8, 128))
    with base, newer, pytest.raises(BadDisk, match=words):
        PatchedDisk(base, newer, areas)


def test_disks_that_do_not_belong_together_are_refused() -> None:
    base, newer, coarse = (
        disk_of(content(n, 1), "d", s) for n, s in ((16, 512), (8, 512), (16, 4096))
    )
    with base, newer, coarse:
        with pytest.raises(InputError, match="found a base of 8192 bytes, needed at most 4096"):
            PatchedDisk(base, newer, [])
        with pytest.raises(InputError, match="found sectors of 512 bytes below, needed 4096"):
            PatchedDisk(base, coarse, [])


def test_a_read_past_the_end_is_refused() -> None:
    with PatchedDisk(disk_of(content(8, 1)), disk_of(content(8, 128)), [(0, 512)]) as disk:
        assert disk.read_at(8 * SECTOR, 0) == b""
        with pytest.raises(InputError, match="the disk has 4096"):
            disk.read_at(4000, 100)
        with pytest.raises(InputError, match="the disk has 4096"):
            list(disk.read_many([(4096, 1)]))


def test_the_key_changes_with_either_disk_and_with_the_areas() -> None:
    folder = MemoryFolder()
    for name in ("one", "two"):
        with folder.create(name) as file:
            file.write_at(0, content(8, 1))

    def key(base: str, newer: str, *areas: tuple[int, int]) -> str:
        disks = [RawDisk(folder.open_read(name)) for name in (base, newer)]
        with PatchedDisk(*disks, areas) as disk:
            return disk.content_key()

    keys = [key("one", "two"), key("two", "one"), key("one", "two", (0, 512)), key("one", "one")]
    assert len(set(keys)) == 4
    assert key("one", "two", (0, 512), (512, 512)) == key("one", "two", (0, 1024))


@pytest.mark.parametrize("changed", ["base", "top"])
def test_a_change_of_either_disk_is_noticed_and_both_are_closed(
    changed: str, tmp_path: Path
) -> None:
    for name in ("base", "top"):
        (tmp_path / name).write_bytes(content(8, 1))
    base, top = (RawDisk(LocalFolder(tmp_path).open_read(name)) for name in ("base", "top"))
    closed: list[str] = []
    with PatchedDisk(base, top, []) as disk:
        disk.check_unchanged()
        (tmp_path / changed).write_bytes(content(9, 1))
        with pytest.raises(SourceChanged, match=changed):
            disk.check_unchanged()
    for one, name in ((base, "base"), (top, "top")):
        one.close = lambda n=name: closed.append(n)  # type: ignore[method-assign,misc]
    disk.close()
    assert sorted(closed) == ["base", "top"]
