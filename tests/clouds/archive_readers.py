"""Programs nobody here wrote that read a tar.gz with one sparse file: what they make of ours."""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import tarfile
from pathlib import Path

ARCHIVE_OK = 0
PIECE_BYTES = 1 << 20


def gnu_tar(archive: Path, folder: Path) -> Path:
    """Extract with GNU tar and gzip, as sparse as the archive says; return the disk."""
    subprocess.run(["gzip", "--test", str(archive)], check=True)
    subprocess.run(["tar", "-xzSf", str(archive), "-C", str(folder)], check=True)
    return folder / "disk.raw"


def python_tarfile(archive: Path, folder: Path) -> Path:
    """Extract with the standard library; return the disk."""
    with tarfile.open(archive, "r:gz") as opened:
        (member,) = opened.getmembers()
        assert member.issparse()
        assert member.isreg()
        opened.extract(member, folder, filter="data")
    return folder / "disk.raw"


def libarchive(archive: Path, folder: Path) -> Path:
    """Extract with libarchive, which bsdtar and many importers are made of; return the disk."""
    name = ctypes.util.find_library("archive")
    assert name is not None
    library = ctypes.CDLL(name)
    for function in ("archive_read_new", "archive_error_string"):
        getattr(library, function).restype = ctypes.c_void_p
    library.archive_entry_pathname.restype = ctypes.c_char_p
    library.archive_entry_size.restype = ctypes.c_int64
    reader = ctypes.c_void_p(library.archive_read_new())
    assert library.archive_read_support_filter_gzip(reader) == ARCHIVE_OK
    assert library.archive_read_support_format_tar(reader) == ARCHIVE_OK
    opened = library.archive_read_open_filename(reader, str(archive).encode(), PIECE_BYTES)
    assert opened == ARCHIVE_OK
    entry = ctypes.c_void_p()
    assert library.archive_read_next_header(reader, ctypes.byref(entry)) == ARCHIVE_OK
    disk = folder / library.archive_entry_pathname(entry).decode()
    with disk.open("wb") as file:
        assert library.archive_read_data_into_fd(reader, file.fileno()) == ARCHIVE_OK
        file.truncate(library.archive_entry_size(entry))
    assert library.archive_read_next_header(reader, ctypes.byref(entry)) == 1  # the end
    library.archive_read_free(reader)
    return disk
