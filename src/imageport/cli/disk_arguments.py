"""How the subcommands name disks: a local path or ``smb://host/share/path``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from imageport.citrix.names import disk_named, file_of
from imageport.errors import InputError, ShareRefused
from imageport.formats.disk_file import DiskFile
from imageport.formats.opening import open_disk
from imageport.storage.folder import Folder
from imageport.storage.locate import open_folder, split_file

DISK_HELP = (
    "a local path or smb://host/share/path (user and password from IMAGEPORT_SMB_USER, "
    "IMAGEPORT_SMB_PASSWORD, IMAGEPORT_SMB_DOMAIN)"
)


def payload_folder(path: Path | None) -> Path | None:
    """Return the operator's folder; `InputError` when it is none."""
    if path is not None and not path.is_dir():
        raise InputError(f"Cannot read payload '{path}': it is no folder.")
    return path


@contextlib.contextmanager
def opened_folder(location: str) -> Iterator[tuple[Folder, str]]:
    """Yield the folder that a file's location lies in, and the file's name there."""
    folder_location, name = split_file(location)
    with open_folder(folder_location) as folder:
        yield folder, name


@contextlib.contextmanager
def opened_disk(location: str) -> Iterator[DiskFile]:
    """Yield the disk at a location, with its chain, opened so that nobody writes it meanwhile.

    Beside a lock of a PVS server nobody is kept out: devices may stream from it. `check_unchanged`
    tells then.
    """
    with opened_folder(location) as (folder, name):
        is_locked = _is_locked(folder, name)
        file = folder.open_read(name, deny_write=True)
        if is_locked:
            file.close()  # it showed that nobody writes
            file = folder.open_read(name)
        with open_disk(file, folder, deny_write=not is_locked) as disk:
            yield disk


def _is_locked(folder: Folder, name: str) -> bool:
    """Tell whether a version of the vDisk that a file belongs to has a lock."""
    vdisk, disk = disk_named(name)
    if disk is None:
        return False
    with contextlib.suppress(ShareRefused):  # who may not list the folder may read a disk
        beside = [file_of(vdisk, entry.name) for entry in folder.list() if not entry.is_folder]
        return any(one is not None and one.is_lock for one in beside)
    return False
