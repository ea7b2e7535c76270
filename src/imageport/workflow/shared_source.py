"""A vDisk opened once for several uploads of one run, and read once for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final

from imageport.citrix.vdisk_store import VdiskStore
from imageport.closable import Closable
from imageport.errors import InputError
from imageport.formats.virtual_disk import VirtualDisk
from imageport.transfer.shared_reading import HOLD_SECONDS, WINDOW_BYTES, SharedReading, SharedView
from imageport.workflow.facts import SourceFacts, opened_source
from imageport.workflow.known_digests import KnownOnce
from imageport.workflow.upload import KnownOf

OpenStore = Callable[[], AbstractContextManager[VdiskStore]]
Opened = AbstractContextManager[tuple[SourceFacts, SharedView]]


class SourceReader:
    """What one upload sees of a shared source; the others wait for it until it has left.

    An upload that is tried again opens a second time, and reads by itself then; unless it was the
    source that failed: that is tried again by all, and read once for them again.
    """

    def __init__(self, source: SharedSource, number: int) -> None:
        self._source = source
        self._number = number
        self.has_left = False

    @property
    def known_of(self) -> KnownOf:
        """Return what tells the digests that are known of the vDisk, once for all."""
        return self._source.known

    def opened(self) -> Opened:
        """Open the vDisk, the first time for all."""
        return self._source.opened(self._number)

    def leave(self) -> None:
        """Let no other upload wait for this one any more; may be called twice."""
        self.has_left = True
        self._source.left(self._number)


class SharedSource(Closable):
    """Opens a vDisk when the first of its readers wants it, and closes it after the last.

    Args:
        open_store: Opens the store; called once, if at all.
        vdisk: Name of the vDisk in the store.
        readers: How many uploads there will be.
        accept_lock: See `opened_source`.
    """

    def __init__(
        self, open_store: OpenStore, vdisk: str, readers: int, *, accept_lock: bool = False
    ) -> None:
        self._open_store = open_store
        self._vdisk = vdisk
        self._accept_lock = accept_lock
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._facts: SourceFacts | None = None
        self._readings: list[SharedReading] = []
        """The last one serves; those before it ended when the source failed."""
        self.known: Final = KnownOnce()
        self.readers: Final = tuple(SourceReader(self, number) for number in range(readers))

    @property
    def bytes_read(self) -> int:
        """Return the bytes that were read of the vDisk, by whomever."""
        with self._lock:
            return sum(reading.bytes_read for reading in self._readings)

    @contextmanager
    def opened(self, number: int) -> Iterator[tuple[SourceFacts, SharedView]]:
        """Yield facts and view of a reader; a view that was used already reads by itself."""
        facts, reading = self._open()
        yield facts, reading.views[number]

    def left(self, number: int) -> None:
        """Take a reader out; for `SourceReader.leave`."""
        with self._lock:
            if self._readings:
                self._readings[-1].views[number].leave()

    def close(self) -> None:
        """Close the vDisk; nobody may be reading any more."""
        with self._lock:
            self._facts = None
            self._stack.close()

    def _open(self) -> tuple[SourceFacts, SharedReading]:
        with self._lock:
            if self._facts is None:
                self._facts = self._open_first()
            elif self._readings[-1].has_failed:
                self._stack.enter_context(self._share(self._readings[-1].source))
            return self._facts, self._readings[-1]

    def _open_first(self) -> SourceFacts:
        if not self.readers:
            raise InputError(f"Cannot share '{self._vdisk}': found no readers, needed one.")
        with ExitStack() as opening:
            store = opening.enter_context(self._open_store())
            facts, disk = opening.enter_context(
                opened_source(store, self._vdisk, accept_lock=self._accept_lock)
            )
            opening.enter_context(self._share(disk))
            self._stack = opening.pop_all()
        return facts

    def _share(self, disk: VirtualDisk) -> SharedReading:
        reading = SharedReading(
            disk, len(self.readers), window_bytes=WINDOW_BYTES, hold_seconds=HOLD_SECONDS
        )
        for reader, view in zip(self.readers, reading.views, strict=True):
            if reader.has_left:
                view.leave()
        self._readings.append(reading)
        return reading
