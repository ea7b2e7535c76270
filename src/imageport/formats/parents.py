"""Finds the parents of differencing disks in a folder: by linkage, never by name alone.

A differencing file says which content its parent has (an id) and where the parent lay when it was
made (paths of another machine). The names say where to look first; the id decides.
"""

# References: [MS-VHDX] 2.6.2.6.3; Microsoft "Naming Files, Paths, and Namespaces".

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import takewhile

from imageport.errors import (
    BadDisk,
    FileLocked,
    FileMissing,
    ShareRefused,
    SourceError,
    UnsupportedDisk,
)
from imageport.formats.disk_file import DiskFile
from imageport.formats.disk_format import DiskFormat
from imageport.formats.linked_disk import (
    LONGEST_CHAIN,
    MOST_HELD_BYTES,
    LinkedDisk,
    ParentLink,
)
from imageport.storage.folder import Folder

MOST_ASKED = 1000
"""Files of a folder whose headers are read when no name leads to the parent; each costs about a
round trip and a few KiB, and a store of that many disks is a large one."""
_SHOWN = 5
"""Files that one message tells of."""


def windows_base_name(path: str) -> str:
    """Return the file's name at the end of a Windows path; empty when there is no usable one."""
    name = re.split(r"[\\/]", path)[-1].rstrip(" .")
    return "" if not name or re.search(r'[\x00-\x1f:*?"<>|]', name) else name


def adopt_parents(
    disk: LinkedDisk, kind: DiskFormat, folder: Folder | None, *, deny_write: bool = False
) -> None:
    """Open the parents of ``disk`` down to the base, all of them files of ``folder``.

    ``disk`` owns what was opened, also when this raises. ``deny_write`` opens parents so that
    nobody writes them meanwhile.

    Raises:
        UnsupportedDisk: It has a parent and there is no folder to look in, or the tables of all
            files would take too much memory.
        FileMissing: No file of the folder has the parent's name, and none its id.
        BadDisk: The parent has another id than the one its child was made for, or the chain runs
            in a circle or is too long.
        FileLocked, ShareRefused: The file that has the parent's name cannot be opened.
    """
    link = disk.parent_link
    if link is None:
        return
    if folder is None:
        raise UnsupportedDisk(
            f"Cannot read '{disk.location}': it holds only differences to its parent "
            f"'{_first_name(link)}' ({_ids(link)}).",
            hint="Name it by its place in the folder that holds the whole chain.",
            object=disk.location,
        )
    search = _Search(folder, kind)
    chain = [disk]
    while (link := chain[-1].parent_link) is not None:
        _check_no_circle(chain, link)
        name = search.find(link)
        parent = _opened(folder, name, kind, deny_write=deny_write)
        chain[-1].adopt(parent)
        if parent.link_id not in link.ids:
            # It fitted when its headers were read: somebody works on the chain right now.
            raise _broken(link, folder, {name: parent.link_id})
        chain.append(parent)
        _check_memory(chain)


def _check_memory(chain: list[LinkedDisk]) -> None:
    held = sum(disk.held_bytes for disk in chain)
    if held > MOST_HELD_BYTES:
        raise UnsupportedDisk(
            f"Cannot read '{chain[0].location}': the tables of the {len(chain)} files down to "
            f"'{chain[-1].location}' take {held} bytes of memory, this release gives a chain at "
            f"most {MOST_HELD_BYTES}.",
            hint="Merge the versions to a new base, then start again.",
            object=chain[0].location,
        )


def _check_no_circle(chain: list[LinkedDisk], link: ParentLink) -> None:
    above = next((disk for disk in chain if disk.link_id in link.ids), None)
    if above is not None:
        raise BadDisk(
            f"Bad chain: '{link.child}' has the parent {_ids(link)}, which is '{above.location}', "
            "found above it in the same chain, needed one below.",
            object=link.child,
        )
    if len(chain) == LONGEST_CHAIN:
        raise BadDisk(
            f"Bad chain '{chain[0].location}': found more than {LONGEST_CHAIN} files.",
            object=chain[0].location,
        )


def _opened(folder: Folder, name: str, kind: DiskFormat, *, deny_write: bool) -> LinkedDisk:
    file = folder.open_read(name, deny_write=deny_write)
    try:
        disk: DiskFile = kind.open(file, folder)
    except BaseException:
        file.close()
        raise
    if not isinstance(disk, LinkedDisk):  # cannot be: the format's link_id was read from it
        disk.close()
        raise UnsupportedDisk(f"Cannot read '{file.location}': it cannot be part of a chain.")
    return disk


@dataclass
class _Search:
    """Looks for parents in one folder, which is listed once; remembers the ids that it read."""

    folder: Folder
    kind: DiskFormat
    _names: list[str] | None = None
    _known: dict[str, str] = field(default_factory=dict)
    """Name of a file to its id, or to why it has none."""
    _shut: dict[str, FileLocked | ShareRefused] = field(default_factory=dict)
    """Names of files that could not be opened; only for a parent that is an error."""

    def find(self, link: ParentLink) -> str:
        """Return the name of the file with the id that a link asks for."""
        if self._names is None:
            self._names = [entry.name for entry in self.folder.list() if not entry.is_folder]
        named = self._named(link, self._names)
        for name in named:
            if self._id_of(name) in link.ids:
                return name
        for name in self._others(link, self._names, named):
            if self._id_of(name) in link.ids:
                return name
        for name in named:
            if name in self._shut:
                raise self._shut[name]
        raise _broken(link, self.folder, {name: self._known[name] for name in named})

    @staticmethod
    def _named(link: ParentLink, present: list[str]) -> list[str]:
        """Return the files that the link names, without case as Windows compares them."""
        by_fold: dict[str, list[str]] = {}
        for name in present:
            by_fold.setdefault(name.casefold(), []).append(name)
        wanted = dict.fromkeys(name.casefold() for name in link.names if name)
        return [name for fold in wanted for name in by_fold.get(fold, [])]

    def _others(self, link: ParentLink, present: list[str], named: list[str]) -> list[str]:
        """Return the other files of the format, those named most like the child first."""
        child = windows_base_name(link.child).casefold()
        found = [
            name
            for name in present
            if name.casefold().endswith(self.kind.endings) and name not in named
        ]

        def unlikeness(name: str) -> tuple[int, str]:
            pairs = zip(name.casefold(), child, strict=False)
            return -sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)), name

        return sorted(found, key=unlikeness)[:MOST_ASKED]

    def _id_of(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._read_id(name)
        return self._known[name]

    def _read_id(self, name: str) -> str:
        assert self.kind.link_id is not None  # noqa: S101 - only such formats have links
        try:
            with self.folder.open_read(name) as file:
                return self.kind.link_id(file)
        except (FileLocked, ShareRefused) as error:
            self._shut[name] = error
            return f"what cannot be opened ({error.code})"
        except SourceError as error:  # no disk, damaged, or gone since the folder was listed
            return f"no {self.kind.name.upper()} ({error.code})"


def _broken(link: ParentLink, folder: Folder, found: dict[str, str]) -> SourceError:
    """Return the error for a parent that is not there, or is not what it was."""
    fields = {"object": link.child, "wanted": list(link.ids), "found": found}
    if not found:
        return FileMissing(
            f"Cannot find the parent '{_first_name(link)}' ({_ids(link)}) of '{link.child}': no "
            f"file of '{folder.location}' has that name or that id.",
            hint="All files of a chain must lie in one folder: put the missing version back.",
            **fields,
        )
    shown = [f"'{name}' with {id_}" for name, id_ in list(found.items())[:_SHOWN]]
    return BadDisk(
        f"Bad chain: '{link.child}' was made on a parent with {_ids(link)}: found "
        f"{', '.join(shown)} in '{folder.location}', needed a file with that id.",
        hint="The parent was written after its child was made, or replaced by another file: "
        "restore the one that belongs to the chain.",
        **fields,
    )


def _first_name(link: ParentLink) -> str:
    return next((name for name in link.names if name), "without a name")


def _ids(link: ParentLink) -> str:
    return " or ".join(link.ids)
