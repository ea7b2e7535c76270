"""What a source platform's guest tools are, as data, and how what belongs to them is recognised.

A name alone never condemns a file or a driver: its maker must be the platform's (the version
resource's CompanyName, the package's Provider), since clouds and Windows itself use some of the
same names: `xenbus` is Amazon's as well as Citrix', `vmgencounter` is Microsoft's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache

from imageport.compose.volumes.file_version import file_version
from imageport.compose.volumes.guest_files import GuestFiles

_PREFIXES = (
    (r"\\\?\?\\|\\\\\?\\", ""),
    (r"\\?%?systemroot%?\\|%windir%\\", "windows/"),
    (r"system32\\", "windows/system32/"),
    (r"%systemdrive%\\|c:\\", ""),
    (r"%programfiles%\\", "program files/"),
)


@dataclass(frozen=True, slots=True)
class SourcePlatform:
    """One platform's tools. Names compare without case; those with ``*`` are patterns.

    Folders are from the root of the Windows volume, with ``/``.
    """

    name: str
    """As in `Inspection.source_tools`."""
    title: str
    makers: tuple[str, ...]
    """Beginnings of company and provider names."""
    services: tuple[str, ...]
    folders: tuple[str, ...]
    """Removed whole; what lies in them is the platform's."""
    infs: tuple[str, ...] = ()
    """Driver packages, by the INF's own name."""
    files: tuple[str, ...] = ()
    """In the system's folders, beside what services and packages name."""
    disk_drivers: tuple[str, ...] = ()
    """Services without which the image cannot start where it came from: they stay, idle."""
    has_emulated_disk: bool = False
    """Without its drivers a machine of the platform shows disks that Windows knows by itself."""
    service_mark: str = ""
    """A value that the platform's installer leaves in its services' keys."""
    products: tuple[str, ...] = ()
    """As Windows lists them."""
    software_keys: tuple[str, ...] = ()
    """Below SOFTWARE; the parent goes too where nothing is left in it."""
    run_values: tuple[str, ...] = ()
    applications: tuple[str, ...] = ()
    """Values of RegisteredApplications."""
    class_keys: tuple[str, ...] = ()
    """Below ``Classes``."""
    winsock_libraries: tuple[str, ...] = ()

    def is_maker(self, name: str) -> bool:
        """Say whether a company or provider is the platform's maker."""
        return name.strip().lower().startswith(self.makers)

    def owns(self, path: str) -> bool:
        """Say whether a path, as the registry writes it, lies in one of the folders."""
        place = volume_path(path) + "/"
        return any(place.startswith(folder.lower() + "/") for folder in self.folders)

    def mentions_folder(self, text: str) -> bool:
        """Say whether a text names a path in one of the folders, anywhere in it."""
        lower = text.lower().replace("\\", "/")
        return any(f"{folder.lower()}/" in lower + "/" for folder in self.folders)

    def made(self, files: GuestFiles, path: str) -> bool:
        """Say whether a guest's file says that it is of the platform's maker."""
        known = file_version(files, path)
        return known is not None and self.is_maker(known.company)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Say whether a name is one of the names or fits one of the patterns."""
    return _joined(patterns).match(name.lower()) is not None


@lru_cache(maxsize=256)  # as many as all platforms have lists
def _joined(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Return one pattern for all of a list: a guest's thousand services are held against each."""
    return re.compile("|".join(translate(pattern.lower()) for pattern in patterns) or r"(?!)")


@lru_cache(maxsize=4096)  # every step asks for the same services' paths
def volume_path(text: str) -> str:
    r"""Return a path of the registry from the volume's root, in lower case, with ``/``.

    ``"C:\Program Files\x\y.exe" -run`` becomes ``program files/x/y.exe``.
    """
    path = text.strip().lower()
    if path.startswith('"'):
        path = path[1:].partition('"')[0]
    else:
        match = re.match(r"(.*?\.(?:exe|sys|dll))(?:[\s,]|$)", path)
        path = match[1] if match else path
    for pattern, replacement in _PREFIXES:
        path = re.sub(f"^(?:{pattern})", replacement, path)
    return path.replace("\\", "/").strip("/")
