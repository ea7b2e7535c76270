"""A stream out of bytes: gives as much as is asked for, and ends where it was told to."""

from __future__ import annotations


class Arriving:
    """Bytes as a `ByteStream`."""

    def __init__(self, content: bytes) -> None:
        self.location = "https://esx/disk-0.vmdk"
        self._content = memoryview(content)
        self.position = 0
        self.most_at_once = 0

    def read(self, length_bytes: int) -> bytes:
        data = bytes(self._content[self.position : self.position + length_bytes])
        self.position += len(data)
        self.most_at_once = max(self.most_at_once, len(data))
        return data
