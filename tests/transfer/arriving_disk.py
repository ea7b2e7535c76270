"""Streams for transfer tests: the pieces that a test names, cut or broken where it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from synthetic_disk import DATA, SyntheticDisk

from imageport.errors import VerificationFailed
from imageport.formats.disk_stream import DiskStream
from imageport.formats.virtual_disk import PIECE_BYTES

Pieces = Sequence[tuple[int, bytes]]


class ArrivingDisk(DiskStream):
    """Sends ``pieces``; ``before`` is called with the number of each and may raise."""

    location = "arriving"
    format_name = "synthetic-stream"

    def __init__(
        self,
        size_bytes: int,
        pieces: Pieces,
        *,
        before: Callable[[int], None] = lambda _number: None,
        is_sound: bool = True,
    ) -> None:
        self._size_bytes = size_bytes
        self._pieces = pieces
        self._before = before
        self._is_sound = is_sound
        self.sent = 0
        self.finished = 0
        self.closed = False

    @classmethod
    def of(
        cls, disk: SyntheticDisk, *, piece_bytes: int = PIECE_BYTES, **how: object
    ) -> DiskStream:
        """All that is DATA in a disk."""
        pieces = [
            (start, disk.content(start, min(piece_bytes, extent.end_bytes - start)))
            for extent in disk.extents()
            if extent.state is DATA
            for start in range(extent.offset_bytes, extent.end_bytes, piece_bytes)
        ]
        return cls(disk.size_bytes, pieces, **how)  # type: ignore[arg-type]

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        for number, (offset, data) in enumerate(self._pieces):
            self._before(number)
            self.sent += 1
            yield offset, data

    def finish(self) -> str:
        self.finished += 1
        if not self._is_sound:
            raise VerificationFailed("Bad stream: found another checksum than was sent.")
        return "the checksum of what was sent was compared"

    def close(self) -> None:
        self.closed = True
