"""What the VHDX reader says to every single field that may be wrong, and to every block state."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from vhdx_bytes import (
    BAT,
    DISK_SIZE,
    HEADERS,
    KIB,
    LOGICAL,
    METADATA,
    MIB,
    PARAMETERS,
    PHYSICAL,
    REGION_TABLES,
    SIZE,
    bat_entry,
    expected,
    guid_bytes,
    in_headers,
    in_region_tables,
    put,
    sealed,
    with_bat_entry,
)

from imageport.errors import BadDisk, ImageportError, InputError, SourceChanged, UnsupportedDisk
from imageport.formats import _vhdx_bat, vhdx
from imageport.formats._vhdx_layout import Header
from imageport.formats._vhdx_structure import Structure
from imageport.formats.vhdx import VhdxDisk
from imageport.model import Extent, ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder

Open = Callable[[bytes], VhdxDisk]
Change = Callable[[bytes], bytes]
STRANGER = guid_bytes("11111111-2222-3333-4444-555555555555")
LOCATOR = guid_bytes("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
# Region table entries of our writer: metadata at +16, BAT at +48; metadata entries from +32.
METADATA_ENTRY, BAT_ENTRY = 16, 48


def test_a_sound_disk_reads_back_exactly(open_vhdx: Open, sound_vhdx: bytes) -> None:
    with open_vhdx(sound_vhdx) as disk:
        assert disk.size_bytes == SIZE
        assert disk.sector_bytes == 512
        assert disk.read_at(0, SIZE) == expected()
        assert b"".join(data for _, data in disk.read_many([(0, SIZE)])) == expected()


DAMAGE: dict[str, tuple[Change, str]] = {
    "the file type": (lambda c: b"vhdxfilf" + c[8:], "file type identifier"),
    "both headers' checksums": (
        lambda c: put(put(c, HEADERS[0] + 9, "B", 7), HEADERS[1] + 9, "B", 7),
        "both headers",
    ),
    "both headers' signatures": (
        lambda c: put(put(c, HEADERS[0], "B", 7), HEADERS[1], "B", 7),
        "both headers",
    ),
    "two different headers of one sequence": (
        lambda c: in_headers(c, 8, "<Q", 5),
        "of sequence 5 that differ",
    ),
    "the header version": (lambda c: in_headers(c, 66, "<H", 2), "header version"),
    "a log at no MiB": (lambda c: in_headers(c, 72, "<Q", MIB + 4096), "log place"),
    "a log in the header section": (lambda c: in_headers(c, 72, "<Q", 0), "log place"),
    "a log past the end": (lambda c: in_headers(c, 72, "<Q", 512 * MIB), "cut short: log"),
    "a log over the metadata": (lambda c: in_headers(c, 72, "<Q", 2 * MIB), "overlap with"),
    "both region tables' checksums": (
        lambda c: put(put(c, REGION_TABLES[0] + 99, "B", 7), REGION_TABLES[1] + 99, "B", 7),
        "both region tables",
    ),
    "region tables that differ": (
        lambda c: sealed(put(c, REGION_TABLES[1] + 999, "B", 7), REGION_TABLES[1], 64 * KIB),
        "two valid copies that differ",
    ),
    "the region count": (lambda c: in_region_tables(c, 8, "<I", 2048), "region count"),
    "no BAT region": (lambda c: in_region_tables(c, 8, "<I", 1), "no BAT region"),
    "no regions": (lambda c: in_region_tables(c, 8, "<I", 0), "no BAT region"),
    "a region twice": (
        lambda c: in_region_tables(
            c, BAT_ENTRY, "<16s", guid_bytes("8b7ca206-4790-4b9a-b8fe-575f050f886e")
        ),
        "a region twice",
    ),
    "a region at no MiB": (
        lambda c: in_region_tables(c, BAT_ENTRY + 16, "<Q", BAT + 1),
        "multiples of 1 MiB",
    ),
    "an empty region": (
        lambda c: in_region_tables(c, BAT_ENTRY + 24, "<I", 0),
        "multiples of 1 MiB, not empty",
    ),
    "a region in the header section": (
        lambda c: in_region_tables(c, METADATA_ENTRY + 16, "<Q", 0),
        "overlap with header section",
    ),
    "a region past the end": (
        lambda c: in_region_tables(c, BAT_ENTRY + 16, "<Q", 1 << 40),
        "cut short: region",
    ),
    "a region at the end of the number space": (
        lambda c: in_region_tables(c, BAT_ENTRY + 16, "<Q", (1 << 64) - MIB),
        "cut short: region",
    ),
    "the metadata signature": (lambda c: put(c, METADATA, "B", 1), "metadata table signature"),
    "the metadata count": (lambda c: put(c, METADATA + 10, "<H", 2048), "metadata entry count"),
    "an item inside the table": (
        lambda c: put(c, METADATA + 48, "<I", 64),
        "needed inside 65536..",
    ),
    "an item past the region": (lambda c: put(c, METADATA + 48, "<I", MIB - 4), "needed inside"),
    "an item of 2 MiB": (lambda c: put(c, METADATA + 52, "<I", 2 * MIB), "at most 1 MiB"),
    "an item of the wrong length": (
        lambda c: put(c, METADATA + 52, "<I", 4),
        "file parameters item",
    ),
    "items over each other": (
        lambda c: put(c, METADATA + 80, "<I", 64 * KIB + 4),
        "overlap with metadata item",
    ),
    "an item twice": (
        lambda c: put(c, METADATA + 64, "16s", c[METADATA + 32 : METADATA + 48]),
        "it twice",
    ),
    "no disk size": (
        lambda c: put(put(c, METADATA + 64, "16s", STRANGER), METADATA + 88, "<I", 0),
        "no virtual disk size",
    ),
    "a block size of 3 MiB": (lambda c: put(c, PARAMETERS, "<I", 3 * MIB), "block size"),
    "a block size of 512 KiB": (lambda c: put(c, PARAMETERS, "<I", MIB // 2), "block size"),
    "a block size of 512 MiB": (lambda c: put(c, PARAMETERS, "<I", 512 * MIB), "block size"),
    "no block size": (lambda c: put(c, PARAMETERS, "<I", 0), "block size"),
    "no size": (lambda c: put(c, DISK_SIZE, "<Q", 0), "virtual disk size"),
    "a size of half a sector": (lambda c: put(c, DISK_SIZE, "<Q", SIZE + 7), "virtual disk size"),
    "a size above 64 TiB": (lambda c: put(c, DISK_SIZE, "<Q", 1 << 50), "virtual disk size"),
    "a size that the BAT cannot hold": (lambda c: put(c, DISK_SIZE, "<Q", 1 << 40), "BAT region"),
    "sectors of 1024 bytes": (lambda c: put(c, LOGICAL, "<I", 1024), "logical sector size"),
    "physical sectors of 0 bytes": (lambda c: put(c, PHYSICAL, "<I", 0), "physical sector size"),
    "a reserved block state": (lambda c: with_bat_entry(c, 3, 4), "state 4"),
    "a partial block without parent": (lambda c: with_bat_entry(c, 3, 7, 9 * MIB), "partial"),
    "reserved bits in a BAT entry": (lambda c: with_bat_entry(c, 3, 0, 1 << 10), "reserved bits"),
    "a block in the header section": (lambda c: with_bat_entry(c, 3, 6, 0), "inside another"),
    "a block in the log": (lambda c: with_bat_entry(c, 3, 6, MIB), "inside another"),
    "a block in the BAT": (lambda c: with_bat_entry(c, 3, 6, BAT), "inside another"),
    "a block over another": (
        lambda c: with_bat_entry(c, 3, 6, bat_entry(c, 0)[1]),
        "block of BAT entry 3 at offset",
    ),
    "a block past the end": (lambda c: with_bat_entry(c, 3, 6, 700 * MIB), "cut short: the block"),
    "a pending log without entries": (
        lambda c: in_headers(c, 48, "<16s", STRANGER),
        "a complete sequence",
    ),
    "a pending log of no bytes": (
        lambda c: in_headers(in_headers(c, 48, "<16s", STRANGER), 68, "<I", 0),
        "log length",
    ),
    "a parent without a locator": (
        lambda c: put(c, PARAMETERS + 4, "<I", 2),
        "no parent locator",
    ),
    "an empty file": (lambda _: b"", "cut short"),
    "a file of 8 bytes": (lambda c: c[:8], "cut short: header"),
    "half a header section": (lambda c: c[: 200 * KIB], "cut short: region table"),
    "a file without its metadata": (lambda c: c[: 2 * MIB], "cut short: region"),
    "a file without its last MiB": (lambda c: c[:-MIB], "cut short: the block"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named_with_what_was_found_and_needed(
    open_vhdx: Open, sound_vhdx: bytes, name: str
) -> None:
    change, words = DAMAGE[name]
    with pytest.raises(BadDisk) as caught:
        open_vhdx(change(sound_vhdx))
    assert words in caught.value.message
    assert "needed" in caught.value.message or "needs" in caught.value.message
    assert caught.value.fields["object"]
    assert "offset_bytes" in caught.value.fields


UNSUPPORTED: dict[str, tuple[Change, str]] = {
    "a log of another version": (
        lambda c: in_headers(in_headers(c, 48, "<16s", STRANGER), 64, "<H", 1),
        "it has version 1",
    ),
    "a pending log of 64 MiB": (
        lambda c: in_headers(in_headers(c, 48, "<16s", STRANGER), 68, "<I", 64 * MIB),
        "at most 33554432 are replayed",
    ),
    "an unknown required region": (
        lambda c: in_region_tables(c, BAT_ENTRY, "<16s", STRANGER),
        "unknown region",
    ),
    "unknown required metadata": (
        lambda c: put(c, METADATA + 64, "16s", STRANGER),
        "unknown metadata",
    ),
    "required user metadata": (
        lambda c: put(c, METADATA + 32 + 24, "<I", 5),
        "unknown metadata",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_is_sound_but_unreadable_is_refused_with_a_hint(
    open_vhdx: Open, sound_vhdx: bytes, name: str
) -> None:
    change, words = UNSUPPORTED[name]
    with pytest.raises(UnsupportedDisk, match=words) as caught:
        open_vhdx(change(sound_vhdx))
    assert caught.value.hint


TOLERATED: dict[str, Change] = {
    "the older header is damaged": lambda c: put(c, HEADERS[0] + 9, "B", 7),
    "the second region table is damaged": lambda c: put(c, REGION_TABLES[1] + 99, "B", 7),
    "the first region table is damaged": lambda c: put(c, REGION_TABLES[0] + 99, "B", 7),
    "an unknown region that is not required": lambda c: (
        in_region_tables(
            in_region_tables(c, 8, "<I", 3),
            80,
            "<16sQII",
            STRANGER,
            bat_entry(c, 5)[1] + MIB,
            MIB,
            0,
        )
        + bytes(MIB)
    ),
    "user metadata that is not required": lambda c: put(
        put(c, METADATA + 10, "<H", 6),
        METADATA + 32 + 5 * 32,
        "<16sIII",
        STRANGER,
        128 * KIB,
        10,
        1,
    ),
    "no log at all": lambda c: in_headers(c, 68, "<IQ", 0, 0),
    "a last block that ends with the disk": lambda c: c[: bat_entry(c, 5)[1] + 3 * 512],
    "zeros behind the last block": lambda c: c + bytes(777),
}


@pytest.mark.parametrize("name", TOLERATED)
def test_what_the_specification_allows_is_read(
    open_vhdx: Open, sound_vhdx: bytes, name: str
) -> None:
    with open_vhdx(TOLERATED[name](sound_vhdx)) as disk:
        assert disk.read_at(0, SIZE) == expected()


def test_the_header_with_the_higher_sequence_counts(open_vhdx: Open, sound_vhdx: bytes) -> None:
    newer = uuid.UUID(int=7)
    content = put(sound_vhdx, HEADERS[0] + 8, "<Q", 9)
    content = sealed(put(content, HEADERS[0] + 32, "16s", newer.bytes_le), HEADERS[0], 4 * KIB)
    with open_vhdx(content) as disk:
        assert disk.data_write_guid == str(newer)


def test_a_new_data_write_guid_changes_the_content_key(
    folder: LocalFolder, sound_vhdx: bytes
) -> None:
    path = folder.root / "x.vhdx"
    path.write_bytes(sound_vhdx)
    with VhdxDisk(folder.open_read("x.vhdx")) as disk:
        before = disk.content_key()
        assert disk.data_write_guid in before
    stat = path.stat()
    path.write_bytes(in_headers(sound_vhdx, 32, "16s", STRANGER))
    import os  # noqa: PLC0415

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with VhdxDisk(folder.open_read("x.vhdx")) as disk:
        assert disk.content_key() != before


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        (0, ExtentState.HOLE),
        (1, ExtentState.HOLE),
        (2, ExtentState.ZERO),
        (3, ExtentState.HOLE),
        (5, ExtentState.HOLE),
        (6, ExtentState.DATA),
    ],
)
def test_every_block_state_has_its_meaning(
    open_vhdx: Open, sound_vhdx: bytes, state: int, meaning: ExtentState
) -> None:
    # Block 5 keeps its place in the file in every state, as writers may leave it.
    content = with_bat_entry(sound_vhdx, 5, state, bat_entry(sound_vhdx, 5)[1])
    with open_vhdx(content) as disk:
        assert list(disk.extents())[-1].state is meaning
        wanted = expected()[5 * MIB :] if state == 6 else bytes(3 * 512)
        assert disk.read_at(5 * MIB, 3 * 512) == wanted


def test_extents_inside_allocated_blocks_follow_what_is_stored(
    folder: LocalFolder, sound_vhdx: bytes
) -> None:
    with folder.create("x.vhdx") as file:
        for at in range(0, len(sound_vhdx), 64 * KIB):
            piece = sound_vhdx[at : at + 64 * KIB]
            if any(piece):
                file.write_at(at, piece)
        file.set_size(len(sound_vhdx))
    with VhdxDisk(folder.open_read("x.vhdx")) as disk:
        found = list(disk.extents())
    # Written: 100 KiB at 0 (stored in pieces of 64 KiB), 700 bytes before and behind 2 MiB, a tail.
    assert found == [
        Extent(0, 128 * KIB, ExtentState.DATA),
        Extent(128 * KIB, 2 * MIB - 192 * KIB, ExtentState.ZERO),
        Extent(2 * MIB - 64 * KIB, 128 * KIB, ExtentState.DATA),
        Extent(2 * MIB + 64 * KIB, MIB - 64 * KIB, ExtentState.ZERO),
        Extent(3 * MIB, 2 * MIB, ExtentState.HOLE),
        Extent(5 * MIB, 3 * 512, ExtentState.DATA),
    ]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, SIZE + 1), (SIZE, 1), (-1, 4), (0, -1), (SIZE + 1, 0)]
)
def test_reads_outside_the_disk_are_refused(
    open_vhdx: Open, sound_vhdx: bytes, offset: int, length: int
) -> None:
    with open_vhdx(sound_vhdx) as disk:
        with pytest.raises(InputError):
            disk.read_at(offset, length)
        with pytest.raises(InputError):
            list(disk.read_many([(offset, length)]))


def test_reading_many_ranges_gives_each_byte_once_in_order(
    open_vhdx: Open, sound_vhdx: bytes
) -> None:
    ranges = [(0, 10), (10, 2 * MIB), (3 * MIB - 5, 7), (SIZE - 600, 600)]
    with open_vhdx(sound_vhdx) as disk:
        pieces = list(disk.read_many(ranges))
    assert all(len(data) <= MIB for _, data in pieces)
    found = {at + i for at, data in pieces for i in (0, len(data) - 1)}
    assert sum(len(data) for _, data in pieces) == sum(length for _, length in ranges)
    assert min(found) == 0
    assert [at for at, _ in pieces] == sorted(at for at, _ in pieces)
    for at, data in pieces:
        assert data == expected()[at : at + len(data)]


class _Crumbs(ByteFile):
    """A server that answers in pieces of 1000 bytes and notes what was asked of it."""

    def __init__(self, inner: ByteFile) -> None:
        self.inner = inner
        self.location = inner.location
        self.asked: list[tuple[int, int]] = []

    @property
    def size_bytes(self) -> int:
        return self.inner.size_bytes

    def identity(self):  # noqa: ANN202
        return self.inner.identity()

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        return self.inner.read_at(offset_bytes, length_bytes)

    def read_many(self, ranges) -> Iterator[tuple[int, bytes]]:  # noqa: ANN001
        self.asked = list(ranges)  # all of them before the first answer: reading ahead
        for offset, length in self.asked:
            for at in range(offset, offset + length, 1000):
                yield at, self.inner.read_at(at, min(1000, offset + length - at))

    def allocated_ranges(self) -> list[tuple[int, int]]:
        return self.inner.allocated_ranges()

    def close(self) -> None:
        self.inner.close()


def test_a_server_may_answer_in_any_pieces_and_reads_are_in_flight_together(
    in_memory: Callable[[bytes], ByteFile], sound_vhdx: bytes
) -> None:
    file = _Crumbs(in_memory(sound_vhdx))
    with VhdxDisk(file) as disk:
        assert b"".join(data for _, data in disk.read_many([(0, SIZE)])) == expected()
    assert len(file.asked) == 4  # blocks 0, 1, 2 and 5


def test_a_file_cut_while_it_is_open_is_a_changed_source(
    folder: LocalFolder, sound_vhdx: bytes
) -> None:
    path = folder.root / "x.vhdx"
    path.write_bytes(sound_vhdx)
    with VhdxDisk(folder.open_read("x.vhdx")) as disk:
        disk.check_unchanged()
        with path.open("r+b") as other:
            other.truncate(4 * MIB)
        with pytest.raises(SourceChanged):
            disk.read_at(0, SIZE)
        with pytest.raises(SourceChanged):
            list(disk.read_many([(0, SIZE)]))
        with pytest.raises(SourceChanged, match="written meanwhile"):
            disk.check_unchanged()


def test_a_file_written_while_it_is_opened_is_a_changed_source(
    folder: LocalFolder, sound_vhdx: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the headers say of it, by which a child finds its parent, is old then."""
    path = folder.root / "x.vhdx"
    path.write_bytes(sound_vhdx)
    load_header = vhdx.load_header

    def load_and_write(file: ByteFile) -> Header:
        header = load_header(file)
        os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
        return header

    monkeypatch.setattr(vhdx, "load_header", load_and_write)
    with VhdxDisk(folder.open_read("x.vhdx")) as disk, pytest.raises(SourceChanged):
        disk.check_unchanged()


def test_a_table_of_millions_of_entries_is_read_and_more_is_refused(folder: LocalFolder) -> None:
    from vhdx_bytes import small_vhdx  # noqa: PLC0415

    content = small_vhdx()[: 3 * MIB]
    with folder.create("huge.vhdx") as file:
        # 1 TiB in blocks of 1 MiB: 1 Mi entries, 8 MiB of table, all holes.
        file.write_at(
            0, in_region_tables(put(content, DISK_SIZE, "<Q", 1 << 40), 72, "<I", 1 << 24)
        )
        file.set_size(80 * MIB)
    with VhdxDisk(folder.open_read("huge.vhdx")) as disk:
        assert list(disk.extents()) == [Extent(0, 1 << 40, ExtentState.HOLE)]
    with folder.create("huger.vhdx") as file:
        file.write_at(
            0, in_region_tables(put(content, DISK_SIZE, "<Q", 1 << 46), 72, "<I", 1 << 30)
        )
        file.set_size(1 << 31)
    with folder.open_read("huger.vhdx") as opened, pytest.raises(UnsupportedDisk, match="entries"):
        VhdxDisk(opened)


@pytest.mark.parametrize("state", [1, 2, 3, 5])
def test_blocks_without_data_are_judged_without_a_call_for_each(
    open_vhdx: Open, sound_vhdx: bytes, monkeypatch: pytest.MonkeyPatch, state: int
) -> None:
    """A small file may have a table of eight million of them."""
    content = sound_vhdx
    for block in (1, 3, 4):
        content = with_bat_entry(content, block, state, 77 * MIB)
    judged: list[int] = []
    judge = _vhdx_bat._place

    def noted(
        file: ByteFile, structure: Structure, index: int, block: int, entry: int
    ) -> tuple[int, int] | None:
        judged.append(index)
        return judge(file, structure, index, block, entry)

    monkeypatch.setattr(_vhdx_bat, "_place", noted)
    open_vhdx(content).close()
    assert judged == [index for index in range(6) if bat_entry(content, index)[0] == 6]


def test_errors_survive_json(open_vhdx: Open) -> None:
    with pytest.raises(ImageportError) as caught:
        open_vhdx(b"vhdxfile" + bytes(100))
    assert caught.value.as_dict()["code"] == "disk-corrupt"
