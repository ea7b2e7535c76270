"""The manifest: what every block of a disk holds, by digest; the parent of the next delta."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator

from imageport.errors import StateError
from imageport.model import BLOCK_BYTES, ZERO_DIGEST
from imageport.transfer.digest_table import DIGEST_BYTES, DigestTable

MAGIC = b"imageport-blocks"
VERSION = 1
MAX_BLOCKS = (256 * 1024**4) // BLOCK_BYTES
"""256 TiB: no cloud disk and no VHDX (64 TiB) is larger; bounds what a damaged file makes us
allocate."""
_HEADER = struct.Struct("<16sIIQQ")
"""Magic, version, flags, disk bytes, block count; packed states and digests follow, compressed,
then SHA-256 of everything before it."""
_ABSENT_READS_ZERO = 1
_CHUNK = 64 * 1024


class Manifest:
    """Blocks of `BLOCK_BYTES` of one disk at one target.

    Each block is *written* (with its digest, which may be that of zeros) or *absent* (never
    written there nor in a parent). Absent and written zero are different things: on an encrypted
    volume an absent block reads as garbage. The last block counts as padded with zeros.
    """

    def __init__(self, size_bytes: int, *, absent_reads_zero: bool) -> None:
        self.size_bytes = size_bytes
        self.absent_reads_zero = absent_reads_zero
        self.digests = DigestTable(block_count(size_bytes))

    @property
    def block_count(self) -> int:
        """Return the number of blocks of the disk."""
        return self.digests.block_count

    def set(self, index: int, digest: bytes) -> None:
        """Record that a block holds what ``digest`` says."""
        self.digests.set(index, digest)

    def digest(self, index: int) -> bytes | None:
        """Return the digest of what reading the block gives; None when nobody knows."""
        found = self.digests.get(index)
        if found is None and self.absent_reads_zero and index < self.block_count:
            return ZERO_DIGEST
        return found

    def is_written(self, index: int) -> bool:
        """Tell whether the block was ever written, here or in a parent."""
        return index in self.digests

    def written(self) -> Iterator[int]:
        """Yield the written blocks in order."""
        return iter(self.digests)

    def doubting_absent(self) -> Manifest:
        """Return the same blocks for a child whose absent ones may read as garbage."""
        doubting = Manifest(self.size_bytes, absent_reads_zero=False)
        doubting.digests = self.digests
        return doubting

    def image_digest(self) -> str:
        """Return one SHA-256 over size and non-zero blocks.

        Zeros and absent blocks are implied, so the same disk has the same digest in every format
        and cloud.
        """
        total = hashlib.sha256(f"imageport image 1 {self.size_bytes}\n".encode())
        for index, digest in self.digests.items():
            if digest != ZERO_DIGEST:
                total.update(index.to_bytes(8, "little") + digest)
        return total.hexdigest()

    def to_bytes(self) -> bytes:
        """Return the compact form for the state store."""
        flags = _ABSENT_READS_ZERO if self.absent_reads_zero else 0
        header = _HEADER.pack(MAGIC, VERSION, flags, self.size_bytes, self.block_count)
        packing = zlib.compressobj(level=1)
        pieces = [header, *map(packing.compress, self.digests.packed()), packing.flush()]
        total = hashlib.sha256()
        for piece in pieces:
            total.update(piece)
        return b"".join([*pieces, total.digest()])

    @classmethod
    def from_bytes(cls, data: bytes, location: str = "manifest") -> Manifest:
        """Return the manifest in ``data``; `StateError` naming ``location`` if damaged."""
        if len(data) < _HEADER.size + DIGEST_BYTES:
            raise _bad(location, f"found {len(data)} bytes, needed a header")
        body, digest = memoryview(data)[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        magic, version, flags, size_bytes, count = _HEADER.unpack_from(body)
        if magic != MAGIC or version != VERSION:
            raise _bad(location, f"found {magic!r} version {version}, needed {VERSION}")
        if hashlib.sha256(body).digest() != digest:
            raise _bad(location, "its checksum is wrong")
        if count != block_count(size_bytes) or count > MAX_BLOCKS:
            raise _bad(location, f"found {count} blocks for {size_bytes} bytes")
        manifest = cls(size_bytes, absent_reads_zero=bool(flags & _ABSENT_READS_ZERO))
        unpacking = _Unpacking(body[_HEADER.size :], location)
        manifest.digests = DigestTable.from_packed(count, unpacking.read)
        unpacking.end()
        return manifest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]


def block_count(size_bytes: int) -> int:
    """Return how many blocks cover ``size_bytes``."""
    return -(-size_bytes // BLOCK_BYTES)


class _Unpacking:
    """Decompresses no more than is asked for: whole, a disk of 1 TiB takes 66 MiB at a time."""

    def __init__(self, packed: memoryview, location: str) -> None:
        self._packed = packed
        self._location = location
        self._stream = zlib.decompressobj()
        self._read_bytes = 0

    def read(self, count: int) -> bytes:
        """Return the next so many bytes; `StateError` when there are not as many."""
        found = b""
        while len(found) < count:
            more = self._some(count - len(found))
            if not more:
                total = self._read_bytes + len(found)
                raise _bad(self._location, f"found {total} bytes of blocks, needed more")
            found += more
        self._read_bytes += count
        return found

    def end(self) -> None:
        """Raise `StateError` when there is more than was read."""
        if self._some(1):
            found = f"found more than {self._read_bytes} bytes of blocks, needed no more"
            raise _bad(self._location, found)

    def _some(self, limit: int) -> bytes:
        """Return at most so many bytes, none at the end alone."""
        while True:
            given = self._stream.unconsumed_tail
            if not given:
                given, self._packed = bytes(self._packed[:_CHUNK]), self._packed[_CHUNK:]
            try:
                found = self._stream.decompress(given, limit)
            except zlib.error as error:
                what = f"its blocks do not decompress ({error})"
                raise _bad(self._location, what) from error
            if found or not (given or self._packed):
                return found
            if self._stream.eof:
                return b""


def _bad(location: str, found: str) -> StateError:
    return StateError(
        f"Bad manifest '{location}': {found}.",
        hint="Delete the file: the next upload then sends everything once.",
        files=[location],
    )
