# References: Microsoft "INF AddService directive", "Specifying Driver Load Order"; the registry of
# real Windows 10 systems for Owners, Tag and PnpLockdownFiles.
"""Driver packages put in offline, so that the very first start has its disk and its network."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Refusal, Tier
from imageport.compose.drivers.inf_installs import InfService
from imageport.compose.drivers.inf_values import APPEND, NO_CLOBBER, InfValue
from imageport.compose.drivers.installed_drivers import DATABASE
from imageport.compose.drivers.offline_choice import Choice, GuestDrivers, choose
from imageport.compose.drivers.package_database import database_entries, marked
from imageport.compose.drivers.package_layout import PackageLayout
from imageport.compose.first_boot.plan import FOLDER, REMOVE_OVERRIDE
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Kind, Value
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.volumes.descriptors import Access
from imageport.compose.volumes.file_version import FileVersion, file_version, read_version

_BOOT_START, _SYSTEM_START = 0, 1
_MICROSOFT = "microsoft"
_LOCKDOWN = "Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles"
_LOCKDOWN_CLASS = 5
"""What real systems have for files of driver packages."""


class InstallDrivers(Step):
    """Install driver packages for the target's disk and network adapter, complete, offline."""

    name: ClassVar[str] = "install_drivers"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("drivers-installed",)
    options: ClassVar[tuple[str, ...]] = ("drivers", "required_nic_ids")

    def reason(self, facts: Facts) -> str:
        """Tell what becomes of each package."""
        return "; ".join(choice.reason for choice in choices_of(facts))

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse when a driver that the target boots from is neither here nor in the payload."""
        current = facts.registry.current_control_set
        offered = {s.name.lower() for package in facts.packages for s in package.inf.services}
        return [
            refusal(
                "driver_missing",
                f"Neither the image nor the payload has the driver {driver}, which the disks of "
                f"{facts.target.name}'s machines are read by.",
            )
            for driver in facts.target.added_boot_drivers
            if driver not in offered and facts.registry.service(current, driver) is None
        ]

    def run(self, context: Context) -> None:
        """Put files, database and services of each package in; what is whole stays."""
        for choice in choices_of(context):
            if choice.layout is None:
                continue
            if not choice.is_whole:
                _add_files(context, choice, choice.layout)
                _add_database(context, choice, choice.layout)
                for service in choice.layout.services:
                    _add_service(context, choice.layout, service)
            _let_start(context, choice.layout, is_for_boot=choice.is_for_boot)


def choices_of(facts: Facts) -> list[Choice]:
    """Return what becomes of each package of the payload."""
    guest = GuestDrivers(facts.options, facts.target, facts.inspection, facts.registry, facts.files)
    return choose(guest, facts.packages)


def _add_files(context: Context, choice: Choice, layout: PackageLayout) -> None:
    package, recorder = choice.package, context.recorder
    places = [(f"{layout.store_folder}/{name}", name) for name in package.files]
    places += [(layout.inf_path, package.inf_name), *layout.copies().items()]
    catalogue = _catalogue(choice)
    if catalogue:
        places.append((layout.catalogue_path, catalogue))
    if not choice.hive:  # an older Windows keeps another store, which pnputil fills
        places = list(layout.copies().items())
    for path, name in places:
        recorder.ensure_folder(path.rpartition("/")[0], Access.USERS_READ)
        content = package.folder / name
        if not context.files.exists(path):
            recorder.add_file(path, content, Access.USERS_READ)
        elif _may_replace(file_version(context.files, path), read_version(package.read(name))):
            recorder.replace_file(path, content)


def _may_replace(old: FileVersion | None, new: FileVersion | None) -> bool:
    """Say whether a driver's file gives way: only to a newer one, and Microsoft's never."""
    if old is None or new is None or old.company.lower().startswith(_MICROSOFT):
        return False
    return _numbers(old) < _numbers(new)


def _numbers(version: FileVersion) -> list[int]:
    return [int(part) for part in version.version.split(".")]


def _catalogue(choice: Choice) -> str:
    wanted = choice.package.inf.catalog.replace("\\", "/").lower()
    return next((name for name in choice.package.files if name.lower() == wanted), "")


def _add_database(context: Context, choice: Choice, layout: PackageLayout) -> None:
    if not choice.hive:
        _add_critical_devices(context, layout)
        return
    origin = f"C:\\{FOLDER}\\drivers\\{choice.package.name}".replace("/", "\\")
    catalogue = choice.package.read(_catalogue(choice))
    for entry in database_entries(layout, origin, catalogue):
        if entry.value is None:
            context.recorder.add_key(choice.hive, entry.key)
        else:
            context.recorder.set_value(choice.hive, entry.key, entry.name, entry.value)
    number = int(layout.oem_inf[3:-4])
    for hive in context.registry.hives:
        known = context.registry.value(hive, DATABASE, "OemInfMap")
        if known is not None:
            value = Value(Kind.BINARY, marked(known.data, number))
            context.recorder.set_value(hive, DATABASE, "OemInfMap", value)
    _lock_down(context, layout)


def _lock_down(context: Context, layout: PackageLayout) -> None:
    """Keep installers from replacing the driver's files, as its INF asks for."""
    if not layout.inf.is_locked_down:
        return
    source = f"%SystemRoot%/{layout.store_folder.removeprefix('Windows/')}".replace("/", "\\")
    for path, name in layout.copies().items():
        key = f"{_LOCKDOWN}\\%SystemRoot%/{path.removeprefix('Windows/')}"
        values = {
            "Class": Value.dword(_LOCKDOWN_CLASS),
            "Owners": _with_owner(context, "SOFTWARE", key, layout.oem_inf),
            "Source": Value.expandable(f"{source}\\{name}".replace("/", "\\")),
        }
        for value_name, value in values.items():
            context.recorder.set_value("SOFTWARE", key, value_name, value)


def _add_critical_devices(context: Context, layout: PackageLayout) -> None:
    """Bind devices as Windows 7 does: by id, in every control set, to a service alone."""
    for control_set in context.registry.control_sets:
        for model in layout.models:
            function = layout.inf.install_of(model).function
            if function is None:
                continue
            device = model.hardware_id.replace("\\", "#").lower()
            key = f"{control_set}\\Control\\CriticalDeviceDatabase\\{device}"
            service, class_guid = Value.text(function.name), Value.text(layout.inf.class_guid)
            context.recorder.set_value("SYSTEM", key, "Service", service)
            context.recorder.set_value("SYSTEM", key, "ClassGUID", class_guid)


def _add_service(context: Context, layout: PackageLayout, service: InfService) -> None:
    for control_set in context.registry.control_sets:
        key = service_path(control_set, service.name)
        for name, value in _service_values(context, layout, service, control_set).items():
            context.recorder.set_value("SYSTEM", key, name, value)
        _set_values(context, key, service.values)
        log = service_path(control_set, f"EventLog\\System\\{service.name}")
        _set_values(context, log, service.event_log)


def _service_values(
    context: Context, layout: PackageLayout, service: InfService, control_set: str
) -> dict[str, Value]:
    key = service_path(control_set, service.name)
    values = {
        "Type": Value.dword(service.kind),
        "Start": Value.dword(service.start),
        "ErrorControl": Value.dword(service.error_control),
        "ImagePath": Value.expandable(layout.image_path(service)),
        "Owners": _with_owner(context, "SYSTEM", key, layout.oem_inf),
    }
    if service.display_name:
        text = layout.inf.text_of(service.display_name)
        is_token = text != service.display_name
        shown = f"@{layout.oem_inf},{service.display_name};{text}" if is_token else text
        values["DisplayName"] = Value.text(shown)
    if service.group:
        values["Group"] = Value.text(service.group)
        if service.start in {_BOOT_START, _SYSTEM_START}:
            values["Tag"] = Value.dword(_tag(context, control_set, service))
    if service.dependencies:
        services = [name for name in service.dependencies if not name.startswith("+")]
        groups = [name[1:] for name in service.dependencies if name.startswith("+")]
        values |= {"DependOnService": Value.texts(services)} if services else {}
        values |= {"DependOnGroup": Value.texts(groups)} if groups else {}
    return values


def _tag(context: Context, control_set: str, service: InfService) -> int:
    """Return the service's own tag, else one that nobody in its load order group has."""
    registry = context.registry
    own = registry.number("SYSTEM", service_path(control_set, service.name), "Tag")
    if own is not None:
        return own
    services = registry.key("SYSTEM", f"{control_set}\\Services")
    taken = [0]
    for other in services.children() if services else []:
        group, tag = other.value("Group"), other.value("Tag")
        if group and tag and group.as_text().lower() == service.group.lower():
            taken.append(tag.as_number() or 0)
    return max(taken) + 1


def _with_owner(context: Context, hive: str, key: str, oem_inf: str) -> Value:
    known = context.registry.value(hive, key, "Owners")
    names = known.as_texts() if known else []
    return Value.texts(names if oem_inf in names else [*names, oem_inf])


def _set_values(context: Context, base: str, values: tuple[InfValue, ...]) -> None:
    """Set values of an INF below a key, as its flags say."""
    for item in values:
        key = f"{base}\\{item.key}" if item.key else base
        known = context.registry.value("SYSTEM", key, item.name)
        if item.value is None:
            context.recorder.add_key("SYSTEM", key)
        elif item.flags & APPEND and known is not None:
            texts = known.as_texts()
            more = [text for text in item.value.as_texts() if text not in texts]
            context.recorder.set_value("SYSTEM", key, item.name, Value.texts([*texts, *more]))
        elif known is None or not item.flags & NO_CLOBBER:
            context.recorder.set_value("SYSTEM", key, item.name, item.value)


def _let_start(context: Context, layout: PackageLayout, *, is_for_boot: bool) -> None:
    """Take overrides of the old hardware away; what drives the disk starts with the kernel."""
    for service in layout.services:
        for control_set in context.registry.control_sets:
            key = service_path(control_set, service.name)
            context.recorder.delete_key("SYSTEM", f"{key}\\StartOverride")
            if is_for_boot and service.is_function:
                context.recorder.set_value("SYSTEM", key, "Start", Value.dword(_BOOT_START))
        planned = {s.arguments for s in context.plan.steps if s.verb == REMOVE_OVERRIDE}
        if is_for_boot and service.is_function and (service.name,) not in planned:
            context.plan.add(REMOVE_OVERRIDE, service.name)
