"""Writes fixed VHD files: a raw disk with a footer, which comes true last."""

# References: [VHD 1.0] "Fixed Hard Disk Image", "Hard Disk Footer Format".

from __future__ import annotations

import threading
from typing import Self

from imageport.errors import BadDisk, InputError
from imageport.formats import _vhd_layout as layout
from imageport.formats._touched_blocks import TouchedBlocks
from imageport.formats._vhd_new import check_new, new_footer, own_footer, unfinished
from imageport.storage.byte_file import WritableFile


class FixedVhdWriter:
    """A fixed VHD in the making; what is never written reads as zeros and stays a hole.

    Behaves as `VhdWriter` does. While it is unfinished, its end carries our mark and no footer.

    Raises:
        InputError: The size is no multiple of 512, or above 2040 GiB.
        ShareFull: No room; what was flushed before stays valid.
    """

    def __init__(self, file: WritableFile, size_bytes: int) -> None:
        check_new(file, size_bytes)
        footer = new_footer(size_bytes, layout.DiskType.FIXED)
        file.set_size(size_bytes + layout.FOOTER_BYTES)
        file.write_at(size_bytes, unfinished(footer))
        file.flush()
        self._take(file, footer, finished=False, written=TouchedBlocks(size_bytes))

    @classmethod
    def reopen(cls, file: WritableFile) -> Self:
        """Take up a file that this class wrote, finished or not; `BadDisk` for any other."""
        at = file.size_bytes - layout.FOOTER_BYTES
        footer, finished = own_footer(file, at)
        if footer.disk_type != layout.DiskType.FIXED or footer.current_bytes != at:
            raise BadDisk(
                f"Cannot go on writing '{file.location}': found {at} bytes before the footer of a "
                f"disk of {footer.current_bytes} bytes, type {footer.disk_type}, needed as many, "
                "type 2.",
                object=file.location,
            )
        writer = cls.__new__(cls)
        writer._take(file, footer, finished=finished, written=None)  # noqa: SLF001  (its own class)
        return writer

    def _take(
        self,
        file: WritableFile,
        footer: layout.Footer,
        *,
        finished: bool,
        written: TouchedBlocks | None,
    ) -> None:
        self._file = file
        self._footer = footer
        self._finished = finished
        self._written = written
        self._lock = threading.Lock()

    @property
    def size_bytes(self) -> int:
        """Return the virtual disk size."""
        return self._footer.current_bytes

    @property
    def finished(self) -> bool:
        """Return whether the file is a valid VHD now."""
        return self._finished

    def is_allocated(self, offset_bytes: int) -> bool:
        """Return whether anything may have been written around this offset.

        What a killed run wrote is unknown, so after `reopen` it may be so everywhere.
        """
        return self._written is None or self._written.has(offset_bytes)

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write ``data`` at a place of the virtual disk; past its end is `InputError`."""
        end = offset_bytes + len(data)
        if offset_bytes < 0 or end > self.size_bytes:
            raise InputError(
                f"Cannot write '{self._file.location}': bytes {offset_bytes}..{end} were given, "
                f"the disk has {self.size_bytes}."
            )
        with self._lock:
            if self._written is not None:
                self._written.mark(offset_bytes, len(data))
            if self._finished:
                self._file.write_at(self.size_bytes, unfinished(self._footer))
                self._file.flush()
                self._finished = False
        self._file.write_at(offset_bytes, data)

    def flush(self) -> None:
        """Make everything written so far durable."""
        self._file.flush()

    def finish(self) -> None:
        """Make the file a VHD, durably: data, then the footer."""
        if not self._finished:
            self._file.flush()
            self._file.write_at(self.size_bytes, self._footer.pack())
            self._file.flush()
            self._finished = True
