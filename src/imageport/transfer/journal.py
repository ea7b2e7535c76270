"""The journal of one transfer: which blocks the target has, so that kill -9 costs a second.

File: a header block of 4096 bytes (magic, length, CRC-32, JSON), then records of 44 bytes: block
index with the kind in its top bits, SHA-256, CRC-32 over both seeded with the header's CRC, so that
a record left by an earlier journal in the same file never counts. A torn tail is cut. A later
record of a block counts over an earlier one; the last one may say that the block was lost.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from imageport.errors import (
    FileLocked,
    FileMissing,
    LeaseHeld,
    NameTaken,
    StateError,
)
from imageport.model import BLOCK_BYTES
from imageport.storage.byte_file import WritableFile
from imageport.storage.folder import Folder
from imageport.transfer.digest_table import DIGEST_BYTES, DigestTable
from imageport.transfer.manifest import MAX_BLOCKS, block_count

MAGIC = b"IMPTJRN1"
HEADER_BYTES = 4096
_PREFIX = struct.Struct("<8sII")
_RECORD = struct.Struct("<Q32sI")
_SAME_AS_PARENT = 1 << 63
_LOST = 1 << 62
_NO_DIGEST = bytes(DIGEST_BYTES)
_READ_BYTES = _RECORD.size * 16384
"""700 KiB a read while loading: bounded, and within one SMB request."""


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """What a journal belongs to."""

    run_key: str
    """The transfer as its caller names it; never changes for one file name."""
    content_key: str
    """`VirtualDisk.content_key` of the source; another one means another image."""
    token: str
    """What the target was begun with."""
    handle: str
    """What `BlockTarget.resume` takes."""
    size_bytes: int
    parent: str = ""
    """Image digest of the parent manifest."""


class Journal:
    """One journal file; append from several threads, flush from one.

    Life: `load` → `start` for a new transfer → `add`… with `flush` at least twice a second →
    `close`. A process that dies loses what was added since the last flush, nothing else.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self.location = f"{folder.location}/{name}"
        self.header: JournalHeader | None = None
        self.put = DigestTable(0)
        """Blocks that the target has."""
        self.same = DigestTable(0)
        """Blocks that were read and needed no put."""
        self._folder = folder
        self._name = name
        self._file: WritableFile | None = None
        self._end_bytes = HEADER_BYTES
        self._seed = 0
        self._pending: list[bytes] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def load(self) -> JournalHeader | None:
        """Read what an earlier run left, cut a torn tail; None when there is nothing usable."""
        self.close()
        self.header = None
        try:
            self._file = self._open_existing()
        except FileMissing:
            return None
        self.header = self._read_header(self._file)
        if self.header is not None:
            self._reset_tables(self.header.size_bytes)
            self._read_records(self._file)
        return self.header

    def start(self, header: JournalHeader) -> None:
        """Begin anew with an empty journal; durable when this returns."""
        text = json.dumps(asdict(header), sort_keys=True).encode()
        if len(text) > HEADER_BYTES - _PREFIX.size:
            raise StateError(
                f"Cannot start journal '{self.location}': found a header of {len(text)} bytes, "
                f"needed at most {HEADER_BYTES - _PREFIX.size}."
            )
        if self._file is None:
            self._file = self._open_new()
        self._seed = zlib.crc32(text)
        prefix = _PREFIX.pack(MAGIC, len(text), self._seed)
        self._file.set_size(0)
        self._file.write_at(0, (prefix + text).ljust(HEADER_BYTES, b"\0"))
        self._file.flush()
        self._end_bytes = HEADER_BYTES
        self._pending.clear()
        self.header = header
        self._reset_tables(header.size_bytes)

    def add(self, index: int, digest: bytes, *, put: bool = True) -> None:
        """Note a block that the target has (or that needed no ``put``); durable after `flush`."""
        self._note(index, digest, put=put)
        self._append(index if put else index | _SAME_AS_PARENT, digest)

    def forget(self, indexes: Iterable[int]) -> None:
        """Note that the target does not hold these blocks after all; durable when this returns.

        Appends like everything else: killed in between, the next run asks the target again.
        """
        for index in indexes:
            self.put.discard(index)
            self.same.discard(index)
            self._append(index | _LOST, _NO_DIGEST)
        self.flush()

    def take(self) -> list[bytes]:
        """Return the records added since the last call, for `write`."""
        with self._lock:
            records, self._pending = self._pending, []
        return records

    def write(self, records: list[bytes]) -> None:
        """Make taken records durable."""
        if not records:
            return
        if self._file is None:
            raise StateError(f"Cannot write journal '{self.location}': it is not open.")
        data = b"".join(records)
        with self._writing:
            self._file.write_at(self._end_bytes, data)
            self._end_bytes += len(data)
            self._file.flush()

    def flush(self) -> None:
        """Make everything added so far durable."""
        self.write(self.take())

    def close(self) -> None:
        """Release the file; what was added and not flushed is lost."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def delete(self) -> None:
        """Close and remove the file."""
        self.close()
        self.header = None
        self._folder.delete(self._name)

    def _note(self, index: int, digest: bytes, *, put: bool) -> None:
        (self.put if put else self.same).set(index, digest)
        if put:
            self.same.discard(index)

    def _append(self, number: int, digest: bytes) -> None:
        body = number.to_bytes(8, "little") + digest
        record = body + zlib.crc32(body, self._seed).to_bytes(4, "little")
        with self._lock:
            self._pending.append(record)

    def _open_new(self) -> WritableFile:
        try:
            return self._folder.create(self._name)
        except NameTaken:
            return self._open_existing()

    def _open_existing(self) -> WritableFile:
        try:
            return self._folder.open_write(self._name)
        except FileLocked as error:
            # Retryable: the handle of a process that died goes when its server notices.
            raise LeaseHeld(
                f"Cannot open journal '{self.location}': another process is writing it."
            ) from error

    def _read_header(self, file: WritableFile) -> JournalHeader | None:
        if file.size_bytes < HEADER_BYTES:
            return None
        block = file.read_at(0, HEADER_BYTES)
        magic, length, checksum = _PREFIX.unpack_from(block)
        text = block[_PREFIX.size : _PREFIX.size + length]
        if magic != MAGIC or length > HEADER_BYTES - _PREFIX.size or zlib.crc32(text) != checksum:
            return None
        self._seed = checksum
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            header = JournalHeader(**json.loads(text))
            texts = (header.run_key, header.content_key, header.token, header.handle, header.parent)
            if (
                all(isinstance(value, str) for value in texts)
                and isinstance(header.size_bytes, int)
                and 0 < header.size_bytes <= MAX_BLOCKS * BLOCK_BYTES
            ):
                return header
        return None

    def _read_records(self, file: WritableFile) -> None:
        end = HEADER_BYTES
        while end < file.size_bytes:
            data = file.read_at(end, min(_READ_BYTES, file.size_bytes - end))
            good = self._take_in(data)
            end += good
            if good < _READ_BYTES:
                break
        if end < file.size_bytes:
            file.set_size(end)
            file.flush()
        self._end_bytes = end

    def _take_in(self, data: bytes) -> int:
        """Take in whole, sound records from the start of ``data``; return their bytes."""
        for start in range(0, len(data) - _RECORD.size + 1, _RECORD.size):
            number, digest, checksum = _RECORD.unpack_from(data, start)
            body = data[start : start + 8 + DIGEST_BYTES]
            index = number & ~(_SAME_AS_PARENT | _LOST)
            if zlib.crc32(body, self._seed) != checksum or index >= self.put.block_count:
                return start
            if number & _LOST:
                self.put.discard(index)
                self.same.discard(index)
            else:
                self._note(index, digest, put=not number & _SAME_AS_PARENT)
        return len(data) - len(data) % _RECORD.size

    def _reset_tables(self, size_bytes: int) -> None:
        self.put = DigestTable(block_count(size_bytes))
        self.same = DigestTable(block_count(size_bytes))
