"""Disks as sparse raw files: blocks of zeros cost no space, and memory does not grow with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from imageport.model import BLOCK_BYTES, ZERO_BLOCK


def create_sparse(path: Path, size_bytes: int) -> None:
    """Create a file that reads as zeros and occupies nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.truncate(size_bytes)


def data_blocks(fd: int, size_bytes: int) -> Iterator[int]:
    """Yield the indexes of blocks that may hold something else than zeros, ascending."""
    offset = 0
    last = -1
    while offset < size_bytes:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: nothing but a hole up to the end
        end = os.lseek(fd, start, os.SEEK_HOLE)
        for index in range(start // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1):
            if index > last:
                yield index
                last = index
        offset = end


def read_block(fd: int, index: int) -> bytes:
    """Return one block; past the end of the file it is zeros."""
    data = os.pread(fd, BLOCK_BYTES, index * BLOCK_BYTES)
    return data if len(data) == BLOCK_BYTES else data.ljust(BLOCK_BYTES, b"\0")


def holds_anything(path: Path) -> bool:
    """Tell whether the disk holds anything but zeros."""
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        return any(
            read_block(file.fileno(), index) != ZERO_BLOCK
            for index in data_blocks(file.fileno(), size_bytes)
        )
