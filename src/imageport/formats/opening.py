"""Recognises a disk by its content, never by its name, and opens it with its whole chain."""

# References: [MS-VHDX] 2.2.1; UEFI 2.10 5.3.2; [VHD 1.0] hard disk footer; VMware VMDK 5.0.

from __future__ import annotations

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats._qcow2_layout import MAGIC as QCOW2_MAGIC
from imageport.formats._vhdx_layout import SIGNATURE, UNFINISHED_SIGNATURE
from imageport.formats.disk_file import DiskFile
from imageport.formats.disk_format import HEAD_BYTES, TAIL_BYTES, DiskFormat, Open, starts_with
from imageport.formats.linked_disk import LinkedDisk
from imageport.formats.parents import adopt_parents
from imageport.formats.qcow2 import Qcow2Disk
from imageport.formats.raw import RawDisk
from imageport.formats.vhd import UNFINISHED_VHD, VHD
from imageport.formats.vhdx import VhdxDisk, read_link_id
from imageport.formats.vmdk import is_vmdk, open_vmdk
from imageport.storage.byte_file import ByteFile
from imageport.storage.folder import Folder


def _refuse(name: str) -> Open:
    """Return what refuses a format that is known and not read."""

    def refuse(file: ByteFile, _folder: Folder | None) -> DiskFile:
        raise UnsupportedDisk(
            f"Cannot read '{file.location}': it is {name} file.",
            hint="This release does not read that format: convert the disk to VHDX first.",
            object=file.location,
        )

    return refuse


FORMATS = (
    UNFINISHED_VHD,
    DiskFormat(
        "vhdx",
        starts_with(SIGNATURE),
        lambda file, _folder: VhdxDisk(file),
        endings=(".vhdx", ".avhdx"),
        link_id=read_link_id,
    ),
    DiskFormat("qcow2", starts_with(QCOW2_MAGIC), lambda file, _folder: Qcow2Disk(file)),
    DiskFormat("vmdk", is_vmdk, open_vmdk, endings=(".vmdk",)),
    DiskFormat("vdi", starts_with(b"<<< "), _refuse("a VirtualBox disk")),
    VHD,
)
"""What is read, and what is known and refused; a raw disk has no mark and comes last."""


def open_disk(
    file: ByteFile, resolver: Folder | None = None, *, deny_write: bool = False
) -> DiskFile:
    """Open the disk that ``file`` holds; the disk closes the file, also when this raises.

    ``resolver`` is the folder that the other files of a chain (or of a split disk) lie in; parents
    are opened so that nobody writes them if ``deny_write`` is set.

    Raises:
        BadDisk: Damaged, cut short, unfinished, no disk at all, or a chain whose link is broken.
        FileMissing: A parent is not in the folder.
        FileLocked, ShareRefused: A parent cannot be opened.
        UnsupportedDisk: A format that this release does not read, or a chain without a resolver.
    """
    opened: ByteFile | DiskFile = file
    try:
        kind = _recognised(file)
        if kind is None:
            return _raw(file)
        opened = disk = kind.open(file, resolver)
        if isinstance(disk, LinkedDisk):
            adopt_parents(disk, kind, resolver, deny_write=deny_write)
    except BaseException:
        opened.close()
        raise
    return disk


def _recognised(file: ByteFile) -> DiskFormat | None:
    head = file.read_at(0, min(HEAD_BYTES, file.size_bytes))
    tail_bytes = min(TAIL_BYTES, file.size_bytes)
    tail = file.read_at(file.size_bytes - tail_bytes, tail_bytes)
    if head.startswith(UNFINISHED_SIGNATURE):
        raise BadDisk(
            f"Bad disk '{file.location}': found a VHDX whose writing was never finished, "
            f"needed a finished one.",
            hint="It is left over from a run that stopped: let that run resume, or delete it.",
            object=file.location,
        )
    return next((one for one in FORMATS if one.recognise(head, tail)), None)


def _raw(file: ByteFile) -> RawDisk:
    head = file.read_at(0, min(HEAD_BYTES, file.size_bytes))
    sector_bytes = _raw_sector_bytes(head)
    if not sector_bytes:
        found = f"{file.size_bytes} bytes that start with {head[:16].hex(' ') or 'nothing'}"
        raise BadDisk(
            f"Bad disk '{file.location}': found {found}, needed a disk in a known format or a "
            "partitioned raw disk.",
            hint="Check that this is the disk's file, and that it was copied whole.",
            object=file.location,
        )
    return RawDisk(file, sector_bytes=sector_bytes)


def _raw_sector_bytes(head: bytes) -> int:
    """Return the sector size that a raw disk's partition table shows, 0 when there is none."""
    for sector_bytes in (512, 4096):
        if head[sector_bytes : sector_bytes + 8] == b"EFI PART":
            return sector_bytes
    return 512 if head[510:512] == b"\x55\xaa" else 0
