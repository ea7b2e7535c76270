"""From what an operator writes (a path or ``smb://…``) to an open folder."""

from __future__ import annotations

import os
from pathlib import Path

from imageport.errors import InputError
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.storage.smb_location import SmbCredentials, SmbLocation

__all__ = [
    "SmbCredentials",
    "SmbLocation",
    "credentials_from_environment",
    "is_share",
    "open_folder",
    "split_file",
]


def is_share(location: str) -> bool:
    """Tell whether a location names a share (``smb://…`` or a UNC path)."""
    return location.lower().startswith("smb://") or location.startswith("\\\\")


def open_folder(location: str, credentials: SmbCredentials | None = None) -> Folder:
    """Return the folder at a local path or ``smb://host[:port]/share/folder``.

    Shares take ``credentials``, else those of the environment. Nothing is connected yet.
    """
    if not is_share(location):
        if "://" in location:
            raise InputError(f"Bad location: found {location!r}, needed a path or smb://….")
        return LocalFolder(Path(location))
    from imageport.storage.smb import SmbFolder  # noqa: PLC0415 - 0.2 s that local runs spare

    credentials = credentials or credentials_from_environment()
    if credentials is None:
        raise InputError(
            f"Cannot open '{SmbLocation.parse(location)}': no user and password are given.",
            hint="Set IMAGEPORT_SMB_USER and IMAGEPORT_SMB_PASSWORD (and IMAGEPORT_SMB_DOMAIN).",
        )
    return SmbFolder(SmbLocation.parse(location), credentials)


def credentials_from_environment() -> SmbCredentials | None:
    """Return what IMAGEPORT_SMB_USER, _PASSWORD and _DOMAIN hold; None without a user."""
    user = os.environ.get("IMAGEPORT_SMB_USER", "")
    if not user:
        return None
    return SmbCredentials(
        username=user,
        password=os.environ.get("IMAGEPORT_SMB_PASSWORD", ""),
        domain=os.environ.get("IMAGEPORT_SMB_DOMAIN", ""),
    )


def split_file(location: str) -> tuple[str, str]:
    """Return (folder location, file name) of a file's location."""
    separator = "\\" if location.startswith("\\\\") else "/"
    folder, found, name = location.rpartition(separator)
    if not name:
        raise InputError(f"Bad location: found {location!r}, needed the name of a file at its end.")
    if is_share(location):
        SmbLocation.parse(folder)  # a file needs a share above it
        return folder, name
    return (folder or "/") if found else ".", name
