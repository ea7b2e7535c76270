"""Which driver packages are put in offline, which wait for pnputil at first boot, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineOptions, Inspection
from imageport.compose.drivers.driver_packages import DriverPackage
from imageport.compose.drivers.inf import DriverInf
from imageport.compose.drivers.inf_models import WindowsVersion
from imageport.compose.drivers.installed_drivers import (
    DATABASE,
    OEM_INF,
    InstalledPackage,
    find_installed,
    newer_driver,
    oem_infs,
)
from imageport.compose.drivers.package_database import next_oem_number
from imageport.compose.drivers.package_layout import PackageLayout
from imageport.compose.drivers.package_state import missing_parts
from imageport.compose.hives.registry import Registry, service_path
from imageport.compose.volumes.guest_files import GuestFiles

_BOOT_START = 0


@dataclass(frozen=True, slots=True)
class GuestDrivers:
    """The guest as far as drivers are chosen by it."""

    options: EngineOptions
    target: CloudTarget
    inspection: Inspection
    registry: Registry
    files: GuestFiles

    @property
    def system(self) -> WindowsVersion:
        """Return the version of Windows."""
        return WindowsVersion.of(self.inspection.build, self.inspection.product_name)

    @property
    def has_database(self) -> bool:
        """Say whether the kernel looks drivers up in a database (Windows 8 and later)."""
        return self.registry.key("SYSTEM", DATABASE) is not None


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes of one package; ``layout`` is None when it is not put in offline."""

    package: DriverPackage
    reason: str
    is_staged: bool = True
    """Whether first boot adds it with pnputil."""
    layout: PackageLayout | None = None
    hive: str = ""
    """Whose database gets it; "" where there is none."""
    is_for_boot: bool = False
    is_whole: bool = False
    """Whether it is in the guest already, with nothing missing."""


def serves_boot(inf: DriverInf, target: CloudTarget) -> bool:
    """Say whether the target's machines read their disk through the driver."""
    return any(inf.serves(name) for names in target.boot_devices for name in names)


def wanted_nics(options: EngineOptions, target: CloudTarget) -> tuple[str, ...]:
    """Return the network adapters of which one must have a driver."""
    return options.required_nic_ids or target.nic_ids


def is_offline_kind(inf: DriverInf, options: EngineOptions, target: CloudTarget) -> bool:
    """Say whether the package is for the disk or the network adapter of the target's machines."""
    nics = wanted_nics(options, target)
    return serves_boot(inf, target) or any(inf.serves(name) for name in nics)


def choose(guest: GuestDrivers, packages: tuple[DriverPackage, ...]) -> list[Choice]:
    """Return what becomes of each package, in their order; they get different numbers."""
    taken: list[str] = []
    choices = []
    for package in packages:
        choice = _choose(guest, package, taken)
        if choice.layout is not None:
            taken.append(choice.layout.oem_inf)
        choices.append(choice)
    return choices


def _choose(guest: GuestDrivers, package: DriverPackage, taken: list[str]) -> Choice:
    inf = package.inf
    what = f"{package.name} {'.'.join(map(str, inf.version.numbers))}"
    better = _newer(guest, inf)
    if better:
        reason = f"{what} is left out: the image has the newer {better}"
        return Choice(package, reason, is_staged=False)
    if not is_offline_kind(inf, guest.options, guest.target):
        return Choice(package, f"{what} waits for first boot: no device of the disk or the network")
    if problem := offline_problem(guest, inf):
        return Choice(package, f"{what} waits for first boot: {problem}")
    is_for_boot = serves_boot(inf, guest.target)
    hive = _hive(guest, inf, is_for_boot=is_for_boot)
    known = find_installed(guest.registry, guest.files, package.inf_data)
    for installed in known:
        if is_for_boot and installed.hive != hive:
            continue  # the kernel looks into SYSTEM only before it can read a disk
        layout = _layout(guest, package, installed)
        if not missing_parts(guest.registry, guest.files, layout, installed.hive):
            reason = f"{what} is there as {installed.oem_inf}"
            return Choice(
                package,
                reason,
                layout=layout,
                hive=installed.hive,
                is_for_boot=is_for_boot,
                is_whole=True,
            )
    installed = known[0] if known else InstalledPackage(_free_name(guest, taken))
    layout = _layout(guest, package, installed)
    reason = f"{what} becomes {installed.oem_inf}"
    if hive == "SYSTEM" and not is_for_boot and not _starts_at_boot(inf):
        reason += ", in SYSTEM because there is no hive DRIVERS"
    if left := layout.not_followed():
        reason += f" (left to first boot: {'; '.join(left[:5])})"
    return Choice(package, reason, layout=layout, hive=hive, is_for_boot=is_for_boot)


def _newer(guest: GuestDrivers, inf: DriverInf) -> str:
    """Return the better driver when the image has one for every device of the target's it is for.

    One that is for none of them is left out when any of its devices has a better one.
    """
    nics = wanted_nics(guest.options, guest.target)
    devices = [*(name for names in guest.target.boot_devices for name in names), *nics]
    served: list[tuple[str, ...]] = [(name,) for name in devices if inf.serves(name)]
    found = [
        newer_driver(guest.registry, guest.files, names, inf.version)
        for names in served or [inf.hardware_ids]
    ]
    return found[0] if all(found) else ""


def offline_problem(guest: GuestDrivers, inf: DriverInf) -> str:
    """Return why a package cannot be put in offline and waits for first boot, "" when it can."""
    if not guest.has_database and not serves_boot(inf, guest.target):
        return "this Windows has no driver database"
    if not inf.class_guid:
        return "its INF names no ClassGuid"
    models = inf.models_for(guest.system)
    if not models:
        return f"its INF has no devices for Windows {guest.inspection.build}"
    if any(inf.install_of(model).function is None for model in models):
        # Needs=…: bound as it stands there, the device would have no driver at all.
        return "its INF takes the driver of a device from another INF"
    return next(_inbox_services(guest, inf), "")


def _inbox_services(guest: GuestDrivers, inf: DriverInf) -> Iterator[str]:
    """Yield what is wrong with services that belong to Windows itself: they stay as they are."""
    current = guest.registry.current_control_set
    for service in inf.services:
        owners = guest.registry.value("SYSTEM", service_path(current, service.name), "Owners")
        names = [text for text in owners.as_texts() if text[:1] != "!"] if owners else []
        inbox = [name for name in names if not name.lower().startswith("oem")]
        if inbox:
            yield f"service {service.name} is Windows' own, of {inbox[0]}"


def _layout(
    guest: GuestDrivers, package: DriverPackage, installed: InstalledPackage
) -> PackageLayout:
    # Windows derives the digits from the package's content, in a way that it does not tell.
    own = f"{package.inf_name.lower()}_amd64_{package.digest[:16]}"
    return PackageLayout(
        package.inf,
        package.inf_name,
        package.files,
        guest.system,
        installed.oem_inf,
        installed.store or own,
    )


def _hive(guest: GuestDrivers, inf: DriverInf, *, is_for_boot: bool) -> str:
    if not guest.has_database:
        return ""
    if is_for_boot or _starts_at_boot(inf) or "DRIVERS" not in guest.registry.hives:
        return "SYSTEM"
    return "DRIVERS"


def _starts_at_boot(inf: DriverInf) -> bool:
    return any(service.start == _BOOT_START for service in inf.services)


def _free_name(guest: GuestDrivers, taken: list[str]) -> str:
    names = [*oem_infs(guest.files), *taken]
    maps = []
    for hive in guest.registry.hives:
        key = guest.registry.key(hive, f"{DATABASE}\\DriverInfFiles")
        names += [child.name.lower() for child in key.children()] if key else []
        value = guest.registry.value(hive, DATABASE, "OemInfMap")
        maps += [value.data] if value else []
    known = [name for name in names if OEM_INF.fullmatch(name)]
    return f"oem{next_oem_number(known, maps)}.inf"
