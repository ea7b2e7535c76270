r"""Where the files of an installed driver package lie in the guest, and what it consists of.

The driver store has the whole package, in a folder of its own name; ``\Windows\INF`` has its INF
and the catalogue store its catalogue under a number that Windows gives; drivers are copied out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from imageport.compose.drivers.inf import DriverInf
from imageport.compose.drivers.inf_installs import RUN_FROM_STORE, InfInstall, InfService
from imageport.compose.drivers.inf_models import InfModel, WindowsVersion
from imageport.compose.drivers.installed_drivers import INF_FOLDER, STORE

CATALOGUES = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
"""The store of catalogues of drivers; the GUID is that of driver signing (DRIVER_ACTION_VERIFY)."""
_DIRECTORIES = {10: "Windows", 11: "Windows/System32", 12: "Windows/System32/drivers"}
"""Reference: "INF DestinationDirs section", dirid values."""
_PLAIN = re.compile(r"(?!\.+$)[A-Za-z0-9_.()+\- ]{1,100}")
_KERNEL_KINDS = 0x0F
"""Kernel and file system drivers; their ImagePath begins at the system root."""


@dataclass(frozen=True, slots=True)
class PackageLayout:
    """One package as it is, or is to be, installed for one version of Windows."""

    inf: DriverInf
    inf_name: str
    files: tuple[str, ...]
    """As in `DriverPackage`."""
    system: WindowsVersion
    oem_inf: str
    store: str
    """``NAME.inf_amd64_`` and 16 hexadecimal digits."""

    @property
    def store_folder(self) -> str:
        """Return its folder in the driver store."""
        return f"{STORE}/{self.store}"

    @property
    def inf_path(self) -> str:
        """Return where Windows keeps its INF."""
        return f"{INF_FOLDER}/{self.oem_inf}"

    @property
    def catalogue_path(self) -> str:
        """Return where Windows looks its signature up."""
        return f"{CATALOGUES}/{self.oem_inf.removesuffix('.inf')}.cat"

    @property
    def models(self) -> tuple[InfModel, ...]:
        """Return the ids it serves, each once: the first line that names one counts."""
        first: dict[str, InfModel] = {}
        for model in self.inf.models_for(self.system):
            first.setdefault(model.hardware_id, model)
        return tuple(first.values())

    @property
    def installs(self) -> tuple[InfInstall, ...]:
        """Return what is installed for these models, each once."""
        found = {item.name: item for item in map(self.inf.install_of, self.models)}
        return tuple(found.values())

    @property
    def services(self) -> tuple[InfService, ...]:
        """Return the services of these, each once."""
        found = {s.name.lower(): s for item in self.installs for s in item.services}
        return tuple(found.values())

    def copies(self) -> dict[str, str]:
        """Return path in the guest → the package's file, for what is copied out of the store."""
        held = {name.rpartition("/")[2].lower(): name for name in self.files}
        found: dict[str, str] = {}
        for path, source in self._wanted():
            if path and source.lower() in held:
                found[path] = held[source.lower()]
        return found

    def not_followed(self) -> tuple[str, ...]:
        """Return what of the INF is left to Windows' own setup at first boot."""
        left = [text for item in self.installs for text in item.not_followed]
        left += [f"file {source}" for path, source in self._wanted() if not path]
        return tuple(dict.fromkeys(left))

    def binary_path(self, service: InfService) -> str:
        """Return where a service's file lies, "" when that cannot be said."""
        if service.directory == RUN_FROM_STORE:
            return f"{self.store_folder}/{service.binary}"
        return _path(service.directory, "", service.binary)

    def image_path(self, service: InfService) -> str:
        """Return the ``ImagePath`` of a service as Windows writes it."""
        path = self.binary_path(service).replace("/", "\\")
        below = path.removeprefix("Windows\\")
        if not service.kind & _KERNEL_KINDS:
            return f"%SystemRoot%\\{below}"
        is_plain = below.lower().startswith("system32\\drivers\\")
        return below if is_plain else f"\\SystemRoot\\{below}"

    def _wanted(self) -> Iterator[tuple[str, str]]:
        """Yield (path in the guest or "", file of the package) for each file that is copied."""
        for install in self.installs:
            for file in install.files:
                if file.directory != RUN_FROM_STORE:
                    yield _path(file.directory, file.folder, file.name), file.source
        for service in self.services:
            if service.binary and service.directory != RUN_FROM_STORE:
                yield _path(service.directory, "", service.binary), service.binary


def _path(directory: int, folder: str, name: str) -> str:
    base = _DIRECTORIES.get(directory, "")
    parts = [*filter(None, folder.split("\\")), name]
    if not base or not all(_PLAIN.fullmatch(part) for part in parts):
        return ""
    return "/".join([base, *parts])
