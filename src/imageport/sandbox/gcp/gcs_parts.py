# References: Cloud Storage, "Data validation and change detection"; RFC 9110 14.1.2 (ranges).
"""Bytes on their way into the store and out of it."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import google_crc32c

from imageport.model import MIB
from imageport.sandbox.gcp.gcs_messages import GcsRefusal, bad_request

Pace = Callable[[int], None]
"""Told of bytes that go over the link; returns when they are through."""
PIECE_BYTES: Final = MIB
_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)")
_HASH: Final = re.compile(r"(crc32c|md5)=([A-Za-z0-9+/=]+)")


class Digest:
    """Checksums of what was written so far."""

    def __init__(self, *, md5: bool = True) -> None:
        self._crc32c = google_crc32c.Checksum()
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None

    def update(self, data: bytes) -> None:
        """Add bytes."""
        self._crc32c.update(data)
        if self._md5 is not None:
            self._md5.update(data)

    @property
    def crc32c(self) -> str:
        """Return the CRC32C as resources hold it."""
        return base64.b64encode(self._crc32c.digest()).decode()

    @property
    def md5(self) -> str:
        """Return the MD5 as resources hold it; empty when there is none."""
        return "" if self._md5 is None else base64.b64encode(self._md5.digest()).decode()

    def check(self, wanted: Mapping[str, str]) -> None:
        """Refuse bytes that are not what the client said: ``crc32c`` and ``md5``, in base64."""
        for name, there in (("crc32c", self.crc32c), ("md5", self.md5)):
            given = wanted.get(name, "")
            if given and there and given != there:
                title = {"crc32c": "CRC32C", "md5": "MD5"}[name]
                text = f'Provided {title} "{given}" doesn\'t match calculated {title} "{there}".'
                raise bad_request(text)


def wanted_hashes(headers: Mapping[str, str], document: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksums that a request gives, in its headers or its metadata."""
    found: dict[str, str] = {}
    for part in filter(None, headers.get("x-goog-hash", "").split(",")):
        said = _HASH.fullmatch(part.strip())
        if said is None:
            raise bad_request(f"Invalid value for X-Goog-Hash: {part.strip()[:60]}")
        found[said[1]] = said[2]
    if "content-md5" in headers:
        found["md5"] = headers["content-md5"]
    for name, member in (("crc32c", "crc32c"), ("md5", "md5Hash")):
        if document.get(member):
            found.setdefault(name, str(document[member]))
    return found


def spool(source: BinaryIO, length: int | None, path: Path, digest: Digest, pace: Pace) -> int:
    """Write a request's body to a file that exists or not; return how many bytes there were."""
    written = 0
    with path.open("ab", buffering=0) as file:
        while length is None or written < length:
            most = PIECE_BYTES if length is None else min(PIECE_BYTES, length - written)
            data = source.read(most)
            if not data:
                break
            pace(len(data))
            digest.update(data)
            file.write(data)
            written += len(data)
    if length is not None and written < length:
        raise ConnectionAbortedError("The client went away in the middle of a body.")
    return written


def read_range(text: str | None, size: int) -> tuple[int, int] | None:
    """Return first byte and length of a ``Range`` header; None asks for all.

    Raises:
        GcsRefusal: 416, it begins behind the object's end.
    """
    found = _RANGE.fullmatch(text.strip()) if text else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        first = size - length
    else:
        first = int(found[1])
        last = min(int(found[2]), size - 1) if found[2] else size - 1
        length = last - first + 1
    if first >= size or length <= 0:
        refusal = GcsRefusal(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        refusal.headers["Content-Range"] = f"bytes */{size}"
        raise refusal
    return first, length


def read_pieces(file: BinaryIO, first: int, length: int, pace: Pace) -> Iterator[bytes]:
    """Give out a part of a file, and close it."""
    with file:
        offset, end = first, first + length
        while offset < end:
            data = os.pread(file.fileno(), min(PIECE_BYTES, end - offset), offset)
            if not data:
                raise ConnectionAbortedError("An object's file is shorter than the object.")
            pace(len(data))
            offset += len(data)
            yield data


def append_file(source: BinaryIO, target: BinaryIO, seen: Callable[[bytes], None]) -> None:
    """Append one file to another; ``seen`` is shown every byte."""
    size, offset = os.fstat(source.fileno()).st_size, 0
    while offset < size:
        data = os.pread(source.fileno(), PIECE_BYTES, offset)
        seen(data)
        target.write(data)
        offset += len(data)
