"""Finding the Windows volume and the EFI partition, and every reason to refuse on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from imageport.compose.contract import EngineJob, Refusal
from imageport.compose.guest import BOOT_MOUNT, DEVICE, WINDOWS_MOUNT, Guest
from imageport.compose.hives.registry import HiveCopies, copy_hives, hive_path
from imageport.compose.refusals import (
    disk_refusals,
    esp_refusals,
    hive_refusals,
    no_windows_reason,
    refusal,
    volume_refusals,
)
from imageport.compose.volumes.bitlocker import describe_bitlocker, is_bitlocker
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.compose.volumes.mounted_files import MountedFiles
from imageport.compose.volumes.ntfs_volume import is_marked_dirty, is_ntfs
from imageport.compose.volumes.partition_table import Partition
from imageport.compose.volumes.uefi_layout import UefiLayout, UefiPlan

_OTHER_MOUNT = "/other"


@dataclass(slots=True)
class Survey:
    """What was found; ``windows`` is None when there is nothing to look into."""

    refusals: list[Refusal] = field(default_factory=list)
    partition: Partition | None = None
    windows: GuestFiles | None = None
    boot_partition: Partition | None = None
    boot_files: GuestFiles | None = None
    """What firmware starts from; the very ``windows`` where BIOS starts from that volume."""
    hives: HiveCopies = field(default_factory=HiveCopies)
    uefi: UefiPlan | None = None
    """How the disk becomes a GPT one, filled in by who asks for it."""

    @property
    def layout(self) -> UefiLayout | None:
        """Return the disk's new layout if it gets one."""
        return self.uefi.layout if self.uefi else None

    @property
    def codes(self) -> set[str]:
        """Return the codes of all refusals so far."""
        return {item.code for item in self.refusals}

    @property
    def can_open_registry(self) -> bool:
        """Say whether the hives can be read at all."""
        return self.windows is not None and self.hives.can_be_opened


def survey(guest: Guest, job: EngineJob, folder: Path) -> Survey:
    """Look at everything without writing; mounts Windows and the EFI partition read-only.

    The hives are copied into ``folder``.
    """
    found = Survey(disk_refusals(guest.table, job))
    if "wrong_disk" in found.codes:
        return found  # somebody else's disk: not even looked into
    _find_windows(guest, found)
    if found.windows is not None:
        found.refusals += volume_refusals(found.windows)
    _mount_boot_volume(guest, found)
    found.refusals += esp_refusals(found.boot_files, guest.table)
    if found.windows is not None:
        found.hives = copy_hives(found.windows, folder, found.boot_files, guest.table.firmware)
        found.refusals += hive_refusals(found.hives)
    return found


def write_refusals(guest: Guest, found: Survey) -> list[Refusal]:
    """Ask NTFS' driver whether it would mount the volume for writing; the volume is unmounted."""
    if found.partition is None:
        return []
    guest.unmount(WINDOWS_MOUNT)
    return _driver_refusals(guest, found.partition)


def _find_windows(guest: Guest, found: Survey) -> None:
    encrypted: list[Partition] = []
    others: list[Partition] = []
    for partition in guest.table.partitions:
        boot_sector = guest.read_partition(partition, 0, 512)
        if is_bitlocker(boot_sector):
            encrypted.append(partition)
        elif partition.may_hold_ntfs and is_ntfs(boot_sector):
            if found.windows is None:
                _try(guest, found, partition, boot_sector)
            elif _mount_windows(guest, partition, _OTHER_MOUNT):
                guest.unmount(_OTHER_MOUNT)
                others.append(partition)
    if found.partition is not None and others:
        numbers = ", ".join(str(system.number) for system in (found.partition, *others))
        found.refusals.append(refusal("unknown_guest", f"Windows lies in partitions {numbers}."))
    elif found.windows is None and encrypted:
        found.refusals += [_encrypted(guest, partition) for partition in encrypted]
    elif found.windows is None and "dynamic_disk" not in found.codes:
        held = contents_by_partition(guest)
        found.refusals.append(refusal("unknown_guest", no_windows_reason(held)))


def _encrypted(guest: Guest, partition: Partition) -> Refusal:
    read_at = partial(guest.read_partition, partition)
    details = describe_bitlocker(read_at(0, 512), read_at)
    reason = f"Partition {partition.number} is BitLocker-encrypted"
    return refusal("bitlocker", f"{reason}; {details}." if details else f"{reason}.")


def contents_by_partition(guest: Guest) -> dict[str, str]:
    """Return blkid's word for what each partition holds, or the whole disk when it has none."""
    if not guest.table.partitions:
        return {"The disk": guest.kind_of_content(DEVICE)}
    return {
        f"Partition {one.number}": guest.kind_of_content(guest.device_of(one))
        for one in guest.table.partitions
    }


def _try(guest: Guest, found: Survey, partition: Partition, boot_sector: bytes) -> None:
    """Take the partition as the system's if it is; what is wrong with its volume is noted."""
    refusals = []
    if is_marked_dirty(boot_sector, partial(guest.read_partition, partition)):
        refusals = [refusal("dirty_ntfs", "The volume's dirty flag is set.")]
    elif not guest.writable:  # on a writable disk the driver is asked last, by `write_refusals`
        refusals = _driver_refusals(guest, partition)  # it must not be mounted then
    files = _mount_windows(guest, partition, WINDOWS_MOUNT)
    if files is not None:
        found.partition, found.windows = partition, files
        found.refusals += refusals


def _mount_windows(guest: Guest, partition: Partition, mount: str) -> GuestFiles | None:
    """Mount a volume and keep it mounted if Windows is on it."""
    try:
        guest.mount(partition, mount)
    except RuntimeError:
        return None
    files = MountedFiles(guest.handle, mount)
    if files.exists(hive_path("SYSTEM")):
        return files
    guest.unmount(mount)
    return None


def _driver_refusals(guest: Guest, partition: Partition) -> list[Refusal]:
    problem = guest.ntfs_problem(partition)
    if problem == "dirty":
        return [refusal("dirty_ntfs", "NTFS' journal was not closed by a shutdown.")]
    # A hibernated volume is reported from its file, with the reason in words.
    return []


def _mount_boot_volume(guest: Guest, found: Survey) -> None:
    partition = guest.table.boot_partition
    if partition is None:
        return
    if partition == found.partition:
        found.boot_partition, found.boot_files = partition, found.windows
        return
    try:
        guest.mount(partition, BOOT_MOUNT)
    except RuntimeError:
        return
    found.boot_partition = partition
    found.boot_files = boot_volume_files(guest, partition)


def boot_volume_files(guest: Guest, partition: Partition) -> GuestFiles:
    """Return the files of the boot volume where it is mounted by itself.

    BIOS starts from FAT as well as from NTFS.
    """
    is_fat = guest.kind_of_content(guest.device_of(partition)) == "vfat"
    return MountedFiles(guest.handle, BOOT_MOUNT, has_descriptors=not is_fat)
