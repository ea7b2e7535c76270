"""A disk's extents in compact form, to look up any range quickly."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator

from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import Extent, ExtentState

_STATES = tuple(ExtentState)


class ExtentMap:
    """The extents of one disk: nine bytes each, so that a fragmented disk stays small."""

    def __init__(self, disk: VirtualDisk) -> None:
        self._size_bytes = disk.size_bytes
        self._starts = array("Q")
        self._states = bytearray()
        for extent in disk.extents():
            self._starts.append(extent.offset_bytes)
            self._states.append(_STATES.index(extent.state))

    def within(self, offset_bytes: int, length_bytes: int) -> Iterator[Extent]:
        """Yield the extents of a range, cut to it."""
        end = offset_bytes + length_bytes
        index = bisect_right(self._starts, offset_bytes) - 1
        while offset_bytes < end:
            following = index + 1
            last = following == len(self._starts)
            stop = min(end, self._size_bytes if last else self._starts[following])
            yield Extent(offset_bytes, stop - offset_bytes, _STATES[self._states[index]])
            offset_bytes, index = stop, following
