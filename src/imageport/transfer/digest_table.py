"""SHA-256 digests by block index in 33 bytes a block, so that large disks fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

DIGEST_BYTES = 32


class DigestTable(Mapping[int, bytes]):
    """Block index → digest for a disk of a fixed number of blocks; iterates in order.

    Threads may set different indexes at the same time. A disk of 1 TiB takes 66 MiB, where a
    dictionary takes more than 300.
    """

    def __init__(self, block_count: int) -> None:
        self.block_count = block_count
        self._digests = bytearray(block_count * DIGEST_BYTES)
        self._known = bytearray(block_count)

    @classmethod
    def from_packed(cls, known: bytes, digests: bytes) -> DigestTable:
        """Return a table from one byte a block (0 or 1) and 32 bytes a block."""
        table = cls(len(known))
        table._known[:] = known
        table._digests[:] = digests
        return table

    def packed(self) -> tuple[bytes, bytes]:
        """Return what `from_packed` takes."""
        return bytes(self._known), bytes(self._digests)

    def set(self, index: int, digest: bytes) -> None:
        """Set the digest of a block."""
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"Bad digest: found {len(digest)} bytes, needed {DIGEST_BYTES}.")
        self._check(index)
        self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest
        self._known[index] = 1

    def discard(self, index: int) -> None:
        """Forget a block; one that is not known is no error."""
        self._check(index)
        self._known[index] = 0

    def __getitem__(self, index: int) -> bytes:
        if not (0 <= index < self.block_count and self._known[index]):
            raise KeyError(index)
        return bytes(self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and 0 <= index < self.block_count and bool(self._known[index])

    def __iter__(self) -> Iterator[int]:
        index = self._known.find(1)
        while index >= 0:
            yield index
            index = self._known.find(1, index + 1)

    def __len__(self) -> int:
        return self._known.count(1)

    def _check(self, index: int) -> None:
        if not 0 <= index < self.block_count:
            raise IndexError(f"Bad block: found {index}, needed 0 to {self.block_count - 1}.")
