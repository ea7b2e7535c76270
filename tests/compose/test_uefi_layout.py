"""Where an MBR disk's partitions go as GPT, what is refused, and the bytes by foreign tools."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.compose.volumes.gpt_writer import gpt_writes
from imageport.compose.volumes.partition_table import (
    BASIC_DATA_TYPE,
    ESP_TYPE,
    HEAD_BYTES,
    RECOVERY_TYPE,
    SECTOR_BYTES,
    Partition,
    PartitionTable,
    parse_partition_table,
)
from imageport.compose.volumes.uefi_layout import (
    MIN_ESP_BYTES,
    MbrDisk,
    UefiLayout,
    esp_bytes,
    plan_uefi_layout,
)
from imageport.formats.gpt import read_layout
from imageport.formats.opening import open_disk
from imageport.storage.local import LocalFolder

MIB = 1024 * 1024
DISK = 8192 * MIB
SECOND_TABLE = 33 * SECTOR_BYTES


def part(number: int, first_mib: float, length_mib: float, kind: str = "0x07") -> Partition:
    return Partition(number, kind, "", "", int(first_mib * MIB), int(length_mib * MIB), number == 1)


def mbr_disk(*parts: Partition, windows: int, reuse: bool = False) -> MbrDisk:
    table = PartitionTable("mbr", "mbr:5a1c7bf5", parts)
    found = next(one for one in parts if one.number == windows)
    return MbrDisk(table, DISK, SECTOR_BYTES, found, 30 * MIB, reuse)


def layout_of(disk: MbrDisk) -> UefiLayout:
    plan = plan_uefi_layout(disk)
    assert plan.problems == ()
    assert plan.layout is not None
    return plan.layout


WITH_SYSTEM = (part(1, 1, 549), part(2, 550, 7640))
WITH_RECOVERY = (part(1, 1, 549), part(2, 550, 7000), part(3, 7550, 641, "0x27"))
WHOLE_DISK = (part(1, 1, 8191),)
XP_STYLE = (Partition(1, "0x07", "", "", 63 * 512, 8000 * MIB, is_active=True),)
FULL_FOUR = (part(1, 1, 20), part(2, 21, 7000), part(3, 7021, 900), part(4, 7921, 270, "0x27"))


@pytest.mark.parametrize(
    ("disk", "esp_number", "esp_first_mib", "esp_mib", "shrinks_mib"),
    [
        (mbr_disk(*WITH_SYSTEM, windows=2, reuse=True), 1, 1, 549, 0),
        (mbr_disk(*WITH_SYSTEM, windows=2), 3, 8090, 100, 100),
        (mbr_disk(*WITH_RECOVERY, windows=2, reuse=True), 1, 1, 549, 0),
        (mbr_disk(*WITH_RECOVERY, windows=2), 4, 7450, 100, 100),
        (mbr_disk(*WHOLE_DISK, windows=1), 2, 8091, 100, 101),
        (mbr_disk(*XP_STYLE, windows=1), 2, 8001, 100, 0),
        (mbr_disk(*FULL_FOUR, windows=2, reuse=True), 5, 6921, 100, 100),
        (mbr_disk(part(1, 200, 7000), windows=1), 2, 1, 100, 0),
        (mbr_disk(part(1, 1, 99), part(2, 100, 7900), windows=2, reuse=True), 3, 8000, 100, 0),
    ],
    ids=[
        "an old system partition is reused",
        "one that holds more than boot files stays",
        "with a recovery partition",
        "before the recovery partition",
        "one partition to the last sector",
        "free space behind a partition from sector 63",
        "four partitions and a system partition that is too small",
        "free space in front",
        "a system partition below 100 MiB is not reused",
    ],
)
def test_the_efi_partition_takes_the_place_that_costs_least(
    disk: MbrDisk, esp_number: int, esp_first_mib: int, esp_mib: int, shrinks_mib: int
) -> None:
    layout = layout_of(disk)
    esp = layout.esp
    assert (esp.number, esp.first_byte // MIB, esp.length_bytes // MIB) == (
        esp_number,
        esp_first_mib,
        esp_mib,
    )
    assert layout.shrinks_by_bytes == shrinks_mib * MIB
    assert layout.after.esp == esp
    assert (layout.reused is not None) == (esp_number <= len(disk.table.partitions))


def test_what_is_not_reused_stays_where_it_is_with_the_type_that_belongs_to_it() -> None:
    layout = layout_of(mbr_disk(*WITH_RECOVERY, windows=2))
    old_system, windows, recovery, _ = layout.after.partitions
    assert [old_system.type_id, windows.type_id] == [BASIC_DATA_TYPE] * 2
    assert recovery.type_id == RECOVERY_TYPE
    assert recovery.attributes == 0x8000_0000_0000_0001
    assert old_system.attributes == 0xC000_0000_0000_0000  # no letter appears in Explorer
    assert windows.attributes == 0
    before = [one.first_byte for one in layout.before.partitions]
    assert [one.first_byte for one in layout.after.partitions[:3]] == before


def test_the_efi_partition_grows_with_the_boot_files() -> None:
    disk = mbr_disk(*WITH_SYSTEM, windows=2)
    assert esp_bytes(disk) == MIN_ESP_BYTES
    assert esp_bytes(replace(disk, boot_files_bytes=120 * MIB)) == 166 * MIB
    small = replace(disk, boot_files_bytes=500 * MIB, may_reuse_active=True)
    assert layout_of(small).reused is None
    (problem,) = plan_uefi_layout(replace(disk, boot_files_bytes=513 * MIB)).problems
    assert problem.startswith("the boot files below \\Windows\\Boot have 537919488 bytes, needed")


def test_the_same_disk_gives_the_same_identities_and_another_gives_others() -> None:
    disk = mbr_disk(*WITH_SYSTEM, windows=2)
    other = replace(disk, table=replace(disk.table, disk_guid="mbr:5a1c7bf6"))
    first, again, third = (layout_of(one).after for one in (disk, disk, other))
    assert first == again
    guids = {first.disk_guid, *(one.guid for one in first.partitions)}
    assert len(guids) == 4
    assert guids.isdisjoint({third.disk_guid, *(one.guid for one in third.partitions)})


EXTENDED = part(2, 4000, 4000, "0x0f")
LINUX = part(2, 4000, 4000, "0x83")
AT_THE_END = Partition(2, "0x07", "", "", 8000 * MIB, 192 * MIB)
EARLY = Partition(1, "0x07", "", "", 2 * 512, 4000 * MIB)
BEYOND = part(2, 8000, 400)
OVER_IT = part(2, 3000, 2000)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((part(1, 1, 3999), EXTENDED), "partition 2 is an extended one with logical partitions"),
        ((part(1, 1, 3999), LINUX), "partition 2 has type 0x83, of which no GPT type is known"),
        ((part(1, 1, 3999), AT_THE_END), "partition 2 reaches into the last 33 sectors"),
        ((EARLY,), "partition 1 begins at sector 2, the new table needs 34"),
        ((part(1, 1, 3999), BEYOND), "partition 2 ends at byte 8808038400, the disk has"),
        ((part(1, 1, 3999), OVER_IT), "partitions 1 and 2 lie over each other"),
        ((part(1, 1, 150),), "the Windows partition has 157286400 bytes, too few"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_the_reason(
    parts: tuple[Partition, ...], message: str
) -> None:
    plan = plan_uefi_layout(mbr_disk(*parts, windows=1))
    assert plan.layout is None
    assert len(plan.problems) == 1
    assert plan.problems[0].startswith(message)


def test_everything_against_it_is_named_at_once() -> None:
    disk = replace(mbr_disk(part(1, 1, 3999), EXTENDED, windows=1), sector_bytes=4096)
    assert len(plan_uefi_layout(disk).problems) == 2


def written(path: Path, layout: UefiLayout) -> Path:
    with path.open("wb") as file:
        file.truncate(DISK)
        for write in gpt_writes(layout.after, DISK):
            file.seek(write.offset_bytes)
            file.write(write.data)
    return path


@pytest.mark.parametrize(
    "disk",
    [
        mbr_disk(*WITH_RECOVERY, windows=2),
        mbr_disk(*WHOLE_DISK, windows=1),
        mbr_disk(*FULL_FOUR, windows=2),
        mbr_disk(*WITH_SYSTEM, windows=2, reuse=True),
    ],
)
def test_sgdisk_and_our_own_readers_take_the_table(tmp_path: Path, disk: MbrDisk) -> None:
    layout = layout_of(disk)
    raw = written(tmp_path / "disk.raw", layout)
    done = subprocess.run(
        ["/usr/sbin/sgdisk", "--verify", "--print", raw], capture_output=True, text=True, check=True
    )
    assert "No problems found" in done.stdout
    assert f"Disk identifier (GUID): {layout.after.disk_guid.upper()}" in done.stdout
    with raw.open("rb") as file:
        assert parse_partition_table(file.read(HEAD_BYTES), DISK) == layout.after
    with LocalFolder(tmp_path) as place, open_disk(place.open_read("disk.raw")) as opened:
        found = read_layout(opened)
    assert not found.from_backup
    assert [one.guid.lower() for one in found.partitions] == [
        one.guid for one in layout.after.partitions
    ]


def test_the_second_table_alone_is_enough(tmp_path: Path) -> None:
    layout = layout_of(mbr_disk(*WITH_SYSTEM, windows=2))
    raw = written(tmp_path / "disk.raw", layout)
    with raw.open("r+b") as file:
        file.seek(SECTOR_BYTES)
        file.write(bytes(SECTOR_BYTES))
    with LocalFolder(tmp_path) as place, open_disk(place.open_read("disk.raw")) as opened:
        found = read_layout(opened)
    assert found.from_backup
    assert found.disk_guid.lower() == layout.after.disk_guid


def test_until_the_last_write_the_old_table_is_in_force() -> None:
    disk = mbr_disk(*WITH_SYSTEM, windows=2)
    sector = bytearray(SECTOR_BYTES)
    sector[440:444] = bytes.fromhex("f57b1c5a")
    for one in disk.table.partitions:
        entry = bytes([0x80 if one.is_active else 0, 0, 0, 0, int(one.type_id, 16), 0, 0, 0])
        entry += (one.first_byte // 512).to_bytes(4, "little")
        at = 446 + 16 * (one.number - 1)
        sector[at : at + 16] = entry + (one.length_bytes // 512).to_bytes(4, "little")
    sector[510:512] = b"\x55\xaa"
    head = bytes(sector) + bytes(HEAD_BYTES - SECTOR_BYTES)
    *most, last = gpt_writes(layout_of(disk).after, DISK)
    for write in most:
        assert write.offset_bytes >= SECTOR_BYTES
        if write.offset_bytes < HEAD_BYTES:
            end = write.offset_bytes + len(write.data)
            head = head[: write.offset_bytes] + write.data + head[end:]
        assert parse_partition_table(head, DISK) == disk.table
    assert (last.offset_bytes, len(last.data)) == (0, SECTOR_BYTES)
    after = parse_partition_table(last.data + head[SECTOR_BYTES:], DISK)
    assert after == layout_of(disk).after


@settings(max_examples=200, deadline=None)  # machines are shared
@given(st.data())
def test_no_layout_loses_or_overlaps_anything(data: st.DataObject) -> None:
    parts, at = [], data.draw(st.integers(34, 5000)) * SECTOR_BYTES
    for number in range(1, data.draw(st.integers(1, 4)) + 1):
        length = data.draw(st.integers(1, 4000 * 2048)) * SECTOR_BYTES
        if at + length > DISK:
            break
        kind = data.draw(st.sampled_from(["0x07", "0x27", "0x0c"]))
        parts.append(Partition(number, kind, "", "", at, length, number == 1))
        at += length + data.draw(st.integers(0, 200 * 2048)) * SECTOR_BYTES
    if not parts:
        return
    windows = data.draw(st.integers(1, len(parts)))
    disk = mbr_disk(*parts, windows=windows, reuse=windows != 1 and data.draw(st.booleans()))
    layout = plan_uefi_layout(disk).layout
    if layout is None:
        return
    spans = sorted((one.first_byte, one.end_byte) for one in layout.after.partitions)
    assert spans[0][0] >= 34 * SECTOR_BYTES
    assert spans[-1][1] <= DISK - SECOND_TABLE
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert layout.esp.type_id == ESP_TYPE
    for old in parts:
        (new,) = [one for one in layout.after.partitions if one.number == old.number]
        assert new.first_byte == old.first_byte
        shrunk = layout.shrinks_by_bytes if old.number == windows else 0
        assert new.length_bytes == old.length_bytes - shrunk
