"""Reads qcow2 disks without a backing file, and validates all that it relies on."""

# References: qemu docs/interop/qcow2.txt: Header, Feature bits, Cluster mapping.

from __future__ import annotations

import threading
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise
from typing import NoReturn

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats import _qcow2_layout as layout
from imageport.formats.packed_disk import PackedDisk, PackedPart
from imageport.model import MIB, ExtentState
from imageport.storage.byte_file import ByteFile

_MAX_DISK_BYTES = 64 * 1024 * 1024 * MIB
_MIN_CLUSTER_BITS, _MAX_CLUSTER_BITS = 9, 21
_MAX_L1_BYTES = 32 * MIB
"""What qemu allows: 2 EiB in clusters of 2 MiB, 2 TiB of ours in clusters of 4 KiB."""
_KEPT_BYTES = 4 * MIB
"""L2 tables that are kept: 64 of 64 KiB, which map 32 GiB."""
_WINDOW_ENTRIES = 256
"""Entries that are looked at together where nothing is: most of a sparse disk's tables is empty."""
_RAW_DEFLATE = -12
"""A window of 4 KiB and no header, by the specification."""


class Qcow2Disk(PackedDisk):
    """A qcow2 disk, version 2 or 3, as its machine sees it; internal snapshots are passed over.

    Takes over ``file`` and closes it, unless the constructor raises.

    Raises:
        BadDisk: The file contradicts the specification or is cut short.
        UnsupportedDisk: Sound, but it needs a backing or data file, a key, zstd, or a repair.
    """

    format_name = "qcow2"
    sector_bytes = 512

    def __init__(self, file: ByteFile) -> None:
        super().__init__(file)
        data = file.read_at(0, min(layout.HEADER_BYTES, file.size_bytes))
        self._header = layout.Header.unpack(data)
        self._check_header(len(data))
        self._refuse_features()
        self._l1 = self._load_l1()
        self._tables: OrderedDict[int, array[int]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Return the virtual disk size."""
        return self._header.size_bytes

    def details(self) -> dict[str, int | str]:
        """Return the file's sizes, the version, the cluster size and how many snapshots it has."""
        return super().details() | {
            "version": self._header.version,
            "cluster_bytes": self._header.cluster_bytes,
            "internal_snapshots": self._header.snapshots,
        }

    def content_key(self) -> str:
        """Return the identity of the file: nothing in it changes with each write."""
        return f"qcow2:{self._stored.opened.key()}"

    def parts(self, offset_bytes: int, length_bytes: int) -> Iterator[PackedPart]:
        """Yield parts by the L1 and L2 tables; a cluster marked as zeros is ZERO, none is HOLE."""
        cluster_bytes, end = self._header.cluster_bytes, offset_bytes + length_bytes
        first, behind = offset_bytes // cluster_bytes, -(-end // cluster_bytes)
        for cluster, count, entry in self._runs(first, behind):
            start = max(offset_bytes, cluster * cluster_bytes)
            stop = min(end, (cluster + count) * cluster_bytes)
            if entry & layout.COMPRESSED:
                yield self._unit(cluster, entry)
            elif entry & layout.ALL_ZERO:
                yield PackedPart(start, stop - start, ExtentState.ZERO)
            elif place := entry & layout.OFFSET_MASK:
                place += start - cluster * cluster_bytes
                self._check_place(cluster, place, stop - start)
                yield PackedPart(start, stop - start, ExtentState.DATA, place)
            else:
                yield PackedPart(start, stop - start, ExtentState.HOLE)

    def unpack(self, unit: PackedPart, stored: memoryview) -> bytes:
        """Inflate a cluster; what follows it in its last sector belongs to others."""
        inflater = zlib.decompressobj(_RAW_DEFLATE)
        try:
            content = inflater.decompress(stored, self._header.cluster_bytes)
        except zlib.error as error:
            found = f"bytes that do not inflate ({error})"
            self._bad("compressed cluster", unit.place, found, "a deflate stream")
        if len(content) < unit.length:
            found = f"{len(content)} bytes"
            self._bad("compressed cluster", unit.place, found, f"{unit.length} bytes")
        return content[: unit.length]

    def _runs(self, first: int, behind: int) -> Iterator[tuple[int, int, int]]:
        """Yield (first cluster, clusters, L2 entry of the first), long ones where it is simple."""
        per_table, cluster = self._header.entries_per_table, first
        while cluster < behind:
            number = cluster // per_table
            stop = min(behind, (number + 1) * per_table)
            if not self._l1[number] & layout.OFFSET_MASK:
                while number < len(self._l1) and not self._l1[number] & layout.OFFSET_MASK:
                    number += 1
                stop = min(behind, number * per_table)
                yield cluster, stop - cluster, 0
            else:
                entries = self._table(number)[cluster % per_table :][: stop - cluster]
                yield from self._table_runs(cluster, entries)
            cluster = stop

    def _table_runs(self, cluster: int, entries: array[int]) -> Iterator[tuple[int, int, int]]:
        size, start = self._header.cluster_bytes, 0
        while start < len(entries):
            entry = entries[start] & ~layout.COPIED
            stop = start + 1
            if not entry:
                stop = max(stop, _behind_zeros(entries, start))
            elif not entry & layout.COMPRESSED:
                self._check_entry(cluster + start, entry)
                step = 0 if entry & layout.ALL_ZERO else size
                while stop < len(entries) and (
                    entries[stop] & ~layout.COPIED == entry + (stop - start) * step
                ):
                    stop += 1
            yield cluster + start, stop - start, entry
            start = stop

    def _unit(self, cluster: int, entry: int) -> PackedPart:
        place, stored = layout.compressed_place(entry, self._header.cluster_bits)
        stored = min(stored, self._file.size_bytes - place)
        if stored <= 0:
            self._check_place(cluster, place, 1)
        offset = cluster * self._header.cluster_bytes
        length = min(self._header.cluster_bytes, self.size_bytes - offset)
        return PackedPart(offset, length, ExtentState.DATA, place, stored)

    def _table(self, number: int) -> array[int]:
        with self._lock:
            if number not in self._tables:
                place = self._l1[number] & layout.OFFSET_MASK
                data = self._file.read_at(place, self._header.cluster_bytes)
                self._tables[number] = layout.unpack_entries(data)
                while len(self._tables) * len(data) > _KEPT_BYTES and len(self._tables) > 1:
                    self._tables.popitem(last=False)
            self._tables.move_to_end(number)
            return self._tables[number]

    def _load_l1(self) -> array[int]:
        """Return the L1 entries that the disk needs, each one judged."""
        header, file = self._header, self._file
        needed = header.table_count
        if header.l1_entries < needed:
            self._bad("L1 table's entries", 36, header.l1_entries, f"at least {needed}")
        length = needed * layout.ENTRY_BYTES
        if length > _MAX_L1_BYTES:
            self._unsupported(
                f"its L1 table has {needed} entries, this release reads at most "
                f"{_MAX_L1_BYTES // layout.ENTRY_BYTES}",
                "Convert the disk to one with larger clusters (64 KiB).",
            )
        if header.l1_offset % header.cluster_bytes or not header.l1_offset:
            needed_text = f"a multiple of {header.cluster_bytes}"
            self._bad("L1 table's offset", 40, header.l1_offset, needed_text)
        if header.l1_offset + length > file.size_bytes:
            found = f"a file of {file.size_bytes} bytes"
            self._bad("L1 table", header.l1_offset, found, f"{length} bytes more")
        entries = layout.unpack_entries(file.read_at(header.l1_offset, length))
        # One table for many entries would be read again and again: a small file, an endless disk.
        places = sorted(entry & layout.OFFSET_MASK for entry in entries)
        twice = next((one for one, other in pairwise(places) if one == other != 0), 0)
        if twice:
            self._bad("L1 table", header.l1_offset, f"two entries for {twice}", "one for each")
        for number, entry in enumerate(entries):
            place = entry & layout.OFFSET_MASK
            at = header.l1_offset + number * layout.ENTRY_BYTES
            if entry & layout.L1_RESERVED_MASK or place % header.cluster_bytes:
                found = f"{entry:#x}"
                self._bad(f"L1 entry {number}", at, found, "a cluster's offset, no reserved bits")
            if place and place + header.cluster_bytes > file.size_bytes:
                self._bad(f"L1 entry {number}", at, place, f"inside {file.size_bytes} bytes")
        return entries

    def _check_header(self, found_bytes: int) -> None:
        header = self._header
        if found_bytes < layout.V2_HEADER_BYTES or header.magic != layout.MAGIC:
            self._bad("header", 0, header.magic, f"{layout.MAGIC!r} and a whole header")
        if header.version not in {2, 3}:
            self._unsupported(
                f"it is qcow2 of version {header.version}, known are 2 and 3",
                "Convert it with the qemu-img that wrote it.",
            )
        if not _MIN_CLUSTER_BITS <= header.cluster_bits <= _MAX_CLUSTER_BITS:
            needed = f"{_MIN_CLUSTER_BITS} to {_MAX_CLUSTER_BITS}"
            self._bad("cluster bits", 20, header.cluster_bits, needed)
        if header.size_bytes % self.sector_bytes or not 0 < header.size_bytes <= _MAX_DISK_BYTES:
            needed = f"a multiple of {self.sector_bytes} up to {_MAX_DISK_BYTES}"
            self._bad("virtual disk size", 24, header.size_bytes, needed)
        most = header.cluster_bytes
        if header.version == 3 and not layout.V3_HEADER_BYTES <= header.header_bytes <= most:
            needed = f"{layout.V3_HEADER_BYTES} to {most}"
            self._bad("header length", 100, header.header_bytes, needed)

    def _refuse_features(self) -> None:
        header, bits = self._header, layout.Incompatible
        convert = "Convert it with `qemu-img convert -O qcow2` into a plain one first."
        reasons = (
            (header.backing_name_offset, "it has a backing file, whose content it needs", convert),
            (header.encryption, "it is encrypted", "Convert it with qemu-img and its key first."),
            (
                header.incompatible & bits.DIRTY,
                "it is marked dirty: whoever wrote it did not close it",
                "Shut down its machine; if none runs, mend it with `qemu-img check -r all`.",
            ),
            (
                header.incompatible & bits.CORRUPT,
                "it is marked corrupt",
                "Mend it with `qemu-img check -r all`, or restore it from a good copy.",
            ),
            (
                header.incompatible & bits.EXTERNAL_DATA,
                "its content lies in an external data file",
                convert,
            ),
            (header.incompatible & bits.EXTENDED_L2, "it has extended L2 entries", convert),
            (header.compression, "its clusters are compressed with zstd", convert),
            (
                header.incompatible & ~sum(bits),
                f"it has features that are not known here ({header.incompatible:#x})",
                convert,
            ),
        )
        for found, reason, hint in reasons:
            if found:
                self._unsupported(reason, hint)

    def _check_entry(self, cluster: int, entry: int) -> None:
        place = entry & layout.OFFSET_MASK
        zero_in_v2 = entry & layout.ALL_ZERO and self._header.version < 3
        if entry & layout.L2_RESERVED_MASK or zero_in_v2 or place % self._header.cluster_bytes:
            needed = "a cluster's offset, no reserved bits"
            self._bad(f"L2 entry of cluster {cluster}", place, f"{entry:#x}", needed)

    def _check_place(self, cluster: int, place: int, length: int) -> None:
        if place + length > self._file.size_bytes:
            needed = f"inside {self._file.size_bytes} bytes"
            self._bad(f"cluster {cluster}", place, f"{length} bytes", needed)

    def _bad(self, what: str, offset: int, found: object, needed: object) -> NoReturn:
        raise BadDisk(
            f"Bad qcow2 '{self.location}': {what} at offset {offset}: found {found}, "
            f"needed {needed}.",
            object=self.location,
            offset_bytes=offset,
        )

    def _unsupported(self, reason: str, hint: str) -> NoReturn:
        raise UnsupportedDisk(
            f"Cannot read '{self.location}': {reason}.", hint=hint, object=self.location
        )


def _behind_zeros(entries: array[int], start: int) -> int:
    """Return the index of the first entry from ``start`` on that is not 0, or their number."""
    while start < len(entries):
        packed = entries[start : start + _WINDOW_ENTRIES].tobytes()
        zeros = (len(packed) - len(packed.lstrip(b"\0"))) // entries.itemsize
        start += zeros
        if zeros < _WINDOW_ENTRIES:
            break
    return start
