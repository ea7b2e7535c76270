"""Driver packages from the operator's folder, staged for first boot to install by pnputil."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.drivers.driver_packages import DriverPackage
from imageport.compose.drivers.offline_choice import wanted_nics
from imageport.compose.first_boot.plan import ADD_DRIVER, FOLDER, WAIT_DEVICES
from imageport.compose.step import Context, Step
from imageport.compose.steps.drivers.install_drivers import choices_of
from imageport.compose.volumes.descriptors import Access

_SETTLE_SECONDS = 120
"""Plug and Play has found all devices of a machine by then; waiting ends as soon as it has."""


class StageDrivers(Step):
    """Put driver packages where first boot installs them from, in Windows' own way."""

    name: ClassVar[str] = "stage_drivers"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = ("first-boot-folder",)
    provides: ClassVar[tuple[str, ...]] = ("drivers-staged",)
    options: ClassVar[tuple[str, ...]] = ("drivers", "required_nic_ids")

    def run(self, context: Context) -> None:
        """Add the packages' files; the one for the target's network adapter must install."""
        context.plan.add(WAIT_DEVICES, str(_SETTLE_SECONDS), required=False)
        if not context.packages:
            return
        wanted = wanted_nics(context.options, context.target)
        context.recorder.add_folder(f"{FOLDER}/drivers", Access.ADMINISTRATORS_ONLY)
        for package in _staged(context):
            root = f"{FOLDER}/drivers/{package.name}"
            context.recorder.add_folder(root, Access.ADMINISTRATORS_ONLY)
            for folder in _folders(package.files):
                context.recorder.add_folder(f"{root}/{folder}", Access.ADMINISTRATORS_ONLY)
            for name in package.files:
                content = (package.folder / name).read_bytes()
                context.recorder.add_file(f"{root}/{name}", content, Access.ADMINISTRATORS_ONLY)
            is_required = any(package.inf.serves(hardware_id) for hardware_id in wanted)
            context.plan.add(
                ADD_DRIVER, f"{package.name}\\{package.inf_name}", required=is_required
            )


def _staged(context: Context) -> list[DriverPackage]:
    """Return the packages without those of which the image has something newer."""
    return [choice.package for choice in choices_of(context) if choice.is_staged]


def _folders(files: tuple[str, ...]) -> list[str]:
    """Return the folders that files lie in, parents first."""
    parents = {str(folder) for name in files for folder in PurePosixPath(name).parents}
    return sorted(parents - {"."})
