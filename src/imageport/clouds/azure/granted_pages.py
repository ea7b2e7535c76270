"""The pages of one disk or snapshot through its access grant, which is renewed when refused."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from imageport.clouds.azure.access_grant import AccessGrant
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.page_client import LIST_BYTES, PageClient
from imageport.errors import CloudError, CloudRefused, CloudUnavailable, ResourceGone
from imageport.model import BLOCK_BYTES

Answer = TypeVar("Answer")

_ENDED = {403, 404}
"""What a URL answers whose access has ended or was revoked by another of its users."""


class GrantedPages:
    """Single requests, tried once; may be used from several threads.

    Every method raises `CloudThrottled` or `CloudUnavailable` for what may be tried again: among
    it an access that had ended, which is granted again at once.
    """

    def __init__(self, clients: AzureClients, grant: AccessGrant) -> None:
        self.grant = grant
        self.subject = grant.arm_id.rsplit("/", maxsplit=1)[-1]
        self.client = PageClient(clients, self.subject)

    def put(self, offset: int, data: bytes) -> None:
        """Write whole pages."""
        self.once(lambda url: self.client.put(url, offset, data))

    def clear(self, offset: int, length: int) -> None:
        """Make whole pages read as zeros."""
        self.once(lambda url: self.client.clear(url, offset, length))

    def get(self, offset: int, length: int) -> bytes:
        """Read a range of at most 4 MiB."""
        return self.once(lambda url: self.client.get(url, offset, length))

    def ranges(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return (start, end) of what is written within a range of at most 1 GiB."""
        return self.once(lambda url: list(self.client.ranges(url, start, end)))

    def copy(self, offset: int, length: int, source: AccessGrant) -> None:
        """Write what ``source`` holds at the same place."""

        def call(url: str) -> None:
            source_url = source.url()
            try:
                self.client.copy(url, offset, length, source_url)
            except CloudError as error:
                unreadable = error.fields.get("azure_code") == "CannotVerifyCopySource"
                if not unreadable or error.fields.get("status") not in _ENDED:
                    raise
                source.renew(source_url)
                raise CloudUnavailable(
                    f"Cannot read the parent of '{self.subject}': its access had ended."
                ) from None
            source.worked()

        self.once(call)

    def once(self, call: Callable[[str], Answer]) -> Answer:
        """Make one request; one whose access has ended is to be made again with another."""
        url = self.grant.url()
        try:
            answer = call(url)
        except (CloudRefused, ResourceGone) as error:
            if error.fields.get("status") not in _ENDED or not _of_data(error):
                raise
            self.grant.renew(url)
            raise CloudUnavailable(
                f"Cannot reach '{self.subject}': the access had ended, another is asked for."
            ) from None
        self.grant.worked()
        return answer


class WrittenRanges:
    """What is written of a disk, window by window; only a few windows are kept in memory."""

    KEPT_WINDOWS = 8

    def __init__(self, size_bytes: int, ask: Callable[[int, int], list[tuple[int, int]]]) -> None:
        self._size = size_bytes
        self._ask = ask
        self._lock = threading.Lock()
        self._windows: deque[tuple[int, list[tuple[int, int]]]] = deque(maxlen=self.KEPT_WINDOWS)

    def all(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end), ascending; neighbours are merged."""
        pending: tuple[int, int] | None = None
        for start in range(0, self._size, LIST_BYTES):
            for first, end in self.window(start):
                if pending is not None and first <= pending[1]:
                    pending = pending[0], max(end, pending[1])
                    continue
                if pending is not None:
                    yield pending
                pending = first, end
        if pending is not None:
            yield pending

    def window(self, offset: int) -> list[tuple[int, int]]:
        """Return the ranges of the window that holds ``offset``."""
        start = offset // LIST_BYTES * LIST_BYTES
        with self._lock:
            for known, ranges in self._windows:
                if known == start:
                    return ranges
        found = self._ask(start, min(start + LIST_BYTES, self._size))
        with self._lock:
            self._windows.append((start, found))
        return found

    def touches(self, start: int, end: int) -> bool:
        """Tell whether anything is written in a range."""
        here = start
        while here < end:
            stop = min(end, here // LIST_BYTES * LIST_BYTES + LIST_BYTES)
            ranges = self.window(here)
            place = bisect_right(ranges, (stop - 1, self._size + 1)) - 1
            if place >= 0 and ranges[place][1] > here:
                return True
            here = stop
        return False


class HeldBlocks(Mapping[int, bool]):
    """Block index → whether all of it is written, for every block with something written.

    One byte a block: a dictionary of a full disk of 4 TiB would take a GiB.
    """

    _PARTLY, _WHOLLY = 1, 2

    def __init__(self, size_bytes: int, ranges: Iterator[tuple[int, int]]) -> None:
        self._states = bytearray(-(-size_bytes // BLOCK_BYTES))
        for index, whole in blocks_of(ranges):
            self._states[index] = self._WHOLLY if whole else self._PARTLY

    def __getitem__(self, index: int) -> bool:
        if not (0 <= index < len(self._states) and self._states[index]):
            raise KeyError(index)
        return self._states[index] == self._WHOLLY

    def __iter__(self) -> Iterator[int]:
        return (index for index, state in enumerate(self._states) if state)

    def __len__(self) -> int:
        return len(self._states) - self._states.count(0)


def blocks_of(ranges: Iterator[tuple[int, int]]) -> Iterator[tuple[int, bool]]:
    """Yield (block index, whether all of it is written) for every block that ranges touch."""
    index, covered = -1, 0
    for start, end in ranges:
        here = start
        while here < end:
            block, stop = here // BLOCK_BYTES, min(end, (here // BLOCK_BYTES + 1) * BLOCK_BYTES)
            if block != index:
                if index >= 0:
                    yield index, covered == BLOCK_BYTES
                index, covered = block, 0
            covered += stop - here
            here = stop
    if index >= 0:
        yield index, covered == BLOCK_BYTES


def _of_data(error: CloudError) -> bool:
    """Tell an answer of the data path from one of Azure Resource Manager, asked for a grant."""
    return str(error.fields.get("action", "")).startswith("blob:")
