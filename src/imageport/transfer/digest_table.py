"""SHA-256 digests by block index in 33 bytes a block, so that large disks fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

DIGEST_BYTES = 32
_PAGE_BLOCKS = 4096
"""2 GiB of the disk in 132 KiB of memory, taken when the first block of it is known: a size that
is merely claimed costs nothing."""
_PAGE_BYTES = _PAGE_BLOCKS * (1 + DIGEST_BYTES)
_EMPTY_PAGE = bytes(_PAGE_BYTES)


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
    def from_packed(cls, block_count: int, read: Callable[[int], bytes]) -> DigestTable:
        """Return the table that `packed` gave; ``read`` returns its next so many bytes."""
        table = cls(block_count)
        for number, count in table._page_sizes():
            marks = read(count)
            if any(marks):
                table._pages[number] = bytearray(marks.ljust(_PAGE_BYTES, b"\0"))
        for number, count in table._page_sizes():
            digests = read(count * DIGEST_BYTES)
            page = table._pages.get(number)
            if page is not None:
                page[_PAGE_BLOCKS : _PAGE_BLOCKS + len(digests)] = digests
        return table

    def packed(self) -> Iterator[bytes]:
        """Yield one byte a block (1 = known) and then 32 bytes a block, in pieces.

        Nobody may set anything meanwhile.
        """
        for number, count in self._page_sizes():
            yield bytes(self._pages.get(number, _EMPTY_PAGE)[:count])
        for number, count in self._page_sizes():
            page = self._pages.get(number, _EMPTY_PAGE)
            yield bytes(page[_PAGE_BLOCKS : _PAGE_BLOCKS + count * DIGEST_BYTES])

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

    def _page_sizes(self) -> Iterator[tuple[int, int]]:
        """Yield each page's number, and how many blocks it stands for."""
        for number, start in enumerate(range(0, self.block_count, _PAGE_BLOCKS)):
            yield number, min(_PAGE_BLOCKS, self.block_count - start)

    def _in_order(self) -> Iterator[tuple[int, bytearray]]:
        """Yield (first block, page); other threads may add pages meanwhile."""
        for start in range(0, self.block_count, _PAGE_BLOCKS):
            page = self._pages.get(start // _PAGE_BLOCKS)
            if page is not None:
                yield start, page

    def _check(self, index: int) -> None:
        if not 0 <= index < self.block_count:
            raise IndexError(f"Bad block: found {index}, needed 0 to {self.block_count - 1}.")
