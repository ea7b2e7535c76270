"""Chains of VHDX files read as the one disk that they are, whatever each of them holds."""

from __future__ import annotations

import struct
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats.disk_file import DiskFile
from imageport.formats.linked_disk import LONGEST_CHAIN, LinkedDisk
from imageport.formats.opening import open_disk
from imageport.formats.vhdx import VhdxDisk
from imageport.model import Extent, ExtentState
from imageport.storage.memory import MemoryFolder
from tests.formats.chain_bytes import (
    FULL,
    METADATA,
    MIB,
    NOT_PRESENT,
    PARTIAL,
    UNDEFINED,
    UNMAPPED,
    UNMAPPED_DRAFT,
    ZERO,
    Layer,
    Written,
    locator,
    parent_pairs,
    write_layer,
)

STATES = (NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, UNMAPPED_DRAFT, FULL, PARTIAL)


def opened(folder: MemoryFolder, name: str) -> LinkedDisk:
    disk = open_disk(folder.open_read(name), folder)
    assert isinstance(disk, LinkedDisk)
    return disk


def read_all(disk: DiskFile) -> bytes:
    pieces = list(disk.read_many([(0, disk.size_bytes)]))
    assert [at for at, _ in pieces] == [0, *(at + len(data) for at, data in pieces)][:-1]
    assert all(0 < len(data) <= MIB for _, data in pieces)
    return b"".join(data for _, data in pieces)


def chain(folder: MemoryFolder, *layers: Layer) -> list[Written]:
    made: list[Written] = []
    for number, layer in enumerate(layers):
        name = f"gold.{number}.avhdx" if number else "gold.vhdx"
        made.append(write_layer(folder, name, layer, parent=made[-1] if made else None))
    return made


@st.composite
def layers(draw: st.DrawFn) -> list[Layer]:
    sector = draw(st.sampled_from([512, 4096]))
    size = draw(st.integers(1, 3 * MIB // sector)) * sector
    found = []
    for depth in range(draw(st.integers(1, 4))):
        block = draw(st.sampled_from([MIB, 2 * MIB]))
        if depth and draw(st.booleans()):
            size = max(sector, size + draw(st.integers(-900, 900)) * sector)
        blocks: dict[int, tuple[int, list[int]]] = {}
        for index in range(-(-size // block)):
            state = draw(st.sampled_from(STATES if depth else STATES[:-1]))
            blocks[index] = state, []
            if state == PARTIAL:
                sectors = min(block, size - index * block) // sector
                step, count = draw(st.integers(1, 9)), draw(st.integers(0, sectors))
                first = draw(st.integers(0, sectors))
                blocks[index] = state, list(range(first, min(sectors, first + count), step))
        found.append(Layer(size, block, sector, blocks))
    return found


def assert_extents_tell_the_truth(disk: DiskFile, content: bytes) -> None:
    at = 0
    for extent in disk.extents():
        assert extent.offset_bytes == at
        assert extent.length_bytes > 0
        at = extent.end_bytes
        if extent.state is not ExtentState.DATA:
            assert not any(content[extent.offset_bytes : at])
    assert at == len(content)


def assert_changes_are_all(disk: LinkedDisk, made: list[Written]) -> None:
    """What a chain says has changed since an ancestor is all that differs from it."""
    for ancestor, below in zip(disk.chain()[1:], reversed(made[:-1]), strict=True):
        changed = disk.changes_since(ancestor.content_key())
        assert changed is not None
        assert all(length > 0 for _, length in changed)
        ends = [0, *(offset + length for offset, length in changed)]
        assert all(end <= offset for end, (offset, _) in zip(ends, changed, strict=False))
        mine = bytearray(made[-1].content)
        before = bytearray(below.content[: len(mine)].ljust(len(mine), b"\0"))
        for offset, length in changed:
            mine[offset : offset + length] = before[offset : offset + length] = bytes(length)
        assert mine == before


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers(), st.lists(st.tuples(st.integers(0, 4 * MIB), st.integers(0, MIB)), max_size=4))
def test_any_chain_reads_as_the_disk_that_was_written(
    recipe: list[Layer], reads: list[tuple[int, int]]
) -> None:
    folder = MemoryFolder()
    made = chain(folder, *recipe)
    content = bytes(made[-1].content)
    with opened(folder, made[-1].name) as disk:
        assert disk.size_bytes == len(content)
        assert disk.sector_bytes == recipe[-1].sector_bytes
        assert read_all(disk) == content
        wanted = []
        for offset, length in sorted(reads):
            start = min(max(offset, sum(wanted[-1]) if wanted else 0), len(content))
            wanted.append((start, min(length, len(content) - start)))
            assert disk.read_at(*wanted[-1]) == content[start : sum(wanted[-1])]
        got = b"".join(data for _, data in disk.read_many(wanted))
        assert got == b"".join(content[at : at + count] for at, count in wanted)
        assert_extents_tell_the_truth(disk, content)
        assert_changes_are_all(disk, made)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers())
def test_many_chains_read_as_the_disks_that_were_written(recipe: list[Layer]) -> None:
    folder = MemoryFolder()
    made = chain(folder, *recipe)
    with opened(folder, made[-1].name) as disk:
        assert read_all(disk) == made[-1].content
        assert_extents_tell_the_truth(disk, bytes(made[-1].content))
        assert_changes_are_all(disk, made)


@pytest.mark.slow
def test_the_longest_chain_is_read_from_deep_within_a_program() -> None:
    """Each file costs two frames of Python's stack, of which there are 1000."""
    folder = MemoryFolder()
    sectors = [range(depth % 7, 2048, 97 + depth % 5) for depth in range(LONGEST_CHAIN)]
    steps = (Layer(MIB, blocks={0: (PARTIAL, some)}) for some in sectors[1:])
    made = chain(folder, Layer(MIB, blocks={0: (FULL, ())}), *steps)

    def from_frame(depth: int) -> bytes:
        return from_frame(depth - 1) if depth else read_all(disk)

    with opened(folder, made[-1].name) as disk:
        assert len(disk.chain()) == LONGEST_CHAIN
        assert from_frame(300) == made[-1].content


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        (NOT_PRESENT, ExtentState.DATA),
        (UNDEFINED, ExtentState.HOLE),
        (ZERO, ExtentState.ZERO),
        (UNMAPPED, ExtentState.HOLE),
        (UNMAPPED_DRAFT, ExtentState.HOLE),
        (FULL, ExtentState.DATA),
    ],
)
def test_every_state_over_a_parent_with_data_has_its_meaning(
    state: int, meaning: ExtentState
) -> None:
    folder = MemoryFolder()
    base = Layer(MIB, blocks={0: (FULL, ())})
    made = chain(folder, base, Layer(MIB, blocks={0: (state, ())}))
    with opened(folder, "gold.1.avhdx") as disk:
        assert list(disk.extents()) == [Extent(0, MIB, meaning)]
        assert read_all(disk) == made[1].content
        key = disk.chain()[1].content_key()
        assert disk.changes_since(key) == ([] if state == NOT_PRESENT else [(0, MIB)])
        assert disk.changes_since("another disk") is None


@pytest.mark.parametrize("block_bytes", [MIB, 32 * MIB])
def test_blocks_of_several_chunks_find_their_bitmaps(block_bytes: int) -> None:
    sector_bytes = 512
    folder = MemoryFolder()
    ratio = 2**23 * sector_bytes // block_bytes
    size = (2 * ratio + 1) * block_bytes + 3 * sector_bytes
    blocks = {
        0: (PARTIAL, [0, 9]),
        ratio - 1: (PARTIAL, [block_bytes // sector_bytes - 1]),
        ratio: (PARTIAL, [0]),
        2 * ratio + 1: (PARTIAL, [2]),
    }
    layer = Layer(size, block_bytes, sector_bytes, blocks)
    parent = write_layer(folder, "gold.vhdx", Layer(size, block_bytes, sector_bytes))
    made = write_layer(folder, "gold.1.avhdx", layer, parent=parent)
    places = [
        block * block_bytes + sector * sector_bytes
        for block, (_, sectors) in blocks.items()
        for sector in sectors
    ]
    with opened(folder, "gold.1.avhdx") as disk:
        data = [e for e in disk.extents() if e.state is ExtentState.DATA]
        # The last sector of one chunk and the first of the next are neighbours.
        lengths = {places[0]: 512, places[1]: 512, places[2]: 1024, places[4]: 512}
        assert data == [Extent(at, length, ExtentState.DATA) for at, length in lengths.items()]
        for at in places:
            start, end = max(0, at - sector_bytes), min(size, at + 2 * sector_bytes)
            assert disk.read_at(start, end - start) == made.content[start:end]


def test_a_parent_may_be_smaller_or_larger_than_its_child() -> None:
    folder = MemoryFolder()
    base = Layer(2 * MIB, blocks={0: (FULL, ()), 1: (FULL, ())})
    made = chain(folder, base, Layer(5 * MIB, blocks={3: (FULL, ())}), Layer(MIB))
    with opened(folder, "gold.1.avhdx") as disk:
        assert read_all(disk) == made[1].content
        assert list(disk.extents()) == [
            Extent(0, 2 * MIB, ExtentState.DATA),
            Extent(2 * MIB, MIB, ExtentState.HOLE),
            Extent(3 * MIB, MIB, ExtentState.DATA),
            Extent(4 * MIB, MIB, ExtentState.HOLE),
        ]
    with opened(folder, "gold.2.avhdx") as disk:
        assert read_all(disk) == made[0].content[:MIB]


def test_a_child_alone_is_never_read_as_zeros() -> None:
    folder = MemoryFolder()
    chain(folder, Layer(MIB, blocks={0: (FULL, ())}), Layer(MIB))
    with pytest.raises(UnsupportedDisk, match="only differences") as caught:
        open_disk(folder.open_read("gold.1.avhdx"))
    assert "gold.vhdx" in caught.value.message
    assert caught.value.hint
    with VhdxDisk(folder.open_read("gold.1.avhdx")) as alone:
        with pytest.raises(UnsupportedDisk, match="parent is not"):
            alone.read_at(0, 512)
        with pytest.raises(UnsupportedDisk, match="parent is not"):
            list(alone.extents())


def test_a_child_of_other_sectors_than_its_parent_is_refused() -> None:
    folder = MemoryFolder()
    chain(folder, Layer(MIB), Layer(MIB, sector_bytes=4096))
    with pytest.raises(BadDisk, match="sectors of 4096 bytes, its parent"):
        open_disk(folder.open_read("gold.1.avhdx"), folder)


def test_a_child_written_sector_by_sector_is_read_in_few_large_reads() -> None:
    folder = MemoryFolder()
    every_second = {block: (PARTIAL, range(0, 2048, 2)) for block in range(4)}
    base = Layer(4 * MIB, blocks=dict.fromkeys(range(4), (FULL, ())))
    made = chain(folder, base, Layer(4 * MIB, blocks=every_second))
    with opened(folder, "gold.1.avhdx") as disk:
        asked: list[tuple[int, int]] = []
        for stored in disk.stored_files():
            read_many = stored.file.read_many

            def counted(ranges, read_many=read_many):  # noqa: ANN001, ANN202
                wanted = list(ranges)
                asked.extend(wanted)
                return read_many(wanted)

            stored.file.read_many = counted  # type: ignore[method-assign]
        assert read_all(disk) == made[1].content
        assert disk.read_at(512, 3 * MIB) == made[1].content[512 : 3 * MIB + 512]
    assert len(asked) < 40  # 4096 pieces in either file
    assert sum(length for _, length in asked) <= 16 * MIB


def patched(folder: MemoryFolder, name: str, offset: int, data: bytes) -> None:
    with folder.open_write(name) as file:
        file.write_at(offset, data)


def test_a_partial_block_without_a_bitmap_is_refused() -> None:
    folder = MemoryFolder()
    layer = Layer(MIB, blocks={0: (PARTIAL, [1])})
    chain(folder, Layer(MIB), layer)
    patched(folder, "gold.1.avhdx", layer.bitmap_entry_at(0), bytes(8))
    with pytest.raises(BadDisk, match="sector bitmap of BAT entry 4096") as caught:
        open_disk(folder.open_read("gold.1.avhdx"), folder)
    assert "found none, though block entry 0 is partial, needed" in caught.value.message


@pytest.mark.parametrize("state", [FULL, PARTIAL])
def test_a_block_behind_the_end_of_the_disk_is_refused(state: int) -> None:
    folder = MemoryFolder()
    layer = Layer(MIB, blocks={0: (PARTIAL, [1])})
    chain(folder, Layer(MIB), layer)
    patched(folder, "gold.1.avhdx", layer.entry_at(5), struct.pack("<Q", 20 * MIB | state))
    with pytest.raises(BadDisk, match="block 5 of a disk of 1"):
        open_disk(folder.open_read("gold.1.avhdx"), folder)


@pytest.mark.parametrize("state", [1, 2, 3, 4, 5, 7])
def test_a_bitmap_entry_of_another_state_is_refused(state: int) -> None:
    folder = MemoryFolder()
    layer = Layer(MIB)
    chain(folder, Layer(MIB), layer)
    patched(folder, "gold.1.avhdx", layer.bitmap_entry_at(0), struct.pack("<Q", 4 * MIB | state))
    with pytest.raises(BadDisk, match=f"found state {state}"):
        open_disk(folder.open_read("gold.1.avhdx"), folder)


GOOD = parent_pairs(Written("gold.vhdx", uuid.UUID(int=5), bytearray()))
LOCATORS = {
    "parent locator at": bytes(10),
    "parent locator type": locator(GOOD, uuid.UUID(int=9)),
    "needed one of relative_path": locator({"parent_linkage": GOOD["parent_linkage"]}),
    "found no parent_linkage": locator({"relative_path": "gold.vhdx"}),
    "parent linkage at": locator(GOOD | {"parent_linkage": "{no GUID}"}),
    "a NUL inside": locator(GOOD | {"relative_path": "a\0b"}),
    "parent locator text": locator(GOOD)[:-2],
    "found 5 in 40 bytes": struct.pack("<16sHH20x", locator(GOOD)[:16], 0, 5),
    "at most 256": struct.pack("<16sHH20x", locator(GOOD)[:16], 0, 300),
    "that are no UTF-16": locator({"a": "b"})[:-4] + b"\x00\xd8\x00\xd8",
    "twice": locator(GOOD | {"relative_pathX": "x"}).replace(
        "relative_pathX".encode("utf-16-le"), "relative_path\0".encode("utf-16-le")
    ),
}


@pytest.mark.parametrize("words", LOCATORS)
def test_a_damaged_locator_is_refused_by_what_is_wrong(words: str) -> None:
    folder = MemoryFolder()
    chain(folder, Layer(MIB), Layer(MIB))
    packed = LOCATORS[words]
    # Its entry is the sixth of the table, its place in the region and its length at +16.
    (at,) = struct.unpack("<I", folder.read_bytes("gold.1.avhdx")[METADATA + 208 : METADATA + 212])
    patched(folder, "gold.1.avhdx", METADATA + 212, struct.pack("<I", len(packed)))
    patched(folder, "gold.1.avhdx", METADATA + at, packed)
    with pytest.raises(BadDisk) as caught:
        open_disk(folder.open_read("gold.1.avhdx"), folder)
    assert words in caught.value.message
    assert f"at offset {METADATA + at}" in caught.value.message
