"""The writer: order, threads, resumption, and a power cut at every single operation."""

from __future__ import annotations

import random
import subprocess
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from crashing_file import CrashingFile
from vhdx_bytes import SIZE, WRITES, expected

from imageport.errors import BadDisk, ImageportError, InputError, ShareFull
from imageport.formats._vhdx_layout import UNFINISHED_SIGNATURE
from imageport.formats.opening import open_disk
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import MIB, ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from imageport.storage.memory import MemoryFolder


def read_all(disk: VhdxDisk) -> bytes:
    return b"".join(data for _, data in disk.read_many([(0, disk.size_bytes)]))


def test_a_disk_never_written_to_is_one_hole(folder: LocalFolder) -> None:
    with folder.create("x") as file:
        VhdxWriter(file, 64 * MIB).finish()
    with VhdxDisk(folder.open_read("x")) as disk:
        assert [extent.state for extent in disk.extents()] == [ExtentState.HOLE]
    assert (folder.root / "x").stat().st_blocks * 512 < MIB


def test_the_ids_that_were_given_are_in_the_file(folder: LocalFolder) -> None:
    disk_id, data_guid = uuid.uuid4(), uuid.uuid4()
    with folder.create("x") as file:
        VhdxWriter(file, 64 * MIB, disk_id=disk_id, data_write_guid=data_guid).finish()
    with VhdxDisk(folder.open_read("x")) as disk:
        assert disk.disk_id == str(disk_id)
        assert disk.data_write_guid == str(data_guid)


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_disks_of_both_sector_sizes_read_back(folder: LocalFolder, sector_bytes: int) -> None:
    size = 100 * MIB + 4096
    with folder.create("x") as file:
        writer = VhdxWriter(file, size, sector_bytes=sector_bytes)
        writer.write_at(size - 4096, b"end!" * 1024)
        writer.finish()
    with VhdxDisk(folder.open_read("x")) as disk:
        assert (disk.size_bytes, disk.sector_bytes) == (size, sector_bytes)
        assert disk.read_at(size - 4096, 4096) == b"end!" * 1024


def test_a_disk_with_sector_bitmap_entries_is_what_qemu_reads(folder: LocalFolder) -> None:
    # Blocks of 256 MiB: a bitmap entry follows every 16 payload entries, so 20 GiB has 4.
    writes = {
        at * 256 * MIB + 5 * MIB: bytes([at + 1]) * 4096 for at in (0, 15, 16, 17, 31, 32, 79)
    }
    with folder.create("x") as file:
        writer = VhdxWriter(file, 20 * 1024 * MIB, block_bytes=256 * MIB)
        for offset, data in writes.items():
            writer.write_at(offset, data)
        writer.finish()
    with VhdxDisk(folder.open_read("x")) as disk:
        assert all(disk.read_at(offset, 4096) == data for offset, data in writes.items())
    commands = [
        word
        for offset, data in writes.items()
        for word in ("-c", f"read -q -P {data[0]} {offset} 4096")
    ]
    done = subprocess.run(
        ["qemu-io", "-r", "-f", "vhdx", *commands, str(folder.root / "x")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stdout
    assert not done.stderr


def test_many_threads_may_write_in_any_order(folder: LocalFolder) -> None:
    size = 96 * MIB
    pieces = [(at * MIB + 1000, random.Random(at).randbytes(300_000)) for at in range(95)]  # noqa: S311
    random.Random(0).shuffle(pieces)  # noqa: S311
    with folder.create("x") as file:
        writer = VhdxWriter(file, size, block_bytes=4 * MIB)

        def put(piece: tuple[int, bytes]) -> None:
            writer.write_at(*piece)
            if piece[0] % 7 == 0:
                writer.flush()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, pieces))
        writer.finish()
    wanted = bytearray(size)
    for offset, data in pieces:
        wanted[offset : offset + len(data)] = data
    with VhdxDisk(folder.open_read("x")) as disk:
        assert read_all(disk) == bytes(wanted)


def test_an_unfinished_file_is_no_disk_for_anybody(folder: LocalFolder) -> None:
    with folder.create("x") as file:
        writer = VhdxWriter(file, 64 * MIB)
        writer.write_at(0, b"x" * 512)
        writer.flush()
    with pytest.raises(BadDisk, match="never finished"):
        open_disk(folder.open_read("x"))
    done = subprocess.run(
        ["qemu-img", "info", "-f", "vhdx", str(folder.root / "x")],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0


def test_reopening_goes_on_where_flush_ended(folder: LocalFolder) -> None:
    writes = list(WRITES.items())
    with folder.create("x") as file:
        writer = VhdxWriter(file, SIZE, block_bytes=MIB)
        writer.write_at(*writes[0])
        writer.flush()
    for write in writes[1:]:
        with folder.open_write("x") as file:
            writer = VhdxWriter.reopen(file)
            assert not writer.finished
            writer.write_at(*write)
            writer.flush()
    with folder.open_write("x") as file:
        VhdxWriter.reopen(file).finish()
    with VhdxDisk(folder.open_read("x")) as disk:
        assert read_all(disk) == expected()


def test_finishing_twice_and_writing_after_it_keep_the_file_right(folder: LocalFolder) -> None:
    with folder.create("x") as file:
        writer = VhdxWriter(file, 8 * MIB, block_bytes=MIB)
        writer.write_at(0, b"a" * 512)
        writer.finish()
        writer.finish()
        first = file.read_at(0, 8)
        writer.write_at(4 * MIB, b"b" * 512)
        assert (first, file.read_at(0, 8)) == (b"vhdxfile", UNFINISHED_SIGNATURE)
        writer.finish()
    with folder.open_write("x") as file:
        again = VhdxWriter.reopen(file)
        assert again.finished
        again.finish()
    with VhdxDisk(folder.open_read("x")) as disk:
        assert disk.read_at(0, 2) + disk.read_at(4 * MIB, 2) == b"aabb"


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(5 * MIB), b"vhdxfile" + bytes(3 * MIB)])
def test_a_file_that_is_not_ours_is_not_taken_up(folder: LocalFolder, content: bytes) -> None:
    (folder.root / "x").write_bytes(content)
    with folder.open_write("x") as file, pytest.raises(BadDisk):
        VhdxWriter.reopen(file)
    assert (folder.root / "x").read_bytes() == content


@pytest.mark.parametrize(
    ("size", "block", "sector"),
    [
        (0, 32 * MIB, 512),
        (513, 32 * MIB, 512),
        (512, 32 * MIB, 4096),
        (1 << 47, 32 * MIB, 512),
        (MIB, 3 * MIB, 512),
        (MIB, 512 * MIB, 512),
        (MIB, 0, 512),
        (MIB, MIB, 520),
    ],
)
def test_impossible_geometry_is_refused_before_anything_is_written(
    folder: LocalFolder, size: int, block: int, sector: int
) -> None:
    with folder.create("x") as file:
        with pytest.raises(InputError):
            VhdxWriter(file, size, block_bytes=block, sector_bytes=sector)
        assert file.size_bytes == 0


def test_a_file_that_holds_something_is_not_overwritten(folder: LocalFolder) -> None:
    (folder.root / "x").write_bytes(b"precious")
    with folder.open_write("x") as file, pytest.raises(InputError, match="empty"):
        VhdxWriter(file, MIB)
    assert (folder.root / "x").read_bytes() == b"precious"


@pytest.mark.parametrize(("offset", "length"), [(8 * MIB - 100, 512), (-512, 512), (8 * MIB, 1)])
def test_writes_outside_the_disk_are_refused(folder: LocalFolder, offset: int, length: int) -> None:
    with folder.create("x") as file, pytest.raises(InputError):
        VhdxWriter(file, 8 * MIB).write_at(offset, bytes(length))


def test_a_full_disk_passes_through_and_what_was_flushed_stays() -> None:
    store = MemoryFolder(capacity_bytes=3 * MIB)
    written = 0
    with store.create("x") as file:
        writer = VhdxWriter(file, 64 * MIB, block_bytes=MIB)

        def fill() -> None:
            nonlocal written
            for at in range(0, 64 * MIB, 65536):
                writer.write_at(at, b"d" * 65536)
                writer.flush()
                written = at + 65536

        with pytest.raises(ShareFull):
            fill()
    assert written
    with store.open_write("x") as file:
        VhdxWriter.reopen(file).finish()
    with VhdxDisk(store.open_read("x")) as disk:
        assert disk.read_at(0, written) == b"d" * written


def _session(file: CrashingFile, writer: VhdxWriter | None = None) -> list[tuple[int, bytes]]:
    """Write, flush and finish; return (operations when flush returned, expected disk)."""
    writer = writer or VhdxWriter(file, 4 * MIB, block_bytes=MIB)
    disk = bytearray(4 * MIB)
    kept: list[tuple[int, bytes]] = []
    dice = random.Random(4)  # noqa: S311
    for step in range(6):
        for _ in range(3):
            offset = dice.randrange(4 * MIB // 512 - 9) * 512
            data = dice.randbytes(dice.randrange(1, 9) * 512)
            writer.write_at(offset, data)
            disk[offset : offset + len(data)] = data
        if step == 3:
            writer.finish()
        writer.flush()
        kept.append((len(file.operations), bytes(disk)))
    writer.finish()
    kept.append((len(file.operations), bytes(disk)))
    return kept


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_power_cut_at_any_operation_loses_nothing_that_was_flushed(
    in_memory: Callable[[bytes], ByteFile], seed: int
) -> None:
    file = CrashingFile()
    kept = _session(file)
    dice = random.Random(seed)  # noqa: S311
    ever = _ever_written(kept)
    for count in range(1, len(file.operations) + 1):
        content = file.after_crash(count, dice)
        flushed = [disk for operations, disk in kept if operations <= count]
        if content.startswith(b"vhdxfile"):
            _assert_is_sound(in_memory(content))
        try:
            reopened = CrashingFile(content)
            writer = VhdxWriter.reopen(reopened)
        except BadDisk:
            assert not flushed  # only a file killed while it was created may be lost
            continue
        if flushed:
            _assert_holds(reopened, writer, flushed[-1], ever, in_memory)


def _assert_is_sound(file: ByteFile) -> None:
    """A file that claims to be a VHDX is one, whatever was lost."""
    with VhdxDisk(file) as disk:
        read_all(disk)


def _assert_holds(
    file: CrashingFile,
    writer: VhdxWriter,
    flushed: bytes,
    ever: list[set[bytes]],
    in_memory: Callable[[bytes], ByteFile],
) -> None:
    """Each sector is what was flushed, or what a later write put there."""
    writer.finish()
    with VhdxDisk(in_memory(bytes(file.content))) as disk:
        found = read_all(disk)
    for sector, contents in enumerate(ever):
        at = sector * 512
        content = found[at : at + 512]
        assert content == flushed[at : at + 512] or content in contents, f"sector {sector}"


def _ever_written(kept: list[tuple[int, bytes]]) -> list[set[bytes]]:
    """Return for each sector what it ever held at a flush, and what was written between."""
    disks = [disk for _, disk in kept]
    return [{disk[at : at + 512] for disk in disks} - {bytes(512)} for at in range(0, 4 * MIB, 512)]


def test_space_of_a_block_whose_entry_was_lost_comes_back_as_zeros() -> None:
    file = CrashingFile()
    writer = VhdxWriter(file, 4 * MIB, block_bytes=MIB)
    writer.flush()
    before = len(file.operations)
    writer.write_at(2 * MIB, b"s" * MIB)  # allocated and written, the table never
    assert all(kind != "flush" for kind, _, _ in file.operations[before:])
    reopened = CrashingFile(bytes(file.content))
    again = VhdxWriter.reopen(reopened)
    again.write_at(0, b"n" * 512)
    again.finish()
    disk = VhdxDisk(reopened)
    assert disk.read_at(0, MIB) == b"n" * 512 + bytes(MIB - 512)
    assert disk.read_at(2 * MIB, MIB) == bytes(MIB)


def test_an_error_while_flushing_keeps_the_table_pages_for_the_next_try() -> None:
    class Failing(CrashingFile):
        fails = False

        def flush(self) -> None:
            if self.fails:
                raise ShareFull("Cannot flush 'x': no space left.")
            super().flush()

    file = Failing()
    writer = VhdxWriter(file, 4 * MIB, block_bytes=MIB)
    writer.write_at(0, b"x" * 512)
    file.fails = True
    with pytest.raises(ImageportError):
        writer.flush()
    file.fails = False
    table = len(file.operations)
    writer.flush()
    assert any(kind == "write" for kind, _, _ in file.operations[table:])
