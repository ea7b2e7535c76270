"""What the sample vDisk is: sizes, identities, variants and the identity of the recipe itself.

Identities are fixed so that two builds describe the same machine: the boot store names the
partitions by them, and a delta between two runs is then the delta of the contents.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from imageport.sandbox.sample.guest_kind import Firmware, GuestKind, Provisioning

MIB = 1024 * 1024

DISK_BYTES = 8 * 1024 * MIB
VHDX_BLOCK = "32M"
"""Payload block of the dynamic VHDX files that the Provisioning Services console makes."""

DISK_GUID = UUID("6d0f7a52-3c1e-4b8f-9a47-5e2d10c4b7a1")
ESP_GUID = UUID("0b9d6c34-71a5-4e0c-8c52-d0a4f1e6b923")
MSR_GUID = UUID("c2a8f5e1-4d3b-4f96-b1d7-8e60a95c3d42")
WINDOWS_GUID = UUID("91e4d7b8-0f62-4ca3-a5d9-3b7c82f6e015")
MBR_SIGNATURE = 0x54504D49
"""Of BIOS disks; their first partition starts at 1 MiB, as Windows' setup makes it."""
NTFS_SERIAL = 0x5C1AB8E71AB8C7D4
FAT_SERIAL = "B4A7C3D2"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; ``first`` and ``size`` in bytes.

    ``kind`` is sgdisk's type code, or the type byte of a partition in an MBR.
    """

    number: int
    name: str
    kind: str
    guid: UUID
    first: int
    size: int


ESP = Partition(1, "EFI system partition", "ef00", ESP_GUID, 1 * MIB, 100 * MIB)
MSR = Partition(2, "Microsoft reserved partition", "0c01", MSR_GUID, 101 * MIB, 16 * MIB)
WINDOWS = Partition(
    3, "Basic data partition", "0700", WINDOWS_GUID, 117 * MIB, DISK_BYTES - 118 * MIB
)
PARTITIONS = (ESP, MSR, WINDOWS)

_NO_GUID = UUID(int=0)
SYSTEM_RESERVED = Partition(1, "System Reserved", "07", _NO_GUID, 1 * MIB, 100 * MIB)
WINDOWS_BESIDE_IT = Partition(2, "Windows", "07", _NO_GUID, WINDOWS.first, WINDOWS.size)
WINDOWS_ALONE = Partition(1, "Windows", "07", _NO_GUID, 1 * MIB, DISK_BYTES - 2 * MIB)
"""Setup on a disk that was partitioned before makes no partition of its own to start from."""


class Variant(StrEnum):
    """The sound image, a smaller sound image, and one image for each reason to refuse."""

    DEFAULT = "default"
    SMALL = "small"
    """As default with a tenth of the bulk data: what tests build."""
    HIBERNATED = "hibernated"
    DIRTY_NTFS = "dirty_ntfs"
    BITLOCKER = "bitlocker"
    DIRTY_HIVE = "dirty_hive"
    HIVE_BEHIND = "hive_behind"
    """Dirty too, but its logs have what is missing."""
    MBR = "mbr"
    """Starts by BIOS, from a System Reserved partition of its own."""
    MBR_ALONE = "mbr_alone"
    """Starts by BIOS; the Windows partition is the active and the only one."""
    NO_PVS = "no_pvs"
    MCS_MASTER = "mcs_master"
    """As default, of an MCS catalog: no PVS target device software."""
    MCS_SMALL = "mcs_small"
    """The same with a tenth of the bulk data: what tests build."""
    NO_ESP_LOADER = "no_esp_loader"
    WITHOUT_NETVSC = "without_netvsc"
    """This and the following lack something on Azure; see `azure_faults`."""
    WITHOUT_STORVSC = "without_storvsc"
    WITHOUT_STORVSC_ID = "without_storvsc_id"
    WITHOUT_VPCI = "without_vpci"
    WITHOUT_HOST_TIME = "without_host_time"
    WITHOUT_DOTNET = "without_dotnet"
    OFFLINE_SAN = "offline_san"
    DVD_DISABLED = "dvd_disabled"


@dataclass(frozen=True, slots=True)
class BulkData:
    """How much of each kind of content lies beside the Windows files, in MiB.

    ``zeros`` are written, so they are allocated everywhere; 64 MiB in one piece always hold one
    whole 32 MiB block of the VHDX.
    """

    random: int
    text: int
    zeros: int


def bulk_data(variant: Variant) -> BulkData:
    """Return the amounts for a variant; everything but the two sound samples is small."""
    if variant in {Variant.DEFAULT, Variant.MCS_MASTER}:
        return BulkData(random=144, text=96, zeros=96)
    return BulkData(random=16, text=8, zeros=64)


def windows_partition(variant: Variant) -> Partition:
    """Return the partition that Windows lies in."""
    special = {Variant.MBR: WINDOWS_BESIDE_IT, Variant.MBR_ALONE: WINDOWS_ALONE}
    return special.get(variant, WINDOWS)


def guest_kind(variant: Variant) -> GuestKind:
    """Return what kind of guest a variant is."""
    if variant is Variant.NO_PVS:
        return GuestKind(provisioning=Provisioning.NONE)
    if variant in {Variant.MCS_MASTER, Variant.MCS_SMALL}:
        return GuestKind(provisioning=Provisioning.MCS)
    if variant in {Variant.MBR, Variant.MBR_ALONE}:
        return GuestKind(firmware=Firmware.BIOS)
    return GuestKind()


def recipe_id(variant: Variant) -> str:
    """Return the identity of what would be built: sha256 over this package's files and variant."""
    digest = hashlib.sha256(f"variant {variant}\n".encode())
    folder = Path(__file__).parent
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(folder)).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:20]
