"""Whether a driver package is whole in the guest: everything Windows needs to bind it is there."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.drivers.installed_drivers import DATABASE
from imageport.compose.drivers.package_layout import PackageLayout
from imageport.compose.guest_paths import shown_file
from imageport.compose.hives.registry import DISABLED, Registry, service_path
from imageport.compose.volumes.guest_files import GuestFiles


def missing_parts(
    registry: Registry, files: GuestFiles, layout: PackageLayout, hive: str
) -> list[str]:
    """Return what an installed package lacks, nothing when it is whole.

    Args:
        registry: the guest's hives.
        files: the guest's files.
        layout: the package under the names that it has there.
        hive: whose database knows it, "" when none does.
    """
    return [
        *_missing_files(files, layout),
        *_missing_entries(registry, layout, hive),
        *_missing_services(registry, layout),
    ]


def _missing_files(files: GuestFiles, layout: PackageLayout) -> Iterator[str]:
    wanted = [layout.inf_path, layout.catalogue_path, *layout.copies()]
    wanted += [f"{layout.store_folder}/{name}" for name in layout.files]
    for path in wanted:
        if not files.exists(path):
            yield f"file {shown_file(path)}"


def _missing_entries(registry: Registry, layout: PackageLayout, hive: str) -> Iterator[str]:
    if not hive:
        yield "an entry in a driver database"
        return
    package = f"{DATABASE}\\DriverPackages\\{layout.store}"
    if registry.key(hive, package) is None:
        yield f"key HKLM\\{hive}\\{package}"
    for model in layout.models:
        place = f"{DATABASE}\\DeviceIds\\{model.hardware_id}"
        if registry.value(hive, place, layout.oem_inf) is None:
            yield f"value {layout.oem_inf} of HKLM\\{hive}\\{place}"
    for install in layout.installs:
        place = f"{package}\\Configurations\\{install.name}"
        if registry.key(hive, place) is None:
            yield f"key HKLM\\{hive}\\{place}"


def _missing_services(registry: Registry, layout: PackageLayout) -> Iterator[str]:
    for control_set in registry.control_sets:
        for service in layout.services:
            path = service_path(control_set, service.name)
            start = registry.start_of(control_set, service.name)
            if start is None:
                yield f"service {service.name} in {control_set}"
            elif start == DISABLED and service.start != DISABLED:
                yield f"service {service.name} in {control_set}: it is disabled"
            elif not registry.text("SYSTEM", path, "ImagePath"):
                yield f"value ImagePath of HKLM\\SYSTEM\\{path}"
