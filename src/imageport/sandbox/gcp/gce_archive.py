# References: GNU tar manual, "Basic Tar Format", "Storing Sparse Files" (old GNU format); RFC 1952
# (gzip); Compute Engine, "Manually import boot disks" (disk.raw, oldgnu, whole gigabytes).
"""Opens the archive that an image is made of, as strictly as Google is known to."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, Final, cast

from imageport.model import GIB, MIB
from imageport.sandbox.gcp.gce_machine_types import LARGEST_DISK_GIB
from imageport.sandbox.gcp.gce_messages import OperationFailure

MEMBER: Final = "disk.raw"
INVALID: Final = "INVALID_IMAGE_FILE"
_RECORD: Final = 512
_MAGIC: Final = b"ustar  \0"
"""At offset 257 of a header in GNU's old format."""
_PLAIN, _SPARSE = (b"0", b"\0"), b"S"
_CHUNK: Final = MIB


class _Rest(io.RawIOBase):
    """A stream whose first record was looked at and is given back."""

    def __init__(self, first: bytes, stream: BinaryIO) -> None:
        super().__init__()
        self._first = first
        self._stream = stream

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes."""
        if size is None or size < 0:
            size = len(self._first) + _CHUNK
        head, self._first = self._first[:size], self._first[size:]
        return head + self._stream.read(size - len(head))


def unpack(archive: BinaryIO, disk: Path) -> int:
    """Write the disk of an archive to a sparse file; return its size in bytes.

    Raises:
        OperationFailure: ``INVALID_IMAGE_FILE``, with what is wrong.
    """
    part = disk.with_suffix(".unpacking")
    try:
        with gzip.GzipFile(fileobj=archive, mode="rb") as unzipped:
            # GzipFile is no BinaryIO by its types, but reads like one.
            size = _unpack_tar(unzipped, part)  # type: ignore[arg-type]
        part.rename(disk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _bad(f"it is no gzip stream ({error})") from error
    except tarfile.TarError as error:
        raise _bad(f"it holds no tar archive ({error})") from error
    finally:
        part.unlink(missing_ok=True)
    return size


def _unpack_tar(stream: BinaryIO, part: Path) -> int:
    first = stream.read(_RECORD)
    kind = first[156:157]
    if first[257:265] != _MAGIC:
        text = "The tar archive format is not supported. Supported formats are: GNU and OLDGNU."
        raise OperationFailure(400, INVALID, text)
    name = first[:100].rstrip(b"\0").decode(errors="replace")
    if name != MEMBER or kind not in (*_PLAIN, _SPARSE):
        text = f"The file inside the tar archive was named '{name}'. It should be named '{MEMBER}'."
        raise OperationFailure(400, INVALID, text)
    with tarfile.open(fileobj=_Rest(first, stream), mode="r|", bufsize=_CHUNK) as tar:
        member = tar.next()
        if member is None or member.name != MEMBER:
            raise _bad(f"its first member is no file named {MEMBER}")
        if member.size % GIB or not member.size:
            raise _bad(f"the size of {MEMBER}, {member.size} bytes, is no whole number of GiB")
        if member.size > LARGEST_DISK_GIB * GIB:
            raise _bad(f"the size of {MEMBER}, {member.size} bytes, is beyond that of any disk")
        pieces = _pieces(tar, member)
        with part.open("xb") as file:
            file.truncate(member.size)
            for offset, length in pieces:
                _copy(tar, file.fileno(), offset, length)
        _check_end(tar)
    return int(member.size)


def _check_end(tar: tarfile.TarFile) -> None:
    """Read up to the end, so that the last checksum is looked at, too; there are zeros alone."""
    stream = _stream(tar)
    _read(stream, tar.offset - stream.tell())
    first, second = stream.read(_RECORD), stream.read(_RECORD)
    if first.strip(b"\0"):
        raise _bad(f"it holds more than {MEMBER}")
    if len(first + second) < 2 * _RECORD:
        raise _bad("it has no end")
    rest = second
    while rest:
        if rest.strip(b"\0"):
            raise _bad("it goes on after the end of the archive")
        rest = stream.read(_CHUNK)


def _pieces(tar: tarfile.TarFile, member: tarfile.TarInfo) -> list[tuple[int, int]]:
    """Return offset and length of what is stored, in the order of the archive."""
    sparse = cast("list[tuple[int, int]] | None", member.sparse)  # typeshed says bytes
    pieces = [(0, member.size)] if sparse is None else [item for item in sparse if item[1]]
    end = 0
    for offset, length in pieces:
        if offset < end or offset + length > member.size or offset % _RECORD:
            raise _bad(f"its map of sparse parts is wrong at offset {offset}")
        end = offset + length
    stored = sum(length for _, length in pieces)
    records = -(-stored // _RECORD) * _RECORD
    if tar.offset - member.offset_data != records:
        raise _bad("its map of sparse parts does not fit the size in its header")
    return pieces


def _copy(tar: tarfile.TarFile, fd: int, offset: int, length: int) -> None:
    while length:
        data = _read(_stream(tar), min(length, _CHUNK))
        if data != bytes(len(data)):
            os.pwrite(fd, data, offset)
        offset += len(data)
        length -= len(data)


def _stream(tar: tarfile.TarFile) -> BinaryIO:
    if tar.fileobj is None:
        raise _bad("it cannot be read")
    return cast("BinaryIO", tar.fileobj)


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise _bad(f"it ends in the middle of {MEMBER}")
    return data


def _bad(text: str) -> OperationFailure:
    return OperationFailure(400, INVALID, f"The tar archive is not a valid image: {text}.")
