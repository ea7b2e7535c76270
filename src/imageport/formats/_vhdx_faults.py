"""How readers of VHDX structures say that bytes are wrong, and never read past the end."""

from __future__ import annotations

from typing import NoReturn

from imageport.errors import BadDisk
from imageport.storage.byte_file import ByteFile


def bad(file: ByteFile, what: str, offset: int, found: object, needed: object) -> NoReturn:
    """Raise `BadDisk` in the grammar of this project."""
    raise BadDisk(
        f"Bad VHDX '{file.location}': {what} at offset {offset}: found {found}, needed {needed}.",
        object=file.location,
        offset_bytes=offset,
    )


def read(file: ByteFile, what: str, offset: int, length: int) -> bytes:
    """Read a structure; a file that ends before it is `BadDisk`, cut short."""
    if offset + length > file.size_bytes:
        cut_short(file, what, offset + length)
    return file.read_at(offset, length)


def cut_short(file: ByteFile, what: str, needed_bytes: int) -> NoReturn:
    """Raise `BadDisk` for a file that ends before something that its structures name."""
    raise BadDisk(
        f"Bad VHDX '{file.location}': cut short: {what} needs {needed_bytes} bytes, "
        f"found a file of {file.size_bytes} bytes.",
        object=file.location,
        offset_bytes=file.size_bytes,
    )
