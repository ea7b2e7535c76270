"""VMDK files: sparse, flat, split and compressed; extents that stay in the folder; damage."""

from __future__ import annotations

import random
import struct
import subprocess
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.errors import (
    BadDisk,
    FileMissing,
    ImageportError,
    SourceChanged,
    UnsupportedDisk,
)
from imageport.formats import _vmdk_layout as layout
from imageport.formats._vmdk_grain_map import GrainMap
from imageport.formats.disk_file import DiskFile
from imageport.formats.opening import open_disk
from imageport.formats.vmdk import VmdkDisk
from imageport.formats.vmdk_packed import StreamOptimizedVmdk
from imageport.model import MIB, ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from tests.formats.vmdk_bytes import (
    NEWLINES,
    StreamRecipe,
    described,
    grain,
    header,
    sparse_vmdk,
)

InMemory = Callable[[bytes], ByteFile]
SECTOR = 512
GRAIN = 128 * SECTOR
SIZE = 40 * MIB + 3 * SECTOR


def write_raw(path: Path, seed: int) -> bytes:
    """Write a disk with data at random places, and return it."""
    dice = random.Random(seed)  # noqa: S311 - layouts
    content = bytearray(SIZE)
    for _ in range(12):
        at = dice.randrange(SIZE // SECTOR - 400) * SECTOR
        piece = dice.randbytes(dice.randrange(1, 40) * SECTOR) + b"text " * dice.randrange(9000)
        content[at : at + len(piece)] = piece
    content[-SECTOR:] = dice.randbytes(SECTOR)
    path.write_bytes(content)
    subprocess.run(["fallocate", "--dig-holes", path], check=True)
    return bytes(content)


def same_by_every_way(disk: DiskFile, wanted: bytes) -> None:
    """Compare a disk's content through extents, long reads and odd ones."""
    assert disk.size_bytes == len(wanted)
    end = 0
    found = bytearray(len(wanted))
    data = []
    for extent in disk.extents():
        assert extent.offset_bytes == end
        end = extent.end_bytes
        if extent.state is ExtentState.DATA:
            data.append((extent.offset_bytes, extent.length_bytes))
    assert end == disk.size_bytes
    for offset, piece in disk.read_many(data):
        assert len(piece) <= MIB
        found[offset : offset + len(piece)] = piece
    assert found == wanted
    assert b"".join(piece for _, piece in disk.read_many([(0, end)])) == wanted
    dice = random.Random(7)  # noqa: S311 - places
    ranges, at = [], 0
    for _ in range(12):
        at += dice.randrange(2 * MIB)
        length = dice.randrange(1, MIB)
        length = min(length, max(0, end - at))
        assert disk.read_at(min(at, end), length) == wanted[at : at + length]
        ranges.append((min(at, end), length))
        at += length
    pieces = b"".join(piece for _, piece in disk.read_many(ranges))
    assert pieces == b"".join(wanted[at : at + length] for at, length in ranges)


@pytest.mark.parametrize(
    "options",
    [
        "subformat=monolithicSparse",
        "subformat=monolithicSparse,zeroed_grain=on",
        "subformat=streamOptimized",
        "subformat=twoGbMaxExtentSparse",
        "subformat=monolithicFlat",
        "subformat=twoGbMaxExtentFlat",
    ],
)
def test_what_qemu_writes_is_read(folder: LocalFolder, options: str) -> None:
    wanted = write_raw(folder.root / "x.raw", len(options))
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", options]
    subprocess.run([*command, "x.raw", "x.vmdk"], cwd=folder.root, check=True)
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        assert isinstance(disk, StreamOptimizedVmdk if "stream" in options else VmdkDisk)
        same_by_every_way(disk, wanted)
        assert str(disk.details()["subformat"]) in options
        disk.check_unchanged()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", ["monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse"])
def test_random_layouts_of_qemu_are_read(folder: LocalFolder, kind: str, seed: int) -> None:
    wanted = write_raw(folder.root / "x.raw", 100 + seed)
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}"]
    subprocess.run([*command, "x.raw", "x.vmdk"], cwd=folder.root, check=True)
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        same_by_every_way(disk, wanted)


def test_grains_in_any_order_are_found_and_zeroed_ones_are_zero(folder: LocalFolder) -> None:
    writes = ["write -q -P 5 5M 64k", "write -q -P 1 1M 128k", "write -q -P 7 0 64k"]
    commands = [part for one in [*writes, "write -q -z 2M 128k"] for part in ("-c", one)]
    options = "subformat=monolithicSparse,zeroed_grain=on"
    for command in (
        ["qemu-img", "create", "-q", "-f", "vmdk", "-o", options, "x.vmdk", "8M"],
        ["qemu-io", "-f", "vmdk", *commands, "x.vmdk"],
    ):
        subprocess.run(command, cwd=folder.root, check=True)
    with open_disk(folder.open_read("x.vmdk")) as disk:
        found = {at: set(disk.read_at(at * MIB, 65536)) for at in (0, 1, 2, 3, 5)}
        assert found == {0: {7}, 1: {1}, 2: {0}, 3: {0}, 5: {5}}
        states = {e.offset_bytes: e.state for e in disk.extents()}
        assert states[2 * MIB] is ExtentState.ZERO
        assert states[2 * MIB + 2 * GRAIN] is ExtentState.HOLE
        assert states[5 * MIB] is ExtentState.DATA


@pytest.mark.parametrize("padding", [0, 512, 70_000])
def test_a_stream_in_a_file_is_read_anywhere(in_memory: InMemory, padding: int) -> None:
    grains = {0: grain(1), 1: bytes(GRAIN), 3: grain(2), 511: grain(3), 512: grain(4)}
    content = StreamRecipe(grains, 513 * 128 - 5).build() + bytes(padding)
    wanted = bytearray(513 * GRAIN)
    for number, data in grains.items():
        wanted[number * GRAIN : (number + 1) * GRAIN] = data
    with open_disk(in_memory(content)) as disk:
        same_by_every_way(disk, bytes(wanted[: -5 * SECTOR]))


def test_compressed_grains_in_any_order_are_found(in_memory: InMemory) -> None:
    grains = {number: grain(number + 1) for number in range(8)}
    content = StreamRecipe(grains, 8 * 128, order=[5, 6, 1, 7, 0, 4, 3, 2]).build()
    with open_disk(in_memory(content)) as disk:
        same_by_every_way(disk, b"".join(grains.values()))


def test_a_stream_may_leave_the_descriptor_empty(in_memory: InMemory) -> None:
    content = StreamRecipe({1: grain(2)}, 256, descriptor=bytes(2048)).build()
    with open_disk(in_memory(content)) as disk:
        assert disk.read_at(GRAIN, GRAIN) == grain(2)


def test_the_size_that_virtualbox_keeps_in_the_descriptor_counts(in_memory: InMemory) -> None:
    text = described(['RW 200 SPARSE "x.vmdk"'], "monolithicSparse")
    with open_disk(in_memory(sparse_vmdk({1: grain(2)}, 256, text))) as disk:
        same_by_every_way(disk, bytes(GRAIN) + grain(2)[: 72 * SECTOR])
    wrong = described(['RW 100 SPARSE "x.vmdk"'], "monolithicSparse")
    with pytest.raises(BadDisk, match="descriptor's sectors"):
        open_disk(in_memory(sparse_vmdk({}, 256, wrong)))


def test_a_file_may_end_where_its_disk_does(in_memory: InMemory) -> None:
    content = sparse_vmdk({0: grain(1), 1: grain(2)}, 200)
    with open_disk(in_memory(content[: -56 * SECTOR])) as disk:
        same_by_every_way(disk, grain(1) + grain(2)[: 72 * SECTOR])
    with pytest.raises(BadDisk, match="behind the file's end"):
        open_disk(in_memory(content[: -57 * SECTOR]))


CAPACITY = 3000
DIRECTORY, TABLE = 10 * SECTOR, 11 * SECTOR
DAMAGE = {
    "directory outside": (56, struct.pack("<Q", 2**40), "grain directory"),
    "no directory": (56, struct.pack("<Q", 0), "grain directory"),
    "a table outside": (DIRECTORY, struct.pack("<I", 2**31), "grain directory"),
    "a grain outside": (TABLE + 4, struct.pack("<I", 2**31), "behind the file's end"),
    "a grain in the header": (TABLE + 4, struct.pack("<I", 1), "inside header or tables"),
    "a grain in the tables": (TABLE + 4, struct.pack("<I", 11), "inside header or tables"),
    "a grain before the tables": (TABLE + 4, struct.pack("<I", 9), "inside header or tables"),
    "a grain twice": (TABLE + 4, struct.pack("<I", 128), "inside another grain"),
    "grains that overlap": (TABLE + 4, struct.pack("<I", 129), "inside another grain"),
    "grains that overlap from below": (TABLE + 4, struct.pack("<I", 383), "inside another grain"),
}


def damaged(name: str, flags: int) -> bytes:
    grains = {0: grain(1), 3: grain(2), 4: grain(3)}
    at, new, _ = DAMAGE[name]
    content = sparse_vmdk(grains, CAPACITY, flags=flags)
    if name == "grains that overlap from below":
        content = content + bytes(GRAIN)
    return content[:at] + new + content[at + len(new) :]


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_tables_are_named_with_their_offset(in_memory: InMemory, name: str) -> None:
    with pytest.raises(BadDisk, match=DAMAGE[name][2]) as caught:
        open_disk(in_memory(damaged(name, NEWLINES)))
    assert "at offset" in caught.value.message


@pytest.mark.parametrize("name", DAMAGE)
def test_redundant_tables_stand_in_for_damaged_ones(in_memory: InMemory, name: str) -> None:
    wanted = bytearray(CAPACITY * SECTOR)
    for number, value in {0: 1, 3: 2, 4: 3}.items():
        wanted[number * GRAIN : (number + 1) * GRAIN] = grain(value)
    content = damaged(name, NEWLINES | layout.FLAG_REDUNDANT_TABLES)
    with open_disk(in_memory(content)) as disk:
        same_by_every_way(disk, bytes(wanted))
    both = content[: 5 * SECTOR] + b"\xff\xff" + content[5 * SECTOR + 2 :]
    with pytest.raises(BadDisk, match=DAMAGE[name][2]):
        open_disk(in_memory(both))


def test_two_tables_may_not_lie_in_one_place(in_memory: InMemory) -> None:
    content = bytearray(sparse_vmdk({}, 70_000, flags=NEWLINES))
    directory = layout.SparseHeader.unpack(content[:SECTOR]).directory * SECTOR
    first = struct.unpack_from("<I", content, directory)[0]
    struct.pack_into("<I", content, directory + 4, first + 1)
    with pytest.raises(BadDisk, match="no overlap"):
        open_disk(in_memory(bytes(content)))


def test_a_claim_of_8_tib_in_a_small_file_takes_no_memory(in_memory: InMemory) -> None:
    capacity = 8 * 2**40 // SECTOR
    text = described([f'RW {capacity} SPARSE "x.vmdk"'], "monolithicSparse")
    top = header(capacity, NEWLINES, directory=8, overhead=2048 + 128)
    directory = bytes(4 * (capacity // 65536))
    file = in_memory(top.pack() + text.ljust(7 * SECTOR, b"\0") + directory)
    tracemalloc.start()
    try:
        with open_disk(file) as disk:
            assert [extent.state for extent in disk.extents()] == [ExtentState.HOLE]
            assert disk.size_bytes == 8 * 2**40
            assert disk.read_at(7 * 2**40, 4096) == bytes(4096)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    short = in_memory(top.pack() + text.ljust(7 * SECTOR, b"\0") + directory[:-1])
    with pytest.raises(BadDisk, match="grain directory"):
        open_disk(short)


STREAM_DAMAGE = {
    "no footer": (-2 * SECTOR, b"XXXX", "cut short"),
    "another capacity": (-2 * SECTOR + 12, struct.pack("<Q", 700), "footer at offset"),
    "directory outside": (-2 * SECTOR + 56, struct.pack("<Q", 2**33), "grain directory"),
}


@pytest.mark.parametrize("name", STREAM_DAMAGE)
def test_a_damaged_footer_is_refused(in_memory: InMemory, name: str) -> None:
    at, new, message = STREAM_DAMAGE[name]
    content = bytearray(StreamRecipe({0: grain(1), 3: grain(2)}, 1000).build())
    content[len(content) + at : len(content) + at + len(new)] = new
    with pytest.raises(BadDisk, match=message):
        open_disk(in_memory(bytes(content)))


GRAIN_DAMAGE = {
    "another grain's marker": (8 * SECTOR, b"\x80", "grain's sector at offset 4096"),
    "no length": (8 * SECTOR + 8, bytes(4), "grain's length at offset 4104"),
    "a length too long": (8 * SECTOR + 8, b"\xff\xff\xff\xff", "grain's length"),
    "compressed bytes": (8 * SECTOR + 20, b"\xaa\xaa\xaa", "compressed grain at offset 4096"),
}


@pytest.mark.parametrize("name", GRAIN_DAMAGE)
def test_a_damaged_grain_is_found_when_it_is_read(in_memory: InMemory, name: str) -> None:
    at, new, message = GRAIN_DAMAGE[name]
    content = StreamRecipe({0: grain(1), 3: grain(2)}, 1000).build()
    with open_disk(in_memory(content[:at] + new + content[at + len(new) :])) as disk:
        assert disk.read_at(3 * GRAIN, 512) == grain(2)[:512]
        with pytest.raises(BadDisk, match=message):
            disk.read_at(0, 512)
        with pytest.raises(BadDisk, match=message):
            list(disk.read_many([(0, disk.size_bytes)]))


def test_a_cut_file_is_refused_wherever_it_is_cut(in_memory: InMemory) -> None:
    sparse = sparse_vmdk({0: grain(1), 3: grain(2)}, 1000)
    stream = StreamRecipe({0: grain(1), 3: grain(2)}, 1000).build()
    for content in (sparse, stream):
        for cut in range(4, len(content) - SECTOR, max(1, len(content) // 60)):
            with pytest.raises((BadDisk, UnsupportedDisk)):
                open_disk(in_memory(content[:cut]))


def test_a_file_that_was_not_closed_is_refused_with_a_hint(in_memory: InMemory) -> None:
    with pytest.raises(UnsupportedDisk, match="not closed") as caught:
        open_disk(in_memory(sparse_vmdk({0: grain(1)}, 1000, unclean_shutdown=1)))
    assert "Shut down" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"COWD" + bytes(2044), "COWD"),
        (sparse_vmdk({}, 1000, b""), "one extent of a disk in several files"),
        (sparse_vmdk({}, 1000, described(['RW 1000 SPARSE "x"'], parent="1")), "its parent"),
        (
            sparse_vmdk({}, 1000, flags=NEWLINES | layout.FLAG_COMPRESSED, compression=1),
            "have no markers",
        ),
    ],
    ids=["COWD", "an extent", "a delta", "no markers"],
)
def test_what_is_sound_and_not_read_is_named(
    in_memory: InMemory, content: bytes, message: str
) -> None:
    with pytest.raises(UnsupportedDisk, match=message) as caught:
        open_disk(in_memory(content))
    assert caught.value.hint


def put_disk(folder: LocalFolder, *lines: str, **facts: str) -> None:
    (folder.root / "x.vmdk").write_bytes(described(lines, **facts))  # type: ignore[arg-type]


def test_extents_of_all_kinds_make_one_disk(folder: LocalFolder) -> None:
    """Flat ones may start inside a file, and one file may hold two."""
    dice = random.Random(3)  # noqa: S311 - contents
    flat, table = dice.randbytes(9 * SECTOR), dice.randbytes(4 * SECTOR)
    (folder.root / "x-flat.vmdk").write_bytes(flat)
    (folder.root / "x-pt.vmdk").write_bytes(table)
    (folder.root / "x-s004.vmdk").write_bytes(sparse_vmdk({1: grain(5)}, 256, b""))
    put_disk(
        folder,
        'RW 7 FLAT "x-flat.vmdk" 2',
        "RW 100 ZERO",
        'RDONLY 1 FLAT "x-pt.vmdk" 3',
        'RW 3 FLAT "x-pt.vmdk" 0',
        'RW 200 SPARSE "x-s004.vmdk"',
        'RW 2 VMFS "x-flat.vmdk"',
        kind="custom",
    )
    wanted = flat[2 * SECTOR :] + bytes(100 * SECTOR) + table[3 * SECTOR :] + table[: 3 * SECTOR]
    wanted += (bytes(GRAIN) + grain(5))[: 200 * SECTOR] + flat[: 2 * SECTOR]
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        same_by_every_way(disk, wanted)
        states = {extent.state for extent in disk.extents()}
        assert states == {ExtentState.DATA, ExtentState.ZERO, ExtentState.HOLE}


@pytest.mark.parametrize("cut", [0, 1])
def test_a_flat_extent_must_be_whole(folder: LocalFolder, cut: int) -> None:
    (folder.root / "x-flat.vmdk").write_bytes(bytes(10 * SECTOR - cut))
    put_disk(folder, 'RW 8 FLAT "x-flat.vmdk" 2')
    if not cut:
        open_disk(folder.open_read("x.vmdk"), folder).close()
        return
    with pytest.raises(BadDisk, match="cut short"):
        open_disk(folder.open_read("x.vmdk"), folder)


@pytest.mark.parametrize(
    "name",
    [
        "../x-flat.vmdk",
        "..\\x-flat.vmdk",
        "sub/x-flat.vmdk",
        "sub\\x-flat.vmdk",
        "/etc/passwd",
        "\\\\server\\share\\x-flat.vmdk",
        "C:\\x-flat.vmdk",
        "C:x-flat.vmdk",
        "x-flat.vmdk:stream",
        "/dev/sda",
        "\\\\.\\PhysicalDrive0",
        "..",
        ".",
        "",
        "x-flat.vmdk.",
        "x-flat.vmdk ",
        "NUL",
        "com1.vmdk",
        "Aux .vmdk",
        "x\x01.vmdk",
        "x" * 256,
    ],
)
def test_an_extents_name_that_leaves_the_folder_is_refused(folder: LocalFolder, name: str) -> None:
    inner = LocalFolder(folder.root / "sub")
    folder.make_folder("sub")
    for place in (folder.root, inner.root):
        (place / "x-flat.vmdk").write_bytes(bytes(8 * SECTOR))
    put_disk(inner, f'RW 8 FLAT "{name}" 0')
    with pytest.raises(BadDisk, match="extent file") as caught:
        open_disk(inner.open_read("x.vmdk"), inner)
    assert "folder" in caught.value.hint


def test_a_symbolic_link_out_of_the_folder_is_refused(folder: LocalFolder) -> None:
    inner = LocalFolder(folder.root / "sub")
    folder.make_folder("sub")
    (folder.root / "secret").write_bytes(bytes(8 * SECTOR))
    (inner.root / "x-flat.vmdk").symlink_to(folder.root / "secret")
    put_disk(inner, 'RW 8 FLAT "x-flat.vmdk" 0')
    with pytest.raises(ImageportError, match="leaves"):
        open_disk(inner.open_read("x.vmdk"), inner)


def test_extents_are_found_without_regard_to_case(folder: LocalFolder) -> None:
    (folder.root / "GOLD-Flat.VMDK").write_bytes(b"\5" * 8 * SECTOR)
    put_disk(folder, 'RW 8 FLAT "gold-flat.vmdk" 0')
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        assert set(disk.read_at(0, 4096)) == {5}
    (folder.root / "gold-FLAT.vmdk").write_bytes(b"\6" * 8 * SECTOR)
    with pytest.raises(FileMissing, match="2 files that differ in case"):
        open_disk(folder.open_read("x.vmdk"), folder)
    (folder.root / "gold-flat.vmdk").write_bytes(b"\7" * 8 * SECTOR)
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        assert set(disk.read_at(0, 4096)) == {7}


def test_a_missing_extent_is_named(folder: LocalFolder) -> None:
    put_disk(folder, 'RW 8 FLAT "gold-flat.vmdk" 0')
    with pytest.raises(FileMissing, match=r"gold-flat\.vmdk"):
        open_disk(folder.open_read("x.vmdk"), folder)
    with pytest.raises(UnsupportedDisk, match="no folder was given"):
        open_disk(folder.open_read("x.vmdk"))


def test_extents_may_not_share_bytes(folder: LocalFolder) -> None:
    (folder.root / "f").write_bytes(bytes(8 * SECTOR))
    put_disk(folder, 'RW 5 FLAT "f" 0', 'RW 4 FLAT "f" 4')
    with pytest.raises(BadDisk, match="same bytes"):
        open_disk(folder.open_read("x.vmdk"), folder)
    (folder.root / "s").write_bytes(sparse_vmdk({}, 128, b""))
    put_disk(folder, 'RW 128 SPARSE "s"', 'RW 128 SPARSE "S"')
    with pytest.raises(BadDisk, match="same bytes"):
        open_disk(folder.open_read("x.vmdk"), folder)


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ('NOACCESS 8 FLAT "f" 0', UnsupportedDisk, "NOACCESS"),
        ('RW 8 VMFSRDM "f"', UnsupportedDisk, "raw device mapping"),
        ('RW 8 VMFSRAW "f"', UnsupportedDisk, "raw device"),
        ('RW 8 VMFSSPARSE "f"', UnsupportedDisk, "vmfsSparse"),
        ('RW 8 SESPARSE "f"', UnsupportedDisk, "SEsparse"),
        ('RW 8 NEWKIND "f"', BadDisk, "extent kind"),
        ('RW 0 FLAT "f" 0', BadDisk, "extent in line 8"),
        ('RW 9999999999999999999 FLAT "f" 0', BadDisk, "extent in line 8"),
        ('RW 8 SPARSE "f"', BadDisk, "magic"),
        ("# nothing", BadDisk, "no extents"),
    ],
)
def test_extents_that_are_not_read_are_named(
    folder: LocalFolder, line: str, error: type[ImageportError], message: str
) -> None:
    (folder.root / "f").write_bytes(bytes(16 * SECTOR))
    put_disk(folder, line)
    with pytest.raises(error, match=message):
        open_disk(folder.open_read("x.vmdk"), folder)
    folder.open_write("x.vmdk").close()  # would be locked if a reader were still open
    folder.open_write("f").close()


def test_a_delta_in_several_files_is_refused_before_its_files_are_looked_for(
    folder: LocalFolder,
) -> None:
    put_disk(folder, 'RW 8 VMFSSPARSE "x-000001-delta.vmdk"', kind="vmfsSparse", parent="a0b1c2d3")
    with pytest.raises(UnsupportedDisk, match="snapshot") as caught:
        open_disk(folder.open_read("x.vmdk"), folder)
    assert "vSphere" in caught.value.hint


def test_a_split_extent_of_another_size_is_refused(folder: LocalFolder) -> None:
    (folder.root / "s").write_bytes(sparse_vmdk({}, 512, b""))
    put_disk(folder, 'RW 128 SPARSE "s"')
    with pytest.raises(BadDisk, match="capacity at offset 12"):
        open_disk(folder.open_read("x.vmdk"), folder)


@pytest.mark.parametrize(
    "head",
    [
        "\ufeff# Disk DescriptorFile",
        "\r\n\n# Disk DescriptorFile",
        "#Disk DescriptorFile",
        "# Disk Descriptor File",
        "# disk descriptorfile",
    ],
)
def test_descriptors_of_other_writers_are_known(folder: LocalFolder, head: str) -> None:
    (folder.root / "f").write_bytes(b"\3" * 8 * SECTOR)
    text = head + '\r\nversion = 1\r\ncid=1\r\nPARENTCID = FFFFFFFF\r\nrw 8 flat "f" 0\r\n\0\0junk'
    (folder.root / "x.vmdk").write_text(text, newline="")
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        assert disk.size_bytes == 8 * SECTOR
        assert set(disk.read_at(0, 4096)) == {3}


@pytest.mark.parametrize(("name", "codec"), [("windows-1252", "cp1252"), ("UTF-8", "utf-8")])
def test_names_are_read_in_the_encoding_that_is_declared(
    folder: LocalFolder, name: str, codec: str
) -> None:
    (folder.root / "Büro-flat.vmdk").write_bytes(bytes(8 * SECTOR))
    text = described(['RW 8 FLAT "Büro-flat.vmdk" 0'], more=f'encoding="{name}"').decode()
    (folder.root / "x.vmdk").write_bytes(text.encode(codec))
    open_disk(folder.open_read("x.vmdk"), folder).close()


@pytest.mark.parametrize(
    ("encoding", "error", "message"),
    [
        ("zip", UnsupportedDisk, "encoding 'zip'"),
        ("utf-8", BadDisk, "bytes that are not utf-8"),
    ],
)
def test_an_encoding_is_never_guessed(
    in_memory: InMemory, encoding: str, error: type[ImageportError], message: str
) -> None:
    text = described(['RW 8 FLAT "?" 0'], more=f'encoding="{encoding}"').replace(b"?", b"\xe9")
    with pytest.raises(error, match=message):
        open_disk(in_memory(text))


def test_a_descriptor_has_bounds(in_memory: InMemory) -> None:
    many = [f'RW 8 FLAT "f{number}" 0' for number in range(5000)]
    with pytest.raises(BadDisk, match="at most 4096"):
        open_disk(in_memory(described(many)))
    with pytest.raises(BadDisk, match="at most"):
        open_disk(in_memory(described([]) + bytes(3 * MIB)))
    twice = described([], more="CID=1")
    with pytest.raises(BadDisk, match="cid"):
        open_disk(in_memory(twice))


def test_a_change_of_any_file_is_noticed(folder: LocalFolder) -> None:
    (folder.root / "f").write_bytes(bytes(8 * SECTOR))
    put_disk(folder, 'RW 8 FLAT "f" 0')
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        first = disk.content_key()
        disk.check_unchanged()
        (folder.root / "f").write_bytes(b"\1" * 9 * SECTOR)
        with pytest.raises(SourceChanged):
            disk.check_unchanged()
    with open_disk(folder.open_read("x.vmdk"), folder) as disk:
        assert disk.content_key() != first


def test_a_grain_map_knows_every_overlap() -> None:
    dice = random.Random(5)  # noqa: S311 - places
    for size in (8, 128):
        taken: set[int] = set()
        grains = GrainMap(size)
        for _ in range(300):
            start, count = dice.randrange(60 * size), dice.randrange(1, 4)
            wanted = set(range(start, start + count * size))
            if not taken & wanted:
                assert grains.take(start, count)
                taken |= wanted
            else:
                # One that is refused is the end of a disk: nothing is asked of the map again.
                copy = GrainMap(size)
                copy._chunks = {key: array("H", one) for key, one in grains._chunks.items()}
                assert not copy.take(start, count)
