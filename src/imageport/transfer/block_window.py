"""The blocks that were read for several readers and that not all of them have taken yet.

Knows nothing of threads: whoever uses it holds a lock. Every reader says ahead which blocks it
wants, ascending, and takes them in that order. A block is kept while a reader wants it or has not
said yet whether it does. Three rules make it impossible that all wait for each other:

- What is missing is read in ascending order, as long as there is room.
- The rearmost reader, when it waits, gets its next block read whether there is room or not.
- A reader that is not waiting moves on its own, or is let go by whoever watches.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from imageport.model import BLOCK_BYTES, MIB

CHUNK_BLOCKS = 16 * MIB // BLOCK_BYTES
"""Read before it is asked again what is missing: long enough for several reads of 1 MiB in flight,
short enough that little is read for a reader that goes away."""
LEAST_ROOM_SHARE = 8
"""An eighth of the window has to be free before reading goes on for those ahead: one block at a
time would cost a round trip each, and they wait for the rearmost in any case."""

Parts = tuple[tuple[int, int], ...]
"""(offset, length) of what of one block is wanted; ascending, apart from each other."""


@dataclass(frozen=True, slots=True, order=True)
class WantedBlock:
    """A block and what of it is wanted."""

    index: int
    parts: Parts


@dataclass(slots=True, eq=False)
class WindowReader:
    """One that takes blocks."""

    pending: deque[WantedBlock] = field(default_factory=deque)
    """Said and not taken."""
    wanted: set[int] = field(default_factory=set)
    """Their indexes."""
    said_until: float = 0
    """First block of which it did not say yet whether it wants it; infinite when it said all."""
    is_waiting: bool = False
    taken: int = 0
    """Blocks taken so far."""

    @property
    def has_begun(self) -> bool:
        """Tell whether it said anything of what it wants."""
        return self.said_until > 0

    @property
    def said_all(self) -> bool:
        """Tell whether it wants nothing but what is pending."""
        return self.said_until == math.inf

    @property
    def position(self) -> float:
        """Return the first block that it may still take."""
        return self.pending[0].index if self.pending else self.said_until

    def may_want(self, index: int) -> bool:
        """Tell whether it wants a block, or has not said that it does not."""
        return index in self.wanted or index >= self.said_until


@dataclass(slots=True)
class _Held:
    parts: Parts
    pieces: list[bytes]
    """One for each part."""


class BlockWindow:
    """What was read and is kept, at most ``capacity_blocks`` and one."""

    def __init__(self, capacity_blocks: int, readers: int) -> None:
        self.capacity_blocks = max(1, capacity_blocks)
        self.readers = [WindowReader() for _ in range(readers)]
        self._held: dict[int, _Held] = {}
        self._on_the_way: set[int] = set()

    @property
    def blocks(self) -> int:
        """Return how many blocks are held or on their way."""
        return len(self._held) + len(self._on_the_way)

    @property
    def _room(self) -> int:
        return self.capacity_blocks - self.blocks

    def say(self, reader: WindowReader, wanted: Sequence[WantedBlock], *, is_all: bool) -> None:
        """Note what a reader wants next; with ``is_all`` it wants nothing behind that."""
        reader.pending.extend(wanted)
        reader.wanted.update(block.index for block in wanted)
        if is_all:
            reader.said_until = math.inf
        elif wanted:
            reader.said_until = wanted[-1].index + 1
        self._forget_unwanted()

    def leave(self, reader: WindowReader) -> None:
        """Keep nothing for a reader any more."""
        if reader in self.readers:
            self.readers.remove(reader)
            self._forget_unwanted()

    def take(self, reader: WindowReader) -> list[tuple[int, bytes]] | None:
        """Return (offset, bytes) of the next block of a reader; None while it is not there.

        Parts that were not read for others are missing from it.
        """
        block = reader.pending[0]
        held = self._held.get(block.index)
        if held is None:
            return None
        reader.pending.popleft()
        reader.wanted.discard(block.index)
        reader.is_waiting = False
        reader.taken += 1
        if not self._is_wanted(block.index):
            del self._held[block.index]
        if held.parts == block.parts:
            return [
                (offset, piece) for (offset, _), piece in zip(held.parts, held.pieces, strict=True)
            ]
        return list(_overlapping(held, block.parts))

    def next_to_read(self, behind: int = -1) -> list[WantedBlock]:
        """Return what is to be read now, ascending, and count it as on its way.

        Nothing while there is no room; nothing when a block up to ``behind`` is missing, so that
        one ascending read can be gone on with.
        """
        if not self.may_read():
            return []
        most = max(1, min(self._room, CHUNK_BLOCKS))
        chosen = list(islice(self._missing(), most))
        if chosen and chosen[0].index <= behind:
            return []
        self._on_the_way.update(block.index for block in chosen)
        return chosen

    def may_read(self) -> bool:
        """Tell whether `next_to_read` has anything to give."""
        if not self.readers:
            return False
        if self._rearmost_waits_in_vain():
            return True
        least = max(1, self.capacity_blocks // LEAST_ROOM_SHARE)
        return self._room >= least and next(self._missing(), None) is not None

    def arrived(self, block: WantedBlock, pieces: list[bytes]) -> None:
        """Take in a block that was read."""
        self._on_the_way.discard(block.index)
        if self._is_wanted(block.index):
            self._held[block.index] = _Held(block.parts, pieces)

    def nothing_on_the_way(self) -> None:
        """Count what did not arrive as missing again."""
        self._on_the_way.clear()

    def held_up(self) -> list[WindowReader]:
        """Return for whom readers wait: those that do not take what fills the window.

        Empty when nobody waits, or when what is waited for can be read.
        """
        if not any(reader.is_waiting for reader in self.readers):
            return []
        rear = min(reader.position for reader in self.readers)
        return [one for one in self.readers if one.position == rear and not one.is_waiting]

    def _missing(self) -> Iterator[WantedBlock]:
        """Yield what readers want and nobody reads, ascending; what several want, once."""
        pending: WantedBlock | None = None
        for block in heapq.merge(*(reader.pending for reader in self.readers)):
            if self._is_there_soon(block.index):
                continue
            if pending is None or pending.index != block.index:
                if pending is not None:
                    yield pending
                pending = block
            elif pending.parts != block.parts:
                pending = WantedBlock(block.index, _united(pending.parts, block.parts))
        if pending is not None:
            yield pending

    def _is_there_soon(self, index: int) -> bool:
        return index in self._held or index in self._on_the_way

    def _rearmost_waits_in_vain(self) -> bool:
        rear = min(self.readers, key=lambda reader: (reader.position, not reader.is_waiting))
        return rear.is_waiting and not self._is_there_soon(rear.pending[0].index)

    def _is_wanted(self, index: int) -> bool:
        return any(reader.may_want(index) for reader in self.readers)

    def _forget_unwanted(self) -> None:
        for index in [index for index in self._held if not self._is_wanted(index)]:
            del self._held[index]


def cut_at_blocks(ranges: Iterable[tuple[int, int]]) -> Iterator[WantedBlock]:
    """Yield the blocks that ranges touch, with what they want of each; both ascend."""
    index, parts = -1, list[tuple[int, int]]()
    for start, length in ranges:
        offset, end = start, start + length
        while offset < end:
            here = offset // BLOCK_BYTES
            stop = min(end, (here + 1) * BLOCK_BYTES)
            if here != index and parts:
                yield WantedBlock(index, tuple(parts))
                parts = []
            index = here
            if parts and sum(parts[-1]) == offset:
                parts[-1] = (parts[-1][0], stop - parts[-1][0])
            else:
                parts.append((offset, stop - offset))
            offset = stop
    if parts:
        yield WantedBlock(index, tuple(parts))


def is_whole(parts: Parts) -> bool:
    """Tell whether a block is wanted from end to end."""
    return len(parts) == 1 and parts[0][1] == BLOCK_BYTES


def _united(first: Parts, second: Parts) -> Parts:
    found: list[tuple[int, int]] = []
    for offset, length in sorted(first + second):
        if found and offset <= sum(found[-1]):
            end = max(sum(found[-1]), offset + length)
            found[-1] = (found[-1][0], end - found[-1][0])
        else:
            found.append((offset, length))
    return tuple(found)


def _overlapping(held: _Held, wanted: Parts) -> Iterator[tuple[int, bytes]]:
    """Yield what of the wanted parts is held."""
    for offset, length in wanted:
        for (start, count), piece in zip(held.parts, held.pieces, strict=True):
            first, end = max(offset, start), min(offset + length, start + count)
            if first < end:
                yield first, piece[first - start : end - start]
