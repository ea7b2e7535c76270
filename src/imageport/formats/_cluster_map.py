"""Which clusters of an overlay were written, in pages that exist only where something was."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

CLUSTER_BYTES = 64 * 1024
"""Of qcow2 and Azure's tools: a first partial write copies little, a large disk needs few marks."""
_PAGE_CLUSTERS = 4096
"""256 MiB of the disk in 4 KiB of memory."""


class ClusterState(IntEnum):
    """Where a cluster's content is."""

    BASE = 0
    WRITTEN = 1
    ZEROED = 2


_STATES = tuple(ClusterState)


class ClusterMap:
    """One byte a cluster; a disk of any size that was hardly written takes hardly any memory."""

    def __init__(self, size_bytes: int) -> None:
        self._count = -(-size_bytes // CLUSTER_BYTES)
        self._pages: dict[int, bytearray] = {}

    def get(self, index: int) -> ClusterState:
        """Return the state of a cluster."""
        page = self._pages.get(index // _PAGE_CLUSTERS)
        return ClusterState.BASE if page is None else _STATES[page[index % _PAGE_CLUSTERS]]

    def set(self, index: int, state: ClusterState) -> None:
        """Set the state of a cluster; the caller sees to it that only one thread does."""
        page = self._pages.setdefault(index // _PAGE_CLUSTERS, bytearray(_PAGE_CLUSTERS))
        page[index % _PAGE_CLUSTERS] = state

    def runs(self, offset: int, end: int) -> Iterator[tuple[int, int, ClusterState]]:
        """Yield (first byte, byte behind, state) of what covers a range of bytes, ascending.

        Neighbours may be alike, at the borders of pages. Each run is of one moment: a cluster that
        another thread writes meanwhile ends it or is seen as before.
        """
        index, last = offset // CLUSTER_BYTES, -(-end // CLUSTER_BYTES)
        while index < last:
            behind, state = self._run(index, last)
            stop = min(last, behind)
            yield index * CLUSTER_BYTES, stop * CLUSTER_BYTES, state
            index = stop

    def _run(self, index: int, last: int) -> tuple[int, ClusterState]:
        number, at = divmod(index, _PAGE_CLUSTERS)
        page = self._pages.get(number)
        if page is None:
            number += 1
            while number * _PAGE_CLUSTERS < last and number not in self._pages:
                number += 1
            return number * _PAGE_CLUSTERS, ClusterState.BASE
        state = page[at]
        while at < _PAGE_CLUSTERS and page[at] == state:
            at += 1
        return number * _PAGE_CLUSTERS + at, _STATES[state]
