# References: Microsoft "INF Version section", "INF DriverVer directive", "INF SourceDisksFiles
# section", "INF CatalogFile directive".
"""A driver package's INF: which devices it serves, what it installs, which files it needs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from imageport.compose.drivers.inf_installs import (
    RUN_FROM_STORE,
    InfInstall,
    InfService,
    read_install,
)
from imageport.compose.drivers.inf_models import (
    AMD64,
    InfModel,
    ModelList,
    WindowsVersion,
    models_for,
    read_models,
)
from imageport.compose.drivers.inf_text import MAX_INF_BYTES, InfText
from imageport.errors import InputError

__all__ = ["MAX_INF_BYTES", "DriverInf", "DriverVersion", "id_matches", "parse_inf"]

_CLASS_GUID = re.compile(r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}", re.IGNORECASE)
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
_FILETIMES_PER_SECOND = 10_000_000
_MAX_INSTALLS = 500


@dataclass(frozen=True, slots=True, order=True)
class DriverVersion:
    """What decides between two drivers of a device that rank alike: the later date, then number.

    ``date`` is a FILETIME.
    """

    date: int = 0
    numbers: tuple[int, int, int, int] = (0, 0, 0, 0)

    def __str__(self) -> str:
        day = datetime.fromtimestamp(self.date // _FILETIMES_PER_SECOND + _EPOCH.timestamp(), UTC)
        return f"{'.'.join(map(str, self.numbers))} of {day:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class DriverInf:
    """What matters of an INF for 64-bit Windows."""

    provider: str
    class_guid: str
    catalog: str
    """"" = the package is not signed."""
    driver_version: str
    """``MM/DD/YYYY,w.x.y.z`` as it stands there."""
    version: DriverVersion
    is_locked_down: bool
    """PnpLockdown: Windows lets nobody but itself replace the files."""
    model_lists: tuple[ModelList, ...]
    installs: dict[str, InfInstall]
    """By the name that models give, in lower case."""
    source_files: tuple[str, ...]
    """Files of the package relative to the INF, with ``/``."""
    strings: dict[str, str]
    """By lower-case token."""

    @property
    def models(self) -> tuple[InfModel, ...]:
        """Return all models, for whatever version of Windows."""
        return tuple(model for item in self.model_lists for model in item.models)

    @property
    def hardware_ids(self) -> tuple[str, ...]:
        """Return the ids of all models, for whatever version of Windows."""
        return tuple(sorted({model.hardware_id for model in self.models}))

    @property
    def services(self) -> tuple[InfService, ...]:
        """Return the services of all models, each once."""
        found = {s.name.lower(): s for item in self.installs.values() for s in item.services}
        return tuple(found[name] for name in sorted(found))

    @property
    def own_binaries(self) -> tuple[str, ...]:
        """Return the services' files that must come with the package.

        One that no list of files copies, and that does not run from the driver store, is in Windows
        already: its serial port's, or that of drivers in user mode.
        """
        installs = self.installs.values()
        copied = {file.name.lower(): file.source for item in installs for file in item.files}
        found = {
            copied.get(service.binary.lower(), service.binary)
            for service in self.services
            if service.binary.lower() in copied
            or (service.binary and service.directory == RUN_FROM_STORE)
        }
        return tuple(sorted(found))

    def serves(self, hardware_id: str) -> bool:
        """Say whether a device with this id gets a driver from here."""
        return any(id_matches(own, hardware_id) for own in self.hardware_ids)

    def models_for(self, system: WindowsVersion) -> tuple[InfModel, ...]:
        """Return the models of the lists that a version of Windows takes."""
        return models_for(self.model_lists, system)

    def install_of(self, model: InfModel) -> InfInstall:
        """Return what is installed for a model."""
        return self.installs[model.install.lower()]

    def text_of(self, written: str) -> str:
        """Return the text of ``%token%``; any other text is itself."""
        token = token_of(written)
        return self.strings.get(token, written) if token else written


def id_matches(offered: str, wanted: str) -> bool:
    """Say whether an id that a driver offers covers a device of the wanted id, or narrower."""
    one, other = offered.upper(), wanted.upper()
    return one == other or one.startswith(other + "&") or other.startswith(one + "&")


def token_of(written: str) -> str:
    """Return the lower-case token of ``%token%``, "" for any other text."""
    is_token = len(written) > 2 and written[0] == written[-1] == "%" and "%" not in written[1:-1]
    return written[1:-1].lower() if is_token else ""


def parse_inf(data: bytes) -> DriverInf:
    """Read an INF file.

    Raises:
        InputError: it is too large, no INF, or serves no 64-bit device.
    """
    document = InfText(data)
    if document.first("version", "signature").lower() not in {"$windows nt$", "$chicago$"}:
        raise InputError("Bad driver INF: found no signature, needed [Version] Signature.")
    lists = read_models(document)
    models = [model for item in lists for model in item.models]
    names = dict.fromkeys(model.install.lower() for model in models)
    if len(names) > _MAX_INSTALLS:
        raise InputError(
            f"Bad driver INF: found {len(names)} install sections, needed {_MAX_INSTALLS} or less."
        )
    spelled = {model.install.lower(): model.install for model in models}
    written_version = document.values("version", "driverver")
    return DriverInf(
        provider=document.first("version", "provider"),
        class_guid=_class_guid(document),
        catalog=_catalog(document),
        driver_version=",".join(written_version),
        version=_version(written_version),
        is_locked_down=document.first("version", "pnplockdown") == "1",
        model_lists=lists,
        installs={name: read_install(document, spelled[name]) for name in names},
        source_files=tuple(sorted(_source_files(document))),
        strings=document.strings,
    )


def _class_guid(document: InfText) -> str:
    found = document.first("version", "classguid")
    if found and not _CLASS_GUID.fullmatch(found):
        raise InputError(f"Bad driver INF: found ClassGuid '{found[:60]}', needed a GUID.")
    return found.lower()


def _version(written: list[str]) -> DriverVersion:
    """Read ``MM/DD/YYYY[,w[.x[.y[.z]]]]``; what is not there counts as nothing."""
    if not any(written):
        return DriverVersion()
    date, numbers = [*written, ""][:2]
    try:
        month, day, year = (int(part) for part in re.split(r"[/-]", date))
        when = datetime(year, month, day, tzinfo=UTC)
        parts = [int(part) for part in numbers.split(".")] if numbers else []
    except ValueError:
        parts, when = [-1], _EPOCH
    if when.year < _EPOCH.year or len(parts) > 4 or any(not 0 <= part < 2**16 for part in parts):
        raise InputError(
            f"Bad driver INF: found DriverVer '{','.join(written)[:60]}', "
            "needed MM/DD/YYYY,w.x.y.z."
        )
    one, two, three, four = [*parts, 0, 0, 0, 0][:4]
    seconds = int((when - _EPOCH).total_seconds())
    return DriverVersion(seconds * _FILETIMES_PER_SECOND, (one, two, three, four))


def _catalog(document: InfText) -> str:
    for key in (f"catalogfile.{AMD64}", "catalogfile.nt", "catalogfile"):
        if found := document.first("version", key):
            return found
    return ""


def _source_files(document: InfText) -> set[str]:
    """Return the files that the INF copies from its own folder."""
    folders = {}
    for section in ("sourcedisksnames", "sourcedisksnames.amd64"):
        for line in document.section(section):
            path = document.expand(line.values[3]) if len(line.values) > 3 else ""
            folders[line.key] = path
    found = set()
    for section in ("sourcedisksfiles", "sourcedisksfiles.amd64"):
        for line in document.section(section):
            disk = line.values[0] if line.values else ""
            subfolder = document.expand(line.values[1]) if len(line.values) > 1 else ""
            parts = [folders.get(disk, ""), subfolder, document.expand(line.key)]
            path = "/".join(part.replace("\\", "/").strip("/") for part in parts if part)
            found.add(path.removeprefix("./"))
    return {path for path in found if path}
