"""Turning an MBR disk into a GPT one in the launched machine: planned by looking, then written.

The order of writing: the Windows file system is made smaller, Windows' files are written, then the
new table, then the EFI system partition. Until the table's last sector is written the old system
still starts, unless its own boot partition is the one that is reused. A disk on which this was
interrupted is thrown away all the same: what works on it has a copy or an overlay.
"""

from __future__ import annotations

from dataclasses import replace

from imageport.compose.contract import EngineJob, Inspection
from imageport.compose.guest import BOOT_MOUNT, DEVICE, WINDOWS_MOUNT, Guest
from imageport.compose.inspection import describe_partitions
from imageport.compose.refusals import MIN_FREE_BYTES
from imageport.compose.steps.boot.convert_to_uefi import boot_files_bytes
from imageport.compose.survey import Survey
from imageport.compose.volumes.fat32 import fat32_writes
from imageport.compose.volumes.gpt_writer import gpt_writes
from imageport.compose.volumes.ntfs_volume import cleared_dirty_flags
from imageport.compose.volumes.partition_table import SECTOR_BYTES, Partition
from imageport.compose.volumes.uefi_layout import (
    MbrDisk,
    UefiLayout,
    UefiPlan,
    plan_uefi_layout,
)
from imageport.errors import EngineFailed

_ONLY_BOOT_FILES = {
    "bootmgr",
    "bootnxt",
    "bootsect.bak",
    "boot",
    "system volume information",
    "$recycle.bin",
}
"""In the root of an old system partition that nothing else uses. Setup puts the recovery
environment beside it in some versions: then the partition stays."""


def plan_conversion(guest: Guest, found: Survey, job: EngineJob) -> UefiPlan | None:
    """Return how the disk would become a GPT disk, None when that is not asked for or is so."""
    wanted = job.options.convert_to_uefi and guest.table.scheme == "mbr"
    if not wanted or found.partition is None or found.windows is None:
        return None
    disk = MbrDisk(
        table=guest.table,
        disk_bytes=int(guest.handle.blockdev_getsize64(DEVICE)),
        sector_bytes=int(guest.handle.blockdev_getss(DEVICE)),
        windows=found.partition,
        boot_files_bytes=boot_files_bytes(found.windows),
        may_reuse_active=holds_only_boot_files(found),
    )
    plan = plan_uefi_layout(disk)
    if plan.layout is None or not plan.layout.shrinks_by_bytes:
        return plan
    problem = _shrink_problem(guest, found, plan.layout)
    return UefiPlan(problems=(problem,)) if problem else plan


def holds_only_boot_files(found: Survey) -> bool:
    """Say whether the active partition is one of its own, and nothing else is lost with it."""
    if found.boot_files is None or found.boot_partition == found.partition:
        return False
    return all(name.lower() in _ONLY_BOOT_FILES for name in found.boot_files.names(""))


def shrink_windows(guest: Guest, partition: Partition, layout: UefiLayout) -> None:
    """Make the unmounted Windows file system smaller, check it, and clear its mark for a check.

    ntfsresize always marks a volume, so that Windows checks it; what it did is checked here
    instead, because the one boot has a deadline and later ones forget what they found.
    """
    device = guest.device_of(partition)
    guest.handle.ntfsresize(device, size=layout.windows.length_bytes, force=True)
    guest.handle.vfs_minimum_size(device)  # ntfsresize again, which looks at every cluster first

    def read_at(offset: int, length: int) -> bytes:
        return bytes(guest.handle.pread_device(device, length, offset))

    for offset, data in cleared_dirty_flags(read_at(0, SECTOR_BYTES), read_at):
        guest.write(offset, data, device)


def convert_disk(guest: Guest, found: Survey, layout: UefiLayout) -> None:
    """Write the new table and the EFI file system; both volumes are mounted again, read-only."""
    if found.boot_files is not None and found.boot_partition != found.partition:
        guest.unmount(BOOT_MOUNT)
    guest.unmount(WINDOWS_MOUNT)
    write_layout(guest, layout)
    found.partition, found.boot_partition = layout.windows, layout.esp
    guest.mount(layout.windows, WINDOWS_MOUNT)
    guest.mount(layout.esp, BOOT_MOUNT)


def inspection_after(inspection: Inspection, layout: UefiLayout | None) -> Inspection:
    """Return what the inspection will say once the disk is laid out so."""
    if layout is None:
        return inspection
    return replace(
        inspection,
        firmware=layout.after.firmware,
        disk_guid=layout.after.disk_guid,
        partitions=describe_partitions(layout.after),
    )


def write_layout(guest: Guest, layout: UefiLayout) -> None:
    """Write the new table and make the EFI system partition; nothing is mounted.

    Raises:
        EngineFailed: the table that is read back is another one.
    """
    disk_bytes = int(guest.handle.blockdev_getsize64(DEVICE))
    for write in gpt_writes(layout.after, disk_bytes):
        guest.write(write.offset_bytes, write.data)
        guest.handle.sync()  # the table's parts reach the disk in their order
    guest.handle.blockdev_rereadpt(DEVICE)
    guest.reread_table()
    if guest.table != layout.after:
        raise EngineFailed("Cannot convert the disk: its new partition table did not stay.")
    esp = layout.esp
    first, serial = esp.first_byte // SECTOR_BYTES, int(esp.guid[:8], 16)
    guest.handle.wipefs(guest.device_of(esp))
    for write in fat32_writes(esp.length_bytes, first, serial, "SYSTEM"):
        guest.write(write.offset_bytes, write.data, guest.device_of(esp))


def _shrink_problem(guest: Guest, found: Survey, layout: UefiLayout) -> str:
    assert found.partition is not None  # noqa: S101 - the caller looked; for the type checker
    assert found.windows is not None  # noqa: S101 - as above
    wanted = layout.windows.length_bytes
    name = f"the Windows volume must shrink by {layout.shrinks_by_bytes} bytes to {wanted}"
    left = found.windows.free_bytes() - layout.shrinks_by_bytes
    if left < MIN_FREE_BYTES:
        return f"{name}, which leaves {left} bytes free, {MIN_FREE_BYTES} are needed"
    guest.unmount(WINDOWS_MOUNT)
    try:
        least = int(guest.handle.vfs_minimum_size(guest.device_of(found.partition)))
    except RuntimeError as error:
        return f"{name}, and its least size cannot be told: {error}"
    finally:
        guest.mount(found.partition, WINDOWS_MOUNT)
    return f"{name}, it cannot be less than {least}" if least > wanted else ""
