"""Differencing disks: a file that holds only what differs from another file, and so on down."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats.disk_file import StoredFile
from imageport.formats.mapped_disk import MappedDisk, Segment
from imageport.model import MIB, ExtentState, FileIdentity
from imageport.storage.byte_file import ByteFile

LONGEST_CHAIN = 256
"""Files of one chain. PVS warns at five versions, Hyper-V stops at fifty checkpoints."""
MOST_HELD_BYTES = 256 * MIB
"""Of memory for one chain's tables and bitmaps: 31 files of 2 TiB in blocks of 2 MiB. Half of what
a disk may take; the rest is for what is read, and for a file that is being judged."""

_OF_CHAIN = frozenset({"chain_files", "chain_bytes"})
"""Details that tell of all files."""


class Elsewhere(Enum):
    """What a file of a chain says of a range that it does not hold."""

    BELOW = auto()
    """The parent knows."""


class OwnSegment(NamedTuple):
    """A range as one file of a chain has it; DATA lies at ``place`` in that file."""

    offset: int
    length: int
    state: ExtentState | Elsewhere
    place: int = 0

    @property
    def end(self) -> int:
        """Return the offset just behind the segment."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class ParentLink:
    """What a differencing file says of its parent; ids decide, names only say where to look."""

    child: str
    """Location of the differencing file, for messages."""
    format_name: str
    ids: tuple[str, ...]
    """`LinkedDisk.link_id` of the parent; any of them fits."""
    names: tuple[str, ...]
    """Names of the parent's file, without folders, most trusted first."""


class LinkedDisk(MappedDisk):
    """A disk in one file, or in a chain of files that each name their parent.

    Owns its parent. A format gives `own_segments`; what lies below is resolved here. Past the end
    of a parent that is smaller than its child, the child's own says all and the rest is HOLE.
    """

    def __init__(self, file: ByteFile, opened: FileIdentity | None = None) -> None:
        super().__init__(file, opened)
        self.parent: LinkedDisk | None = None

    @property
    def parent_link(self) -> ParentLink | None:
        """Return what this file says of its parent; None for a disk that is whole by itself."""
        return None

    @property
    @abstractmethod
    def link_id(self) -> str:
        """Return what children of this very content call it, in one spelling."""

    @property
    @abstractmethod
    def held_bytes(self) -> int:
        """Return the most memory that this file's own table and bitmaps take."""

    @abstractmethod
    def own_content_key(self) -> str:
        """Return the content key of this file alone, as `content_key` for one without parent."""

    @abstractmethod
    def own_segments(self, offset_bytes: int, length_bytes: int) -> Iterator[OwnSegment]:
        """Yield what this file says of a range, ascending, covering it once.

        A disk without parent says HOLE, never `Elsewhere.BELOW`.
        """

    def adopt(self, parent: LinkedDisk) -> None:
        """Take the disk that this one's differences are to; closes it from now on.

        Raises:
            BadDisk: sectors of another size, or the chain is too long.
        """
        self.parent = parent
        if parent.sector_bytes != self.sector_bytes:
            raise BadDisk(
                f"Bad chain: '{self.location}' has sectors of {self.sector_bytes} bytes, its "
                f"parent '{parent.location}' of {parent.sector_bytes}.",
                object=self.location,
            )
        if len(self.chain()) > LONGEST_CHAIN:
            raise BadDisk(
                f"Bad chain '{self.location}': found more than {LONGEST_CHAIN} files.",
                object=self.location,
            )

    def chain(self) -> list[LinkedDisk]:
        """Return this disk, its parent, and so on to the base."""
        found: list[LinkedDisk] = []
        disk: LinkedDisk | None = self
        while disk is not None:
            found.append(disk)
            disk = disk.parent
        return found

    def stored_files(self) -> Iterator[StoredFile]:
        """Yield the files of the chain, this one first."""
        for disk in self.chain():
            yield disk._stored  # noqa: SLF001 - of its own kind

    def content_key(self) -> str:
        """Return the keys of all files of the chain: what changes one of them changes it."""
        return ">".join(disk.own_content_key() for disk in self.chain())

    def own_details(self) -> dict[str, int | str]:
        """Return what a person wants to know of this file alone."""
        return {name: value for name, value in self.details().items() if name not in _OF_CHAIN}

    def details(self) -> dict[str, int | str]:
        """Return what a person wants to know, of the chain where there is one."""
        found = super().details()
        if self.parent is not None:
            stored = list(self.stored_files())
            found["chain_files"] = len(stored)
            found["chain_bytes"] = sum(one.file.size_bytes for one in stored)
        return found

    def segments(self, offset_bytes: int, length_bytes: int) -> Iterator[Segment]:
        """Yield what the chain holds, flat.

        Raises:
            UnsupportedDisk: A parent was not opened: what it holds would read as zeros.
        """
        if (base := self.chain()[-1]).parent_link is not None:
            raise UnsupportedDisk(
                f"Cannot read '{base.location}': it holds only differences and its parent is not "
                "open.",
                object=base.location,
            )
        for own, disk in self._resolved(offset_bytes, length_bytes, None):
            if own.state is ExtentState.DATA:
                yield Segment(own.offset, own.length, own.state, disk._stored, own.place)  # noqa: SLF001 - of its own kind
            elif isinstance(own.state, ExtentState):
                yield Segment(own.offset, own.length, own.state)
            else:
                yield Segment(own.offset, own.length, ExtentState.HOLE)

    def changes_since(self, content_key: str) -> list[tuple[int, int]] | None:
        """Return (offset, length) of all that may differ from an ancestor, ascending, merged.

        ``content_key`` is what `content_key` of the ancestor was. What lies past the ancestor's
        end counts as changed. None when no disk below this one has that key: all may differ then.
        """
        ancestor = next((d for d in self.chain()[1:] if d.content_key() == content_key), None)
        if ancestor is None:
            return None
        changed: list[tuple[int, int]] = []
        for own, disk in self._resolved(0, self.size_bytes, ancestor):
            # BELOW past the end of a smaller disk between the two hides what the ancestor has.
            is_there = disk.parent is ancestor and own.offset < ancestor.size_bytes
            if own.state is Elsewhere.BELOW and is_there:
                continue
            if changed and sum(changed[-1]) == own.offset:
                changed[-1] = (changed[-1][0], changed[-1][1] + own.length)
            else:
                changed.append((own.offset, own.length))
        return changed

    def _resolved(
        self, offset: int, length: int, stop: LinkedDisk | None
    ) -> Iterator[tuple[OwnSegment, LinkedDisk]]:
        """Yield what each range is, with the disk that says so.

        BELOW is left only where nothing lies below: at ``stop``, at the base, and past the end of
        a parent that is smaller; a segment never crosses that end.
        """
        below = self.parent
        if below is None:
            for own in self.own_segments(offset, length):
                yield own, self
            return
        lower = _Lower(below, stop, min(offset + length, below.size_bytes))
        for own in self.own_segments(offset, length):
            if own.state is not Elsewhere.BELOW:
                yield own, self
                continue
            inside = max(0, min(own.length, below.size_bytes - own.offset))
            if inside and below is stop:
                yield OwnSegment(own.offset, inside, own.state), self
            elif inside:
                yield from lower.within(own.offset, inside)
            if inside < own.length:
                yield OwnSegment(own.offset + inside, own.length - inside, own.state), self


class _Lower:
    """What lies below a file, for ranges asked in ascending order.

    A file that was written here and there asks for thousands of short ranges; they are cut out of
    one walk over the parent, which starts anew only behind a gap.
    """

    _NEAR_BYTES = MIB
    """Walked over rather than started anew."""

    def __init__(self, disk: LinkedDisk, stop: LinkedDisk | None, end: int) -> None:
        self._disk = disk
        self._stop = stop
        self._end = end
        self._walk: Iterator[tuple[OwnSegment, LinkedDisk]] = iter(())
        self._own = OwnSegment(0, 0, Elsewhere.BELOW)
        self._holder = disk

    def within(self, offset: int, length: int) -> Iterator[tuple[OwnSegment, LinkedDisk]]:
        """Yield what lies in a range that begins where the last one ended, or later."""
        end = offset + length
        if offset - self._own.end > self._NEAR_BYTES or not self._own.length:
            self._walk = self._disk._resolved(offset, self._end - offset, self._stop)  # noqa: SLF001 - of its own kind
            self._own, self._holder = next(self._walk)
        while offset < end:
            while self._own.end <= offset:
                self._own, self._holder = next(self._walk)
            own = self._own
            stop = min(end, own.end)
            # A place has no meaning but for data; adding to it does no harm.
            place = own.place + offset - own.offset
            yield OwnSegment(offset, stop - offset, own.state, place), self._holder
            offset = stop
