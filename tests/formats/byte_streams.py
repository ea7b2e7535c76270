"""Byte streams over bytes: whole, cut, endless."""

from __future__ import annotations

from imageport.errors import ExportInterrupted


class BytesStream:
    """Gives ``content`` from start to end; with ``cut``, the connection breaks there."""

    location = "an export"

    def __init__(self, content: bytes, *, cut: int | None = None) -> None:
        self._content = content
        self._cut = cut
        self.position = 0

    def read(self, length_bytes: int) -> bytes:
        if self._cut is not None and self.position + length_bytes > self._cut:
            raise ExportInterrupted(f"Cannot read '{self.location}': cut at {self._cut}.")
        data = self._content[self.position : self.position + length_bytes]
        self.position += len(data)
        return data
