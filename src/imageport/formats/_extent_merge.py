"""Cuts and merges extents, so that every disk yields them in the same normal form."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from imageport.model import Extent, ExtentState

_UNIT_BYTES = 4096
"""Stored ranges are widened to this: file systems store pages, disks are made of sectors."""


def allocated_extents(
    allocated: Sequence[tuple[int, int]], start: int, length: int, absent: ExtentState
) -> Iterator[Extent]:
    """Cut the file range into DATA where stored and ``absent`` elsewhere.

    ``allocated`` are (offset, length), ascending and disjoint. Offsets are those of the file.
    """
    end = start + length
    at = start
    first = max(0, bisect_right(allocated, (start, 2**63)) - 1)
    for index in range(first, len(allocated)):
        stored, stored_bytes = allocated[index]
        if stored >= end:
            break
        data_start = max(at, stored - (stored - start) % _UNIT_BYTES)
        stored_end = stored + stored_bytes
        data_end = min(end, stored_end + (start - stored_end) % _UNIT_BYTES)
        if data_end <= data_start:
            continue
        if data_start > at:
            yield Extent(at, data_start - at, absent)
        yield Extent(data_start, data_end - data_start, ExtentState.DATA)
        at = data_end
    if at < end:
        yield Extent(at, end - at, absent)


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one state; drop empty ones."""
    open_extent: Extent | None = None
    for extent in extents:
        if not extent.length_bytes:
            continue
        if open_extent is not None and open_extent.state is extent.state:
            length = open_extent.length_bytes + extent.length_bytes
            open_extent = Extent(open_extent.offset_bytes, length, extent.state)
            continue
        if open_extent is not None:
            yield open_extent
        open_extent = extent
    if open_extent is not None:
        yield open_extent
