"""GPT and MBR against sgdisk and sfdisk, and against damage to every field.

Recipe: `sgdisk` makes a 24 MiB disk with an EFI partition, a reserved one and one for Windows.
"""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from imageport.errors import BadDisk
from imageport.formats.gpt import DiskLayout, read_layout
from imageport.formats.raw import RawDisk
from imageport.storage.byte_file import ByteFile

SECTOR = 512
SIZE = 24 * 1024 * 1024
LAST = SIZE // SECTOR - 1
GUID = "0F1E2D3C-4B5A-6978-8796-A5B4C3D2E1F0"
Read = Callable[[bytes], DiskLayout]


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gpt") / "g.raw"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(SIZE)
    options = ["-U", GUID, "-n1:2048:+10M", "-t1:ef00", "-c1:EFI system", "-n2:0:+1M", "-t2:0c01"]
    options += ["-n4:0:0", "-t4:0700", "-c4:Größe"]
    subprocess.run(["sgdisk", *options, str(path)], check=True, capture_output=True)
    return path.read_bytes()


@pytest.fixture
def read(in_memory: Callable[[bytes], ByteFile]) -> Read:
    return lambda content: read_layout(RawDisk(in_memory(content)))


def sealed(content: bytearray, lba: int) -> bytes:
    """Make both checksums of the GPT whose header lies at ``lba`` right."""
    at = lba * SECTOR
    entries, count, size = struct.unpack_from("<QII", content, at + 72)
    table = content[entries * SECTOR : entries * SECTOR + count * size]
    struct.pack_into("<I", content, at + 88, zlib.crc32(table))
    struct.pack_into("<I", content, at + 16, 0)
    struct.pack_into("<I", content, at + 16, zlib.crc32(content[at : at + 92]))
    return bytes(content)


def without_backup(content: bytes) -> bytearray:
    changed = bytearray(content)
    changed[LAST * SECTOR :] = bytes(SECTOR)
    return changed


def test_the_layout_is_what_sgdisk_made(read: Read, gpt: bytes) -> None:
    layout = read(gpt)
    assert (layout.scheme, layout.disk_guid, layout.from_backup) == ("gpt", GUID, False)
    assert [one.number for one in layout.partitions] == [1, 2, 4]
    efi, _, windows = layout.partitions
    assert efi.first_byte == 2048 * SECTOR
    assert efi.length_bytes == 10 * 1024 * 1024
    assert efi.type_guid == "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
    assert (efi.name, windows.name) == ("EFI system", "Größe")
    # Newer sgdisk releases align the end as well.
    assert (LAST - 32 - 2048) * SECTOR < windows.end_byte <= (LAST - 32) * SECTOR


def test_a_damaged_first_table_is_replaced_by_the_second(read: Read, gpt: bytes) -> None:
    damaged = bytearray(gpt)
    damaged[2 * SECTOR + 40] ^= 1
    layout = read(bytes(damaged))
    assert layout.from_backup
    assert layout.disk_guid == GUID
    assert layout.partitions == read(gpt).partitions


def test_a_disk_that_lost_its_end_is_read_by_its_first_table(read: Read, gpt: bytes) -> None:
    assert read(bytes(without_backup(gpt))).partitions == read(gpt).partitions


def test_both_tables_damaged_is_an_error_that_names_both(read: Read, gpt: bytes) -> None:
    damaged = without_backup(gpt)
    damaged[SECTOR + 60] ^= 1
    with pytest.raises(BadDisk, match=r"CRC-32 of the GPT header at sector 1.*does not help"):
        read(bytes(damaged))


HEADER = SECTOR
ENTRIES = 2 * SECTOR


@pytest.mark.parametrize(
    ("at", "code", "value", "words"),
    [
        (HEADER + 0, "<8s", b"EFI PARD", "GPT header"),
        (HEADER + 8, "<I", 0x20000, "revision"),
        (HEADER + 24, "<Q", 2, "own place"),
        (HEADER + 40, "<Q", 1, "usable range"),
        (HEADER + 48, "<Q", LAST + 1, "usable range"),
        (HEADER + 48, "<Q", 30, "usable range"),
        (HEADER + 72, "<Q", 1, "place of the GPT entries"),
        (HEADER + 72, "<Q", 2**63, "place of the GPT entries"),
        (HEADER + 72, "<Q", 4096, "place of the GPT entries"),
        (HEADER + 80, "<I", 0, "entry count"),
        (HEADER + 80, "<I", 2**32 - 1, "entry count"),
        (HEADER + 84, "<I", 64, "entry size"),
        (HEADER + 84, "<I", 129, "entry size"),
        (HEADER + 84, "<I", 2**31, "entry size"),
        (ENTRIES + 32, "<Q", 0, "entry 1"),
        (ENTRIES + 40, "<Q", 2**64 - 1, "entry 1"),
        (ENTRIES + 40, "<Q", 2047, "entry 1"),
        (ENTRIES + 40, "<Q", 30000, "partitions 1 and 2 over each other"),
    ],
)
def test_a_wrong_field_under_right_checksums_is_refused(
    read: Read, gpt: bytes, at: int, code: str, value: object, words: str
) -> None:
    damaged = without_backup(gpt)
    struct.pack_into(code, damaged, at, value)
    try:
        content = sealed(damaged, 1)
    except (MemoryError, OverflowError):
        content = bytes(damaged)
    with pytest.raises(BadDisk, match=words):
        read(content)


@pytest.mark.parametrize("size", [0, 91, 513, 2**32 - 1])
def test_a_wrong_header_size_is_refused(read: Read, gpt: bytes, size: int) -> None:
    damaged = without_backup(gpt)
    struct.pack_into("<I", damaged, HEADER + 12, size)
    with pytest.raises(BadDisk, match="header size"):
        read(bytes(damaged))


def test_sectors_of_4096_bytes_are_read(in_memory: Callable[[bytes], ByteFile], gpt: bytes) -> None:
    # The same structures, one every 4096 bytes; header fields count sectors, so they fit as
    # they are where the table is small enough for one sector of entries.
    disk = bytearray(SIZE)
    disk[0:SECTOR] = gpt[0:SECTOR]
    header = bytearray(gpt[SECTOR : 2 * SECTOR])
    struct.pack_into("<QQ", header, 40, 6, SIZE // 4096 - 7)
    disk[4096 : 4096 + SECTOR] = header
    table = bytearray(gpt[ENTRIES : ENTRIES + 128])
    struct.pack_into("<QQ", table, 32, 100, 199)
    disk[8192 : 8192 + 128] = table
    at = 4096
    struct.pack_into("<I", disk, at + 88, zlib.crc32(disk[8192 : 8192 + 128 * 128]))
    struct.pack_into("<I", disk, at + 16, 0)
    struct.pack_into("<I", disk, at + 16, zlib.crc32(disk[at : at + 92]))
    [partition] = read_layout(RawDisk(in_memory(bytes(disk)), sector_bytes=4096)).partitions
    assert (partition.first_byte, partition.length_bytes) == (100 * 4096, 100 * 4096)


def sfdisk(tmp_path: Path, script: str) -> bytes:
    path = tmp_path / "m.raw"
    path.write_bytes(bytes(SIZE))
    command = ["sfdisk", "-q", str(path)]
    subprocess.run(command, input=script, text=True, check=True, capture_output=True)
    return path.read_bytes()


def test_an_mbr_with_logical_partitions_is_what_sfdisk_made(read: Read, tmp_path: Path) -> None:
    script = (
        "label: dos\nlabel-id: 0x1a2b3c4d\n2048,20480,7,*\n22528,,5\n24576,8192,7\n36864,4096,83\n"
    )
    layout = read(sfdisk(tmp_path, script))
    assert (layout.scheme, layout.disk_guid) == ("mbr", "mbr:1a2b3c4d")
    found = [
        (p.number, p.first_byte // SECTOR, p.length_bytes // SECTOR, p.type_guid)
        for p in layout.partitions
    ]
    assert found == [(1, 2048, 20480, "0x07"), (5, 24576, 8192, "0x07"), (6, 36864, 4096, "0x83")]


def test_a_chain_of_logical_partitions_without_an_end_is_refused(
    read: Read, tmp_path: Path
) -> None:
    script = "label: dos\n2048,,5\n4096,8192,7\n16384,4096,83\n"
    content = bytearray(sfdisk(tmp_path, script))
    # The second extended record names itself as the next.
    second = struct.unpack_from("<I", content, 2048 * SECTOR + 446 + 16 + 8)[0]
    record = (2048 + second) * SECTOR
    struct.pack_into("<B", content, record + 446 + 16 + 4, 5)
    struct.pack_into("<II", content, record + 446 + 16 + 8, second, 4096)
    with pytest.raises(BadDisk, match="chain without an end"):
        read(bytes(content))


@pytest.mark.parametrize(
    ("first", "count", "words"),
    [(0, 8, "inside 1"), (2048, 2**32 - 1, "inside 1"), (4096, 8, "over each other")],
)
def test_mbr_partitions_outside_the_disk_or_over_each_other_are_refused(
    read: Read, tmp_path: Path, first: int, count: int, words: str
) -> None:
    content = bytearray(sfdisk(tmp_path, "label: dos\n2048,20480,7\n"))
    struct.pack_into("<B3xB3xII", content, 446 + 16, 0, 7, first, count)
    with pytest.raises(BadDisk, match=words):
        read(bytes(content))


@pytest.mark.parametrize(
    "head",
    [
        bytes(SIZE),
        b"\xeb\x52\x90NTFS    " + b"\x33" * 499 + b"\x55\xaa",
        b"\xeb\x3c\x90mkdosfs\0" + b"\x33" * 499 + b"\x55\xaa",
    ],
    ids=["empty", "ntfs", "fat"],
)
def test_a_disk_without_a_table_has_no_partitions(read: Read, head: bytes) -> None:
    assert read(head[:SIZE].ljust(SIZE, b"\0")) == DiskLayout("", "none", ())


def test_a_protective_mbr_without_a_gpt_is_refused(read: Read, gpt: bytes) -> None:
    with pytest.raises(BadDisk):
        read(gpt[:SECTOR].ljust(SIZE, b"\0"))


@pytest.mark.parametrize("sectors", [1, 2, 3])
def test_the_smallest_disks_are_read_without_a_crash(read: Read, gpt: bytes, sectors: int) -> None:
    if sectors == 1:
        assert read(gpt[:SECTOR]).scheme == "none"
        return
    with pytest.raises(BadDisk):
        read(gpt[: sectors * SECTOR])
