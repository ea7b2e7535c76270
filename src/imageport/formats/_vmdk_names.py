"""Opens the files that a descriptor names; a name that could lead elsewhere is refused."""

# References: VMware Virtual Disk Format 5.0: extent descriptions; [MS-DOS 8.3 and Win32] reserved
# device names.

from __future__ import annotations

from imageport.errors import BadDisk, FileMissing
from imageport.formats._vmdk_header import unsupported
from imageport.formats.disk_file import StoredFile
from imageport.storage.folder import Folder

_MOST_CHARACTERS = 255
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{kind}{number}" for kind in ("com", "lpt") for number in "0123456789¹²³"}
)
_SEPARATORS = "/\\:"


def refuse_leaving(location: str, name: str) -> None:
    """Raise `BadDisk` unless a name is that of a file beside the descriptor, and of nothing else.

    Judged as Windows and as Linux would understand it, whichever runs here: a share is both.
    """
    reason = ""
    if not name or len(name) > _MOST_CHARACTERS:
        reason = f"a name of {len(name)} characters"
    elif any(mark in name for mark in _SEPARATORS):
        reason = "a path"
    elif any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        reason = "control characters"
    elif name != name.rstrip(". "):
        reason = "a name that ends in a dot or a space"
    elif name.partition(".")[0].rstrip(" ").lower() in _DEVICES:
        reason = "the name of a device"
    if reason:
        raise BadDisk(
            f"Bad VMDK '{location}': extent file {name[:80]!r}: found {reason}, needed the name of "
            f"a file in the descriptor's own folder.",
            hint="Put all files of the disk into one folder, and the bare names into the "
            "descriptor. A disk over a physical device must be copied from that device.",
            object=location,
        )


class ExtentFiles:
    """The files that one descriptor names, each opened once.

    ``opened`` belongs to whoever takes it; `close` is for when nobody does.
    """

    def __init__(self, location: str, folder: Folder | None) -> None:
        self._location = location
        self._folder = folder
        self._names: dict[str, list[str]] | None = None
        self._by_name: dict[str, StoredFile] = {}
        self._taken: dict[str, list[tuple[int, int]]] = {}
        self.opened: list[StoredFile] = []

    def open_whole(self, name: str) -> StoredFile:
        """Open a file that belongs to one extent alone."""
        return self.open_part(name, 0, 2**63)

    def open_part(self, name: str, start: int, length: int) -> StoredFile:
        """Open a file of which an extent uses some bytes; no other one may use the same.

        Raises:
            BadDisk: The name leads out of the folder, or two extents share bytes.
            FileMissing: No such file.
        """
        found = self._find(name)
        taken = self._taken.setdefault(found, [])
        if any(start < behind and first < start + length for first, behind in taken):
            raise BadDisk(
                f"Bad VMDK '{self._location}': extent file '{name}': found two extents over the "
                f"same bytes, needed a place of its own for each.",
                object=self._location,
            )
        taken.append((start, start + length))
        if found not in self._by_name:
            assert self._folder is not None  # noqa: S101 - found in it
            stored = StoredFile(self._folder.open_read(found))
            self._by_name[found] = stored
            self.opened.append(stored)
        return self._by_name[found]

    def close(self) -> None:
        """Close all that was opened."""
        for stored in self.opened:
            stored.file.close()

    def _find(self, name: str) -> str:
        """Return the name as the folder spells it: exact, or else without regard to case."""
        refuse_leaving(self._location, name)
        if self._folder is None:
            unsupported(
                self._location,
                f"its content lies in other files ('{name}'), and no folder was given to find them",
                "Open the disk by its place in a folder.",
            )
        if self._names is None:
            self._names = {}
            for entry in self._folder.list():
                if not entry.is_folder:
                    self._names.setdefault(entry.name.casefold(), []).append(entry.name)
        spellings = self._names.get(name.casefold(), [])
        if name in spellings:
            return name
        if len(spellings) == 1:
            return spellings[0]
        found = f"{len(spellings)} files that differ in case" if spellings else "no such file"
        raise FileMissing(
            f"Cannot open '{self._location}': its extent file '{name}' is needed in "
            f"'{self._folder.location}', found {found}.",
            hint="Copy all files of the disk into one folder, with the names they had.",
            object=self._location,
        )
