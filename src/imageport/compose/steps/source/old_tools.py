"""What a guest has of one platform's tools: what goes, and what stays for which reason."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.compose.drivers.installed_drivers import STORE
from imageport.compose.hives.registry import Registry
from imageport.compose.step import Facts
from imageport.compose.steps.source.platform_files import (
    SYSTEM_FOLDERS,
    files_among_windows,
    own_folders,
)
from imageport.compose.steps.source.platform_packages import (
    OldPackage,
    claimed_services,
    kept_disk_drivers,
    old_packages,
    package_files,
)
from imageport.compose.steps.source.platform_services import (
    binary_of,
    files_in_use,
    lost_names,
    named_services,
    old_services,
)
from imageport.compose.steps.source.platform_software import OldSoftware, old_software
from imageport.compose.steps.source.source_platform import SourcePlatform
from imageport.compose.steps.source.winsock_catalog import winsock_entries


@dataclass(frozen=True, slots=True)
class OldTools:
    """What was found of one platform."""

    platform: SourcePlatform
    packages: tuple[OldPackage, ...]
    services: dict[str, tuple[str, ...]]
    """By control set: what is deleted."""
    lost: dict[str, frozenset[str]]
    """By control set, in lower case: names that filters and lists hold and that do not exist."""
    software: OldSoftware
    is_in_winsock: bool
    """Whether a catalogue names the platform's library: it may be gone, then no socket opens."""
    kept_files: frozenset[str]
    """File names, in lower case, of drivers that stay."""

    @property
    def gone_packages(self) -> list[OldPackage]:
        """Return the driver packages that are removed."""
        return [package for package in self.packages if not package.stays]

    @property
    def is_there(self) -> bool:
        """Say whether anything is to be removed; folders alone do not make an installation."""
        return bool(
            self.gone_packages
            or any(self.services.values())
            or any(self.lost.values())
            or self.is_in_winsock
            or self.software.listed
            or self.software.products
        )

    def gone(self, control_set: str) -> frozenset[str]:
        """Return, in lower case, the services of one control set that will not be there."""
        here = {name.lower() for name in self.services[control_set]}
        return frozenset(here) | self.lost[control_set]

    def summary(self) -> str:
        """Return one line for people: what it is, and what stays."""
        title = ", ".join(self.software.titles) or self.platform.title
        stays = [
            f"{' and '.join(package.services) or package.oem_inf} stays, it {package.stays}"
            for package in self.packages
            if package.stays
        ]
        return "; ".join([f"{title} found", *stays])


def find_old_tools(facts: Facts, platform: SourcePlatform) -> OldTools:
    """Return what the guest has of a platform's tools; changes nothing."""
    registry, files = facts.registry, facts.files
    disk_drivers = kept_disk_drivers(registry, platform)
    packages = old_packages(facts, platform, disk_drivers)
    going = [package for package in packages if not package.stays]
    packaged = frozenset(name.lower() for package in going for name in package.services)
    claimed = claimed_services(registry, going) | disk_drivers
    services, lost = {}, {}
    for control_set in registry.control_sets:
        services[control_set] = tuple(
            name
            for name in old_services(registry, files, platform, control_set, packaged)
            if name.lower() not in claimed or registry.start_of(control_set, name) is None
        )
    every = [name for names in services.values() for name in names]
    for control_set in registry.control_sets:
        named = [*named_services(registry, control_set), *every]
        lost[control_set] = frozenset(lost_names(registry, platform, control_set, named))
    return OldTools(
        platform,
        tuple(packages),
        services,
        lost,
        old_software(registry, platform),
        _is_in_winsock(registry, platform),
        _kept_files(facts, packages),
    )


def old_files(facts: Facts, tools: OldTools) -> list[str]:
    """Return what goes from the Windows volume, folders whole, in the order it goes.

    Whoever made it, nothing goes that a service runs which stays in any control set.
    """
    files, platform = facts.files, tools.platform
    paths = [
        path
        for path in _binaries(facts, tools)
        if path.rpartition("/")[2].lower() not in tools.kept_files and platform.made(files, path)
    ]
    paths += files_among_windows(files, platform, tools.kept_files)
    paths += package_files(tools.gone_packages)
    paths += own_folders(files, platform)
    paths += tools.software.packages
    known = {path.lower(): path for path in paths}
    in_use = files_in_use(facts.registry, tools.services)
    return [
        path
        for key, path in known.items()
        if files.exists(path) and not any(f"{used}/".startswith(f"{key}/") for used in in_use)
    ]


def _binaries(facts: Facts, tools: OldTools) -> list[str]:
    """Return what services run, and what packages put among Windows' files."""
    paths = []
    for control_set, names in tools.services.items():
        for name in names:
            key = facts.registry.service(control_set, name)
            if key is not None:
                paths.append(binary_of(key))
    for package in tools.gone_packages:
        for name in facts.files.names(f"{STORE}/{package.store}"):
            paths += [f"{folder}/{name}" for folder in SYSTEM_FOLDERS]
    return [path for path in dict.fromkeys(paths) if path.lower().startswith("windows/")]


def _is_in_winsock(registry: Registry, platform: SourcePlatform) -> bool:
    return any(
        entry.library in platform.winsock_libraries
        for control_set in registry.control_sets
        for entry in winsock_entries(registry, control_set)
    )


def _kept_files(facts: Facts, packages: list[OldPackage]) -> frozenset[str]:
    """Return the names of drivers that a kept package, or a kept service, has."""
    names = {
        name.lower()
        for package in packages
        if package.stays
        for name in facts.files.names(f"{STORE}/{package.store}")
    }
    for control_set in facts.registry.control_sets:
        for package in packages:
            for service in package.services if package.stays else ():
                key = facts.registry.service(control_set, service)
                if key is not None:
                    names.add(binary_of(key).rpartition("/")[2])
    return frozenset(names)
