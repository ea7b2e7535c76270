"""A managed snapshot as a disk: what publishing reads, without any machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Final

from imageport.clouds.azure.access_grant import AccessGrant
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.disk_sizes import access_seconds
from imageport.clouds.azure.granted_pages import GrantedPages, WrittenRanges
from imageport.clouds.azure.snapshots import describe_snapshot
from imageport.clouds.azure.waiting import retried
from imageport.clouds.reading_ahead import ReadAhead
from imageport.errors import InputError, ResourceGone
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, Extent, ExtentState

PIECE_BYTES: Final = MIB
WORKERS: Final = 12
"""1 MiB at ~100 ms each: 12 in flight read about 120 MiB/s, and make far less than the 500
requests a second that a page blob takes."""
AHEAD: Final = 24
"""Pieces asked for and not yet taken: 24 MiB of memory at most."""


class SnapshotDisk(VirtualDisk):
    """Written pages are DATA, everything else is HOLE; Azure knows no third state.

    The size is that of the managed disk: whole MiB, at least the size of the image uploaded.
    Closing it revokes the access.
    """

    format_name = "azure-snapshot"
    sector_bytes = 512

    def __init__(self, account: AzureAccount, snapshot_id: str) -> None:
        facts = describe_snapshot(account, snapshot_id)
        if facts is None or not facts.readable:
            found = "nothing" if facts is None else f"{facts.provisioning} {facts.percent:.0f} %"
            raise ResourceGone(f"Bad snapshot '{snapshot_id}': found {found}, needed it complete.")
        self.location = f"azure:{snapshot_id}"
        self._account = account
        self._snapshot_id = snapshot_id
        self._size_bytes = facts.size_bytes
        seconds = access_seconds(facts.size_bytes, facts.size_bytes)
        self._grant = AccessGrant(account, snapshot_id, "Read", seconds)
        self._pages = GrantedPages(account.clients, self._grant)
        self._written = WrittenRanges(
            facts.size_bytes, lambda start, end: retried(lambda: self._pages.ranges(start, end))
        )
        self._ahead = ReadAhead("azure-read", WORKERS, AHEAD)

    @property
    def size_bytes(self) -> int:
        """Return the size of the disk."""
        return self._size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield extents from the page ranges, GiB by GiB."""
        place = 0
        for start, end in self._written.all():
            if start > place:
                yield Extent(place, start - place, ExtentState.HOLE)
            yield Extent(start, end - start, ExtentState.DATA)
            place = end
        if place < self._size_bytes:
            yield Extent(place, self._size_bytes - place, ExtentState.HOLE)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Read a range; where nothing is written no request is made."""
        return b"".join(data for _, data in self.read_many([(offset_bytes, length_bytes)]))

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield pieces of at most 1 MiB, in order, reading ahead with several threads."""
        for (start, end), data in self._ahead.in_order(self._requests(ranges)):
            yield start, bytes(end - start) if data is None else data

    def content_key(self) -> str:
        """Return the snapshot's id: a snapshot never changes."""
        return self.location

    def check_unchanged(self) -> None:
        """Raise `ResourceGone` if the snapshot was deleted meanwhile."""
        facts = describe_snapshot(self._account, self._snapshot_id)
        if facts is None or not facts.readable:
            raise ResourceGone(f"Cannot read '{self._snapshot_id}': it was deleted meanwhile.")

    def close(self) -> None:
        """End the reading threads and revoke the access."""
        self._ahead.close()
        self._grant.let_go()

    def _requests(
        self, ranges: Iterable[tuple[int, int]]
    ) -> Iterator[tuple[tuple[int, int], Callable[[], bytes] | None]]:
        for start, end in self._pieces(ranges):
            stored = self._written.touches(start, end)
            yield (start, end), partial(self._read, start, end - start) if stored else None

    def _pieces(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        for offset, length in ranges:
            self._check_range(offset, length)
            for start in range(offset, offset + length, PIECE_BYTES):
                yield start, min(start + PIECE_BYTES, offset + length)

    def _read(self, offset: int, length: int) -> bytes:
        return retried(lambda: self._pages.get(offset, length))

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size_bytes:
            raise InputError(
                f"Cannot read '{self.location}': range {offset}+{length} lies outside "
                f"{self._size_bytes} bytes."
            )
