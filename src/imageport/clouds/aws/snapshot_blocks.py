"""Reading a completed snapshot by block index: tokens, read-ahead, bounded retries."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from imageport.clouds.aws.block_client import BlockClient, BlockPage
from imageport.clouds.waiting import retried
from imageport.errors import CloudRefused

WORKERS = 12
"""512 KiB at ~60 ms each in the region: 12 in flight read about 100 MiB/s."""
AHEAD = 24
"""Blocks asked for and not yet taken: 12 MiB of memory at most."""
KEPT_PAGES = 4


class SnapshotBlocks:
    """The stored blocks of one snapshot; may be used from several threads.

    Only a few pages of block tokens are kept, so memory does not grow with the disk.
    """

    def __init__(self, client: BlockClient, snapshot_id: str) -> None:
        self.snapshot_id = snapshot_id
        self._client = client
        self._windows: deque[tuple[int, int, dict[int, str]]] = deque(maxlen=KEPT_PAGES)
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def pages(self) -> Iterator[BlockPage]:
        """Yield the whole block list, page by page."""
        return self._client.pages(self.snapshot_id)

    def read(self, index: int) -> bytes | None:
        """Return one block, or None where the snapshot stores nothing."""
        token = self._token(index)
        return None if token is None else self._get(index, token)

    def read_many(self, indexes: Iterable[int]) -> Iterator[tuple[int, bytes | None]]:
        """Yield (index, block or None) in the order given, reading ahead."""
        waiting: deque[tuple[int, Future[bytes] | None]] = deque()
        try:
            for index in indexes:
                token = self._token(index)
                future = None if token is None else self._executor().submit(self._get, index, token)
                waiting.append((index, future))
                if len(waiting) >= AHEAD:
                    yield self._taken(waiting)
            while waiting:
                yield self._taken(waiting)
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()

    def close(self) -> None:
        """End the reading threads; may be called twice."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    @staticmethod
    def _taken(
        waiting: deque[tuple[int, Future[bytes] | None]],
    ) -> tuple[int, bytes | None]:
        index, future = waiting.popleft()
        return index, None if future is None else future.result()

    def _executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="ebs-read")
            return self._pool

    def _get(self, index: int, token: str) -> bytes:
        try:
            return retried(lambda: self._client.get(self.snapshot_id, index, token))
        except CloudRefused as error:
            # Tokens end after 7 days; a run that paused that long gets new ones, once.
            if error.fields.get("aws_code") != "ValidationException":
                raise
            with self._lock:
                self._windows.clear()
            fresh = self._token(index)
            if fresh is None or fresh == token:
                raise
            return retried(lambda: self._client.get(self.snapshot_id, index, fresh))

    def _token(self, index: int) -> str | None:
        with self._lock:
            for start, end, tokens in self._windows:
                if start <= index < end:
                    return tokens.get(index)
            start, end, tokens = self._window(index)
            self._windows.append((start, end, tokens))
            return tokens.get(index)

    def _window(self, index: int) -> tuple[int, int, dict[int, str]]:
        """Return the first page from ``index`` that holds anything, and the range it settles."""
        for page in self._client.pages(self.snapshot_id, index):
            if not page.next_token:
                return index, 1 << 62, page.tokens
            if page.tokens:
                return index, max(page.tokens) + 1, page.tokens
        return index, 1 << 62, {}
