# References: Citrix Provisioning object programming guide (vDisk names, version files);
# Microsoft "Naming Files, Paths, and Namespaces".
"""Names in a PVS vDisk store: what a vDisk may be called, and what each file beside it is.

``name.vhdx`` is the base, ``name.N.avhdx`` a difference to an earlier version, ``name.N.vhdx`` a
base that was merged (or published whole) as version N; ``.pvp`` and ``.lok`` go with one version,
``name.xml`` is the manifest of all. Windows compares these names without case, and so do we.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from imageport.errors import InputError

LONGEST_NAME = 52
_FORBIDDEN = frozenset('<>:"/\\|?*')
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul"] + [f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)]
)
_DISK_FILE = re.compile(
    r"(?P<vdisk>.+?)(?:\.(?P<version>\d{1,9}))?\.(?P<suffix>vhdx|avhdx|vhd|avhd)", re.IGNORECASE
)
_STORE_SUFFIXES = ("vhd", "avhd", "avhdx", "vhdx", "pvp", "lok", "xml", "part")
_VERSION_FILE = re.compile(
    r"(?P<vdisk>.+?)(?:\.(?P<version>\d{1,9}))?\.(?P<suffix>vhdx|avhdx|vhd|avhd|pvp|lok)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class StoreFile:
    """One file of a vDisk: ``gold.2.avhdx`` is version 2 of ``gold``, suffix ``avhdx``."""

    name: str
    version: int
    suffix: str

    @property
    def is_disk(self) -> bool:
        """Tell whether it holds blocks."""
        return self.suffix not in {"pvp", "lok"}

    @property
    def is_lock(self) -> bool:
        """Tell whether a PVS server put it there because a device has the version."""
        return self.suffix == "lok"

    @property
    def is_difference(self) -> bool:
        """Tell whether it is useless without the version before it."""
        return self.suffix in {"avhdx", "avhd"}

    def serves(self, disk: StoreFile) -> bool:
        """Tell whether it is a PVS server's file beside this version: a lock, or its properties."""
        return not self.is_disk and self.version == disk.version

    @property
    def is_vhd(self) -> bool:
        """Tell whether it is of the older format."""
        return self.suffix in {"vhd", "avhd"}


def check_vdisk_name(text: str) -> str:
    """Return a vDisk's name without ``.vhdx``; `InputError` names everything wrong with it."""
    name = text[:-5] if text.lower().endswith(".vhdx") else text
    problems = list(_problems(name))
    if problems:
        raise InputError(
            f"Bad vDisk name {text!r}: {'; '.join(problems)}.",
            problems=problems,
        )
    return name


def _problems(name: str) -> list[str]:
    found = []
    if not name:
        return ["found nothing, needed at least one character"]
    if len(name) > LONGEST_NAME:
        found.append(f"found {len(name)} characters, needed at most {LONGEST_NAME}")
    if not name.isascii():
        found.append("found characters beyond ASCII, PVS takes none")
    if any(ord(mark) < 32 or ord(mark) == 127 for mark in name):
        found.append("found control characters")
    marks = sorted(set(name) & _FORBIDDEN)
    if marks:
        found.append(f"found {' '.join(marks)}, which Windows file names cannot hold")
    if name != name.strip(" ") or name.endswith("."):
        found.append("found a space at an end or a dot at the end, which Windows drops")
    first = name.partition(".")[0]
    if first.rstrip(" ").lower() in _DEVICES:
        found.append(f"found '{first}', which Windows keeps for a device")
    stem, _, last = name.rpartition(".")
    if stem and last.isdecimal():
        found.append(f"found '.{last}' at the end, which reads as version {last} of '{stem}'")
    if stem and last.lower() in _STORE_SUFFIXES:
        found.append(f"found '.{last}' at the end, which PVS gives its own files")
    return found


def same_name(left: str, right: str) -> bool:
    """Compare as Windows does."""
    return left.casefold() == right.casefold()


def file_of(vdisk: str, file_name: str) -> StoreFile | None:
    """Return what a file is to a vDisk; None when it belongs to another one."""
    rest = file_name[len(vdisk) :]
    if not same_name(file_name[: len(vdisk)], vdisk) or not rest.startswith("."):
        return None
    found = _VERSION_FILE.fullmatch("v" + rest)
    if found is None or found["vdisk"] != "v":
        return None
    return StoreFile(file_name, int(found["version"] or 0), found["suffix"].lower())


def disk_named(text: str) -> tuple[str, StoreFile | None]:
    """Return the vDisk that a name means, and the file if the name ends like a disk's file.

    ``gold`` is a vDisk, ``gold.vhdx`` the base file of it, ``gold.2.avhdx`` its version 2.
    """
    found = _DISK_FILE.fullmatch(text)
    if found is None:
        return text, None
    file = StoreFile(text, int(found["version"] or 0), found["suffix"].lower())
    return found["vdisk"], file


def versioned(vdisk: str, version: int, suffix: str) -> str:
    """Return the name of a version's file; version 0 has no number."""
    return f"{vdisk}.{version}.{suffix}" if version else f"{vdisk}.{suffix}"


def is_version_of(file_name: str, vdisk: str) -> bool:
    """Tell whether a disk file is a version of a vDisk, which may be named by a file of its own."""
    found = file_of(disk_named(vdisk)[0], file_name)
    return found is not None and found.is_disk
