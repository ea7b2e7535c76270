"""One row of the table of formats: how a disk is recognised, opened, and found by its children."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imageport.formats.disk_file import DiskFile
from imageport.storage.byte_file import ByteFile
from imageport.storage.folder import Folder

HEAD_BYTES = 8192
"""Read of a file's start to recognise it: both places of a GPT, all signatures."""
TAIL_BYTES = 512
"""Read of a file's end: the footer of a VHD, also one of 511 bytes."""

Recognise = Callable[[bytes, bytes], bool]
Open = Callable[[ByteFile, Folder | None], DiskFile]


@dataclass(frozen=True, slots=True)
class DiskFormat:
    """A format that files have; the first row that recognises a file opens it."""

    name: str
    """`ParentLink.format_name` of its differencing files, `VirtualDisk.format_name` as a rule."""
    recognise: Recognise
    """Asked with the first `HEAD_BYTES` and the last `TAIL_BYTES`, fewer of a small file."""
    open: Open
    """Opens one file, never its parent; leaves the file open when it raises. The folder is where
    further files of the same disk lie (extents), not parents."""
    endings: tuple[str, ...] = ()
    """What names of such files end in, where parents are searched by linkage; lower case."""
    link_id: Callable[[ByteFile], str] | None = None
    """Reads `LinkedDisk.link_id` from the headers alone; `BadDisk` when the file has another
    format. None for a format without parents."""


def starts_with(*marks: bytes) -> Recognise:
    """Return what recognises a file by its first bytes."""
    return lambda head, _tail: head.startswith(marks)
