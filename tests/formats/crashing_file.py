"""A file that remembers every operation, so that a test can cut the power anywhere."""

from __future__ import annotations

import random

from imageport.model import FileIdentity
from imageport.storage.byte_file import WritableFile


class CrashingFile(WritableFile):
    """Keeps its bytes in memory; `after_crash` returns what a disk may hold.

    Operations before the last flush at the cut are all there; of those after it each may have
    reached the disk, whole or in sectors, or not.
    """

    location = "crashing"

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.start = bytes(content)
        self.operations: list[tuple[str, int, bytes]] = []

    @property
    def size_bytes(self) -> int:
        return len(self.content)

    def identity(self) -> FileIdentity:
        return FileIdentity(self.location, len(self.content), 0, 0, 1)

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        assert offset_bytes + length_bytes <= len(self.content)
        return bytes(self.content[offset_bytes : offset_bytes + length_bytes])

    def allocated_ranges(self) -> list[tuple[int, int]]:
        return [(0, len(self.content))]

    def write_at(self, offset_bytes: int, data: bytes | memoryview) -> None:
        self._do(("write", offset_bytes, bytes(data)))

    def set_size(self, size_bytes: int) -> None:
        self._do(("size", size_bytes, b""))

    def set_sparse(self) -> None:
        pass

    def flush(self) -> None:
        self.operations.append(("flush", 0, b""))

    def close(self) -> None:
        pass

    def after_crash(self, count: int, dice: random.Random) -> bytes:
        """Return a content that the disk may have after ``count`` operations and a power cut."""
        done = self.operations[:count]
        flushes = [at for at, (kind, _, _) in enumerate(done) if kind == "flush"]
        durable = flushes[-1] if flushes else 0
        content = bytearray(self.start)
        for at, (kind, offset, data) in enumerate(done):
            if at < durable:
                _apply(content, kind, offset, data)
            elif dice.random() < 1 / 2:
                kept = (
                    data[: dice.randrange(len(data) // 512 + 1) * 512]
                    if dice.random() < 1 / 3
                    else data
                )
                _apply(content, kind, offset, kept)
        return bytes(content)

    def _do(self, operation: tuple[str, int, bytes]) -> None:
        self.operations.append(operation)
        _apply(self.content, *operation)


def _apply(content: bytearray, kind: str, offset: int, data: bytes) -> None:
    if kind == "size":
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    elif kind == "write" and data:
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
