"""The VHD writers: order, threads, resumption, and a power cut at every single operation.

Recipe: disks of 2 and 4 MiB in blocks of 512 KiB, written at random places; see `crashing_file`.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from crashing_file import CrashingFile
from vhd_bytes import KIB, MIB, checksummed

from imageport.errors import BadDisk, InputError
from imageport.formats._vhd_layout import MAX_DISK_BYTES, UNFINISHED_COOKIE
from imageport.formats.opening import open_disk
from imageport.formats.vhd import VhdDisk
from imageport.formats.vhd_fixed_writer import FixedVhdWriter
from imageport.formats.vhd_writer import VhdWriter
from imageport.model import GIB, ExtentState
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.local import LocalFolder

Writer = VhdWriter | FixedVhdWriter
InMemory = Callable[[bytes], ByteFile]
KINDS = [VhdWriter, FixedVhdWriter]
SIZE = 4 * MIB
SESSION_BYTES = 2 * MIB


def new(kind: type[Writer], file: WritableFile, size: int = SIZE) -> Writer:
    return VhdWriter(file, size, block_bytes=512 * KIB) if kind is VhdWriter else kind(file, size)


def read_all(disk: VhdDisk) -> bytes:
    return b"".join(data for _, data in disk.read_many([(0, disk.size_bytes)]))


@pytest.mark.parametrize("size", [512, 40 * MIB, 100 * MIB + 7 * 512, 2040 * GIB])
def test_a_new_disk_is_laid_out_by_the_specification(folder: LocalFolder, size: int) -> None:
    with folder.create("x") as file:
        writer = VhdWriter(file, size)
        writer.write_at(0, b"a" * 512)
        writer.finish()
    with folder.open_read("x") as file:
        start = file.read_at(0, 2048)
        end = file.read_at(file.size_bytes - 512, 512)
    assert start[:512] == end == checksummed(end, 64)
    assert start[512:1536] == checksummed(start[512:1536], 36)
    cookie, features, version, header_at = struct.unpack_from(">8sIIQ", start)
    assert (cookie, features, version, header_at) == (b"conectix", 2, 0x10000, 512)
    creator, _, host, original, current = struct.unpack_from(">4sI4sQQ", start, 28)
    assert (creator, host, original, current) == (b"win ", b"Wi2k", size, size)
    cylinders, heads, sectors, kind = struct.unpack_from(">HBBI", start, 56)
    assert 0 <= size - cylinders * heads * sectors * 512 < heads * sectors * 512 or size > 127 * GIB
    assert kind == 3
    fields = struct.unpack_from(">8sQQIII", start, 512)
    blocks = -(-size // (2 * MIB))
    assert fields == (b"cxsparse", 2**64 - 1, 1536, 0x10000, blocks, 2 * MIB)
    (entry,) = struct.unpack_from(">I", start, 1536)
    assert (entry * 512 + 512) % 4096 == 0  # the data, not its bitmap
    with folder.open_read("x") as file:
        assert file.read_at(entry * 512, 1024) == b"\xff" * 512 + b"a" * 512


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_never_written_to_takes_no_room(folder: LocalFolder, kind: type[Writer]) -> None:
    with folder.create("x") as file:
        new(kind, file, 64 * MIB).finish()
    with VhdDisk(folder.open_read("x")) as disk:
        assert ExtentState.DATA not in {extent.state for extent in disk.extents()}
        assert disk.size_bytes == 64 * MIB
    assert (folder.root / "x").stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 700, -512, MAX_DISK_BYTES + 512])
def test_a_size_that_vhd_cannot_hold_is_refused(kind: type[Writer], size: int) -> None:
    file = CrashingFile()
    with pytest.raises(InputError, match=r"size: found .*needed 1\.\.2040 GiB"):
        new(kind, file, size)
    assert not file.operations


@pytest.mark.parametrize("block", [256 * KIB, 3 * MIB, 32 * MIB])
def test_a_block_size_that_pvs_is_not_tested_with_is_refused(block: int) -> None:
    with pytest.raises(InputError, match="block size: found"):
        VhdWriter(CrashingFile(), SIZE, block_bytes=block)


def test_blocks_too_small_for_the_places_that_a_table_can_name_are_refused() -> None:
    """2040 GiB in blocks of 512 KiB: their bitmaps and gaps take 16 GiB, 8 GiB are left."""
    file = CrashingFile()
    with pytest.raises(InputError, match="block size: found 524288, needed larger ones"):
        VhdWriter(file, MAX_DISK_BYTES, block_bytes=512 * KIB)
    assert not file.operations


def test_a_file_whose_places_are_used_up_takes_no_more_blocks(folder: LocalFolder) -> None:
    """Killed runs lost room: the last place that a table entry can name is taken."""
    with folder.create("x") as file:
        writer = VhdWriter(file, MAX_DISK_BYTES)
        writer.write_at(0, b"a" * 512)
        writer.flush()
        stride = 2 * MIB + 4096
        place = (2**32 - 2) * 512 // stride * stride - stride + 3584  # the data at 4 KiB
        file.write_at(1536, struct.pack(">I", place // 512))
        again = VhdWriter.reopen(file)
        with pytest.raises(BadDisk, match="its blocks would reach"):
            again.write_at(2 * MIB, b"b" * 512)


@pytest.mark.parametrize("kind", KINDS)
def test_an_existing_content_is_never_written_over(kind: type[Writer]) -> None:
    with pytest.raises(InputError, match="needed an empty one"):
        new(kind, CrashingFile(b"precious"))


@pytest.mark.parametrize("kind", KINDS)
def test_writing_past_the_end_is_refused(kind: type[Writer]) -> None:
    writer = new(kind, CrashingFile())
    for offset in (-1, SIZE - 511, SIZE):
        with pytest.raises(InputError, match=f"the disk has {SIZE}"):
            writer.write_at(offset, b"x" * 512)


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_may_write_in_any_order(folder: LocalFolder, kind: type[Writer]) -> None:
    size = 16 * MIB
    pieces = [(at * MIB + 1000, random.Random(at).randbytes(300_000)) for at in range(15)]  # noqa: S311
    random.Random(0).shuffle(pieces)  # noqa: S311
    with folder.create("x") as file:
        writer = new(kind, file, size)

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
    with VhdDisk(folder.open_read("x")) as disk:
        assert read_all(disk) == bytes(wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unfinished_file_is_no_disk_for_anybody(folder: LocalFolder, kind: type[Writer]) -> None:
    with folder.create("x") as file:
        writer = new(kind, file)
        writer.write_at(0, bytes(510) + b"\x55\xaa")
        writer.flush()
    with pytest.raises(BadDisk, match="VHD whose writing was never finished"):
        open_disk(folder.open_read("x"))
    command = ["qemu-img", "info", "-f", "vpc", str(folder.root / "x")]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_disk_can_be_written_again(kind: type[Writer], in_memory: InMemory) -> None:
    file = CrashingFile()
    writer = new(kind, file)
    writer.write_at(MIB, b"one" * 512)
    writer.finish()
    writer.finish()
    assert writer.finished
    again = kind.reopen(CrashingFile(bytes(file.content)))
    assert again.finished
    writer.write_at(3 * MIB, b"two" * 512)
    assert not writer.finished
    assert UNFINISHED_COOKIE in (bytes(file.content[:8]), bytes(file.content[-512:-504]))
    writer.finish()
    with VhdDisk(in_memory(bytes(file.content))) as disk:
        assert disk.read_at(MIB, 1536) == b"one" * 512
        assert disk.read_at(3 * MIB, 1536) == b"two" * 512
        assert disk.read_at(3 * MIB + 1536, 512 * KIB - 1536) == bytes(512 * KIB - 1536)


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 600, bytes(4096), b"conectix" + bytes(1016), UNFINISHED_COOKIE + bytes(2000)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_ours_is_not_taken_up(kind: type[Writer], content: bytes) -> None:
    with pytest.raises(BadDisk, match="needed the footer of a file that this program began"):
        kind.reopen(CrashingFile(content))


def test_neither_writer_takes_up_the_file_of_the_other() -> None:
    dynamic, fixed = CrashingFile(), CrashingFile()
    VhdWriter(dynamic, SIZE).finish()
    FixedVhdWriter(fixed, SIZE).finish()
    with pytest.raises(BadDisk):
        VhdWriter.reopen(fixed)
    with pytest.raises(BadDisk):
        FixedVhdWriter.reopen(dynamic)


def session(kind: type[Writer], file: CrashingFile) -> list[tuple[int, bytes]]:
    """Write, flush, finish, write again; return the disk as of each flush."""
    dice = random.Random(7)  # noqa: S311
    writer = new(kind, file, SESSION_BYTES)
    disk = bytearray(SESSION_BYTES)
    writer.flush()
    kept = [(len(file.operations), bytes(disk))]
    for step in range(6):
        for _ in range(3):
            offset = dice.randrange(SESSION_BYTES // 512 - 9) * 512
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_power_cut_at_any_operation_loses_nothing_that_was_flushed(
    in_memory: InMemory, kind: type[Writer], seed: int
) -> None:
    file = CrashingFile()
    kept = session(kind, file)
    dice = random.Random(seed)  # noqa: S311
    disks = [disk for _, disk in kept]
    ever = [
        {disk[at : at + 512] for disk in disks} | {bytes(512)}
        for at in range(0, SESSION_BYTES, 512)
    ]
    for count in range(1, len(file.operations) + 1):
        content = file.after_crash(count, dice)
        flushed = [disk for operations, disk in kept if operations <= count]
        assert_is_sound_or_none(
            in_memory(content), flushed[-1] if flushed else bytes(SESSION_BYTES), ever
        )
        try:
            reopened = CrashingFile(content)
            writer = kind.reopen(reopened)
        except BadDisk:
            assert not flushed  # only a file killed while it was created may be lost
            continue
        writer.finish()
        if flushed:
            with VhdDisk(in_memory(bytes(reopened.content))) as disk:
                assert_holds(read_all(disk), flushed[-1], ever)


def assert_is_sound_or_none(file: ByteFile, flushed: bytes, ever: list[set[bytes]]) -> None:
    """What is taken for a VHD is one, whatever was lost."""
    try:
        disk = open_disk(file)
    except BadDisk:
        return
    with disk:
        assert isinstance(disk, VhdDisk)
        assert "notes" not in disk.details()
        assert_holds(read_all(disk), flushed, ever)


def assert_holds(found: bytes, flushed: bytes, ever: list[set[bytes]]) -> None:
    """Each sector is what was flushed, or what a later write put there."""
    for sector, contents in enumerate(ever):
        at = sector * 512
        content = found[at : at + 512]
        if content == flushed[at : at + 512]:
            continue
        assert any(content), f"sector {sector} was lost"
        assert content in contents, f"sector {sector}"


def test_a_bitmap_that_never_reached_the_disk_is_made_whole(in_memory: InMemory) -> None:
    file = CrashingFile()
    writer = VhdWriter(file, SIZE, block_bytes=512 * KIB)
    writer.write_at(MIB, b"d" * 512)
    writer.flush()
    (entry,) = struct.unpack_from(">I", file.content, 1536 + 8)
    file.content[entry * 512 : entry * 512 + 512] = bytes(512)
    reopened = CrashingFile(bytes(file.content))
    VhdWriter.reopen(reopened).finish()
    with VhdDisk(in_memory(bytes(reopened.content))) as disk:
        assert disk.read_at(MIB, 1024) == b"d" * 512 + bytes(512)


def test_space_of_a_block_whose_entry_was_lost_comes_back_as_zeros(in_memory: InMemory) -> None:
    file = CrashingFile()
    writer = VhdWriter(file, SIZE, block_bytes=512 * KIB)
    writer.flush()
    writer.write_at(2 * MIB, b"s" * 512 * KIB)  # allocated and written, the table never
    reopened = CrashingFile(bytes(file.content))
    again = VhdWriter.reopen(reopened)
    again.write_at(0, b"n" * 512)
    again.finish()
    with VhdDisk(in_memory(bytes(reopened.content))) as disk:
        assert disk.read_at(0, MIB) == b"n" * 512 + bytes(MIB - 512)
        assert disk.read_at(2 * MIB, MIB) == bytes(MIB)


def test_a_damaged_unfinished_file_is_refused_or_taken_up() -> None:
    file = CrashingFile()
    writer = VhdWriter(file, SIZE, block_bytes=512 * KIB)
    writer.write_at(MIB, b"d" * 512)
    writer.flush()
    taken = 0
    for seed in range(80):
        dice = random.Random(seed)  # noqa: S311
        content = bytearray(file.content)
        for _ in range(dice.randrange(1, 3)):
            at = dice.choice(
                [dice.randrange(90), 512 + dice.randrange(60), 1536 + dice.randrange(32)]
            )
            content[at] = dice.choice([0, 1, 0x7F, 0xFF, dice.randrange(256)])
        content[:512] = content[:8] + checksummed(b"conectix" + content[8:512], 64)[8:]
        content[512:1536] = checksummed(bytes(content[512:1536]), 36)
        try:
            again = VhdWriter.reopen(Bounded(bytes(content)))
            again.write_at(0, b"x" * 512)
            again.finish()
            taken += 1
        except (BadDisk, InputError) as error:
            assert error.message.endswith(".")  # noqa: PT017
    assert taken


class Bounded(CrashingFile):
    """Refuses to grow past what such a disk may need."""

    def set_size(self, size_bytes: int) -> None:
        assert size_bytes <= 64 * MIB
        super().set_size(size_bytes)
