"""One disk read once for several transfers that go side by side.

::

    source ── reading thread ── window of blocks ──┬── view ── transfer
                                                   ├── view ── transfer
                                                   └── view ── transfer

Each transfer has a view, a disk like any other. What the first of them needs is read and kept until
all have taken it or said that they do not want it. The window is bounded, so those ahead wait for
the one behind, unless that one hardly moves: it is let go then, and reads by itself from there.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice

from imageport.closable import Closable
from imageport.errors import ImageportError
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import BLOCK_BYTES, MIB, Extent
from imageport.transfer.block_window import (
    BlockWindow,
    WantedBlock,
    WindowReader,
    cut_at_blocks,
    is_whole,
)
from imageport.transfer.hashed_once import HashedOnce

WINDOW_BYTES = 64 * MIB
"""How far transfers may be apart. Three targets on a share took the same time with 16 to 256 MiB;
64 bears a second of pause at 500 Mbit/s, and costs 75 MiB less than 128."""
HOLD_SECONDS = 60.0
"""So long others wait, in all, for one that takes less than a window meanwhile (1 MiB/s)."""
POLL_SECONDS = 0.2
LONGEST_BYTES = 16 * MIB
"""Ranges are joined up to this, so that nobody is asked for all of a disk before it is read."""
END_SECONDS = 20.0
"""How long closing waits for a read that is under way."""


class SharedReading(Closable):
    """Reads ``source`` for as many views as are asked for; the source stays its opener's.

    Life: the views are taken from `views`, each is closed when its transfer ended or will not be
    made, the reading after all of them.
    """

    def __init__(
        self,
        source: VirtualDisk,
        views: int,
        *,
        window_bytes: int = WINDOW_BYTES,
        hold_seconds: float = HOLD_SECONDS,
    ) -> None:
        self.source = source
        self._hold_seconds = hold_seconds
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        """Views wait for it."""
        self._room = threading.Condition(self._lock)
        """The reading thread waits for it: there is room, or something more is wanted."""
        self._window = BlockWindow(window_bytes // BLOCK_BYTES, views)
        self._held_up: dict[WindowReader, tuple[float, int]] = {}
        self._bytes_read = 0
        self._error: BaseException | None = None
        self._closed = False
        self._check = _SharedCheck(source.check_unchanged)
        self._thread: threading.Thread | None = None
        self.views = [SharedView(self, reader) for reader in self._window.readers]

    @property
    def bytes_read(self) -> int:
        """Return the bytes that were read of the source, by whomever."""
        with self._lock:
            return self._bytes_read

    @property
    def has_failed(self) -> bool:
        """Tell whether the source failed: whoever tries again needs another reading to share."""
        with self._lock:
            return self._error is not None

    def close(self) -> None:
        """End reading; views that wait get nothing more and read by themselves."""
        with self._lock:
            self._closed = True
            self._arrived.notify_all()
            self._room.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(END_SECONDS)

    # --- for views, each in its own thread -----------------------------------------------------

    def check_unchanged(self) -> None:
        """Ask the source, once for all that ask at the same time."""
        self._check()

    def count(self, bytes_read: int) -> None:
        """Count what a view read by itself."""
        with self._lock:
            self._bytes_read += bytes_read

    def takes_part(self, reader: WindowReader) -> bool:
        """Tell whether a view gets blocks from here; starts reading."""
        with self._lock:
            if not self._is_served(reader) or self._error is not None:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="read-shared", daemon=True)
                self._thread.start()
            return True

    def capacity_blocks(self) -> int:
        """Return how far ahead a view says what it wants."""
        return self._window.capacity_blocks

    def say(self, reader: WindowReader, wanted: list[WantedBlock], *, is_all: bool) -> None:
        """Note what a view wants next."""
        with self._lock:
            self._window.say(reader, wanted, is_all=is_all)
            self._room.notify_all()

    def take(
        self, reader: WindowReader, poll: Callable[[], None]
    ) -> list[tuple[int, bytes]] | None:
        """Return the next block of a view, waiting for it; None when it has to read by itself.

        ``poll`` is called while waiting and may raise. Raises what ended the reading.
        """
        while True:
            with self._lock:
                found = self._taken(reader)
                if found is None and self._is_served(reader):
                    reader.is_waiting = True
                    self._room.notify_all()
                    self._arrived.wait(POLL_SECONDS)
                    found = self._taken(reader)
                if found is not None or not self._is_served(reader):
                    return found
            poll()

    def leave(self, reader: WindowReader) -> None:
        """Keep nothing for a view any more."""
        with self._lock:
            self._window.leave(reader)
            self._room.notify_all()

    def _taken(self, reader: WindowReader) -> list[tuple[int, bytes]] | None:
        found = self._window.take(reader)
        if found is not None:
            self._room.notify_all()
        elif self._error is not None:
            raise _again(self._error)
        return found

    def _is_served(self, reader: WindowReader) -> bool:
        return reader in self._window.readers and not self._closed

    # --- the reading thread --------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._read()
        # A thread's end has no caller: whatever it is ends the transfers that wait for blocks.
        except BaseException as error:
            with self._lock:
                self._error = error
                for reader in [one for one in self._window.readers if not one.has_begun]:
                    self._window.leave(reader)  # it shares the next reading, if there is one
                self._arrived.notify_all()

    def _wait_for_work(self) -> bool:
        """Wait until something can be read; False when nobody will ask any more."""
        with self._lock:
            watched = time.monotonic()
            while not self._closed and self._window.readers:
                if self._window.may_read():
                    return True
                self._room.wait(min(POLL_SECONDS, self._hold_seconds))
                now = time.monotonic()
                self._watch(now - watched)
                watched = now
            return False

    def _watch(self, seconds: float) -> None:
        """Count the time that others waited for the rearmost, and let it go if it is too long."""
        for reader in self._window.held_up():
            held, taken = self._held_up.get(reader, (0.0, reader.taken))
            held += seconds
            if reader.taken - taken >= self._window.capacity_blocks:
                held, taken = 0.0, reader.taken
            self._held_up[reader] = held, taken
            if held >= self._hold_seconds:
                self._window.leave(reader)
                self._arrived.notify_all()

    def _read(self) -> None:
        """Read in one go as far as there is room and something missing."""
        on_the_way: dict[int, _Arriving] = {}
        try:
            for start, piece in self.source.read_many(self._ranges(on_the_way)):
                with self._lock:
                    self._bytes_read += len(piece)
                for index, part in _cut(start, piece):
                    arriving = on_the_way[index]
                    if not arriving.add(part):
                        continue
                    del on_the_way[index]
                    complete = arriving.pieces()
                    with self._lock:
                        self._window.arrived(arriving.block, complete)
                        self._arrived.notify_all()
        finally:
            with self._lock:
                self._window.nothing_on_the_way()

    def _ranges(self, on_the_way: dict[int, _Arriving]) -> Iterator[tuple[int, int]]:
        """Yield what is missing, ascending, while there is room: the source asks ahead.

        It must not wait here: what it has read already is with it until it is asked for that.
        """
        behind = -1
        while True:
            with self._lock:
                blocks = [] if self._closed else self._window.next_to_read(behind)
            if not blocks:
                return
            behind = blocks[-1].index
            on_the_way.update((block.index, _Arriving(block)) for block in blocks)
            yield from _joined(part for block in blocks for part in block.parts)


class SharedView(VirtualDisk):
    """The source as one transfer sees it; its first `read_many` is served by the shared reading.

    Everything else, and a second round, is read by itself.
    """

    def __init__(self, reading: SharedReading, reader: WindowReader) -> None:
        source = reading.source
        self.location = source.location
        self.format_name = source.format_name
        self.sector_bytes = source.sector_bytes
        self.bytes_read_alone = 0
        """What was read of the source for this view only."""
        self._reading = reading
        self.source = source
        self._reader = reader
        self._asked = False
        self._poll: Callable[[], None] = _do_nothing
        self._note: Callable[[str], None] = _say_nothing

    @property
    def size_bytes(self) -> int:
        """Return the size of the source."""
        return self.source.size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield those of the source."""
        return self.source.extents()

    def content_key(self) -> str:
        """Return that of the source."""
        return self.source.content_key()

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` if the source is no longer what was opened."""
        self._reading.check_unchanged()

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return what the source returns."""
        data = self.source.read_at(offset_bytes, length_bytes)
        self._count(len(data))
        return data

    def read_many(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes), each read once for all views as long as this one keeps up."""
        takes_part = not self._asked and self._reading.takes_part(self._reader)
        self._asked = True
        if not takes_part:
            yield from self._alone(ranges)
            return
        blocks = cut_at_blocks(ranges)
        try:
            while self._says_more(blocks):
                wanted = self._reader.pending[0]
                pieces = self._reading.take(self._reader, self._poll)
                if pieces is None:
                    self._note("reads by itself: the other targets would wait for it too long")
                    rest = chain(list(self._reader.pending), blocks)
                    yield from self._alone(_joined(part for one in rest for part in one.parts))
                    return
                yield from self._whole(wanted, pieces)
        finally:
            self.leave()

    @contextlib.contextmanager
    def in_use(self, poll: Callable[[], None], note: Callable[[str], None]) -> Iterator[None]:
        """Call ``poll``, which may raise, while waiting for others; say what happens by ``note``.

        However the use ends, nothing is kept for this view afterwards.
        """
        self._poll, self._note = poll, note
        try:
            yield
        finally:
            self.leave()
            self._poll, self._note = _do_nothing, _say_nothing

    def leave(self) -> None:
        """Let nobody wait for this view any more: from now on it reads by itself."""
        self._reading.leave(self._reader)

    def close(self) -> None:
        """Leave; the source stays open."""
        self.leave()

    def _says_more(self, blocks: Iterator[WantedBlock]) -> bool:
        """Say what is wanted for a window ahead; tell whether there is anything to take."""
        reader, capacity = self._reader, self._reading.capacity_blocks()
        if not reader.said_all and len(reader.pending) <= capacity // 2:
            # Asked without the lock: it asks the transfer, which may take its time.
            count = capacity - len(reader.pending) + 1
            more = list(islice(blocks, count))
            self._reading.say(reader, more, is_all=len(more) < count)
        return bool(reader.pending)

    def _whole(
        self, wanted: WantedBlock, pieces: list[tuple[int, bytes]]
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the pieces, and what lies between them in what is wanted of the block."""
        found = iter(pieces)
        piece = next(found, None)
        for start, length in wanted.parts:
            offset, end = start, start + length
            while offset < end:
                until = min(end, piece[0]) if piece is not None else end
                if offset < until:
                    yield offset, self.read_at(offset, until - offset)
                    offset = until
                elif piece is not None:
                    yield piece
                    offset += len(piece[1])
                    piece = next(found, None)

    def _alone(self, ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        for offset, data in self.source.read_many(ranges):
            self._count(len(data))
            yield offset, data

    def _count(self, bytes_read: int) -> None:
        self.bytes_read_alone += bytes_read
        self._reading.count(bytes_read)


class _SharedCheck:
    """Asks once for all that ask while it is being asked, and never twice after a refusal."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._begun = float("-inf")
        self._error: ImageportError | None = None

    def __call__(self) -> None:
        asked = time.monotonic()
        with self._lock:
            if self._error is None and self._begun <= asked:
                # Only an answer to a question put after ``asked`` counts: the caller may have read
                # something since the last one.
                begun = time.monotonic()
                try:
                    self._check()
                except ImageportError as error:
                    if error.retryable:
                        raise
                    self._error = error
                self._begun = begun
            if self._error is not None:
                raise _again(self._error)


class _Arriving:
    """A block of which pieces come in order."""

    def __init__(self, block: WantedBlock) -> None:
        self.block = block
        self._missing = sum(length for _, length in block.parts)
        self._pieces: list[bytes | memoryview] = []

    def add(self, piece: bytes | memoryview) -> bool:
        """Take in the next piece; tell whether the block is complete."""
        self._pieces.append(piece)
        self._missing -= len(piece)
        return self._missing == 0

    def pieces(self) -> list[bytes]:
        """Return the bytes of each part."""
        if is_whole(self.block.parts):
            only = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            return [HashedOnce(only)]
        data, found, start = b"".join(self._pieces), [], 0
        for _, length in self.block.parts:
            found.append(data[start : start + length])
            start += length
        return found


def _cut(start: int, piece: bytes) -> Iterator[tuple[int, memoryview]]:
    """Yield (block, its part of the piece)."""
    view = memoryview(piece)
    while view:
        index, inside = divmod(start, BLOCK_BYTES)
        count = min(len(view), BLOCK_BYTES - inside)
        yield index, view[:count]
        start, view = start + count, view[count:]


def _joined(parts: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the ranges with neighbours joined, so that reads are as long as can be."""
    pending: tuple[int, int] | None = None
    for offset, length in parts:
        if pending is not None and sum(pending) == offset and pending[1] < LONGEST_BYTES:
            pending = pending[0], pending[1] + length
            continue
        if pending is not None:
            yield pending
        pending = offset, length
    if pending is not None:
        yield pending


def _again(error: BaseException) -> BaseException:
    """Return an error for one more thread: a traceback belongs to one only."""
    if not isinstance(error, ImageportError):
        return error
    again = copy.copy(error)
    again.__cause__ = error.__cause__
    return again


def _do_nothing() -> None:
    return


def _say_nothing(_sentence: str) -> None:
    return
