"""SHA-256 digests by block index in 33 bytes a block, so that large disks fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

DIGEST_BYTES = 32
_PAGE_BLOCKS = 4096
"""2 GiB of the disk in 132 KiB of memory, taken when the first block of it is known: a size that
is merely claimed costs nothing."""
_PAGE_BYTES = _PAGE_BLOCKS * (1 + DIGEST_BYTES)


class DigestTable(Mapping[int, bytes]):
    """Block index → digest for a disk of a fixed number of blocks; iterates in order.

    Threads may set different indexes at the same time. A disk of 1 TiB takes 66 MiB, where a
    dictionary takes more than 300, and holes take none.
    """

    def __init__(self, block_count: int) -> None:
        self.block_count = block_count
        self._pages: dict[int, bytearray] = {}
        """A byte a block, 1 = known, and behind them the digests."""

    @classmethod
    def from_packed(cls, known: bytes, digests: bytes) -> DigestTable:
        """Return a table from one byte a block (0 or 1) and 32 bytes a block."""
        table = cls(len(known))
        for number, start in enumerate(range(0, len(known), _PAGE_BLOCKS)):
            marks = known[start : start + _PAGE_BLOCKS]
            if any(marks):
                packed = digests[start * DIGEST_BYTES : (start + _PAGE_BLOCKS) * DIGEST_BYTES]
                page = marks.ljust(_PAGE_BLOCKS, b"\0") + packed
                table._pages[number] = bytearray(page.ljust(_PAGE_BYTES, b"\0"))
        return table

    def packed(self) -> tuple[bytes, bytes]:
        """Return what `from_packed` takes."""
        known = bytearray(self.block_count)
        digests = bytearray(self.block_count * DIGEST_BYTES)
        for start, page in self._in_order():
            count = min(_PAGE_BLOCKS, self.block_count - start)
            known[start : start + count] = page[:count]
            content = page[_PAGE_BLOCKS : _PAGE_BLOCKS + count * DIGEST_BYTES]
            digests[start * DIGEST_BYTES : (start + count) * DIGEST_BYTES] = content
        return bytes(known), bytes(digests)

    def set(self, index: int, digest: bytes) -> None:
        """Set the digest of a block."""
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"Bad digest: found {len(digest)} bytes, needed {DIGEST_BYTES}.")
        self._check(index)
        number, inside = divmod(index, _PAGE_BLOCKS)
        page = self._pages.get(number)
        if page is None:
            page = self._pages.setdefault(number, bytearray(_PAGE_BYTES))
        at = _PAGE_BLOCKS + inside * DIGEST_BYTES
        page[at : at + DIGEST_BYTES] = digest
        page[inside] = 1

    def discard(self, index: int) -> None:
        """Forget a block; one that is not known is no error."""
        self._check(index)
        page = self._pages.get(index // _PAGE_BLOCKS)
        if page is not None:
            page[index % _PAGE_BLOCKS] = 0

    def __getitem__(self, index: int) -> bytes:
        number, inside = divmod(index, _PAGE_BLOCKS)
        page = self._pages.get(number)
        if page is None or not page[inside]:
            raise KeyError(index)
        at = _PAGE_BLOCKS + inside * DIGEST_BYTES
        return bytes(page[at : at + DIGEST_BYTES])

    def __contains__(self, index: object) -> bool:
        if not isinstance(index, int):
            return False
        page = self._pages.get(index // _PAGE_BLOCKS)
        return page is not None and bool(page[index % _PAGE_BLOCKS])

    def __iter__(self) -> Iterator[int]:
        for start, page in self._in_order():
            inside = page.find(1, 0, _PAGE_BLOCKS)
            while inside >= 0:
                yield start + inside
                inside = page.find(1, inside + 1, _PAGE_BLOCKS)

    def __len__(self) -> int:
        return sum(page.count(1, 0, _PAGE_BLOCKS) for _, page in self._in_order())

    def _in_order(self) -> Iterator[tuple[int, bytearray]]:
        """Yield (first block, page); other threads may add pages meanwhile."""
        for start in range(0, self.block_count, _PAGE_BLOCKS):
            page = self._pages.get(start // _PAGE_BLOCKS)
            if page is not None:
                yield start, page

    def _check(self, index: int) -> None:
        if not 0 <= index < self.block_count:
            raise IndexError(f"Bad block: found {index}, needed 0 to {self.block_count - 1}.")
