"""Recognises a disk by its content, never by its name, and opens it."""

# References: [MS-VHDX] 2.2.1; UEFI 2.10 5.3.2; [VHD 1.0] hard disk footer; VMware VMDK 5.0.

from __future__ import annotations

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats._vhdx_layout import SIGNATURE, UNFINISHED_SIGNATURE
from imageport.formats.disk_file import DiskFile
from imageport.formats.raw import RawDisk
from imageport.formats.vhdx import VhdxDisk
from imageport.storage.byte_file import ByteFile
from imageport.storage.folder import Folder

_OTHERS = {
    b"conectix": "a VHD",
    b"KDMV": "a VMDK",
    b"COWD": "a VMDK",
    b"# Disk DescriptorFile": "a VMDK",
    b"QFI\xfb": "a QCOW2",
    b"<<< ": "a VirtualBox disk",
}
_HEAD_BYTES = 8192


def open_disk(file: ByteFile, resolver: Folder | None = None) -> DiskFile:
    """Open the disk that ``file`` holds; the disk closes the file, also when this raises.

    ``resolver`` is the folder that parents of chains will be looked for in.

    Raises:
        BadDisk: Damaged, cut short, unfinished, or no disk at all.
        UnsupportedDisk: A format or a state (parent, pending log) that this release cannot read.
    """
    try:
        return _open(file, resolver)
    except BaseException:
        file.close()
        raise


def _open(file: ByteFile, resolver: Folder | None) -> DiskFile:
    head = file.read_at(0, min(_HEAD_BYTES, file.size_bytes))
    if head.startswith(SIGNATURE):
        return VhdxDisk(file, resolver)
    if head.startswith(UNFINISHED_SIGNATURE):
        raise BadDisk(
            f"Bad disk '{file.location}': found a VHDX whose writing was never finished, "
            f"needed a finished one.",
            hint="It is left over from a run that stopped: let that run resume, or delete it.",
            object=file.location,
        )
    tail = file.read_at(file.size_bytes - 512, 512) if file.size_bytes >= 512 else b""
    for mark, name in _OTHERS.items():
        if head.startswith(mark) or tail.startswith(mark):
            raise UnsupportedDisk(
                f"Cannot read '{file.location}': it is {name} file.",
                hint="This release reads VHDX and raw disks: convert it first.",
                object=file.location,
            )
    sector_bytes = _raw_sector_bytes(head)
    if not sector_bytes:
        found = f"{file.size_bytes} bytes that start with {head[:16].hex(' ') or 'nothing'}"
        raise BadDisk(
            f"Bad disk '{file.location}': found {found}, needed a VHDX or a partitioned raw disk.",
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
