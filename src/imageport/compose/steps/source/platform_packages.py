"""Driver packages of a platform's tools: which they are, which must stay, and how one goes.

Windows 8 and later keep packages in ``DriverDatabase`` of SYSTEM and DRIVERS. Reference: real
hives; what pnputil removes of a package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from imageport.compose.drivers.inf import id_matches
from imageport.compose.drivers.installed_drivers import (
    DATABASES,
    INF_FOLDER,
    STORE,
    find_installed,
    infs_for,
    services_of,
)
from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import Registry
from imageport.compose.hives.registry_value import Value
from imageport.compose.recorder import Recorder
from imageport.compose.step import Facts
from imageport.compose.steps.source.source_platform import SourcePlatform, matches

_CATALOGUES = "Windows/System32/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}"
_LOCKDOWN = "Microsoft\\Windows\\CurrentVersion\\Setup\\PnpLockdownFiles"
_STORAGE_CLASSES = {
    "{4d36e96a-e325-11ce-bfc1-08002be10318}",  # HDC
    "{4d36e97b-e325-11ce-bfc1-08002be10318}",  # SCSIAdapter
}


@dataclass(frozen=True, slots=True)
class OldPackage:
    """One installed package of the platform's maker."""

    hive: str
    store: str
    """Its key in the database, and its folder in the driver store."""
    oem_inf: str
    services: tuple[str, ...]
    stays: str = ""
    """Why it is not removed, "" when it is."""

    @property
    def owner_names(self) -> tuple[str, str]:
        """Return, in lower case, how Windows notes who set a service up, whatever the version."""
        return self.oem_inf, f"!{self.title}.inf"

    @property
    def title(self) -> str:
        """Return the INF's own name without its ending, which makers name after the driver."""
        return self.store.lower().partition(".inf")[0]


def old_packages(
    facts: Facts, platform: SourcePlatform, disk_drivers: set[str]
) -> list[OldPackage]:
    """Return the platform's packages; each that stays says why.

    ``disk_drivers`` are those of `kept_disk_drivers`.
    """
    registry = facts.registry
    found = [
        OldPackage(hive, key.name, key.text("").lower(), tuple(services))
        for hive, key in _packages(registry)
        if _is_of(platform, key)
        for services in [services_of(registry, hive, key.name)]
    ]
    own = {
        package.oem_inf
        for new in facts.packages
        for package in find_installed(registry, facts.files, new.inf_data)
    }
    has_other = _has_other_network_driver(facts, {package.oem_inf for package in found})
    judged = []
    for package in found:
        stays = ""
        if package.oem_inf in own:
            stays = "is the payload's"
        elif _serves_target(facts, package):
            stays = f"serves devices of {facts.target.name}"
        elif disk_drivers & {*(name.lower() for name in package.services), package.title}:
            stays = "leads to the disk where the image comes from"
        elif not has_other and _is_network(registry, package):
            stays = "is the only network driver"
        judged.append(replace(package, stays=stays))
    return judged


def kept_disk_drivers(registry: Registry, platform: SourcePlatform) -> set[str]:
    """Return, in lower case, the drivers of the platform that lead to the disk it boots from."""
    sets = registry.control_sets
    named = {
        name.lower()
        for name in platform.disk_drivers
        if any(registry.start_of(one, name) is not None for one in sets)
    }
    in_use = set() if platform.has_emulated_disk else _disk_services(registry)
    return named | {name.lower() for name in in_use}


def claimed_services(registry: Registry, gone: list[OldPackage]) -> set[str]:
    """Return, in lower case, the services that packages which are not ``gone`` name."""
    removed = {(package.hive, package.store) for package in gone}
    return {
        service.lower()
        for hive, key in _packages(registry)
        if (hive, key.name) not in removed
        for service in services_of(registry, hive, key.name)
    }


def forget_packages(registry: Registry, recorder: Recorder, gone: list[OldPackage]) -> None:
    """Take packages out of the driver database and the records that protect their files."""
    infs = {package.oem_inf for package in gone}
    for hive in DATABASES if gone else ():
        for path, values in list(_device_ids(registry, hive)):
            named = [name for name in values if name.lower() in infs]
            if named and len(named) == len(values) and not _has_children(registry, hive, path):
                recorder.delete_key(hive, path)
                _delete_if_empty(registry, recorder, hive, path.rpartition("\\")[0])
            else:
                for name in named:
                    recorder.delete_value(hive, path, name)
    for package in gone:
        place = f"DriverDatabase\\DriverInfFiles\\{package.oem_inf}"
        recorder.delete_key(package.hive, place)
        recorder.delete_key(package.hive, f"DriverDatabase\\DriverPackages\\{package.store}")
    _forget_lockdown(registry, recorder, infs)


def package_files(gone: list[OldPackage]) -> Iterator[str]:
    """Yield what packages have on the disk beside the drivers that run."""
    for package in gone:
        stem = package.oem_inf.removesuffix(".inf")
        yield f"{STORE}/{package.store}"
        yield f"{INF_FOLDER}/{package.oem_inf}"
        yield f"{INF_FOLDER}/{stem}.pnf"
        yield f"{_CATALOGUES}/{stem}.cat"


def _packages(registry: Registry) -> Iterator[tuple[str, Key]]:
    for hive in DATABASES:
        key = registry.key(hive, "DriverDatabase\\DriverPackages")
        for package in key.children() if key else []:
            yield hive, package


def _is_of(platform: SourcePlatform, package: Key) -> bool:
    if not platform.is_maker(package.text("Provider")):
        return False
    if not package.text("").lower().startswith("oem"):
        return False  # a part of Windows, whoever wrote it
    return matches(package.text("InfName"), platform.infs) or platform.owns(package.text("OemPath"))


def _serves_target(facts: Facts, package: OldPackage) -> bool:
    wanted = (*facts.target.nic_ids, *(name for ids in facts.target.boot_devices for name in ids))
    wanted += facts.options.required_nic_ids
    return any(
        id_matches(found, needed)
        for found in _hardware_ids(facts.registry, package)
        for needed in wanted
    )


def _hardware_ids(registry: Registry, package: OldPackage) -> Iterator[str]:
    place = f"DriverDatabase\\DriverPackages\\{package.store}\\Descriptors"
    key = registry.key(package.hive, place)
    for bus in key.children() if key else []:
        for device in bus.children():
            yield f"{bus.name}\\{device.name}"


def _has_other_network_driver(facts: Facts, infs: set[str]) -> bool:
    """Say whether a driver that is not among ``infs`` serves the target's adapter."""
    wanted = facts.options.required_nic_ids or facts.target.nic_ids
    for hardware_id in wanted:
        if any(new.inf.serves(hardware_id) for new in facts.packages):
            return True
        if any(inf.lower() not in infs for _, inf in infs_for(facts.registry, hardware_id)):
            return True
    return False


def _is_network(registry: Registry, package: OldPackage) -> bool:
    """Say whether the package's class is Net, by the class in its version record."""
    place = f"DriverDatabase\\DriverPackages\\{package.store}"
    value = registry.value(package.hive, place, "Version")
    net = bytes.fromhex("72e9364d25e3ce11bfc108002be10318")
    return value is not None and value.data[8:24] == net


def _disk_services(registry: Registry) -> set[str]:
    """Return the drivers of disk controllers that the machine has, and that start at boot."""
    current = registry.current_control_set
    found = set()
    for path in device_instances(registry, current):
        class_guid = registry.text("SYSTEM", path, "ClassGUID").lower()
        service = registry.text("SYSTEM", path, "Service")
        if class_guid in _STORAGE_CLASSES and registry.start_of(current, service) == 0:
            found.add(service)
    return found


def device_instances(registry: Registry, control_set: str) -> Iterator[str]:
    """Yield the key of every device that the machine ever had: bus, device, instance."""
    root = f"{control_set}\\Enum"
    enum = registry.key("SYSTEM", root)
    for bus in enum.children() if enum else []:
        for device in bus.children():
            for instance in device.children():
                yield f"{root}\\{bus.name}\\{device.name}\\{instance.name}"


def _device_ids(registry: Registry, hive: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (key, INFs that it names) of the database's device ids and classes.

    A bus has up to twenty thousand ids, and finding a key by its path takes longer the more there
    are: so this walks, and never looks one up.
    """
    root = "DriverDatabase\\DeviceIds"
    ids = registry.key(hive, root)
    for first in ids.children() if ids else []:
        yield f"{root}\\{first.name}", list(first.values())
        for second in first.children():
            yield f"{root}\\{first.name}\\{second.name}", list(second.values())


def _has_children(registry: Registry, hive: str, path: str) -> bool:
    """Say whether a key has keys below: an id without a bus may be spelled as a bus is."""
    key = registry.key(hive, path)
    return key is not None and bool(key.children())


def _delete_if_empty(registry: Registry, recorder: Recorder, hive: str, path: str) -> None:
    key = registry.key(hive, path)
    if key is not None and not key.children() and not key.values():
        recorder.delete_key(hive, path)


def _forget_lockdown(registry: Registry, recorder: Recorder, infs: set[str]) -> None:
    key = registry.key("SOFTWARE", _LOCKDOWN)
    for file in key.children() if key else []:
        value = file.value("Owners")
        owners = value.as_texts() if value else []
        kept = [owner for owner in owners if owner.lower() not in infs]
        path = f"{_LOCKDOWN}\\{file.name}"
        if owners and not kept:
            recorder.delete_key("SOFTWARE", path)
        elif len(kept) < len(owners):
            recorder.set_value("SOFTWARE", path, "Owners", Value.texts(kept))
