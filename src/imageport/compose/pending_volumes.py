"""What the steps recorded, both volumes as they will be, on its way to the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imageport.compose.contract import Change
from imageport.compose.guest import BOOT_MOUNT, WINDOWS_MOUNT, Guest
from imageport.compose.hives.hive import Hive
from imageport.compose.hives.registry import (
    BOOT_STORE_HIVE,
    UEFI,
    Registry,
    boot_store_path,
    hive_path,
)
from imageport.compose.hives.soundness import hive_problem
from imageport.compose.recorder import key_path
from imageport.compose.survey import Survey, boot_volume_files
from imageport.compose.uefi_disk import convert_disk, shrink_windows
from imageport.compose.volumes.guest_files import GuestFiles, PendingFiles
from imageport.compose.volumes.mounted_files import MountedFiles
from imageport.compose.volumes.new_volume import NewVolume
from imageport.errors import EngineFailed


@dataclass(frozen=True, slots=True)
class PendingVolumes:
    """Both volumes as they will be; the same overlay where BIOS starts from the Windows volume.

    A disk that is converted boots from a volume that is made then.
    """

    windows: PendingFiles
    boot: PendingFiles | None

    @classmethod
    def over(cls, found: Survey) -> PendingVolumes:
        """Return overlays over what was found, a Windows volume among it."""
        assert found.windows is not None  # noqa: S101 - the caller looked; for the type checker
        windows = PendingFiles(found.windows)
        if found.layout is not None:
            return cls(windows, PendingFiles(NewVolume(found.layout.esp.length_bytes)))
        if found.boot_files is None:
            return cls(windows, None)
        is_same = found.boot_files is found.windows
        return cls(windows, windows if is_same else PendingFiles(found.boot_files))

    def apply(self, guest: Guest, found: Survey) -> tuple[GuestFiles, GuestFiles | None]:
        """Write everything, the unmounted Windows volume first; return both read afresh."""
        assert found.partition is not None  # noqa: S101 - as above
        if found.layout is not None and found.layout.shrinks_by_bytes:
            shrink_windows(guest, found.partition, found.layout)
        guest.mount_writable(found.partition, WINDOWS_MOUNT)
        self.windows.real = MountedFiles(guest.handle, WINDOWS_MOUNT)
        self.windows.apply()
        if found.layout is not None:
            convert_disk(guest, found, found.layout)
        boot_files = self._apply_boot(guest, found)
        files = MountedFiles(guest.handle, WINDOWS_MOUNT)
        guest.handle.sync()
        return files, files if self.boot is self.windows else boot_files

    def _apply_boot(self, guest: Guest, found: Survey) -> GuestFiles | None:
        """Write the boot volume where it is one of its own."""
        boot = self.boot
        if boot is None or boot is self.windows or found.boot_partition is None:
            return found.boot_files
        if boot.is_changed:
            guest.unmount(BOOT_MOUNT)
            guest.mount_writable(found.boot_partition, BOOT_MOUNT)
            boot.real = boot_volume_files(guest, found.boot_partition)
            boot.apply()
        return boot_volume_files(guest, found.boot_partition)


def keep_hives(
    registry: Registry,
    changes: Sequence[Change],
    windows: PendingFiles,
    boot: PendingFiles | None,
    firmware: str = UEFI,
) -> None:
    """Write the hives' copies out and hand over those that changed, each to its own volume.

    ``firmware`` is what will start the disk: by it the boot store has its place.

    Raises:
        EngineFailed: a copy is not sound as it was written; nothing has reached the disk.
    """
    for name, hive in registry.hives.items():
        is_changed = any(change.path.startswith(key_path(name, "")) for change in changes)
        if not is_changed and name not in registry.replayed:
            continue
        hive.commit()
        _check(name, hive)
        if name == BOOT_STORE_HIVE:
            assert boot is not None  # noqa: S101 - that hive was read from there
            boot.rewrite(boot_store_path(firmware), hive.path)
        else:
            windows.rewrite(hive_path(name), hive.path)


def _check(name: str, hive: Hive) -> None:
    """Look at a copy as libhivex wrote it: it was sound before, so what is wrong now is new."""
    if problem := hive_problem(hive.path.read_bytes()):
        raise EngineFailed(f"Cannot rewrite hive '{name}': {problem.rstrip('.')}.")
