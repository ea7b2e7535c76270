"""Sparse files: copied without becoming dense, and made sparse again where pages are cleared."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from imageport.model import MIB

_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h
_ZEROS = bytes(MIB)
_libc = ctypes.CDLL(None, use_errno=True)


def data_extents(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of what the file system holds of a file, ascending."""
    offset = 0
    while offset < size_bytes:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: nothing but a hole up to the end
        if start >= size_bytes:
            return
        offset = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(offset, size_bytes)


def copy_sparse(source_fd: int, target: Path, size_bytes: int) -> None:
    """Copy the data extents of the first ``size_bytes``; holes stay holes."""
    part = target.with_suffix(".copying")
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.truncate(fd, size_bytes)
        for start, end in data_extents(source_fd, size_bytes):
            _copy_extent(source_fd, fd, start, end)
    except BaseException:
        part.unlink()
        raise
    finally:
        os.close(fd)
    part.rename(target)


def _copy_extent(source_fd: int, target_fd: int, start: int, end: int) -> None:
    while start < end:
        copied = os.copy_file_range(source_fd, target_fd, end - start, start, start)
        if not copied:
            raise OSError(errno.EIO, "The source of the copy became shorter.")
        start += copied


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view = view[written:]
        offset += written


def clear_at(fd: int, start: int, end: int) -> None:
    """Make a range read as zeros, without space where the file system can do that."""
    offset, length = ctypes.c_long(start), ctypes.c_long(end - start)
    if _libc.fallocate(fd, _KEEP_SIZE_PUNCH_HOLE, offset, length) == 0:
        return
    for at in range(start, end, MIB):
        write_at(fd, _ZEROS[: min(MIB, end - at)], at)
