"""Boot stores: elements read back typed, devices of both schemes, changes with a backup."""

from __future__ import annotations

import lzma
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.compose import boot_store as bcd
from imageport.compose.boot_device import (
    BootPartition,
    boot_partition,
    partition_device,
    read_device,
    with_moved_partitions,
)
from imageport.compose.boot_store import Element, default_entry
from imageport.compose.hives.hive import Hive
from imageport.compose.recorder import Recorder
from imageport.compose.volumes.guest_files import PendingFiles
from imageport.compose.volumes.partition_table import Partition, PartitionTable
from imageport.errors import BadDisk
from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.windows_registry import make_boot_store

REAL = Path(os.environ.get("IMAGEPORT_TESTDATA", "/nonexistent")) / "hives" / "BCD.xz"
LOADER = "{4c8f1a27-b5d0-11ee-9a63-0050569c17e4}"
GPT = BootPartition(str(recipe.DISK_GUID), str(recipe.WINDOWS_GUID))
MBR = BootPartition("mbr:1c0ffee5", "offset:368050176")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Hive]:
    make_boot_store(tmp_path / "BCD")
    with Hive(tmp_path / "BCD", writable=True) as hive:
        yield hive


def test_the_layout_of_an_mbr_device_is_the_documented_one() -> None:
    data = partition_device(MBR)
    assert len(data) == 88
    assert struct.unpack_from("<IIII", data, 16) == (6, 0, 72, 0)
    assert struct.unpack_from("<QQ", data, 32) == (368050176, 0)
    assert struct.unpack_from("<III", data, 48) == (0, 1, 0x1C0FFEE5)
    assert not any(data[:16] + data[60:])


def test_the_layout_of_a_gpt_device_is_that_of_a_real_store() -> None:
    data = partition_device(GPT)
    assert data[32:48] == recipe.WINDOWS_GUID.bytes_le
    assert data[48:56] == bytes(8)
    assert data[56:72] == recipe.DISK_GUID.bytes_le


DEVICES: dict[str, tuple[bytes, object]] = {
    "nothing": (b"", "missing"),
    "cut short": (partition_device(GPT)[:60], "a partition of an unknown kind"),
    "boot": (bytes(16) + struct.pack("<IIII", 5, 0, 72, 0) + bytes(56), "boot"),
    "locate": (bytes(16) + struct.pack("<IIII", 8, 0, 72, 0) + bytes(56), "type 8"),
    "raw style": (
        partition_device(GPT)[:52] + b"\2" + partition_device(GPT)[53:],
        "a partition of an unknown kind",
    ),
    "GPT": (partition_device(GPT), GPT),
    "MBR": (partition_device(MBR), MBR),
}


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_is_read_as(name: str) -> None:
    data, expected = DEVICES[name]
    assert read_device(data) == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_something(data: bytes) -> None:
    assert read_device(data)
    assert len(with_moved_partitions(data, {MBR: GPT})) == len(data)


@given(st.uuids(), st.uuids(), st.integers(0, 2**32 - 1), st.integers(0, 2**63))
def test_what_is_written_is_read_back(
    disk: UUID, partition: UUID, signature: int, offset: int
) -> None:
    for where in (
        BootPartition(str(disk), str(partition)),
        BootPartition(f"mbr:{signature:08x}", f"offset:{offset}"),
    ):
        assert read_device(partition_device(where)) == where


@pytest.mark.parametrize(
    "where",
    [
        BootPartition("mbr:1c0ffee5", str(recipe.WINDOWS_GUID)),
        BootPartition("mbr:x", "offset:1"),
        BootPartition(str(recipe.DISK_GUID), "offset:1"),
        BootPartition("mbr:1c0ffee5", "offset:-1"),
    ],
)
def test_a_partition_of_two_schemes_is_no_device(where: BootPartition) -> None:
    with pytest.raises(BadDisk, match="Bad boot partition"):
        partition_device(where)


def test_a_partition_table_says_how_a_store_names_its_partitions() -> None:
    part = Partition(2, "0x07", "", "", 368050176, 1, is_active=True)
    assert boot_partition(PartitionTable("mbr", "mbr:1c0ffee5", (part,)), part) == MBR
    part = Partition(3, "", str(recipe.WINDOWS_GUID), "", 0, 1)
    assert boot_partition(PartitionTable("gpt", str(recipe.DISK_GUID), (part,)), part) == GPT


def test_a_partition_below_a_ram_disk_moves_too() -> None:
    head = UUID(int=7).bytes_le + struct.pack("<IIII", 0, 1, 184, 0) + bytes(20)
    path = "\\Recovery\\WindowsRE\\Winre.wim\0".encode("utf-16-le")
    element = head + partition_device(MBR)[16:] + path
    moved = with_moved_partitions(element, {MBR: GPT})
    assert moved == head + partition_device(GPT)[16:] + path
    assert with_moved_partitions(moved, {GPT: MBR}) == element


def test_elements_are_read_back_typed(store: Hive) -> None:
    entry = default_entry(store)
    assert isinstance(entry, bcd.BootEntry)
    assert (entry.identifier, entry.system_root, entry.system_device) == (LOADER, "\\Windows", GPT)
    assert bcd.element_flag(store, LOADER, Element.RECOVERY_ENABLED) is True
    assert bcd.element_number(store, bcd.BOOT_MANAGER, Element.TIMEOUT_SECONDS) == 30
    assert bcd.element_texts(store, bcd.BOOT_MANAGER, Element.DISPLAY_ORDER) == [LOADER]
    assert bcd.element_flag(store, LOADER, Element.EMS) is None
    assert bcd.element_number(store, LOADER, Element.DESCRIPTION) is None
    assert dict(bcd.objects(store))[LOADER] == bcd.OS_LOADER_TYPE


def test_the_first_change_keeps_the_store_as_it_was_and_a_backup_stays(guest: Any) -> None:
    original = (guest.esp.root / "EFI/Microsoft/Boot/BCD").read_bytes()
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        boot = PendingFiles(guest.esp)
        recorder = Recorder(registry, PendingFiles(guest.windows), boot)
        bcd.set_element(recorder, LOADER, Element.RECOVERY_ENABLED, bcd.flag(on=True))
        bcd.delete_element(recorder, LOADER, Element.EMS)
        assert recorder.changes == []
        bcd.set_element(recorder, LOADER, Element.RECOVERY_ENABLED, bcd.flag(on=False))
        bcd.set_element(recorder, LOADER, Element.EMS, bcd.flag(on=True))
        bcd.delete_element(recorder, LOADER, Element.EMS)
        backup = boot.read("EFI/Microsoft/Boot/BCD.imageport-backup", 10**6)
        kinds = [(change.kind, change.before, change.after) for change in recorder.changes]
    assert backup == original
    assert [kind for kind, _, _ in kinds] == ["file", "registry", "registry", "registry"]
    assert kinds[1][1:] == ("REG_BINARY 01", "REG_BINARY 00")
    assert kinds[3] == ("registry", "Element=REG_BINARY 01", "")


@pytest.mark.skipif(not REAL.is_file(), reason="IMAGEPORT_TESTDATA names no folder with real hives")
def test_a_real_store_is_read_and_its_recovery_partition_moves(tmp_path: Path) -> None:
    (tmp_path / "BCD").write_bytes(lzma.decompress(REAL.read_bytes()))
    with Hive(tmp_path / "BCD") as store:
        entry = default_entry(store)
        assert isinstance(entry, bcd.BootEntry)
        system = entry.system_device
        assert isinstance(system, BootPartition)
        loaders = [name for name, kind in bcd.objects(store) if kind == bcd.OS_LOADER_TYPE]
        recovery = next(name for name in loaders if name != entry.identifier)
        element = bcd.element(store, recovery, Element.OS_DEVICE)
        sdi = next(
            value
            for name, _ in bcd.objects(store)
            if (value := bcd.element(store, name, Element.RAM_DISK_IMAGE_DEVICE))
        )
    assert element is not None
    where = read_device(sdi.data)
    assert isinstance(where, BootPartition)
    assert where.disk == system.disk
    assert where.partition != system.partition
    assert read_device(element.data) == "type 0"
    moved = with_moved_partitions(element.data, {where: MBR})
    assert moved != element.data
    assert with_moved_partitions(moved, {MBR: where}) == element.data
