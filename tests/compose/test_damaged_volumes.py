"""What is read of volumes before they are mounted, on an appliance that is only pretended."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from imageport.compose.guest import Guest
from imageport.compose.survey import boot_volume_files
from imageport.compose.volumes.bitlocker import describe_bitlocker
from imageport.compose.volumes.ntfs_volume import is_marked_dirty
from imageport.compose.volumes.partition_table import Partition, PartitionTable

PARTITION = Partition(1, "0x07", "", "", 1024, 2048, is_active=True)
TABLE = PartitionTable("mbr", "mbr:5a1c7bf5", (PARTITION,))
DESCRIPTOR = b"\x01\x00\x04\x80"


@dataclass(slots=True)
class Appliance:
    """Answers as libguestfs does: offsets above 63 bits break its binding, FAT has no ACL."""

    disk: bytes = bytes(range(256)) * 16
    content: str = "ntfs"

    def pread_device(self, _device: str, length: int, offset: int) -> bytes:
        if not 0 <= offset < 1 << 63 or not 0 <= length < 1 << 31:
            raise OverflowError("Python int too large to convert to C long")
        return self.disk[offset : offset + length]

    def vfs_type(self, _device: str) -> str:
        return self.content

    def is_dir(self, path: str) -> bool:
        return path == "/boot"

    def ls(self, _path: str) -> list[str]:
        return ["bootmgr"]

    def lgetxattr(self, _path: str, _name: str) -> bytes:
        if self.content != "ntfs":
            raise RuntimeError("lgetxattr: Operation not supported")
        return DESCRIPTOR


def guest_of(appliance: Appliance) -> Guest:
    return Guest(appliance, TABLE, writable=False)


@pytest.mark.parametrize(
    ("offset", "length", "found"),
    [
        (0, 4, b"\0\1\2\3"),
        (2044, 4, b"\xfc\xfd\xfe\xff"),
        (2046, 512, b"\xfe\xff"),
        (2048, 1, b""),
        (1 << 63, 512, b""),
        ((1 << 64) - 1, 1 << 40, b""),
        (-512, 512, b""),
    ],
)
def test_a_partition_is_read_within_its_bounds(offset: int, length: int, found: bytes) -> None:
    assert guest_of(Appliance()).read_partition(PARTITION, offset, length) == found


def test_places_that_no_volume_has_break_neither_reader() -> None:
    guest = guest_of(Appliance())

    def read_at(offset: int, length: int) -> bytes:
        return guest.read_partition(PARTITION, offset, length)

    ntfs = bytearray(512)
    ntfs[11:14], ntfs[64] = b"\0\2\x08", 0xF6
    struct.pack_into("<QQ", ntfs, 48, (1 << 64) - 1, (1 << 64) - 1)
    assert is_marked_dirty(bytes(ntfs), read_at)
    encrypted = bytearray(512)
    struct.pack_into("<Q", encrypted, 176, (1 << 64) - 1)
    assert describe_bitlocker(bytes(encrypted), read_at) == ""


@pytest.mark.parametrize(("content", "descriptor"), [("ntfs", DESCRIPTOR), ("vfat", b"")])
def test_a_system_partition_that_bios_starts_from_may_be_fat(
    content: str, descriptor: bytes
) -> None:
    files = boot_volume_files(guest_of(Appliance(content=content)), PARTITION)
    assert files.descriptor("bootmgr") == descriptor
