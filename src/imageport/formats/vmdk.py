"""Reads VMDK disks of hosted products and of vSphere datastores, in one file or in many."""

# References: VMware Virtual Disk Format 5.0: descriptor file, hosted sparse and flat extents.

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator

from imageport.formats import _vmdk_layout as layout
from imageport.formats._vmdk_descriptor import (
    MAX_BYTES,
    NO_PARENT,
    DescribedExtent,
    Descriptor,
    fits_capacity,
    is_descriptor,
    nominal_size,
    parse,
    refuse_delta,
)
from imageport.formats._vmdk_extents import FlatExtent, SparseExtent, VmdkExtent, ZeroExtent
from imageport.formats._vmdk_header import bad, check_header, unsupported
from imageport.formats._vmdk_names import ExtentFiles
from imageport.formats.disk_file import DiskFile, StoredFile
from imageport.formats.mapped_disk import MappedDisk, Segment
from imageport.formats.vmdk_packed import StreamOptimizedVmdk
from imageport.storage.byte_file import ByteFile
from imageport.storage.folder import Folder

_REFUSED_KINDS = {
    "VMFSSPARSE": ("a snapshot's delta (vmfsSparse)", "Export the snapshot through vSphere."),
    "SESPARSE": ("a snapshot's delta (SEsparse)", "Export the snapshot through vSphere."),
    "VMFSRDM": ("a raw device mapping", "Export the machine through vSphere, or copy the device."),
    "VMFSRAW": ("a raw device", "Export the machine through vSphere, or copy the device."),
}


def is_vmdk(head: bytes, _tail: bytes) -> bool:
    """Return whether a file's first bytes are those of a sparse extent or of a descriptor."""
    return head.startswith((layout.SPARSE_MAGIC, layout.COW_MAGIC)) or is_descriptor(head)


def open_vmdk(file: ByteFile, folder: Folder | None = None) -> DiskFile:
    """Open a VMDK by its only file or by its descriptor; ``folder`` has the other files.

    The disk takes ``file`` over and closes it, unless this raises.

    Raises:
        BadDisk: Damaged, cut short, or an extent's name leads out of the folder.
        FileMissing: An extent's file is not in the folder.
        UnsupportedDisk: A snapshot's delta, a raw device, or one extent of a split disk.
    """
    magic = file.read_at(0, min(4, file.size_bytes))
    if magic == layout.COW_MAGIC:
        unsupported(
            file.location,
            "it is a VMDK of the kind vmfsSparse (COWD), the delta of a snapshot as a rule",
            "Export the snapshot through vSphere, which reads the whole chain.",
        )
    if magic == layout.SPARSE_MAGIC:
        return _open_sparse(file)
    return _open_described(file, folder)


class VmdkDisk(MappedDisk):
    """A VMDK whose content is not compressed, in the files of its extents; owns all of them."""

    format_name = "vmdk"
    sector_bytes = layout.SECTOR_BYTES

    def __init__(
        self,
        file: ByteFile,
        descriptor: Descriptor,
        extents: list[VmdkExtent],
        others: list[StoredFile],
    ) -> None:
        super().__init__(file)
        self._descriptor = descriptor
        self._extents = extents
        self._others = others
        self._starts = [0]
        for extent in extents:
            self._starts.append(self._starts[-1] + extent.size_bytes)

    @property
    def size_bytes(self) -> int:
        """Return the size of all extents."""
        return self._starts[-1]

    def stored_files(self) -> Iterator[StoredFile]:
        """Yield the file that was opened, then those of its extents."""
        yield self._stored
        yield from self._others

    def data_files(self) -> Iterator[StoredFile]:
        """Yield the files that hold content: a descriptor of its own does not."""
        yield from self._others or [self._stored]

    def details(self) -> dict[str, int | str]:
        """Return the sizes of all files, the kind and the content id."""
        files = list(self.stored_files())
        return super().details() | {
            "subformat": self._descriptor.create_type or "unknown",
            "content_id": self._descriptor.content_id,
            "extent_files": len(self._extents),
            "file_bytes": sum(stored.file.size_bytes for stored in files),
            "allocated_bytes": sum(size for one in files for _, size in one.allocated()),
        }

    def content_key(self) -> str:
        """Return the content id and the identity of all files."""
        keys = " ".join(stored.opened.key() for stored in self.stored_files())
        digest = hashlib.sha256(keys.encode()).hexdigest()
        return f"vmdk:{self._descriptor.content_id}:{digest}"

    def segments(self, offset_bytes: int, length_bytes: int) -> Iterator[Segment]:
        """Yield segments, extent by extent."""
        end = offset_bytes + length_bytes
        index = bisect_right(self._starts, offset_bytes) - 1
        while offset_bytes < end:
            start, stop = self._starts[index], min(end, self._starts[index + 1])
            inside = offset_bytes - start
            for segment in self._extents[index].segments(inside, stop - offset_bytes):
                yield segment._replace(offset=segment.offset + start)
            offset_bytes, index = stop, index + 1


def _open_sparse(file: ByteFile) -> DiskFile:
    """Open a disk in one sparse file, with its descriptor inside."""
    if file.size_bytes < layout.SECTOR_BYTES:
        bad(file.location, "header", 0, f"{file.size_bytes} bytes", f"{layout.SECTOR_BYTES} bytes")
    header = layout.SparseHeader.unpack(file.read_at(0, layout.SECTOR_BYTES))
    check_header(file.location, header)
    at = header.descriptor_offset * layout.SECTOR_BYTES
    length = header.descriptor_size * layout.SECTOR_BYTES
    if at + length > file.size_bytes:
        found = f"{length} bytes"
        bad(file.location, "descriptor", at, found, f"inside {file.size_bytes} bytes")
    data = file.read_at(at, length) if at else b""
    if data.strip(b"\0"):
        descriptor = parse(file.location, data, at)
    elif header.is_compressed:
        descriptor = Descriptor("streamOptimized", "", NO_PARENT, "", ())
    else:
        unsupported(
            file.location,
            "it has no descriptor: it is one extent of a disk in several files",
            "Open the disk by its descriptor, the small .vmdk file without a number in its name.",
        )
    refuse_delta(file.location, descriptor)
    size_bytes = nominal_size(file.location, descriptor, header) * layout.SECTOR_BYTES
    if header.is_compressed:
        return StreamOptimizedVmdk(file, header, descriptor, size_bytes)
    if len(descriptor.extents) > 1:
        found = f"{len(descriptor.extents)} extents"
        bad(file.location, "descriptor inside an extent", at, found, "one extent")
    return VmdkDisk(file, descriptor, [SparseExtent(StoredFile(file), header, size_bytes)], [])


def _open_described(file: ByteFile, folder: Folder | None) -> DiskFile:
    """Open a disk by its descriptor file."""
    location = file.location
    if file.size_bytes > MAX_BYTES:
        bad(location, "descriptor", 0, f"{file.size_bytes} bytes", f"at most {MAX_BYTES}")
    descriptor = parse(location, file.read_at(0, file.size_bytes))
    refuse_delta(location, descriptor)
    if not descriptor.extents:
        bad(location, "descriptor", 0, "no extents", "at least one")
    for extent in descriptor.extents:
        _check_kind(location, extent)
    files = ExtentFiles(location, folder)
    try:
        extents = [_open_extent(extent, files) for extent in descriptor.extents]
        return VmdkDisk(file, descriptor, extents, files.opened)
    except BaseException:
        files.close()
        raise


def _check_kind(location: str, extent: DescribedExtent) -> None:
    if extent.access == "NOACCESS":
        unsupported(
            location,
            f"its extent '{extent.name}' of {extent.size} sectors may not be read (NOACCESS)",
            "It is a disk over part of a device: copy the device instead.",
        )
    if extent.kind in _REFUSED_KINDS:
        kind, hint = _REFUSED_KINDS[extent.kind]
        unsupported(location, f"its extent '{extent.name}' is {kind}", hint)
    if extent.kind not in {"FLAT", "VMFS", "SPARSE", "ZERO"}:
        bad(location, "extent kind", 0, extent.kind, "FLAT, VMFS, SPARSE or ZERO")


def _open_extent(extent: DescribedExtent, files: ExtentFiles) -> VmdkExtent:
    size_bytes = extent.size * layout.SECTOR_BYTES
    if extent.kind == "ZERO":
        return ZeroExtent(size_bytes)
    if extent.kind != "SPARSE":
        start = extent.start * layout.SECTOR_BYTES
        return FlatExtent(files.open_part(extent.name, start, size_bytes), size_bytes, start)
    stored = files.open_whole(extent.name)
    location = stored.file.location
    if stored.file.size_bytes < layout.SECTOR_BYTES:
        bad(location, "header", 0, f"{stored.file.size_bytes} bytes", "a sparse extent")
    header = layout.SparseHeader.unpack(stored.file.read_at(0, layout.SECTOR_BYTES))
    check_header(location, header)
    if not fits_capacity(extent.size, header):
        needed = f"{extent.size} as the descriptor says, or rounded up to a whole grain"
        bad(location, "capacity", 12, header.capacity, needed)
    return SparseExtent(stored, header, size_bytes)
