"""The operator's files for the engine (drivers, installers), packed the same way every time.

A Site names a folder and pins it by the digest of this zip: what was reviewed is what runs.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from imageport.errors import FileMissing, InputError
from imageport.model import GIB

LIMIT_BYTES = 2 * GIB
"""Largest payload; a VDA installer with its prerequisites is about 1 GiB."""

_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The first moment a zip can hold; real times would change the digest from copy to copy."""


def pack_payload(folder: Path, destination: Path) -> str:
    """Write the files below ``folder`` as a zip and return its sha256 as hex.

    Names, order, times, modes and the packing (stored, not compressed) depend on names and
    contents alone, so equal folders on any machine give equal bytes.

    Raises:
        FileMissing: there is no such folder.
        InputError: it is empty, too large, or holds a link, which could name any file.
    """
    files = _files(folder)
    with zipfile.ZipFile(destination, "w", zipfile.ZIP_STORED) as archive:
        for path in files:
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _EARLIEST)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(entry, "w") as target:
                while chunk := source.read(1024 * 1024):
                    target.write(chunk)
    with destination.open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()


def pack_pinned(folder: Path, sha256: str, destination: Path) -> Path:
    """Pack ``folder`` and refuse it unless its digest is the pinned one."""
    found = pack_payload(folder, destination)
    if found != sha256.lower():
        raise InputError(
            f"Bad payload folder '{folder}': found sha256 {found}, "
            f"needed {sha256 or 'a pinned one'}.",
            hint="Review the folder's files, then set payload_sha256 of the Site block to the "
            "digest that was found.",
            found=found,
            needed=sha256,
        )
    return destination


@contextmanager
def unpacked_payload(packed: Path | None) -> Iterator[Path | None]:
    """Unpack a payload for the length of a ``with``; None stays None."""
    if packed is None:
        yield None
        return
    with TemporaryDirectory(prefix="imageport-payload-") as name, zipfile.ZipFile(packed) as zipped:
        # extractall drops drive letters, leading slashes and "..": nothing lands outside.
        zipped.extractall(name)
        yield Path(name)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileMissing(f"Cannot pack '{folder}': there is no such folder on this worker.")
    entries = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
    links = [path for path in entries if path.is_symlink()]
    files = [path for path in entries if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    if links or not files or size > LIMIT_BYTES:
        found = f"a link, '{links[0]}'" if links else f"{len(files)} files of {size} bytes"
        raise InputError(
            f"Bad payload folder '{folder}': found {found}, "
            f"needed at least one file, no link and at most {LIMIT_BYTES} bytes."
        )
    return files
