"""What the engine reads from raw bytes before it mounts anything, against tools that made them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.volumes.bitlocker import is_bitlocker
from imageport.compose.volumes.ntfs_volume import (
    cleared_dirty_flags,
    is_marked_dirty,
    is_ntfs,
)
from imageport.compose.volumes.partition_table import (
    ESP_TYPE,
    HEAD_BYTES,
    SECTOR_BYTES,
    parse_partition_table,
)
from imageport.errors import BadDisk
from imageport.sandbox.sample.faults import set_dirty_flag

DISK_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def gpt_head(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    disk = tmp_path_factory.mktemp("gpt") / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    make = ["-n", "1:2048:+8M", "-t", "1:ef00", "-n", "3:0:0", "-t", "3:0700", "-c", "3:Windows"]
    subprocess.run(
        ["/usr/sbin/sgdisk", *make, "-U", "6d0f7a52-3c1e-4b8f-9a47-5e2d10c4b7a1", disk],
        check=True,
        capture_output=True,
    )
    with disk.open("rb") as file:
        return file.read(HEAD_BYTES)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ntfs") / "volume.ntfs"
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024)
    subprocess.run(["/usr/sbin/mkntfs", "-F", "-Q", "-q", path], check=True, capture_output=True)
    return path


def test_a_table_by_sgdisk_is_read(gpt_head: bytes) -> None:
    table = parse_partition_table(gpt_head, DISK_BYTES)
    assert (table.scheme, table.disk_guid) == ("gpt", "6d0f7a52-3c1e-4b8f-9a47-5e2d10c4b7a1")
    assert [p.number for p in table.partitions] == [1, 3]
    assert table.esp is not None
    assert (table.esp.type_id, table.esp.first_byte) == (ESP_TYPE, 1024 * 1024)
    assert table.partitions[1].name == "Windows"
    assert table.partitions[1].may_hold_ntfs
    assert not table.is_dynamic


@pytest.mark.parametrize("at", [SECTOR_BYTES, SECTOR_BYTES + 56, 2 * SECTOR_BYTES + 3])
def test_a_damaged_table_is_refused(gpt_head: bytes, at: int) -> None:
    damaged = bytearray(gpt_head)
    damaged[at] ^= 0xFF
    with pytest.raises(BadDisk):
        parse_partition_table(bytes(damaged), DISK_BYTES)


def test_a_partition_past_the_end_is_refused(gpt_head: bytes) -> None:
    with pytest.raises(BadDisk, match="needed them within"):
        parse_partition_table(gpt_head, DISK_BYTES // 2)


def test_an_mbr_table_is_read() -> None:
    head = bytearray(HEAD_BYTES)
    head[510:512] = b"\x55\xaa"
    head[446:462] = bytes([0x80, 0, 0, 0, 0x07, 0, 0, 0]) + b"\0\x08\0\0" + b"\0\x10\0\0"
    table = parse_partition_table(bytes(head), DISK_BYTES)
    assert (table.scheme, table.disk_guid, table.esp) == ("mbr", "mbr:00000000", None)
    assert table.partitions[0].first_byte == 2048 * SECTOR_BYTES
    assert table.partitions[0].may_hold_ntfs


def test_a_blank_disk_has_no_table() -> None:
    assert parse_partition_table(bytes(HEAD_BYTES), DISK_BYTES).scheme == "none"


@settings(deadline=None)
@given(st.binary(min_size=0, max_size=HEAD_BYTES))
def test_any_bytes_are_a_table_or_a_bad_disk(head: bytes) -> None:
    with_signature = head[:510].ljust(510, b"\0") + b"\x55\xaa" + head[512:]
    for data in (head, with_signature):
        try:
            parse_partition_table(data, DISK_BYTES)
        except BadDisk:
            continue


@settings(deadline=None)
@given(st.data())
def test_a_table_with_changed_bytes_is_a_table_or_a_bad_disk(
    gpt_head: bytes, data: st.DataObject
) -> None:
    damaged = bytearray(gpt_head)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(440, 3000))] = data.draw(st.integers(0, 255))
    try:
        parse_partition_table(bytes(damaged), DISK_BYTES)
    except BadDisk:
        return


def marked_dirty(path: Path) -> bool:
    data = path.read_bytes()
    return is_marked_dirty(data[:512], lambda at, length: data[at : at + length])


def test_the_dirty_flag_is_read_from_a_volume_by_mkntfs(volume: Path) -> None:
    assert is_ntfs(volume.read_bytes()[:512])
    assert not marked_dirty(volume)
    set_dirty_flag(volume, dirty=True)
    assert marked_dirty(volume)
    set_dirty_flag(volume, dirty=False)
    assert not marked_dirty(volume)


def test_the_dirty_flag_is_cleared_in_the_table_and_in_its_mirror(volume: Path) -> None:
    set_dirty_flag(volume, dirty=False)
    clean = volume.read_bytes()
    set_dirty_flag(volume, dirty=True)
    dirty = volume.read_bytes()
    assert dirty != clean
    writes = cleared_dirty_flags(dirty[:512], lambda at, length: dirty[at : at + length])
    assert len(writes) == 2
    mended = bytearray(dirty)
    for at, data in writes:
        mended[at : at + len(data)] = data
    assert bytes(mended) == clean
    volume.write_bytes(mended)
    subprocess.run(
        ["/usr/sbin/ntfsresize", "--info", volume], check=True, capture_output=True
    )  # refuses a volume that is marked


def test_a_volume_whose_flags_cannot_be_found_is_not_written() -> None:
    boot = bytearray(512)
    with pytest.raises(BadDisk, match="found no sensible sizes"):
        cleared_dirty_flags(bytes(boot), lambda _at, length: bytes(length))
    boot[11:14], boot[64] = b"\0\2\x08", 0xF6
    with pytest.raises(BadDisk, match="found no volume information"):
        cleared_dirty_flags(bytes(boot), lambda _at, length: bytes(length))


@settings(deadline=None)
@given(st.binary(min_size=512, max_size=512), st.binary(max_size=4096))
def test_a_volume_that_cannot_be_read_counts_as_dirty(boot: bytes, record: bytes) -> None:
    assert isinstance(is_marked_dirty(boot, lambda _at, _length: record), bool)
    assert is_marked_dirty(boot, lambda _at, _length: b"")


def test_bitlocker_is_known_by_its_boot_sector() -> None:
    assert is_bitlocker(b"\xeb\x58\x90-FVE-FS-".ljust(512, b"\0"))
    assert not is_ntfs(b"\xeb\x58\x90-FVE-FS-".ljust(512, b"\0"))
