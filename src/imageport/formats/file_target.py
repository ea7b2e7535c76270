"""Block targets that are files in a folder, whatever the format: parts, leftovers, reading back."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, TypeVar

from imageport.errors import (
    BadDisk,
    FileMissing,
    ImageportError,
    NameTaken,
    ResourceGone,
    TransferError,
    UnsupportedDisk,
)
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, ZERO_DIGEST
from imageport.storage.byte_file import ByteFile, WritableFile
from imageport.storage.folder import Folder
from imageport.transfer.block_target import BlockTarget, TargetTraits, TransferPlan

Disk = TypeVar("Disk", bound=VirtualDisk)
OWN_SUFFIX = ".imageport-part"
"""The end of a part file's name that marks it as ours whatever it holds."""


class FileTarget(BlockTarget):
    """Writes blocks into the part file ``part_name`` of ``folder``, which stays open meanwhile.

    The handle and the final reference are both ``part_name``: whoever owns the folder's rules
    renames the file after it is verified. The folder is the caller's and is not closed here.
    """

    def __init__(self, folder: Folder, part_name: str, traits: TargetTraits) -> None:
        self.traits = traits
        self.part_name = part_name
        self._folder = folder
        self._location = f"{folder.location}/{part_name}"
        self._size_bytes = 0
        self._file: WritableFile | None = None
        self._begun = False
        self._committed = False

    def begin(self, plan: TransferPlan, token: str) -> str:
        """Create the part file anew.

        No block is put before the caller has journaled the handle, so an empty file that an
        earlier call with this or another ``token`` left behind is replaced. `NameTaken` when the
        name belongs to a file that this program did not begin.
        """
        del token
        self._size_bytes = plan.size_bytes
        self._remove_leftover()
        self._file = self._folder.create(self.part_name)
        self._begun = True
        try:
            self._write_empty(self._file)
        except BaseException:
            with contextlib.suppress(ImageportError):  # the first error is the one to report
                self.abort()
            raise
        return self.part_name

    def resume(self, plan: TransferPlan, handle: str) -> None:
        """Open the part file again; `ResourceGone` when it is gone or not what was begun."""
        if handle != self.part_name:
            raise ResourceGone(f"Cannot go on writing '{handle}': this is '{self._location}'.")
        self._size_bytes = plan.size_bytes
        try:
            self._file = self._folder.open_write(self.part_name)
            self._committed = self._reopen(self._file)
        except (FileMissing, BadDisk, UnsupportedDisk) as error:
            self.close()
            raise ResourceGone(
                f"Cannot go on writing '{self._location}': {error.message}", object=self._location
            ) from error
        self._begun = True

    def put(self, index: int, data: bytes | memoryview, digest: bytes) -> None:
        """Write one block; what reaches past the disk's end is dropped. Thread-safe."""
        start = index * BLOCK_BYTES
        view = memoryview(data)[: max(0, self._size_bytes - start)]
        if digest == ZERO_DIGEST and self._reads_zero(start):
            return
        self._committed = False
        self._write(start, view)

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write anywhere inside the disk, in whole sectors. Thread-safe."""
        self._committed = False
        self._write(offset_bytes, memoryview(data))

    @property
    def flat_file(self) -> WritableFile | None:
        """Return the open part file where byte n of the disk is byte n of it."""
        return None

    def commit(self, digests: Mapping[int, bytes]) -> str:
        """Finish the file durably, close it and return its name; may be called again."""
        del digests
        if self._file is not None:
            self._finish(self._file)
            self._file.close()
            self._file = None
        self._committed = True
        return self.part_name

    def abort(self) -> None:
        """Delete the part file unless it was committed."""
        self.close()
        if self._begun and not self._committed:
            self._folder.delete(self.part_name)
        self._begun = False

    def read_back(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield blocks from the finished file, through the reader that opens anybody's disk."""
        wanted = sorted(set(indexes))
        with self.open_written() as disk:
            ends = {index: min((index + 1) * BLOCK_BYTES, disk.size_bytes) for index in wanted}
            ranges = ((at * BLOCK_BYTES, ends[at] - at * BLOCK_BYTES) for at in wanted)
            parts: list[bytes] = []
            for offset, data in disk.read_many(ranges):
                parts.append(data)
                index = offset // BLOCK_BYTES
                if offset + len(data) == ends[index]:
                    # A block that comes in one piece is not copied: most of every disk does.
                    block = data if len(parts) == 1 else b"".join(parts)
                    yield index, block.ljust(BLOCK_BYTES, b"\0")
                    parts = []

    def close(self) -> None:
        """Close the part file; an unfinished one stays, to be resumed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @abstractmethod
    def open_written(self) -> VirtualDisk:
        """Open the finished file for reading; the caller closes it."""

    @abstractmethod
    def _write_empty(self, file: WritableFile) -> None:
        """Turn a new, empty file into an empty disk."""

    @abstractmethod
    def _reopen(self, file: WritableFile) -> bool:
        """Take up a file; return whether it is finished. `BadDisk` when it is not ours."""

    @abstractmethod
    def _reads_zero(self, start: int) -> bool:
        """Return whether the block at ``start`` surely reads as zeros as things are."""

    @abstractmethod
    def _write(self, start: int, view: memoryview) -> None:
        """Write inside the disk."""

    @abstractmethod
    def _finish(self, file: WritableFile) -> None:
        """Finish the file, durably."""

    @abstractmethod
    def _is_leftover(self, file: ByteFile) -> bool:
        """Return whether a file is one that an earlier run of this program began."""

    def _remove_leftover(self) -> None:
        with contextlib.suppress(FileMissing), self._folder.open_read(self.part_name) as file:
            # By our name also what a run with another format left, which carries another mark.
            is_ours = not file.size_bytes or self.part_name.endswith(OWN_SUFFIX)
            if not (is_ours or self._is_leftover(file)):
                raise NameTaken(
                    f"Cannot create '{self._location}': a file of that name exists and was not "
                    f"begun by this program.",
                    object=self._location,
                )
        self._folder.delete(self.part_name)

    def _opened(self) -> WritableFile:
        if self._file is None:
            raise TransferError(f"Cannot write '{self._location}': it is not open.")
        return self._file


class DiskWriter(Protocol):
    """What makes a file of one format: any order, several threads, durable at `flush`."""

    @property
    def size_bytes(self) -> int:
        """Return the size the guest sees."""

    @property
    def finished(self) -> bool:
        """Tell whether the file is a whole disk."""

    def is_allocated(self, offset_bytes: int) -> bool:
        """Tell whether the block at an offset was ever written."""

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        """Write inside the disk."""

    def flush(self) -> None:
        """Make data and block table durable."""

    def finish(self) -> None:
        """Turn the file into a disk; may be called again."""


class WriterTarget(FileTarget):
    """A file target of a format whose files a `DiskWriter` makes."""

    def __init__(self, folder: Folder, part_name: str, traits: TargetTraits) -> None:
        super().__init__(folder, part_name, traits)
        self._writer: DiskWriter | None = None

    @abstractmethod
    def _begun_writer(self, file: WritableFile) -> DiskWriter:
        """Return the writer of a new, empty file."""

    @abstractmethod
    def _reopened_writer(self, file: WritableFile) -> DiskWriter:
        """Return the writer of a file that an earlier run began; `BadDisk` when it is not ours."""

    def flush(self) -> None:
        """Make data and block table durable, so that a resumed transfer finds them."""
        if self._writer is not None and self._file is not None:
            self._writer.flush()

    def _write_empty(self, file: WritableFile) -> None:
        self._writer = self._begun_writer(file)

    def _reopen(self, file: WritableFile) -> bool:
        self._writer = self._reopened_writer(file)
        if self._writer.size_bytes != self._size_bytes:
            raise BadDisk(
                f"Bad part file '{self._location}': found a disk of {self._writer.size_bytes} "
                f"bytes, needed {self._size_bytes}."
            )
        return self._writer.finished

    def _reads_zero(self, start: int) -> bool:
        return not self._open_writer().is_allocated(start)

    def _write(self, start: int, view: memoryview) -> None:
        self._open_writer().write_at(start, view)

    def _finish(self, file: WritableFile) -> None:  # noqa: ARG002  (the writer holds it)
        self._open_writer().finish()

    def _open_writer(self) -> DiskWriter:
        self._opened()
        if self._writer is None:
            raise TransferError(f"Cannot write '{self._location}': it was not begun.")
        return self._writer


def opened_as(disk: Callable[[ByteFile], Disk], file: ByteFile) -> Disk:
    """Return the disk that takes over ``file``, which is closed if it is none."""
    try:
        return disk(file)
    except BaseException:
        file.close()
        raise
