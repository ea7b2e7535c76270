"""Files of a platform's tools: its own folders, and what it put among Windows' files."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.steps.source.source_platform import SourcePlatform, matches
from imageport.compose.volumes.guest_files import GuestFiles

SYSTEM_FOLDERS = ("Windows/System32/drivers", "Windows/System32", "Windows/SysWOW64")


def files_among_windows(
    files: GuestFiles, platform: SourcePlatform, kept: frozenset[str]
) -> Iterator[str]:
    """Yield what the platform's maker put into the system's folders.

    ``kept`` holds file names, in lower case, of drivers that stay. The folders have thousands of
    names, so each is listed once; only files of a fitting name are opened, for their maker.
    """
    for folder in SYSTEM_FOLDERS:
        for name in files.names(folder):
            if name.lower() in kept or not matches(name, platform.files):
                continue
            path = f"{folder}/{name}"
            if platform.made(files, path):
                yield path


def own_folders(files: GuestFiles, platform: SourcePlatform) -> Iterator[str]:
    """Yield the platform's folders that are there."""
    for folder in platform.folders:
        if files.is_folder(folder):
            yield folder


def empty_parents(files: GuestFiles, platform: SourcePlatform) -> Iterator[str]:
    """Yield the folders above the platform's that have nothing left in them.

    Folders of Windows itself stay, empty or not: only a maker's own folder goes.
    """
    for folder in platform.folders:
        parent = folder.rpartition("/")[0]
        is_makers = platform.is_maker(parent.rpartition("/")[2])
        if is_makers and files.is_folder(parent) and not files.names(parent):
            yield parent
