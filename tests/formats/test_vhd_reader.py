"""What the VHD reader says to every field that may be wrong, and of every kind of sector.

Recipe: `vhd_bytes`; the small disk has 4 blocks of 512 KiB less 3 sectors, two of them in the file,
the later one first, with holes in their bitmaps.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
from vhd_bytes import (
    DIFFERENCING,
    FIXED,
    HEADER,
    KIB,
    MIB,
    TABLE,
    Made,
    Recipe,
    in_footers,
    in_header,
    make,
    put,
)

from imageport.errors import BadDisk, FileMissing, InputError, SourceChanged, UnsupportedDisk
from imageport.formats.opening import open_disk
from imageport.formats.vhd import VhdDisk
from imageport.model import Extent, ExtentState, FileIdentity
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder

InMemory = Callable[[bytes], ByteFile]
Change = Callable[[bytes], bytes]
SIZE = 2 * MIB - 3 * 512
SMALL = Recipe(SIZE, blocks={0: [(0, 9), (11, 1)], 3: [(5, 100), (1000, 24)]}, order=[3, 0])


@pytest.fixture(scope="module")
def small() -> Made:
    return make(SMALL)


def opened(in_memory: InMemory, content: bytes) -> VhdDisk:
    return VhdDisk(in_memory(content))


def test_a_dynamic_disk_reads_back_what_its_bitmaps_say(in_memory: InMemory, small: Made) -> None:
    with opened(in_memory, small.content) as disk:
        assert (disk.size_bytes, disk.sector_bytes, disk.block_bytes) == (SIZE, 512, 512 * KIB)
        assert disk.read_at(0, SIZE) == small.guest
        assert b"".join(data for _, data in disk.read_many([(0, SIZE)])) == small.guest
        assert disk.read_at(10 * 512 + 7, 999) == small.guest[10 * 512 + 7 :][:999]
        states = [e.state for e in disk.extents() if e.end_bytes <= 13 * 512]
        assert states == [ExtentState.DATA, ExtentState.HOLE, ExtentState.DATA]


@pytest.mark.parametrize("footer_bytes", [512, 511])
def test_a_fixed_disk_ends_with_its_footer(in_memory: InMemory, footer_bytes: int) -> None:
    made = make(Recipe(64 * KIB, kind=FIXED, footer_bytes=footer_bytes))
    with open_disk(in_memory(made.content)) as disk:
        assert isinstance(disk, VhdDisk)
        assert disk.read_at(0, 64 * KIB) == made.guest
        assert list(disk.extents()) == [Extent(0, 64 * KIB, ExtentState.DATA)]
        assert disk.details()["disk_type"] == "fixed"


def test_what_a_file_system_has_not_stored_of_a_fixed_disk_is_zero(folder: LocalFolder) -> None:
    made = make(Recipe(4 * MIB, kind=FIXED))
    with folder.create("x") as file:
        file.set_size(4 * MIB)
        file.write_at(4 * MIB, made.content[-512:])
        file.write_at(MIB, b"d" * 4096)
    with VhdDisk(folder.open_read("x")) as disk:
        assert [(e.offset_bytes, e.state) for e in disk.extents()] == [
            (0, ExtentState.ZERO),
            (MIB, ExtentState.DATA),
            (MIB + 4096, ExtentState.ZERO),
        ]


def test_a_footer_of_511_bytes_ends_a_dynamic_disk_too(in_memory: InMemory) -> None:
    made = make(replace(SMALL, footer_bytes=511))
    with opened(in_memory, made.content) as disk:
        assert disk.read_at(0, SIZE) == made.guest
        assert "notes" not in disk.details() or "damaged" not in str(disk.details()["notes"])


@pytest.mark.parametrize("lost", ["damaged", "cut off", "overwritten"])
def test_a_lost_footer_is_read_from_its_copy_and_said(
    in_memory: InMemory, small: Made, lost: str
) -> None:
    content = {
        "damaged": put(small.content, len(small.content) - 300, "B", 1),
        "cut off": small.content[:-512],
        "overwritten": small.content[:-512] + bytes(512),
    }[lost]
    with open_disk(in_memory(content)) as disk:
        assert disk.read_at(0, SIZE) == small.guest
        assert "its copy at the start was used" in str(disk.details()["notes"])


def test_a_damaged_copy_is_said_when_the_footer_is_sound(in_memory: InMemory, small: Made) -> None:
    with open_disk(in_memory(put(small.content, 20, "B", 1))) as disk:
        assert disk.read_at(0, SIZE) == small.guest
        assert "copy of the footer at the start is damaged" in str(disk.details()["notes"])


def footer_copy(content: bytes, at: int, code: str, value: object) -> bytes:
    """Change the copy alone."""
    return in_footers(content, at, code, value)[:512] + content[512:]


def entry(content: bytes, block: int, value: int) -> bytes:
    return put(content, TABLE + 4 * block, ">I", value)


def only_entry(content: bytes, value: int) -> bytes:
    """Let block 0 lie elsewhere and leave out block 3."""
    return entry(entry(content, 3, 0xFFFFFFFF), 0, value)


DAMAGE: dict[str, tuple[Change, str]] = {
    "both footers": (
        lambda c: put(put(c, 20, "B", 1), len(c) - 300, "B", 1),
        "footer at offset .*found checksum 0x.*needed checksum 0x",
    ),
    "both cookies": (
        lambda c: put(put(c, 20, "B", 1), len(c) - 512, "B", 1),
        "footer or copy at offset .*needed b'conectix'",
    ),
    "the format version": (
        lambda c: in_footers(c, 12, ">I", 0x20000),
        "format version at offset .*found 0x20000, needed 1.x",
    ),
    "the disk type": (lambda c: in_footers(c, 60, ">I", 0), "disk type at offset .*found 0"),
    "no size": (lambda c: in_footers(c, 48, ">Q", 0), "current size at offset"),
    "a size of half a sector": (lambda c: in_footers(c, 48, ">Q", SIZE + 7), "multiple of 512"),
    "a size that the table cannot hold": (
        lambda c: in_footers(c, 48, ">Q", 1 << 40),
        f"cut short: found {2 * MIB} bytes of disk, needed {1 << 40}",
    ),
    "a header inside the footer": (lambda c: in_footers(c, 16, ">Q", 8), "data offset at offset"),
    "a header past the end": (
        lambda c: in_footers(c, 16, ">Q", (1 << 64) - 1),
        "cut short: the dynamic header needs",
    ),
    "footers of two disks": (
        lambda c: footer_copy(c, 48, ">Q", SIZE + 512),
        f"current size at offset .*found {SIZE}, needed {SIZE + 512} as in its copy",
    ),
    "footers of two ids": (lambda c: footer_copy(c, 68, ">Q", 7), "unique id at offset"),
    "footers of two types": (lambda c: footer_copy(c, 60, ">I", 4), "disk type at offset"),
    "footers of two headers": (lambda c: footer_copy(c, 16, ">Q", 1024), "data offset at offset"),
    "the header's cookie": (lambda c: put(c, HEADER, "B", 7), "dynamic header: cookie at offset"),
    "the header's checksum": (
        lambda c: put(c, HEADER + 20, "B", 7),
        "dynamic header at offset 548: found checksum 0x.*needed checksum 0x",
    ),
    "the header's version": (lambda c: in_header(c, 24, ">I", 0x30000), "version at offset"),
    "a block size of 3 sectors": (lambda c: in_header(c, 32, ">I", 1536), "power of two"),
    "no block size": (lambda c: in_header(c, 32, ">I", 0), "block size at offset 544: found 0"),
    "a block size of 1 GiB": (lambda c: in_header(c, 32, ">I", 1 << 30), "block size at offset"),
    "a table of too few entries": (lambda c: in_header(c, 28, ">I", 3), "cut short: found"),
    "a table over the footer's copy": (lambda c: in_header(c, 16, ">Q", 100), "table offset"),
    "a table over the header": (lambda c: in_header(c, 16, ">Q", 1024), "table offset at offset"),
    "a table past the end": (
        lambda c: in_header(c, 16, ">Q", 1 << 62),
        "cut short: the block table needs",
    ),
    "a block over the header": (lambda c: only_entry(c, 1), "inside the copy|inside the dynamic"),
    "a block over the copy of the footer": (lambda c: only_entry(c, 0), "table entry 0 at offset"),
    "a block over the table": (lambda c: only_entry(c, 4), "sector 4, inside the block table"),
    "a block twice": (
        lambda c: c[: TABLE + 4] + c[TABLE : TABLE + 4] + c[TABLE + 8 :],
        "inside the block of entry 0, needed a place of its own",
    ),
    "blocks over each other": (lambda c: entry(c, 1, 6), "inside the block of entry"),
    "a block past the end": (
        lambda c: entry(c, 1, 1 << 30),
        "cut short: the block of table entry 1 needs",
    ),
    "a block over the footer": (
        lambda c: entry(c[:-512] + bytes(512 * KIB) + c[-512:], 1, len(c) // 512),
        "table entry 1 .*inside the footer",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_field_is_named_with_what_was_found_and_needed(
    in_memory: InMemory, small: Made, name: str
) -> None:
    change, words = DAMAGE[name]
    with pytest.raises(BadDisk, match=words) as caught:
        open_disk(in_memory(change(small.content)))
    assert "found" in caught.value.message
    assert isinstance(caught.value.fields["offset_bytes"], int)


def test_every_byte_of_footers_and_header_is_under_a_checksum(
    in_memory: InMemory, small: Made
) -> None:
    end = len(small.content) - 512
    for at in range(8, 512, 29):
        for start in (0, end):
            changed = put(small.content, start + at, "B", small.content[start + at] ^ 0x10)
            with open_disk(in_memory(changed)) as disk:
                assert "damaged" in str(disk.details()["notes"])
    for at in range(8, 1024, 41):
        changed = put(small.content, HEADER + at, "B", small.content[HEADER + at] ^ 0x10)
        with pytest.raises(BadDisk, match="dynamic header"):
            open_disk(in_memory(changed))


@pytest.mark.parametrize("footer_bytes", [512, 511])
def test_a_fixed_disk_without_a_sound_footer_is_damaged_not_raw(
    in_memory: InMemory, footer_bytes: int
) -> None:
    made = make(Recipe(64 * KIB, kind=FIXED, footer_bytes=footer_bytes))
    content = put(made.content, 510, "BB", 0x55, 0xAA)
    with pytest.raises(BadDisk, match=r"footer at offset .*checksum"):
        open_disk(in_memory(put(content, len(content) - 200, "B", 1)))


def test_reserved_types_are_not_supported(in_memory: InMemory, small: Made) -> None:
    with pytest.raises(UnsupportedDisk, match="type is 6"):
        open_disk(in_memory(in_footers(small.content, 60, ">I", 6)))


def test_a_table_that_would_take_our_memory_is_not_read(in_memory: InMemory) -> None:
    made = make(Recipe(MIB, blocks={}))
    content = in_header(in_footers(made.content, 48, ">Q", 1 << 40), 28, ">II", 1 << 31, 512)
    with pytest.raises((BadDisk, UnsupportedDisk), match=r"entries|cut short"):
        open_disk(in_memory(content))


@pytest.mark.parametrize("cut", [1, 511, 512, 513, 4096, 300_000])
def test_a_file_that_was_cut_is_refused_or_whole(
    in_memory: InMemory, small: Made, cut: int
) -> None:
    # Without its last sector it has all blocks; what is missing of the block may be padding.
    content = small.content[:-cut]
    if cut in (512, 511, 1):
        with open_disk(in_memory(content)) as disk:
            assert disk.read_at(0, SIZE) == small.guest
        return
    with pytest.raises(BadDisk, match="cut short: the block of table entry 0"):
        open_disk(in_memory(content))


def test_the_last_block_may_end_where_the_disk_ends(in_memory: InMemory) -> None:
    made = make(replace(SMALL, order=[0, 3]))
    content = made.content[: -512 - 3 * 512] + made.content[-512:]
    with opened(in_memory, content) as disk:
        assert disk.read_at(0, SIZE) == made.guest
    with pytest.raises(BadDisk, match=r"table entry 3 .*inside the footer"):
        opened(in_memory, made.content[: -512 - 4 * 512] + made.content[-512:])


def test_a_table_may_have_more_entries_than_the_disk_has_blocks(in_memory: InMemory) -> None:
    made = make(replace(SMALL, table_entries=4096))
    with opened(in_memory, put(made.content, TABLE + 16, ">I", 1)) as disk:
        assert disk.read_at(0, SIZE) == made.guest


class TestTheSize:
    """By the current size; the geometry where the file holds no more."""

    GEOMETRY = (3, 16, 63)
    BY_CHS = 3 * 16 * 63 * 512

    @pytest.mark.parametrize("creator", [b"win ", b"tap\0", b"caml", b"qem2"])
    def test_known_creators_write_it_exactly(self, in_memory: InMemory, creator: bytes) -> None:
        made = make(replace(SMALL, creator=creator, geometry=self.GEOMETRY))
        with opened(in_memory, made.content) as disk:
            assert disk.size_bytes == SIZE
            assert "notes" not in disk.details()

    @pytest.mark.parametrize("creator", [b"pxy ", b"vpc ", b"vbox", b"\xff\0\n;"])
    @pytest.mark.parametrize("kind", [3, FIXED])
    def test_no_tail_is_cut_and_the_geometry_is_said(
        self, in_memory: InMemory, creator: bytes, kind: int
    ) -> None:
        made = make(replace(SMALL, creator=creator, geometry=self.GEOMETRY, kind=kind))
        with opened(in_memory, made.content) as disk:
            assert disk.size_bytes == SIZE
            assert f"the geometry says {self.BY_CHS} bytes" in str(disk.details()["notes"])
            assert str(disk.details()["notes"]).isprintable()

    def test_a_file_that_holds_the_geometry_only_has_its_size(self, in_memory: InMemory) -> None:
        made = make(Recipe(self.BY_CHS, kind=FIXED, creator=b"vpc ", geometry=self.GEOMETRY))
        content = in_footers(made.content, 48, ">Q", self.BY_CHS + 4096)
        with opened(in_memory, content) as disk:
            assert disk.size_bytes == self.BY_CHS
            assert "the geometry's" in str(disk.details()["notes"])
        with pytest.raises(BadDisk, match="cut short"):
            opened(in_memory, in_footers(content, 28, "4s", b"win "))


CHILD = Recipe(SIZE, blocks={0: [(1, 2)], 1: [(0, 1024)]}, kind=DIFFERENCING, seed=1)
SECONDS = 800_000_000


def chain_in(folder: LocalFolder | MemoryFolder, **changes: object) -> Made:
    base = make(SMALL)
    made = make(replace(CHILD, parent=base, **changes))  # type: ignore[arg-type]
    for name, one in (("Gold.vhd", base), ("gold.1.avhd", made)):
        with folder.create(name) as file:
            file.write_at(0, one.content)
    return made


@pytest.mark.parametrize(
    "names",
    [
        {"paths": {b"W2ru": ".\\gold.vhd"}},
        {"paths": {b"W2ku": "D:\\store\\GOLD.VHD", b"MacX": "nonsense"}},
        {"parent_name": "E:\\old place\\gold.vhd"},
        {"parent_name": "renamed since.vhd"},
    ],
)
def test_a_parent_is_found_by_its_id_wherever_it_is_named(names: dict[str, object]) -> None:
    store = MemoryFolder()
    made = chain_in(store, **names)
    with open_disk(store.open_read("gold.1.avhd"), store) as disk:
        assert disk.read_at(0, SIZE) == made.guest
        assert disk.details()["disk_type"] == "differencing"


def test_a_child_without_its_folder_is_refused(in_memory: InMemory) -> None:
    made = make(replace(CHILD, parent=make(SMALL), paths={b"W2ru": ".\\gold.vhd"}))
    with pytest.raises(UnsupportedDisk, match=r"differences to its parent 'gold\.vhd'"):
        open_disk(in_memory(made.content))


def test_a_broken_link_tells_both_ids() -> None:
    store = MemoryFolder()
    made = chain_in(store, paths={b"W2ru": ".\\gold.vhd"})
    stranger = make(replace(SMALL, seed=9))
    store.delete("Gold.vhd")
    with pytest.raises(FileMissing, match=r"parent 'gold\.vhd'"):
        open_disk(store.open_read("gold.1.avhd"), store)
    with store.create("Gold.vhd") as file:
        file.write_at(0, stranger.content)
    with pytest.raises(BadDisk) as caught:
        open_disk(store.open_read("gold.1.avhd"), store)
    for one in (uuid.UUID(bytes=stranger.unique_id), uuid.UUID(bytes=make(SMALL).unique_id)):
        assert str(one) in caught.value.message
    assert made.unique_id != stranger.unique_id


@pytest.mark.parametrize("seconds_late", [0, 1, 3600, -86400])
def test_a_parent_written_at_another_time_is_told(folder: LocalFolder, seconds_late: int) -> None:
    made = chain_in(folder, paths={b"W2ru": ".\\gold.vhd"}, parent_seconds=SECONDS)
    written = SECONDS + 946_684_800 + seconds_late
    os.utime(folder.root / "Gold.vhd", (written, written))
    with open_disk(folder.open_read("gold.1.avhd"), folder) as disk:
        assert disk.read_at(0, SIZE) == made.guest
        told = f"was last written {seconds_late} s after" in str(disk.details().get("notes"))
        assert told == (abs(seconds_late) > 2)


@pytest.mark.parametrize(
    ("length", "offset", "words"),
    [
        (100_000, 2560, "parent locator W2ru at offset 2560: found 100000 bytes, needed at most"),
        (60, 1 << 60, "cut short: parent locator W2ru needs"),
    ],
)
def test_a_path_that_lies_nowhere_is_refused(
    in_memory: InMemory, length: int, offset: int, words: str
) -> None:
    made = make(replace(CHILD, parent=make(SMALL), paths={b"W2ru": ".\\gold.vhd"}))
    content = in_header(made.content, 576 + 8, ">IIQ", length, 0, offset)
    with pytest.raises(BadDisk, match=words):
        open_disk(in_memory(content), MemoryFolder())


def test_what_a_child_changed_is_known_without_reading_it() -> None:
    store = MemoryFolder()
    chain_in(store)
    with open_disk(store.open_read("Gold.vhd"), store) as base:
        key = base.content_key()
    with open_disk(store.open_read("gold.1.avhd"), store) as disk:
        assert isinstance(disk, VhdDisk)
        assert disk.changes_since(key) == [(512, 1024), (512 * KIB, 512 * KIB)]
        assert disk.changes_since("another") is None


class _Counting(ByteFile):
    """Counts reads and how much they are; knows what its file has stored."""

    def __init__(self, file: ByteFile) -> None:
        self._file = file
        self.location = file.location
        self.reads: list[tuple[int, int]] = []

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    def identity(self) -> FileIdentity:
        return self._file.identity()

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        self.reads.append((offset_bytes, length_bytes))
        return self._file.read_at(offset_bytes, length_bytes)

    def allocated_ranges(self) -> list[tuple[int, int]]:
        return self._file.allocated_ranges()

    def close(self) -> None:
        self._file.close()


def test_bitmaps_are_read_once_whatever_is_asked_for(in_memory: InMemory) -> None:
    many = Recipe(16 * MIB, blocks={block: [(0, 1024)] for block in range(0, 32, 2)})
    file = _Counting(in_memory(make(many).content))
    with VhdDisk(file) as disk:
        list(disk.extents())
        for at in range(0, 16 * MIB, 3 * MIB):
            disk.read_at(at, 4096)
        bitmaps = [read for read in file.reads if read[1] == 512 and read[0] > 4096]
        assert len(bitmaps) <= 16 + 1  # one a block; the footer
        assert len(set(bitmaps)) == len(bitmaps)


def test_a_huge_empty_disk_is_few_extents_at_once(in_memory: InMemory) -> None:
    count = 1_000_000
    small = Recipe(2 * MIB, block_bytes=2 * MIB, blocks={0: [(0, 1)]}, table_entries=count)
    made = make(small)
    content = put(made.content, TABLE + 4 * (count - 1), "4s", made.content[TABLE : TABLE + 4])
    content = in_footers(entry(content, 0, 0xFFFFFFFF), 48, ">Q", 2 * MIB * count)
    with opened(in_memory, content) as disk:
        assert [e.state for e in disk.extents()] == [
            ExtentState.HOLE,
            ExtentState.DATA,
            ExtentState.HOLE,
        ]


def test_a_block_with_every_other_sector_reads_in_bounded_time(in_memory: InMemory) -> None:
    runs = [(sector, 1) for sector in range(0, 4096, 2)]
    made = make(Recipe(8 * MIB, block_bytes=2 * MIB, blocks=dict.fromkeys(range(4), runs)))
    with opened(in_memory, made.content) as disk:
        assert b"".join(data for _, data in disk.read_many([(0, 8 * MIB)])) == made.guest


def test_reading_past_the_end_and_a_changed_file_are_refused(folder: LocalFolder) -> None:
    made = make(SMALL)
    (folder.root / "x.vhd").write_bytes(made.content)
    with VhdDisk(folder.open_read("x.vhd")) as disk:
        with pytest.raises(InputError):
            disk.read_at(SIZE - 1, 2)
        disk.check_unchanged()
        (folder.root / "x.vhd").write_bytes(made.content + b"x")
        with pytest.raises(SourceChanged):
            disk.check_unchanged()
