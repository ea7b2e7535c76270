"""A block target that is a raw, sparse image in a folder."""

from __future__ import annotations

from imageport.errors import BadDisk, InputError
from imageport.formats._touched_blocks import TouchedBlocks
from imageport.formats.file_target import FileTarget, opened_as
from imageport.formats.raw import RawDisk
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.folder import Folder
from imageport.transfer.block_target import TargetTraits


class RawFileTarget(FileTarget):
    """A raw, sparse image in a folder."""

    def __init__(self, folder: Folder, part_name: str, *, sector_bytes: int = 512) -> None:
        traits = TargetTraits("raw-file", unwritten_reads_zero=True, max_in_flight=8)
        super().__init__(folder, part_name, traits)
        self._sector_bytes = sector_bytes
        self._written: TouchedBlocks | None = None
        """None after a resume: what a killed run wrote is unknown."""

    @property
    def flat_file(self) -> WritableFile | None:
        """Return the part file while it is open."""
        return self._file

    def flush(self) -> None:
        """Make the data durable."""
        if self._file is not None:
            self._file.flush()

    def open_written(self) -> RawDisk:
        """Open the file for reading."""
        file = self._folder.open_read(self.part_name)
        return opened_as(lambda opened: RawDisk(opened, sector_bytes=self._sector_bytes), file)

    def _write_empty(self, file: WritableFile) -> None:
        file.set_sparse()
        file.set_size(self._size_bytes)
        self._written = TouchedBlocks(self._size_bytes)

    def _reopen(self, file: WritableFile) -> bool:
        self._written = None
        if file.size_bytes != self._size_bytes:
            raise BadDisk(
                f"Bad part file '{self._location}': found {file.size_bytes} bytes, "
                f"needed {self._size_bytes}."
            )
        return False

    def _reads_zero(self, start: int) -> bool:
        return self._written is not None and not self._written.has(start)

    def _write(self, start: int, view: memoryview) -> None:
        end = start + len(view)
        if start < 0 or end > self._size_bytes:
            raise InputError(
                f"Cannot write '{self._location}': bytes {start}..{end} were given, the disk has "
                f"{self._size_bytes}."
            )
        if self._written is not None:
            self._written.mark(start, len(view))
        self._opened().write_at(start, view)

    def _finish(self, file: WritableFile) -> None:
        file.flush()

    def _is_leftover(self, file: ByteFile) -> bool:
        # A raw file carries no mark: but for its name it is ours when nothing was written to it.
        return not file.allocated_ranges()
