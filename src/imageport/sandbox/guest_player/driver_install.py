r"""What ``pnputil /add-driver x.inf /install`` leaves behind: driver store, database, service.

The package goes into the driver store and its INF to ``Windows\INF\oemN.inf``. If the machine has
one of its devices, the driver is installed for it. A package that is there already stays as it is.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from imageport.sandbox.guest_player import registry
from imageport.sandbox.guest_player.driver_database import active_package, compatible_ids
from imageport.sandbox.guest_player.inf import NO_CATALOG, Inf, InfError, InfModel, parse_inf
from imageport.sandbox.guest_player.registry import BINARY, Hive, number, string, strings
from imageport.sandbox.guest_player.volume import WindowsVolume

_DIRECTORIES = {"10": "Windows", "11": "Windows\\System32", "12": "Windows\\System32\\drivers"}
_STORE = "Windows\\System32\\DriverStore\\FileRepository"
_EPOCH = datetime(1601, 1, 1, tzinfo=UTC)
FILE_NOT_FOUND = "2"
_BOOT_START = 0


@dataclass(frozen=True, slots=True)
class _Package:
    folder: str
    name: str
    store: str
    oem: str
    inf: Inf
    models: tuple[InfModel, ...]

    @property
    def installs(self) -> dict[str, str]:
        """Return install section → service."""
        found = {model.install: self.inf.service(model.install) for model in self.models}
        return {install: service[0] for install, service in found.items() if service}


class DriverSetup:
    """Windows' device installation on one machine; edits are collected in the hives."""

    def __init__(
        self,
        volume: WindowsVolume,
        system: Hive,
        drivers: Hive,
        control_set: str,
        devices: tuple[str, ...],
    ) -> None:
        self._devices = devices
        self._volume = volume
        self._system = system
        self._drivers = drivers
        self._set = control_set

    def add(self, inf_path: str) -> str:
        """Add the package of one INF and install it for a device that is here.

        Returns what pnputil would say.

        Raises:
            InfError: the package is refused; its code is the exit code.
        """
        package = self._package(inf_path)
        if not self._is_whole(package):
            self._publish(package, inf_path)
        for device in self._devices:
            ids = compatible_ids(device)
            models = [model for model in package.models if model.hardware_id in ids]
            if models:
                best = min(models, key=lambda model: ids.index(model.hardware_id))
                if self._is_driven(device, package, best):
                    return f"Published Name: {package.oem} (up to date on {device})"
                self._install(package, device, best)
                return f"Published Name: {package.oem} (installed on {device})"
        return f"Published Name: {package.oem} (no such device here)"

    def _publish(self, package: _Package, inf_path: str) -> None:
        """Take the package into the driver store and its database."""
        for name in (package.name, package.inf.catalog(), *package.inf.files()):
            data = self._volume.read(f"{package.folder}\\{name}")
            if data is None:
                raise InfError(FILE_NOT_FOUND, f"{name} is missing from the package")
            self._volume.write(f"{_STORE}\\{package.store}\\{name}", data)
        self._volume.write(f"Windows\\INF\\{package.oem}", self._volume.read(inf_path) or b"")
        boot = any(_start_type(package, install) == _BOOT_START for install in package.installs)
        _register(self._system if boot else self._drivers, package)

    def _is_whole(self, package: _Package) -> bool:
        """Tell whether the store has all of the package, with the contents that it brings."""
        known = [active_package(hive, package.oem) for hive in (self._system, self._drivers)]
        return package.store in known and all(
            self._volume.read(f"{_STORE}\\{package.store}\\{name}")
            == self._volume.read(f"{package.folder}\\{name}")
            for name in (package.name, package.inf.catalog(), *package.inf.files())
        )

    def _is_driven(self, device: str, package: _Package, model: InfModel) -> bool:
        """Tell whether Plug and Play gave the device this very driver before."""
        service = package.inf.service(model.install)
        instances = self._system.subtree(f"{self._set}\\Enum\\{device}").values()
        bound = {registry.text(key, "service").lower() for key in instances}
        return service is not None and service[0].lower() in bound

    def _package(self, inf_path: str) -> _Package:
        data = self._volume.read(inf_path)
        if data is None:
            raise InfError(FILE_NOT_FOUND, f"no file {inf_path}")
        inf = parse_inf(data)
        if not inf.catalog():
            raise InfError(NO_CATALOG, "no CatalogFile in [Version]: not signed")
        folder, _, name = inf_path.rpartition("\\")
        digest = hashlib.sha256(data).hexdigest()[:16]
        oem = self._oem_name(data)
        known = (active_package(hive, oem) for hive in (self._system, self._drivers))
        store = next(filter(None, known), f"{name.lower()}_amd64_{digest}")
        return _Package(folder, name, store, oem, inf, tuple(inf.models()))

    def _oem_name(self, inf: bytes) -> str:
        """Return the name that the package has or gets; adding it twice changes nothing."""
        taken = {entry.lower() for entry in self._volume.names("Windows\\INF")}
        names = [f"oem{number_}.inf" for number_ in range(10_000)]
        for name in names:
            if name in taken and self._volume.read(f"Windows\\INF\\{name}") == inf:
                return name
        for name in names:
            if name not in taken:
                return name
        raise InfError("0xE0000203", "no free name in Windows\\INF")

    def _install(self, package: _Package, device: str, model: InfModel) -> None:
        """Copy the driver's file, make its service and the device's instance."""
        inf = package.inf
        service = inf.service(model.install)
        if service is None:
            raise InfError("0xE000021F", f"[{model.install}] names no service")
        name, section = service
        directory, _, file_name = inf.value(section, "ServiceBinary").strip("%").partition("%\\")
        target = _DIRECTORIES.get(directory, f"{_STORE}\\{package.store}")
        if directory in _DIRECTORIES:
            data = self._volume.read(f"{_STORE}\\{package.store}\\{file_name}")
            if data is None:
                raise InfError(FILE_NOT_FOUND, f"{file_name} is missing from the package")
            self._volume.write(f"{target}\\{file_name}", data)
        self._system.set(
            f"{self._set}\\Services\\{name}",
            {
                "Type": number(int(inf.value(section, "ServiceType") or "1", 0)),
                "Start": number(_start_type(package, model.install)),
                "ErrorControl": number(int(inf.value(section, "ErrorControl") or "1", 0)),
                "ImagePath": string(
                    "\\SystemRoot" + target[len("Windows") :] + f"\\{file_name}", 2
                ),
                "DisplayName": string(f"@{package.oem},%ServiceName%;" + model.description),
                "Owners": strings(package.oem),
            },
        )
        self._install_device(package, device, model, name)

    def _install_device(
        self, package: _Package, device: str, model: InfModel, service: str
    ) -> None:
        inf = package.inf
        class_guid = inf.value("Version", "ClassGuid").lower()
        classes = f"{self._set}\\Control\\Class\\{class_guid}"
        taken = {child for child in self._system.children(classes) if child.isdigit()}
        instance = next(f"{n:04d}" for n in range(10_000) if f"{n:04d}" not in taken)
        described = {
            "DriverDesc": string(model.description),
            "ProviderName": string(inf.value("Version", "Provider")),
            "InfPath": string(package.oem),
            "MatchingDeviceId": string(model.hardware_id.lower()),
        }
        self._system.set(f"{classes}\\{instance}", described)
        self._system.set(
            f"{self._set}\\Enum\\{device}\\3&2411e6fe&0&28",
            {
                "DeviceDesc": string(f"@{package.oem},%adapter%;" + model.description),
                "Service": string(service),
                "ClassGUID": string(class_guid),
                "Driver": string(f"{class_guid}\\{instance}"),
                "ConfigFlags": number(0),
            },
        )


def _register(hive: Hive, package: _Package) -> None:
    """Write the driver database: devices, INF files, packages."""
    database, inf = "DriverDatabase", package.inf
    class_guid = inf.value("Version", "ClassGuid").lower()
    for model in package.models:
        hive.set(f"{database}\\DeviceIds\\{model.hardware_id}", {package.oem: _rank(model)})
    hive.set(f"{database}\\DeviceIds\\{class_guid}", {package.oem: (0, b"")})
    hive.set(
        f"{database}\\DriverInfFiles\\{package.oem}",
        {
            "": strings(package.store),
            "Active": string(package.store),
            "Configurations": strings(*sorted({model.install for model in package.models})),
        },
    )
    entry = f"{database}\\DriverPackages\\{package.store}"
    hive.set(
        entry,
        {
            "": string(package.oem),
            "Catalog": string(inf.catalog()),
            "InfName": string(package.name),
            "OemPath": string("C:\\" + package.folder),
            "Provider": string(inf.value("Version", "Provider")),
            "SignerScore": number(0x0D000004),
            "Version": (BINARY, _version(inf, class_guid)),
        },
    )
    for install, service in package.installs.items():
        values = {"ConfigFlags": number(0), "Service": string(service)}
        hive.set(f"{entry}\\Configurations\\{install}", values)
    for model in package.models:
        described = {"Configuration": string(model.install)}
        hive.set(f"{entry}\\Descriptors\\{model.hardware_id}", described)


def _rank(model: InfModel) -> tuple[int, bytes]:
    """Return hardware id or compatible id, no feature score, and its place among the latter."""
    if model.place == 0:
        return BINARY, b"\x01\xff\x00\x00"
    return BINARY, b"\x02\xff" + struct.pack("<H", model.place - 1)


def _version(inf: Inf, class_guid: str) -> bytes:
    """Return 48 bytes: class, driver date as FILETIME, four numbers in reverse order."""
    fields = next((v for k, v in inf.section("Version") if k.lower() == "driverver"), ["", ""])
    date, version = (*fields, "")[:2]
    when = datetime.strptime(date, "%m/%d/%Y").replace(tzinfo=UTC) if date else _EPOCH
    stamp = int((when - _EPOCH).total_seconds()) * 10_000_000
    numbers = ([int(part) for part in version.split(".") if part] + [0, 0, 0, 0])[:4]
    head = bytes.fromhex("00ff090000000000") + UUID(class_guid).bytes_le
    return head + struct.pack("<Q4H8x", stamp, *reversed(numbers))


def _start_type(package: _Package, install: str) -> int:
    service = package.inf.service(install)
    return int(package.inf.value(service[1], "StartType") or "3", 0) if service else 3
